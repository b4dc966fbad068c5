"""Slow, obviously right probes: one problem at a time in float64, straight from the definitions."""

import numpy as np


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def objective(w: np.ndarray, X: np.ndarray, y: np.ndarray, l2: float, classes: int) -> tuple[float, np.ndarray]:
    """Mean cross-entropy + l2/2 |weights|^2 and its gradient; w: ((dim + 1) * class,), the last row being the free
    bias."""
    W = w.reshape(X.shape[1] + 1, classes)
    p = softmax(X @ W[:-1] + W[-1])
    gradient = np.vstack([X.T @ (p - np.eye(classes)[y]) / len(y) + l2 * W[:-1], (p - np.eye(classes)[y]).mean(axis=0)])
    return -np.mean(np.log(p[np.arange(len(y)), y])) + l2 / 2 * np.sum(W[:-1] ** 2), gradient.ravel()


def logistic(X: np.ndarray, y: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (dim, class) and bias (class,) for standardised features X (row, dim): Newton's method with the full
    Hessian."""
    n, classes = len(y), int(y.max()) + 1
    A = np.hstack([X, np.ones((n, 1))])
    penalty = np.kron(np.diag([*[l2] * X.shape[1], 0.0]), np.eye(classes))
    w = np.zeros(A.shape[1] * classes)
    value, gradient = objective(w, X, y, l2, classes)
    for _ in range(100):
        p = softmax(A @ w.reshape(-1, classes))
        hessian = penalty.copy()
        for a, q in zip(A, p, strict=True):
            hessian += np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q)) / n
        step = np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]  # a common shift of the biases changes nothing
        length = 1.0
        while objective(w - length * step, X, y, l2, classes)[0] > value + 1e-15 and length > 1e-6:
            length /= 2
        w = w - length * step
        value, gradient = objective(w, X, y, l2, classes)
        if np.abs(gradient).max() < 1e-12:
            break
    W = w.reshape(-1, classes)
    return W[:-1], W[-1] - W[-1].mean()


def standardise(X: np.ndarray) -> np.ndarray:
    deviation = X.std(axis=0)
    return (X - X.mean(axis=0)) * np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)


def macro_f1(predicted: np.ndarray, y: np.ndarray) -> float:
    found = []
    for k in sorted(set(predicted) | set(y)):
        hits = sum(1 for a, b in zip(predicted, y, strict=True) if a == b == k)
        found.append(2 * hits / (sum(predicted == k) + sum(y == k)))
    return float(np.mean(found))


def adam_head(X: np.ndarray, y: np.ndarray, parameters: list[np.ndarray], orders: list[np.ndarray], *, rate: float,
              batch: int, logits: str) -> list[np.ndarray]:
    """A head without dropout: parameters [out W, out b] or [dense W, dense b, out W, out b], trained by Adam on one
    problem.

    logits: "softmax" for one per class, "sigmoid" for a single one. Returns the parameters after the last order.
    """
    parameters = [p.astype(np.float64) for p in parameters]
    first, second = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
    t = 0
    for order in orders:
        for start in range(0, len(order), batch):
            rows = order[start:start + batch]
            for k, g in enumerate(_gradients(X[rows], y[rows], parameters, logits)):
                if k == 0:
                    t += 1
                first[k] = 0.9 * first[k] + 0.1 * g
                second[k] = 0.999 * second[k] + 0.001 * g**2
                size = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
                parameters[k] = parameters[k] - size * first[k] / (np.sqrt(second[k]) + 1e-7)
    return parameters


def _gradients(x: np.ndarray, y: np.ndarray, parameters: list[np.ndarray], logits: str) -> list[np.ndarray]:
    hidden = np.tanh(x @ parameters[0] + parameters[1]) if len(parameters) == 4 else x
    W, b = parameters[-2:]
    z = hidden @ W + b
    error = (softmax(z) - np.eye(z.shape[1])[y] if logits == "softmax" else 1 / (1 + np.exp(-z)) - y[:, None]) / len(y)
    out = [hidden.T @ error, error.sum(axis=0)]
    if len(parameters) == 2:
        return out
    back = (error @ W.T) * (1 - hidden**2)
    return [x.T @ back, back.sum(axis=0), *out]
