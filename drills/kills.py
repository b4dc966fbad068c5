"""Processes that are killed: at random moments of every stage, of the driver, of the publisher. DRILLS_SEED draws one
sequence again; DRILLS_KILLS says how many."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.publishing import otherwise_addressed, snapshot

from drills.frame import Row, main, must
from drills.toy import (
    alive,
    begin,
    cloned,
    copied,
    family,
    finetrace,
    kill,
    last_words,
    repro,
    same_bytes,
    wait_for,
)
from finetrace.layout import Layout
from finetrace.study import load_study

KILLS = int(os.environ.get("DRILLS_KILLS", "13"))  # as many as stages: each is hit once
OF_PUBLISHER = max(1, KILLS // 4)
SEED = int(os.environ.get("DRILLS_SEED", str(time.time_ns() % 1_000_000)))
STAGES = ("world", "pretrain", "data", "tune", "train", "train-tuned", "infodynamics", "hidden", "geometry",
          "predictions", "calibration", "atlas", "publish")
ROUNDS = 3  # times that the study may be begun anew, to kill it in stages that were over when their turn came
GRACE = 75.0  # seconds in which all processes of a killed command have to be gone; the driver's own grace is 60


def sigkill(folder: Path) -> str:
    rng = random.Random(SEED)
    project, pending = cloned(folder), _targets(rng, KILLS)
    hit: Counter[str] = Counter()
    victims: Counter[str] = Counter()
    rounds = 1
    while pending and rounds <= ROUNDS:
        running = begin(project, "repro", "--jobs", "2")
        stage = _when_at_work(running, pending)
        if stage is None:  # it ended: all that is pending had been finished before
            must(running.wait() == 0, f"seed {SEED}: {_said(project)}")
            same_bytes(project)
            shutil.rmtree(project)
            project, rounds = cloned(folder), rounds + 1
            continue
        time.sleep(rng.uniform(0.0, 1.0))
        victim = rng.choice(["all", "all", "front", "nursery", "worker"])
        everyone = _killed(running, victim)
        if victim == "worker":
            must(running.wait(300) == 1, f"seed {SEED}: a worker of {stage} was killed: {_said(project)}")
        must(_all_gone(everyone), f"seed {SEED}: processes outlive the kill of the {victim} in {stage}")
        running.wait(GRACE)
        pending.remove(stage)
        hit[stage] += 1
        victims[victim] += 1
    must(len(pending) <= KILLS // 5, f"seed {SEED}: {pending} were never caught at work: the drill is wrong")
    repro(project)
    count = same_bytes(project)
    return (f"{sum(hit.values())} kills ({', '.join(f'{n} {name}' for name, n in sorted(victims.items()))}) in "
            f"{len(hit)} stages, {rounds} times from the start; {count} files have the bytes of the undisturbed run "
            f"(seed {SEED})")


def _targets(rng: random.Random, count: int) -> list[str]:
    """Stages to be hit, every stage as often as another."""
    turns = [rng.sample(STAGES, len(STAGES)) for _ in range(count // len(STAGES) + 1)]
    return [stage for turn in turns for stage in turn][:count]


def _when_at_work(running: subprocess.Popen[str], pending: list[str]) -> str | None:
    """Wait until one of these stages is at work; None when the command ends before."""
    while running.poll() is None:
        for pid in family(running.pid)[2:]:  # after the front and its nursery
            for stage in _stages_of(pid):
                if stage in pending:
                    return stage
        time.sleep(0.05)
    return None


def _stages_of(pid: int) -> list[str]:
    """The stages whose log files a process has open."""
    try:
        links = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    logs = [Path(link) for link in links if link.endswith(".log") and "/.finetrace/logs/" in link]
    return [log.stem.partition("@")[0] for log in logs]


def _all_gone(pids: list[int]) -> bool:
    """Whether all these processes end in time."""
    return wait_for(lambda: not any(map(alive, pids)), GRACE)


def _killed(running: subprocess.Popen[str], victim: str) -> list[int]:
    """Kill the front process, the nursery, a worker or all of a command; returns all pids that it had."""
    everyone = family(running.pid)
    chosen = {"front": everyone[:1], "nursery": everyone[1:2], "worker": everyone[2:3], "all": everyone}[victim]
    kill(chosen)
    return everyone


def publisher(folder: Path) -> str:
    project = copied(folder)
    layout = Layout(project, project)
    study = load_study(layout.params)
    _without_store(project)
    began = time.monotonic()
    finetrace(project, "publish")
    seconds = time.monotonic() - began
    undisturbed = snapshot(layout, study)
    _without_store(project)
    rng = random.Random(SEED)
    for _ in range(OF_PUBLISHER):
        running = begin(project, "publish")
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        kill(family(running.pid))
        running.wait()
    finetrace(project, "publish")
    after = snapshot(layout, otherwise_addressed(layout, study))
    wrong = [name for name in undisturbed.keys() | after.keys() if undisturbed.get(name) != after.get(name)]
    must(not wrong, f"seed {SEED}: other content in the store for {wrong}")
    return f"{OF_PUBLISHER} kills; {len(after)} runs, each with the tags, points and artifacts of the undisturbed store"


def _without_store(project: Path) -> None:
    """As after `rm mlflow.db*` and the run folders in mlruns/."""
    for path in [*project.glob("mlflow.db*"), *(project / "mlruns").iterdir()]:
        if path.name != "README.md":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def sigterm(folder: Path) -> str:
    return _front_ended(folder, signal.SIGTERM)


def front_only(folder: Path) -> str:
    return _front_ended(folder, signal.SIGKILL)


def _front_ended(folder: Path, number: signal.Signals) -> str:
    """End the front process while a training runs, then the same command."""
    project = cloned(folder, "small")
    running = begin(project, "repro", "--jobs", "2")
    must(_when_at_work(running, ["train"]), f"no training began: {_said(project)}")
    everyone = family(running.pid)
    began = time.monotonic()
    kill(everyone[:1], number)
    gone = _all_gone(everyone)
    seconds = time.monotonic() - began
    running.wait()
    must(gone, f"after {seconds:.0f} s there are still {sum(map(alive, everyone))} of {len(everyone)} processes")
    must(running.returncode != 0, "exit code 0")
    before = (project / "outputs/toy/pretrain/trajectory/manifest.json").stat().st_mtime_ns
    repro(project)
    after = (project / "outputs/toy/pretrain/trajectory/manifest.json").stat().st_mtime_ns
    must(before == after, "finished work was made again")
    return (f"exit code {running.returncode}; its {len(everyone) - 1} processes were gone after {seconds:.1f} s; the "
            f"same command went on, {same_bytes(project, 'small')} files the same")


def two_at_once(folder: Path) -> str:
    project = cloned(folder, "small")
    both = [begin(project, "repro", "--jobs", "1") for _ in range(2)]
    codes = [running.wait(600) for running in both]
    said = (project.parent / "said").read_text()
    must(codes == [0, 0], f"exit codes {codes}: {last_words(said)}")
    must("another `finetrace repro` is at work here" in said, "nobody said that it waits")
    made = said.count("done     train@")
    must(made == 1, f"the training was made {made} times")
    return f"one waited and said so; every item made once, {same_bytes(project, 'small')} files the same"


def _said(project: Path) -> str:
    return last_words((project.parent / "said").read_text())


ROWS = [
    Row("SIGKILL at random moments", f"{KILLS} kills of the front, the nursery, a worker or all, over every "
        "stage; the same command after each", "No process outlives it; at the end the undisturbed run's bytes",
        sigkill),
    Row("SIGKILL of the publisher", f"{OF_PUBLISHER} kills of `finetrace publish` at random moments, then once more",
        "The store holds what an undisturbed one holds, once", publisher),
    Row("SIGTERM", "SIGTERM to `finetrace repro` in a training", "All processes end; the same command goes on",
        sigterm),
    Row("only the front killed", "kill -9 of the front process alone, in a training",
        "Its children do not train on; the same command goes on", front_only),
    Row("two at once", "Two `finetrace repro` in one project", "One waits; nothing is made twice", two_at_once),
]

if __name__ == "__main__":
    main("kills", ROWS)
