"""When a phenomenon is acquired: the step at which accuracy passes the middle between chance and its last value. Pure.

The time axis is that of learning dynamics, log10(1 + step / first step after 0); between checkpoints accuracy is taken
to be straight on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from finetrace import seeds
from finetrace.lenses.dynamics.gains import step_axis, unit_of
from finetrace.lenses.intervals import LEVEL, bootstrap_weights
from finetrace.lenses.pairs.scores import CHANCE, Group

NEVER = np.inf


@dataclass(frozen=True)
class Age:
    """Age of acquisition in steps, with the 95 % interval of a bootstrap over pairs; all NaN, and a reason, where there
    is none. An end of the interval is NaN where more than 2.5 % of the resampled sets never get there."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""


def crossing(steps: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The step from which on accuracy stays above the middle between chance and its last value.

    steps: (step,) ascending;  accuracies: (..., step) -> (...) float64 steps; lower = earlier. The first step where it
    is above the middle throughout; infinite where it ends at chance or below. A dip below the middle puts it off, so
    that one lucky checkpoint at the start does not count.
    """
    steps, accuracies = np.asarray(steps, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    last = accuracies[..., -1]
    middle = (CHANCE + last) / 2
    below = accuracies < middle[..., None]
    before = len(steps) - 1 - np.argmax(below[..., ::-1], axis=-1)
    before = np.where(below.any(axis=-1), np.minimum(before, len(steps) - 2), 0)
    unit, x = unit_of(steps), step_axis(steps)
    after = np.minimum(before + 1, len(steps) - 1)
    low, high = (np.take_along_axis(accuracies, i[..., None], axis=-1)[..., 0] for i in (before, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (middle - low) / (high - low)
    crossed = unit * (10 ** (x[before] + part * (x[after] - x[before])) - 1)
    return np.where(last <= CHANCE, NEVER, np.where(below.any(axis=-1), crossed, steps[0]))


def resampled(worth: np.ndarray, parts: Mapping[tuple[str, bool], np.ndarray], draws: int,
              seed: int) -> dict[tuple[str, bool], np.ndarray]:
    """Accuracies of paradigms whose pairs are drawn with replacement: part -> (draw, step).

    worth: (step, pair) of `points`. The same pairs are drawn for all checkpoints.
    """
    accuracies = {}
    for part, numbers in parts.items():
        weights = bootstrap_weights(len(numbers), draws, seeds.derive(seed, "age", part[0], int(part[1])))
        accuracies[part] = weights @ worth[:, numbers].T / len(numbers)
    return accuracies


def age(steps: np.ndarray, group: Group, accuracies: np.ndarray, lowest: float,
        draws: Mapping[tuple[str, bool], np.ndarray]) -> Age:
    """Age of acquisition of a group.

    accuracies: (step,);  lowest: lower end of the last one's interval, which has to be above chance;  draws: of
    `resampled`, every paradigm of the group among them.
    """
    if len(steps) < 2:
        return Age(float("nan"), reason="one checkpoint")
    if not lowest > CHANCE:
        return Age(float("nan"), reason=f"not above chance at the end ({100 * accuracies[-1]:.1f} %)")
    value = float(crossing(steps, accuracies))
    if value <= steps[0]:
        return Age(float("nan"), reason=f"above the middle from the first checkpoint on (step {steps[0]:,})")
    ages = crossing(steps, np.mean([draws[part] for part in group.parts], axis=0))
    low, high = (float(np.quantile(ages, (1 + sign * LEVEL) / 2, method="inverted_cdf")) for sign in (-1, 1))
    return Age(value, _finite_or_nan(low), _finite_or_nan(high))


def _finite_or_nan(end: float) -> float:
    return end if np.isfinite(end) else float("nan")
