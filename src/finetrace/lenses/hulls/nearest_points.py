"""The nearest points of two convex hulls: an active-set method whose answer carries its own proof.

The hulls of a and b are at distance min |x| over x = sum u_i a_i - sum v_j b_j with convex weights u, v. Any x gives
an upper bound |x| and, as the normal of a plane, a lower bound (min_i <a_i, x> - max_j <b_j, x>) / |x|; the method
closes the gap between the two (Wolfe 1976, with whole blocks of points entering and leaving at a time). It ends after
finitely many steps, for hulls that overlap at x = 0.
"""

from dataclasses import dataclass

import numpy as np

from finetrace.lenses.hulls.affine_minimum import affine_minimum
from finetrace.lenses.hulls.blas_threads import one_blas_thread

ZERO = 1e-12
"""|x| relative to the data radius below which x is taken for the zero vector: a common point of both hulls."""
RELATIVE_GAP = 1e-10
"""The search ends when the bounds on the squared distance agree to this share."""
CYCLES_PER_POINT = 20


@dataclass(frozen=True)
class Nearest:
    """Two points, one of each hull, and what they prove about the distance of the hulls."""

    difference: np.ndarray
    """(dim,) float64: point of a minus point of b; the normal of the separating plane when `lower` > 0."""
    a_index: np.ndarray
    """(support,) int64: rows of a with a positive weight."""
    a_weights: np.ndarray
    """(support,) float64 > 0, sum 1."""
    b_index: np.ndarray
    b_weights: np.ndarray
    upper: float
    """Length of `difference`: the distance is not larger."""
    lower: float
    """Proved lower bound of the distance; negative or zero where `difference` is not a separating plane."""
    normal: np.ndarray
    """(dim,) float64: normal of the best plane met, whose gap is `lower`."""
    radius: float
    """Largest distance of any point to the mean of all points: the scale that tolerances refer to."""


def nearest_points(
    a: np.ndarray, b: np.ndarray, *, decide: bool = False, beyond: float = np.inf,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Nearest:
    """Nearest points of hull(a) and hull(b). a: (point, dim), b: (point, dim), finite float64.

    decide: stop as soon as a plane separates or the points meet, instead of closing the gap.
    beyond: stop as soon as the distance is proved to be larger than this.
    start: rows of a and of b to begin with, for example the support of the same pair at the previous checkpoint.
    """
    centre = (a.sum(axis=0) + b.sum(axis=0)) / (len(a) + len(b))
    signed = np.concatenate([a - centre, centre - b])  # x = signed.T @ weights: both sides enter with the same sign
    radius = float(np.sqrt(np.einsum("ij,ij->i", signed, signed).max()))
    first = np.zeros(1, np.int64)
    if radius == 0:
        return Nearest(np.zeros(a.shape[1]), first, np.ones(1), first, np.ones(1), 0.0, 0.0, np.zeros(a.shape[1]), 0.0)
    with one_blas_thread():
        search = _Search(signed / radius, len(a), decide, beyond / radius)
        search.run(_first_active(search.z, len(a), start))
    active, weights = search.active, search.weights
    on_a = active < len(a)
    return Nearest(
        search.x * radius, active[on_a], weights[on_a], active[~on_a] - len(a), weights[~on_a],
        search.upper * radius, search.lower * radius, search.normal, radius,
    )


def _first_active(z: np.ndarray, split: int, start: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Rows to begin with: all when they fit the dimension (then their affine minimum is a plane through all of them),
    else those of each side that lie farthest towards the other."""
    n, dim = z.shape
    if start is not None and len(start[0]) and len(start[1]):
        return np.concatenate([start[0], start[1] + split]).astype(np.int64)
    if n <= dim + 1:
        return np.arange(n)
    towards = z @ (z[:split].mean(axis=0) + z[split:].mean(axis=0))
    many = max(1, dim // 4)
    return np.concatenate([np.argsort(towards[:split], kind="stable")[:many],
                           np.argsort(towards[split:], kind="stable")[:many] + split])


class _Search:
    """State of the search on points of unit radius; `z` (point, dim) holds the points of a, then those of b with their
    sign turned."""

    def __init__(self, z: np.ndarray, split: int, decide: bool, beyond: float):
        self.z, self.split, self.decide, self.beyond = z, split, decide, beyond
        dim = z.shape[1]
        self.known = _Products(z)
        self.precise, self.bold = False, True
        self.active, self.weights = np.zeros(0, np.int64), np.zeros(0)
        # equal but for rounding, which matters when both are tiny
        self.x, self.direction = np.zeros(dim), np.zeros(dim)
        self.upper, self.lower, self.normal = np.inf, -np.inf, np.zeros(dim)

    def run(self, active: np.ndarray) -> None:
        """Close the gap, or (decide) stop at the first proof."""
        self._move(*self._positive(active))
        for _ in range(CYCLES_PER_POINT * len(self.z)):
            scores = self._scores(self.direction)
            if self._proved(scores):
                return
            before = self.upper
            self._improve(self._violators(scores))
            if self.upper < before * (1 - 1e-13):
                continue
            if self.precise:
                return  # no step that float64 can see is left; the bounds say how good the answer is
            self.precise = True
            refined = self._positive(self.active)
            if np.linalg.norm(self._combined(*refined)) <= self.upper * (1 + 1e-9):
                self._move(*refined)

    def _scores(self, normal: np.ndarray) -> np.ndarray:
        """(point,) products with a candidate normal; keeps the best lower bound that any candidate has given."""
        scores = self.z @ normal
        length = float(np.linalg.norm(normal))
        if length > 0:
            bound = float(scores[: self.split].min() + scores[self.split :].min()) / length
            if bound > self.lower:
                self.lower, self.normal = bound, normal / length
        return scores

    def _proved(self, scores: np.ndarray) -> bool:
        if self.upper <= ZERO or self.lower > self.beyond:
            return True
        if self.decide and self.lower > max(2 * ZERO, 0.3 * self.upper):  # a wide margin serves larger sets, too
            return True
        gap = self.upper**2 - float(scores[: self.split].min() + scores[self.split :].min())
        return gap <= RELATIVE_GAP * self.upper**2

    def _violators(self, scores: np.ndarray) -> np.ndarray:
        """Inactive rows that lie beyond the supporting plane of their side, the farthest first, as many as the
        dimension leaves room."""
        violators = []
        room = max(1, (self.z.shape[1] + 2 - len(self.active)) // 2)
        for lo, hi in ((0, self.split), (self.split, len(scores))):
            active_rows = self.active[(self.active >= lo) & (self.active < hi)]
            level = float(self.weights[(self.active >= lo) & (self.active < hi)] @ scores[active_rows])
            part = scores[lo:hi].copy()
            part[active_rows - lo] = np.inf
            count = min(room, int((part < level).sum()))
            if count:
                best = np.argpartition(part, count - 1)[:count] if count < len(part) else np.arange(len(part))
                violators.append(best[np.argsort(part[best], kind="stable")] + lo)
        return np.concatenate(violators) if violators else np.zeros(0, np.int64)

    def _improve(self, new: np.ndarray) -> None:
        """One step to a smaller |x|: by dropping all negative weights at once where that helps, else by the strict
        ratio test."""
        if not len(new):
            return
        if self.bold:
            step = self._positive(np.concatenate([self.active, new]))
            if np.linalg.norm(self._combined(*step)) < self.upper * (1 - 1e-10):
                return self._move(*step)
            self.bold = False  # many weights per solve only help far from the answer
        for entering in (new, new[:1]):  # first all, then the farthest alone, which is the classical step
            step = self._ratio_test(entering)
            if np.linalg.norm(self._combined(*step)) < self.upper * (1 - 1e-13):
                return self._move(*step)

    def _positive(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Affine minimum of the rows, again without those of negative weight until none is left: rows, weights,
        vector."""
        while True:
            kept, weights, vector = self._minimum(active)
            active = active[kept]
            if weights.min() > 0:
                return active, weights, vector
            active = active[weights > 0]

    def _ratio_test(self, new: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Wolfe's inner loop: walk from the present weights to the affine minimum; drop the row whose weight vanishes
        first."""
        active = np.concatenate([self.active, new])
        weights = np.concatenate([self.weights, np.zeros(len(new))])
        while True:
            kept, target, vector = self._minimum(active)
            active, weights = active[kept], weights[kept]
            if target.min() > 0:
                return active, target, vector
            falling = target <= 0
            steps = weights[falling] / np.maximum(weights[falling] - target[falling], 1e-300)
            step = float(steps.min())
            weights = weights + step * (target - weights)
            stay = ~(falling & (weights <= 1e-15))
            stay[np.flatnonzero(falling)[int(np.argmin(steps))]] = False
            active, weights = active[stay], np.maximum(weights[stay], 0.0)

    def _minimum(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        products = None if self.precise else self.known.of(active)
        return affine_minimum(self.z, active, active < self.split, products, self.precise)

    def _combined(self, active: np.ndarray, weights: np.ndarray, _: np.ndarray) -> np.ndarray:
        return self.z[active].T @ weights

    def _move(self, active: np.ndarray, weights: np.ndarray, vector: np.ndarray) -> None:
        for side in (active < self.split, active >= self.split):
            weights = np.where(side, weights / weights[side].sum(), weights)
        self.active, self.weights, self.direction = active, weights, vector
        self.x = self.z[active].T @ weights
        self.upper = float(np.linalg.norm(self.x))


class _Products:
    """Inner products of the rows that have been active, which are few; each is made once."""

    def __init__(self, z: np.ndarray):
        self.z, self.most = z, max(256, 4 * z.shape[1])
        self.place = np.full(len(z), -1)
        self.rows, self.values = np.zeros(0, np.int64), np.zeros((0, 0))

    def of(self, active: np.ndarray) -> np.ndarray:
        """(k, k) products of these rows."""
        new = active[self.place[active] < 0]
        if len(self.rows) + len(new) > self.most:  # begin again: memory stays that of the dimension
            self.place[self.rows] = -1
            self.rows, new = np.zeros(0, np.int64), active
        if len(new):
            kept, count = len(self.rows), len(self.rows) + len(new)
            if count > len(self.values):
                size = max(count, min(2 * count, self.most))
                room = np.empty((size, size))
                room[:kept, :kept] = self.values[:kept, :kept]
                self.values = room
            self.place[new] = np.arange(kept, count)
            self.rows = np.concatenate([self.rows, new])
            block = self.z[new] @ self.z[self.rows].T
            self.values[kept:count, :count], self.values[:count, kept:count] = block, block.T
        where = self.place[active]
        return self.values[where[:, None], where]
