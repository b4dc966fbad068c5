"""Logistic regression along a path of strengths, several weightings of the rows at once: truncated Newton,
preconditioned.

Kernels have condition numbers far above 1e8, on which first-order solvers stop early: on the kernel of a probed head
scikit-learn's L-BFGS reaches its limit of iterations at several times the least objective. Here each fit is exact, in a
few dozen to a few hundred products with the features.
"""

from dataclasses import dataclass

import numpy as np

_MOST_DIRECTIONS = 300  # conjugate-gradient steps within one Newton step
_HALVINGS = 40
_FORCING = 0.1  # share of the squared residual at which a Newton direction is good enough


@dataclass(frozen=True)
class Path:
    """Fits of every strength. coefficients: (strength, feature, problem);  intercepts: (strength, problem);
    objectives: (strength, problem) least values found;  converged: (strength, problem) bool.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    objectives: np.ndarray
    converged: np.ndarray


def logistic_path(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: np.ndarray, *,
                  tolerance: float = 1e-8, max_iterations: int = 100) -> Path:
    """argmin over (a, b) of 1/2 |a|^2 + C sum_i w_i CE(t_i, sigmoid(x_i a + b)) for each C and each column of weights.

    features: (row, feature) float64, best with orthogonal columns (X = U S of a singular value decomposition), for
    which the preconditioner is nearly exact;  targets: (row,) 0 or 1;  weights: (row, problem) >= 0, e.g. 0 where a
    fold leaves a row out;
    strengths: (strength,) > 0, ascending: each fit starts from the one before;  tolerance: of the Newton decrement,
    which bounds the distance to the least objective, as a share of the objective.
    """
    signs = np.where(np.asarray(targets) > 0, 1.0, -1.0)[:, None]
    squares = np.square(features).T
    point, bias = np.zeros((features.shape[1], weights.shape[1])), np.zeros(weights.shape[1])
    found = []
    for strength in strengths:
        point, bias, value, done = _minimise(features, signs, strength * weights, squares, point, bias, tolerance,
                                             max_iterations)
        found.append((point, bias, value, done))
    return Path(*(np.stack(parts) for parts in zip(*found, strict=True)))


def _minimise(
    x: np.ndarray, signs: np.ndarray, weights: np.ndarray, squares: np.ndarray, a: np.ndarray, b: np.ndarray,
    tolerance: float, max_iterations: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Newton steps with halving until every problem's decrement is small, or rounding leaves no descent."""
    logits = x @ a + b
    value = _objective(signs, weights, a, logits)
    done = np.zeros(len(b), dtype=bool)
    stuck = done.copy()
    for _ in range(max_iterations):
        wrong = _sigmoid(-signs * logits)  # probability of the other class
        pull = weights * signs * wrong
        curvature = weights * wrong * (1 - wrong)
        slope_a, slope_b = a - x.T @ pull, -pull.sum(axis=0)
        step_a, step_b = _newton_direction(x, curvature, squares, slope_a, slope_b, ~(done | stuck))
        decrement = -(slope_a * step_a).sum(axis=0) - slope_b * step_b
        done |= ~stuck & (decrement <= tolerance * value)
        if (done | stuck).all():
            break
        moved, size = x @ step_a + step_b, np.where(done | stuck, 0.0, 1.0)
        for _ in range(_HALVINGS):
            now = _objective(signs, weights, a + size * step_a, logits + size * moved)
            worse = now > value - 1e-4 * size * decrement
            worse &= size > 0
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        else:
            size, stuck = np.where(worse, 0.0, size), stuck | worse
        a, b = a + size * step_a, b + size * step_b
        logits = x @ a + b
        value = _objective(signs, weights, a, logits)
    return a, b, value, done


def _newton_direction(
    x: np.ndarray, curvature: np.ndarray, squares: np.ndarray, slope_a: np.ndarray, slope_b: np.ndarray,
    live: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve H d = -slope by conjugate gradients, preconditioned with the diagonal of H, which is H itself for
    orthogonal features as long as the curvature is the same everywhere."""
    scale_a, scale_b = 1 + squares @ curvature, np.maximum(curvature.sum(axis=0), np.finfo(np.float64).tiny)
    a, b = np.zeros_like(slope_a), np.zeros_like(slope_b)
    rest_a, rest_b = np.where(live, -slope_a, 0), np.where(live, -slope_b, 0)
    to_a, to_b = rest_a / scale_a, rest_b / scale_b
    size = first = (rest_a * to_a).sum(axis=0) + rest_b * to_b
    for _ in range(_MOST_DIRECTIONS):
        bent = curvature * (x @ to_a + to_b)
        times_a, times_b = to_a + x.T @ bent, bent.sum(axis=0)
        step = _ratio(size, (to_a * times_a).sum(axis=0) + to_b * times_b)
        a, b = a + step * to_a, b + step * to_b
        rest_a, rest_b = rest_a - step * times_a, rest_b - step * times_b
        good_a, good_b = rest_a / scale_a, rest_b / scale_b
        before, size = size, (rest_a * good_a).sum(axis=0) + rest_b * good_b
        if (size <= _FORCING * first).all():
            break
        turn = _ratio(size, before)
        to_a, to_b = good_a + turn * to_a, good_b + turn * to_b
    return a, b


def _objective(signs: np.ndarray, weights: np.ndarray, a: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return np.square(a).sum(axis=0) / 2 + (weights * np.logaddexp(0, -signs * logits)).sum(axis=0)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
