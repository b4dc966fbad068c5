"""kill -9 in the middle of a study, then the same command: nothing finished is made again, and the bytes are the same.

Of a smaller study than test_repro.py's, which is run once undisturbed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pipeline.toy import command, committed, environment, make_project, repro

STUDY = """
study: {name: kill, seed: 7}
world: {train_rows: 64, validation_rows: 24, test_rows: 24, corpus_sentences: 200}
pretrain:
  toy: {corpus: world, seed: 1, layers: 1, width: 16, heads: 2, feedforward: 32, steps: 8, batch_size: 16}
tasks: {micro-sentiment: {source: micro}}
train: {learning_rate: 1.0e-3, batch_size: 8, epochs: 2}
record: {probe_rows: 8, probe: {every: 4}, evaluate: epochs, checkpoints: none}
runs: [{model: toy, task: micro-sentiment, seed: [1, 2]}]
look: {infodynamics: all}
infodynamics: {window: 8, permutations: 20}
"""
FIRST, LAST = "outputs/toy/pretrain/trajectory/manifest.json", "outputs/toy/micro-sentiment/ft/s1/trajectory"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("kill") / "undisturbed", STUDY)
    repro(project)
    committed(project, "outputs")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["front", "nursery", "worker"])
def test_a_kill_loses_nothing_finished_and_ends_with_the_same_bytes(undisturbed: Path, victim: str):
    """In a clone with the lock of the undisturbed run, but nothing of what it made."""
    project = undisturbed.parent / victim
    command(undisturbed, "git", "clone", "-q", ".", str(project))
    words = [sys.executable, "-m", "finetrace.cli", "repro", "--jobs", "2"]
    front = subprocess.Popen(
        words,
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: ((project / FIRST).is_file() and (project / LAST).exists()) or ended(front))
    nursery = children(front.pid)[0]
    workers = children(nursery)
    os.kill({"front": front.pid, "nursery": nursery, "worker": workers[0]}[victim], signal.SIGKILL)
    said, _ = front.communicate(timeout=300)
    until(lambda: not any(alive(pid) for pid in (nursery, *workers)))
    assert front.returncode not in (0, None)
    if victim == "worker":
        assert "failed: 1" in said and "was ended by SIGKILL" in said, said
    began = (project / FIRST).stat().st_mtime_ns
    repro(project)
    assert (project / FIRST).stat().st_mtime_ns == began
    assert command(project, "git", "status", "--porcelain").stdout == ""
    assert (project / "dvc.lock").read_text() == (undisturbed / "dvc.lock").read_text()


def until(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def ended(process: subprocess.Popen) -> bool:
    assert process.poll() is None, process.communicate()
    return False


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in listed]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
