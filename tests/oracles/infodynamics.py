"""Slow, obviously right information dynamics: two plain loops in float64, straight from the definitions."""

import numpy as np


def kullback_leibler(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) = sum p ln(p / q), in nats; 0 ln 0 = 0. p, q: (class,) float64."""
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / q[there])))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """1/2 KL(p || m) + 1/2 KL(q || m), m = (p + q) / 2, in nats. p, q: (class,), normalised here."""
    p, q = p / p.sum(), q / q.sum()
    mixture = (p + q) / 2
    return 0.5 * kullback_leibler(p, mixture) + 0.5 * kullback_leibler(q, mixture)


def jeffreys(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) + KL(q || p), in nats."""
    return kullback_leibler(p, q) + kullback_leibler(q, p)


MEASURES = {"jsd": jensen_shannon, "kl": kullback_leibler, "jeffreys": jeffreys}


def dynamics(
    probabilities: np.ndarray, window: int, measure: str = "jsd", fill: float = np.nan, partial_tail: bool = False
) -> dict[str, np.ndarray]:
    """Novelty, transience, resonance and their spreads in nats. probabilities: (example, class) float64."""
    rows = [row / row.sum() for row in np.asarray(probabilities, dtype=np.float64)]
    m, divergence = len(rows), MEASURES[measure]
    names = ("novelty", "transience", "resonance", "novelty_sd", "transience_sd", "resonance_sd")
    out = {name: np.full(m, fill) for name in names}
    for i in range(m):
        if i >= window:
            past = [divergence(rows[i], rows[i - k]) for k in range(1, window + 1)]
            out["novelty"][i], out["novelty_sd"][i] = np.mean(past), np.std(past)
        if i <= m - 1 - window:
            future = [divergence(rows[i], rows[i + k]) for k in range(1, window + 1)]
            out["transience"][i], out["transience_sd"][i] = np.mean(future), np.std(future)
        elif partial_tail:
            rest = [divergence(rows[i], rows[j]) for j in range(i + 1, m)]
            out["transience_sd"][i] = np.std(rest) if rest else 0.0
        if window <= i <= m - 1 - window:
            out["resonance"][i] = out["novelty"][i] - out["transience"][i]
            out["resonance_sd"][i] = (out["novelty_sd"][i] + out["transience_sd"][i]) / 2
    return out


def slope_and_r2(novelty: np.ndarray, resonance: np.ndarray) -> tuple[float, float]:
    """z-score both (population sd), regress without intercept: b = sum(x y) / sum(x^2), and R2 of that fit."""
    x = (novelty - np.mean(novelty)) / np.std(novelty)
    y = (resonance - np.mean(resonance)) / np.std(resonance)
    b = sum(a * c for a, c in zip(x, y, strict=True)) / sum(a * a for a in x)
    return float(b), float(1 - np.sum((y - b * x) ** 2) / np.sum((y - y.mean()) ** 2))


def cartography(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, float]]:
    """(confidence, variability, correctness) per example. probabilities: (step, example, class)."""
    found = []
    for example, label in enumerate(labels):
        gold = [row[example][label] / row[example].sum() for row in probabilities]
        right = [int(np.argmax(row[example])) == label for row in probabilities]
        found.append((float(np.mean(gold)), float(np.std(gold)), float(np.mean(right))))
    return found
