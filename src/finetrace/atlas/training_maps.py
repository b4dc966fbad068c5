"""Phases of a training: a hidden Markov model over the signals of a cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["phases", "none", "undecided"]


@dataclass(frozen=True)
class Phase:
    """A state of a training. state: 0-based, in the order of time;  first_step, last_step: median over the runs that
    visit it;  runs: how many;  means: (signal,) float64 in each signal's unit;  standardised: (signal,) in standard
    deviations of the cell."""

    state: int
    first_step: int
    last_step: int
    runs: int
    means: np.ndarray
    standardised: np.ndarray


@dataclass(frozen=True)
class Turn:
    """A change of phase on the way that most runs take. before, after: states;  step_before, step_after: last checkpoint
    of the one and first of the other, median over runs;  change: (signal,) float64 in standard deviations, signed;
    largest: index of the signal that changes most;  halfway: (signal,) step at which the mean course passes the middle
    between both states' means, NaN for a change below `MOVES`;  moves: lens whose signal does so first, or "together"
    where those of several do between the same two checkpoints."""

    before: int
    after: int
    step_before: int
    step_after: int
    change: np.ndarray
    largest: int
    halfway: np.ndarray
    moves: str


@dataclass(frozen=True)
class TrainingMap:
    """The phases of a cell's runs.

    states: (run, time) int64, 0-based, never falling within a run;  probability: (run, time) float64 of that state;
    gains: number of states -> natural logarithm of how many times as likely held-out data are as with one state;
    other_way: (run,) bool, whose path of states is not the majority's;  criterion: what was held out;  reason: in words.
    """

    states: np.ndarray
    probability: np.ndarray
    gains: Mapping[int, float]
    phases: tuple[Phase, ...]
    turns: tuple[Turn, ...]
    other_way: np.ndarray
    criterion: str
    verdict: Verdict
    reason: str

    @property
    def count(self) -> int:
        """How many states; 1: no phases."""
        return len(self.phases)
