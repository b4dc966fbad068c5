"""A training that was killed, at whatever moment, ends with the bytes of one that was not. Dropout is on throughout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import listen_to_ctrl_c
from tests.stages import ask, ask_study
from tests.training_drills import digests, finetune_job, run
from tests.training_fixtures import SIGNALS, model_folder, recording, settings, task_folder

from finetrace.config.base import parse
from finetrace.config.training import RecordSettings, TrainSettings
from finetrace.store.manifest import OF_MANIFEST
from finetrace.store.tables import read_table
from finetrace.training.finetune import RunSeeds, finetune

ROOT = Path(__file__).resolve().parents[2]
STEPS = 16
TRAIN, RECORD = settings(accumulate=2), {"evaluate": {"every": 3}, "probe": "log2", "checkpoints": {"every": 4}}
BEST = settings(learning_rate=0.03, epochs=4.0, keep="best", early_stopping=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    model_folder(root / "model")
    task_folder(root / "task", {"train": 61, "validation": 24, "test": 10})
    return root


@pytest.fixture(scope="module")
def calm(root):
    """The trajectory of a training that nothing disturbed and that took no resume point."""
    assert run(finetune_job, root / "calm", TRAIN, recording(**RECORD)) == 0
    return root / "calm" / "trajectory"


def assert_equal(where, calm):
    ours, wanted = digests(where / "trajectory"), digests(calm)
    assert set(ours) == set(wanted)
    assert {"signals.parquet", "history.parquet", "probe.parquet", "metrics.json",
            "checkpoints/step-00000004/model.safetensors"} <= set(wanted)
    assert [n for n in wanted if ours[n] != wanted[n]] == []
    timing = read_table(where / "trajectory" / "timing.parquet").to_pydict()
    assert timing["step"] == read_table(calm / "timing.parquet")["step"].to_pylist()
    assert all(np.diff(timing["seconds"]) > 0)


@pytest.fixture
def where(root, request):
    folder = root / "".join(c if c.isalnum() else "-" for c in request.node.name)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def drill(where, calm, train, record, faults):
    """Die at each fault in turn, then finish."""
    for fault in faults:
        assert run(finetune_job, where, train, record, fault) == -signal.SIGKILL, fault
        assert not (where / "trajectory").exists()
    assert run(finetune_job, where, train, record) == 0
    assert_equal(where, calm)


@pytest.mark.parametrize("faults", [
    [("step", 10), ("state, tables flushed", 3)],
    [("state, half written", 5), ("state, without marker", 2)],
    [("weights being written", 3)],
    [("checkpoints being copied", 2), ("final metrics", 2)],
    *(pytest.param([fault], marks=pytest.mark.slow) for fault in (
        ("look", 2), ("table being written", 7), ("older state being removed", 2), ("tables being merged", 3))),
], ids=lambda faults: " then ".join(f"{n} {c}" for n, c in faults))
def test_killed_at_a_bad_moment(root, calm, where, faults):
    drill(where, calm, TRAIN, recording(**RECORD, resume_seconds=0), faults)


def test_killed_while_little_is_recorded(root, where):
    record = recording(signals=False, probe="none", evaluate="none", checkpoints="none")
    assert run(finetune_job, root / "calm-little", TRAIN, record) == 0
    record = recording(signals=False, probe="none", evaluate="none", checkpoints="none", resume_seconds=0)
    for fault in (("step", 6), ("state, without marker", 2)):
        assert run(finetune_job, where, TRAIN, record, fault) == -signal.SIGKILL
    assert run(finetune_job, where, TRAIN, record) == 0
    assert digests(where / "trajectory") == digests(root / "calm-little" / "trajectory")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["look", "step", "weights being written", "weights about to appear",
                                   "table being written",
                                   "state, tables flushed", "state, half written", "state, without marker",
                                   "older state being removed"])
@pytest.mark.parametrize("resume_seconds", [0, 0.15])
def test_killed_again_and_again(root, calm, where, point, resume_seconds):
    faults = []
    for count in (1, 2, 5, 9, 3):
        code = run(finetune_job, where, TRAIN, recording(**RECORD, resume_seconds=resume_seconds), (point, count))
        faults.append(code)
        if code == 0:
            break
    assert -signal.SIGKILL in faults or resume_seconds
    if faults[-1]:
        assert run(finetune_job, where, TRAIN, recording(**RECORD, resume_seconds=resume_seconds)) == 0
    assert_equal(where, calm)


def random_kills(where, calm, train, record, delays):
    """Die after each delay in turn, as long as the training has not come to its end."""
    for delay in delays:
        if run(finetune_job, where, train, record, kill_after=delay) == 0:
            break
        (where / "begun").unlink()
    if not (where / "trajectory").exists():
        assert run(finetune_job, where, train, record) == 0
    assert_equal(where, calm)


@pytest.mark.parametrize("resume_seconds", [0, 0.2])
def test_killed_at_any_moment(root, calm, where, resume_seconds):
    delays = np.random.default_rng(int(10 * resume_seconds)).uniform(0.2, 1.2, 3)
    random_kills(where, calm, TRAIN, recording(**RECORD, resume_seconds=resume_seconds), delays)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_many_moments(root, calm, where, seed):
    delays = np.random.default_rng(seed).uniform(0.05, 1.5, 5)
    random_kills(where, calm, TRAIN, recording(**RECORD, resume_seconds=[0, 0.1, 0.5][seed % 3]), delays)


@pytest.mark.parametrize("file", ["model.safetensors", "complete.json", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("optimizer.pt", "rng_state.pth", "trainer_state.json"))])
def test_a_damaged_newest_state_is_skipped_for_the_older_one(root, calm, where, file):
    record = recording(**RECORD, resume_seconds=0)
    assert run(finetune_job, where, TRAIN, record, ("step", 8)) == -signal.SIGKILL
    states = sorted((where / "scratch").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert [p.name for p in states] == ["checkpoint-6", "checkpoint-7"]
    content = (states[-1] / file).read_bytes()
    (states[-1] / file).write_bytes(content[:len(content) // 2])
    assert run(finetune_job, where, TRAIN, record) == 0
    assert_equal(where, calm)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("file", "how"), [
    ("checkpoint-7/model.safetensors", flipped), ("segments/signals-*7.parquet", flipped),
    ("segments/history-*6.parquet", lambda path: path.write_bytes(path.read_bytes()[:99])),
    ("checkpoints/step-00000004/model.safetensors", flipped),
    *(pytest.param(*other, marks=pytest.mark.slow) for other in (
        ("checkpoint-7/optimizer.pt", flipped), ("segments/signals-*2.parquet", Path.unlink),
        ("segments/probe-*4.parquet", Path.unlink))),
], ids=["weights", "last signals", "history cut", "kept weights", "optimizer", "early signals gone", "looks gone"])
def test_damaged_work_is_not_built_on(root, calm, where, file, how):
    record = recording(**RECORD, resume_seconds=0)
    assert run(finetune_job, where, TRAIN, record, ("step", 8)) == -signal.SIGKILL
    (path,) = (where / "scratch").glob(file)
    how(path)
    assert run(finetune_job, where, TRAIN, record) == 0
    assert_equal(where, calm)


def test_a_resumed_training_does_not_start_over(root, calm, where):
    record = recording(**RECORD, resume_seconds=0)
    assert run(finetune_job, where, TRAIN, record, ("step", 14)) == -signal.SIGKILL
    assert run(finetune_job, where, TRAIN, record,
               ("step", 4)) == 0, "13 steps were done, so there are fewer than 4 to go"
    assert_equal(where, calm)


def test_at_most_two_states_are_kept_and_signals_are_whole(root, calm, where):
    assert run(finetune_job, where, TRAIN, recording(**RECORD, resume_seconds=0)) == 0
    assert len(list((where / "scratch").glob("checkpoint-*"))) == 2
    signals = read_table(where / "trajectory" / SIGNALS)
    rows = Counter(signals["step"].to_pylist())
    assert set(rows) == set(range(STEPS))
    assert sorted(rows.values()) == [5] * 2 + [8] * (STEPS - 2), "an epoch of 61 rows has one step with 5"


@pytest.fixture(scope="module")
def calm_best(root):
    assert run(finetune_job, root / "calm-best", BEST, recording(**RECORD)) == 0
    return root / "calm-best" / "trajectory"


@pytest.mark.parametrize("faults", [[("step", 8), ("weights being written", 2)]],
                         ids=lambda faults: " then ".join(f"{n} {c}" for n, c in faults))
def test_early_stopping_and_the_best_weights_survive(root, calm_best, where, faults):
    steps = read_table(calm_best / "history.parquet")["step"].to_pylist()
    assert max(steps) < 32, "the fixture should stop early"
    drill(where, calm_best, BEST, recording(**RECORD, resume_seconds=0), faults)


@pytest.mark.slow
@pytest.mark.parametrize("count", range(1, 14, 2))
@pytest.mark.parametrize("point", ["weights being written", "older state being removed", "state, tables flushed"])
def test_early_stopping_and_the_best_weights_survive_anything(root, calm_best, where, point, count):
    record = recording(**RECORD, resume_seconds=0)
    for fault in ((point, count), ("step", 2), None):  # late faults do not come about: the training has stopped by then
        assert run(finetune_job, where, BEST, record, fault) in (0, -signal.SIGKILL)
        if (where / "trajectory").exists():
            break
    assert_equal(where, calm_best)


@pytest.fixture
def project(root, tmp_path):
    """A project folder in which `pipelines/train.py` finds a model, a task and settled settings."""
    from finetrace.store.files import write_yaml
    from finetrace.store.manifest import Manifest, complete

    shutil.copytree(root / "model", tmp_path / "models" / "tiny")
    complete(tmp_path / "models" / "tiny", Manifest("model", "model", "tiny", "1", {}, {}, {}), started=0.0)
    shutil.copytree(root / "task", tmp_path / "data" / "toy")
    train = {"learning_rate": 2e-3, "batch_size": 4, "epochs": 8.0, "precision": "fp32", "max_length": 16}
    content = {
        "study": {"name": "drill", "seed": 1}, "model_folders": {"tiny": {"path": "anywhere"}},
        "task_files": {"toy": {"path": "anywhere", "splits": {"train": "t", "validation": "v"}, "text": ["a"],
                               "label": "b"}},
        "runs": [{"model": "tiny", "task": "toy", "method": "ft", "seed": 0}], "look": {},
        "train": train, "record": {"resume_seconds": 0.1, "probe_rows": 4}, "tracking": {"live": False}}
    write_yaml(tmp_path / "params.yaml", content)
    ask_study(tmp_path, content)
    return tmp_path


def test_a_window_that_is_too_wide_is_told_before_the_training(project, run_script):
    ask(project, "infodynamics", "tiny_toy_ft_s0", infodynamics={"window": 5000})
    done = run_script("pipelines/train.py", "tiny_toy_ft_s0", cwd=project)
    assert done.returncode == 1 and "window 5000 takes at least 10,001 training examples" in done.stderr, done.stderr
    assert not list(project.glob(".finetrace/scratch/train/*/checkpoint-*"))
    assert not list(project.glob("outputs/**/manifest.json"))


def test_ctrl_c_says_how_to_continue_and_continues(project, run_script, tmp_path):
    """The real stage, interrupted as a person would, then run again; and the library undisturbed for comparison."""
    command = [sys.executable, str(ROOT / "pipelines" / "train.py"), "tiny_toy_ft_s0"]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c,
                               env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": ""})
    deadline = time.monotonic() + 90
    while not list(project.glob(".finetrace/scratch/train/*/checkpoint-*/complete.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "interrupted; run the same command to continue" in error
    out = project / "outputs" / "tiny" / "toy" / "ft" / "s0"
    assert not out.exists() or not list(out.iterdir()), "nothing half-made is left"
    done = run_script("pipelines/train.py", "tiny_toy_ft_s0", cwd=project)
    assert done.returncode == 0, done.stderr
    assert not list((project / ".finetrace" / "scratch" / "train").iterdir())
    asked = json.loads((project / "settings/train/tiny_toy_ft_s0.json").read_text())
    train, record = parse(TrainSettings, asked["train"], "train"), parse(RecordSettings, asked["record"], "record")
    (tmp_path / "calm").mkdir()
    finetune(project / "models" / "tiny", project / "data" / "toy", train, record, RunSeeds.of(1, 0),
             scratch=tmp_path / "scratch", out=tmp_path / "calm", name="calm")
    ours = digests(out / "trajectory")
    assert json.loads((out / "trajectory" / "manifest.json").read_text())["facts"]["steps"] == 128
    ours = {name: digest for name, digest in ours.items() if name not in OF_MANIFEST}
    assert ours == digests(tmp_path / "calm")
