"""What the hulls of a partition say: distances of labels, spread within them, the nearest cluster of a new point, likeness of
two spaces.

Zhou and Srikumar 2021 (prediction) and 2022 (label distances). Where the original could not tell, or averaged, the difference
is a setting: `min_size=6, reduce="mean", missing="zero"` gives the numbers of the 2022 program.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.clustering import Progress
from finetrace.lenses.hull_clusters import Clusters
from finetrace.lenses.separation import hull_distance, proved_distance

ROWS = 256
"""Rows compared at a time for distances within a cluster."""


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
    """(label, label) float64, symmetric: distance of the hulls of two labels; NaN on the diagonal and where undefined."""
    vector: np.ndarray
    """(pair,) the matrix above its diagonal, row by row: pairs a < b in the order of `classes`."""
    outside_min: np.ndarray
    """(label,) distance to the nearest other label."""
    inside_max: np.ndarray
    """(label,) largest distance of two points of one cluster."""
    inside_mean: np.ndarray
    """(label,) mean over clusters of the mean distance of two points of the cluster (original: clusters count alike)."""
    inside_mean_weighted: np.ndarray
    """(label,) mean distance over all pairs of points that share a cluster."""
    ratio_max: float
    """Mean over labels, where both are positive, of inside_max / outside_min; NaN without such a label. Small: compact, far
    apart."""
    ratio_mean: float
    """The same of inside_mean / outside_min."""
    linear: bool
    """One cluster per label present."""

    def pairs(self) -> list[tuple]:
        """The two labels of each entry of `vector`."""
        one, other = np.triu_indices(len(self.classes), 1)
        return list(zip(self.classes[one].tolist(), self.classes[other].tolist(), strict=True))


@dataclass(frozen=True)
class Similarity:
    """Likeness of two spaces."""

    r: float
    """Pearson correlation, in [-1, 1]; 1 for a space and a scaled, moved or rotated copy; NaN under three pairs or without
    variation."""
    pairs: int
    """Label pairs that have a distance in both spaces."""


def predict(
    clusters: Clusters, points: np.ndarray, labels: Sequence | np.ndarray | None = None, *, nearest: int | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Distances of new points to the hulls of all clusters, nearest first; the nearest cluster's label is the prediction.

    points: (point, dim); labels: (point,) gold labels for the accuracy; nearest: only so many clusters per point (faster: far
    ones are ruled out by bounds). ValueError for another dimension, NaN or infinity.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != clusters.points.shape[1] or not np.isfinite(points).all():
        raise ValueError(f"points have shape {points.shape}; give finite (point, {clusters.points.shape[1]}) like the clusters")
    if labels is not None and np.shape(labels) != (len(points),):
        raise ValueError(f"labels have shape {np.shape(labels)}; give one for each of the {len(points)} points")
    wanted = clusters.count if nearest is None else min(int(nearest), clusters.count)
    if wanted < 1:
        raise ValueError(f"nearest is {nearest}; ask for at least one cluster")
    groups = [clusters.points[clusters.rows(k)] for k in range(clusters.count)]
    centres = np.stack([group.mean(axis=0) for group in groups])
    radii = np.array([np.linalg.norm(group - centre, axis=1).max() for group, centre in zip(groups, centres, strict=True)])
    order, distances = np.zeros((len(points), wanted), np.int64), np.zeros((len(points), wanted))
    for i, point in enumerate(points):
        bounds = np.linalg.norm(centres - point, axis=1) - radii
        found: list[tuple[float, int]] = []
        for k in np.argsort(bounds, kind="stable"):
            worst = sorted(found)[wanted - 1][0] if len(found) >= wanted else np.inf
            if bounds[k] > worst:
                break
            distance = proved_distance(point[None], groups[k], worst)
            if distance is not None:
                found.append((distance, int(k)))
        best = sorted(found)[:wanted]
        distances[i], order[i] = [d for d, _ in best], [k for _, k in best]
        if progress:
            progress("predict", i + 1, len(points))
    guessed = clusters.cluster_labels[order[:, 0]]
    accuracy = float("nan") if labels is None or not len(points) else float((guessed == np.asarray(labels)).mean())
    return Prediction(order, distances, guessed, accuracy)


def cluster_distances(clusters: Clusters, *, min_size: int = 1, progress: Progress | None = None) -> np.ndarray:
    """(cluster, cluster) float64: distances of the hulls of clusters of different label; NaN for equal labels and smaller
    clusters."""
    groups = [clusters.rows(k) for k in range(clusters.count)]
    found = np.full((clusters.count, clusters.count), np.nan)
    pairs = [(i, j) for i in range(clusters.count) for j in range(i + 1, clusters.count)
             if clusters.cluster_labels[i] != clusters.cluster_labels[j] and min(len(groups[i]), len(groups[j])) >= min_size]
    for done, (i, j) in enumerate(pairs):
        found[i, j] = found[j, i] = hull_distance(clusters.points[groups[i]], clusters.points[groups[j]]).distance
        if progress:
            progress("distances", done + 1, len(pairs))
    return found


def label_distances(
    clusters: Clusters, *, min_size: int = 1, reduce: str = "min", missing: str = "nan", distances: np.ndarray | None = None,
    progress: Progress | None = None,
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
    between = cluster_distances(clusters, min_size=min_size, progress=progress) if distances is None else np.asarray(distances)
    if between.shape != (clusters.count, clusters.count):
        raise ValueError(f"distances have shape {between.shape} for {clusters.count} clusters")
    sizes = np.bincount(clusters.assignment, minlength=clusters.count)
    large = sizes >= min_size
    kept = [np.flatnonzero((clusters.cluster_labels == name) & large).tolist() for name in clusters.classes]
    count = len(clusters.classes)
    matrix = np.full((count, count), np.nan)
    for a in range(count):
        for b in range(a + 1, count):
            if kept[a] and kept[b]:
                part = between[np.ix_(kept[a], kept[b])]
                matrix[a, b] = matrix[b, a] = part.min() if reduce == "min" else part.mean()
    outside = np.array([_least(row) for row in matrix])
    inside = [[_within(clusters.points[clusters.rows(k)]) for k in group if sizes[k] > 1] for group in kept]
    largest = np.array([max((most for most, _, _ in group), default=np.nan) for group in inside])
    mean = np.array([np.mean([total / pairs for _, total, pairs in group]) if group else np.nan for group in inside])
    weighted = np.array([sum(t for _, t, _ in group) / sum(p for _, _, p in group) if group else np.nan for group in inside])
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

    first, second: `LabelDistances` (matched by label, so label sets may differ) or plain vectors (pair,) of one length. The
    study reads it only where both spaces are linear; a distance 0 of an overlapping or absent pair would count, which is why
    absent pairs are NaN.
    """
    one, other = _matched(first, second)
    valid = np.isfinite(one) & np.isfinite(other)
    one, other = one[valid], other[valid]
    count = int(valid.sum())
    if count < 3:
        return Similarity(float("nan"), count)
    x, y = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    flat = min(np.abs(x).max() / max(np.abs(one).max(), 1e-300), np.abs(y).max() / max(np.abs(other).max(), 1e-300)) < 1e-12
    return Similarity(float("nan") if flat else float(np.clip(x @ y / length, -1.0, 1.0)), count)


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
    one, other = (np.asarray(vector, dtype=np.float64) for vector in plain)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"distance vectors have shapes {one.shape}, {other.shape}; give LabelDistances to match them by label")
    return one, other


def _within(points: np.ndarray) -> tuple[float, float, int]:
    """Largest distance, sum of distances and number of the pairs of points, block by block."""
    from scipy.spatial.distance import cdist

    largest, total = 0.0, 0.0
    for i in range(0, len(points), ROWS):
        block = cdist(points[i : i + ROWS], points[i:])
        largest = max(largest, float(block.max()))
        own = block[:, : min(ROWS, len(points) - i)]
        total += float(block.sum() - own.sum() / 2)  # pairs within the block appear twice
    return largest, total, len(points) * (len(points) - 1) // 2


def _least(row: np.ndarray) -> float:
    known = row[np.isfinite(row)]
    return float(known.min()) if len(known) else float("nan")


def _mean_ratio(inside: np.ndarray, outside: np.ndarray) -> float:
    both = (inside > 0) & (outside > 0)
    return float((inside[both] / outside[both]).mean()) if both.any() else float("nan")
