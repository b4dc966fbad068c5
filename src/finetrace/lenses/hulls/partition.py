"""The hull probe: label-pure clusters with disjoint convex hulls, and what their distances say (DirectProbe, Zhou and
Srikumar 2021, 2022).

Definition of the partition: start with one cluster per point. Take the closest pair of clusters of the same label
(Euclidean distance of centroids, float64; ties by the smaller, then the larger name, a cluster's name being its
smallest row). Unite it if the hull of the union is disjoint from the hull of every cluster of another label, else
discard that pair for good; a united cluster has fresh pairs with all others of its label. Stop when no pair is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetrace.lenses.hulls.agglomeration import merge_all, names_after
from finetrace.lenses.hulls.clustering import Merges, merge_component
from finetrace.lenses.hulls.clusters import Clusters, Component
from finetrace.lenses.hulls.disjointness import Hulls, close_pairs
from finetrace.lenses.hulls.distances import (
    LabelDistances,
    Prediction,
    Similarity,
    cluster_distances,
    label_distances,
    predict,
    similarity,
)
from finetrace.lenses.hulls.separation import HullDistance, Verdict, hull_distance, point_distance, reduced, separable
from finetrace.lenses.hulls.telling import Tell

__all__ = [
    "Clusters", "Component", "Cost", "HullDistance", "LabelDistances", "Prediction", "Similarity", "Verdict",
    "cluster_distances", "creation_order", "estimate", "given", "hull_distance", "label_distances", "overlaps",
    "point_distance", "predict", "probe", "reduced", "renumbered", "separable", "similarity",
]


@dataclass(frozen=True)
class Cost:
    """What a probe will take, before it starts."""

    label_pairs: int
    """Pairs of labels whose hulls are tested in any case."""
    merges: int
    """Merges if all labels overlap; none if the labels are linearly separable."""
    linear_seconds: float
    """Rough time if all labels are separable, on one core of 2020."""
    overlapping_seconds: float
    """Rough time if every label overlaps another: dominated by tests of candidate merges, right to a factor of five or
    so."""
    bytes: int
    """Rough peak memory beyond the input."""


def probe(
    points: np.ndarray, labels: Sequence | np.ndarray, *, classes: Sequence | np.ndarray | None = None,
    shortcut: bool = True, progress: Tell | None = None,
) -> Clusters:
    """Partition of labelled points into label-pure clusters with pairwise disjoint hulls, by the definition above.

    points: (point, dim) finite numbers;  labels: (point,) any sortable values;  classes: all labels, when some have no
    points here; shortcut: test whole labels first and merge only inside groups of overlapping labels (same partition,
    far fewer tests); progress: called as progress(phase, done, total) during long runs; total is 0 where it is not
    known. ValueError for empty input, NaN or infinity, or labels that do not fit the points or the classes.
    """
    points, codes, names = _checked(points, labels, classes)
    tell = progress or (lambda phase, done, total: None)
    conflicts, repeated = _repeats(points, codes)
    inert = np.zeros(len(points), bool)
    inert[[row for group in conflicts for row in group]] = True
    hulls = Hulls(points)
    groups = _components(hulls, codes, tell) if shortcut else [np.unique(codes)]
    all_merges: Merges = []
    components = []
    name = np.empty(len(points), np.int64)
    for group in groups:
        rows = np.flatnonzero(np.isin(codes, group))
        if shortcut and len(group) == 1:
            name[rows] = rows[0]
            continue
        merges, end, refused, first = merge_component(points, codes, rows, inert, hulls, tell)
        components.append(Component(names[group], end, first, refused))
        all_merges += merges
        name[rows] = names_after(len(points), _merge_pairs(merges))[rows]
    firsts, assignment = np.unique(name, return_inverse=True)
    linear = len(firsts) == len(np.unique(codes)) and not conflicts
    return Clusters(
        assignment.astype(np.int64), names[codes[firsts]], names, linear, _merge_pairs(all_merges),
        np.array([m[2] for m in all_merges]),
        tuple(components), conflicts, repeated, {k: v for k, v in hulls.decisions.items() if v}, points,
    )


def given(
    points: np.ndarray, labels: Sequence | np.ndarray, assignment: np.ndarray, *,
    classes: Sequence | np.ndarray | None = None
) -> Clusters:
    """Clusters known from elsewhere, on these points: a clusters.txt, or the clusters of one layer looked at in
    another.

    assignment: (point,) int64 in 0 .. clusters-1. `linear` is proved as in `probe`; `overlaps` lists the clusters that
    are not disjoint here. ValueError for clusters without points or of mixed labels.
    """
    points, codes, names = _checked(points, labels, classes)
    assignment = np.asarray(assignment)
    if assignment.shape != (len(points),) or assignment.dtype.kind not in "iu":
        raise ValueError(f"assignment is {assignment.dtype} of shape {assignment.shape}; give a cluster number for "
                         "each point")
    numbers, firsts = np.unique(assignment, return_index=True)
    if numbers[0] != 0 or numbers[-1] != len(numbers) - 1:
        raise ValueError("cluster numbers must be 0 .. clusters-1, each with at least one point")
    mixed = np.flatnonzero(codes != codes[firsts][assignment])
    if len(mixed):
        raise ValueError(f"cluster {assignment[mixed[0]]} has points of more than one label, among them row "
                         f"{int(mixed[0])}")
    conflicts, repeated = _repeats(points, codes)
    clusters = Clusters(assignment.astype(np.int64), names[codes[firsts]], names, False, _merge_pairs([]), np.zeros(0),
                        (), conflicts, repeated, {}, points)
    single = len(firsts) == len(np.unique(codes))
    return replace(clusters, linear=single and not overlaps(clusters))


def overlaps(clusters: Clusters, *, min_size: int = 1) -> list[tuple[int, int]]:
    """Pairs of clusters of different label, with at least `min_size` points each, whose hulls are not proved
    disjoint."""
    sizes = np.bincount(clusters.assignment)
    rows = np.flatnonzero(sizes[clusters.assignment] >= min_size)
    if not len(rows):
        return []
    hulls = Hulls(clusters.points)
    codes = np.searchsorted(clusters.classes, clusters.cluster_labels)[clusters.assignment]
    close = close_pairs(hulls, rows, clusters.assignment, codes[np.unique(clusters.assignment, return_index=True)[1]])
    pairs = [pair for pair in close if hulls.decide(clusters.rows(pair[0]), clusters.rows(pair[1])).answer != "yes"]
    return sorted((min(pair), max(pair)) for pair in pairs)


def estimate(points: int, dim: int, labels: int, biggest: int | None = None) -> Cost:
    """Rough cost of `probe` for so many points and labels; biggest: points of the most frequent label (default: the
    mean).

    The linear case is a few products per pair of labels; the other is a lower-order guess from measured runs, as it
    depends on how early hulls overlap.
    """
    biggest = biggest or -(-points // max(1, labels))
    pairs = labels * (labels - 1) // 2
    size = min(dim, points)
    linear = (2e-10 * points * size * (labels + size)
              + pairs * (5e-4 + 1e-10 * (2 * points / max(1, labels)) ** 2 * size))
    merging = 4e-10 * points * biggest * dim + 5e-3 * points * max(1.0, size / 64) + 5e-10 * points**2 * size
    return Cost(pairs, max(0, points - labels), linear, linear + merging, 8 * points * size * 8 + 8 * 512 * points)


def renumbered(clusters: Clusters, order: Sequence[int]) -> Clusters:
    """The same clusters under other numbers: `order` lists the present numbers in their new order (0 first)."""
    old = np.asarray(order, dtype=np.int64)
    if sorted(old.tolist()) != list(range(clusters.count)):
        raise ValueError(f"order must list each of the clusters 0 .. {clusters.count - 1} once, not {old.tolist()}")
    new = np.empty_like(old)
    new[old] = np.arange(len(old))
    return replace(clusters, assignment=new[clusters.assignment], cluster_labels=clusters.cluster_labels[old])


def creation_order(clusters: Clusters) -> list[int]:
    """Clusters in the order in which they came to be, for `renumbered`: single points first, then by their last merge.

    The original numbers clusters so; it merges all labels in one sequence, the closest pair first. Labels do not
    change each other's sequences of merges, so that one follows from these: the merge of all that are next at the
    smallest distance.
    """
    codes = np.searchsorted(clusters.classes, clusters.cluster_labels)[clusters.assignment]
    merged = codes[clusters.merges[:, 0]]
    last: dict[int, tuple[tuple[float, ...], int]] = {}
    for code in np.unique(codes):
        pairs, distances = clusters.merges[merged == code], clusters.merge_distances[merged == code]
        rows = np.flatnonzero(codes == code)
        if not len(pairs) and (clusters.assignment[rows] == clusters.assignment[rows[0]]).all():
            pairs, distances = merge_all(clusters.points, codes, rows)  # a label that was kept whole
        top: tuple[float, ...] = ()
        for place, (distance, (low, high)) in enumerate(zip(distances.tolist(), pairs.tolist(), strict=True)):
            top = max(top, (distance, low, high))  # a merge that comes closer than the one before it waits for that one
            last[low] = top, place
    firsts = np.unique(clusters.assignment, return_index=True)[1].tolist()
    return sorted(range(clusters.count), key=lambda k: (last.get(firsts[k], ((), firsts[k]))))


def _merge_pairs(merges: Merges) -> np.ndarray:
    return np.array([merge[:2] for merge in merges], np.int64).reshape(-1, 2)


def _components(hulls: Hulls, codes: np.ndarray, tell: Tell) -> list[np.ndarray]:
    """Labels present, in groups connected by overlapping hulls."""
    rows = np.arange(len(codes))
    present, firsts, which = np.unique(codes, return_index=True, return_inverse=True)
    by_first = firsts[which]
    close = close_pairs(hulls, rows, by_first, codes)
    if len(close) * len(rows) > hulls.points.shape[1] * len(present) ** 2:
        # one discriminant metric for all pairs costs less than the products of points for so many searches
        hulls.set_metric(rows, by_first)
        hulls.decisions.clear()
        close = close_pairs(hulls, rows, by_first, codes)
    group = {int(k): int(k) for k in present}
    for done, (a, b) in enumerate(close):
        first, second = int(codes[a]), int(codes[b])
        tell("labels", done, len(close))
        if hulls.decide(np.flatnonzero(codes == first), np.flatnonzero(codes == second)).answer != "yes":
            low, high = sorted((group[first], group[second]))
            group = {k: low if g == high else g for k, g in group.items()}
    return [np.array([k for k in group if group[k] == g]) for g in sorted(set(group.values()))]


def _repeats(points: np.ndarray, codes: np.ndarray) -> tuple[tuple[np.ndarray, ...], int]:
    """Groups of identical points with conflicting labels, and the number of points that repeat one of their own
    label."""
    rows_of: dict[bytes, list[int]] = {}
    for row, point in enumerate(points + 0.0):  # + 0.0: minus zero equals zero
        rows_of.setdefault(point.tobytes(), []).append(row)
    groups = [np.array(rows) for rows in rows_of.values() if len(rows) > 1]
    repeated = sum(len(rows) - len(np.unique(codes[rows])) for rows in groups)
    return tuple(rows for rows in groups if len(np.unique(codes[rows])) > 1), repeated


def _checked(
    points: np.ndarray, labels: Sequence | np.ndarray, classes: Sequence | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points as float64, label codes (point,) int64, and the labels that the codes count."""
    points, labels = np.ascontiguousarray(points, dtype=np.float64), np.asarray(labels)
    if points.ndim != 2 or not points.size:
        raise ValueError(f"points have shape {points.shape}; a probe needs (point, dim) with at least one point")
    if labels.shape != (len(points),):
        raise ValueError(f"labels have shape {labels.shape}; give one for each of the {len(points)} points")
    good = np.isfinite(points).all(axis=1)
    if not good.all():
        raise ValueError(f"points hold NaN or infinity, first in row {int(np.argmin(good))}; remove such rows before "
                         "probing")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"labels hold NaN or infinity, first for point {int(np.argmin(np.isfinite(labels)))}")
    names = np.unique(labels if classes is None else np.asarray(classes))
    unknown = labels[~np.isin(labels, names)]
    if len(unknown):
        raise ValueError(f"label {unknown[0]!r} is not among the classes; add it, or leave classes out")
    return points, np.searchsorted(names, labels).astype(np.int64), names
