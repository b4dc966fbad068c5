"""The cross-task effect: what training on one task does to the classes of another (Zhou and Srikumar 2022, 5.3).

The same examples are looked at before and after the training. A class moves away from the others when its minimum
distance, that of its hull to the nearest hull of another class, grows; it comes closer when it shrinks. Training on a
related task helps the classes of the probed one, an unrelated task blurs them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.lenses.hulls.clusters import Clusters
from finetrace.lenses.hulls.distances import LabelDistances
from finetrace.lenses.hulls.summary import mean_interval
from finetrace.lenses.intervals import difference_interval, share_interval
from finetrace.longtable import LongTable

CERTAIN = 1e-6  # relative difference of two distances below which it is not certain which one is larger
COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64,
    "n": np.int64, "split": str, "label": str}
Row = dict[str, Any]


@dataclass(frozen=True)
class Effect:
    """What happened to the minimum distances of classes, in the unit of the vectors."""

    changes: np.ndarray
    """(label,) after - before; NaN where one of them is undefined."""
    grown: int
    """Labels whose distance grew."""
    shrunk: int
    """Labels whose distance shrank."""
    same: int
    """Labels whose distance changed by less than is certain: a millionth of the larger one."""
    mean: float
    """Mean change over labels that have both; NaN without any. 0: nothing changed."""
    low: float
    """Lower end of its 95 % interval over labels (Student's t); NaN with fewer than two labels."""
    high: float


def effect(before: np.ndarray, after: np.ndarray) -> Effect:
    """Counts of labels whose minimum distance grew and shrank, and the mean change.

    before, after: (label,) distances >= 0 of the same labels in the same order, NaN where a label has none. Equal ones
    give no label grown or shrunk and a mean of 0. ValueError for different shapes or infinite distances.
    """
    first, last = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.ndim != 1 or first.shape != last.shape:
        raise ValueError(f"distances have shapes {first.shape} and {last.shape}; give one number per label, of the "
                         "same labels")
    if np.isinf(first).any() or np.isinf(last).any():
        raise ValueError("distances hold infinity; a label without a distance is NaN")
    changes = last - first
    finite = np.isfinite(changes)
    moved = np.zeros(len(changes), bool)
    moved[finite] = np.abs(changes[finite]) > CERTAIN * np.maximum(first[finite], last[finite])
    grown, shrunk = int((changes[moved] > 0).sum()), int((changes[moved] < 0).sum())
    mean, low, high, count = mean_interval(changes)
    return Effect(changes, grown, shrunk, count - grown - shrunk, mean, low, high)


def space_rows(step: int, layer: int, clusters: Clusters, between: LabelDistances, names: Sequence[str], split: str
               ) -> list[Row]:
    """What one space says about the classes, as rows of the table.

    names: of all classes, by number;  split: whose examples were clustered. Statistics: clusters, labels (that have
    examples), linear (1: every class is one cluster), outside_min of each label and, without a label, their mean.
    """
    count = len(clusters.assignment)
    codes = np.searchsorted(clusters.classes, clusters.cluster_labels)[clusters.assignment]
    sizes = np.bincount(codes, minlength=len(clusters.classes))
    mean, low, high, finite_count = mean_interval(between.outside_min)
    rows = [_row(step, layer, name, value, n=count, split=split) for name, value in (
        ("clusters", clusters.count), ("labels", int((sizes > 0).sum())), ("linear", int(clusters.linear)))]
    rows.append(_row(step, layer, "outside_min", mean, low, high, n=finite_count, split=split))
    return rows + [_row(step, layer, "outside_min", value, n=int(size), split=split, label=names[int(label)])
                   for label, value, size in zip(between.classes, between.outside_min, sizes, strict=True)]


def change_rows(step: int, layer: int, change: Effect, classes: np.ndarray, names: Sequence[str], split: str
                ) -> list[Row]:
    """What changed up to `step`, as rows: labels_grown, labels_shrunk, labels_same, mean_growth, and growth of each
    label."""
    compared = change.grown + change.shrunk + change.same
    rows = [_row(step, layer, name, value, n=compared, split=split) for name, value in (
        ("labels_grown", change.grown), ("labels_shrunk", change.shrunk), ("labels_same", change.same))]
    rows.append(_row(step, layer, "mean_growth", change.mean, change.low, change.high, n=compared, split=split))
    return rows + [_row(step, layer, "growth", value, n=1, split=split, label=names[int(label)])
                   for label, value in zip(classes, change.changes, strict=True)]


def accuracy_rows(step: int, layer: int, right: np.ndarray, units: np.ndarray, split: str, prefix: str = ""
                  ) -> list[Row]:
    """Accuracy of classifiers as rows, with its 95 % interval (`share_interval`).

    right: (seed, row) bool, whether an example of `split` was classified rightly;  units: (row,) int, the sentence of
    each, whose words depend on each other. With several seeds the value is
    their mean, n and the interval those of one classifier, and `<prefix>accuracy_sd` their standard deviation (with
    n - 1).
    """
    share, rows = right.mean(axis=1), right.shape[1]
    low, high = map(float, share_interval(right.mean(axis=0), units))
    table_rows = [_row(step, layer, f"{prefix}accuracy", share.mean(), low, high, n=rows, split=split)]
    if len(right) > 1:
        table_rows.append(_row(step, layer, f"{prefix}accuracy_sd", share.std(ddof=1), n=len(right), split=split))
    return table_rows


def accuracy_change(step: int, layer: int, before: np.ndarray, after: np.ndarray, units: np.ndarray, split: str,
                    prefix: str = "") -> Row:
    """The change of accuracy with its paired interval over sentences (`difference_interval`); before, after: (seed,
    row) bool, and units as above."""
    difference = after.mean(axis=0) - before.mean(axis=0)
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    with np.errstate(invalid="ignore"):  # a single sentence, left out, leaves none
        left_out = (difference.sum() - np.bincount(unit, difference)) / (len(difference) - sizes)
    low, high = map(float, difference_interval(difference.mean(), left_out, len(difference)))
    return _row(step, layer, f"{prefix}accuracy_change", difference.mean(), low, high, n=len(difference), split=split)


def hits(logits: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which examples are classified rightly: logits (..., row, class), classes (class,) of that axis, labels (row,).

    Returns (..., row) bool. A label that the classifier has never seen is an error of it; of equal logits the first
    class wins.
    """
    return np.asarray(classes)[np.argmax(logits, axis=-1)] == np.asarray(labels)


def table(rows: Iterable[Row]) -> LongTable:
    """Rows as one table, ordered by step and layer."""
    return LongTable.of_rows(rows, COLUMNS).sorted("step", "layer")


def _row(step: int, layer: int, statistic: str, value: float, low: float = np.nan, high: float = np.nan, *, n: int,
         split: str, label: str = "") -> Row:
    return {"step": step, "layer": layer, "statistic": statistic, "value": value, "low": low, "high": high, "n": n,
            "split": split, "label": label}
