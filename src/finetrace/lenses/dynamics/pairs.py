"""Rows of the table from what the lens pairs found: accuracy by phenomenon, what was gained when, ages of acquisition.
Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.dynamics.arms import Arm, add_arms, collect
from finetrace.lenses.dynamics.resampling import Resampled, Resampling
from finetrace.lenses.dynamics.sources import Numbers, add_numbers
from finetrace.lenses.dynamics.table import Key, Table
from finetrace.lenses.pairs.scores import points
from finetrace.lenses.pairs.summary import AGE

OfPhenomena = Mapping[tuple[str, bool], Numbers]
"""(Phenomenon, control) -> what the lens's own table says of it; the phenomenon of the whole set is empty."""


@dataclass(frozen=True)
class CommonPairs:
    """The pairs that all trajectories have scored; each array is (pair,)."""

    phenomena: np.ndarray
    paradigms: np.ndarray
    control: np.ndarray
    """bool: pairs that cannot be told."""

    def rows(self, control: bool) -> np.ndarray:
        """Numbers of the pairs of the control, or of all others."""
        return np.flatnonzero(self.control == control)


def add_pairs(table: Table, name: str, control: bool, arms: Mapping[str, Arm], common: CommonPairs,
              numbers: Mapping[str, Sequence[OfPhenomena]], *, seeds: int, draws: int, seed: int) -> Resampling:
    """One set of minimal pairs: accuracy of the whole and of every phenomenon, the lens's other statistics, and when
    each is acquired.

    arms: `load` gives (pair, 2) scores in nats of the good and of the bad sentence;  numbers: of each arm's seeds. An
    accuracy is the mean over paradigms of the mean over their pairs, as the lens has it; pairs are resampled within
    paradigms.
    """
    rows = common.rows(control)
    paradigms = np.array([f"{phenomenon}/{paradigm}" for phenomenon, paradigm
                          in zip(common.phenomena[rows], common.paradigms[rows], strict=True)])
    resampling = Resampling(seeds, np.arange(len(rows)), draws, seed, paradigms)
    groups = _groups(common.phenomena[rows], paradigms, resampling)

    def score(scores_of_pairs: np.ndarray) -> Resampled:
        by = resampling.by_stratum(points(scores_of_pairs[rows, 0], scores_of_pairs[rows, 1]))
        return Resampled(*(np.stack([values[..., strata].mean(axis=-1) for strata in groups.values()], axis=-1)
                           for values in (by.value, by.draws)))

    scores = {arm: collect(arm_data, resampling, score) for arm, arm_data in arms.items()}
    sizes = [len(rows), *(int((common.phenomena[rows] == phenomenon).sum()) for phenomenon in list(groups)[1:])]
    add_arms(table, "pairs", name, "accuracy", scores, [("", 0, phenomenon) for phenomenon in groups], n=sizes,
             seeds=seeds, held_out=control)
    for phenomenon, size in zip(groups, sizes, strict=True):
        group_numbers = {arm: [output.get((phenomenon, control), {}) for output in outputs]
                         for arm, outputs in numbers.items()}
        add_numbers(table, "pairs", name, arms, group_numbers, resampling, known=("accuracy", AGE), relation=phenomenon,
                    held_out=control)
        _add_ages(table, Key("pairs", name, "", AGE, relation=phenomenon, held_out=control), arms, group_numbers,
                  resampling, size)
    return resampling


def _groups(phenomena: np.ndarray, paradigms: np.ndarray, resampling: Resampling) -> dict[str, np.ndarray]:
    """Phenomenon -> which strata, (stratum,) bool; first the whole set, whose name is empty."""
    phenomenon_of = dict(zip(paradigms.tolist(), phenomena.tolist(), strict=True))
    strata_phenomena = np.array([phenomenon_of[paradigm] for paradigm in resampling.strata.tolist()])
    groups = {"": np.ones(len(strata_phenomena), dtype=bool)}
    return groups | {name: strata_phenomena == name for name in dict.fromkeys(phenomena.tolist())}


def _add_ages(table: Table, key: Key, arms: Mapping[str, Arm], numbers: Mapping[str, Sequence[Numbers]],
              resampling: Resampling, n: int) -> None:
    """The lens's own ages of acquisition: of several seeds the mean, where each of them has one."""
    for name, arm in arms.items():
        ages = np.array([next(iter(seed_numbers.get(("", 0, AGE), {}).values()), (np.nan,) * 3)[:3]
                         for seed_numbers in numbers[name]])
        mean = resampling.of_numbers(ages[:, 0])
        low, high = ages[0, 1:] if resampling.seeds == 1 else mean.interval()
        table.add(key._replace(arm=name), arm.steps[-1], mean.value, low, high, n=n, seeds=resampling.seeds)
