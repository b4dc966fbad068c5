"""Where in the layers a task is learned: mixing weights and cumulative scores in single numbers (Tenney et al.
2019)."""

from typing import Any

import numpy as np

MIN_GAIN = 0.02  # of scores in [0, 1]: below a gain of two points, sums of differences are mostly noise


def center_of_gravity(weights: Any) -> Any:
    """Mean layer under the mixing weights, sum of l times weight l: in [0, layers - 1], layers / 2 - 1/2 when they are
    even.

    weights: (..., layer) float, sums to 1. Returns (...) in layers; higher means later. It moves only as far as
    training has moved the mix's scalars, so tasks with other numbers of steps or rates are not comparable by it.
    Raises ValueError when weights do not sum to 1.
    """
    weights = _shares(weights)
    return weights @ np.arange(weights.shape[-1])


def kl_from_uniform_bits(weights: Any) -> Any:
    """Kullback-Leibler divergence of mixing weights from even ones, in bits: 0 for even ones, log2 layers for one
    layer alone.

    weights: (..., layer) float, sums to 1. Returns (...); higher means more localised.
    """
    return np.log2(np.shape(weights)[-1]) - entropy_bits(weights)


def entropy_bits(weights: Any) -> Any:
    """Shannon entropy of mixing weights in bits: 0 for one layer alone, log2 layers for even ones; (..., layer) ->
    (...)."""
    weights = _shares(weights)
    return -(weights * np.log2(np.where(weights > 0, weights, 1.0))).sum(axis=-1) + 0.0


def deltas(scores: Any) -> np.ndarray:
    """What each further layer adds to the score of a mix: (..., layer) scores of the mixes 0..k -> (..., layer - 1), k
    from 1."""
    return np.diff(np.asarray(scores, dtype=np.float64), axis=-1)


def expected_layer(scores: Any, running_max: bool = False, min_gain: float = MIN_GAIN) -> Any:
    """Layer at which a task is solved on average: sum of k times delta k over the sum of the deltas, k from 1.

    scores: (..., layer) float, of the mixes of layers 0..k;  running_max: first replace each score by the best so far,
    so that no delta is negative;  min_gain: sum of the deltas below which the ratio is noise. Returns (...) in layers:
    1 when layer 1 brings all, layers - 1 when the last does; NaN where the gain is less than `min_gain`. A constant
    added to all scores changes nothing. With negative deltas it can leave that range.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if running_max:
        scores = np.maximum.accumulate(scores, axis=-1)
    gains = deltas(scores)
    total = gains.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total >= max(min_gain, 1e-300), gains @ np.arange(1, gains.shape[-1] + 1) / total, np.nan)[()]


def headroom(scores: Any) -> Any:
    """What context can add: the best score of a mix minus that of layer 0 alone; (..., layer) -> (...), in [0, 1] for
    shares."""
    scores = np.asarray(scores, dtype=np.float64)
    return scores.max(axis=-1) - scores[..., 0]


def kl_of_deltas_bits(scores: Any, min_gain: float = MIN_GAIN) -> Any:
    """How localised the gains are: divergence in bits of the positive deltas, as shares, from even ones; (..., layer)
    -> (...).

    0 when each layer from 1 on adds as much, log2(layers - 1) when one adds all; NaN where they sum to less than
    `min_gain`.
    """
    gains = np.maximum(deltas(scores), 0.0)
    total = gains.sum(axis=-1, keepdims=True)
    enough = total >= max(min_gain, 1e-300)
    shares = np.where(enough, gains / np.where(enough, total, 1.0), 1 / gains.shape[-1])
    return np.where(enough[..., 0], kl_from_uniform_bits(shares), np.nan)[()]


def _shares(weights: Any) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    sums_to_one = np.allclose(weights.sum(axis=-1), 1, atol=5e-3)  # published ones are rounded to three digits
    if not sums_to_one or (weights < 0).any():
        raise ValueError("weights must not be negative and must sum to 1 over the layers")
    return weights
