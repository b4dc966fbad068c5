"""Which rows a split keeps: examples of one sentence stay together."""

import numpy as np
import pyarrow as pa

from finetrace import seeds
from finetrace.errors import FinetraceError


def limit_rows(table: pa.Table, limit: int, seed: int, split: str, choose: str) -> pa.Table:
    """At most `limit` rows (tasks of words: sentences with all their examples), in source order; choose: random | first."""
    units = np.unique(units_of(table))
    if len(units) <= limit:
        return table
    chosen = np.arange(limit) if choose == "first" else seeds.generator(seed, "rows", split).permutation(len(units))[:limit]
    return table.filter(pa.array(np.isin(units_of(table), units[chosen])))


def hold_out(train: pa.Table, share: float, seed: int) -> dict[str, pa.Table]:
    """Part of train as validation: a share (0 to 1) of its rows, of its sentences in tasks of words.

    Raises FinetraceError when nothing is left to train on.
    """
    units = np.unique(units_of(train))
    count = max(1, round(len(units) * share))
    if count >= len(units):
        raise FinetraceError(f"holdout: {share} leaves no training rows of {len(units)}")
    held = np.isin(units_of(train), units[seeds.generator(seed, "holdout").permutation(len(units))[:count]])
    return {"validation": train.filter(pa.array(held)), "train": train.filter(pa.array(~held))}


def units_of(table: pa.Table) -> np.ndarray:
    """(row,) int64: what holdout and max_rows count: sentences in tasks of words, else rows."""
    return table["sentence" if "sentence" in table.column_names else "example_id"].to_numpy()
