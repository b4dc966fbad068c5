"""Calibration the slow way: loops over examples and bins, exact fractions where edges matter, published optimiser."""

from fractions import Fraction

import numpy as np


def bins_of(values: np.ndarray, bins: int) -> list[list[int]]:
    """Numbers of the values in ((j - 1) / bins, j / bins]; exact rational comparison with the edges as float64."""
    members: list[list[int]] = [[] for _ in range(bins)]
    edges = [Fraction(k / bins) for k in range(bins + 1)]
    for i, value in enumerate(values):
        exact = Fraction(float(value))
        for j in range(bins):
            if edges[j] < exact <= edges[j + 1] or (j == 0 and exact == 0):
                members[j].append(i)
    return members


def errors(p: np.ndarray, y: np.ndarray, bins: int) -> dict[str, float]:
    """ece, mce, classwise_ece, brier, nll, confidence, accuracy by their definitions."""
    n, classes = p.shape
    confidence = [max(row) for row in p]
    right = [int(int(np.argmax(row)) == label) for row, label in zip(p, y, strict=True)]
    gaps = [(len(m), abs(sum(confidence[i] for i in m) / len(m) - sum(right[i] for i in m) / len(m)))
            for m in bins_of(np.array(confidence), bins) if m]
    classwise = []
    for k in range(classes):
        for m in bins_of(p[:, k], bins):
            if m:
                classwise.append(len(m) / n * abs(sum(p[i, k] for i in m) / len(m)
                                                  - sum(y[i] == k for i in m) / len(m)))
    return {"ece": sum(size / n * gap for size, gap in gaps), "mce": max(gap for _, gap in gaps),
            "classwise_ece": sum(classwise) / classes,
            "brier": sum((p[i, k] - (y[i] == k)) ** 2 for i in range(n) for k in range(classes)) / n,
            "nll": sum(-np.log(p[i, y[i]]) for i in range(n)) / n, "confidence": sum(confidence) / n,
            "accuracy": sum(right) / n}


def slope(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.longdouble:
    """Derivative of the mean loss by 1 / T, in extended precision."""
    z = np.asarray(logits, dtype=np.longdouble)
    total = np.longdouble(0)
    for row, label in zip(z, labels, strict=True):
        weights = np.exp((row - row.max()) / np.longdouble(temperature))
        total += (weights * row).sum() / weights.sum() - row[label]
    return total / len(z)


def temperature(logits: np.ndarray, labels: np.ndarray, low: float = 1e-4, high: float = 1e4) -> float:
    """The zero of the slope by bisection of log T in extended precision."""
    a, b = np.log(np.longdouble(low)), np.log(np.longdouble(high))
    for _ in range(90):
        middle = (a + b) / 2
        if slope(logits, labels, np.exp(middle)) > 0:  # more of 1 / T would raise the loss: T is larger
            a = middle
        else:
            b = middle
    return float(np.exp((a + b) / 2))


def adam_temperature(logits: np.ndarray, labels: np.ndarray, rate: float = 1e-3, patience: int = 10) -> float:
    """As published: Adam on T from 1, until the loss has not improved ten times in a row."""
    z, y, rows = np.asarray(logits, dtype=np.float64), labels, np.arange(len(labels))
    t, first, second, best, since = 1.0, 0.0, 0.0, np.inf, 0
    for step in range(1, 100_001):
        scaled = z / t
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        p = np.exp(scaled)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[rows, y]).mean()
        since = 0 if loss < best else since + 1
        best = min(best, loss)
        if since >= patience:
            break
        gradient = -((p * z).sum(axis=1) - z[rows, y]).mean() / t**2
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        t -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return t
