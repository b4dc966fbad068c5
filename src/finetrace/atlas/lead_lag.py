"""Which of two signals of a training moves first: the cross-correlation of their changes, against shuffled seeds.

Two curves of one training go together whenever both rise, and curves that are smooth go together at some lag by chance.
Both is true of a signal of one seed beside that of another seed as well. So the first signal of every seed is set
beside the second of other seeds, in other orders of the seeds: what these give, common trends and smoothness included,
is what has to be surpassed. (Permutation of units: Good 2005; the best of several statistics: Westfall and Young 1993.)
"""

from dataclasses import dataclass, replace
from itertools import combinations, permutations
from math import factorial
from typing import Literal

import numpy as np

from finetrace.seeds import generator

Verdict = Literal["first leads", "second leads", "together", "none", "undecided"]
LEVEL = 0.05
LEAST_SEEDS, MOST_SEEDS = 4, 64
"""Four have 24 orders, so that the least p is 1/24 = .042; of three it is 1/6."""
LEAST_CHANGES, MOST_LAG = 4, 6
_ORDERS, _RESAMPLES = 999, 500
_AT_ONCE = 500_000
"""Lags times orders of the pairs that are computed together, 4 MB of each array."""


@dataclass(frozen=True)
class LeadLag:
    """How the changes of two signals go together, a number per lag.

    lags: (lag,) int64, -L .. L, in checkpoints. A POSITIVE LAG MEANS THAT THE FIRST SIGNAL MOVES FIRST: the change of
        the first at checkpoint t is set beside that of the second at t + lag.
    correlation: (lag,) float64, in -1 .. 1; 0 for unrelated signals.
    low, high: (lag,) its 95 % band over resampled seeds;  null_low, null_high: (lag,) 95 % of what shuffled seeds give,
        both NaN with one seed.
    best_lag: where the correlation is farthest from what shuffled seeds give, in their standard deviations; with fewer
        than `LEAST_SEEDS` farthest from 0; 0 with few changes.  best_low, best_high: least and greatest best lag when
        any one seed is left out.
    p: share of the orders of seeds whose best lag stands out as much: the search of the lags is paid for.  p_cell: the
        same among the best of all pairs of the cell: the search of pairs is paid for, too. NaN with one seed.
    verdict: by p_cell < .05;  reason: in words.  seeds, changes: how many there were.
    """

    lags: np.ndarray
    correlation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null_low: np.ndarray
    null_high: np.ndarray
    best_lag: int
    best_low: int
    best_high: int
    p: float
    p_cell: float
    verdict: Verdict
    reason: str
    seeds: int
    changes: int


def lead_lag(first: np.ndarray, second: np.ndarray, *, seed: int) -> LeadLag:
    """Which of two signals moves first. first, second: (seed, time) float, finite, at the same checkpoints.

    seed: of the choice of orders and of resampled seeds. Raises ValueError as `leads` does.
    """
    return leads(np.stack([first, second], axis=1), seed=seed)[0, 1]


def leads(values: np.ndarray, *, seed: int) -> dict[tuple[int, int], LeadLag]:
    """Every pair of signals, by their numbers, the smaller one first. Of more than `MOST_SEEDS` seeds the first ones.

    values: (seed, signal, time) float, finite, at the same checkpoints. Changes are standardised for each seed and
    signal, the products of all seeds summed: correlation(lag) = sum over seeds and t of a[t] b[t + lag], divided by the
    root of the sums of their squares there. Raises ValueError for other shapes, fewer than two signals, and NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 3 or values.shape[1] < 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"values (shape {values.shape}) must be (seed, signal, time) of two signals, without NaN")
    changes = _standardised(values[:MOST_SEEDS])
    orders = _orders(len(changes), generator(seed, "leads", "orders"))
    weights = generator(seed, "leads", "seeds").multinomial(len(changes), [1 / len(changes)] * len(changes), _RESAMPLES)
    pairs = list(combinations(range(changes.shape[1]), 2))
    measured: list[LeadLag] = []
    stands_out = np.zeros((len(pairs), len(orders)))
    at_once = max(1, _AT_ONCE // (len(orders) * len(_lags(changes.shape[-1]))))
    for start in range(0, len(pairs), at_once):
        first, second = np.array(pairs[start:start + at_once]).T
        of_pairs, stands_out[start:start + at_once] = _of_pairs(changes[:, first].transpose(1, 0, 2),
                                                                changes[:, second].transpose(1, 0, 2), orders, weights)
        measured += of_pairs
    best = stands_out.max(axis=0)
    return {pair: _judged(lead, _share(at, at[0]), _share(best, at[0]), len(pairs))
            for pair, lead, at in zip(pairs, measured, stands_out, strict=True)}


def _standardised(values: np.ndarray) -> np.ndarray:
    """(seed, signal, change) float64 of mean 0 and variance 1; 0 where a signal changes by as much at every checkpoint,
    up to rounding."""
    changes = np.diff(values, axis=-1)
    changes = changes - changes.mean(axis=-1, keepdims=True) if changes.shape[-1] else changes
    spread = np.sqrt(np.square(changes).mean(axis=-1, keepdims=True)) if changes.shape[-1] else changes
    rounding = 1e-12 * np.abs(values).max(axis=-1, keepdims=True)
    return np.where(spread > rounding, changes / np.where(spread > rounding, spread, 1), 0)


def _orders(seeds: int, random: np.random.Generator) -> np.ndarray:
    """(order, seed) int64: all orders of the seeds, or as many as `_ORDERS` and the given one, which is the first."""
    if seeds < 8 and factorial(seeds) <= _ORDERS:
        return np.array(list(permutations(range(seeds))), dtype=np.int64)
    given = np.tile(np.arange(seeds), (_ORDERS + 1, 1))
    given[1:] = random.permuted(given[1:], axis=1)
    return given


def _lags(changes: int) -> np.ndarray:
    return np.arange(-min(MOST_LAG, changes // 3), min(MOST_LAG, changes // 3) + 1)


def _of_pairs(first: np.ndarray, second: np.ndarray, orders: np.ndarray,
              weights: np.ndarray) -> tuple[list[LeadLag], np.ndarray]:
    """What is measured of several pairs, without p and verdict, and (pair, order) how far each order's best lag stands
    out.

    first, second: (pair, seed, change);  orders: (order, seed);  weights: (resample, seed) of the bootstrap.
    """
    pairs, seeds, changes = first.shape
    lags = _lags(changes)
    cross, squares = np.zeros((pairs, len(lags), seeds, seeds)), np.zeros((2, pairs, len(lags), seeds))
    for i, lag in enumerate(lags):
        a, b = first[..., max(-lag, 0):changes - max(lag, 0)], second[..., max(lag, 0):changes - max(-lag, 0)]
        cross[:, i] = a @ b.transpose(0, 2, 1)
        squares[:, :, i] = np.square(a).sum(axis=-1), np.square(b).sum(axis=-1)
    size = np.sqrt(squares.sum(axis=-1).prod(axis=0))
    own = np.einsum("plss->pls", cross)
    correlation = _ratio(own.sum(axis=-1), size)
    nothing = np.full(len(lags), np.nan)
    of_pairs = [LeadLag(lags, course, nothing, nothing, nothing, nothing, 0, 0, 0, float("nan"), float("nan"),
                        "undecided", "" if of.any() else "one of them does not change", seeds, changes)
                for course, of in zip(correlation, size, strict=True)]
    if seeds == 1:
        return of_pairs, np.zeros((pairs, len(orders)))
    shuffled = np.zeros((pairs, len(lags), len(orders)))
    for i in range(seeds):
        shuffled += cross[:, :, i, orders[:, i]]
    far = _far(cross, shuffled)
    left = [[j for j in range(seeds) if j != i] for i in range(seeds)] if seeds > 2 else [[*range(seeds)]]
    best = [lags[_far(cross[:, :, kept][..., kept], own[:, :, kept].sum(axis=-1)[..., None])[..., 0].argmax(axis=1)]
            for kept in left]
    resampled = np.stack([own, *squares]) @ weights.T.astype(np.float64)
    low, high = np.quantile(_ratio(resampled[0], np.sqrt(resampled[1] * resampled[2])), (0.025, 0.975), axis=-1)
    null_low, null_high = np.quantile(_ratio(shuffled, size[..., None]), (0.025, 0.975), axis=-1)
    at, least, greatest = lags[far[..., 0].argmax(axis=1)], np.min(best, axis=0), np.max(best, axis=0)
    return [replace(lead, low=low[i], high=high[i], null_low=null_low[i], null_high=null_high[i],
                    best_low=int(least[i]), best_lag=int(at[i]), best_high=int(greatest[i]))
            for i, lead in enumerate(of_pairs)], far.max(axis=1)


def _far(cross: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(pair, lag, order) float64: how far sums of products are from the mean of all orders of the seeds, in their
    standard deviations, both exact (Hoeffding 1951); 0 where all orders give the same.

    cross: (pair, lag, seed, seed) products of one signal in a seed and the other in a seed;  sums: (pair, lag, order).
    """
    seeds = cross.shape[-1]
    both = cross.mean(axis=(-2, -1), keepdims=True)
    about = cross - cross.mean(axis=-2, keepdims=True) - cross.mean(axis=-1, keepdims=True) + both
    spread = np.sqrt(np.square(about).sum(axis=(-2, -1)) / (seeds - 1))[..., None]
    size = np.sqrt(np.square(cross).sum(axis=(-2, -1)))[..., None]
    return np.where(spread > 1e-9 * size, np.abs(sums - seeds * both[..., 0]) / np.where(spread > 0, spread, 1), 0)


def _ratio(sums: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.where(size > 0, sums / np.where(size > 0, size, 1), 0)


def _share(of: np.ndarray, least: float) -> float:
    """Which share of numbers is at least so large, up to rounding."""
    return float((of >= least - 1e-9 * (1 + least)).mean())


def _judged(pair: LeadLag, p: float, p_cell: float, pairs: int) -> LeadLag:
    """The same with p, verdict and reason. pairs: how many were searched."""
    if pair.reason or pair.changes < LEAST_CHANGES:
        few = f"{pair.changes} changes between checkpoints are fewer than {LEAST_CHANGES}"
        return replace(pair, best_lag=0, best_low=0, best_high=0, reason=pair.reason or few)
    if pair.seeds < LEAST_SEEDS:
        seeds = "one seed" if pair.seeds == 1 else f"{pair.seeds} seeds"
        at = int(pair.lags[np.abs(pair.correlation).argmax()])
        if pair.seeds == 1:
            p = p_cell = float("nan")
        return replace(pair, best_lag=at, best_low=at, best_high=at, p=p, p_cell=p_cell,
                       reason=f"{seeds} cannot give p < {LEVEL}: with {LEAST_SEEDS} or more it can be said")
    verdict, reason = _verdict(pair, p_cell)
    searched = f"; the best of {pairs} pairs" if pairs > 1 else ""
    return replace(pair, p=p, p_cell=p_cell, verdict=verdict, reason=f"{reason} (p = {p_cell:.3f}{searched})")


def _verdict(pair: LeadLag, p: float) -> tuple[Verdict, str]:
    if p >= LEVEL:
        return "none", "shuffled seeds go together as much"
    band = f"{pair.best_low} to {pair.best_high}, whichever seed is left out"
    if min(pair.best_lag, pair.best_low) > 0:
        return "first leads", f"the second follows; best lag {pair.best_lag}, {band}"
    if max(pair.best_lag, pair.best_high) < 0:
        return "second leads", f"the first follows; best lag {pair.best_lag}, {band}"
    return "together", f"best lag {pair.best_lag}, {band}"
