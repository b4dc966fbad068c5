"""Run a study on several cores: independent stages side by side, each by DVC itself.

`dvc repro` runs one stage after the other. Here chains of stages are dealt out to several `dvc repro --single-item` processes;
DVC's own locks, for which they wait, keep dvc.lock right. A chain is all that is done for one cell - search, trainings, hidden
states, lenses -, what the lenses on learning dynamics do with one trajectory, or a single stage; it begins when the chains that
it builds on have ended.
A last plain `dvc repro` finishes and checks everything, so what this driver leaves out or could not lock is done then.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import Any

import yaml

from finetrace.config import LOOKED_AT, load_study
from finetrace.errors import FinetraceError
from finetrace.layout import Layout

OF_TRAJECTORIES = ("trajectories", *LOOKED_AT)
BY_PLACE = ("edge_probes", "cloze_probes")
DATA = ("tasks", "task_files", "corpora", "facts", "fact_files")  # stages of seconds: one process for all
LAST = ("atlas", "publish")  # they depend on everything: the last repro runs them
SLOW = ("pretrain", "adapt", "model", "tune", "train", "hidden", "predictions", "kernel", "edges", "cloze", "downstream")
LOCKED, ATTEMPTS = -1000, 20  # a code that no process has; how often a chain is tried again
PAUSE = 15.0  # seconds, longer than DVC takes to begin a chain, when it holds its lock
BUSY = ("Unable to acquire lock", "is busy, it is being", "failed to lock")


@dataclass
class Chain:
    """Stages that run one after the other."""

    name: str
    stages: list[str] = field(default_factory=list)
    after: set[str] = field(default_factory=set)
    """Names of the chains that must have ended before."""
    urgent: bool = False
    """Whether it takes longer than its number of stages tells."""


def default_jobs(layout: Layout) -> int:
    """One process per core when every model is a micro-BERT (they train on one thread), else one."""
    study = load_study(layout.params)
    return (os.cpu_count() or 1) if not (study.models or study.model_folders or study.series) else 1


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
        if worth_it(stale):
            code = _side_by_side(layout.root, due(chains(layout.root), stale), jobs)
            if code:
                return code
    return _dvc(layout.root, "repro").wait()


def chains(root: Path) -> list[Chain]:
    """The stages of dvc.yaml as chains, in an order in which they could run one by one.

    Of those that may begin, the one that more depends on comes first, then cells that are searched (they take longest), then
    longer chains.
    """
    try:
        stages = yaml.safe_load((root / "dvc.yaml").read_text("utf-8"))["stages"]
        params = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{error.filename}: not found; run this in the project folder") from error
    found: dict[str, Chain] = {}
    chain_of: dict[str, str] = {}
    items = list(_items(stages, params))
    for target, section, key, _, _ in items:
        name = _chain_name(target, section, key, params)
        found.setdefault(name, Chain(name)).stages.append(target)
        chain_of[target] = name
    for target, _, _, deps, _ in items:
        for other, _, _, _, outs in items:
            if chain_of[other] != chain_of[target] and any(_overlap(d, o) for d in deps for o in outs):
                found[chain_of[target]].after.add(chain_of[other])
    for chain in found.values():
        chain.stages = _in_order(chain.stages, items, params)
        methods = params.get("methods") or {}
        cell = (params.get("cells") or {}).get(chain.name.removeprefix("cell "))
        chain.urgent = cell is not None and (methods.get(cell["method"]) or {}).get("settings") == "tuned"
    return _sorted(found)


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


def due(found: list[Chain], stale: set[str] | None) -> list[Chain]:
    """The chains that may have work: those with a changed stage, and those that build on one of them."""
    kept: dict[str, Chain] = {}
    for chain in found:
        if stale is None or stale & set(chain.stages) or chain.after & set(kept):
            kept[chain.name] = chain
    return list(kept.values())


def _items(stages: dict[str, Any], params: dict[str, Any]) -> Iterator[tuple[str, str, str, list[str], list[str]]]:
    """Every stage but the last ones: (name, its section of params.yaml, key there, dependencies, outputs)."""
    for name, stage in stages.items():
        if name in LAST:
            continue
        section = stage["foreach"].strip("${}") if "foreach" in stage else ""
        entries = (params.get(section) or {}) if section else {"": {}}
        body = stage["do"] if section else stage
        for key, item in entries.items():
            values = {"key": key, **{f"item.{k}": v for k, v in (item or {}).items() if isinstance(v, str | int)}}
            deps, outs = ([_filled(path, values) for path in _paths(body, *kinds)] for kinds in (("deps",), OUTS))
            yield f"{name}@{key}" if section else name, section, key, deps, outs


OUTS = ("outs", "metrics", "plots")


def _paths(body: dict[str, Any], *kinds: str) -> list[str]:
    return [next(iter(path)) if isinstance(path, dict) else path for kind in kinds for path in body.get(kind) or []]


def _filled(template: str, values: dict[str, Any]) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(values.get(found[1], found[0])), template)


def _overlap(dependency: str, output: str) -> bool:
    return dependency == output or dependency.startswith(output + "/") or output.startswith(dependency + "/")


def _chain_name(target: str, section: str, key: str, params: dict[str, Any]) -> str:
    """Stages of one cell share a chain; so do the lenses by place of one trajectory, which join its cell where it has one."""
    trajectories = params.get("trajectories") or {}
    if section == "cells":
        return f"cell {key}"
    if section in DATA:
        return "data"
    if section in BY_PLACE:
        place = params[section][key]["trajectory"]
        section, key = ("trajectories", place.replace("/", "_")) if place.replace("/", "_") in trajectories else ("place", place)
    if section in OF_TRAJECTORIES and key in trajectories:
        one = trajectories[key]
        return f"cell {one['model']}_{one['task']}_{one['method']}"
    return f"place {key}" if section == "place" else target


def _in_order(stages: list[str], items: list[Any], params: dict[str, Any]) -> list[str]:
    """The stages of a chain, trajectory after trajectory, and in the order of dvc.yaml for each."""
    order = list(params.get("trajectories") or {})
    owner = {}
    for target, section, key, _, _ in items:
        if section in BY_PLACE:
            key = params[section][key]["trajectory"].replace("/", "_")
        owner[target] = order.index(key) if section != "cells" and key in order else -1
    return sorted(stages, key=lambda target: owner[target])


def _sorted(found: dict[str, Chain]) -> list[Chain]:
    """In an order in which every chain comes after those that it builds on. Raises FinetraceError for a circle."""
    above: dict[str, int] = {}  # chain -> stages on the longest way that builds on it

    def height(name: str) -> int:
        if name not in above:
            above[name] = 0
            above[name] = max((len(c.stages) + height(c.name) for c in found.values() if name in c.after), default=0)
        return above[name]

    ranked = sorted(found.values(), key=lambda c: (-height(c.name), not c.urgent, -len(c.stages)))
    done: dict[str, Chain] = {}
    while len(done) < len(ranked):
        free = [c for c in ranked if c.name not in done and c.after <= set(done)]
        if not free:
            raise FinetraceError(f"dvc.yaml: stages depend on each other in a circle: {', '.join(set(found) - set(done))}")
        done[free[0].name] = free[0]
    return list(done.values())


def _side_by_side(root: Path, found: list[Chain], jobs: int) -> int:
    """Deal chains out to processes, as they become free; after a failure no new one is begun.

    A process that finds a file busy, or DVC's lock taken in spite of waiting, is tried again; after `ATTEMPTS` times its chain is
    left to the last repro.
    """
    waiting, running, codes, refused = list(found), list[subprocess.Popen](), list[int](), Counter[str]()
    open_ = {chain.name for chain in found}
    state, stopped = Condition(), False

    def take() -> Chain | None:
        """The next chain whose predecessors have ended; None when nothing is left to begin."""
        with state:
            while waiting and not any(codes) and not stopped:
                for chain in waiting:
                    if not chain.after & open_:
                        waiting.remove(chain)
                        return chain
                state.wait(0.5)
            return None

    def work() -> None:
        while chain := take():
            running.append(worker := _dvc(root, "repro", "--single-item", *chain.stages, watched=True))
            code = _pass_on(worker)
            again = code == LOCKED and refused[chain.name] < ATTEMPTS  # what it had done already is skipped
            if again:
                refused[chain.name] += 1
                time.sleep(random.uniform(1, PAUSE))  # equal pauses let two chains refuse each other again and again
            with state:
                if again:
                    waiting.insert(0, chain)
                else:
                    codes.append(0 if code == LOCKED else code)
                    open_.discard(chain.name)
                state.notify_all()

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in [pool.submit(work) for _ in range(min(jobs, len(found)))]:
                future.result()
        except KeyboardInterrupt:
            stopped = True
            for worker in running:  # Ctrl-C reached them, too; their trainings end at a whole state
                worker.wait()
            raise
    return max(codes, default=0)


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
    # without it the work of a stage is lost when another process holds the lock for 3 s, and done again
    patience = ["--wait-for-lock"] if watched else []
    return subprocess.Popen([sys.executable, "-m", "dvc", *patience, *words], cwd=root, env=environment, text=True,
                            stderr=subprocess.PIPE if watched else None)
