"""The toy study of the drills: made once, finished once, copied for every drill."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tests.pipeline.toy import command, committed, environment, make_project

from drills.frame import Failed
from finetrace.store.files import file_lock
from finetrace.store.manifest import COST, UNHASHED

BASE = """
study: {name: drill, seed: 7}
world: {train_rows: 64, validation_rows: 24, test_rows: 24, corpus_sentences: 200}
pretrain:
  toy: {corpus: world, seed: 1, layers: 1, width: 16, heads: 2, feedforward: 32, steps: 8, batch_size: 16}
tasks: {micro-sentiment: {source: micro}}
train: {learning_rate: 1.0e-3, batch_size: 8, epochs: 2}
"""
STUDY = BASE + """record: {probe_rows: 8, probe: {every: 4}, evaluate: epochs, checkpoints: epochs}
tune: {trials: 2, evaluations: 2, space: {learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}}
methods: {ft-tuned: {kind: ft, settings: tuned}}
runs: [{model: toy, task: micro-sentiment, method: [ft, ft-tuned]}]
look: {infodynamics: all, geometry: "toy/*/ft/*", calibration: "toy/*/ft/*"}
infodynamics: {window: 8, permutations: 20}
hidden: {rows: {train: 16, validation: 16}, token_rows: {validation: 4}}
"""
"""The smallest study with every kind of file: world, models, search, trainings, states, answers, lenses, atlas."""

SMALL = BASE + """record: {probe_rows: 8, probe: {every: 4}, evaluate: epochs, checkpoints: none, resume_seconds: 0}
runs: [{model: toy, task: micro-sentiment}]
look: {infodynamics: all}
infodynamics: {window: 8, permutations: 20}
"""
"""One training and its lens: for drills that have to run a whole study themselves."""

RESULTS = ("data", "models", "outputs", "atlas", "inputs", "settings")
ROOT = Path(__file__).parents[1]
FINISHED = Path(os.environ.get("DRILLS_FINISHED", ROOT / ".finetrace" / "drills"))
"""Folder with the finished studies. The book makes it anew for every run; a script alone takes what is there."""


def finished(name: str = "whole") -> Path:
    """The finished project `whole` (STUDY) or `small` (SMALL): made when it is not there, or was made of other code.
    Never changed by a drill."""
    project, done, code = FINISHED / name / "project", FINISHED / name / "done", _digest_of_code()
    with file_lock(FINISHED / f"{name}.lock"):
        if not done.is_file() or done.read_text() != code:
            shutil.rmtree(FINISHED / name, ignore_errors=True)
            project.parent.mkdir(parents=True)
            make_project(project, {"whole": STUDY, "small": SMALL}[name])
            repro(project)
            committed(project, "outputs")
            done.write_text(code)
    return project


@cache
def _digest_of_code() -> str:
    """Of everything that a project is copied from."""
    digest = hashlib.sha256()
    for folder in ("src", "pipelines", "drills"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            if path.is_file() and path.suffix != ".pyc" and ".egg-info" not in str(path):
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for name in ("dvc.yaml", "requirements.lock"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def copied(folder: Path, name: str = "whole", to: str = "project") -> Path:
    """A copy of a finished project with results, cache and times."""
    target = folder / to
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", finished(name), target], check=True)
    return target


def cloned(folder: Path, name: str = "whole", to: str = "project") -> Path:
    """A clone of a finished project: its code and dvc.lock, and nothing of what it made."""
    target = folder / to
    command(finished(name), "git", "clone", "-q", ".", str(target))
    return target


def finetrace(project: Path, *words: str, check: bool = True, before: tuple[str, ...] = (), seconds: float = 600,
              without: tuple[str, ...] = (), variables: Mapping[str, str] | None = None
              ) -> subprocess.CompletedProcess[str]:
    """`finetrace WORDS` in a project, as a user runs it.

    check: raise Failed unless it exits with 0;  before: words before the command, such as `unshare -rn`;  without:
    variables that are not there;  variables: those that are.
    """
    known = {key: value for key, value in environment(project, **(variables or {})).items() if key not in without}
    done = subprocess.run([*before, sys.executable, "-m", "finetrace.cli", *words], cwd=project, env=known,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                          errors="replace", timeout=seconds)
    if check and done.returncode:
        raise Failed(f"finetrace {' '.join(words)} ended with {done.returncode}: {last_words(done.stdout)}")
    return done


def repro(project: Path, check: bool = True, before: tuple[str, ...] = (), without: tuple[str, ...] = (),
          variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`finetrace repro --jobs 2`."""
    return finetrace(project, "repro", "--jobs", "2", check=check, before=before, without=without, variables=variables)


def last_words(text: str, count: int = 3) -> str:
    """The last lines of an output, in one line."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-count:])[:500]


def tracebacks(text: str) -> bool:
    """Whether a user was shown Python's own trace instead of a sentence."""
    return "Traceback (most recent call last)" in text


def contents(project: Path) -> dict[str, str]:
    """File -> SHA-256 of all results, without the files that hold times; and dvc.lock."""
    files = [path for name in RESULTS for path in (project / name).rglob("*") if path.is_file()]
    kept = [path for path in files if path.name not in (*UNHASHED, COST)]
    return {path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in [*kept, project / "dvc.lock"]}


def same_bytes(project: Path, name: str = "whole") -> int:
    """Raise Failed unless a project holds what the undisturbed one holds; returns the number of files compared."""
    ours, theirs = contents(project), contents(finished(name))
    differ = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    if differ:
        raise Failed(f"{len(differ)} of {len(theirs)} files differ from the undisturbed run's: {', '.join(differ[:4])}")
    return len(theirs)


def same_results(project: Path) -> int:
    """Raise Failed unless a project holds the finished small study's results, whatever dvc.lock says; how many."""
    ours, theirs = contents(project), contents(finished("small"))
    wrong = [name for name in theirs if name != "dvc.lock" and ours.get(name) != theirs[name]]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(theirs) - 1} results differ: {', '.join(wrong[:4])}")
    return len(theirs) - 1


def begin(project: Path, *words: str) -> subprocess.Popen[str]:
    """`finetrace WORDS` in the background, its output in the file `said` beside the project."""
    with open(project.parent / "said", "a", encoding="utf-8") as said:
        return subprocess.Popen([sys.executable, "-m", "finetrace.cli", *words], cwd=project,
                                env=environment(project), stdout=said, stderr=subprocess.STDOUT,
                                stdin=subprocess.DEVNULL, text=True)


def family(pid: int) -> list[int]:
    """A process and all that it started, the eldest first."""
    pids = [pid]
    for parent in pids:  # grows on the way
        try:
            for thread in Path(f"/proc/{parent}/task").iterdir():
                pids += [int(child) for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to processes, those that have ended left out."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(what: Callable[[], object], seconds: float, every: float = 0.1) -> bool:
    """Whether something came true in time; it is looked at `every` so many seconds."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True
