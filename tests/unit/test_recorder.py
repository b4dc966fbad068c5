"""The recorder: rows in time order, bounded memory, and forgetting exactly what a crash has made doubtful."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from finetrace.store.tables import matrix
from finetrace.training import recorder as module
from finetrace.training.recorder import HISTORY, Recorder, probe_schema, signals_schema

CLASSES, ROWS = 3, 4


def record_step(recorder, step, micro_batches=2):
    """What the trainer hands over in one step; values tell which step and row they belong to."""
    for j in range(micro_batches):
        micro = step * micro_batches + j
        value = torch.arange(ROWS * CLASSES, dtype=torch.float32).reshape(ROWS, CLASSES) + 100 * micro
        recorder.micro_batch(step, micro, np.arange(ROWS) + 10 * micro, torch.arange(ROWS) % CLASSES, value,
                             torch.full((ROWS,), float(micro)))
    recorder.train_step({"step": step, "kind": "train", "split": None, "examples": step * 8, "epoch": step / 4,
                         "loss": torch.tensor(0.5), "learning_rate": 1e-3, "gradient_norm": torch.tensor(2.0),
                         "head_norm": torch.tensor(3.0), "tokens": 10 * step, "seconds": step / 10, "step_seconds": 0.1,
                         "step_tokens": 20})


def evaluate(recorder, step):
    recorder.evaluation(step, "validation", step * 8, step / 4, {"loss": 0.1, "accuracy": 0.9, "macro_f1": 0.8})


def look(recorder, step):
    recorder.probe(step, "train", np.arange(2), np.array([0, 1]), np.full((2, CLASSES), step), np.array([0.1, 0.2]))


def whole_run(recorder, steps, first=0, flush_at=()):
    for step in range(first, steps):
        record_step(recorder, step)
        if (step + 1) % 3 == 0:
            look(recorder, step + 1)
            evaluate(recorder, step + 1)
        if step + 1 in flush_at:
            recorder.flush()


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.parquet"))}


def test_tables_hold_what_was_recorded_in_time_order(tmp_path):
    recorder = Recorder(tmp_path / "s", CLASSES)
    whole_run(recorder, 5)
    assert recorder.finish(tmp_path / "out") == {"signals": 40, "history": 6, "probe": 2, "timing": 5}
    signals = pq.read_table(tmp_path / "out" / "signals.parquet")
    assert signals.schema.equals(signals_schema(CLASSES))
    assert signals["micro_step"].to_pylist() == [m for m in range(10) for _ in range(ROWS)]
    assert signals["step"].to_pylist() == [s for s in range(5) for _ in range(2 * ROWS)]
    assert signals["position"].to_pylist() == list(range(ROWS)) * 10
    assert signals["example_id"].to_pylist() == [10 * m + i for m in range(10) for i in range(ROWS)]
    expected = np.concatenate([np.arange(12).reshape(4, 3) + 100 * m for m in range(10)])
    assert np.array_equal(matrix(signals, "logits"), expected.astype(np.float32))
    history = pq.read_table(tmp_path / "out" / "history.parquet")
    assert history.schema.equals(HISTORY)
    assert list(zip(history["step"].to_pylist(), history["kind"].to_pylist(), strict=True)) == [
        (0, "train"), (1, "train"), (2, "train"), (3, "eval"), (3, "train"), (4, "train")]
    assert pq.read_table(tmp_path / "out" / "probe.parquet").schema.equals(probe_schema(CLASSES))


def test_bytes_do_not_depend_on_flushes_or_on_watchers(tmp_path, monkeypatch):
    plain = Recorder(tmp_path / "a", CLASSES)
    whole_run(plain, 20)
    plain.finish(tmp_path / "out-a")
    flushed = Recorder(tmp_path / "b", CLASSES)
    whole_run(flushed, 20, flush_at=(1, 2, 9))
    flushed.finish(tmp_path / "out-b")
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(module, "BUFFER_STEPS", 3)
    seen = []
    watched = Recorder(tmp_path / "c", CLASSES, watch=seen.extend)
    whole_run(watched, 20)
    watched.finish(tmp_path / "out-c")
    assert files(tmp_path / "out-a") == files(tmp_path / "out-b") == files(tmp_path / "out-c")
    assert [r["step"] for r in seen if r["kind"] == "train"] == list(range(20))
    assert [r["step"] for r in seen if r["kind"] == "eval"] == [3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize("point", [0, 1, 3, 4, 6, 11])
@pytest.mark.parametrize("lost", ["nothing durable", "one flush more", "two flushes more"])
def test_after_a_crash_nothing_is_missing_and_nothing_is_double(tmp_path, point, lost):
    """`point`: updates done at the resume point; more was made durable before the crash, e.g. by a full buffer."""
    calm = Recorder(tmp_path / "calm", CLASSES)
    look(calm, 0)
    whole_run(calm, 12)
    calm.finish(tmp_path / "out-calm")
    first = Recorder(tmp_path / "segments", CLASSES)
    look(first, 0)
    whole_run(first, point, flush_at=(2, 5))
    first.flush()
    if lost != "nothing durable":
        record_step(first, point)
        first.flush()
    if lost == "two flushes more":
        if (point + 1) % 3 == 0:
            evaluate(first, point + 1)
        record_step(first, point + 1)
        first.flush()
    second = Recorder(tmp_path / "segments", CLASSES)
    second.truncate(point)
    assert [e["step"] for e in second.evaluations] == [s for s in range(1, point + 1) if s % 3 == 0]
    whole_run(second, 12, first=point, flush_at=(point + 2,))
    second.finish(tmp_path / "out")
    ours, expected = files(tmp_path / "out"), files(tmp_path / "out-calm")
    assert ours == expected


def test_starting_over_forgets_everything(tmp_path):
    first = Recorder(tmp_path / "segments", CLASSES)
    look(first, 0)
    whole_run(first, 4)
    first.flush()
    second = Recorder(tmp_path / "segments", CLASSES)
    second.truncate(-1)
    assert not list((tmp_path / "segments").glob("*.parquet"))
    assert second.evaluations == []


@pytest.mark.parametrize("watch", [None, lambda rows: None])
@pytest.mark.parametrize("with_evaluations", [True, False])
def test_memory_does_not_grow_with_the_steps(tmp_path, monkeypatch, watch, with_evaluations):
    monkeypatch.setattr(module, "BUFFER_STEPS", 16)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.0)
    recorder, held = Recorder(tmp_path / "s", CLASSES, watch=watch), []
    for step in range(200):
        record_step(recorder, step)
        if with_evaluations and step % 5 == 4:
            evaluate(recorder, step + 1)
            look(recorder, step + 1)
        in_tables = sum(len(set(table["step"].to_pylist())) for table in recorder.tables["signals"]._rows)
        held.append(max(len(recorder._micro) // 2, len(recorder._steps)) + in_tables)
    assert max(held) <= 16
    assert 200 // 16 <= len(recorder.tables["signals"].segments()) <= 200 // 16 + 1


def test_without_signals_only_the_history_is_kept(tmp_path):
    recorder = Recorder(tmp_path / "s", CLASSES, signals=False)
    whole_run(recorder, 4)
    assert recorder.finish(tmp_path / "out") == {"signals": 0, "history": 5, "probe": 2, "timing": 4}
    assert pq.read_table(tmp_path / "out" / "signals.parquet").schema.equals(signals_schema(CLASSES))


def test_a_resumed_training_without_signals_and_looks_can_end(tmp_path):
    recorder = Recorder(tmp_path / "s", CLASSES, signals=False)
    recorder.truncate(7)
    record_step(recorder, 7)
    assert recorder.finish(tmp_path / "out") == {"signals": 0, "history": 1, "probe": 0, "timing": 1}
    assert pq.read_table(tmp_path / "out" / "probe.parquet").schema.equals(probe_schema(CLASSES))


def test_infinite_and_nan_values_are_recorded_as_they_are(tmp_path):
    recorder = Recorder(tmp_path / "s", 2)
    logits = torch.tensor([[float("nan"), float("inf")], [1.0, -1.0]])
    recorder.micro_batch(0, 0, np.arange(2), torch.tensor([0, 1]), logits, torch.tensor([float("nan"), 2.0]))
    recorder.finish(tmp_path / "out")
    read = matrix(pq.read_table(tmp_path / "out" / "signals.parquet"), "logits")
    assert np.array_equal(read, logits.numpy(), equal_nan=True)


def test_recorded_tensors_hold_no_graph(tmp_path):
    recorder = Recorder(tmp_path / "s", 2)
    logits = torch.zeros(2, 2, requires_grad=True) * 1.0
    recorder.micro_batch(0, 0, np.arange(2), torch.tensor([0, 1]), logits, logits.sum(1))
    assert not recorder._micro[0][4].requires_grad
    assert not recorder._micro[0][5].requires_grad
