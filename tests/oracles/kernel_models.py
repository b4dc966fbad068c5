"""Kernel models and kernel statistics the slow and obvious way: loops over pairs, general solvers, float64."""

import numpy as np


def matrix(kernel: np.ndarray) -> np.ndarray:
    """Entry by entry: row n * classes + c, column m * classes + d."""
    rows, classes, columns, _ = kernel.shape
    found = np.zeros((rows * classes, columns * classes))
    for n in range(rows):
        for c in range(classes):
            for m in range(columns):
                for d in range(classes):
                    found[n * classes + c, m * classes + d] = kernel[n, c, m, d]
    return found


def block_nuclear_norms(kernel: np.ndarray) -> np.ndarray:
    rows, _, columns, _ = kernel.shape
    return np.array([[np.linalg.norm(kernel[n, :, m, :], ord="nuc") for m in range(columns)] for n in range(rows)])


def ft_ratio(pretrain_effective: np.ndarray, ft_effective: np.ndarray, delta: np.ndarray) -> float:
    ratios = []
    for n in range(len(ft_effective)):
        head = sum(pretrain_effective[n, :, i, :] @ delta[i] for i in range(len(delta)))
        encoder = sum(ft_effective[n, :, i, :] @ delta[i] for i in range(len(delta)))
        ratios.append(np.linalg.norm(encoder) / np.linalg.norm(head + encoder))
    return float(np.mean(ratios))


def label_alignment(kernel: np.ndarray, labels: np.ndarray) -> float:
    """Centring by the matrix H, alignment by the trace."""
    count = len(kernel)
    summed = np.array([[np.trace(kernel[n, :, m, :]) for m in range(count)] for n in range(count)])
    same = np.array([[float(a == b) for b in labels] for a in labels])
    h = np.eye(count) - np.ones((count, count)) / count
    k, y = h @ summed @ h, h @ same @ h
    return float(np.trace(k @ y.T) / np.sqrt(np.trace(k @ k.T) * np.trace(y @ y.T)))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    a, b = matrix(first), matrix(second)
    return float(1 - np.trace(a @ b.T) / np.sqrt(np.trace(a @ a.T) * np.trace(b @ b.T)))


def logistic(features: np.ndarray, targets: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """argmin 1/2 |a|^2 + strength * sum of cross-entropies of sigmoid(features a + b): a general minimiser of scipy."""
    from scipy.optimize import minimize

    signs = 2 * targets - 1

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (features @ point[:-1] + point[-1])
        slopes = -strength * signs / (1 + np.exp(margins))
        value = 0.5 * point[:-1] @ point[:-1] + strength * np.logaddexp(0, -margins).sum()
        return value, np.concatenate([point[:-1] + features.T @ slopes, [slopes.sum()]])

    found = minimize(objective, np.zeros(features.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x[:-1], float(found.x[-1])


def asymmetric(matrix_: np.ndarray, labels: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """alpha and beta of [[I / gamma, H], [H^T, I / gamma]] [alpha; beta] = 1 with H_ij = y_i K_ij y_j."""
    count = len(labels)
    system = np.zeros((2 * count, 2 * count))
    for i in range(count):
        system[i, i] = system[count + i, count + i] = 1 / gamma
        for j in range(count):
            system[i, count + j] = labels[i] * matrix_[i, j] * labels[j]
            system[count + j, i] = labels[i] * matrix_[i, j] * labels[j]
    found = np.linalg.solve(system, np.ones(2 * count))
    return found[:count], found[count:]
