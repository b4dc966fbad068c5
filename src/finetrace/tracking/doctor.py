"""Checks of a project, each finding with its fix; they change nothing."""

import filecmp
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from finetrace.errors import FinetraceError, hide_passwords
from finetrace.layout import Layout
from finetrace.pipeline.compile import plan_text
from finetrace.study import load_study
from finetrace.tracking.integrity import damaged
from finetrace.tracking.moved import HOME_TAG, experiments, has_moved
from finetrace.tracking.store import client_of, database_path, prepare_environment, tracking_uri, why_silent

OUTPUTS = ("atlas", "comparisons", "cross-tasks", "data", "directprobe", "dynamics", "inputs", "models", "outputs",
           "settings")
"""Folders that stages write."""


@dataclass(frozen=True)
class Finding:
    """One thing to know. A note needs no action; a problem does."""

    text: str
    fix: str
    problem: bool = True


def doctor(layout: Layout, say: Callable[[str], None] = print, *, verify: bool = False) -> int:
    """Check everything, tell what was found and how to fix it; returns the number of problems.

    verify: also hash every file of results, unfinished work and DVC's cache, which takes about a second per gigabyte.
    """
    problems = 0
    for name, check in (CHECKS | (VERIFY if verify else {})).items():
        findings = list(check(layout))
        problems += sum(f.problem for f in findings)
        if not findings:
            say(f"ok       {name}")
        for finding in findings:
            say(f"{'PROBLEM' if finding.problem else 'note':7}  {name}: {finding.text}\n         fix: {finding.fix}")
    say(f"{problems} problem{'' if problems == 1 else 's'} found" if problems else "no problems found")
    return problems


def _project(layout: Layout) -> Iterator[Finding]:
    missing = [n for n in ("params.yaml", "dvc.yaml") if not (layout.root / n).is_file()]
    if len(missing) == 2:
        project_folder = next((p for p in layout.root.parents if all((p / n).is_file() for n in missing)), None)
        yield Finding(f"{layout.root} is not a project folder (no params.yaml, no dvc.yaml)",
                      f"cd {project_folder}" if project_folder else "go to the folder that you cloned")
    elif missing:
        yield Finding(f"{layout.root / missing[0]} is missing", f"git checkout {missing[0]}" if missing[0] == "dvc.yaml"
                      else "finetrace use NAME, with NAME one of studies/")
    for path in sorted(layout.root / name for name in OUTPUTS):
        if path.is_symlink():
            yield Finding(f"{path} is a link to {path.resolve()}, and DVC records nothing through links",
                          "make it a folder: move the whole project to the other disk, or mount that here (mount "
                          "--bind)")


def _params(layout: Layout) -> Iterator[Finding]:
    if layout.params.is_file():
        try:
            text = plan_text(load_study(layout.params))  # all that the stages will be asked for
        except FinetraceError as error:
            yield Finding(str(error).replace("\n", "\n         "),
                          "edit params.yaml, or start over: finetrace use NAME (one of studies/)")
            return
        if not layout.plan.is_file() or layout.plan.read_text("utf-8") != text:
            yield Finding("plan.yaml is not that of params.yaml", "finetrace plan (finetrace repro does it, too)",
                          problem=False)


def _dependencies(layout: Layout) -> Iterator[Finding]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    python, requirements = _declared(layout)
    python_version = ".".join(map(str, sys.version_info[:3]))
    if python and python_version not in SpecifierSet(python):
        yield Finding(f"Python {python_version} is outside {python}", f"make an environment with Python {python}")
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(f"{requirement.name} is not installed", f"pip install '{text}'  (or make setup)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding(f"{requirement.name} {version} is outside {requirement.specifier}",
                          f"pip install '{text}'  (or make setup)")


def _declared(layout: Layout) -> tuple[str, list[str]]:
    """The Python and packages that the project asks for: pyproject.toml's, else those of the installed package."""
    path = layout.root / "pyproject.toml"
    if path.is_file():
        project = tomllib.loads(path.read_text("utf-8")).get("project", {})
        if project.get("name") == "finetrace":
            return project.get("requires-python", ""), project.get("dependencies", [])
    try:
        package = metadata.metadata("finetrace")
    except metadata.PackageNotFoundError:
        return "", []
    return package["Requires-Python"] or "", package.get_all("Requires-Dist") or []


def _dvc(layout: Layout) -> Iterator[Finding]:
    if shutil.which("dvc") is None and not (Path(sys.executable).parent / "dvc").is_file():
        yield Finding("the command dvc is not on the PATH", "activate the environment in which finetrace is installed, "
                      "or: pip install 'dvc>=3.67'")
    if not (layout.home / ".dvc").is_dir():
        yield Finding(f"{layout.home} has no .dvc folder", "git checkout .dvc, or: dvc init")


def _is_without_git(home: Path) -> bool:
    """Whether DVC is told to do without git, as in the container."""
    import configparser

    config = configparser.ConfigParser(strict=False)
    config.read([home / ".dvc" / "config", home / ".dvc" / "config.local"])
    return config.getboolean("core", "no_scm", fallback=False)


def _git(layout: Layout) -> Iterator[Finding]:
    if _is_without_git(layout.home):
        yield Finding(f"{layout.home} is a project without git (core.no_scm)", "nothing; runs carry no revision tag",
                      problem=False)
    elif shutil.which("git") is None:
        yield Finding("the command git is not on the PATH", "install git; DVC and the runs' revision tags need it")
    elif subprocess.run(["git", "-C", str(layout.home), "rev-parse", "HEAD"], capture_output=True).returncode:
        yield Finding(f"{layout.home} is not a git repository with a commit",
                      "git init && git add . && git commit -m 'Start' (DVC experiments and revision tags need it)")


def _file_store(layout: Layout) -> Iterator[Finding]:
    old_experiments = sorted(p.parent.name for p in layout.tracking_artifacts.glob("*/meta.yaml")
                             if p.parent.name.isdigit())
    if old_experiments:
        yield Finding(f"mlruns/ holds experiments of MLflow's old file store ({', '.join(old_experiments[:5])}); plain "
                      "`mlflow ui` refuses to start, or shows only them",
                      "keep them: mv mlruns mlruns.old && mlflow migrate-filestore --source mlruns.old --target "
                      "sqlite:///old-runs.db;  or move them away: mv mlruns/{" + ",".join([*old_experiments, ""])
                      + "} elsewhere/; then finetrace publish")


def _store(layout: Layout) -> Iterator[Finding]:
    try:
        settings = load_study(layout.params).tracking
    except FinetraceError:
        return  # told by another check
    try:
        uri = tracking_uri(settings, layout.home)
    except FinetraceError as error:
        yield Finding(*_text_and_fix(str(error)))
        return
    if (reason := why_silent(uri)) is not None:
        yield Finding(f"{hide_passwords(uri)} does not answer as a tracking store: {reason}",
                      "start the server, or correct tracking.uri in params.yaml or MLFLOW_TRACKING_URI (names and "
                      "passwords: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)")
    path = database_path(uri)
    if path is not None and path.is_file() and path.stat().st_size:
        yield from _database(path, layout.home)


def _database(path: Path, home: Path) -> Iterator[Finding]:
    """What MLflow says about a copy of a sqlite store: opening the store itself might change it."""
    prepare_environment()
    with tempfile.TemporaryDirectory(prefix="finetrace-") as folder:
        copy = Path(shutil.copyfile(path, Path(folder, path.name)))
        try:
            client = client_of(copy)
        except FinetraceError as error:
            yield Finding(*_text_and_fix(str(error).replace(str(copy), str(path))))
            return
        if not filecmp.cmp(copy, path, shallow=False):
            yield Finding(f"{path}: MLflow {metadata.version('mlflow')} will bring its tables up to date",
                          "nothing; `finetrace publish` keeps the store as it was beside it", problem=False)
        if path.resolve().parent != home.resolve():
            return
        for experiment in experiments(client):
            if has_moved(experiment, home):
                yield Finding(f"the project has moved from {experiment.tags[HOME_TAG]} to {home.resolve()}, and MLflow "
                              f"still looks for artifacts of {experiment.name!r} in the old place",
                              f"finetrace publish, with study.name {experiment.name} (it publishes the runs anew)")


def _text_and_fix(message: str) -> tuple[str, str]:
    text, _, fix = message.partition("; ")
    return text, fix or "see the message"


def _scratch(layout: Layout) -> Iterator[Finding]:
    folder = layout.home / ".finetrace" / "scratch"
    for work in sorted(p for p in folder.glob("*/*") if p.is_dir()):
        files = [p.stat() for p in work.rglob("*") if p.is_file()]
        age = time.time() - max((f.st_mtime for f in files), default=work.stat().st_mtime)
        if age < 60:
            yield Finding(f"{work.relative_to(layout.home)} is being worked on", "nothing to do", problem=False)
        else:
            size = sum(f.st_size for f in files) / 2**20
            yield Finding(f"unfinished work in {work.relative_to(layout.home)}: {size:.1f} MiB, last written "
                          f"{age / 3600:.1f} h ago",
                          "dvc repro goes on with it if its settings still hold; else delete the folder", problem=False)


def _integrity(layout: Layout) -> Iterator[Finding]:
    for damage in damaged(layout):
        yield Finding(damage.text, damage.fix, problem=damage.serious)


CHECKS: dict[str, Callable[[Layout], Iterator[Finding]]] = {
    "project folder": _project, "params.yaml": _params, "dependencies": _dependencies, "dvc": _dvc, "git": _git,
    "no old file store": _file_store, "tracking store": _store, "no unfinished work": _scratch}
VERIFY: dict[str, Callable[[Layout], Iterator[Finding]]] = {"every byte as it was written": _integrity}
