"""What the hulls of a partition say: distances of labels, spread within them, the nearest cluster of a new point,
likeness of two spaces.

Zhou and Srikumar 2021 (prediction) and 2022 (label distances). Where the original could not tell, or averaged, the
difference is a setting: `min_size=6, reduce="mean", missing="zero"` gives the numbers of the 2022 program.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.hulls.clusters import Clusters
from finetrace.lenses.hulls.disjointness import mean_planes
from finetrace.lenses.hulls.separation import hull_distance, proved_distance
from finetrace.lenses.hulls.telling import Tell

ROWS = 256
"""Rows compared at a time for distances within a cluster."""
POINTS = 64
"""New points compared with all clusters at a time."""


@dataclass(frozen=True)
class Prediction:
    """Clusters by distance of each point."""

    order: np.ndarray
    """(point, rank) int64: clusters, nearest first; equal distances by cluster number."""
    distances: np.ndarray
    """(point, rank) float64: distance to the hull of that cluster, in the unit of the points."""
    labels: np.ndarray
    """(point,) label of the nearest cluster."""
    accuracy: float
    """Share of points whose nearest cluster has their label, in [0, 1] ("intra-accuracy"); NaN without gold labels."""


@dataclass(frozen=True)
class LabelDistances:
    """Distances in the unit of the points; NaN (or 0, as asked) where a label has no cluster of the wanted size."""

    classes: np.ndarray
    """(label,) in order."""
    matrix: np.ndarray
    """(label, label) float64, symmetric: distance of the hulls of two labels; NaN on the diagonal and where
    undefined."""
    vector: np.ndarray
    """(pair,) the matrix above its diagonal, row by row: pairs a < b in the order of `classes`."""
    outside_min: np.ndarray
    """(label,) distance to the nearest other label."""
    inside_max: np.ndarray
    """(label,) largest distance of two points of one cluster."""
    inside_mean: np.ndarray
    """(label,) mean over clusters of the mean distance of two points of the cluster (original: clusters count
    alike)."""
    inside_mean_weighted: np.ndarray
    """(label,) mean distance over all pairs of points that share a cluster."""
    ratio_max: float
    """Mean over labels, where both are positive, of inside_max / outside_min; NaN without such a label. Small:
    compact, far apart."""
    ratio_mean: float
    """The same of inside_mean / outside_min."""
    linear: bool
    """One cluster per label present."""

    def pairs(self) -> list[tuple]:
        """The two labels of each entry of `vector`."""
        first, second = np.triu_indices(len(self.classes), 1)
        return list(zip(self.classes[first].tolist(), self.classes[second].tolist(), strict=True))


@dataclass(frozen=True)
class Similarity:
    """Likeness of two spaces."""

    r: float
    """Pearson correlation, in [-1, 1]; 1 for a space and a scaled, moved or rotated copy; NaN under three pairs or
    without variation."""
    pairs: int
    """Label pairs that have a distance in both spaces."""


def predict(
    clusters: Clusters, points: np.ndarray, labels: Sequence | np.ndarray | None = None, *, nearest: int | None = None,
    progress: Tell | None = None,
) -> Prediction:
    """Distances of new points to the hulls of all clusters, nearest first; the nearest cluster's label is the
    prediction.

    points: (point, dim); labels: (point,) gold labels for the accuracy; nearest: only so many clusters per point
    (faster: far ones are ruled out by bounds). ValueError for another dimension, NaN or infinity.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != clusters.points.shape[1] or not np.isfinite(points).all():
        raise ValueError(f"points have shape {points.shape}; give finite (point, {clusters.points.shape[1]}) like the "
                         "clusters")
    if labels is not None and np.shape(labels) != (len(points),):
        raise ValueError(f"labels have shape {np.shape(labels)}; give one for each of the {len(points)} points")
    neighbours = clusters.count if nearest is None else min(int(nearest), clusters.count)
    if neighbours < 1:
        raise ValueError(f"nearest is {nearest}; ask for at least one cluster")
    groups = [clusters.points[rows] for rows in _members(clusters)]
    alone = np.array([k for k, group in enumerate(groups) if len(group) == 1], np.int64)
    large = np.array([k for k, group in enumerate(groups) if len(group) > 1], np.int64)
    singles = clusters.points[[int(rows[0]) for rows in _members(clusters) if len(rows) == 1]]
    order, distances = np.zeros((len(points), neighbours), np.int64), np.zeros((len(points), neighbours))
    for i, point in enumerate(points):
        if i % POINTS == 0:
            block = _lower_bounds(points[i : i + POINTS], [groups[k] for k in large])
        closest: list[tuple[float, int]] = []  # ascending, at most `neighbours`
        if len(alone):  # often many, where points conflict: their distances need no search
            exact = np.linalg.norm(singles - point, axis=1)
            closest = [(float(exact[j]), int(alone[j])) for j in np.argsort(exact, kind="stable")[:neighbours]]
        bounds = block[i % POINTS]
        for j in np.argsort(bounds, kind="stable"):
            worst = closest[-1][0] if len(closest) == neighbours else np.inf
            if bounds[j] > worst:
                break
            distance = proved_distance(point[None], groups[large[j]], worst)
            if distance is not None:
                insort(closest, (distance, int(large[j])))
                del closest[neighbours:]
        distances[i], order[i] = [d for d, _ in closest], [k for _, k in closest]
        if progress:
            progress("predict", i + 1, len(points))
    guessed = clusters.cluster_labels[order[:, 0]]
    accuracy = float("nan") if labels is None or not len(points) else float((guessed == np.asarray(labels)).mean())
    return Prediction(order, distances, guessed, accuracy)


def cluster_distances(clusters: Clusters, *, min_size: int = 1, progress: Tell | None = None) -> np.ndarray:
    """(cluster, cluster) float64: distances of the hulls of clusters of different label; NaN for equal labels and
    smaller clusters."""
    from scipy.spatial.distance import cdist

    groups = _members(clusters)
    distances = np.full((clusters.count, clusters.count), np.nan)
    sizes = np.array([len(group) for group in groups])
    differ = np.triu(clusters.cluster_labels[:, None] != clusters.cluster_labels[None], 1)
    alone = np.flatnonzero(sizes == 1) if min_size <= 1 else np.zeros(0, np.int64)
    if len(alone):  # many where points conflict
        rows = [int(groups[k][0]) for k in alone]
        mask = np.where(clusters.cluster_labels[alone][:, None] != clusters.cluster_labels[alone][None], 0.0, np.nan)
        distances[np.ix_(alone, alone)] = cdist(clusters.points[rows], clusters.points[rows]) + mask
        differ[np.ix_(alone, alone)] = False
    differ &= np.minimum(sizes[:, None], sizes[None]) >= min_size
    pairs = np.argwhere(differ).tolist()
    for done, (i, j) in enumerate(pairs):
        distances[i, j] = distances[j, i] = hull_distance(clusters.points[groups[i]],
                                                          clusters.points[groups[j]]).distance
        if progress:
            progress("distances", done + 1, len(pairs))
    return distances


def label_distances(
    clusters: Clusters, *, min_size: int = 1, reduce: str = "min", missing: str = "nan",
    distances: np.ndarray | None = None, progress: Tell | None = None,
) -> LabelDistances:
    """Distances between labels and spread within them.

    min_size: leave out clusters of fewer points (the 2022 program: 6, as it drops those of five or fewer);
    reduce: min | mean over the pairs of clusters of two labels (2022: mean; equal where each label is one cluster);
    missing: nan | zero for what is undefined (2022: zero); distances: of `cluster_distances`, if at hand.
    """
    if reduce not in ("min", "mean"):
        raise ValueError(f"reduce is {reduce!r}; choose min or mean")
    if missing not in ("nan", "zero"):
        raise ValueError(f"missing is {missing!r}; choose nan or zero")
    between = None if distances is None else np.asarray(distances)
    if between is None and reduce == "mean":
        between = cluster_distances(clusters, min_size=min_size, progress=progress)
    if between is not None and between.shape != (clusters.count, clusters.count):
        raise ValueError(f"distances have shape {between.shape} for {clusters.count} clusters")
    sizes = np.bincount(clusters.assignment, minlength=clusters.count)
    large = sizes >= min_size
    label_clusters = [np.flatnonzero((clusters.cluster_labels == name) & large).tolist() for name in clusters.classes]
    count = len(clusters.classes)
    matrix = np.full((count, count), np.nan)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count) if label_clusters[a] and label_clusters[b]]
    nearest = _Nearest(clusters) if between is None and pairs else None
    for done, (a, b) in enumerate(pairs):
        if nearest is not None:
            value = nearest.distance(label_clusters[a], label_clusters[b])
        else:
            part = between[np.ix_(label_clusters[a], label_clusters[b])]  # type: ignore[index]
            value = float(part.min() if reduce == "min" else part.mean())
        matrix[a, b] = matrix[b, a] = value
        if progress and nearest is not None:
            progress("distances", done + 1, len(pairs))
    outside = np.array([_least_finite(row) for row in matrix])
    inside = [[_spread_within(clusters.points[clusters.rows(k)]) for k in group if sizes[k] > 1]
              for group in label_clusters]
    largest = np.array([max((diameter for diameter, _, _ in group), default=np.nan) for group in inside])
    mean = np.array([np.mean([total / pairs for _, total, pairs in group]) if group else np.nan for group in inside])
    weighted = np.array([sum(t for _, t, _ in group) / sum(p for _, _, p in group) if group else np.nan
                         for group in inside])
    ratio_max, ratio_mean = _mean_ratio(largest, outside), _mean_ratio(mean, outside)
    parts = [matrix[np.triu_indices(count, 1)], outside, largest, mean, weighted]
    if missing == "zero":
        parts = [np.where(np.isnan(part), 0.0, part) for part in parts]
    vector, outside, largest, mean, weighted = parts
    return LabelDistances(
        clusters.classes, matrix, vector, outside, largest, mean, weighted, ratio_max, ratio_mean, clusters.linear
    )


def similarity(first: LabelDistances | np.ndarray, second: LabelDistances | np.ndarray) -> Similarity:
    """Pearson correlation of two vectors of label distances, over the label pairs that are valid (not NaN) in both.

    first, second: `LabelDistances` (matched by label, so label sets may differ) or plain vectors (pair,) of one
    length. The study reads it only where both spaces are linear; a distance 0 of an overlapping or absent pair would
    count, which is why absent pairs are NaN.
    """
    x_values, y_values = _matched(first, second)
    valid = np.isfinite(x_values) & np.isfinite(y_values)
    x_values, y_values = x_values[valid], y_values[valid]
    count = int(valid.sum())
    if count < 3:
        return Similarity(float("nan"), count)
    x, y = x_values - x_values.mean(), y_values - y_values.mean()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    flat = min(np.abs(x).max() / max(np.abs(x_values).max(), 1e-300),
               np.abs(y).max() / max(np.abs(y_values).max(), 1e-300)) < 1e-12
    return Similarity(float("nan") if flat else float(np.clip(x @ y / length, -1.0, 1.0)), count)


def _members(clusters: Clusters) -> list[np.ndarray]:
    """Rows of each cluster, ascending."""
    order = np.argsort(clusters.assignment, kind="stable")
    return np.split(order, np.cumsum(np.bincount(clusters.assignment, minlength=clusters.count))[:-1])


class _Nearest:
    """The nearest of many pairs of clusters: planes between means rule most of them out.

    Of single points of one label at one place, often many where points conflict, one stands for all.
    """

    def __init__(self, clusters: Clusters):
        members = _members(clusters)
        self.groups: list[np.ndarray] = []
        self.of: list[int] = []  # of each cluster, where its points are in `groups`
        places: dict[tuple, int] = {}
        for rows, label in zip(members, clusters.cluster_labels.tolist(), strict=True):
            key = (label, (clusters.points[rows[0]] + 0.0).tobytes()) if len(rows) == 1 else len(self.of)
            place = places.setdefault((key,), len(self.groups))
            if place == len(self.groups):
                self.groups.append(clusters.points[rows])
            self.of.append(place)
        sizes = [len(group) for group in self.groups]
        self.bounds = mean_planes(np.concatenate(self.groups), np.repeat(np.arange(len(sizes)), sizes))

    def distance(self, first: Sequence[int], second: Sequence[int]) -> float:
        """Least distance of a cluster of `first` to a cluster of `second`."""
        sides = [np.array(sorted({self.of[k] for k in side})) for side in (first, second)]
        single = [np.array([len(self.groups[k]) == 1 for k in side]) for side in sides]
        best = np.inf
        bounds = self.bounds[np.ix_(*sides)]
        if single[0].any() and single[1].any():
            points = [np.concatenate([self.groups[k] for k in side[which]])
                      for side, which in zip(sides, single, strict=True)]
            best = _least_between(*points)
            bounds[np.ix_(*single)] = np.inf
        for place in np.argsort(bounds, axis=None, kind="stable"):
            i, j = np.unravel_index(place, bounds.shape)
            if bounds[i, j] >= best:
                break
            distance = proved_distance(self.groups[sides[0][i]], self.groups[sides[1][j]], best)
            best = best if distance is None else min(best, distance)
        return float(best)


def _least_between(a: np.ndarray, b: np.ndarray) -> float:
    """Least distance of a point of a to a point of b, block by block."""
    from scipy.spatial.distance import cdist

    return min(float(cdist(a[i : i + ROWS], b).min()) for i in range(0, len(a), ROWS))


def _matched(first: LabelDistances | np.ndarray, second: LabelDistances | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors over the same label pairs."""
    if isinstance(first, LabelDistances) and isinstance(second, LabelDistances):
        shared = np.intersect1d(first.classes, second.classes)
        upper = np.triu_indices(len(shared), 1)
        parts = []
        for item in (first, second):
            square = np.full((len(item.classes),) * 2, np.nan)
            square[np.triu_indices(len(item.classes), 1)] = item.vector
            where = np.searchsorted(item.classes, shared)
            parts.append(square[np.ix_(where, where)][upper])
        return parts[0], parts[1]
    plain = [item.vector if isinstance(item, LabelDistances) else item for item in (first, second)]
    x, y = (np.asarray(vector, dtype=np.float64) for vector in plain)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"distance vectors have shapes {x.shape}, {y.shape}; give LabelDistances to match them "
                         "by label")
    return x, y


def _lower_bounds(points: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """(point, cluster) proved lower bounds of the distances: by the plane across the line from the point to the
    cluster's mean.

    Lowered by what rounding may add, so that no cluster is ruled out by it.
    """
    bounds = np.empty((len(points), len(groups)))
    for k, group in enumerate(groups):
        centre = group.mean(axis=0)
        group, moved = group - centre, points - centre  # products near the mean lose fewer digits
        squares = np.einsum("ij,ij->i", moved, moved)
        lengths = np.sqrt(squares)
        reach = float(np.sqrt(np.einsum("ij,ij->i", group, group).max()))
        gap = squares - (group @ moved.T).max(axis=0)
        slack = 1e-12 * (lengths + reach + np.abs(centre).max())
        bounds[:, k] = np.where(lengths > 0, gap / np.maximum(lengths, 1e-300), 0.0) - slack
    return bounds


def _spread_within(points: np.ndarray) -> tuple[float, float, int]:
    """Largest distance, sum of distances and number of the pairs of points, block by block."""
    from scipy.spatial.distance import cdist

    largest, total = 0.0, 0.0
    for i in range(0, len(points), ROWS):
        block = cdist(points[i : i + ROWS], points[i:])
        largest = max(largest, float(block.max()))
        within_block = block[:, : min(ROWS, len(points) - i)]
        total += float(block.sum() - within_block.sum() / 2)  # pairs within the block appear twice
    return largest, total, len(points) * (len(points) - 1) // 2


def _least_finite(row: np.ndarray) -> float:
    finite = row[np.isfinite(row)]
    return float(finite.min()) if len(finite) else float("nan")


def _mean_ratio(inside: np.ndarray, outside: np.ndarray) -> float:
    positive = (inside > 0) & (outside > 0)
    return float((inside[positive] / outside[positive]).mean()) if positive.any() else float("nan")
