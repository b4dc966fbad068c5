"""Intervals of the binned calibration errors ECE and MCE, which are sums of absolute values. Pure.

Noise in a bin adds to an absolute value, whatever its sign, so that near perfect calibration the measured error lies
above the true one, and intervals around it (jackknife, bootstrap) leave the truth out. Instead, a test is turned
around: the interval holds the errors under which a value like the measured one would not be extreme.
"""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
ROUNDS = 20  # of halving: the ends are known to a millionth


@dataclass(frozen=True)
class Bins:
    """The filled bins. share: (bin,) of the examples;  gaps: (bin,) mean confidence minus accuracy;  sd: (bin,) the
    standard error of a gap."""

    share: np.ndarray
    gaps: np.ndarray
    sd: np.ndarray


def filled_bins(place: np.ndarray, confidence: np.ndarray, right: np.ndarray, units: np.ndarray) -> Bins:
    """`Bins` from examples: place (example,) int, the bin of each;  confidence, right: (example,) float64;  units:
    (example,) int, examples of one unit depend on each other.

    The standard error is that of a share, drawn towards the mean confidence by two examples, because a bin may hold a
    single one; it is raised by the design effect of the units over all bins (Kish 1965), never lowered.
    """
    _, place = np.unique(place, return_inverse=True)
    count = np.bincount(place).astype(np.float64)
    mean, rights = np.bincount(place, confidence) / count, np.bincount(place, right)
    gaps = mean - rights / count
    rate = (rights + 2 * mean) / (count + 2)
    residuals = confidence - right - gaps[place]
    alone = float(np.square(residuals).sum())
    together = float(np.square(np.bincount(np.unique(units, return_inverse=True)[1], residuals)).sum())
    effect = max(1.0, together / alone) if alone > 0 else 1.0
    return Bins(count / count.sum(), gaps, np.sqrt(effect * rate * (1 - rate) / count))


def error_interval(bins: Bins, statistic: str, *, draws: int = 400, seed: int = 0) -> tuple[float, float]:
    """Interval of `ece` (mean of the absolute gaps) or `mce` (the largest), both in [0, 1].

    Errors are tried as multiples of a pattern of gaps; one is in the interval when the measured error lies within the
    middle 95 % of errors with normal noise in each bin. The pattern lies half way between the measured gaps and equal
    ones, with the measured signs, or that of all examples where a gap is within its standard error: measured gaps alone
    hold their noise already. The low end is 0 where the measured error is no more than noise gives.
    """
    noise = np.random.default_rng(seed).standard_normal((draws, len(bins.gaps))) * bins.sd

    def error(gaps: np.ndarray) -> np.ndarray:
        sizes = np.abs(gaps)
        return sizes.max(axis=-1) if statistic == "mce" else sizes @ bins.share

    measured = float(error(bins.gaps))
    signs = np.where(np.abs(bins.gaps) > bins.sd, np.sign(bins.gaps), np.sign(bins.gaps @ bins.share))
    pattern = signs * (np.abs(bins.gaps) + measured) / 2
    unit = float(error(pattern))

    def end(quantile: float) -> float:
        low, high = 0.0, 1.0
        if unit == 0 or np.quantile(error(noise), quantile) >= measured:
            return 0.0
        while np.quantile(error(high * pattern + noise), quantile) < measured:
            high *= 2
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            below = np.quantile(error(middle * pattern + noise), quantile) < measured
            low, high = (middle, high) if below else (low, middle)
        return high * unit

    return min(1.0, end((1 + LEVEL) / 2)), min(1.0, end((1 - LEVEL) / 2))
