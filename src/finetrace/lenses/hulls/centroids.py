"""Where the classes are: centroids over training, how far they move, and in which directions.

Zhou and Srikumar 2022, section on the geometry of change. The study does not say on which points its PCA was fitted;
here it is fitted on the centroids of all checkpoints of one layer together, so that paths share one picture.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plane:
    """A picture in two dimensions."""

    points: np.ndarray
    """(..., 2) float64 coordinates, in the unit of the vectors; NaN where the vector is."""
    shares: np.ndarray
    """(2,) share of the variance (uncentred: of the squared length) that each direction holds, in [0, 1]; 0 if there
    is none."""


def centroids(points: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Mean of the points of each label: (label, dim) float64, NaN for labels without points.

    points: (point, dim);  labels: (point,) int64 in 0 .. classes-1.
    """
    points, labels = np.asarray(points, dtype=np.float64), np.asarray(labels)
    if points.ndim != 2 or labels.shape != (len(points),):
        raise ValueError(f"points have shape {points.shape} and labels {labels.shape}; give (point, dim) and (point,)")
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or infinity; remove such rows before averaging")
    means = np.full((classes, points.shape[1]), np.nan)
    for label in range(classes):
        label_points = points[labels == label]
        if len(label_points):
            means[label] = label_points.mean(axis=0)
    return means


def displacements(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each centroid moved: (label,) Euclidean length of after - before, 0 without motion, NaN for absent
    labels.

    before, after: (label, dim).
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f"centroids have shapes {before.shape} and {after.shape}; give two of (label, dim)")
    return np.linalg.norm(after - before, axis=1)


def plane(vectors: np.ndarray, *, centred: bool = True) -> Plane:
    """Principal components in two dimensions of vectors (..., dim), all together; vectors with NaN are left out.

    centred: subtract the mean first (PCA); without, zero stays at the origin, as directions of motion need it. The
    sign of each direction is such that its largest component is positive, so that equal input gives equal pictures.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    flat = vectors.reshape(-1, vectors.shape[-1])
    finite = np.isfinite(flat).all(axis=1)
    if not finite.any():
        return Plane(np.full((*vectors.shape[:-1], 2), np.nan), np.zeros(2))
    values = flat[finite]
    if centred:
        values = values - values.mean(axis=0)
    _, sizes, directions = np.linalg.svd(values, full_matrices=False)
    dimensions = min(2, len(directions))
    first = directions[:dimensions]
    first = first * np.sign(first[np.arange(dimensions), np.abs(first).argmax(axis=1)])[:, None]
    coordinates = np.zeros((len(flat), 2))
    coordinates[finite, :dimensions] = values @ first.T
    coordinates[~finite] = np.nan
    shares, total = np.zeros(2), float((sizes**2).sum())
    if total > 0:
        shares[:dimensions] = sizes[:dimensions] ** 2 / total
    return Plane(coordinates.reshape(*vectors.shape[:-1], 2), shares)


def closest(means: np.ndarray, count: int = 3) -> list[int]:
    """The `count` labels whose centroids lie closest together: the closest pair, then always the label nearest to
    those named.

    means: (label, dim), NaN rows for absent labels, which are never named. Ties: smaller numbers first.
    """
    present = np.flatnonzero(np.isfinite(means).all(axis=1))
    if len(present) <= count:
        return present.tolist()
    between = np.linalg.norm(means[present, None] - means[None, present], axis=-1)
    np.fill_diagonal(between, np.inf)
    named = list(divmod(int(between.argmin()), len(present)))[:count]
    while len(named) < count:
        reach = between[named].sum(axis=0)
        reach[named] = np.inf
        named.append(int(reach.argmin()))
    return sorted(present[named].tolist())
