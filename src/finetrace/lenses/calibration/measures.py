"""Calibration: do the probabilities of a classifier mean what they say? And temperature scaling. Pure.

Guo et al. (2017), "On Calibration of Modern Neural Networks". The confidence of an example is the largest of its
probabilities.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetrace.lenses.calibration.error_intervals import error_interval, filled_bins
from finetrace.lenses.intervals import groups_of, jackknife_interval, share_interval

MOST_ROUNDS = 200  # of the search for the temperature; bisection alone needs about 60
SHARPEST, FLATTEST = 1e-2, 1e3  # bounds of the temperature, in units of the logits' root mean square


@dataclass(frozen=True)
class Calibration:
    """Measures of one set of predictions, and the bins behind ece and mce. All are shares, but nll."""

    ece: float
    """Expected calibration error: mean over examples of |confidence - accuracy| of their bin; 0 is calibrated, at most
    1."""
    mce: float
    """Maximum calibration error: the same of the worst bin that holds an example, however few; never below ece. Its
    95 % interval holds the truth in 85 % of samples only where all bins err alike by 0.2 (`benchmarks/coverage.py`)."""
    adaptive_ece: float
    """ece with as many bins of equally many examples each, so that no bin is nearly empty."""
    classwise_ece: float
    """Mean over classes of the ece of that class's probability against how often the class is the true one (Kull et al.
    2019)."""
    brier: float
    """Mean squared distance to the one-hot label, summed over classes: 0 is perfect, 2 certain and wrong."""
    brier_mean: float
    """brier / classes: the mean over classes instead of the sum."""
    nll: float
    """Mean negative log-likelihood of the true class in nats: ln(classes) for equal probabilities."""
    confidence: float
    """Mean confidence: 1 / classes for equal probabilities."""
    accuracy: float
    """Share of examples whose likeliest class is the true one (of equal classes the first)."""
    edges: np.ndarray
    """(bin + 1,) float64: bin j holds the confidences in (edges[j], edges[j + 1]]."""
    counts: np.ndarray
    """(bin,) int64 examples."""
    bin_confidence: np.ndarray
    """(bin,) float64 mean confidence; NaN without examples."""
    bin_accuracy: np.ndarray
    """(bin,) float64 accuracy; NaN without examples."""


@dataclass(frozen=True)
class Temperature:
    """The temperature by which logits are divided, and whether the search ended at a bound of its range."""

    value: float
    bound: Literal["", "low", "high", "flat"]
    """low: the sharper, the better, as where every example is classified rightly;  high: the flatter, the better, as
    where the logits tell nothing about the labels;  flat: all logits of an example are equal, and no temperature
    changes them."""


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Calibration:
    """Measures of calibration with `bins` bins of equal width, open on the left and closed on the right (Naeini et al.
    2015).

    probabilities: (example, class) float whose rows sum to 1;  labels: (example,) int, 0 .. class - 1. A perfect,
    certain classifier gets 0 in all errors. Raises ValueError for shapes that do not fit, no examples, NaN, rows that
    are no distributions, or labels that are no classes.
    """
    p, y = _checked(probabilities, labels, bins)
    confidence, right = p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64)
    counts, gaps = _bins(confidence, confidence - right, bins)
    _, confidences = _bins(confidence, confidence, bins)
    _, rights = _bins(confidence, right, bins)
    filled = counts > 0
    brier = float(_squared_errors(p, y).mean())
    return Calibration(
        ece=float(np.abs(gaps).sum() / len(y)), mce=float((np.abs(gaps[filled]) / counts[filled]).max()),
        adaptive_ece=_adaptive_ece(confidence, right, bins), classwise_ece=_classwise_ece(p, y, bins), brier=brier,
        brier_mean=brier / p.shape[1], nll=float(_surprise(p, y).mean()), confidence=float(confidence.mean()),
        accuracy=float(right.mean()), edges=bin_edges(bins), counts=counts,
        bin_confidence=_quotient(confidences, counts), bin_accuracy=_quotient(rights, counts))


def intervals(probabilities: np.ndarray, labels: np.ndarray, units: np.ndarray | None = None, *, bins: int = 15,
              groups: int = 20, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of ece, mce, brier, nll, confidence and accuracy: name -> (low, high); NaN with fewer than two
    units.

    units: (example,) int, what is independent, e.g. the sentence of each example; by default every example. The
    jackknife over `groups` groups of units; for the accuracy `share_interval`, for ece and mce `error_interval`.
    """
    p, y = _checked(probabilities, labels, bins)
    _, unit = np.unique(np.arange(len(y)) if units is None else np.asarray(units), return_inverse=True)
    number = int(unit.max()) + 1
    group = groups_of(number, groups, seed)[unit]
    count = int(group.max()) + 1
    confidence, right = p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64)
    low, high = share_interval(right, unit)
    ends = {"accuracy": (float(low), float(high))}
    if count < 2:
        return ends | dict.fromkeys(("ece", "mce", "brier", "nll", "confidence"), (float("nan"), float("nan")))
    measured, filled = calibration(p, y, bins), filled_bins(_bin_of(confidence, bins), confidence, right, unit)
    ends |= {name: error_interval(filled, name, seed=seed) for name in ("ece", "mce")}
    examples, left_out = len(y) - np.bincount(group, minlength=count), {}
    for name, values in (("brier", _squared_errors(p, y)), ("nll", _surprise(p, y)), ("confidence", confidence)):
        with np.errstate(invalid="ignore"):  # an infinite nll has no interval
            left_out[name] = (values.sum() - np.bincount(group, values, minlength=count)) / examples
    upper_bounds = {"brier": 2.0, "nll": np.inf}
    for name, values in left_out.items():
        low, high = jackknife_interval(getattr(measured, name), values)
        ends[name] = float(np.maximum(low, 0)), float(np.minimum(high, upper_bounds.get(name, 1.0)))
    return ends


def probabilities_of(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / temperature): (example, class) float64 whose rows sum to 1."""
    z = _logits(logits) / temperature
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of -ln softmax(logits / temperature)[label] in nats: finite also where the probability itself rounds to
    0."""
    z = _logits(logits) / temperature
    z = z - z.max(axis=1, keepdims=True)
    y = _labels(labels, *z.shape)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that minimises the negative log-likelihood of softmax(logits / T); see `temperature`."""
    return temperature(logits, labels).value


def temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """Temperature scaling (Guo et al. 2017, section 4.2) to machine precision.

    logits: (example, class) float;  labels: (example,) int. Above 1: the classifier was too sure of itself. Scaling
    changes no decision, never raises the likelihood's loss on these examples, and logits times c give T times c. The
    loss is convex in 1 / T, so its slope has one zero, found by Newton's method inside a shrinking bracket. T stays
    within 1/100 and 1000 times the root mean square of the logits (less their mean over classes), or 1 where that is
    further out: without a bound, examples that are all classified rightly, as in a small set, would give T = 0. Raises
    ValueError for shapes that do not fit.
    """
    z = _logits(logits)
    y = _labels(labels, *z.shape)
    if not np.ptp(z, axis=1).any():
        return Temperature(1.0, "flat")
    z = z - z.mean(axis=1, keepdims=True)
    scale = float(np.sqrt(np.square(z).mean()))
    z = z / scale  # from here on, logits of unit size; 1 / T is looked for in units of 1 / scale
    low, high = min(1 / FLATTEST, scale), max(1 / SHARPEST, scale)
    true = z[np.arange(len(y)), y]
    if _slope(z, true, low)[0] >= 0:
        return Temperature(scale / low, "high")
    if _slope(z, true, high)[0] <= 0:
        return Temperature(scale / high, "low")
    inverse = min(max(scale, low), high)
    for _ in range(MOST_ROUNDS):
        slope, curvature = _slope(z, true, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        following = inverse - slope / curvature if curvature > 0 else np.inf
        if not low < following < high:
            following = np.sqrt(low * high)
        if abs(following - inverse) <= 4e-16 * inverse:
            break
        inverse = following
    return Temperature(scale / inverse, "")


def bin_edges(bins: int) -> np.ndarray:
    """(bin + 1,) float64 k / bins, each rounded once, so that a confidence of exactly k / bins meets its edge."""
    return np.arange(bins + 1) / bins


def _slope(z: np.ndarray, true: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean loss by 1 / T: what the model expects of the logit less the true
    one's."""
    weights = np.exp(inverse * (z - z.max(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = (weights * z).sum(axis=1)
    return float((mean - true).mean()), float((weights * np.square(z - mean[:, None])).sum(axis=1).mean())


def _bin_of(values: np.ndarray, bins: int) -> np.ndarray:
    """(example,) int64 bin of each value in [0, 1]; 0 itself is in the first one."""
    return np.maximum(np.searchsorted(bin_edges(bins), values, side="left") - 1, 0)


def _bins(values: np.ndarray, weights: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(bin,) int64 examples and (bin,) float64 sums of the weights."""
    place = _bin_of(values, bins)
    return np.bincount(place, minlength=bins), np.bincount(place, weights, minlength=bins)


def _adaptive_ece(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Equal confidences share their accuracy, so that the order of the examples does not matter."""
    _, tie, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    shared = (np.bincount(tie, right) / sizes)[tie]
    order = np.argsort(confidence, kind="stable")
    gaps = [abs((confidence[part] - shared[part]).sum()) for part in np.array_split(order, min(bins, len(order)))]
    return float(sum(gaps) / len(order))


def _classwise_ece(p: np.ndarray, y: np.ndarray, bins: int) -> float:
    classes = p.shape[1]
    return float(sum(np.abs(_bins(p[:, k], p[:, k] - (y == k), bins)[1]).sum()
                     for k in range(classes)) / len(y) / classes)


def _squared_errors(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    true = p[np.arange(len(y)), y]
    return np.square(p).sum(axis=1) - 2 * true + 1


def _surprise(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # infinity where the true class had probability 0
        return np.maximum(-np.log(p[np.arange(len(y)), y]), 0.0)


def _quotient(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _checked(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    p = _matrix(probabilities, "probabilities")
    if bins < 1:
        raise ValueError(f"bins: {bins} is less than 1")
    if p.min() < -1e-6 or p.max() > 1 + 1e-6 or np.abs(p.sum(axis=1) - 1).max() > 1e-4:
        worst = int(np.argmax(np.abs(p.sum(axis=1) - 1)))
        raise ValueError(f"probabilities: rows must be in [0, 1] and sum to 1; row {worst} sums to {p[worst].sum():g} "
                         "(give logits to probabilities_of first)")
    return np.clip(p, 0.0, 1.0), _labels(labels, *p.shape)


def _logits(logits: np.ndarray) -> np.ndarray:
    return _matrix(logits, "logits")


def _matrix(values: np.ndarray, name: str) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.shape[0] or matrix.shape[1] < 2:
        raise ValueError(f"{name}: have shape {matrix.shape}; (example, class) with an example and two classes is "
                         "needed")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: row {int(np.argmin(np.isfinite(matrix).all(axis=1)))} holds NaN or infinity")
    return matrix


def _labels(labels: np.ndarray, rows: int, classes: int) -> np.ndarray:
    y = np.asarray(labels)
    if y.shape != (rows,):
        raise ValueError(f"labels: have shape {y.shape} instead of ({rows},)")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels: must be whole numbers from 0 to {classes - 1}, one class each")
    return y
