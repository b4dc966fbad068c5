"""Slow, obviously right geometry of token and sentence vectors: plain loops in float64, straight from the
definitions."""

import math

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """<a, b> / (|a| |b|); 0 when one is zero."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.dot(a, b) / lengths) if lengths > 0 else 0.0


def cosine_pairs(tokens: np.ndarray) -> np.ndarray:
    """(pair,) cosines for i < j, row-major: the double loop of the original study."""
    return np.array([cosine(tokens[i], tokens[j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens))])


def covariance_trace(tokens: np.ndarray, ddof: int = 1) -> float:
    """Trace of the whole (dim, dim) covariance matrix."""
    return float(np.trace(np.atleast_2d(np.cov(tokens.T, ddof=ddof))))


def effective_rank(tokens: np.ndarray, centre: bool = False, squared: bool = False) -> float:
    """exp of the entropy of the singular values, or of their squares, from a full SVD."""
    tokens = tokens - tokens.mean(axis=0) if centre else tokens
    values = np.linalg.svd(tokens)[1] ** (2 if squared else 1)
    p = values / values.sum()
    return math.exp(-sum(x * math.log(x) for x in p if x > 1e-14))


def covariance_eigenvalues(tokens: np.ndarray) -> np.ndarray:
    return np.clip(np.linalg.eigvalsh(np.atleast_2d(np.cov(tokens.T))), 0, None)


def participation_ratio(tokens: np.ndarray) -> float:
    values = covariance_eigenvalues(tokens)
    return float(values.sum() ** 2 / np.square(values).sum())


def iso_score(tokens: np.ndarray) -> float:
    """The steps of Rudman et al. (2022), algorithm 1: variances along principal axes, normalised, their distance to
    all ones."""
    variances = covariance_eigenvalues(tokens)
    n = len(variances)
    normalised = math.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - np.ones(n)) / math.sqrt(2 * (n - math.sqrt(n)))
    used = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return float((n * used - 1) / (n - 1))


def two_nn(points: np.ndarray, discard: float = 0.1) -> float:
    """Facco et al. (2017): r2 / r1 of every point, sorted, empirical distribution i / N, line through the origin."""
    ratios = []
    for i, point in enumerate(points):
        others = sorted(float(np.linalg.norm(point - other)) for j, other in enumerate(points) if j != i)
        ratios.append(others[1] / others[0])
    ratios.sort()
    count, top, bottom = len(ratios), 0.0, 0.0
    for i in range(1, int(count * (1 - discard)) + 1):
        if i == count:  # F = 1
            break
        x, y = math.log(ratios[i - 1]), -math.log(1 - i / count)
        top, bottom = top + x * y, bottom + x * x
    return top / bottom


def anisotropy(tokens: np.ndarray, sentences: np.ndarray) -> float:
    """Mean cosine over all pairs of tokens of different sentences."""
    return float(np.mean([cosine(tokens[i], tokens[j]) for i in range(len(tokens)) for j in range(i)
                          if sentences[i] != sentences[j]]))


def intra_sentence_similarity(tokens: np.ndarray) -> float:
    mean = tokens.mean(axis=0)
    return float(np.mean([cosine(token, mean) for token in tokens]))


def self_similarity(tokens: np.ndarray, token_ids: np.ndarray, sentences: np.ndarray, contexts: int) -> list[float]:
    """Per type found in enough sentences, ascending: mean cosine of its occurrences in different sentences."""
    found = []
    for kind in np.unique(token_ids):
        where = np.flatnonzero(token_ids == kind)
        if len(set(sentences[where].tolist())) >= contexts:
            found.append(float(np.mean([cosine(tokens[i], tokens[j]) for i in where for j in where
                                        if sentences[i] != sentences[j]])))
    return found


def cones(vectors: np.ndarray, labels: np.ndarray, units: bool = True) -> dict[str, object]:
    """Pairwise and scatter measures of classes, pair by pair."""
    classes = np.unique(labels)
    rows = range(len(vectors))
    similarity = [[np.mean([cosine(vectors[i], vectors[j]) for i in rows for j in rows
                            if i != j and labels[i] == a and labels[j] == b]) for b in classes] for a in classes]
    same = [cosine(vectors[i], vectors[j]) for i in rows for j in range(i) if labels[i] == labels[j]]
    other = [cosine(vectors[i], vectors[j]) for i in rows for j in range(i) if labels[i] != labels[j]]
    plain = [vectors[labels == c].mean(axis=0) for c in classes]
    means = [np.mean([v / np.linalg.norm(v) for v in vectors[labels == c]], axis=0)
             for c in classes] if units else plain
    angles = [math.degrees(math.acos(cosine(means[a], means[b]))) for a in range(len(classes)) for b in range(a)]
    between = sum(np.sum(labels == c) * np.sum((m - vectors.mean(axis=0)) ** 2)
                  for c, m in zip(classes, plain, strict=True))
    within = sum(np.sum((v - plain[list(classes).index(c)]) ** 2) for v, c in zip(vectors, labels, strict=True))
    return {"similarity": np.array(similarity), "within": np.mean(same), "between": np.mean(other),
            "angle": np.mean(angles), "scatter_ratio": between / within}
