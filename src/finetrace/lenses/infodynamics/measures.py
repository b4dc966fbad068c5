"""Information dynamics of training: how new is a prediction, and does what is new persist?

Every row of probabilities is compared with the `window` rows before it (novelty) and after it (transience); their
difference is resonance. The time axis is the training EXAMPLE (logits recorded while training, in the order seen), or
the STEP (a fixed probe set evaluated at every checkpoint, `probe_resonance`).

Source: Barron, Huang, Spang and DeDeo 2018 (PNAS), "Individuals, institutions, and innovation in the debates of the
French Revolution", applied to the logits of a fine-tuning.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import overload

import numpy as np

from finetrace.lenses.infodynamics.cartography import Cartography, cartography
from finetrace.lenses.infodynamics.changepoints import ChangePoints, change_points
from finetrace.lenses.infodynamics.divergences import (
    LagSums,
    check_measure,
    check_probabilities,
    jensen_shannon,
    softmax,
)
from finetrace.lenses.infodynamics.fractal import HurstFit, hurst_exponent
from finetrace.lenses.infodynamics.slope import (
    RegressionBand,
    ResonanceNoveltySlope,
    regression_band,
    resonance_novelty_slope,
)
from finetrace.lenses.infodynamics.smoothing import (
    adaptive_filter,
    detrend,
    gaussian_smooth,
    moving_average,
    normalise,
    zero_centre,
)

__all__ = [
    "Cartography",
    "ChangePoints",
    "Dynamics",
    "HurstFit",
    "RegressionBand",
    "ResonanceNoveltySlope",
    "adaptive_filter",
    "cartography",
    "change_points",
    "curb",
    "detrend",
    "gaussian_smooth",
    "hurst_exponent",
    "jensen_shannon",
    "label_balance_plateau",
    "mean_confidence",
    "moving_average",
    "normalise",
    "probe_resonance",
    "regression_band",
    "resonance",
    "resonance_novelty_slope",
    "shuffled_order_null",
    "smooth",
    "softmax",
    "step_mean",
    "trend",
    "zero_centre",
]


@dataclass(frozen=True)
class Dynamics:
    """Novelty, transience and resonance of a series, and the spread of the divergences behind each.

    Every field: (time,) float64, time = example or step; in nats for the default measure (see `resonance` for others).
    novelty, transience: >= 0; higher = less like the past / the future; 0 for a constant series; at most ln 2 for jsd.
    resonance: novelty - transience; > 0 = the change persists, < 0 = the series turns back; 0 for a constant series.
    novelty_sd, transience_sd: population standard deviation of the `window` divergences. resonance_sd: their mean.
    """

    novelty: np.ndarray
    transience: np.ndarray
    resonance: np.ndarray
    novelty_sd: np.ndarray
    transience_sd: np.ndarray
    resonance_sd: np.ndarray


@overload
def resonance(
    probabilities: np.ndarray,
    window: int,
    measure: str = ...,
    *,
    base: float | None = ...,
    fill: float = ...,
    partial_tail: bool = ...,
) -> Dynamics: ...
@overload
def resonance(
    probabilities: np.ndarray,
    window: Sequence[int],
    measure: str = ...,
    *,
    base: float | None = ...,
    fill: float = ...,
    partial_tail: bool = ...,
) -> dict[int, Dynamics]: ...
def resonance(
    probabilities: np.ndarray,
    window: int | Sequence[int],
    measure: str = "jsd",
    *,
    base: float | None = None,
    fill: float = float("nan"),
    partial_tail: bool = False,
) -> Dynamics | dict[int, Dynamics]:
    """Novelty, transience and resonance of a series of probability rows.

    novelty[i] = mean over k = 1..w of D(p_i, p_{i-k});  transience[i] = mean over k of D(p_i, p_{i+k});
    resonance = novelty - transience. For stationary one-hot rows novelty is `label_balance_plateau` on average.

    probabilities: (example, class), rows in the order of training; normalised here, computed in float64.
    window: w in examples, 1 <= w and 2 w + 1 <= examples. Several windows give {window: Dynamics} from ONE pass, at
        about the cost of the largest. A change of the series spreads over w examples.
    measure: "jsd" (Jensen-Shannon divergence, default base e), "kl" (KL(centre || neighbour), default base 2, as
        Barron et al.), or "jeffreys" (KL both ways, default base 10, as the ancestors of this analysis).
    base: of the logarithm; None = the default of the measure. math.e gives nats, 2 bits.
    fill: value where a window is incomplete: the first w novelties, last w transiences and both for resonance. The
        original programs wrote 0.0 there.
    partial_tail: legacy; keep the last w `transience_sd` from the lags that exist instead of filling them.
    Returns arrays of the full length; `curb` cuts the incomplete ends off.
    """
    p = check_probabilities(probabilities, ("example", "class"))
    windows, single = _windows(window, len(p), "examples")
    by_window = _resonance(p, windows, measure, base, fill, partial_tail)
    return by_window[windows[0]] if single else by_window


@overload
def probe_resonance(
    probabilities: np.ndarray,
    window: int,
    measure: str = ...,
    *,
    base: float | None = ...,
    fill: float = ...,
    per_example: bool = ...,
) -> Dynamics: ...
@overload
def probe_resonance(
    probabilities: np.ndarray,
    window: Sequence[int],
    measure: str = ...,
    *,
    base: float | None = ...,
    fill: float = ...,
    per_example: bool = ...,
) -> dict[int, Dynamics]: ...
def probe_resonance(
    probabilities: np.ndarray,
    window: int | Sequence[int],
    measure: str = "jsd",
    *,
    base: float | None = None,
    fill: float = float("nan"),
    per_example: bool = False,
) -> Dynamics | dict[int, Dynamics]:
    """Novelty, transience and resonance of the model itself, on a fixed probe set evaluated at successive steps.

    Each example is compared only with itself at the `window` steps before and after, so label balance and the order of
    examples play no part: a model that stands still has novelty 0 (`resonance` of one-hot rows has not). The result
    is the mean over examples, with the mean of the within-example spreads as sd.

    probabilities: (step, example, class), in evaluation mode, steps in order and best equally spaced.
    window: in recorded steps (or several: a dict), 2 w + 1 <= steps. measure, base, fill: as in `resonance`.
    per_example: keep (step, example) arrays instead of averaging to (step,).
    """
    p = check_probabilities(probabilities, ("step", "example", "class"))
    steps, examples, classes = p.shape
    if examples == 0:
        raise ValueError("the probe set holds no examples: record at least one")
    windows, single = _windows(window, steps, "steps")
    by_window = _resonance(p.reshape(steps * examples, classes), windows, measure, base, fill, False, stride=examples)
    for w, flat in by_window.items():
        grids = [getattr(flat, field.name).reshape(steps, examples) for field in fields(flat)]
        by_window[w] = Dynamics(*(grid if per_example else grid.mean(axis=1) for grid in grids))
    return by_window[windows[0]] if single else by_window


@overload
def curb(signals: np.ndarray, window: int) -> np.ndarray: ...
@overload
def curb(signals: Dynamics, window: int) -> Dynamics: ...
def curb(signals: np.ndarray | Dynamics, window: int) -> np.ndarray | Dynamics:
    """Without the first and last `window` entries, where a window is incomplete: length m - 2 * window.

    signals: (time, ...) array, or a Dynamics (all six fields are cut). window: in entries of the time axis.
    """
    if isinstance(signals, Dynamics):
        return Dynamics(*(curb(getattr(signals, field.name), window) for field in fields(signals)))
    signal = np.asarray(signals)
    if signal.ndim < 1:
        raise ValueError("the signal is a single number: pass an array whose first axis is time")
    w = _windows(operator.index(window), len(signal), "entries")[0][0]
    return signal[w : len(signal) - w]


def smooth(dynamics: Dynamics, window: int, span: int = 56, order: int = 1) -> Dynamics:
    """All six signals through `adaptive_filter`, for plots: full length, NaN in the first and last `window` entries.

    dynamics: full length, (time,). window: as in `resonance`. span, order: as in `adaptive_filter`; larger = finer.
    """
    return Dynamics(*(trend(getattr(dynamics, field.name), window, span, order) for field in fields(dynamics)))


def trend(signal: np.ndarray, window: int, span: int = 56, order: int = 1) -> np.ndarray:
    """One full-length signal as `smooth` shows it: (time,) float64, NaN in the first and last `window` entries."""
    smoothed = np.full(len(signal), np.nan)
    smoothed[window : len(signal) - window] = adaptive_filter(curb(signal, window), span, order)
    return smoothed


def shuffled_order_null(
    probabilities: np.ndarray,
    window: int,
    measure: str = "jsd",
    *,
    permutations: int = 100,
    seed: int = 0,
    block: int | None = None,
    base: float | None = None,
) -> np.ndarray:
    """Slopes of resonance on novelty when the same rows come in random order: what no temporal structure looks like.

    This null is far from 0 (balanced one-hot rows: 1 / sqrt(2); two classes with uniformly random probabilities: 0.12),
    so a slope means little without it. Costs `permutations` times the resonance of the series.

    probabilities, window, measure, base: as in `resonance`. seed: of the permutations.
    block: None = shuffle the whole series; a number of examples = shuffle only inside consecutive blocks of that
        length, which keeps slow drift (growing confidence) in the null.
    Returns (permutation,) float64, NaN where a slope is undefined (constant novelty or resonance).
    """
    p = check_probabilities(probabilities, ("example", "class"))
    w = _windows(operator.index(window), len(p), "examples")[0][0]
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}: a null needs at least 1, better 100")
    if block is not None and block < 2:
        raise ValueError(f"block is {block}: examples can only change places in blocks of at least 2")
    rng = np.random.default_rng(seed)
    slopes = np.full(permutations, np.nan)
    for number in range(permutations):
        order = rng.permutation(len(p))
        if block is not None:
            order = order[np.argsort(order // block, kind="stable")]
        shuffled = _resonance(p[order], [w], measure, base, float("nan"), False, spread=False)[w]
        x, y = curb(shuffled.novelty, w), curb(shuffled.resonance, w)
        if len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0:
            slopes[number] = np.corrcoef(x, y)[0, 1]
    return slopes


def label_balance_plateau(shares: np.ndarray) -> float:
    """Novelty, in nats, of a confident and correct model that merely sees shuffled labels: (1 - sum pi^2) ln 2.

    Range 0 (one class) to (1 - 1 / classes) ln 2 (balanced; 0.347 for two classes). Rising novelty that ends here shows
    the growth of confidence and nothing more.

    shares: (class,) non-negative label counts or shares; normalised here.
    """
    pi = np.asarray(shares, dtype=np.float64)
    if pi.ndim != 1 or not pi.size or not np.isfinite(pi).all() or pi.min() < 0 or pi.sum() == 0:
        raise ValueError("shares must be one non-negative number per class, not all zero, e.g. numpy.bincount(labels)")
    pi = pi / pi.sum()
    return float((1 - pi @ pi) * math.log(2))


def mean_confidence(probabilities: np.ndarray, window: int) -> np.ndarray:
    """Mean of the largest probability over the rows that novelty compares: the row itself and the `window` before it.

    For two classes novelty is nearly a function of it, so show both. Range 1 / classes to 1, higher = more confident.

    probabilities: (example, class). window: in examples. Returns (example,) float64, NaN for the first `window`.
    """
    p = check_probabilities(probabilities, ("example", "class"))
    w = operator.index(window)
    if not 1 <= w < len(p):
        raise ValueError(f"window is {w} for {len(p)} examples: use 1 to {len(p) - 1}")
    curve = np.full(len(p), np.nan)
    curve[w:] = moving_average(p.max(axis=1), w + 1)
    return curve


def step_mean(probabilities: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean distribution of each optimizer step's batch: a series on the step axis, for `resonance`.

    It changes when the model or the batch's label balance changes, not with every single example.

    probabilities: (example, class). steps: (example,) integer, the step at which each example was seen.
    Returns (step,) the distinct steps in ascending order and (step, class) float64 mean probabilities.
    """
    p = check_probabilities(probabilities, ("example", "class"))
    steps = np.asarray(steps)
    if steps.shape != p.shape[:1]:
        raise ValueError(f"steps have shape {steps.shape} for {len(p)} examples: one step number per example")
    distinct, index, counts = np.unique(steps, return_inverse=True, return_counts=True)
    totals = [np.bincount(index, weights=column, minlength=len(distinct)) for column in p.T]
    return distinct, np.stack(totals, axis=1) / counts[:, None]


def _resonance(
    p: np.ndarray,
    windows: Sequence[int],
    measure: str,
    base: float | None,
    fill: float,
    partial_tail: bool,
    stride: int = 1,
    spread: bool = True,
) -> dict[int, Dynamics]:
    """One pass over the lags, with a result at every requested window. Without `spread` the sd fields are all fill."""
    nats_to_unit = 1 / math.log(check_measure(measure, base))
    sums = LagSums(p, measure, stride, spread)
    by_window: dict[int, Dynamics] = {}
    for w in sorted(set(windows)):
        sums.extend(w)
        novelty, novelty_sd = sums.mean_and_sd(0)
        transience, transience_sd = sums.mean_and_sd(1)
        if novelty_sd is None or transience_sd is None:
            novelty_sd, transience_sd = np.full((2, len(p)), fill)
        head, tail = slice(0, w * stride), slice(len(p) - w * stride, None)
        for values in (novelty, transience, novelty_sd, transience_sd):
            values *= nats_to_unit
        difference, pooled = novelty - transience, (novelty_sd + transience_sd) / 2
        novelty[head] = novelty_sd[head] = transience[tail] = fill
        for values in (difference, pooled):
            values[head] = values[tail] = fill
        if not partial_tail:
            transience_sd[tail] = fill
        by_window[w] = Dynamics(novelty, transience, difference, novelty_sd, transience_sd, pooled)
    return {w: by_window[w] for w in windows}


def _windows(window: int | Sequence[int], length: int, unit: str) -> tuple[list[int], bool]:
    """The windows as a list, and whether a single one was asked for; ValueError for windows the series cannot hold."""
    try:
        windows, single = [operator.index(window)], True  # type: ignore[arg-type]
    except TypeError:
        try:
            windows, single = [operator.index(w) for w in window], False  # type: ignore[union-attr]
        except TypeError:
            raise ValueError(f"window is {window!r}: pass a whole number of {unit}, or a list of them") from None
    if not windows:
        raise ValueError(f"no window given: pass a whole number of {unit}, or a non-empty list of them")
    for w in windows:
        if w < 1:
            raise ValueError(f"window is {w}: it must be at least 1 {unit[:-1]}")
        if length < 2 * w + 1:
            raise ValueError(
                f"window {w} needs at least {2 * w + 1} {unit} and there are {length}: "
                f"use a window of at most {max(0, (length - 1) // 2)}, or record more"
            )
    return windows, single
