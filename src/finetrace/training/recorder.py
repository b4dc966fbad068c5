"""Signals of a training, buffered in memory and made durable in segments.

Tensors are kept as they come (no synchronisation with the GPU, no conversion per step) and become Arrow tables at a
flush; a flush happens at every resume point and when the buffer is full, so memory does not grow with the steps.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.errors import FinetraceError
from finetrace.store.tables import SegmentedTable, fixed_lists, merge_tables, read_table

BUFFER_STEPS = 512  # optimiser steps kept in memory before a flush
WATCH_SECONDS = 5.0  # a watcher (progress, live run) sees new rows about this often

HISTORY = pa.schema([
    ("step", pa.int64()), ("kind", pa.string()), ("split", pa.string()), ("examples", pa.int64()),
    ("epoch", pa.float64()), ("loss", pa.float64()), ("learning_rate", pa.float64()), ("gradient_norm", pa.float64()),
    ("head_norm", pa.float64()), ("tokens", pa.int64()), ("accuracy", pa.float64()), ("macro_f1", pa.float64()),
    ("f1", pa.float64()), ("matthews", pa.float64()),
])
# seconds: of work since the training began, a running sum over resumptions; tokens_per_second: of the step alone
TIMING = pa.schema([("step", pa.int64()), ("seconds", pa.float64()), ("tokens_per_second", pa.float64())])


def history_schema(metrics: Sequence[str] = ()) -> pa.Schema:
    """metrics: those that plain classes do not have."""
    return pa.schema([*HISTORY, *((name, pa.float64()) for name in metrics)])


def label_type(target: str, classes: int) -> pa.DataType:
    """How the label of an example is recorded: its class, its score, or one truth per class."""
    return {"regression": pa.float32(), "multi-label": pa.list_(pa.bool_(), classes)}.get(target, pa.int32())


def signals_schema(classes: int, target: str = "class") -> pa.Schema:
    """Row order is time order: step, micro_step, position within the micro-batch."""
    return pa.schema([
        ("step", pa.int64()), ("micro_step", pa.int64()), ("position", pa.int32()), ("example_id", pa.int64()),
        ("label", label_type(target, classes)), ("logits", pa.list_(pa.float32(), classes)), ("loss", pa.float32()),
    ])


def probe_schema(classes: int, target: str = "class") -> pa.Schema:
    """One row per look at one probe example, in evaluation mode; step = updates done before the look."""
    return pa.schema([
        ("step", pa.int64()), ("split", pa.string()), ("example_id", pa.int64()),
        ("label", label_type(target, classes)), ("logits", pa.list_(pa.float32(), classes)), ("loss", pa.float32()),
    ])


class Recorder:
    """Writes signals, history, probe looks and timing of one training into segments below `folder`.

    target: what is predicted of an example;  metrics: those of an evaluation that plain classes do not have.
    """

    def __init__(self, folder: Path, classes: int, signals: bool = True,
                 watch: Callable[[list[dict[str, Any]]], None] | None = None, target: str = "class",
                 metrics: Sequence[str] = ()):
        self.classes, self.record_signals, self.watch = classes, signals, watch
        self._label = label_type(target, classes)
        self._schemas = {"signals": signals_schema(classes, target), "history": history_schema(metrics),
                         "timing": TIMING, "probe": probe_schema(classes, target)}
        self._drained = time.monotonic()
        self.tables = {name: SegmentedTable(folder, name) for name in ("signals", "history", "probe", "timing")}
        self._micro: list[tuple[int, int, Any, Any, Any, Any]] = []
        self._steps: list[dict[str, Any]] = []
        self._unwritten = 0  # optimiser steps since the last flush
        self.evaluations: list[dict[str, Any]] = []
        self.folder, self._expected = folder, dict[str, int]()

    def micro_batch(self, step: int, micro_step: int, example_ids: Any, labels: Any, logits: Any, losses: Any) -> None:
        """Logits (example, class) and losses (example,) of one micro-batch, as computed in training mode."""
        if self.record_signals:
            self._micro.append((step, micro_step, example_ids, labels, logits.detach(), losses.detach()))

    def train_step(self, row: dict[str, Any]) -> None:
        """One optimiser step: a history row plus `seconds` of work since the training began, and `step_seconds`,
        `step_tokens` of its own; values may be device scalars."""
        self._steps.append(row)
        self._unwritten += 1
        if self._unwritten >= BUFFER_STEPS:
            self.flush()
        elif self.watch and time.monotonic() - self._drained >= WATCH_SECONDS:
            self._drain()

    def evaluation(self, step: int, split: str, examples: int, epoch: float, metrics: dict[str, float]) -> None:
        """Metrics of one evaluation of one split after `step` updates."""
        self._drain()
        row = {"step": step, "kind": "eval", "split": split, "examples": examples, "epoch": epoch, **metrics}
        self.evaluations.append(row)
        self.tables["history"].append(step, pa.Table.from_pylist([row], schema=self._schemas["history"]))
        if self.watch:
            self.watch([row])

    def probe(self, step: int, split: str, example_ids: np.ndarray, labels: np.ndarray, logits: np.ndarray,
              losses: np.ndarray) -> None:
        """One look at the probe set: logits (example, class) in evaluation mode."""
        rows = len(labels)
        self.tables["probe"].append(step, pa.table({
            "step": np.full(rows, step), "split": pa.array([split] * rows), "example_id": example_ids,
            "label": self._labels(labels), "logits": fixed_lists(logits), "loss": losses.astype(np.float32),
        }).cast(self._schemas["probe"]))

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        self._drain()
        for table in self.tables.values():
            table.flush()
        self._unwritten = 0

    def truncate(self, step: int) -> None:
        """After a crash: forget what was recorded after `step` updates were done; evaluations up to it are read back.

        Segments are named by updates done: s for evaluations and looks after s updates, s + 1 for the rows of training
        step s, which end with update s + 1. A resume point flushes, so no segment lies on both sides of it.
        """
        for table in self.tables.values():
            table.truncate(step)
        self._micro, self._steps, self._unwritten, self.evaluations = [], [], 0, []
        for path in self.tables["history"].segments():
            self.evaluations += [r for r in read_table(path).to_pylist() if r["kind"] == "eval"]

    def expect(self, steps: int, examples: int) -> None:
        """What the plan says that was recorded: optimiser steps and training examples."""
        self._expected = {"history": steps + len(self.evaluations), "timing": steps,
                          "signals": examples if self.record_signals else 0}

    def finish(self, out: Path) -> dict[str, int]:
        """Merge all segments into the final tables in `out`; returns rows per table.

        Raises FinetraceError when they hold fewer or more rows than `expect` was told.
        """
        self.flush()
        rows = {}
        for name, table in self.tables.items():
            if table.segments():
                rows[name] = table.merge(out / f"{name}.parquet")
            else:
                rows[name] = merge_tables(out / f"{name}.parquet", [self._schemas[name].empty_table()])
        for name, count in self._expected.items():
            if rows[name] != count:
                raise FinetraceError(f"{self.folder}: {name} has {rows[name]} rows instead of {count}, so files were "
                                     "lost or added while the training ran; delete the folder and run the stage again")
        return rows

    def _labels(self, labels: np.ndarray) -> pa.Array:
        """Labels of some examples, (example,) or (example, class), as a column."""
        if labels.ndim == 2:
            flat = pa.array(labels.astype(bool).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(flat, labels.shape[1])
        return pa.array(labels.astype(self._label.to_pandas_dtype()))

    def _drain(self) -> None:
        """Turn buffered device values into Arrow tables: one transfer for many steps."""
        if self._micro:
            import torch

            sizes = [len(m[2]) for m in self._micro]
            logits = torch.cat([m[4].float() for m in self._micro]).cpu().numpy()
            losses = torch.cat([m[5].float() for m in self._micro]).cpu().numpy()
            labels = torch.cat([m[3] for m in self._micro]).cpu().numpy()
            table = pa.table({
                "step": np.repeat([m[0] for m in self._micro], sizes),
                "micro_step": np.repeat([m[1] for m in self._micro], sizes),
                "position": np.concatenate([np.arange(s, dtype=np.int32) for s in sizes]),
                "example_id": np.concatenate([m[2] for m in self._micro]),
                "label": self._labels(labels), "logits": fixed_lists(logits), "loss": losses,
            }).cast(self._schemas["signals"])
            self.tables["signals"].append(self._micro[-1][0] + 1, table)
            self._micro = []
        if self._steps:
            rows = [{k: v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in self._steps]
            updates = rows[-1]["step"] + 1
            self.tables["history"].append(updates, pa.Table.from_pylist(rows, schema=self._schemas["history"]))
            self.tables["timing"].append(updates, pa.Table.from_pylist([
                {"step": r["step"], "seconds": round(r["seconds"], 6),
                 "tokens_per_second": r["step_tokens"] / max(1e-9, r["step_seconds"])} for r in rows], schema=TIMING))
            self._steps = []
            if self.watch:
                self.watch(rows)
        self._drained = time.monotonic()
