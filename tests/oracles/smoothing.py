"""Slow, obviously right smoothing, fractal analysis and change points: one entry at a time."""

import math

import numpy as np


def detrend(y: np.ndarray, window_length: int, order: int = 1) -> np.ndarray:
    """Trend of adaptive detrending, entry by entry, every polynomial fitted on its own with numpy.polyfit."""
    n, last = window_length // 2, len(y) - 1
    segments = max(last // n - 1, 0)

    def fit(j: int, at: int) -> float:
        start, stop = j * n, (j * n + 2 * n if j < segments else last)
        x = np.arange(start, stop + 1)
        centre = x.mean()
        degree = min(order, len(x) - 1)
        return float(np.polyval(np.polyfit(x - centre, y[start : stop + 1], degree), at - centre))

    trend = np.empty(len(y))
    for t in range(len(y)):
        j = t // n - 1  # window that entry t leaves while it enters window j + 1
        if j < 0:
            trend[t] = fit(0, t)
        elif j >= segments:
            trend[t] = fit(segments, t)
        else:
            share = (t - (j + 1) * n) / n
            trend[t] = (1 - share) * fit(j, t) + share * fit(j + 1, t)
    return trend


def gaussian(y: np.ndarray, sigma: float) -> np.ndarray:
    """Weighted mean over the whole series for every entry."""
    out = []
    for s in range(len(y)):
        weights = [math.exp(-((t - s) ** 2) / (2 * sigma**2)) for t in range(len(y))]
        out.append(sum(w * v for w, v in zip(weights, y, strict=True)) / sum(weights))
    return np.array(out)


def moving_average(y: np.ndarray, n: int) -> np.ndarray:
    return np.array([np.mean(y[j : j + n]) for j in range(len(y) - n + 1)])


def fluctuation(signal: np.ndarray, window_length: int, order: int, q: float) -> float:
    profile = np.cumsum(signal - np.mean(signal))
    residual = np.abs(profile - detrend(profile, window_length, order))
    return float((np.sum(residual**q) / (len(signal) - 1)) ** (1 / q))


def change_points(y: np.ndarray, penalty: float, shortest: int) -> tuple[list[int], float]:
    """The cheapest segmentation by the full dynamic programme over every start, without pruning; with its cost."""
    best: list[float] = [-penalty] + [math.inf] * len(y)
    previous = [0] * (len(y) + 1)
    for end in range(shortest, len(y) + 1):
        for start in range(0, end - shortest + 1):
            if best[start] == math.inf:
                continue
            cost = best[start] + float(np.sum((y[start:end] - np.mean(y[start:end])) ** 2)) + penalty
            if cost < best[end]:
                best[end], previous[end] = cost, start
    changes, at = [], len(y)
    while previous[at] > 0:
        at = previous[at]
        changes.append(at)
    return changes[::-1], best[len(y)]
