"""Slow, obviously right hull probe: the definition in plain loops with a linear program per test, and distances by a
general solver."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog, minimize


def hulls_meet(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether some convex combination of a equals one of b: a feasibility program for HiGHS. a: (point, dim), b:
    (point, dim)."""
    centre = np.concatenate([a, b]).mean(axis=0)
    size = max(np.abs(a - centre).max(), np.abs(b - centre).max(), 1e-300)
    a, b = (a - centre) / size, (b - centre) / size
    sums = np.zeros((2, len(a) + len(b)))
    sums[0, : len(a)], sums[1, len(a) :] = 1, 1
    equal = np.vstack([np.hstack([a.T, -b.T]), sums])
    right = np.append(np.zeros(a.shape[1]), [1, 1])
    for options in ({"primal_feasibility_tolerance": 1e-10}, {}):  # HiGHS may give up under the tight tolerance
        answer = linprog(np.zeros(equal.shape[1]), A_eq=equal, b_eq=right, method="highs", options=options)
        if answer.status in (0, 2):
            return answer.status == 0
    raise RuntimeError(f"HiGHS: {answer.message}")


def partition(points: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Greedy centroid linkage: unite the closest same-label pair unless the union meets a cluster of another label.

    Ties by distance, then by the smallest rows of the clusters. Returns the rows of each cluster, by smallest row.
    """
    points = np.asarray(points, dtype=np.float64)
    clusters = {i: [i] for i in range(len(points))}
    discarded: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    while True:
        best = None
        for i in sorted(clusters):
            for j in sorted(clusters):
                if i < j and labels[i] == labels[j] and (tuple(clusters[i]), tuple(clusters[j])) not in discarded:
                    distance = np.linalg.norm(points[clusters[i]].mean(axis=0) - points[clusters[j]].mean(axis=0))
                    if best is None or distance < best[0]:
                        best = (distance, i, j)
        if best is None:
            return [clusters[i] for i in sorted(clusters)]
        _, i, j = best
        union = sorted(clusters[i] + clusters[j])
        others = [rows for k, rows in clusters.items() if labels[k] != labels[i]]
        if any(hulls_meet(points[union], points[rows]) for rows in others):
            discarded.add((tuple(clusters[i]), tuple(clusters[j])))
        else:
            clusters[i] = union
            del clusters[j]


def closest_pairs(points: np.ndarray, labels: np.ndarray,
                  accepted: Callable[[int], bool]) -> list[tuple[float, int, int, bool]]:
    """Every pair that is looked at, in order, and whether it was united: accepted(k) decides the k-th, with no look at
    hulls."""
    clusters = {(i,): points[i] for i in range(len(points))}
    waiting = {(a, b) for a in clusters for b in clusters if a < b and labels[a[0]] == labels[b[0]]}
    seen = []
    while waiting:
        keyed = {}
        for a, b in waiting:
            keyed[a, b] = (float(np.sqrt(((clusters[a] - clusters[b]) ** 2).sum())), a[0], b[0])
        pair = min(waiting, key=keyed.__getitem__)
        united = accepted(len(seen))
        seen.append((*keyed[pair], united))
        waiting.discard(pair)
        if united:
            both = tuple(sorted(pair[0] + pair[1]))
            for part in pair:
                del clusters[part]
            waiting = {old for old in waiting if pair[0] not in old and pair[1] not in old}
            waiting |= {(min(both, c), max(both, c)) for c in clusters if labels[c[0]] == labels[both[0]]}
            clusters[both] = points[list(both)].mean(axis=0)
    return seen


def assignment(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(point,) cluster numbers of `partition`, by smallest row."""
    found = np.empty(len(points), np.int64)
    for number, rows in enumerate(partition(points, labels)):
        found[rows] = number
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """min |A'u - B'v| over convex weights u, v, by sequential quadratic programming. Small sets only."""
    n = len(a) + len(b)
    signed = np.concatenate([a, -b])
    size = np.abs(signed).max()
    product = (signed / size) @ (signed / size).T
    sides = np.zeros((2, n))
    sides[0, : len(a)], sides[1, len(a) :] = 1, 1
    start = sides[0] / len(a) + sides[1] / len(b)
    answer = minimize(
        lambda w: 0.5 * w @ product @ w, start, jac=lambda w: product @ w, method="SLSQP", bounds=[(0, None)] * n,
        constraints={"type": "eq", "fun": lambda w: sides @ w - 1, "jac": lambda w: sides},
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    return float(size * np.linalg.norm((signed / size).T @ np.maximum(answer.x, 0)))
