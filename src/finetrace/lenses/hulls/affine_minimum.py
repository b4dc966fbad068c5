"""The smallest vector among signed affine combinations of two sets of points: the linear-algebra step of the
nearest-point search."""

import numpy as np

FAST_PIVOT = 1e-13
PRECISE_PIVOT = 1e-13


def affine_minimum(
    z: np.ndarray, active: np.ndarray, on_a: np.ndarray, products: np.ndarray | None, precise: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights that minimise |sum w_i z_i| where the weights of each side sum to one (they may be negative).

    z: (point, dim) of about unit length;  active: (k,) rows of z, both sides present;  on_a: (k,) bool: their side;
    products: (k, k) of z[active], made here when None;  precise: orthogonal factors instead of Cholesky factors, for
    points that nearly depend on each other. Returns the positions in `active` that are kept, ascending (a row that
    depends on earlier rows is left out), their weights (k',), and the vector (dim,), in precise mode orthogonal to all
    differences to rounding.
    """
    return _orthogonal(z, active, on_a) if precise else _cholesky(z, active, on_a, products)


def _cholesky(
    z: np.ndarray, active: np.ndarray, on_a: np.ndarray, products: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve with K = Z Z' + E E' (E: membership of the sides): on feasible weights E'w = 1 the added term is constant,
    and K is positive definite for affinely independent rows, also where Z Z' is not."""
    from scipy.linalg.lapack import dpotrf, dpotrs

    if products is None:
        rows = z[active]
        products = rows @ rows.T
    independent = np.arange(len(active))
    while True:
        sides = np.empty((len(independent), 2))
        sides[:, 0], sides[:, 1] = on_a, ~on_a
        factor, stopped = dpotrf(products + sides @ sides.T, lower=1, clean=0)
        pivots = np.diagonal(factor)[: stopped - 1 if stopped > 0 else None]
        if stopped <= 0 and pivots.min() ** 2 > FAST_PIVOT:
            solved, _ = dpotrs(factor, sides, lower=1)
            (p, q), (_, r) = (sides.T @ solved).tolist()
            weights = (solved[:, 0] * (r - q) + solved[:, 1] * (p - q)) / (p * r - q * q)
            return independent, weights, z[active[independent]].T @ weights
        small = np.flatnonzero(pivots**2 <= FAST_PIVOT)
        keep = np.arange(len(independent)) != (int(small[0]) if len(small) else stopped - 1)
        independent, on_a, products = independent[keep], on_a[keep], products[np.ix_(keep, keep)]


def _orthogonal(z: np.ndarray, active: np.ndarray, on_a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares in the differences to the first row of each side; keeps digits that squared products lose."""
    from scipy.linalg import qr, solve_triangular

    firsts = np.where(on_a, np.argmax(on_a), np.argmax(~on_a))
    others = np.flatnonzero(firsts != np.arange(len(active)))
    differences = z[active[others]] - z[active[firsts[others]]]
    lengths = np.linalg.norm(differences, axis=1)
    others, differences, lengths = others[lengths > 0], differences[lengths > 0], lengths[lengths > 0]
    origin = z[active[np.argmax(on_a)]] + z[active[np.argmax(~on_a)]]
    independent, vector = np.zeros(0, np.int64), origin
    solution = np.zeros(0)
    if len(others):
        columns = (differences / lengths[:, None]).T
        while True:
            basis, triangle = qr(columns, mode="economic")
            size = min(triangle.shape)
            small = np.flatnonzero(np.abs(np.diagonal(triangle)) <= PRECISE_PIVOT)
            if not len(small) and size == columns.shape[1]:
                break
            keep = np.arange(columns.shape[1]) != (int(small[0]) if len(small) else size)
            columns, others, lengths = columns[:, keep], others[keep], lengths[keep]
        independent = others
        # twice: what the first pass leaves over is of the size of rounding, but so may be the answer
        for _ in range(2):
            vector = vector - basis @ (basis.T @ vector)
        solution = solve_triangular(triangle, -(basis.T @ origin)) / lengths
    order = np.concatenate([[np.argmax(on_a)], [np.argmax(~on_a)], independent]).astype(np.int64)
    sums = [1 - solution[on_a[independent]].sum(), 1 - solution[~on_a[independent]].sum()]
    weights = np.concatenate([sums, solution])
    back = np.argsort(order, kind="stable")
    return order[back], weights[back], vector
