"""Which clusters of a partition overlap: planes for many pairs in one product, the nearest-point search for what is
left."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from finetrace.lenses.hulls.separation import TOUCHING, Plane, Verdict, reduced, scale, searched

BLOCK = 256
"""Clusters per side that are compared in one product; bounds the memory of a comparison by BLOCK numbers per point."""

SMALL = 1e-3
"""Share of the data radius that tolerances refer to at least: coordinates are rounded in units of the whole data
set."""


@dataclass
class Hulls:
    """Points of a data set, prepared for many tests between subsets, and the count of decisions by what proved them."""

    points: np.ndarray
    """(point, dim) float64; held centred, with radius 1, in no more coordinates than points."""
    metric: np.ndarray | None = None
    """(dim, dim) inverse spread within clusters: times a difference of means it gives a linear-discriminant plane."""
    decisions: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        centred = self.points - self.points.mean(axis=0)
        radius = float(np.sqrt(np.einsum("ij,ij->i", centred, centred).max()))
        self.points = reduced(centred / radius if radius > 0 else centred)

    def normals(self, means: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Candidate planes by kind: the difference of two rows is the normal for two clusters of these means,
        (cluster, dim)."""
        return [("means", means)] + ([] if self.metric is None else [("discriminant", means @ self.metric)])

    def set_metric(self, rows: np.ndarray, names: np.ndarray) -> None:
        """Take the metric from the spread within clusters of these rows (equal names); a small ridge keeps it
        regular."""
        which = np.unique(names[rows], return_inverse=True)[1]
        values = self.points[rows]
        within = values - _means(values, which)[which]
        spread = within.T @ within
        spread[np.diag_indices_from(spread)] += 1e-6 * np.trace(spread) / len(spread) + 1e-12
        self.metric = np.linalg.inv(spread)

    def decide(self, a: np.ndarray, b: np.ndarray, start: tuple[np.ndarray, np.ndarray] | None = None) -> Verdict:
        """`separable` for two subsets of rows, without the cheap planes; start: positions in a and b to begin with."""
        first, second = self.points[a], self.points[b]
        centre, radius = scale(first, second)
        verdict = searched(first, second, centre, max(radius, SMALL), start)
        self.decisions[{"yes": verdict.method, "no": "overlap"}.get(verdict.answer, "undecided")] += 1
        return verdict


def close_pairs(
    hulls: Hulls, rows: np.ndarray, names: np.ndarray, labels: np.ndarray, inert: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Pairs of clusters of different label that no plane between means separates, the most entangled first.

    rows: (member,) rows that take part;  names: (point,) cluster of each point;  labels: (point,);  inert: (point,)
    bool: single points that are not compared with each other. Pairs as (smaller name, larger name).
    """
    last = np.zeros(len(names), bool) if inert is None else inert
    # inert points behind: whole blocks of them are passed over
    order = rows[np.lexsort((names[rows], last[names[rows]]))]
    edges = np.append(np.flatnonzero(np.diff(names[order], prepend=-1)), len(order))
    clusters = names[order[edges[:-1]]]
    still = last[clusters]
    which = np.repeat(np.arange(len(clusters)), np.diff(edges))
    label_of = labels[clusters]
    values = hulls.points[order]
    prepared = []
    for kind, normals in hulls.normals(_means(values, which)):
        own_products = np.einsum("ij,ij->i", values, normals[which])
        prepared.append((kind, normals, own_products, rounding(normals)))
    close = []
    blocks = [(i, min(i + BLOCK, len(clusters))) for i in range(0, len(clusters), BLOCK)]
    for i, first in enumerate(blocks):
        for second in blocks[i:]:
            if still[first[0]] and still[second[0]]:
                continue
            unseparated = label_of[first[0] : first[1], None] != label_of[None, second[0] : second[1]]
            unseparated &= ~(still[first[0] : first[1], None] & still[None, second[0] : second[1]])
            if first == second:
                unseparated &= np.triu(np.ones(unseparated.shape, bool), 1)
            entangled = np.full(unseparated.shape, -np.inf)
            for kind, normals, own_products, tolerance in prepared:
                if not unseparated.any():
                    break
                gap = (_gaps(values, normals, own_products, edges, first, second)
                       + _gaps(values, normals, own_products, edges, second, first).T)
                entangled = np.maximum(entangled, gap / tolerance)
                hulls.decisions[kind] += int((unseparated & (gap > tolerance)).sum())
                unseparated &= gap <= tolerance
            for a, b in zip(*np.nonzero(unseparated), strict=True):
                first_name, second_name = int(clusters[a + first[0]]), int(clusters[b + second[0]])
                close.append((float(entangled[a, b]), min(first_name, second_name), max(first_name, second_name)))
    return [(a, b) for _, a, b in sorted(close)]


def mean_planes(points: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """(cluster, cluster) proved lower bounds of the distances of all hulls, by the planes across the lines between
    their means.

    points: (point, dim) float64;  assignment: (point,) int64 in 0 .. clusters-1. Negative where such a plane does not
    separate; lowered by what rounding may add.
    """
    centred = points - points.mean(axis=0)
    order = np.argsort(assignment, kind="stable")
    values, which = centred[order], assignment[order]
    edges = np.append(np.flatnonzero(np.diff(which, prepend=-1)), len(order))
    means = _means(values, which)
    own_products = np.einsum("ij,ij->i", values, means[which])
    count = len(means)
    gaps = np.empty((count, count))
    blocks = [(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK)]
    for first in blocks:
        for second in blocks:
            gaps[first[0] : first[1], second[0] : second[1]] = _gaps(values, means, own_products, edges, first, second)
    squares = np.einsum("ij,ij->i", means, means)
    lengths = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * means @ means.T, 0.0))
    radius = float(np.sqrt(np.einsum("ij,ij->i", centred, centred).max()))
    slack = 1e-12 * (radius + float(np.abs(points).max()))
    # a short normal has lost its direction to rounding: no bound
    sound = lengths > 1e-6 * radius
    return np.where(sound, (gaps + gaps.T) / np.maximum(lengths, 1e-300) * (1 - 1e-9) - slack, -np.inf)


def rounding(normals: np.ndarray) -> float:
    """Gap of scores, for points in the unit ball, below which rounding may decide; what lies below goes to the
    search."""
    return max(1e-300, 1e-10 * float(np.sqrt(np.einsum("ij,ij->i", normals, normals).max())))


def still_separates(hulls: Hulls, normal: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a unit normal found for other sets also separates these rows, a on its upper side."""
    return bool((hulls.points[a] @ normal).min() - (hulls.points[b] @ normal).max() > TOUCHING)


def witness(verdict: Verdict, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose hulls share the common point of an overlap: every superset of them overlaps, too."""
    point = verdict.certificate
    if point is None or isinstance(point, Plane):
        return a, b
    return a[point.a_index], b[point.b_index]


def _gaps(
    values: np.ndarray, normals: np.ndarray, own_products: np.ndarray, edges: np.ndarray, first: tuple[int, int],
    second: tuple[int, int]
) -> np.ndarray:
    """(cluster of `first`, cluster of `second`): least <x, own normal - normal of the other cluster> over the points x
    of the first."""
    lo, hi = edges[first[0]], edges[first[1]]
    lead = own_products[lo:hi, None] - values[lo:hi] @ normals[second[0] : second[1]].T
    return np.minimum.reduceat(lead, edges[first[0] : first[1]] - lo, axis=0)


def _means(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """(group, dim) mean of the rows of each group 0 .. groups-1."""
    from scipy.sparse import csr_array

    member = csr_array((np.ones(len(which)), (which, np.arange(len(which)))), shape=(int(which.max()) + 1, len(which)))
    return np.asarray(member @ values) / np.bincount(which)[:, None]
