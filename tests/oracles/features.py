"""Feature change the slow way: all pairs, scatter matrices written out, numpy's own pseudo-inverse."""

import itertools

import numpy as np


def cosine(features: np.ndarray, diagonal: bool = False) -> float:
    pairs = itertools.product(range(len(features)), repeat=2)
    values = [features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])
              for i, j in pairs if diagonal or i != j]
    return float(np.mean(values))


def scatter(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S_W and S_B: (dim, dim) each."""
    dim = features.shape[1]
    within, between, mean = np.zeros((dim, dim)), np.zeros((dim, dim)), features.mean(axis=0)
    for k in set(labels.tolist()):
        members = features[labels == k]
        centre = members.mean(axis=0)
        for x in members:
            within += np.outer(x - centre, x - centre)
        between += len(members) * np.outer(centre - mean, centre - mean)
    return within, between


def fisher(features: np.ndarray, labels: np.ndarray, rcond: float, ridge: float) -> tuple[float, float]:
    """With the pseudo-inverse, and with the ridge."""
    within, between = scatter(features, labels)
    shrink = ridge * np.trace(within) / len(within) * np.eye(len(within))
    return (float(np.trace(np.linalg.pinv(within, rcond=rcond, hermitian=True) @ between)),
            float(np.trace(np.linalg.solve(within + shrink, between))))
