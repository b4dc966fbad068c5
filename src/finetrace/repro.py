"""Run a study on several cores: independent stages side by side, each by DVC itself.

`dvc repro` runs one stage after the other. Here chains of stages are dealt out to several `dvc repro --single-item` processes;
DVC's own locks keep dvc.lock right. A chain is all that is done for one cell - search, trainings, hidden states, lenses - so
that no worker waits for the slowest search or training. A last plain `dvc repro` finishes and checks everything, so what this
driver leaves out or could not lock is done then.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from finetrace.config import LOOKED_AT, load_study
from finetrace.errors import FinetraceError
from finetrace.layout import Layout

CHAINED = ("cells", "trajectories", *LOOKED_AT)
SLOW = ("pretrain", "model", "tune", "train", "hidden", "predictions", "kernel")
LOCKED, ATTEMPTS = -1000, 20  # a code that no process has; how often a chain is tried again
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
        stale = changed(layout.root)
        if stale is not None and not stale:
            print("Data and pipelines are up to date.")
            return 0
        for chains in due(phases(layout.root, jobs), stale) if worth_it(stale) else []:
            code = _side_by_side(layout.root, chains, jobs)
            if code:
                return code
    return _dvc(layout.root, "repro").wait()


def phases(root: Path, jobs: int) -> list[list[list[str]]]:
    """The stages of dvc.yaml as phases of chains: chains of a phase are independent, stages of a chain run in order.

    First a single stage that stands before all groups (the micro world); then the groups before the cells - models and data,
    which do not depend on each other - in `jobs` shares each; then one chain per cell over all groups of cells and trajectories,
    cells that are searched first (they take longest); then the rest. What depends on all (atlas, publish) is left to the last
    repro.
    """
    try:
        stages = yaml.safe_load((root / "dvc.yaml").read_text("utf-8"))["stages"]
        params = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{error.filename}: not found; run this in the project folder") from error
    sections = {name: stage["foreach"].strip("${}") for name, stage in stages.items() if "foreach" in stage}
    first = [[name] for name in list(stages)[:1] if name not in sections]
    before: list[list[str]] = []
    after: list[list[str]] = []
    phase = before
    for name, section in sections.items():
        if section in CHAINED:
            phase = after
        else:
            targets = [f"{name}@{item}" for item in params.get(section) or {}]
            phase += [targets[i::jobs] for i in range(min(jobs, len(targets)))]
    return [chains for chains in (first, before, _chains(sections, params), after) if chains]


def changed(root: Path) -> set[str] | None:
    """Names of the stages that `dvc status` finds changed, without those that depend on them; None when it cannot say."""
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], cwd=root, capture_output=True, text=True)
    try:
        return set(json.loads(status.stdout))
    except ValueError:
        return None  # dvc repro itself will tell what is wrong


def worth_it(stale: set[str] | None) -> bool:
    """Whether side by side is faster: short stages alone mostly wait for DVC's lock, which one process need not share."""
    return stale is None or any(name.split("@")[0] in SLOW for name in stale)


def due(found: list[list[list[str]]], stale: set[str] | None) -> list[list[list[str]]]:
    """The chains that may have work: those with a changed stage, and everything after the first phase that has one."""
    kept: list[list[list[str]]] = []
    for chains in found:
        kept.append([c for c in chains if stale is None or any(kept) or stale & set(c)])
    return [chains for chains in kept if chains]


def _chains(sections: dict[str, str], params: dict[str, Any]) -> list[list[str]]:
    """One chain per cell: its own stages, then those of each of its trajectories."""
    cells = params.get("cells") or {}
    chains: dict[str, list[str]] = {key: [f"{n}@{key}" for n, s in sections.items() if s == "cells"] for key in cells}
    for key, item in (params.get("trajectories") or {}).items():
        chain = chains.setdefault(f"{item['model']}_{item['task']}_{item['method']}", [])
        for name, section in sections.items():
            if section == "trajectories" or (section in LOOKED_AT and key in (params.get(section) or {})):
                chain.append(f"{name}@{key}")
    searched = {key for key, cell in cells.items()
                if (params["methods"].get(cell["method"]) or {}).get("settings") == "tuned"}
    return [chains[key] for key in sorted(chains, key=lambda key: (key not in searched, -len(chains[key])))]


def _side_by_side(root: Path, chains: list[list[str]], jobs: int) -> int:
    """Deal chains out to processes, as they become free; after a failure no new one is begun.

    A process that finds DVC's lock taken is tried again; after `ATTEMPTS` times its chain is left to the last repro.
    """
    waiting, running, codes, refused = list(chains), list[subprocess.Popen](), list[int](), Counter[str]()
    stop = Event()

    def work() -> None:
        while waiting and not any(codes) and not stop.is_set():
            chain = waiting.pop(0)
            running.append(worker := _dvc(root, "repro", "--single-item", *chain, watched=True))
            code = _pass_on(worker)
            if code == LOCKED and refused[chain[0]] < ATTEMPTS:  # what it had done already is skipped
                refused[chain[0]] += 1
                time.sleep(1)
                waiting.insert(0, chain)
            else:
                codes.append(0 if code == LOCKED else code)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in [pool.submit(work) for _ in range(min(jobs, len(chains)))]:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            for worker in running:  # Ctrl-C reached them, too; their trainings end at a whole state
                worker.wait()
            raise
    return max(codes)


def _pass_on(worker: subprocess.Popen) -> int:
    """Show a worker's messages, but those about locks; its exit code, or LOCKED when it only lacked a lock."""
    assert worker.stderr is not None
    busy = False
    for line in worker.stderr:
        locked = any(word in line for word in BUSY)
        busy |= locked
        if not locked:
            sys.stderr.write(line)
    code = worker.wait()
    return LOCKED if busy and code else code


def _dvc(root: Path, *words: str, watched: bool = False) -> subprocess.Popen:
    environment = {**os.environ, "FINETRACE_LINES": "1"} if watched else None
    return subprocess.Popen([sys.executable, "-m", "dvc", *words], cwd=root, env=environment, text=True,
                            stderr=subprocess.PIPE if watched else None)
