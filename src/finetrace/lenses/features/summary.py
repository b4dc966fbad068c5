"""What the lens features says about one trajectory: rows of its table, headline numbers, curves. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetrace.lenses.features import change as lens
from finetrace.longtable import LongTable, known

COLUMNS: dict[str, type] = {"step": np.int64, "set": str, "label": str, "statistic": str, "value": np.float64,
                            "low": np.float64, "high": np.float64, "n": np.int64}
Row = dict[str, Any]


def set_rows(step: int, name: str, before: np.ndarray, after: np.ndarray, weight: np.ndarray, labels: np.ndarray,
             label_names: Sequence[str], units: lens.Units, rcond: float, ridge: float) -> Iterator[Row]:
    """The rows of one set at one checkpoint.

    before, after: (row, dim) features at the first checkpoint and at this one;  weight: (class, dim) of the head;
    labels: (row,) int. Statistics: cosine, cosine_with_diagonal, diff, norm, fdr, fdr_ridge, fdr_rank, fdr_singular,
    fdr_lost; per class class_norm (of its mean feature) and head_cosine (of its head row with that mean);
    head_cosine_own and head_cosine_other, their means over classes with the own and with the other classes' means; the
    same `centred`, from the mean of all features.
    """
    for statistic, estimate in (("cosine", lens.cosine_similarity(after, units)),
                                ("cosine_with_diagonal", lens.cosine_similarity(after, units, diagonal=True)),
                                ("diff", lens.feature_change(before, after, units)),
                                ("norm", lens.mean_norm(after, units))):
        yield _row(step, name, "", statistic, estimate.value, estimate.n, estimate.low, estimate.high)
    fisher = lens.fisher_ratio(after, labels, rcond, ridge)
    for statistic, value in (("fdr", fisher.value), ("fdr_ridge", fisher.ridge), ("fdr_rank", float(fisher.rank)),
                             ("fdr_singular", float(fisher.singular)), ("fdr_lost", fisher.lost)):
        yield _row(step, name, "", statistic, value, len(labels))
    means = lens.class_means(after, labels, len(label_names))
    cosines = lens.head_cosines(weight, means)
    for k, label in enumerate(label_names):
        members = int((labels == k).sum())
        if members:
            yield _row(step, name, label, "class_norm", float(np.linalg.norm(means[k])), members)
            yield _row(step, name, label, "head_cosine", float(cosines[k, k]), members)
    centred = lens.head_cosines(weight - weight.mean(axis=0), means - np.asarray(after, dtype=np.float64).mean(axis=0))
    for suffix, matrix in (("", cosines), ("_centred", centred)):
        diagonal = np.eye(len(matrix), dtype=bool)
        for side, chosen in (("own", matrix[diagonal]), ("other", matrix[~diagonal])):
            defined = chosen[np.isfinite(chosen)]
            mean = float(defined.mean()) if len(defined) else np.nan
            yield _row(step, name, "", f"head_cosine_{side}{suffix}", mean, len(labels))


def head_rows(step: int, weight: np.ndarray, label_names: Sequence[str]) -> Iterator[Row]:
    """The rows of the head at one checkpoint: head_norm, and head_row_norm per class; n counts rows of the head."""
    yield _row(step, "", "", "head_norm", lens.head_norm(weight), len(weight))
    for k, label in enumerate(label_names):
        yield _row(step, "", label, "head_row_norm", lens.head_norm(weight[k]), 1)


def metrics(table: LongTable, sets: Sequence[str], first: int, kept_step: int) -> dict[str, float]:
    """What a person compares between runs, e.g. `test/cosine/first`, `test/diff`, `head_norm/kept`; undefined ones left
    out."""
    numbers = {f"{name}/{statistic}/{when}": table.value(step=step, set=name, statistic=statistic)
               for name in sets for statistic in ("cosine", "fdr", "fdr_ridge")
               for when, step in (("first", first), ("kept", kept_step))}
    numbers |= {f"{name}/diff": table.value(step=kept_step, set=name, statistic="diff") for name in sets}
    numbers |= {f"head_norm/{when}": table.value(step=step, statistic="head_norm")
                for when, step in (("first", first), ("kept", kept_step))}
    return known(numbers)


def courses(table: LongTable, sets: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """set -> statistic -> (checkpoint, 3) value, low, high."""
    return {name: {statistic: table.course(set=name, statistic=statistic)
                   for statistic in ("cosine", "diff", "fdr_ridge")} for name in sets}


def curves(table: LongTable, sets: Sequence[str]) -> dict[str, Any]:
    """Columns of curves.csv: step, head_norm, and of each set its cosine, diff and fdr_ridge."""
    columns = {"step": table.distinct("step"), "head_norm": table.course(statistic="head_norm")[:, 0]}
    return columns | {f"{name}_{statistic}": values[:, 0] for name, set_courses in courses(table, sets).items()
                      for statistic, values in set_courses.items() if np.isfinite(values[:, 0]).any()}


def _row(step: int, name: str, label: str, statistic: str, value: float, n: int, low: float = np.nan,
         high: float = np.nan) -> Row:
    return {"step": step, "set": name, "label": label, "statistic": statistic, "value": value, "low": low,
            "high": high, "n": n}
