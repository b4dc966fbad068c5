"""The one table of a study: every number of every trajectory and lens, in the same columns -> atlas/table.parquet

    import pandas as pd
    t = pd.read_parquet("atlas/table.parquet")
    t.query("quantity == 'effective_rank' and layer == 4").pivot_table("value", "step", "place")  # a course per run
    t.query("quantity == 'validation/accuracy'").groupby(["model", "task", "method"]).value.agg(["mean", "std"])
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from finetrace.atlas.collect import Entry
from finetrace.atlas.places import Place
from finetrace.longtable import SHARED
from finetrace.store.tables import read_long_table, read_table

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


def one_table(found: Sequence[Entry | Place], shared: Sequence[tuple[str, Path]] = ()) -> pa.Table:
    """Everything as one table with the columns of `COLUMNS`, rows in the order of the study.

    shared: lens and folder of what belongs to several trajectories. A lens with a wide table is there by its curves.
    """
    parts = [_arrow(part) for each in found for part in _of_place(each)]
    parts += [_arrow(part) for lens, folder in shared for part in _of_shared(lens, folder)]
    schema = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()],
                       metadata={"finetrace_table": str(VERSION)})
    return pa.concat_tables([part.cast(schema) for part in parts] or [schema.empty_table()]).unify_dictionaries()


@dataclass(frozen=True)
class TimeAxis:
    """What a training had seen at its steps: each (time,) float64, ascending."""

    steps: np.ndarray
    seen: dict[str, np.ndarray]

    @classmethod
    def of(cls, trajectory: Path) -> "TimeAxis":
        """As history.parquet says; empty where there is none (published checkpoints)."""
        path = trajectory / "history.parquet"
        if not path.is_file():
            return cls(np.zeros(0), {})
        frame = read_table(path).to_pandas()
        steps = frame["step"].to_numpy()
        first = np.unique(steps, return_index=True)[1]
        seen = {name: frame[name].to_numpy(np.float64)[first] for name in ("examples", "epoch") if name in frame}
        if "tokens" in frame:  # told by a step's row with its own: had been seen when the next step began
            told = frame.dropna(subset="tokens")
            seen["tokens"] = np.interp(steps[first], [0, *told["step"] + 1], [0, *told["tokens"]])
        return cls(steps[first].astype(np.float64), seen)

    def at(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Axis -> (row,) float64: what had been seen at these steps, NaN where unknown."""
        return {name: np.interp(steps, self.steps, self.seen[name], left=np.nan, right=np.nan)
                if len(self.seen.get(name, ())) else np.full(len(steps), np.nan) for name in _AXES}

    def step_of(self, examples: np.ndarray) -> np.ndarray:
        """(row,) int64: the last step that began before so many examples had been seen; -1 where unknown."""
        return np.searchsorted(self.seen.get("examples", np.zeros(0)), examples, side="right") - 1


def _of_place(each: Entry | Place) -> Iterator[pd.DataFrame]:
    """The rows of a trajectory: of each lens the numbers of its metrics.json, then those of its table."""
    axis = TimeAxis.of(each.folder / "trajectory")
    for part, metrics in each.metrics.items():
        folder = each.folder / part
        for rows in (_summaries(metrics), _history(folder) if part == "trajectory" else _lens(folder, axis)):
            if rows is not None and len(rows):
                rows = rows.assign(**{name: values for name, values in axis.at(rows["step"].to_numpy()).items()
                                      if name not in rows})
                yield rows.assign(**_names(each), lens=part)


def _of_shared(lens: str, folder: Path) -> Iterator[pd.DataFrame]:
    rows = _lens(folder, TimeAxis(np.zeros(0), {}))
    if rows is not None and len(rows):
        place = f"{folder.parent.name}/{folder.name}"
        unknown = {name: np.nan for name in _AXES if name not in rows}
        yield rows.assign(place=place, model="", task="", method="", seed=-1, lens=lens, **unknown)


def _names(each: Entry | Place) -> dict[str, Any]:
    if isinstance(each, Entry):
        return {"place": f"{each.model}/{each.task}/{each.method}/s{each.seed}", "model": each.model,
                "task": each.task, "method": each.method, "seed": each.seed}
    model, _, kind = each.name.rpartition("/")
    return {"place": each.name, "model": model, "task": "", "method": kind, "seed": -1}


def _summaries(metrics: dict[str, float]) -> pd.DataFrame:
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return _rows(quantity=list(numbers), value=list(numbers.values()))


def _history(folder: Path) -> pd.DataFrame | None:
    """Every evaluation, and at most `_TRAINING_ROWS` steps of the training, each number a row."""
    if not (folder / "history.parquet").is_file():
        return None
    frame = read_table(folder / "history.parquet").to_pandas()
    steps = np.flatnonzero(frame["kind"] == "train")
    if len(steps) > _TRAINING_ROWS:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, _TRAINING_ROWS).round().astype(int))]
    kept = np.union1d(np.flatnonzero(frame["kind"] != "train"), steps)
    frame = frame.iloc[kept]
    numbers = [name for name in frame if name not in ("step", "kind", "split", *_AXES)]
    long = frame.melt(["step", "kind", "split"], numbers, "quantity").dropna(subset="value")
    split = long["split"].fillna("").where(long["kind"] != "train", "train")
    return _rows(step=long["step"].to_numpy(), quantity=long["quantity"].to_numpy(), split=split.to_numpy(),
                 value=long["value"].to_numpy(np.float64))


def _lens(folder: Path, axis: TimeAxis) -> pd.DataFrame | None:
    if not (folder / "table.parquet").is_file():
        return None
    table = read_long_table(folder / "table.parquet")
    if "value" not in table.frame:
        return _curves(folder, axis)
    rows = table.shared()
    own = [name for name in rows if name not in SHARED and name not in _COUNTS
           and not pd.api.types.is_float_dtype(rows[name].dtype)]
    return rows[list(SHARED)].rename(columns={"statistic": "quantity"}).assign(keys=_keys(rows[own]))


def _curves(folder: Path, axis: TimeAxis) -> pd.DataFrame | None:
    """The courses of curves.csv over steps or examples, its first column."""
    if not (folder / "curves.csv").is_file():
        return None
    frame = pd.read_csv(folder / "curves.csv")
    over = str(frame.columns[0])
    numbers = [name for name in frame.columns[1:] if pd.api.types.is_numeric_dtype(frame[name].dtype)]
    long = frame.melt(over, numbers, "quantity").dropna(subset="value")
    time = long[over].to_numpy()
    rows = _rows(step=time if over == "step" else axis.step_of(time), quantity=long["quantity"].to_numpy(),
                 value=long["value"].to_numpy(np.float64))
    return rows if over == "step" else rows.assign(examples=time.astype(np.float64))


def _keys(own: pd.DataFrame) -> Any:
    """(row,) categories "name=value name=value" of the columns that tell rows apart; empty ones are left out."""
    if not own.shape[1]:
        return pd.Categorical([""] * len(own))
    codes = own.groupby(list(own), observed=True, sort=False, dropna=False).ngroup().to_numpy()
    firsts = own.iloc[np.unique(codes, return_index=True)[1]]
    texts = [" ".join(f"{name}={value}" for name, value in zip(own, row, strict=True) if value not in ("", -1))
             for row in firsts.astype(object).itertuples(index=False)]
    names = sorted(set(texts))
    return pd.Categorical.from_codes(np.array([names.index(text) for text in texts])[codes], names)


def _rows(**columns: Any) -> pd.DataFrame:
    """Rows with these columns, the others as of a number about the whole."""
    count = len(next(iter(columns.values())))
    rest: dict[str, Any] = {"step": -1, "layer": -1, "split": "", "label": "", "keys": "", "low": np.nan,
                            "high": np.nan, "n": -1}
    return pd.DataFrame({**{name: [value] * count for name, value in rest.items() if name not in columns}, **columns})


def _arrow(rows: pd.DataFrame) -> pa.Table:
    columns = {}
    for name, (kind, _) in COLUMNS.items():
        values = rows[name] if name in rows else pd.Series([""] * len(rows))
        if kind == _TEXT:
            values = pd.Categorical(values)
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(values.codes, pa.int32()),
                                                           pa.array(values.categories.tolist(), pa.string()))
        else:
            columns[name] = pa.array(values.to_numpy(), kind)
    return pa.table(columns)
