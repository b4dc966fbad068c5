"""Merging same-label clusters as long as their hulls stay clear of all other labels, with as few hull tests as
possible.

Hulls only grow, so overlap is monotone in the number of merges: merges before the first overlap need no test each, and
bisection finds that state. From there on each candidate is tested against the clusters of other labels.
"""

import numpy as np

from finetrace.lenses.hulls.agglomeration import Agglomeration, merge_all, names_after
from finetrace.lenses.hulls.blas_threads import one_blas_thread
from finetrace.lenses.hulls.disjointness import Hulls, close_pairs, rounding, still_separates, witness
from finetrace.lenses.hulls.separation import Plane
from finetrace.lenses.hulls.telling import Tell

Merges = list[tuple[int, int, float]]
Planes = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]
"""By pair of cluster names, smaller first: a unit normal with the first cluster on its upper side, and the rows it
rests on."""
PLANES_PER_POINT = 2


def merge_component(
    points: np.ndarray, labels: np.ndarray, rows: np.ndarray, inert: np.ndarray, hulls: Hulls, tell: Tell
) -> tuple[Merges, int, int, int | None]:
    """Clusters of one set of labels whose hulls overlap.

    points: (point, dim) float64; labels: (point,) int64; rows: (member,) ascending rows of the set; inert: (point,)
    bool: points that coincide with a point of another label, which never merge. Returns the merges made (smallest rows
    of both, distance), how many merges the end state has, how many candidates were refused, and the first state that
    overlaps (None: none does).
    """
    with one_blas_thread():
        return _merge(points, labels, rows, inert, hulls, tell)


def _merge(
    points: np.ndarray, labels: np.ndarray, rows: np.ndarray, inert: np.ndarray, hulls: Hulls, tell: Tell
) -> tuple[Merges, int, int, int | None]:
    free = rows[~inert[rows]]
    if not len(free):
        return [], 0, 0, None
    pairs, _ = merge_all(points, labels, free)
    planes: Planes = {}
    first = _first_overlap(hulls, labels, rows, inert, pairs, planes, tell)
    clusters = Agglomeration(points, labels, free)
    merges: Merges = []
    # 0: points of two labels that float64 cannot keep apart
    untested = len(pairs) if first is None else max(0, first - 1)
    for _ in range(untested):
        distance, low, high = clusters.pop() or (0.0, 0, 0)
        clusters.merge(low, high)
        merges.append((low, high, distance))
    refused = 0
    if first is not None:
        names = names_after(len(points), pairs[:untested])
        hulls.set_metric(rows, names)
        forward = _Forward(hulls, labels, rows, names)
        forward.planes = planes  # of the last clean state, which is this one
        while (closest := clusters.pop()) is not None:
            distance, low, high = closest
            if forward.admits(low, high):
                clusters.merge(low, high)
                forward.merge(low, high)
                merges.append((low, high, distance))
            else:
                refused += 1
            tell("merge", len(merges) + refused, 0)
    return merges, len(pairs), refused, first


def _first_overlap(
    hulls: Hulls, labels: np.ndarray, rows: np.ndarray, inert: np.ndarray, pairs: np.ndarray, planes: Planes, tell: Tell
) -> int | None:
    """The first number of merges after which two clusters of different label overlap; None if there is none.

    planes: filled with what separates the clusters. States share most clusters, so most pairs are settled by an
    earlier state.
    """
    # sizes: within one sequence of merges, name and size say which points
    proved: dict[tuple[int, int], tuple[int, int]] = {}

    def settled(a: int, b: int, first: np.ndarray, second: np.ndarray) -> bool:
        proved_sizes = proved.get((a, b), (0, 0))
        if len(first) <= proved_sizes[0] and len(second) <= proved_sizes[1]:
            return True
        if (a, b) in planes and still_separates(hulls, planes[a, b][0], first, second):
            hulls.decisions["reused plane"] += 1
            proved[a, b] = len(first), len(second)
            return True
        return False

    def overlap_after(merges: int) -> tuple[np.ndarray, np.ndarray] | None:
        names = names_after(len(labels), pairs[:merges])
        hulls.set_metric(rows, names)
        groups = _groups(rows, names)
        for a, b in close_pairs(hulls, rows, names, labels, inert):
            first, second = groups[a], groups[b]
            if settled(a, b, first, second):
                continue
            verdict = hulls.decide(first, second, _start(first, second, planes.get((a, b))))
            plane = verdict.certificate
            if not isinstance(plane, Plane):
                return witness(verdict, first, second)
            _remember(planes, a, b, plane.w, _support(plane, first, second), PLANES_PER_POINT * len(rows))
            proved[a, b] = len(first), len(second)
        return None

    overlapping = overlap_after(len(pairs))
    if overlapping is None:
        return None
    clean, bad = 0, _joined(overlapping, len(labels), pairs)
    while bad - clean > 1:
        tell("search", clean, bad)
        middle = (clean + bad) // 2
        overlapping = overlap_after(middle)
        if overlapping is None:
            clean = middle
        else:
            bad = min(middle, _joined(overlapping, len(labels), pairs))
    return bad


def _joined(sides: tuple[np.ndarray, np.ndarray], count: int, pairs: np.ndarray) -> int:
    """After how many merges the rows of each side are in one cluster: that state overlaps, as the sides do."""
    low, high = 0, len(pairs)
    while low < high:
        middle = (low + high) // 2
        names = names_after(count, pairs[:middle])
        joined = all((names[rows] == names[rows[0]]).all() for rows in sides)
        low, high = (low, middle) if joined else (middle + 1, high)
    return low


def _groups(rows: np.ndarray, names: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of each cluster."""
    order = rows[np.argsort(names[rows], kind="stable")]
    clusters, starts = np.unique(names[order], return_index=True)
    return dict(zip(clusters.tolist(), np.split(order, starts[1:]), strict=True))


def _support(plane: Plane, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The rows of both clusters that the search for this plane rested on."""
    if plane.a_index is None or plane.b_index is None:
        return np.zeros(0, np.int64)
    return np.concatenate([upper[plane.a_index], lower[plane.b_index]])


def _start(
    first: np.ndarray, second: np.ndarray, carriers: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions in two clusters of the rows that carried an earlier plane; None if one side has none."""
    if carriers is None:
        return None
    start = np.flatnonzero(np.isin(first, carriers[1])), np.flatnonzero(np.isin(second, carriers[1]))
    return start if len(start[0]) and len(start[1]) else None


def _remember(planes: Planes, upper: int, lower: int, normal: np.ndarray, support: np.ndarray, limit: int) -> None:
    """Keep a plane with cluster `upper` on its upper side; the oldest go, so that memory stays linear in points."""
    key = (min(upper, lower), max(upper, lower))
    planes.pop(key, None)
    planes[key] = (normal if upper < lower else -normal, support)
    while len(planes) > limit:
        del planes[next(iter(planes))]


class _Forward:
    """Tests of candidate merges against all clusters of other labels; remembers planes and refusals."""

    def __init__(self, hulls: Hulls, labels: np.ndarray, rows: np.ndarray, names: np.ndarray):
        self.hulls, self.labels, self.rows, self.names = hulls, labels, rows, names
        self.groups = _groups(rows, names)
        self.alive = {int(k): np.array([g for g in self.groups if labels[g] == k]) for k in np.unique(labels[rows])}
        self.normals = {kind: np.zeros_like(hulls.points) for kind, _ in hulls.normals(hulls.points[:1])}
        self.own = {kind: np.zeros(len(hulls.points)) for kind in self.normals}
        for name in self.groups:
            self._update(name)
        self.planes: Planes = {}
        # refusals as sets of bits: bit k of refused[i] says that i may not unite with the cluster that now holds start
        # cluster k
        self.bit = {name: 1 << k for k, name in enumerate(self.groups)}
        self.refused = dict.fromkeys(self.groups, 0)

    def admits(self, low: int, high: int) -> bool:
        """Whether the union is disjoint from every cluster of another label. An unproved answer counts as an
        overlap."""
        if self.refused[low] & self.bit[high]:
            # the parts of these two overlapped when united, so do the wholes
            self.hulls.decisions["inherited overlap"] += 1
            return False
        union = np.concatenate([self.groups[low], self.groups[high]])
        for other in self._near(union, int(self.labels[low])):
            if self._reuse(union, low, high, other):
                continue
            verdict = self.hulls.decide(union, self.groups[other], self._start(union, low, high, other))
            plane = verdict.certificate
            if isinstance(plane, Plane):
                support = _support(plane, union, self.groups[other])
                for part in (low, high):
                    self._keep(part, other, plane.w, support)
                continue
            if verdict.answer == "no":
                self.refused[low] |= self.bit[high]
                self.refused[high] |= self.bit[low]
            return False
        return True

    def merge(self, low: int, high: int) -> None:
        """Carry out an admitted merge."""
        self.groups[low] = np.concatenate([self.groups[low], self.groups.pop(high)])
        self.names[self.groups[low]] = low
        label = int(self.labels[low])
        self.alive[label] = self.alive[label][self.alive[label] != high]
        self._update(low)
        self.bit[low] |= self.bit.pop(high)
        self.refused[low] |= self.refused.pop(high)

    def _near(self, union: np.ndarray, label: int) -> list[int]:
        """Clusters of other labels that no plane between means separates from the union, the most entangled first."""
        others = np.concatenate([names for k, names in self.alive.items() if k != label])
        rows = self.rows[self.labels[self.rows] != label]
        entangled = np.full(len(others), -np.inf)
        points, values = self.hulls.points, self.hulls.points[union]
        for kind, (normal,) in self.hulls.normals(values.mean(axis=0)[None]):
            if not len(others):
                break
            least = np.full(len(points), np.inf)
            np.minimum.at(least, self.names[rows], (self.own[kind] - points @ normal)[rows])
            against = self.normals[kind][others]
            gap = ((values @ normal)[:, None] - values @ against.T).min(axis=0) + least[others]
            tolerance = rounding(np.vstack([against, normal]))
            self.hulls.decisions[kind] += int((gap > tolerance).sum())
            unseparated = gap <= tolerance
            entangled = np.maximum(entangled[unseparated], gap[unseparated] / tolerance)
            others = others[unseparated]
        return others[np.argsort(entangled, kind="stable")].tolist()

    def _reuse(self, union: np.ndarray, low: int, high: int, other: int) -> bool:
        """Whether a plane that was found for a part still separates the whole."""
        for part in (low, high):
            normal, support = self._plane(part, other)
            if len(normal) and still_separates(self.hulls, normal, union, self.groups[other]):
                for merged in (low, high):
                    self._keep(merged, other, normal, support)
                self.hulls.decisions["reused plane"] += 1
                return True
        return False

    def _start(self, union: np.ndarray, low: int, high: int, other: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Positions in the union and the other cluster of the points that carried the last plane of a part."""
        parts = sorted((low, high), key=lambda name: -len(self.groups[name]))
        for part in parts:
            start = _start(union, self.groups[other], self._plane(part, other))
            if start is not None:
                return start
        return None

    def _plane(self, upper: int, lower: int) -> tuple[np.ndarray, np.ndarray]:
        """The plane kept for two clusters, with `upper` on its upper side, and its supporting rows; empty if there is
        none."""
        normal, support = self.planes.get((min(upper, lower), max(upper, lower)), (np.zeros(0), np.zeros(0, np.int64)))
        return (normal if upper < lower else -normal), support

    def _keep(self, upper: int, lower: int, normal: np.ndarray, support: np.ndarray) -> None:
        """Remember a plane with cluster `upper` on its upper side."""
        _remember(self.planes, upper, lower, normal, support, PLANES_PER_POINT * len(self.names))

    def _update(self, name: int) -> None:
        """Candidate normals of a new cluster, and the scores of its points with them."""
        values = self.hulls.points[self.groups[name]]
        for kind, (normal,) in self.hulls.normals(values.mean(axis=0)[None]):
            self.normals[kind][name] = normal
            self.own[kind][self.groups[name]] = values @ normal
