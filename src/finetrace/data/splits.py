"""Which rows a split keeps: examples of one sentence, or of one row of the source, stay together."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pyarrow as pa

from finetrace import seeds
from finetrace.errors import FinetraceError


def limit_rows(table: pa.Table, limit: int, seed: int, split: str, choose: str) -> pa.Table:
    """At most `limit` rows (tasks of words: sentences with all their examples), in source order;
    choose: random | first."""
    units = np.unique(units_of(table))
    if len(units) <= limit:
        return table
    chosen = np.arange(limit) if choose == "first" else seeds.generator(seed, "rows",
                                                                        split).permutation(len(units))[:limit]
    return table.filter(pa.array(np.isin(units_of(table), units[chosen])))


def hold_out(train: pa.Table, share: float, seed: int, which: str = "random") -> dict[str, pa.Table]:
    """Part of train as validation: a share (0 to 1) of its rows, of its sentences in tasks of words.

    which: random, a seeded choice (their number rounded), or last, the end of the file (their number rounded up). Where
    the table has a column `group`, whole groups are set aside, and the share is one of groups.
    Raises FinetraceError when nothing is left to train on.
    """
    unit_of_row = group_numbers(train) if "group" in train.column_names else units_of(train)
    units = np.unique(unit_of_row)
    count = max(1, round(len(units) * share)) if which == "random" else last_rows(len(units), share)
    if count >= len(units):
        raise FinetraceError(f"holdout: {share} leaves no training rows of {len(units)}")
    chosen = (seeds.generator(seed, "holdout").permutation(len(units))[:count] if which == "random"
              else np.arange(-count, 0))
    held_out = np.isin(unit_of_row, units[chosen])
    return {"validation": train.filter(pa.array(held_out)), "train": train.filter(pa.array(~held_out))}


def last_rows(rows: int, share: float) -> int:
    """How many rows `holdout_rows: last` sets aside: the share rounded up,
    in exact arithmetic (0.1 of 30 rows is 3)."""
    return math.ceil(rows * Fraction(str(share)))


def units_of(table: pa.Table) -> np.ndarray:
    """(row,) int64: what holdout and max_rows count: sentences in tasks of words, rows of the source, else rows."""
    return table[next(c for c in ("sentence", "unit", "example_id") if c in table.column_names)].to_numpy()


def group_numbers(table: pa.Table) -> np.ndarray:
    """(row,) int64: number of each row's group, in the order in which groups first appear."""
    return table["group"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def require_apart(name: str, tables: dict[str, pa.Table], column: str) -> None:
    """Raises FinetraceError, naming some of them, when two splits of a source share groups."""
    groups = {split: set(table["group"].to_pylist()) for split, table in tables.items()}
    for first, second in combinations(groups, 2):
        if shared := sorted(groups[first] & groups[second]):
            shown = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
            raise FinetraceError(f"{name}: group: {first} and {second} share {len(shared)} values of {column!r} "
                                 f"({shown}); give the source splits that share none, or one split and `holdout`")
