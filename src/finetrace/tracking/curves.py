"""Curves of finished outputs as series: reads files only."""

from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.tables import read_table
from finetrace.tracking.series import Series, metric_name

_NOT_METRICS = {"step", "kind", "split", "examples", "epoch", "tokens"}  # columns of history.parquet


def history_series(path: Path) -> list[Series]:
    """Curves of a training: train/<column> per optimiser step, <split>/<column> per evaluation."""
    table = read_table(path)
    kind = np.array(table["kind"].to_pylist(), dtype=object)
    split = np.array([s or "eval" for s in table["split"].to_pylist()], dtype=object)
    group = np.where(kind == "train", "train", split)
    curves = []
    for name in table.column_names:
        if name in _NOT_METRICS or not _is_number(table[name].type):
            continue
        steps, values, rows = valid(table, name, with_rows=True)
        for prefix in sorted(set(group[rows])):
            in_group = group[rows] == prefix
            if name == "loss" or not np.isnan(values[in_group]).all():
                curves += one_series(f"{prefix}/{name}", steps[in_group], values[in_group])
    return curves


def curves_series(path: Path, prefix: str) -> list[Series]:
    """Curves of a lens, each named by its column after the prefix, whatever they are over."""
    return read_curves(path, prefix)[1]


def read_curves(path: Path, prefix: str = "") -> tuple[str, list[Series]]:
    """What the curves of a lens are over, e.g. step, and the curves: the first column is the x axis (whole numbers),
    every other numeric column a curve."""
    from pyarrow import ArrowInvalid
    from pyarrow.csv import read_csv

    try:
        table = read_csv(path)
    except (ArrowInvalid, OSError) as error:
        raise FinetraceError(f"{path}: not a readable CSV file ({error}); delete its folder and run the stage "
                             "again") from error
    axis = table.column_names[0]
    if not _is_number(table[axis].type):
        raise FinetraceError(f"{path}: its first column {axis!r} is no x axis of whole numbers; the lens must write "
                             "it first")
    table = table.rename_columns(["step", *table.column_names[1:]])
    return axis, [curve for name in table.column_names[1:] if _is_number(table[name].type)
                  for curve in one_series(prefix + name, *valid(table, name))]


def valid(table: Any, column: str, *, with_rows: bool = False) -> tuple[np.ndarray, ...]:
    """Steps and values of the rows in which neither is null (NaN is a value), optionally with the rows' numbers."""
    rows = np.flatnonzero(np.asarray(table[column].is_valid()) & np.asarray(table["step"].is_valid()))
    valid_rows = table.select(["step", column]).take(rows)
    steps = np.rint(np.asarray(valid_rows["step"])).astype(np.int64)
    values = np.asarray(valid_rows[column]).astype(np.float64)
    return (steps, values, rows) if with_rows else (steps, values)


def one_series(name: str, steps: np.ndarray, values: np.ndarray) -> list[Series]:
    """One series with increasing steps; of several values at a step the last counts. Infinities become NaN: MLflow
    would store them as 1.8e308 and no chart of the run could be read."""
    if not len(steps):
        return []
    steps, values = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], np.where(np.isfinite(values[order]), values[order], np.nan)
    is_last = np.append(steps[1:] != steps[:-1], True)
    return [Series(metric_name(name), steps[is_last], values[is_last])]


def _is_number(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_integer(kind) or types.is_floating(kind)
