"""Phases of a training: a hidden Markov model over the signals of a cell, after Hu et al. (2023), "Latent State Models
of Training Dynamics", and PolyPythias (van der Wal et al. 2025), who find by it the runs that go another way.

A state is a level of all signals, a Gaussian with a variance per principal component. States come in the order of time
and may be passed over, but do not come back (a left-to-right model): so a phase of a run has a first and a last step,
and few checkpoints suffice to tell. A level that returns - a spike - is a phase of its own. How many states there are
is told by data that the model has not seen: the runs of other seeds, or of a single run every second checkpoint.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import exp, log
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetrace.atlas.markov import Models, Prior, fit, log_likelihood

if TYPE_CHECKING:
    from hmmlearn.hmm import GaussianHMM

Verdict = Literal["phases", "none", "undecided"]
MOST_STATES, MOST_FOLDS = 6, 8
LIKELIER = 20
"""So many times as likely must held-out data be with more states: if there is one state only, this happens in less than
1 of 20 studies (Markov's inequality)."""
MOVES = 0.5
"""Standard deviations by which a signal has to change at a turn to be said to move."""
LEAST_POINTS = 10
"""Checkpoints of all runs together, below which nothing found means nothing."""
_VARIANCE, _WEIGHT = 0.1, 2.0  # prior of a state's variance, in variances of the cell; its weight, in checkpoints
_HELD = 0.95  # of the variance, by the components that count
_SKIP = 0.05  # at first, of the ways out of a state those that pass over the next
_PRIOR = Prior(probabilities=1.1, variance=_VARIANCE * _WEIGHT, weight=_WEIGHT + 1)
_ITERATIONS, _TOLERANCE = 15, 1e-2


@dataclass(frozen=True)
class Phase:
    """A state of a training.

    state: 0-based, in the order of time;  first_step, last_step: median over the runs that visit it;  runs: how many;
    means: (signal,) float64 in each signal's unit;  standardised: (signal,) in standard deviations of the cell.
    """

    state: int
    first_step: int
    last_step: int
    runs: int
    means: np.ndarray
    standardised: np.ndarray


@dataclass(frozen=True)
class Turn:
    """A change of phase on the way that most runs take.

    before, after: states;  step_before, step_after: last checkpoint of the one and first of the other, median over
    runs;  change: (signal,) float64 in standard deviations, signed;  largest: index of the signal that changes most;
    halfway: (signal,) step at which the mean course passes the middle between both states' means, NaN for a change
    below `MOVES`;  moves: lens whose signal does so first, "together" where those of several do between the same two
    checkpoints, empty where none moves.
    """

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
    other_way: (run,) bool, whose path of states is not the majority's;  criterion: what was held out;  reason: words.
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


def training_map(values: np.ndarray, steps: np.ndarray, lenses: Sequence[str]) -> TrainingMap:
    """The phases of the runs of a cell.

    values: (run, signal, time) float, finite;  steps: (time,) of the checkpoints, ascending;  lenses: (signal,) whose
    signal each is. No random choice is made: the model is fitted from the best pieces of the mean course on. Raises
    ValueError for other shapes and NaN.
    """
    values, steps = np.asarray(values, dtype=np.float64), np.asarray(steps)
    if values.ndim != 3 or not values.size or values.shape[1:] != (len(lenses), len(steps)):
        raise ValueError(f"values (shape {values.shape}) must be (run, signal, time) of {len(lenses)} signals at "
                         f"{len(steps)} steps")
    if not np.isfinite(values).all():
        raise ValueError("values must not hold NaN: leave such signals out")
    middle, spread = values.mean(axis=(0, 2)), values.std(axis=(0, 2))
    spread = np.where(spread > 1e-12 * np.abs(values).max(axis=(0, 2)), spread, 1)
    curves = ((values - middle[:, None]) / spread[:, None]).transpose(0, 2, 1)
    criterion = "held-out seed" if len(curves) > 1 else "every second checkpoint"
    components = _components(curves)
    count, gains = _count(components)
    states, probability = _decoded(components, count, curves)
    phases = _phases(values, curves, steps, states)
    way = _way(states)
    turns = _turns(curves, steps, states, way, lenses)
    verdict, reason = _said(gains, len(phases), curves.shape[0] * curves.shape[1])
    other = np.array([_path(run) != way for run in states])
    return TrainingMap(states, probability, gains, phases, turns, other, criterion, verdict, reason)


def _count(curves: np.ndarray) -> tuple[int, dict[int, float]]:
    """How many states, and by number the gain in held-out log likelihood over one. curves: (run, time, component)."""
    gains, count = {1: 0.0}, 1
    if curves.shape[0] * curves.shape[1] < LEAST_POINTS:
        return count, gains
    alone = _held_out(curves, 1)
    for states in range(2, min(MOST_STATES, curves.shape[1] // 2) + 1):
        gains[states] = _held_out(curves, states) - alone
        if gains[states] > gains[count] + log(LIKELIER):
            count = states
        elif states > count + 1:  # two in a row gain nothing
            break
    return count, gains


def _components(curves: np.ndarray) -> np.ndarray:
    """(run, time, component) float64 of variance 1: the principal components that hold `_HELD` of the variance.

    Signals that say the same, loss and accuracy, count once by this: a Gaussian with a variance per component knows
    that they go together, one with a variance per signal takes each for evidence of its own.
    """
    left, sizes, _ = np.linalg.svd(_flat(curves), full_matrices=False)
    held = np.cumsum(np.square(sizes)) / max(np.square(sizes).sum(), 1e-300)
    count = int((held < _HELD).sum()) + 1
    return (left[:, :count] * np.sqrt(len(left)) * (sizes[0] > 0)).reshape(*curves.shape[:2], -1)


def _held_out(curves: np.ndarray, states: int) -> float:
    """Log likelihood of all that is held out, in nats: of runs in at most `MOST_FOLDS` parts, or of a single run every
    second checkpoint."""
    runs = len(curves)
    if runs == 1:
        halves = curves[:, ::2], curves[:, 1::2]
        return sum(float(log_likelihood(other, _fitted(known, np.ones((1, 1)), states)).sum())
                   for known, other in (halves, halves[::-1]))
    held = np.arange(runs) % min(runs, MOST_FOLDS) == np.arange(min(runs, MOST_FOLDS))[:, None]
    return float(log_likelihood(curves, _fitted(curves, 1.0 - held, states))[held].sum())


def _fitted(curves: np.ndarray, weights: np.ndarray, states: int) -> Models:
    """A model of so many states for each choice of runs. curves: (run, time, component), of variance 1;  weights:
    (model, run), 1 for the runs that count, otherwise 0."""
    begin = [_begin(curves[chosen > 0], states) for chosen in weights]
    together = Models(*(np.stack([getattr(one, field.name) for one in begin]) for field in fields(Models)))
    return fit(curves, weights, together, _PRIOR, rounds=_ITERATIONS, tolerance=_TOLERANCE)


def _begin(curves: np.ndarray, states: int) -> Models:
    """Where the fit of a model starts from, without the axis of models: the best pieces of the mean course."""
    pieces = _pieces(curves.mean(axis=0), min(states, curves.shape[1]))
    of = np.searchsorted(pieces, np.arange(curves.shape[1]), side="right")
    means = np.stack([curves[:, of == state].mean(axis=(0, 1)) if (of == state).any() else curves[:, -1].mean(axis=0)
                      for state in range(states)])
    rest = np.square(curves - means[of]).mean(axis=(0, 1))
    stay = 1 - states / (2 * max(curves.shape[1], states))
    start = np.array([1.0]) if states == 1 else np.r_[1 - _SKIP, np.full(states - 1, _SKIP / (states - 1))]
    onward = np.stack([_onward(state, states, stay) for state in range(states)])
    return Models(start, onward, means, np.tile(rest + _VARIANCE, (states, 1)))


def _onward(state: int, states: int, stay: float) -> np.ndarray:
    """(state,) float64: probabilities of the next state; the earlier ones have none, and EM keeps zeros."""
    row = np.zeros(states)
    ahead = states - 1 - state
    row[state] = stay if ahead else 1
    if ahead:
        row[state + 1] = (1 - stay) * (1 - _SKIP if ahead > 1 else 1)
    if ahead > 1:
        row[state + 2:] = (1 - stay) * _SKIP / (ahead - 1)
    return row


def _pieces(curve: np.ndarray, count: int) -> np.ndarray:
    """(count - 1,) int64, ascending: where the pieces begin, after the first, of the constant pieces that fit a course
    best by least squares. curve: (time, signal). By dynamic programming (Bellman 1961)."""
    times = len(curve)
    sums = np.concatenate([np.zeros((1, curve.shape[1])), np.cumsum(curve, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum(np.square(curve).sum(axis=1))])
    start, end = np.triu_indices(times + 1, 1)
    cost = np.full((times + 1, times + 1), np.inf)
    cost[start, end] = squares[end] - squares[start] - np.square(sums[end] - sums[start]).sum(axis=1) / (end - start)
    best, begins = cost[0], []
    for _ in range(count - 1):
        total = best[:, None] + cost
        begins.append(total.argmin(axis=0))
        best = total.min(axis=0)
    found, at = [], times
    for begin in reversed(begins):
        at = int(begin[at])
        found.append(at)
    return np.array(found[::-1], dtype=np.int64)


def _decoded(components: np.ndarray, count: int, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest states and their probability, each (run, time). States that no run visits are not counted, and
    neighbours between which no signal changes by `MOVES` are one. curves: (run, time, signal), standardised."""
    runs, times, _ = components.shape
    if count == 1:
        return np.zeros((runs, times), np.int64), np.ones((runs, times))
    model = _decoder(_fitted(components, np.ones((1, runs)), count), count)
    states = model.predict(_flat(components), _lengths(components))
    posterior = model.predict_proba(_flat(components), _lengths(components))
    means = {state: _flat(curves)[states == state].mean(axis=0) for state in np.unique(states)}
    numbers = np.zeros(count, np.int64)  # of the states, as they are told apart
    for before, after in pairwise(means):
        numbers[after:] += int(np.abs(means[after] - means[before]).max() >= MOVES)
    alike = numbers == numbers[states][:, None]
    return numbers[states].reshape(runs, times), (posterior * alike).sum(axis=1).reshape(runs, times)


def _decoder(models: Models, count: int) -> "GaussianHMM":
    """The only one of the models, as hmmlearn has it."""
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(count, "diag")
    model.startprob_, model.transmat_ = models.start[0], models.onward[0]
    model.means_, model.covars_ = models.means[0], models.variances[0]
    return model


def _phases(values: np.ndarray, curves: np.ndarray, steps: np.ndarray, states: np.ndarray) -> tuple[Phase, ...]:
    found = []
    for state in range(states.max() + 1):
        here = states == state
        visit = here.any(axis=1)
        first = here[visit].argmax(axis=1)
        last = here.shape[1] - 1 - here[visit, ::-1].argmax(axis=1)
        found.append(Phase(state, _middle(steps[first]), _middle(steps[last]), int(visit.sum()),
                           values.transpose(0, 2, 1)[here].mean(axis=0), curves[here].mean(axis=0)))
    return tuple(found)


def _path(run: np.ndarray) -> tuple[int, ...]:
    """The states that a run visits, in order. run: (time,)."""
    return tuple(np.unique(run).tolist())


def _way(states: np.ndarray) -> tuple[int, ...]:
    """The path of most runs; of several as frequent ones the longest, then the first by number."""
    paths = Counter(_path(run) for run in states)
    return min(paths, key=lambda path: (-paths[path], -len(path), path))


def _turns(curves: np.ndarray, steps: np.ndarray, states: np.ndarray, way: tuple[int, ...],
           lenses: Sequence[str]) -> tuple[Turn, ...]:
    on_way = np.array([_path(run) == way for run in states])
    curves, states = curves[on_way], states[on_way]
    course, found = curves.mean(axis=0), []
    for before, after in pairwise(way):
        begins = (states >= after).argmax(axis=1)  # (run,) first checkpoint of the later state
        low, high = curves[states == before].mean(axis=0), curves[states == after].mean(axis=0)
        change, at = high - low, _middle(begins)
        crossed = [_crossing(course[:, i] * np.sign(change[i]), (low[i] + high[i]) / 2 * np.sign(change[i]), at)
                   if abs(change[i]) >= MOVES else None for i in range(len(change))]
        halfway = [np.nan if each is None else np.interp(each, np.arange(len(steps)), steps) for each in crossed]
        moved = [(each, lens) for each, lens in zip(crossed, lenses, strict=True) if each is not None]
        earliest = min((np.ceil(each) for each, _ in moved), default=0)
        firsts = {lens for each, lens in moved if np.ceil(each) == earliest}
        moves = firsts.pop() if len(firsts) == 1 else "together" if firsts else ""
        found.append(Turn(before, after, _middle(steps[begins - 1]), _middle(steps[begins]), change,
                          int(np.abs(change).argmax()), np.array(halfway), moves))
    return tuple(found)


def _crossing(course: np.ndarray, level: float, near: int) -> float | None:
    """The time, in checkpoints, at which a course rises through a level, nearest to a checkpoint; None if it never
    does."""
    rises = np.flatnonzero((course[:-1] < level) & (course[1:] >= level))
    if not len(rises):
        return None
    times = rises + (level - course[rises]) / (course[rises + 1] - course[rises])
    return float(times[np.abs(times - (near - 0.5)).argmin()])


def _middle(values: np.ndarray) -> int:
    """The median; of two in the middle the smaller one."""
    return int(np.sort(values)[(len(values) - 1) // 2])


def _said(gains: Mapping[int, float], count: int, points: int) -> tuple[Verdict, str]:
    if count > 1:
        gain = gains.get(count, max(gains.values()))
        times = f"{exp(gain):,.0f}" if gain < log(1e6) else f"10^{gain / log(10):.0f}"
        return "phases", f"held-out checkpoints are {times} times as likely in {count} phases as in one"
    if points < LEAST_POINTS:
        return "undecided", f"{points} checkpoints are fewer than {LEAST_POINTS}"
    return "none", f"held-out checkpoints are nowhere {LIKELIER} times as likely in several phases"


def _flat(curves: np.ndarray) -> np.ndarray:
    return curves.reshape(-1, curves.shape[-1])


def _lengths(curves: np.ndarray) -> list[int]:
    return [curves.shape[1]] * len(curves)
