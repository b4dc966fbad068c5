"""Divergences between probability rows: one pair at a time, and between all rows of a series up to a lag.

`LagSums` is the engine of `finetrace.lenses.infodynamics.measures`: it visits every pair (row, row + lag) once, in
tiles that stay in the processor's cache, and keeps only sums per row, so memory is linear in the number of rows.
"""

import math
from collections.abc import Callable

import numpy as np

MEASURES = {"jsd": math.e, "kl": 2.0, "jeffreys": 10.0}  # measure -> default base of its logarithm

_TINY = 1e-300  # stands in for probability 0: contributes less than 1e-297 to any sum, and its logarithm is finite
_TILE_ELEMENTS = 32768  # two buffers of (class, tile) float64 fill half of a 1 MiB level-2 cache
_SMALL_JSD = 1e-7  # nats; below it the entropy form (absolute error 1e-16) has fewer than nine correct digits

PairDivergence = Callable[[slice, slice], tuple[np.ndarray, np.ndarray]]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, in float64, with the largest logit of each row subtracted first (no overflow).

    logits: (..., class), any real dtype, finite. Returns (..., class) float64, rows sum to 1.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim < 1 or z.shape[-1] < 2:
        raise ValueError(f"logits have shape {z.shape}: the last axis must be the class axis with at least 2 classes")
    if not np.isfinite(z).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(z))[0])
        raise ValueError(f"logits hold NaN or infinity, first at index {where}: cut off where training diverged")
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    z /= z.sum(axis=-1, keepdims=True)
    return z


def jensen_shannon(p: np.ndarray, q: np.ndarray, base: float = math.e) -> np.ndarray:
    """Jensen-Shannon divergence of probability rows: 1/2 KL(p || m) + 1/2 KL(q || m) with m = (p + q) / 2.

    The divergence itself, not its square root. Range 0 (equal rows) to ln 2 = 0.693 nats (rows without a common class);
    higher = more different; symmetric. Rows are normalised to sum 1 first; 0 log 0 = 0.
    Accurate to the last digits for nearly equal rows too: with u = (p - q) / (p + q) it sums
    m * (1/2 log(1 - u^2) + u atanh u), in which nothing cancels while u is small.

    p, q: (..., class), non-negative, broadcast against each other. base: of the logarithm; e = nats, 2 = bits.
    Returns (...) float64. Source: Lin 1991; used for information dynamics since Barron et al. 2018.
    """
    p, q = check_probabilities(p), check_probabilities(q)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"p has {p.shape[-1]} classes and q has {q.shape[-1]}: they must describe the same classes")
    total = p + q
    u = np.divide(p - q, total, out=np.zeros(total.shape), where=total > 0)
    return np.asarray((total * _relative_divergence(u)).sum(axis=-1) * (0.5 / math.log(check_base(base))))


def check_probabilities(probabilities: np.ndarray, axes: tuple[str, ...] | None = None) -> np.ndarray:
    """A normalised float64 copy of probability rows, or a ValueError that names the first bad row.

    probabilities: (..., class), finite, non-negative, no row all zero. axes: the required axis names, e.g.
    ("example", "class"); None = any number of axes.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if axes is not None and p.ndim != len(axes):
        raise ValueError(f"probabilities have shape {p.shape}: expected {len(axes)} axes ({', '.join(axes)})")
    if p.ndim < 1 or p.shape[-1] < 2:
        raise ValueError(f"probabilities have shape {p.shape}: the last axis must hold at least 2 classes")
    total = np.asarray(p.sum(axis=-1, keepdims=True))
    if not np.isfinite(total).all():
        raise ValueError(f"probabilities hold NaN or infinity, first in row {_first(~np.isfinite(total))}: drop it")
    if p.size and p.min() < 0:
        bad = _first(np.asarray(np.any(p < 0, axis=-1, keepdims=True)))
        raise ValueError(f"probabilities are negative, first in row {bad}: pass softmax(logits), not the logits")
    if not total.all():
        raise ValueError(f"probabilities are all zero in row {_first(total == 0)}: a row must have some mass; drop it")
    return p / total


def check_measure(measure: str, base: float | None) -> float:
    """The base of the logarithm for a measure (its default when `base` is None); ValueError for an unknown measure."""
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r}: use one of {', '.join(sorted(MEASURES))}")
    return MEASURES[measure] if base is None else check_base(base)


def check_base(base: float) -> float:
    """`base` if it can be the base of a logarithm; ValueError otherwise."""
    if not (base > 0 and base != 1 and math.isfinite(base)):
        raise ValueError(f"base {base!r} is not the base of a logarithm: use math.e (nats), 2 (bits) or 10")
    return float(base)


class LagSums:
    """Mean and spread of the divergences of every row to its neighbours at lags 1..w, for growing w.

    The spread is computed about the row's own lag-1 divergence. E[d^2] - E[d]^2 would cancel and, through the root,
    turn 1e-16 into 1e-8; because the shift is one of the sampled values, their variance is at least 1/w of the mean
    square about it, which bounds the relative error by about w * 1e-16.
    """

    def __init__(self, probabilities: np.ndarray, measure: str, stride: int = 1, spread: bool = True) -> None:
        """probabilities: (row, class) float64, normalised. stride: rows between neighbours. spread: keep squares."""
        rows, classes = probabilities.shape
        self.rows, self.stride, self.spread, self.lags = rows, stride, spread, 0
        self.tile = max(256, _TILE_ELEMENTS // classes)
        self.pair = _PAIRS[measure](probabilities, min(self.tile, rows))
        self.sums = np.zeros((2, rows))  # (novelty | transience, row)
        self.squares = np.zeros((2, rows)) if spread else None
        self.shift = np.zeros((2, rows)) if spread else None  # at lag 1: [0] by the later row, [1] by the earlier row

    def extend(self, lags: int) -> None:
        """Adds the lags up to and including `lags`."""
        if self.lags == 0 < lags:
            self._visit(range(1, 2), first=True)
            self.lags = 1
        if lags > self.lags:
            self._visit(range(self.lags + 1, lags + 1))
            self.lags = lags

    def mean_and_sd(self, side: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(row,) mean and population standard deviation over the lags that exist. side: 0 = past, 1 = future."""
        index = np.arange(self.rows)
        available = (index if side == 0 else self.rows - 1 - index) // self.stride
        count = np.clip(available, 1, self.lags)
        mean = self.sums[side] / count
        if self.squares is None or self.shift is None:
            return mean, None
        variance = self.squares[side] / count
        variance -= mean * mean
        return mean + self.shift[side], np.sqrt(np.maximum(variance, 0.0))

    def _visit(self, lags: range, first: bool = False) -> None:
        scratch = np.empty(min(self.tile, self.rows))
        for start in range(0, self.rows, self.tile):
            for lag in lags:
                distance = lag * self.stride
                stop = min(start + self.tile, self.rows - distance)
                if stop <= start:
                    break
                earlier, later = slice(start, stop), slice(start + distance, stop + distance)
                for side, rows, divergence in zip((0, 1), (later, earlier), self.pair(earlier, later), strict=True):
                    if self.squares is None or self.shift is None:
                        self.sums[side, rows] += divergence
                    elif first:
                        self.shift[side, rows] = divergence
                    else:
                        deviation = np.subtract(divergence, self.shift[side, rows], out=scratch[: stop - start])
                        self.sums[side, rows] += deviation
                        self.squares[side, rows] += np.multiply(deviation, deviation, out=deviation)


def _relative_divergence(u: np.ndarray) -> np.ndarray:
    """1/2 [(1 + u) log(1 + u) + (1 - u) log(1 - u)] for -1 <= u <= 1, to full relative accuracy."""
    square = u * u
    if square.size and square.max() < 0.0025:  # the series below is then exact to 1e-12 and ten times faster
        return square * (1 / 2 + square * (1 / 12 + square * (1 / 30 + square * (1 / 56 + square / 90))))
    size = np.abs(u)
    plus, minus = np.log1p(size), np.log1p(-np.minimum(size, 1 - 2.0**-53))  # finite at 1, where its factor is 0
    near_one = 0.5 * ((1 + size) * plus + (1 - size) * minus)
    near_zero = 0.5 * (np.log1p(-np.minimum(square, 0.5)) + size * (plus - minus))  # 2 u^2 - u^2: nothing cancels
    return np.where(size < 0.5, near_zero, near_one)


def _jsd_pairs(probabilities: np.ndarray, tile: int) -> PairDivergence:
    """JSD = [H(p) + H(q)] / 2 summed as sum m log m: one logarithm per class, because the entropies are known."""
    half = np.maximum(probabilities.T, _TINY, order="C")
    half *= 0.5  # halves are exact, so earlier + later is the mixture and equal rows cancel to exactly 0
    mixtures, terms = np.empty((2, len(half), tile))
    entropies, buffer = np.empty(half.shape[1]), np.empty(tile)

    def negative_entropy(earlier: slice, later: slice, out: np.ndarray) -> np.ndarray:
        mixture, term = mixtures[:, : len(out)], terms[:, : len(out)]
        np.add(half[:, earlier], half[:, later], out=mixture)
        np.log(mixture, out=term)
        np.multiply(mixture, term, out=term)
        return np.add.reduce(term, axis=0, out=out)

    for start in range(0, half.shape[1], tile):
        columns = slice(start, min(start + tile, half.shape[1]))
        negative_entropy(columns, columns, entropies[columns])
    entropies *= 0.5

    def pair(earlier: slice, later: slice) -> tuple[np.ndarray, np.ndarray]:
        divergence = negative_entropy(earlier, later, buffer[: earlier.stop - earlier.start])
        np.subtract(entropies[earlier], divergence, out=divergence)
        divergence += entropies[later]
        np.maximum(divergence, 0.0, out=divergence)
        if divergence.max() < _SMALL_JSD:
            mixture = mixtures[:, : len(divergence)]
            u = (half[:, earlier] - half[:, later]) / mixture
            np.add.reduce(mixture * _relative_divergence(u), axis=0, out=divergence)
        return divergence, divergence

    return pair


def _directed_pairs(probabilities: np.ndarray, tile: int) -> PairDivergence:
    """KL(centre || neighbour): the centre is the later row for novelty and the earlier row for transience."""
    p, logs = _with_logs(probabilities, "kl")
    ratios, terms = np.empty((2, len(p), tile))
    novelty, transience = np.empty((2, tile))

    def pair(earlier: slice, later: slice) -> tuple[np.ndarray, np.ndarray]:
        size = earlier.stop - earlier.start
        ratio = np.subtract(logs[:, later], logs[:, earlier], out=ratios[:, :size])
        new = np.add.reduce(np.multiply(p[:, later], ratio, out=terms[:, :size]), axis=0, out=novelty[:size])
        old = np.add.reduce(np.multiply(p[:, earlier], ratio, out=terms[:, :size]), axis=0, out=transience[:size])
        np.negative(old, out=old)
        return np.maximum(new, 0.0, out=new), np.maximum(old, 0.0, out=old)

    return pair


def _jeffreys_pairs(probabilities: np.ndarray, tile: int) -> PairDivergence:
    """Jeffreys' divergence KL(p || q) + KL(q || p) = sum (p - q) log(p / q); no term is negative."""
    p, logs = _with_logs(probabilities, "jeffreys")
    ratios, differences = np.empty((2, len(p), tile))
    buffer = np.empty(tile)

    def pair(earlier: slice, later: slice) -> tuple[np.ndarray, np.ndarray]:
        size = earlier.stop - earlier.start
        ratio = np.subtract(logs[:, later], logs[:, earlier], out=ratios[:, :size])
        ratio *= np.subtract(p[:, later], p[:, earlier], out=differences[:, :size])
        divergence = np.add.reduce(ratio, axis=0, out=buffer[:size])
        return divergence, divergence

    return pair


_PAIRS: dict[str, Callable[[np.ndarray, int], PairDivergence]] = {
    "jsd": _jsd_pairs,
    "kl": _directed_pairs,
    "jeffreys": _jeffreys_pairs,
}


def _with_logs(probabilities: np.ndarray, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """(class, row) probabilities and logarithms without classes that never occur; ValueError if a 0 remains."""
    p = np.ascontiguousarray(probabilities.T[probabilities.any(axis=0)])
    if not p.all():
        row = int(np.argmin(p.all(axis=0)))
        raise ValueError(
            f"measure {measure!r} is infinite because row {row} gives a class probability 0: "
            "use measure 'jsd', or add a floor such as numpy.maximum(probabilities, 1e-12)"
        )
    return p, np.log(p)


def _first(bad: np.ndarray) -> tuple[int, ...] | int:
    """Index of the first True in (..., 1), without the last axis; a plain number when one axis is left."""
    where = tuple(int(i) for i in np.argwhere(bad)[0][:-1])
    return where[0] if len(where) == 1 else where
