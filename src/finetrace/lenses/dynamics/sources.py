"""Rows of the table from what the lens edges and the stage downstream found. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np

from finetrace.lenses.dynamics.arms import Arm, Scores, add_arms, collect
from finetrace.lenses.dynamics.resampling import Resampling
from finetrace.lenses.dynamics.table import Table

Numbers = Mapping[tuple[str, int, str], Mapping[int, tuple[float, float, float, int]]]
"""What a lens's own table says of one trajectory: (readout, layer, statistic) -> step -> value, low, high, n."""


def add_edges(table: Table, task: str, arms: Mapping[str, Arm], readouts: Sequence[tuple[str, int]],
              sentences: np.ndarray,
              numbers: Mapping[str, Sequence[Numbers]], *, seeds: int, draws: int, seed: int) -> Resampling:
    """One task of edge probing: F1 of every readout with multi-bootstrap intervals, and the lens's other statistics.

    arms: `load` gives (readout, target, 3) true positives, false positives, false negatives, in the order of
    `readouts`;
    sentences: (target,) what is resampled as a whole;  numbers: of each arm's seeds.
    """
    resampling = Resampling(seeds, sentences, draws, seed)
    scores = {name: collect(arm, resampling, resampling.f1) for name, arm in arms.items()}
    add_arms(table, "edges", task, "f1", scores, [(*key, "") for key in readouts], n=len(sentences), seeds=seeds)
    add_numbers(table, "edges", task, arms, numbers, resampling, known=("f1",))
    return resampling


def add_downstream(table: Table, task: str, arms: Mapping[str, Arm], examples: int,
                   numbers: Mapping[str, Sequence[Numbers]], *, seeds: int, draws: int, seed: int) -> Resampling:
    """One task learned from the checkpoints: accuracy with multi-bootstrap intervals, and the stage's other statistics.

    arms: `load` gives (example,) hits in [0, 1];  numbers: of each arm's seeds.
    """
    resampling = Resampling(seeds, np.arange(examples), draws, seed)
    scores = {name: collect(arm, resampling, lambda hits: resampling.mean(hits[None])) for name, arm in arms.items()}
    add_arms(table, "downstream", task, "accuracy", scores, [("", 0, "")], n=examples, seeds=seeds)
    add_numbers(table, "downstream", task, arms, numbers, resampling, known=("accuracy",))
    return resampling


def add_numbers(table: Table, source: str, item: str, arms: Mapping[str, Arm], numbers: Mapping[str, Sequence[Numbers]],
                resampling: Resampling, known: Sequence[str], relation: str = "", held_out: bool = False) -> None:
    """Statistics that are known only as numbers, such as centres of gravity: means over seeds, intervals from
    resampled seeds.

    With one seed the interval is the one that the lens gave, and differences have none.  known: statistics that are
    left out, because the table has them already;  relation, held_out: of the keys.
    """
    curves = dict.fromkeys(key for arm_numbers in numbers.values() for seed_numbers in arm_numbers
                           for key in seed_numbers
                           if key[2] not in known)
    for statistic in dict.fromkeys(name for _, _, name in curves):
        curves_here = [key for key in curves if key[2] == statistic]
        counts = [_count(numbers, key) for key in curves_here]
        by_arm = {name: _numbers_of_seeds(arm, numbers[name], curves_here) for name, arm in arms.items()}
        scores = {name: Scores(arms[name].steps, arms[name].axis, arms[name].unit,
                               resampling.of_numbers(values[..., 0]))
                  for name, values in by_arm.items()}
        side = Table()
        add_arms(side, source, item, statistic, scores,
                 [(readout, layer, relation) for readout, layer, _ in curves_here],
                 n=counts, seeds=resampling.seeds, held_out=held_out, gains=False)
        for key, course in side.select():
            low, high = course.low, course.high
            if resampling.seeds == 1 and key.arm in arms:
                curve = curves_here.index((key.readout, key.layer, statistic))
                low, high = by_arm[key.arm][0, :, curve, 1:].T
            table.add(key, course.steps, course.value, low, high, course.p, n=course.n, seeds=course.seeds)


def _numbers_of_seeds(arm: Arm, numbers: Sequence[Numbers], curves: Sequence[tuple[str, int, str]]) -> np.ndarray:
    """(seed, step, curve, 3) value, low, high; NaN where a seed has none."""
    nothing = (np.nan,) * 3
    return np.array([[[seed_numbers.get(key, {}).get(step, nothing)[:3] for key in curves] for step in arm.steps]
                     for seed_numbers in numbers],
                    dtype=np.float64)


def _count(numbers: Mapping[str, Sequence[Numbers]], key: tuple[str, int, str]) -> int:
    return max((row[3] for arm_numbers in numbers.values() for seed_numbers in arm_numbers
                for row in seed_numbers.get(key, {}).values()),
               default=0)
