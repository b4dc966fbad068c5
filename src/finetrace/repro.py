"""Run a study on several cores: independent items of one stage side by side, each by DVC itself.

`dvc repro` runs one stage after the other. Here the items of a group (`train@A`, `train@B`, ...) are dealt out to several
`dvc repro --single-item` processes; DVC's own locks keep dvc.lock right. A last plain `dvc repro` finishes and checks
everything, so what this driver leaves out or could not lock is done then.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from finetrace.config import load_study
from finetrace.errors import FinetraceError
from finetrace.layout import Layout

BUSY = ("Unable to acquire lock", "is busy, it is being", "failed to lock")


def default_jobs(layout: Layout) -> int:
    """One process per core when every model is a micro-BERT (they train on one thread), else one."""
    study = load_study(layout.params)
    return (os.cpu_count() or 1) if not study.models and not study.model_folders else 1


def repro(layout: Layout, jobs: int) -> int:
    """Bring the study up to date with `jobs` processes at a time; returns DVC's exit code.

    Raises FinetraceError for a wrong number of jobs or a folder without dvc.yaml.
    """
    if jobs < 1:
        raise FinetraceError(f"--jobs {jobs}: take 1 or more")
    if jobs > 1:
        if _dvc(layout.root, "status", "--quiet").wait() == 0:
            print("Data and pipelines are up to date.")
            return 0
        for group in groups(layout.root):
            code = _side_by_side(layout.root, group, jobs)
            if code:
                return code
    return _dvc(layout.root, "repro").wait()


def groups(root: Path) -> list[list[str]]:
    """The stages of dvc.yaml in its order: one list of targets per stage that has items, up to the first that depends on all."""
    try:
        stages = yaml.safe_load((root / "dvc.yaml").read_text("utf-8"))["stages"]
        params = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{error.filename}: not found; run this in the project folder") from error
    found = []
    for name, stage in stages.items():
        if "foreach" in stage:
            items = params.get(stage["foreach"].strip("${}")) or {}
            found.append([f"{name}@{item}" for item in items])
        elif not found:
            found.append([name])  # a single stage before all groups, such as the micro world
    return [targets for targets in found if targets]


def _side_by_side(root: Path, targets: list[str], jobs: int) -> int:
    """Deal targets out to processes and wait; a process that could not get DVC's lock is left to the last repro."""
    shares = [targets[i::jobs] for i in range(min(jobs, len(targets)))]
    workers = [_dvc(root, "repro", "--single-item", *share, watched=True) for share in shares]
    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            return max(pool.map(_pass_on, workers))
    except KeyboardInterrupt:
        for worker in workers:  # Ctrl-C reached them, too; their trainings end at a whole state
            worker.wait()
        raise


def _pass_on(worker: subprocess.Popen) -> int:
    """Show a worker's messages; its exit code, or 0 when it only lacked a lock."""
    assert worker.stderr is not None
    busy = False
    for line in worker.stderr:
        busy |= any(word in line for word in BUSY)
        sys.stderr.write(line)
    code = worker.wait()
    return 0 if busy else code


def _dvc(root: Path, *words: str, watched: bool = False) -> subprocess.Popen:
    environment = {**os.environ, "FINETRACE_LINES": "1"} if watched else None
    return subprocess.Popen([sys.executable, "-m", "dvc", *words], cwd=root, env=environment, text=True,
                            stderr=subprocess.PIPE if watched else None)
