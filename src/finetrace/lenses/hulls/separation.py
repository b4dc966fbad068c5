"""Whether two convex hulls are disjoint, with a proof either way, and how far apart they are.

Every answer can be checked without trusting the method that found it: a plane with all points of a on one side and all
of b on the other, or one point that is a convex combination of both sets. Cheap candidates are tried first, a solver
only for the rest.

What float64 can tell, relative to the data radius R (largest distance of any point to the mean of all points):
a plane counts when its gap exceeds 1e-12 R (rounding of the products), a common point when its residual is at most
1e-9 R; hulls closer than 1e-6 R but apart are answered "yes" with `touching` set; hulls that share only a border point
are answered "no".
"""

from dataclasses import dataclass, replace

import numpy as np

from finetrace.lenses.hulls.nearest_points import ZERO, nearest_points

RESIDUAL = 1e-9
TOUCHING = 1e-6


@dataclass(frozen=True)
class Plane:
    """w . x + offset >= gap / 2 for every point of a and <= -gap / 2 for every point of b; checked on all points in
    float64."""

    w: np.ndarray
    """(dim,) float64, unit length."""
    offset: float
    gap: float
    """Width of the empty strip between the hulls, in the unit of the points: the hulls are at least this far apart."""
    a_index: np.ndarray | None = None
    """(support,) int64 rows of a that the search rested on; None for planes that needed no search."""
    b_index: np.ndarray | None = None


@dataclass(frozen=True)
class CommonPoint:
    """A point of both hulls: sum a_weights a[a_index] and sum b_weights b[b_index] agree to `residual`."""

    point: np.ndarray
    """(dim,) float64."""
    a_index: np.ndarray
    """(support,) int64 rows of a."""
    a_weights: np.ndarray
    """(support,) float64 > 0, sum 1."""
    b_index: np.ndarray
    b_weights: np.ndarray
    residual: float
    """Distance of the two combinations, in the unit of the points."""


@dataclass(frozen=True)
class Verdict:
    """Answer of `separable`."""

    answer: str
    """yes: disjoint hulls, proved by a plane | no: a common point, proved by weights | undecided: neither proof was
    found."""
    margin: float
    """yes: proved lower bound of the distance, in the unit of the points; no: 0; undecided: NaN."""
    certificate: Plane | CommonPoint | None
    radius: float
    """Largest distance of any point to the mean of all points: the scale of the tolerances."""
    touching: bool
    """The answer is yes, but the hulls are closer than 1e-6 radius."""
    method: str
    """What found the certificate: duplicate | means | ridge | nearest points | linear program | none."""


@dataclass(frozen=True)
class HullDistance:
    """The distance lies in [distance - gap, distance]."""

    distance: float
    """Euclidean distance of the nearest points found; 0.0 for hulls with a common point."""
    gap: float
    """distance minus its proved lower bound; for overlapping hulls the residual of the common point."""
    a_point: np.ndarray
    """(dim,) nearest point of hull(a)."""
    b_point: np.ndarray
    a_index: np.ndarray
    """(support,) int64 rows of a whose convex combination `a_point` is."""
    b_index: np.ndarray


def separable(a: np.ndarray, b: np.ndarray) -> Verdict:
    """Are the convex hulls of a (point, dim) and b (point, dim) disjoint?

    Tried in turn: identical points; the plane between the means (it includes every case of disjoint enclosing
    spheres); the ridge regression plane; the nearest points of the hulls; a linear program (HiGHS). ValueError for
    empty sets, NaN or infinity, and sets of different dimension.
    """
    a, b = _pair(a, b)
    centre, radius = scale(a, b)
    twin = _duplicate(a, b)
    if twin is not None:
        weight = np.ones(1)
        point = CommonPoint(a[twin[0]], np.array([twin[0]]), weight, np.array([twin[1]]), weight, 0.0)
        return Verdict("no", 0.0, point, radius, False, "duplicate")
    for method, normal in (("means", a.mean(axis=0) - b.mean(axis=0)), ("ridge", None)):
        if normal is None:
            if len(a) + len(b) <= a.shape[1] + 1:
                # the search for nearest points begins with the limit of the ridge plane for a vanishing penalty
                continue
            normal = _ridge(a - centre, b - centre)
        plane = plane_through(a, b, normal, centre, radius)
        if plane is not None and plane.gap > TOUCHING * radius:
            return Verdict("yes", plane.gap, plane, radius, False, method)
    return searched(a, b, centre, radius)


def hull_distance(a: np.ndarray, b: np.ndarray, start: tuple[np.ndarray, np.ndarray] | None = None) -> HullDistance:
    """Euclidean distance of the convex hulls of a (point, dim) and b (point, dim); 0 for hulls with a common point.

    Exact to the `gap` that is returned: in general 1e-10 of the distance, within 1e-6 for distances above 1e-9 of the
    radius, where rounding of the coordinates themselves takes over. Never below the true distance by more than
    rounding. start: rows of a and of b to begin with, such as `a_index` and `b_index` of the same pair one checkpoint
    earlier.
    """
    a, b = _pair(a, b)
    nearest = nearest_points(a, b, start=start)
    if nearest.lower <= ZERO * nearest.radius and nearest.upper <= RESIDUAL * nearest.radius:
        distance, gap = 0.0, nearest.upper
    else:
        distance, gap = nearest.upper, max(0.0, nearest.upper - max(0.0, nearest.lower))
    return HullDistance(distance, gap, nearest.a_weights @ a[nearest.a_index], nearest.b_weights @ b[nearest.b_index],
                        nearest.a_index, nearest.b_index)


def proved_distance(a: np.ndarray, b: np.ndarray, beyond: float) -> float | None:
    """`hull_distance` as a number for checked arrays, or None as soon as it is proved to be larger than `beyond`."""
    result = nearest_points(a, b, beyond=beyond)
    if result.lower > beyond:
        return None
    return 0.0 if result.lower <= ZERO * result.radius and result.upper <= RESIDUAL * result.radius else result.upper


def point_distance(point: np.ndarray, hull: np.ndarray) -> HullDistance:
    """Euclidean distance of one point (dim,) to the convex hull of `hull` (point, dim); 0 inside and on the border."""
    point = np.asarray(point, dtype=np.float64)
    if point.ndim != 1:
        raise ValueError(f"point has shape {point.shape}; give one vector (dim,), and call again for the next")
    return hull_distance(point[None], hull)


def reduced(points: np.ndarray) -> np.ndarray:
    """The same points in fewer coordinates: (point, dim) -> (point, min(point, dim)), all distances kept to rounding.

    Fewer points than dimensions span a smaller space; its coordinates are those of an orthogonal (QR) basis. Otherwise
    unchanged.
    """
    from scipy.linalg import qr

    points = np.asarray(points, dtype=np.float64)
    if len(points) >= points.shape[1]:
        return points
    triangle = qr(points.T, mode="r", check_finite=False)[0]
    return np.ascontiguousarray(triangle[: len(points)].T)


def searched(
    a: np.ndarray, b: np.ndarray, centre: np.ndarray, radius: float, start: tuple[np.ndarray, np.ndarray] | None = None
) -> Verdict:
    """The answer by nearest points, and by a linear program where float64 defeats them; for checked arrays and their
    `scale`."""
    nearest = nearest_points(a, b, decide=True, start=start)
    if 0 < nearest.lower < 4 * TOUCHING * radius:
        nearest = nearest_points(a, b)  # so near that the distance itself must say whether they touch
    plane = plane_through(a, b, nearest.normal, centre, radius)
    if plane is not None:
        plane = replace(plane, a_index=nearest.a_index, b_index=nearest.b_index)
        return Verdict("yes", plane.gap, plane, radius, plane.gap < TOUCHING * radius, "nearest points")
    point = common_point(a, b, nearest.a_index, nearest.a_weights, nearest.b_index, nearest.b_weights)
    if point.residual <= RESIDUAL * radius:
        return Verdict("no", 0.0, point, radius, False, "nearest points")
    return _by_linear_program(a, b, centre, radius)


def scale(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean of all points (dim,) and the largest distance of a point to it."""
    centre = (a.sum(axis=0) + b.sum(axis=0)) / (len(a) + len(b))
    return centre, float(max(np.linalg.norm(a - centre, axis=1).max(), np.linalg.norm(b - centre, axis=1).max()))


def plane_through(a: np.ndarray, b: np.ndarray, normal: np.ndarray, centre: np.ndarray, radius: float) -> Plane | None:
    """The plane of this normal (either sign) half-way between the sets if it separates them beyond rounding, else
    None."""
    length = float(np.linalg.norm(normal))
    if not np.isfinite(length) or length <= 0:
        return None
    w = normal / length
    on_a, on_b = (a - centre) @ w, (b - centre) @ w
    if on_a.mean() < on_b.mean():
        w, on_a, on_b = -w, -on_a, -on_b
    gap = float(on_a.min() - on_b.max())
    # subtracting the centre rounds in units of the raw coordinates, which may be far from the origin
    if gap <= max(ZERO * radius, 16 * np.finfo(np.float64).eps * float(np.abs(centre).max())):
        return None
    return Plane(w, -float((on_a.min() + on_b.max()) / 2 + w @ centre), gap)


def common_point(
    a: np.ndarray, b: np.ndarray, a_index: np.ndarray, a_weights: np.ndarray, b_index: np.ndarray, b_weights: np.ndarray
) -> CommonPoint:
    """The two convex combinations and their distance, computed from the points themselves."""
    a_weights, b_weights = a_weights / a_weights.sum(), b_weights / b_weights.sum()
    base = a[a_index[0]]  # differences to one point: combinations of far-off coordinates would round
    difference = a_weights @ (a[a_index] - base) - b_weights @ (b[b_index] - base)
    return CommonPoint(base + a_weights @ (a[a_index] - base), a_index, a_weights, b_index, b_weights,
                       float(np.linalg.norm(difference)))


def _by_linear_program(a: np.ndarray, b: np.ndarray, centre: np.ndarray, radius: float) -> Verdict:
    """max t with w.x + c >= t on a, <= -t on b, |w_k| <= 1: the solution is a plane, its multipliers are a common
    point."""
    from scipy.optimize import linprog

    signed = np.concatenate([a - centre, centre - b]) / radius
    n, dim = signed.shape
    sides = np.where(np.arange(n) < len(a), 1.0, -1.0)
    rows = np.hstack([-signed, -sides[:, None], np.ones((n, 1))])
    cost = np.append(np.zeros(dim + 1), -1.0)
    bounds = [(-1.0, 1.0)] * dim + [(None, None), (None, None)]
    answer = linprog(cost, A_ub=rows, b_ub=np.zeros(n), bounds=bounds, method="highs")
    if answer.x is not None:
        plane = plane_through(a, b, answer.x[:dim], centre, radius)
        if plane is not None:
            return Verdict("yes", plane.gap, plane, radius, plane.gap < TOUCHING * radius, "linear program")
    if answer.x is not None and answer.status == 0:
        weights = np.maximum(-answer.ineqlin.marginals, 0.0)
        on_a, on_b = np.flatnonzero(weights[: len(a)]), np.flatnonzero(weights[len(a) :])
        if len(on_a) and len(on_b):
            point = common_point(a, b, on_a, weights[on_a], on_b, weights[on_b + len(a)])
            if point.residual <= RESIDUAL * radius:
                return Verdict("no", 0.0, point, radius, False, "linear program")
    return Verdict("undecided", float("nan"), None, radius, False, "none")


def _ridge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Normal of the ridge regression of side (+1, -1) on centred points: (dim,)."""
    centred = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)])
    spread = centred.T @ centred
    spread[np.diag_indices_from(spread)] += 1e-6 * max(np.trace(spread) / len(spread), 1e-300)
    return np.linalg.solve(spread, a.mean(axis=0) - b.mean(axis=0))


def _duplicate(a: np.ndarray, b: np.ndarray) -> tuple[int, int] | None:
    """Rows of a and b that hold the same point, the first in order of b; None if there are none."""
    row_of = {row.tobytes(): i for i, row in reversed(list(enumerate(a + 0.0)))}  # + 0.0: minus zero equals zero
    for j, row in enumerate(b + 0.0):
        i = row_of.get(row.tobytes())
        if i is not None:
            return i, j
    return None


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as C-ordered float64, checked."""
    pair = []
    for name, points in (("first", a), ("second", b)):
        points = np.ascontiguousarray(points, dtype=np.float64)
        if points.ndim != 2 or not points.size:
            raise ValueError(f"the {name} set has shape {points.shape}; a hull needs (point, dim) with at least one "
                             "point")
        if not np.isfinite(points).all():
            row = int(np.argmin(np.isfinite(points).all(axis=1)))
            raise ValueError(f"the {name} set holds NaN or infinity in row {row}; remove it before measuring")
        pair.append(points)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(f"points of {pair[0].shape[1]} and of {pair[1].shape[1]} dimensions cannot be compared")
    return pair[0], pair[1]
