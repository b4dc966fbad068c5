"""What adaptation keeps and loses: compared steps, relative differences, facts learned, kept and lost. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Transitions(NamedTuple):
    """Facts between two states, as shares of all facts, each (...) float64 in [0, 1]; with those never known they sum
    to 1."""

    learned: np.ndarray
    """Known after, not before."""
    kept: np.ndarray
    """Known before and after."""
    lost: np.ndarray
    """Known before, not after."""


def transitions(before: np.ndarray, after: np.ndarray) -> Transitions:
    """Facts learned, kept and lost between two states: (..., fact) bool each -> shares of all facts.

    learned + kept is P@1 after, kept + lost is P@1 before; equal states learn and lose nothing.
    """
    before, after = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if before.shape[-1:] != after.shape[-1:] or not before.shape[-1:] or not before.shape[-1]:
        raise ValueError(f"before, after: have shapes {before.shape} and {after.shape}; give the same facts, at least "
                         "one")
    return Transitions((~before & after).mean(axis=-1), (before & after).mean(axis=-1), (before & ~after).mean(axis=-1))


def forgotten_share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(knowledge before - after) / before, of P@1 or counts: 0 = all kept (net), 1 = nothing left, negative = more
    than before.

    NaN where nothing was known before.
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(before > 0, (before - after) / before, np.nan)


def relative_difference(difference: np.ndarray, gain: np.ndarray, error: float | np.ndarray = 0.0) -> np.ndarray:
    """D / (score - score at the first step): what adaptation did, as a share of all that had been learned.

    difference: (...) adapted - original;  gain: (...) original - original at its first step;  error: (...) half width
    of the gain's interval. -1 = all that was learned is gone, 0 = nothing changed; NaN where the gain is not above its
    error.
    """
    gain = np.asarray(gain, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gain > np.maximum(error, 0), np.asarray(difference) / gain, np.nan)


def compared_steps(first: Sequence[int], first_axis: str, second: Sequence[int],
                   second_axis: str) -> list[tuple[int, int]]:
    """Which steps of two arms are compared, as pairs (step of the first, step of the second), ascending.

    On one axis: the steps that both have. Else the first began where the second ended (adaptation from the last
    checkpoint), and each of its steps is compared with the second's last one.
    """
    if first_axis == second_axis:
        return [(step, step) for step in sorted(set(first) & set(second))]
    return [(step, second[-1]) for step in first] if len(second) else []


def repeated(digests: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs of names whose content is the same, each with the first that had it: {name: digest} -> [(earlier, later),
    ...].

    Two trainings that share a checkpoint, or a table copied from one seed to another, are no second measurement.
    """
    first: dict[str, str] = {}
    return [(first[digest], name) for name, digest in digests.items() if first.setdefault(digest, name) != name]
