"""Class cones: do sentence vectors of one class point the same way, and how far apart do the classes point?

Vectors are (row, dim), one per sentence; labels (row,) are integers, any number of classes. Computed in float64.
Unless told otherwise a class mean is the direction of the mean of its UNIT vectors, so that long vectors do not rule
it; `mean_of="vectors"` takes the plain mean. In the view of single rows (`cone`) a row is part of its own class's
mean, as published; every mean over rows leaves a row's cosine with itself out.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from finetrace.lenses.geometry.statistics import unit_vectors

MeanOf = Literal["units", "vectors"]


@dataclass(frozen=True)
class ConeStatistics:
    """How separate the classes are.

    similarity: (class, class) mean cosine over all pairs of different rows, one of each class; within a class on the
    diagonal; within, between: mean cosine over all pairs of the same, of different classes (pairs count equally),
    -1 .. 1; angle: mean angle between the class means in degrees, 0 .. 180;
    scatter_ratio: between-class over within-class scatter of the vectors themselves, sum_c n_c |m_c - m|^2 /
    sum |x_i - m_c|^2, >= 0, free of scale; 0 when the means coincide, infinite when each class is a point.
    """

    similarity: np.ndarray
    within: float
    between: float
    angle: float
    scatter_ratio: float


def cone(vectors: np.ndarray, labels: np.ndarray, reference: Literal["class_mean", "first"] | int = "class_mean",
         mean_of: MeanOf = "units") -> np.ndarray:
    """Cosine of every row with a reference: float64 in [-1, 1], higher = closer in direction.

    reference: "class_mean" gives (row, class), one column per class in ascending order of the labels; "first" or a row
    number gives (row,), the cosine with that row, exactly 1 for the row itself (the published view took the first
    sentence).
    """
    vectors, labels, _ = _checked(vectors, labels)
    units = unit_vectors(vectors)
    if reference == "class_mean":
        means = class_means(vectors if mean_of == "vectors" else units, labels)
        return np.clip(units @ unit_vectors(means).T, -1.0, 1.0)
    row = 0 if reference == "first" else reference
    if isinstance(row, str) or not -len(units) <= row < len(units):
        raise ValueError(f"reference {reference!r}: take 'class_mean', 'first' or a row number below {len(units)}")
    cosines = np.clip(units @ units[row], -1.0, 1.0)
    cosines[row] = float(units[row].any())  # the definition, where the product is 1 to rounding only
    return cosines


def own_and_other(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Mean cosine of rows with the mean direction of their own class, from which the row itself is left out, and with
    those of the other classes: (1 + group, 2) float64 in [-1, 1], of all rows, then with each group of rows left out.

    vectors: (row, dim);  labels: (row,);  groups: (row,) 0 .. G-1, none without. A row that is alone in its class has
    no own mean and does not count there; NaN where there is none left. With one class there are no others: NaN. The
    95 % interval of the first, by the jackknife over groups, is wide: it holds the truth in 99 % of samples, since
    leaving a group out moves the means, too (`benchmarks/coverage.py`).
    """
    vectors, labels, classes = _checked(vectors, labels)
    units, column = unit_vectors(vectors), np.searchsorted(classes, labels)
    nonzero = np.asarray(units.any(axis=1), dtype=np.float64)
    by_group = class_sums(vectors, labels, groups).units
    total = by_group.sum(axis=0)
    parts = [(np.ones(len(labels), dtype=bool), total)]
    if groups is not None:
        parts += [(groups != g, total - group_sums) for g, group_sums in enumerate(by_group)]
    means = np.full((len(parts), 2), np.nan)
    for number, (left_in, sums) in enumerate(parts):
        products, norms = units[left_in] @ sums.T, np.linalg.norm(sums, axis=1)
        rows, row_class = np.arange(int(left_in.sum())), column[left_in]
        own_products = products[rows, row_class]
        # lengths of the own sum less the row
        lengths = np.sqrt(np.maximum(norms[row_class] ** 2 - 2 * own_products + nonzero[left_in], 0))
        valid = (lengths > 1e-9 * np.maximum(norms[row_class], 1)) & (nonzero[left_in] > 0)
        cosines = np.divide(products, norms, out=np.full(products.shape, np.nan), where=norms > 0)
        cosines[rows, row_class] = np.nan
        others = cosines[np.isfinite(cosines)]
        means[number, 0] = np.mean((own_products - nonzero[left_in])[valid] / lengths[valid]) if valid.any() else np.nan
        means[number, 1] = others.mean() if len(others) else np.nan
    return np.clip(means, -1.0, 1.0)


def cone_statistics(vectors: np.ndarray, labels: np.ndarray, mean_of: MeanOf = "units") -> ConeStatistics:
    """`ConeStatistics` of (row, dim) and (row,); at least two classes. A class of one row has no pairs: its own entry
    is NaN."""
    _, _, classes = _checked(vectors, labels)
    if len(classes) < 2:
        raise ValueError(f"labels hold one class, {classes[0]}: cones compare classes; give examples of two or more")
    return statistics_of_sums(class_sums(vectors, labels), mean_of)


def class_means(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of the rows of each class, ascending: (row, dim) -> (class, dim) float64."""
    classes, column = np.unique(labels, return_inverse=True)
    return np.stack([np.asarray(vectors, dtype=np.float64)[column == c].mean(axis=0) for c in range(len(classes))])


@dataclass(frozen=True)
class ClassSums:
    """Sums per group of rows and class, from which every pairwise mean follows.

    counts: (group, class) rows;  nonzero: those that are not zero;  units: (group, class, dim) sum of unit vectors;
    vectors: (group, class, dim) sum of the vectors minus `centre`;  power: (group, class) sum of their squared norms;
    centre: (dim,) mean of all rows, taken away first so that scatter keeps its digits however far off the cloud lies.
    """

    counts: np.ndarray
    nonzero: np.ndarray
    units: np.ndarray
    vectors: np.ndarray
    power: np.ndarray
    centre: np.ndarray


def class_sums(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> ClassSums:
    """`ClassSums` of (row, dim) and (row,); groups: (row,) 0 .. G-1, one group without."""
    vectors, labels, classes = _checked(vectors, labels)
    groups = np.zeros(len(labels), dtype=np.int64) if groups is None else np.asarray(groups)
    shape = (int(groups.max()) + 1, len(classes))
    cell = groups * len(classes) + np.searchsorted(classes, labels)
    order = np.argsort(cell, kind="stable")
    filled, begins = np.unique(cell[order], return_index=True)

    def summed(values: Any) -> np.ndarray:
        sums = np.zeros((shape[0] * shape[1], *values.shape[1:]))
        sums[filled] = np.add.reduceat(values[order], begins, axis=0)
        return sums.reshape(*shape, *values.shape[1:])

    units, centre = unit_vectors(vectors), np.asarray(vectors.mean(axis=0))
    centred = vectors - centre
    return ClassSums(summed(np.ones(len(labels))), summed(units.any(axis=1).astype(np.float64)), summed(units),
                     summed(centred), summed(np.einsum("rd,rd->r", centred, centred)), centre)


def left_out_statistics(sums: ClassSums, mean_of: MeanOf = "units") -> list[ConeStatistics]:
    """`ConeStatistics` with each group left out in turn (delete-a-group jackknife); none with fewer than two groups."""
    groups = len(sums.counts)
    return [statistics_of_sums(sums, mean_of, np.arange(groups) != g) for g in range(groups)] if groups > 1 else []


def statistics_of_sums(sums: ClassSums, mean_of: MeanOf = "units", groups: np.ndarray | slice = slice(None)
                       ) -> ConeStatistics:
    """`ConeStatistics` of some groups, by default all; NaN where a class is empty or has no pair."""
    counts, nonzero, units, vectors, power = (
        part[groups].sum(axis=0) for part in (sums.counts, sums.nonzero, sums.units, sums.vectors, sums.power))
    cosines = units @ units.T - np.diag(nonzero)  # sums over pairs of different rows
    pairs = np.outer(counts, counts) - np.diag(counts)
    similarity = np.divide(cosines, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)
    diagonal = np.eye(len(counts), dtype=bool)
    if (counts < 1).any():
        return ConeStatistics(similarity, *(float("nan"),) * 4)
    within = float(cosines[diagonal].sum() / pairs[diagonal].sum()) if pairs[diagonal].sum() else float("nan")
    between = float(cosines[~diagonal].sum() / pairs[~diagonal].sum())
    means = units if mean_of == "units" else vectors / counts[:, None] + sums.centre
    directions = unit_vectors(means)
    a, b = np.triu_indices(len(counts), 1)
    # the half-angle form keeps its digits near 0 and 180 degrees, where arccos loses half of them
    angles = 2 * np.arctan2(np.linalg.norm(directions[a] - directions[b], axis=1),
                            np.linalg.norm(directions[a] + directions[b], axis=1))
    angles[~(directions[a].any(axis=1) & directions[b].any(axis=1))] = np.nan
    centres = vectors / counts[:, None]
    inner = float((power - counts * np.square(centres).sum(axis=1)).sum())
    outer = float((counts * np.square(centres - vectors.sum(axis=0) / counts.sum()).sum(axis=1)).sum())
    tiny = np.finfo(np.float64).eps * len(sums.centre) * float(power.sum())
    ratio = outer / inner if inner > tiny else (float("inf") if outer > tiny else float("nan"))
    return ConeStatistics(similarity, within, between, float(np.degrees(angles.mean())), ratio)


def _checked(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, dim) float64, (row,), classes ascending; or a ValueError."""
    vectors, labels = np.asarray(vectors), np.asarray(labels)
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1] or not len(labels):
        raise ValueError(f"vectors {vectors.shape} and labels {labels.shape}: give (row, dim) and (row,), at least one "
                         "row")
    vectors = vectors.astype(np.float64, copy=False)
    if not np.isfinite(vectors).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(vectors).all(axis=1)))} holds NaN or infinity")
    return vectors, labels, np.unique(labels)
