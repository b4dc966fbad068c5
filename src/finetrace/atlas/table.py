"""The one table of a study: every number of every trajectory and lens, in the same columns -> atlas/table.parquet

    import pandas as pd
    t = pd.read_parquet("atlas/table.parquet")
    t.query("quantity == 'effective_rank' and layer == 4").pivot_table("value", "step", "place")  # a course per run
    t.query("quantity == 'validation/accuracy'").groupby(["model", "task", "method"]).value.agg(["mean", "std"])
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finetrace.atlas.collect import Entry
from finetrace.atlas.growing import GrowingTable, Rows, Texts, texts_of
from finetrace.atlas.places import Place
from finetrace.longtable import SHARED
from finetrace.store.tables import read_table

VERSION = 2
"""Of the columns; in the metadata of the file as finetrace_table. 1 had the numbers of metrics.json only."""
_TEXT = pa.dictionary(pa.int32(), pa.string())
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "place": (_TEXT, "folder below outputs; of what belongs to several trajectories its own, e.g. dynamics/micro-a"),
    "model": (_TEXT, "empty where no single one is meant"),
    "task": (_TEXT, "empty for masked-word trainings"),
    "method": (_TEXT, "how it was trained; pretrain or adapt for masked-word trainings"),
    "seed": (pa.int32(), "of the run, -1 where there is none"),
    "lens": (_TEXT, "which lens says so; trajectory: the training itself"),
    "quantity": (_TEXT, "what is measured: the lens's statistic, or the name in its metrics.json"),
    "step": (pa.int64(), "optimiser steps done; -1: a number about the whole (metrics.json)"),
    "examples": (pa.float64(), "training examples seen until then, NaN where unknown"),
    "tokens": (pa.float64(), "training tokens seen until then, NaN where unknown"),
    "epoch": (pa.float64(), "passes over the training set until then, NaN where unknown"),
    "layer": (pa.int32(), "0 the embeddings; -1: about no layer"),
    "split": (_TEXT, "which rows: train, validation, test, or a set of its own; empty where the lens has none"),
    "label": (_TEXT, "class or label that is meant; empty: all of them"),
    "keys": (_TEXT, "what else tells rows of the lens apart, as name=value, e.g. head=mlp seed=0"),
    "value": (pa.float64(), "the number"),
    "low": (pa.float64(), "lower end of its 95 % interval, NaN where there is none"),
    "high": (pa.float64(), "upper end"),
    "n": (pa.int64(), "number of things behind it, -1 where unknown"),
}
"""Column -> type and meaning."""
_TRAINING_ROWS = 500  # of a training's history at most; evaluations are all there
_COUNTS = ("clusters", "seeds")  # whole numbers in tables of lenses that are no keys
_AXES = ("examples", "tokens", "epoch")
_WHOLE: Rows = {"step": -1, "layer": -1, "split": "", "label": "", "keys": "", "low": np.nan, "high": np.nan, "n": -1}
"""What a number about the whole has in columns that say nothing of it."""


def one_table(trainings: Sequence[Entry | Place], shared: Sequence[tuple[str, Path]] = ()) -> pa.Table:
    """Everything as one table with the columns of `COLUMNS`, rows in the order of the study.

    shared: lens and folder of what belongs to several trajectories. A lens with a wide table is there by its curves.
    """
    grown = GrowingTable({name: kind for name, (kind, _) in COLUMNS.items()})
    for each in trainings:
        for rows in _of_place(each):
            grown.append(rows)
    for lens, folder in shared:
        nowhere = {"place": f"{folder.parent.name}/{folder.name}", "model": "", "task": "", "method": "", "seed": -1}
        if (own := _lens(folder, TimeAxis.of_history(None))) is not None:
            grown.append(dict.fromkeys(_AXES, np.nan) | own | nowhere | {"lens": lens})
    return grown.table({"finetrace_table": str(VERSION)})


@dataclass(frozen=True)
class TimeAxis:
    """What a training had seen at its steps: each (time,) float64, ascending."""

    steps: np.ndarray
    seen: dict[str, np.ndarray]

    @classmethod
    def of(cls, trajectory: Path) -> "TimeAxis":
        """As history.parquet says; empty where there is none (published checkpoints)."""
        return cls.of_history(_read_history(trajectory))

    @classmethod
    def of_history(cls, history: pa.Table | None) -> "TimeAxis":
        """As a history says, empty without one."""
        if history is None:
            return cls(np.zeros(0), {})
        names = history.column_names
        steps, first = np.unique(history["step"].to_numpy(), return_index=True)
        seen = {name: _numbers(history, name)[first] for name in ("examples", "epoch") if name in names}
        if "tokens" in names:  # told by a step's row with its own: had been seen when the next step began
            tokens = _numbers(history, "tokens")
            with_tokens = np.flatnonzero(~np.isnan(tokens))
            begun = history["step"].to_numpy()[with_tokens] + 1
            seen["tokens"] = np.interp(steps, [0, *begun], [0, *tokens[with_tokens]])
        return cls(steps.astype(np.float64), seen)

    def at(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Axis -> (row,) float64: what had been seen at these steps, NaN where unknown."""
        return {name: np.interp(steps, self.steps, self.seen[name], left=np.nan, right=np.nan)
                if len(self.seen.get(name, ())) else np.full(len(steps), np.nan) for name in _AXES}

    def step_of(self, examples: np.ndarray) -> np.ndarray:
        """(row,) int64: the last step that began before so many examples had been seen; -1 where unknown."""
        return np.searchsorted(self.seen.get("examples", np.zeros(0)), examples, side="right") - 1


def _of_place(each: Entry | Place) -> Iterator[Rows]:
    """The rows of a trajectory: of each lens the numbers of its metrics.json, then those of its table."""
    history = _read_history(each.folder / "trajectory")
    axis = TimeAxis.of_history(history)
    for part, metrics in each.metrics.items():
        of_part = _history(history) if part == "trajectory" else _lens(each.folder / part, axis)
        for rows in (_summaries(metrics), of_part):
            if rows is not None:
                yield _seen(axis, rows["step"]) | rows | _names(each) | {"lens": part}


def _seen(axis: TimeAxis, step: Any) -> Rows:
    """What had been seen at a step, or at (row,) steps."""
    seen = axis.at(np.atleast_1d(step))
    return {name: values if np.ndim(step) else values[0] for name, values in seen.items()}


def _names(each: Entry | Place) -> Rows:
    if isinstance(each, Entry):
        return {"place": each.place, "model": each.model, "task": each.task, "method": each.method, "seed": each.seed}
    model, _, kind = each.name.rpartition("/")
    return {"place": each.name, "model": model, "task": "", "method": kind, "seed": -1}


def _summaries(metrics: Mapping[str, float]) -> Rows | None:
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    if not numbers:
        return None
    return _WHOLE | {"quantity": Texts(np.arange(len(numbers)), list(numbers)), "value": np.array([*numbers.values()])}


def _read_history(trajectory: Path) -> pa.Table | None:
    path = trajectory / "history.parquet"
    return _read(path) if path.is_file() else None


def _history(table: pa.Table | None) -> Rows | None:
    """Every evaluation, and at most `_TRAINING_ROWS` steps of the training, each number a row."""
    if table is None:
        return None
    training = pc.equal(table["kind"], "train").fill_null(False).to_numpy()
    steps = np.flatnonzero(training)
    if len(steps) > _TRAINING_ROWS:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, _TRAINING_ROWS).round().astype(int))]
    kept = np.union1d(np.flatnonzero(~training), steps)
    names = [name for name in table.column_names if name not in ("step", "kind", "split", *_AXES)]
    known, at = _long([_numbers(table, name)[kept] for name in names], names)
    if known is None:
        return None
    split = texts_of(table["split"])
    codes = np.where(training, len(split.texts), split.codes)[kept][at]
    return _WHOLE | known | {"step": table["step"].to_numpy()[kept][at], "split": Texts(codes, [*split.texts, "train"])}


def _lens(folder: Path, axis: TimeAxis) -> Rows | None:
    if not (folder / "table.parquet").is_file():
        return None
    table = _read(folder / "table.parquet")
    if "value" not in table.column_names:
        return _curves(folder, axis)
    if not table.num_rows:
        return None
    rows = {name: _column(table[name]) if name in table.column_names else absent for name, absent in SHARED.items()}
    own = [name for name in table.column_names if name not in SHARED and name not in _COUNTS]
    return rows | {"quantity": rows["statistic"], "keys": _keys({name: _column(table[name]) for name in own})}


def _curves(folder: Path, axis: TimeAxis) -> Rows | None:
    """The courses of curves.csv over steps or examples, its first column."""
    if not (folder / "curves.csv").is_file():
        return None
    import pandas as pd

    frame = pd.read_csv(folder / "curves.csv")
    over = str(frame.columns[0])
    names = [name for name in frame.columns[1:] if pd.api.types.is_numeric_dtype(frame[name].dtype)]
    known, at = _long([frame[name].to_numpy(np.float64) for name in names], names)
    if known is None:
        return None
    time = frame[over].to_numpy()[at]
    if over == "step":
        return _WHOLE | known | {"step": time}
    return _WHOLE | known | {"step": axis.step_of(time), "examples": time.astype(np.float64)}


def _long(columns: Sequence[np.ndarray], names: Sequence[str]) -> tuple[Rows | None, np.ndarray]:
    """Columns one below the other without what is NaN: quantity and value, and (row,) where each stood in its column;
    None when nothing is left.

    columns: each (row,) float64.
    """
    kept = [np.flatnonzero(~np.isnan(values)) for values in columns]
    at = np.concatenate([*kept, np.zeros(0, np.int64)]).astype(np.int64)
    if not len(at):
        return None, at
    codes = np.repeat(np.arange(len(names)), [len(rows) for rows in kept])
    return {"quantity": Texts(codes, names),
            "value": np.concatenate([values[rows] for values, rows in zip(columns, kept, strict=True)])}, at


def _keys(own: Mapping[str, Any]) -> Texts | str:
    """(row,) texts "name=value name=value" of the columns that tell rows apart; empty ones are left out, and so are
    columns of fractions, which are no keys."""
    keys: Texts | str = ""
    for name, column in own.items():
        if not isinstance(column, Texts):
            if column.dtype.kind == "f":
                continue
            values, codes = np.unique(column, return_inverse=True)
            column = Texts(codes, values.tolist())
        texts = ["" if value in ("", -1) else f"{name}={value}" for value in column.texts]
        if isinstance(keys, str):
            keys = Texts(column.codes, texts)
            continue
        pairs, codes = np.unique(keys.codes.astype(np.int64) * len(texts) + column.codes, return_inverse=True)
        keys = Texts(codes, [f"{keys.texts[pair // len(texts)]} {texts[pair % len(texts)]}".strip()
                              for pair in pairs.tolist()])
    return keys


def _read(path: Path) -> pa.Table:
    """A table as `read_table` reads it, in half the time where it is small and one of thousands."""
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
    except (pa.ArrowException, OSError):
        return read_table(path)  # says what is wrong


def _column(column: pa.ChunkedArray) -> Any:
    """A column of a lens: Texts, or (row,) numbers, where null is NaN."""
    texts = pa.types.is_dictionary(column.type) or pa.types.is_string(column.type) or pa.types.is_null(column.type)
    return texts_of(column) if texts else column.to_numpy()


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """(row,) float64; null is NaN."""
    return table[name].cast(pa.float64()).to_numpy()
