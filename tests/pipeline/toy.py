"""A project of its own with a small study, and the commands that its user gives."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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
