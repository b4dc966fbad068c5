"""Confidence intervals with the sentence (or whatever the first axis counts) as the unit of resampling."""

from typing import Any

import numpy as np

LEVEL = 0.95


def bootstrap_weights(items: int, draws: int, seed: int) -> np.ndarray:
    """How often each item is drawn in each resample with replacement: (draw, item) float64, rows sum to `items`.

    One matrix serves every statistic of the same items, so that differences between statistics are paired.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)


def bootstrap_mean(values: np.ndarray, weights: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of the mean over items (Efron 1979).

    values: (item, ...) float; NaN marks an item without a value;  weights: (draw, item) of `bootstrap_weights`.
    Returns low and high of shape (...); NaN where fewer than two items have a value.
    """
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    finite = np.isfinite(flat)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(finite, flat, 0.0)) / (weights @ finite.astype(np.float64))
    enough = finite.sum(axis=0) >= 2
    low, high = _percentiles(means, level)
    shape = values.shape[1:]
    return np.where(enough, low, np.nan).reshape(shape), np.where(enough, high, np.nan).reshape(shape)


def percentile_interval(draws: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Central interval of resampled statistics: (draw, ...) -> low (...), high (...); NaN draws are left out."""
    draws = np.asarray(draws, dtype=np.float64)
    low, high = _percentiles(draws.reshape(len(draws), -1), level)
    return low.reshape(draws.shape[1:]), high.reshape(draws.shape[1:])


def jackknife_interval(value: Any, left_out: np.ndarray, level: float = LEVEL) -> tuple[Any, Any]:
    """Interval of statistics from their values with one group of items left out each time (delete-a-group jackknife).

    value: (...) with all items;  left_out: (group, ...) with each of the groups of equal size left out.
    Returns value -+ t(level, groups - 1) standard errors (Kott 2001), each (...): the bootstrap would repeat points,
    which lowers ranks and raises similarities. NaN with fewer than two groups.
    """
    from scipy.special import stdtrit  # Student's t; scipy.stats takes longer to import than most lenses to compute

    if len(left_out) < 2:
        return value * np.nan, value * np.nan
    half = stdtrit(len(left_out) - 1, (1 + level) / 2) * jackknife_error(left_out)
    return value - half, value + half


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """Standard errors (...) of statistics by the delete-a-group jackknife; left_out: (group, ...)."""
    left_out = np.asarray(left_out, dtype=np.float64)
    groups = len(left_out)
    return np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))


def difference_interval(value: Any, left_out: np.ndarray, count: Any, level: float = LEVEL) -> tuple[Any, Any]:
    """Interval of the difference of two shares of the same units, each (...), in [-1, 1].

    value: (...);  left_out: (unit, ...) with each unit left out;  count: (...) decisions behind each share. The
    jackknife's; as Agresti and Min (2005) do for shares, half a decision is added in each direction, so that no
    difference in few units is not taken for certainty (where both shares are 1, say). NaN with fewer than two units.
    """
    from scipy.special import stdtrit

    if len(left_out) < 2:
        return value * np.nan, value * np.nan
    quantile = float(stdtrit(len(left_out) - 1, (1 + level) / 2))
    half = quantile * np.hypot(jackknife_error(left_out) * count, 1) / (count + 2)
    middle = value * count / (count + 2)
    return np.maximum(middle - half, -1.0), np.minimum(middle + half, 1.0)


def groups_of(items: int, groups: int, seed: int) -> np.ndarray:
    """A random group 0 .. groups-1 for each item, of sizes that differ by at most one: (item,) int64."""
    return np.random.default_rng(seed).permutation(np.arange(items) % max(1, min(groups, items)))


def wilson_interval(right: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson (1927) score interval of a share: `right` of `total` examples; both ends in [0, 1]."""
    from scipy.special import ndtri

    if total < 1:
        return float("nan"), float("nan")
    low, high = score_interval(right / total, total, ndtri((1 + level) / 2))
    return float(low), float(high)


def share_interval(right: np.ndarray, units: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the share of items that are right, where items of one unit (words of one sentence) depend on each
    other.

    right: (..., item) bool or 0 and 1;  units: (item,) int, the unit of each item. Returns low and high, each (...),
    in [0, 1]. With a unit per item the interval of Wilson (1927); else that of the `counted_interval` of units, which
    at 0 and 1, where nothing says how much items depend on each other, takes them as independent: it has a width there
    too.
    """
    right = np.asarray(right, dtype=np.float64)
    _, unit = np.unique(units, return_inverse=True)
    sizes = np.bincount(unit)
    sums = np.zeros((*right.shape[:-1], len(sizes)))
    np.add.at(sums.reshape(-1, len(sizes)).T, unit, right.reshape(-1, right.shape[-1]).T)
    return counted_interval(sums, np.broadcast_to(sizes.astype(np.float64), sums.shape), level)


def counted_interval(right: np.ndarray, total: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of a share sum(right) / sum(total) over independent units (Wilson 1927; Rao and Scott 1992).

    right, total: (..., unit) float64, what is right of each unit and what there is. The number of examples in Wilson's
    formula is the one that independent examples would need for the variance found between units (the ratio
    estimator's), and the quantile is Student's t with a degree of freedom less than units, or the normal one where
    each unit is one example. Low and high (...).
    """
    from scipy.special import ndtri, stdtrit

    right, total = np.asarray(right, dtype=np.float64), np.asarray(total, dtype=np.float64)
    units, summed = right.shape[-1], total.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = right.sum(axis=-1) / summed
        between = (np.square(right - share[..., None] * total).sum(axis=-1) * (units / max(1, units - 1))
                   / np.square(summed))
        single = (total == 1).all(axis=-1)
        defined = (between > 0) & ~single
        count = np.where(defined, share * (1 - share) / np.where(defined, between, 1), summed)
        units_quantile = stdtrit(units - 1, (1 + level) / 2) if units > 1 else np.nan
        return score_interval(share, count, np.where(single, ndtri((1 + level) / 2), units_quantile))


def score_interval(share: Any, count: Any, quantile: Any) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's (1927) interval of shares of `count` examples at a quantile of the normal or of Student's distribution;
    all (...), ends in [0, 1]."""
    square = quantile * quantile
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = quantile / (1 + square / count) * np.sqrt(share * (1 - share) / count + square / (4 * count * count))
    low, high = np.minimum(centre - half, share), np.maximum(centre + half, share)  # at 0 and 1 rounding may cross
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def mean_of_parts(means: np.ndarray, items: np.ndarray, variances: np.ndarray | None = None, level: float = LEVEL
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the unweighted mean of the means of independent parts, whose items lie in 0 .. 1: low, high (...).

    means: (part, ...);  items: (part,) how many each has;  variances: (part, ...) of the means, NaN of a single item;
    None for shares, whose items are 0 or 1. Of one share the interval of Wilson (1927). Otherwise his formula with as
    many items as a share would need for the variance of the mean, and Student's t with a degree of freedom less per
    part; it has a width also where nothing varies.
    """
    from scipy.special import ndtri, stdtrit

    means, items = np.asarray(means, dtype=np.float64), np.asarray(items, dtype=np.float64)
    if variances is None:
        if len(means) == 1:
            return score_interval(means[0], items[0], ndtri((1 + level) / 2))
        sizes = np.maximum(items - 1, 1).reshape(-1, *(1,) * (means.ndim - 1))
        variances = means * (1 - means) / sizes
    mean, variance = means.mean(axis=0), np.nansum(variances, axis=0) / len(means) ** 2
    known = variance > 0
    count = np.where(known, mean * (1 - mean) / np.where(known, variance, 1), items.sum())
    return score_interval(mean, count, stdtrit(max(1.0, items.sum() - len(means)), (1 + level) / 2))


def _percentiles(columns: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(draw, column) -> (column,), (column,); a column without finite draws gives NaN."""
    ends = [(1 - level) / 2, (1 + level) / 2]
    if np.isfinite(columns).all():
        low, high = np.quantile(columns, ends, axis=0)
        return low, high
    bounds = np.full((2, columns.shape[1]), np.nan)
    for i, column in enumerate(columns.T):
        if np.isfinite(column).any():
            bounds[:, i] = np.quantile(column[np.isfinite(column)], ends)
    return bounds[0], bounds[1]
