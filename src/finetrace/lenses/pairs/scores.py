"""What a pair is worth, and scores of groups of pairs, with intervals. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.intervals import LEVEL, mean_of_parts

CHANCE = 0.5


@dataclass(frozen=True)
class Pairs:
    """The pairs that were scored; every field has one entry per pair. tokens: (pair, 2) int64 scored tokens of the good
    and of the bad sentence."""

    fields: Sequence[str]
    phenomena: Sequence[str]
    paradigms: Sequence[str]
    control: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Group:
    """Pairs with one score, the unweighted mean over the paradigms in it, as BLiMP's.

    field, phenomenon, paradigm: as in the table; all three empty for the whole set;  control: whether its pairs cannot
    be told;  parts: paradigm and control -> (pair,) numbers.
    """

    field: str
    phenomenon: str
    paradigm: str
    control: bool
    parts: dict[tuple[str, bool], np.ndarray]

    @property
    def pairs(self) -> int:
        return sum(map(len, self.parts.values()))


def points(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """What pairs are worth: (...) float64, 1 where the good sentence has the higher score, 0 where the bad one has, 0.5
    where both are equal, as where the tokenizer makes the same tokens of them.

    The mean is the accuracy, in [0, 1], higher is better, 0.5 by chance.
    """
    good, bad = np.asarray(good, dtype=np.float64), np.asarray(bad, dtype=np.float64)
    return np.where(good == bad, 0.5, (good > bad).astype(np.float64))


def groups(pairs: Pairs) -> list[Group]:
    """The whole set without its control, then its fields, phenomena and paradigms, in the order of the pairs; pairs of
    the control apart."""
    collected: dict[tuple[str, str, str, bool], dict[tuple[str, bool], list[int]]] = {}
    keys = list(zip(pairs.fields, pairs.phenomena, pairs.paradigms, np.asarray(pairs.control, dtype=bool).tolist(),
                    strict=True))
    for level in range(4):
        for number, (field, phenomenon, paradigm, control) in enumerate(keys):
            if (level == 0 and control) or (level == 1 and not field):
                continue
            key = (("", "", ""), (field, "", ""), ("", phenomenon, ""), ("", phenomenon, paradigm))[level]
            parts = collected.setdefault((*key, control), {})
            parts.setdefault((f"{phenomenon}/{paradigm}", control), []).append(number)
    return [Group(*key, {name: np.array(numbers, dtype=np.int64) for name, numbers in parts.items()})
            for key, parts in collected.items()]


def accuracy(worth: np.ndarray, group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy of a group, and its 95 % interval: (...) each, of `points` (..., pair).

    Interval: `mean_of_parts`, pairs drawn within their paradigm; half points count as they are.
    """
    means = np.stack([worth[..., part].mean(axis=-1) for part in group.parts.values()])
    return means.mean(axis=0), *mean_of_parts(means, np.array([len(part) for part in group.parts.values()]))


def mean_margin(margins: np.ndarray, group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of score(good) - score(bad) in nats over a group, and its 95 % interval by Student's t, pairs drawn within
    their paradigm: (...) each, of (..., pair); higher is better, 0 by chance. The interval is NaN where a paradigm has
    one pair."""
    from scipy.special import stdtrit

    parts = [margins[..., part] for part in group.parts.values()]
    mean = np.mean([part.mean(axis=-1) for part in parts], axis=0)
    errors = [part.var(axis=-1, ddof=1) / part.shape[-1] if part.shape[-1] > 1 else np.full(part.shape[:-1], np.nan)
              for part in parts]
    half = stdtrit(max(1, group.pairs - len(parts)), (1 + LEVEL) / 2) * np.sqrt(np.sum(errors, axis=0)) / len(parts)
    return mean, mean - half, mean + half
