"""When a score is gained: steps, areas and onsets of learning curves. Pure; all functions take leading axes (draw,
curve, ...).

The time axis is log10(1 + step / unit): nearly logarithmic, and step 0 has a place on it. `unit` 0 stands for the
first step after 0, so that the way to the first checkpoint takes 0.3 of a decade, whatever a trajectory counts.
"""

from typing import NamedTuple

import numpy as np

SHARE = 0.9


class Gain(NamedTuple):
    """When a share of a gain was there."""

    recorded: np.ndarray
    """(...) float64: the first recorded step at which it was, NaN where nothing was gained."""
    interpolated: np.ndarray
    """(...) float64: where the curve crosses it between that step and the one before, straight on the logarithmic
    axis."""


class Rise(NamedTuple):
    """The steepest rise of a curve between two neighbouring checkpoints; NaN where it never rises."""

    before: np.ndarray
    """(...) float64: the step before it."""
    after: np.ndarray
    """(...) float64: the step after it."""
    low: np.ndarray
    """(...) float64: the score before it."""
    high: np.ndarray
    """(...) float64: the score after it."""


def step_axis(steps: np.ndarray, unit: float = 0) -> np.ndarray:
    """(step,) optimiser steps -> (step,) float64 log10(1 + step / unit); unit 0: the first step after 0 (1 if there is
    none)."""
    steps = _ascending(steps)
    return np.log10(1 + steps / unit_of(steps, unit))


def unit_of(steps: np.ndarray, unit: float = 0) -> float:
    """The unit itself: as given, or the first step after 0."""
    if unit < 0:
        raise ValueError(f"unit: {unit} is negative; give optimiser steps, or 0 for the first step after 0")
    positive = np.asarray(steps, dtype=np.float64)
    positive = positive[positive > 0]
    return float(unit) or (float(positive.min()) if len(positive) else 1.0)


def step_of_gain(steps: np.ndarray, scores: np.ndarray, share: float = SHARE, *, error: float | np.ndarray = 0.0,
                 unit: float = 0) -> Gain:
    """When `share` of the gain from the first to the last score is reached for the first time.

    steps: (step,) ascending;  scores: (..., step), higher = better;  error: (...) half width of the gain's interval: a
    gain that is not above it counts as none;  unit: of the logarithmic axis. In steps; lower = learned earlier; a
    score that jumps at one step gives that step. Adding a constant to the scores or scaling them changes nothing.
    """
    steps, scores = _curves(steps, scores)
    if not 0 < share <= 1:
        raise ValueError(f"share: {share} is not in (0, 1]")
    unit = unit_of(steps, unit)
    gain = scores[..., -1] - scores[..., 0]
    with np.errstate(invalid="ignore"):
        gained = (gain > np.maximum(error, 0)) & np.isfinite(scores).all(axis=-1)
    threshold = scores[..., 0] + share * gain
    reached = scores >= (threshold - 1e-9 * np.abs(gain))[..., None]  # a rounding error must not cost a checkpoint
    at = np.argmax(reached, axis=-1)
    before = np.maximum(at - 1, 0)
    x = step_axis(steps, unit)
    low, high = (np.take_along_axis(scores, i[..., None], axis=-1)[..., 0] for i in (before, at))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.clip((threshold - low) / (high - low), 0, 1)
    crossing = unit * (10 ** (x[before] + part * (x[at] - x[before])) - 1)
    return Gain(np.where(gained, steps[at], np.nan), np.where(gained, crossing, np.nan))


def area_under_curve(steps: np.ndarray, scores: np.ndarray, unit: float = 0) -> np.ndarray:
    """Mean score over the logarithmic time axis (trapezoids): (..., step) -> (...), in the score's unit; higher =
    earlier or better.

    A constant curve gives its value; with less than two checkpoints it is NaN.
    """
    steps, scores = _curves(steps, scores)
    x = step_axis(steps, unit)
    if len(x) < 2:
        return np.full(scores.shape[:-1], np.nan)
    weights = np.zeros(len(x))
    weights[:-1] += np.diff(x) / 2
    weights[1:] += np.diff(x) / 2
    return scores @ (weights / weights.sum())


def relative_increase(scores: np.ndarray) -> np.ndarray:
    """score(t) / score(t - 1): (..., step) -> (..., step), 1 = no change; NaN at the first step and after scores up to
    0."""
    scores = np.asarray(scores, dtype=np.float64)
    ratios = np.full(scores.shape, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios[..., 1:] = np.where(scores[..., :-1] > 0, scores[..., 1:] / scores[..., :-1], np.nan)
    return ratios


def steepest_rise(steps: np.ndarray, scores: np.ndarray, unit: float = 0) -> Rise:
    """The two neighbouring checkpoints between which the score rises fastest on the logarithmic axis; of equals the
    first."""
    steps, scores = _curves(steps, scores)
    if len(steps) < 2:
        return Rise(*(np.full(scores.shape[:-1], np.nan) for _ in range(4)))
    slopes = np.diff(scores, axis=-1) / np.diff(step_axis(steps, unit))
    at = np.argmax(np.where(np.isfinite(slopes), slopes, -np.inf), axis=-1)
    slope, low, high = (np.take_along_axis(v, i[..., None], axis=-1)[..., 0]
                        for v, i in ((slopes, at), (scores, at), (scores, at + 1)))
    with np.errstate(invalid="ignore"):
        rising = slope > 0
    return Rise(*(np.where(rising, value, np.nan) for value in (steps[at], steps[at + 1], low, high)))


def onset_step(steps: np.ndarray, scores: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The first step at which each layer reaches `share` of what the last layer has at the end.

    scores: (..., layer, step) -> (..., layer) steps; NaN for layers that never do, and everywhere if the last layer
    ends at 0.
    """
    steps, scores = _curves(steps, scores, layers=True)
    threshold = share * scores[..., -1, -1]
    with np.errstate(invalid="ignore"):
        reached = (scores >= threshold[..., None, None]) & (threshold > 0)[..., None, None]
    return np.where(reached.any(axis=-1), steps[np.argmax(reached, axis=-1)], np.nan)


def onset_layer(scores: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The first layer with more than `share` of the last layer's score at the same step: (..., layer, step) -> (...,
    step).

    Counts positions in the list of layers, from 0; NaN at steps at which the last layer scores 0.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim < 2:
        raise ValueError(f"scores: have shape {scores.shape}; give (layer, step)")
    last = scores[..., -1:, :]
    with np.errstate(invalid="ignore"):
        above = (scores > share * last) & (last > 0)
    return np.where(above.any(axis=-2), np.argmax(above, axis=-2), np.nan)


def _ascending(steps: np.ndarray) -> np.ndarray:
    steps = np.asarray(steps, dtype=np.float64)
    if steps.ndim != 1 or not len(steps) or (np.diff(steps) <= 0).any() or steps[0] < 0:
        raise ValueError(f"steps: {steps.tolist()} are not ascending optimiser steps from 0 on")
    return steps


def _curves(steps: np.ndarray, scores: np.ndarray, layers: bool = False) -> tuple[np.ndarray, np.ndarray]:
    steps, scores = _ascending(steps), np.asarray(scores, dtype=np.float64)
    if scores.ndim < 1 + layers or scores.shape[-1] != len(steps):
        raise ValueError(f"scores: have shape {scores.shape}; the last axis must be the {len(steps)} steps"
                         + (", the one before it layers" if layers else ""))
    return steps, scores
