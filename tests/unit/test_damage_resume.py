"""Damage in unfinished work is found before it is built on: the state before it is taken, or the training starts
over."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.damage import flip, truncate

from finetrace.errors import FinetraceError
from finetrace.store.checkpoints import MARKER, damage, mark
from finetrace.store.tables import SegmentedTable, read_table
from finetrace.training.checkpoints import built_on, newest_state
from finetrace.training.recorder import Recorder


def weights(scratch: Path, step: int) -> None:
    folder = scratch / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(np.random.default_rng(step).bytes(500))
    (folder / "config.json").write_text("{}")
    mark(folder, step)


def state(scratch: Path, step: int) -> Path:
    """A state after `step` updates, as a training leaves it: its files, and a segment of what was recorded since."""
    table = SegmentedTable(scratch / "segments", "signals")
    table.append(step, pa.table({"step": np.arange(step - 2, step)}))
    table.flush()
    folder = scratch / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        (folder / name).write_bytes(np.random.default_rng(step).bytes(300))
    mark(folder, step, built_on(scratch))
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Weights after 0, 3 and 6 updates, states after 4 and 6."""
    weights(tmp_path, 0)
    weights(tmp_path, 3)
    state(tmp_path, 4)
    weights(tmp_path, 6)
    state(tmp_path, 6)
    return tmp_path


SCHEDULED = {0, 3, 6}


@pytest.mark.parametrize("file", ["checkpoint-6/model.safetensors", "checkpoint-6/optimizer.pt",
                                  "checkpoint-6/rng_state.pth",
                                  "checkpoint-6/trainer_state.json", f"checkpoint-6/{MARKER}",
                                  "segments/signals-0000000006-0000000006.parquet",
                                  "checkpoints/step-00000006/model.safetensors"])
@pytest.mark.parametrize("how", [flip, Path.unlink, truncate],
                         ids=["flipped", "deleted", "truncated"])
def test_the_state_before_the_damage_is_taken(scratch: Path, file: str, how, caplog: pytest.LogCaptureFixture) -> None:
    how(scratch / file)
    with caplog.at_level(logging.WARNING):
        found = newest_state(scratch, SCHEDULED)
    assert found == scratch / "checkpoint-4"
    assert not (scratch / "checkpoint-6").exists()
    if "checkpoint-6" not in file:
        assert "is damaged or lost since it was written; the training goes on from an earlier state" in caplog.text


@pytest.mark.parametrize("file", ["segments/signals-0000000004-0000000004.parquet",
                                  "checkpoints/step-00000003/model.safetensors",
                                  "checkpoints/step-00000000/complete.json"])
def test_what_all_states_build_on_starts_the_training_over(scratch: Path, file: str,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    flip(scratch / file)
    with caplog.at_level(logging.WARNING):
        assert newest_state(scratch, SCHEDULED) is None
    assert "the training starts over" in caplog.text
    assert not list(scratch.glob("checkpoint-*"))


def test_whole_work_is_gone_on_with_quietly(scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert newest_state(scratch, SCHEDULED) == scratch / "checkpoint-6"
    assert damage(scratch / "checkpoint-6") is None and not caplog.text


def test_later_segments_and_weights_do_not_matter(scratch: Path) -> None:
    weights(scratch, 9)
    flip(scratch / "checkpoints" / "step-00000009" / "model.safetensors")
    (scratch / "segments" / "signals-0000000008-0000000008.parquet").write_bytes(b"half")
    assert newest_state(scratch, SCHEDULED) == scratch / "checkpoint-6"


def test_best_weights_that_better_ones_have_replaced_are_not_missed(scratch: Path) -> None:
    """Killed after better weights took the place of those after 3 updates, and before the next state."""
    shutil.rmtree(scratch / "checkpoints" / "step-00000003")
    assert damage(scratch / "checkpoint-6") == scratch / "checkpoints" / "step-00000003"
    weights(scratch, 9)
    assert newest_state(scratch, {0, 6}) == scratch / "checkpoint-6"
    assert newest_state(scratch, SCHEDULED) is None, "the schedule keeps them, so they were lost"


def test_best_weights_that_nothing_replaced_are_missed(scratch: Path) -> None:
    for lost in ("step-00000003", "step-00000006"):
        shutil.rmtree(scratch / "checkpoints" / lost)
    assert newest_state(scratch, {0}) is None


def recorded(folder: Path) -> Recorder:
    recorder = Recorder(folder, 2, signals=False)
    for step in range(3):
        recorder.train_step({"step": step, "kind": "train", "loss": 0.5, "seconds": 0.1 * step, "step_seconds": 0.1,
                             "step_tokens": 5})
        if step < 2:
            recorder.flush()
    recorder.evaluation(3, "validation", 3, 1.0, {"loss": 0.1})
    return recorder


def test_rows_are_compared_with_the_plan(tmp_path: Path) -> None:
    recorder = recorded(tmp_path / "segments")
    recorder.expect(3, 24)
    rows = recorder.finish(tmp_path)
    assert (rows["history"], rows["timing"], rows["signals"]) == (4, 3, 0)
    assert read_table(tmp_path / "history.parquet").num_rows == 4


@pytest.mark.parametrize("name", ["history", "timing"])
def test_a_segment_that_vanished_while_the_training_ran_is_told(tmp_path: Path, name: str) -> None:
    recorder = recorded(tmp_path / "segments")
    recorder.expect(3, 24)
    (tmp_path / "segments" / f"{name}-0000000002-0000000002.parquet").unlink()
    with pytest.raises(FinetraceError, match=rf"segments: {name} has \d rows instead of \d.*delete the folder and run"):
        recorder.finish(tmp_path)


def test_fewer_signals_than_examples_are_told(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "segments", 2)
    recorder.expect(0, 8)
    with pytest.raises(FinetraceError, match="signals has 0 rows instead of 8"):
        recorder.finish(tmp_path)
