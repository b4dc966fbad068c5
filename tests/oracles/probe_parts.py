"""Slow, obviously right networks and description lengths: one model at a time in float64, straight from the
definitions."""

from itertools import pairwise

import numpy as np
from tests.oracles.probes import logistic, softmax, standardise


def mlp(X: np.ndarray, y: np.ndarray, hidden: tuple[int, ...], l2: float, seed: int, epochs: int) -> tuple[list,
                                                                                                           list[float]]:
    """A ReLU network with one softmax output per class (three or more), trained by Adam on mini-batches of 200.

    Returns [(weights, bias)] of the layers and the loss of each epoch; stops as the definition says.
    """
    draw, n, classes = np.random.RandomState(seed), len(y), int(y.max()) + 1
    layers = []
    for a, b in zip((X.shape[1], *hidden), (*hidden, classes), strict=True):
        limit = np.sqrt(6 / (a + b))
        layers.append([draw.uniform(-limit, limit, (a, b)), draw.uniform(-limit, limit, b)])
    moments = [[(0 * p, 0 * p) for p in layer] for layer in layers]
    order, t, losses, best, waited = np.arange(n), 0, [], np.inf, 0
    for _ in range(epochs):
        shuffle = np.arange(n)
        draw.shuffle(shuffle)
        order, total = order[shuffle], 0.0
        for start in range(0, n, 200):
            rows = order[start:start + 200]
            a = [X[rows].astype(np.float64)]
            for W, b in layers[:-1]:
                a.append(np.maximum(a[-1] @ W + b, 0))
            p = softmax(a[-1] @ layers[-1][0] + layers[-1][1])
            total += -np.log(p[np.arange(len(rows)), y[rows]]).sum() + l2 / 2 * sum((W**2).sum() for W, _ in layers)
            error, gradients = p - np.eye(classes)[y[rows]], []
            for (W, _), inputs in zip(layers[::-1], a[::-1], strict=True):
                gradients.insert(0, [(inputs.T @ error + l2 * W) / len(rows), error.mean(axis=0)])
                error = (error @ W.T) * (inputs > 0)
            t += 1
            for layer, moment, gradient in zip(layers, moments, gradients, strict=True):
                for k, g in enumerate(gradient):
                    m, v = moment[k]
                    moment[k] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                    layer[k] = layer[k] - 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        losses.append(total / n)
        waited = waited + 1 if losses[-1] > best - 1e-4 else 0
        best = min(best, losses[-1])
        if waited > 10:
            break
    return layers, losses


def online_code(X: np.ndarray, y: np.ndarray, ends: list[int], l2: float, seed: int) -> float:
    """Bits of the labels, block by block and row by row; X (row, dim), y in 0 .. classes-1, all present."""
    classes = int(y.max()) + 1
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = X[order].astype(np.float64), y[order]
    bits = ends[0] * np.log2(classes)
    for start, end in pairwise(ends):
        seen = sorted(set(y[:start].tolist()))
        fitted = 1 < len(seen) < start
        if fitted:
            known = standardise(X[:start])
            W, b = logistic(known, np.searchsorted(seen, y[:start]), l2)
            deviation = X[:start].std(axis=0)
            scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
            p = softmax((X[start:end] - X[:start].mean(axis=0)) * scale @ W + b)
        for row in range(start, end):
            if not fitted:
                share = (np.sum(y[:start] == y[row]) + 1) / (start + classes)
            elif y[row] in seen:
                share = p[row - start, seen.index(y[row])] * (1 - (classes - len(seen)) / (start + classes))
            else:
                share = 1 / (start + classes)
            bits -= np.log2(share)
    return float(bits)
