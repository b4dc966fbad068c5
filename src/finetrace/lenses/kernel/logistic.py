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
    fits = []
    for strength in strengths:
        point, bias, value, converged = _minimise(features, signs, strength * weights, squares, point, bias, tolerance,
                                                  max_iterations)
        fits.append((point, bias, value, converged))
    return Path(*(np.stack(parts) for parts in zip(*fits, strict=True)))


def _minimise(
    x: np.ndarray, signs: np.ndarray, weights: np.ndarray, squares: np.ndarray, a: np.ndarray, b: np.ndarray,
    tolerance: float, max_iterations: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Newton steps with halving until every problem's decrement is small, or rounding leaves no descent."""
    logits = x @ a + b
    value = _objective(signs, weights, a, logits)
    converged = np.zeros(len(b), dtype=bool)
    stuck = converged.copy()
    for _ in range(max_iterations):
        other_probability = _sigmoid(-signs * logits)  # probability of the other class
        descent = weights * signs * other_probability
        curvature = weights * other_probability * (1 - other_probability)
        slope_a, slope_b = a - x.T @ descent, -descent.sum(axis=0)
        step_a, step_b = _newton_direction(x, curvature, squares, slope_a, slope_b, ~(converged | stuck))
        decrement = -(slope_a * step_a).sum(axis=0) - slope_b * step_b
        converged |= ~stuck & (decrement <= tolerance * value)
        if (converged | stuck).all():
            break
        logits_step, step_size = x @ step_a + step_b, np.where(converged | stuck, 0.0, 1.0)
        for _ in range(_HALVINGS):
            new_value = _objective(signs, weights, a + step_size * step_a, logits + step_size * logits_step)
            rejected = new_value > value - 1e-4 * step_size * decrement
            rejected &= step_size > 0
            if not rejected.any():
                break
            step_size = np.where(rejected, step_size / 2, step_size)
        else:
            step_size, stuck = np.where(rejected, 0.0, step_size), stuck | rejected
        a, b = a + step_size * step_a, b + step_size * step_b
        logits = x @ a + b
        value = _objective(signs, weights, a, logits)
    return a, b, value, converged


def _newton_direction(
    x: np.ndarray, curvature: np.ndarray, squares: np.ndarray, slope_a: np.ndarray, slope_b: np.ndarray,
    active: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve H d = -slope by conjugate gradients, preconditioned with the diagonal of H, which is H itself for
    orthogonal features as long as the curvature is the same everywhere."""
    scale_a, scale_b = 1 + squares @ curvature, np.maximum(curvature.sum(axis=0), np.finfo(np.float64).tiny)
    a, b = np.zeros_like(slope_a), np.zeros_like(slope_b)
    residual_a, residual_b = np.where(active, -slope_a, 0), np.where(active, -slope_b, 0)
    direction_a, direction_b = residual_a / scale_a, residual_b / scale_b
    squared_residual = first_residual = (residual_a * direction_a).sum(axis=0) + residual_b * direction_b
    for _ in range(_MOST_DIRECTIONS):
        curved = curvature * (x @ direction_a + direction_b)
        product_a, product_b = direction_a + x.T @ curved, curved.sum(axis=0)
        step = _ratio(squared_residual, (direction_a * product_a).sum(axis=0) + direction_b * product_b)
        a, b = a + step * direction_a, b + step * direction_b
        residual_a, residual_b = residual_a - step * product_a, residual_b - step * product_b
        scaled_a, scaled_b = residual_a / scale_a, residual_b / scale_b
        previous, squared_residual = squared_residual, (residual_a * scaled_a).sum(axis=0) + residual_b * scaled_b
        if (squared_residual <= _FORCING * first_residual).all():
            break
        conjugacy = _ratio(squared_residual, previous)
        direction_a, direction_b = scaled_a + conjugacy * direction_a, scaled_b + conjugacy * direction_b
    return a, b


def _objective(signs: np.ndarray, weights: np.ndarray, a: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return np.square(a).sum(axis=0) / 2 + (weights * np.logaddexp(0, -signs * logits)).sum(axis=0)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
