"""Does a layer whose tokens converge also probe better? Correlations of within-sentence cosines with probe accuracy.

The closing question of the French study, which compared two figures by eye. Layers and checkpoints are few and not
independent, so every number says how many there are, intervals resample whole layers (or checkpoints), and p values
permute whole layers (or checkpoints).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations as all_orders
from typing import Literal

import numpy as np

from finetrace.lenses.intervals import bootstrap_weights, percentile_interval

FEWEST = 4  # clusters below which a correlation says nothing
EXACT = 7  # clusters up to which all orders are tried: 5,040
Kind = Literal["spearman", "pearson"]
Of = Literal["level", "change"]
KINDS: tuple[Kind, ...] = ("spearman", "pearson")


@dataclass(frozen=True)
class Correlation:
    """One correlation. value: in [-1, 1];  low, high: its 95 % interval;  p: two-sided, of no association;  n: pairs;
    clusters: units that were resampled and permuted. NaN where there are too few, or one side is constant.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    clusters: int


@dataclass(frozen=True)
class Link:
    """One correlation of cosines with accuracies.

    kind: spearman | pearson;  of: level (cosine and accuracy as they are) | change (both against checkpoint 0);
    over: layers (at one checkpoint) | checkpoints (at one layer) | all (all pairs);
    checkpoint, layer: position on the axis, or -1 where it runs over the axis.
    """

    kind: Kind
    of: Of
    over: Literal["layers", "checkpoints", "all"]
    checkpoint: int
    layer: int
    correlation: Correlation


def links(cosine: np.ndarray, accuracy: np.ndarray, *, draws: int = 2000, permutations: int = 2000,
          seed: int = 0) -> list[Link]:
    """Every correlation of mean within-sentence cosine with probe accuracy.

    cosine, accuracy: (checkpoint, layer) float, checkpoints ascending, the first being the state before training.
    Over layers at each checkpoint, over checkpoints at each layer, and over all pairs with layers as clusters. Changes
    leave checkpoint 0 out, where they are 0 by definition; over checkpoints at one layer they would repeat the levels'
    numbers, so they are not given.
    Raises ValueError for shapes that differ, or NaN.
    """
    cosine, accuracy = np.asarray(cosine, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if cosine.ndim != 2 or cosine.shape != accuracy.shape or not cosine.size:
        raise ValueError(f"cosine {cosine.shape} and accuracy {accuracy.shape} are not equal (checkpoint, layer) "
                         "shapes")
    if not (np.isfinite(cosine).all() and np.isfinite(accuracy).all()):
        raise ValueError("cosine or accuracy holds NaN or infinity")
    checkpoints, layers = cosine.shape
    sides: dict[Of, tuple[np.ndarray, np.ndarray, range]] = {
        "level": (cosine, accuracy, range(checkpoints)),
        "change": (cosine - cosine[0], accuracy - accuracy[0], range(1, checkpoints))}
    collected: list[Link] = []

    def correlate(x: np.ndarray, y: np.ndarray, kind: Kind) -> Correlation:
        return correlation(x, y, kind, draws=draws, permutations=permutations, seed=seed)

    for kind in KINDS:
        for of, (x, y, rows) in sides.items():
            for c in rows:
                collected.append(Link(kind, of, "layers", c, -1, correlate(x[[c]], y[[c]], kind)))
            if len(rows):
                collected.append(Link(kind, of, "all", -1, -1, correlate(x[rows], y[rows], kind)))
        for layer in range(layers):
            over_time = correlate(cosine[:, [layer]].T, accuracy[:, [layer]].T, kind)
            collected.append(Link(kind, "level", "checkpoints", -1, layer, over_time))
    return collected


def correlation(x: np.ndarray, y: np.ndarray, kind: Kind = "spearman", *, draws: int = 2000, permutations: int = 2000,
                seed: int = 0) -> Correlation:
    """Correlation of paired values, in which the pairs of a column belong together.

    x, y: (unit, cluster) float, e.g. (checkpoint, layer). Range [-1, 1]; 1 for y = x, 0 expected for unrelated values.
    Interval: percentile bootstrap that draws whole clusters; with fewer than about ten clusters it is narrower than 95
    % deserves. p: share of the orders of y's clusters (all of them up to seven clusters, else random ones) whose
    correlation is as large in absolute value; with k clusters it cannot fall below about 1/k!. NaN with fewer than four
    clusters.
    """
    x, y = np.atleast_2d(np.asarray(x, dtype=np.float64)), np.atleast_2d(np.asarray(y, dtype=np.float64))
    clusters, n = x.shape[1], x.size
    nothing = Correlation(math.nan, math.nan, math.nan, math.nan, n, clusters)
    if clusters < FEWEST:
        return nothing
    ones = np.ones((1, n))
    x_standard, y_standard = (_standard(ranks(v.ravel(), ones) if kind == "spearman" else v.reshape(1, -1), ones)[0]
                              for v in (x, y))
    value = float(x_standard @ y_standard)
    if math.isnan(value):
        return nothing
    weights = np.tile(bootstrap_weights(clusters, draws, seed), (1, len(x)))
    low, high = np.clip(percentile_interval(weighted_correlation(x.ravel(), y.ravel(), weights, kind)), -1, 1)
    # of all orders at once: the product of cluster i of x with cluster j of y is needed only once
    products = x_standard.reshape(x.shape).T @ y_standard.reshape(x.shape)
    orders, exact = _orders(clusters, permutations, seed)
    extreme = int((np.abs(products[np.arange(clusters), orders].sum(axis=1)) >= abs(value) - 1e-12).sum())
    p = extreme / len(orders) if exact else (1 + extreme) / (1 + len(orders))
    return Correlation(min(1.0, max(-1.0, value)), float(low), float(high), p, n, clusters)


def weighted_correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray, kind: Kind) -> np.ndarray:
    """Correlation with each pair counted `weight` times: x, y (pair,); weights (draw, pair) -> (draw,); NaN if
    constant."""
    pair = [ranks(v, weights) if kind == "spearman" else np.broadcast_to(v, weights.shape) for v in (x, y)]
    x_standard, y_standard = (_standard(v, weights) for v in pair)
    return (weights * x_standard * y_standard).sum(axis=1)


def ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average ranks from 1 of values (item,) of which item i occurs weights[draw, i] times: (draw, item)."""
    below = (values[:, None] < values[None, :]).astype(np.float64)
    equal = (values[:, None] == values[None, :]).astype(np.float64)
    return weights @ below + (weights @ equal + 1) / 2


def _standard(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Centred to weighted mean 0 and divided so that the weighted squares sum to 1; NaN for constant rows. (draw,
    item)."""
    centred = values - (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    size = np.sqrt((weights * centred**2).sum(axis=1, keepdims=True))
    constant = size <= 1e-12 * np.sqrt((weights * values**2).sum(axis=1, keepdims=True))
    return np.where(constant, np.nan, centred / np.where(constant, 1.0, size))


def _orders(clusters: int, permutations: int, seed: int) -> tuple[np.ndarray, bool]:
    """Orders of the clusters, (order, cluster) int, and whether these are all there are."""
    if clusters <= EXACT:
        return np.array(list(all_orders(range(clusters)))), True
    return np.random.default_rng(seed).permuted(np.tile(np.arange(clusters), (permutations, 1)), axis=1), False


def pick(candidates: Iterable[Link], kind: Kind, of: str, over: str, checkpoint: int = -1,
         layer: int = -1) -> Correlation | None:
    """The one correlation with these properties, or None."""
    for link in candidates:
        if (link.kind, link.of, link.over, link.checkpoint, link.layer) == (kind, of, over, checkpoint, layer):
            return link.correlation
    return None
