"""Scores of the arms original, adapted and control: their courses, differences and summaries as rows of the table.
Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.lenses.dynamics.forgetting import compared_steps, relative_difference
from finetrace.lenses.dynamics.gains import area_under_curve, relative_increase, step_of_gain
from finetrace.lenses.dynamics.resampling import Resampled, Resampling
from finetrace.lenses.dynamics.table import DIFFERENCES, Key, Table


@dataclass(frozen=True)
class Arm:
    """What one lens found along the trajectories of one arm, one trajectory per seed."""

    steps: tuple[int, ...]
    """(step,) ascending: the steps that all its seeds have."""
    axis: str
    """What the steps count, e.g. `pre-training steps`."""
    unit: float
    """Unit of the logarithmic time axis, in steps."""
    load: Callable[[int, int], Any]
    """load(seed, step): the raw results of one checkpoint."""


@dataclass(frozen=True)
class Scores:
    """One statistic of one arm, resampled."""

    steps: tuple[int, ...]
    axis: str
    unit: float
    estimate: Resampled
    """(step, curve)."""
    spread: np.ndarray | None = None
    """(step, curve): standard deviation over seeds (n - 1); None with one seed."""


Curve = tuple[str, int, str]
"""Readout, layer and relation."""


def collect(arm: Arm, resampling: Resampling, score: Callable[[Any], Resampled]) -> Scores:
    """Score every checkpoint of every seed of an arm: `score` turns what `load` gives into (curve,) of one training."""
    scored, values = [], []
    for step in arm.steps:
        seed_results = [score(arm.load(seed, step)) for seed in range(resampling.seeds)]
        scored.append(resampling.over_seeds(seed_results))
        values.append([result.value for result in seed_results])  # (step, seed, curve)
    spread = np.std(values, axis=1, ddof=1) if resampling.seeds > 1 else None
    return Scores(arm.steps, arm.axis, arm.unit, Resampled.stack(scored), spread)


def differences(arms: Mapping[str, Scores]) -> dict[str, Scores]:
    """adapted - original, control - original and adapted - control, as far as both arms are there and have steps in
    common.

    On one time axis step by step; where adaptation has an axis of its own, against the last step before it
    (`compared_steps`).
    """
    scores = {}
    for name, first, second, minuend_steps, subtrahend_steps in compared(arms):
        a, b = arms[first], arms[second]
        scores[name] = Scores(tuple(a.steps[i] for i in minuend_steps), a.axis, a.unit,
                              a.estimate[minuend_steps] - b.estimate[subtrahend_steps])
    return scores


def compared(arms: "Mapping[str, Arm] | Mapping[str, Scores]") -> Iterator[tuple[str, str, str, list[int], list[int]]]:
    """The differences of which both arms are there with steps in common: name, first and second arm, and the numbers
    of the compared steps in each (see `differences`)."""
    for name, (first, second) in DIFFERENCES.items():
        if first in arms and second in arms:
            a, b = arms[first], arms[second]
            if pairs := compared_steps(a.steps, a.axis, b.steps, b.axis):
                yield (name, first, second, [a.steps.index(step) for step, _ in pairs],
                       [b.steps.index(step) for _, step in pairs])


def add_arms(table: Table, source: str, item: str, statistic: str, arms: Mapping[str, Scores], curves: Sequence[Curve],
             *, n: int | Sequence[int], seeds: int, held_out: bool = False, gains: bool = True) -> None:
    """Rows of one statistic: every arm's course, the differences with p-values, and with `gains` what was gained when.

    curves: names of the second axis of `Scores.estimate`;  n: examples, of all or of each curve.
    """
    counts = [n] * len(curves) if isinstance(n, int) else list(n)
    parts = differences(arms)
    for arm, scores in (*arms.items(), *parts.items()):
        low, high = scores.estimate.interval()
        p = scores.estimate.p() if arm in parts else np.full(low.shape, np.nan)
        for c, (readout, layer, relation) in enumerate(curves):
            key = Key(source, item, arm, statistic, readout, layer, relation, held_out)
            table.add(key, scores.steps, scores.estimate.value[:, c], low[:, c], high[:, c], p[:, c], n=counts[c],
                      seeds=seeds)
            if scores.spread is not None:
                table.add(key._replace(statistic=f"{statistic}_seed_sd"), scores.steps, scores.spread[:, c],
                          n=counts[c], seeds=seeds)
            if gains and arm in arms:
                table.add(key._replace(statistic=f"{statistic}_increase"), scores.steps,
                          relative_increase(scores.estimate.value[:, c]), n=counts[c], seeds=seeds)
    if gains:
        for arm, scores in arms.items():
            _add_gains(table, Key(source, item, arm, statistic, held_out=held_out), scores, curves, counts, seeds)
        _add_relative(table, Key(source, item, "", statistic, held_out=held_out), arms, parts, curves, counts, seeds)


def _add_gains(table: Table, key: Key, scores: Scores, curves: Sequence[Curve], counts: Sequence[int],
               seeds: int) -> None:
    """Gain from the first to the last step, when 90 % of it was there, area under the curve."""
    if len(scores.steps) < 2:
        return
    steps, unit, estimate = np.array(scores.steps), scores.unit, scores.estimate
    gain, error = gain_and_error(estimate, 0, -1)
    over_time = Resampled(np.moveaxis(estimate.value, 0, -1), np.moveaxis(estimate.draws, 1, -1))  # (curve, step)
    recorded = step_of_gain(steps, over_time.value, error=error, unit=unit)
    drawn = over_time.map(lambda curves: step_of_gain(steps, curves, unit=unit).interpolated)
    area = over_time.map(lambda curves: area_under_curve(steps, curves, unit))
    ends = {"gain": gain.interval(), "step_90_interpolated": drawn.interval(), "area": area.interval()}
    values = {"gain": gain.value, "step_90": recorded.recorded, "step_90_interpolated": recorded.interpolated,
              "area": area.value}
    for name, value in values.items():
        low, high = (np.where(np.isfinite(value), end, np.nan)
                     for end in ends.get(name, (np.full(len(curves), np.nan),) * 2))
        for c, (readout, layer, relation) in enumerate(curves):
            curve_key = key._replace(statistic=f"{key.statistic}_{name}", readout=readout, layer=layer,
                                     relation=relation)
            table.add(curve_key, steps[-1], value[c], low[c], high[c], n=counts[c], seeds=seeds)


def _add_relative(table: Table, key: Key, arms: Mapping[str, Scores], parts: Mapping[str, Scores],
                  curves: Sequence[Curve], counts: Sequence[int], seeds: int) -> None:
    """Differences from the original as shares of what the original had learned by then."""
    for name, part in parts.items():
        if DIFFERENCES[name][1] != "original":
            continue
        original = arms["original"]
        first = arms[DIFFERENCES[name][0]]
        against = [b for _, b in compared_steps(first.steps, first.axis, original.steps, original.axis)]
        at = [original.steps.index(step) for step in against]
        gain, error = gain_and_error(original.estimate, 0, at)
        shares = relative_difference(part.estimate.value, gain.value, error)
        draws = relative_difference(part.estimate.draws, gain.draws)
        low, high = (np.where(np.isfinite(shares), end, np.nan) for end in Resampled(shares, draws).interval())
        for c, (readout, layer, relation) in enumerate(curves):
            curve_key = key._replace(arm=name, statistic=f"{key.statistic}_relative", readout=readout, layer=layer,
                                     relation=relation)
            table.add(curve_key, part.steps, shares[:, c], low[:, c], high[:, c], n=counts[c], seeds=seeds)


def gain_and_error(scores: Resampled, first: int, last: int | list[int]) -> tuple[Resampled, np.ndarray]:
    """Score at `last` minus score at `first`, along the first axis, and the distance to the lower end of its interval
    (0 if that is unknown)."""
    gain = scores[last] - scores[[first] * len(last) if isinstance(last, list) else first]
    low, _ = gain.interval()
    return gain, np.where(np.isfinite(low), gain.value - low, 0.0)
