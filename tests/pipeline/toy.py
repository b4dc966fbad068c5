"""A project of its own with a small study, and the commands that its user gives."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from finetrace.pipeline.graph import opened

ROOT = Path(__file__).parents[2]


def environment(project: Path, **extra: str) -> dict[str, str]:
    """This interpreter's tools, the project's own source, nothing of the machine."""
    found = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@t",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
        "DVC_SITE_CACHE_DIR": str(project.parent / f"site-{project.name}"),
        **extra,
    }
    found.pop("DVC_ROOT", None)
    return found


def command(project: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run a command in the project."""
    done = subprocess.run(
        words, cwd=project, env=environment(project), capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert not check or done.returncode == 0, f"{words}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def ran(done: subprocess.CompletedProcess) -> list[str]:
    """Names of the items that a command ran, those that the driver does itself left out."""
    by_dvc = re.findall(r"^Running stage '([^']+)'", done.stdout, flags=re.M)
    return [
        name
        for name in by_dvc + re.findall(r"^done +(\S+)  \[", done.stdout, flags=re.M)
        if name not in ("plan", "settings")
    ]


def finetrace(project: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    return command(project, sys.executable, "-m", "finetrace.cli", *words, check=check)


def repro(project: Path, check: bool = True) -> subprocess.CompletedProcess:
    return finetrace(project, "repro", "--jobs", "2", check=check)


def committed(project: Path, message: str) -> None:
    command(project, "git", "add", "-A")
    command(project, "git", "commit", "-qm", message)


def make_project(folder: Path, params: str) -> Path:
    """A repository with finetrace's code and a study of its own, compiled and committed."""
    folder.mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore", "offline.html"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    (folder / "mlruns").mkdir()
    shutil.copy(ROOT / "mlruns" / "README.md", folder / "mlruns" / "README.md")
    (folder / "params.yaml").write_text(params)
    finetrace(folder, "plan")
    command(folder, "git", "init", "-q", "-b", "main")
    committed(folder, "toy")
    return folder


@contextlib.contextmanager
def edited(source: Path, old: str, new: str):
    """A source file with other text for the time of the block."""
    before = source.read_text()
    assert before.count(old) >= 1, f"{source} has no {old!r}"
    source.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        source.write_text(before)


def stale(project: Path) -> set[str]:
    """What is out of date, as the driver sees it after it has compiled the study."""
    finetrace(project, "plan")
    with opened(project) as graph:
        return {name for name in graph.stages if name not in ("plan", "settings") and graph.changes(name)}


@contextlib.contextmanager
def changed_params(project: Path, edit):
    """params.yaml with a change for the time of the block; afterwards everything is as it was."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    edit(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        yield
    finally:
        restore(project)


def restore(project: Path) -> None:
    """Everything as it was committed, as after `git checkout` and `dvc checkout`; folders of runs that the study does
    not have are gone."""
    command(project, "git", "checkout", "-q", ".")
    finetrace(project, "plan")
    command(project, "dvc", "checkout", "-q", "--force", "--allow-missing")
    shutil.copy(project.parent / "published.json", project / "mlruns")
    with opened(project) as graph:
        known = {project / path for path in graph.written()}
    for folder in (project / "outputs").rglob("*"):
        if folder.is_dir() and not any(one == folder or one in folder.parents or folder in one.parents
                                       for one in known):
            shutil.rmtree(folder)


def add_lens_of_the_guide(project: Path) -> None:
    """Write the lens of docs/add-a-lens.md into a project, exactly as the guide has it."""
    guide = (ROOT / "docs/add-a-lens.md").read_text("utf-8")
    files = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", guide, flags=re.DOTALL))
    look = "src/finetrace/study/look.py"
    inserted = {"dvc.yaml": "  atlas:\n", "params.yaml": "look:\n",
                look: '    "kernel": Lens(KernelSettings, HEADS, classes=True),\n'}
    of_atlas = "src/finetrace/atlas/headlines.py"
    inserted[of_atlas] = '    "kernel": kernel.HEADLINES,\n'
    room = ("__init__", "lengths", "settings", "figures", "headlines", "stage")
    test = "tests/lenses/norms/test_norms.py"
    wanted = {*inserted, "pipelines/norms.py", test, *(f"src/finetrace/lenses/norms/{name}.py" for name in room)}
    assert set(files) == wanted
    for name in ("src/finetrace/lenses/norms", "tests/lenses/norms"):
        (project / name).mkdir(parents=True)
    for name in ("hidden_outputs", "pictures", "stages"):
        shutil.copy(ROOT / f"tests/{name}.py", project / "tests")
    before = (project / look).read_text()
    mark = "from finetrace.lenses.kernel.settings import KernelSettings\n"
    (project / look).write_text(before.replace(mark,
                                               f"{mark}from finetrace.lenses.norms.settings import NormsSettings\n"))
    mark = "from finetrace.lenses.probes import headlines as probes\n"
    of_all = (project / of_atlas).read_text()
    (project / of_atlas).write_text(of_all.replace(mark,
                                                   f"from finetrace.lenses.norms import headlines as norms\n{mark}"))
    for name, text in files.items():
        if name in inserted:
            mark, before = inserted[name], (project / name).read_text()
            assert before.count(mark) == 1, name
            text = before.replace(mark, f"{text}\n{mark}" if name == "dvc.yaml" else mark + text)
        (project / name).write_text(text)
