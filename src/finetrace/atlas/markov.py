"""Gaussian hidden Markov models with a variance per component, several fitted side by side to courses of equal length.

Expectation maximisation as `hmmlearn.hmm.GaussianHMM` does it, with its priors and its rule when to stop, and to the
same numbers; but every fold of the held-out runs is a model of one array, so that a step in time is a few operations
for all of them. (Baum-Welch: Rabiner 1989; backward by smoothed probabilities: Rauch, Tung and Striebel 1965.)
"""

from dataclasses import dataclass, fields

import numpy as np

_VANISHES = 1e-200
"""Below this sum of likelihoods, relative to the largest, the largest state cannot be reached."""


@dataclass(frozen=True)
class Models:
    """Models with equally many states. start: (model, state) probabilities;  onward: (model, state, state) of the next
    state, 0 stays 0;  means, variances: (model, state, component)."""

    start: np.ndarray
    onward: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def at(self, which: np.ndarray) -> "Models":
        """Some of them, by number or mask."""
        return Models(self.start[which], self.onward[which], self.means[which], self.variances[which])


@dataclass(frozen=True)
class Prior:
    """As hmmlearn's. probabilities: of a symmetric Dirichlet for start and onward;  variance, weight: covars_prior and
    covars_weight."""

    probabilities: float
    variance: float
    weight: float


def fit(curves: np.ndarray, weights: np.ndarray, begin: Models, prior: Prior, *, rounds: int,
        tolerance: float) -> Models:
    """Models fitted to runs.

    curves: (run, time, component) float64;  weights: (model, run) of a run in a model, 0 leaves it out;  begin: where
    to start from;  rounds: at most;  tolerance: gain of log likelihood in nats below which a model is finished.
    """
    names = [field.name for field in fields(Models)]
    models = Models(*(getattr(begin, name).copy() for name in names))
    open_ = np.arange(len(weights))
    before = np.full(len(weights), -np.inf)
    for _ in range(rounds):
        now = models.at(open_)
        total, smoothed, moves = _expected(curves, weights[open_], now)
        better = _maximised(curves, smoothed, moves, now, prior)
        for name in names:
            getattr(models, name)[open_] = getattr(better, name)
        goes_on = total - before[open_] >= tolerance
        before[open_] = total
        open_ = open_[goes_on]
        if not len(open_):
            break
    return models


def log_likelihood(curves: np.ndarray, models: Models) -> np.ndarray:
    """(model, run) float64 in nats. curves: (run, time, component)."""
    return _forward(_log_density(curves, models), models)[0]


def _log_density(curves: np.ndarray, models: Models) -> np.ndarray:
    """(time, model, run, state): of a checkpoint in a state."""
    variances = np.maximum(models.variances, np.finfo(float).tiny)
    apart = curves.transpose(1, 0, 2)[:, None, :, None] - models.means[:, None]
    size = np.log(variances).sum(axis=-1) + curves.shape[-1] * np.log(2 * np.pi)
    return -0.5 * (np.einsum("tmrsc,msc->tmrs", np.square(apart), 1 / variances) + size[:, None])


def _forward(density: np.ndarray, models: Models, *,
             careful: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log likelihood (model, run), and, each (time, model, run, state), the states' probabilities given what was until
    then, and given what was before. density: logarithms.

    A step is scaled by the state of the largest density. Where somewhere that state cannot be reached and all others
    vanish beside it, all is done again with care, scaled by the largest state that can be reached; so a model is never
    impossible, and states are forgotten that are less likely than exp(-700) at that time.
    """
    expected, given = np.empty_like(density), np.empty_like(density)
    largest = density.max(axis=-1, keepdims=True)
    scaled = np.exp(density - largest)
    sizes = np.empty_like(largest)
    expected[0] = models.start[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        for time in range(len(density)):
            if time:
                np.matmul(given[time - 1], models.onward, out=expected[time])
            if careful:
                logs = density[time] + np.log(expected[time])
                largest[time] = logs.max(axis=-1, keepdims=True)
                np.exp(logs - largest[time], out=given[time])
            else:
                np.multiply(scaled[time], expected[time], out=given[time])
            np.add.reduce(given[time], axis=-1, keepdims=True, out=sizes[time])
            given[time] /= sizes[time]
    if not careful and not sizes.min() >= _VANISHES:  # NaN follows a 0
        return _forward(density, models, careful=True)
    return (largest + np.log(sizes)).sum(axis=0)[..., 0], given, expected


def _expected(curves: np.ndarray, weights: np.ndarray,
              models: Models) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log likelihood of all runs (model,); probability of each state given all, times the run's weight (time, model,
    run, state); expected numbers of moves between states (model, state, state)."""
    total, given, expected = _forward(_log_density(curves, models), models)
    smoothed, ahead = np.empty_like(given), np.zeros_like(given)
    smoothed[-1] = given[-1]
    backward = models.onward.transpose(0, 2, 1)
    np.maximum(expected, np.finfo(float).tiny, out=expected)
    for time in range(len(given) - 2, -1, -1):
        np.divide(smoothed[time + 1], expected[time + 1], out=ahead[time])
        np.matmul(ahead[time], backward, out=smoothed[time])
        smoothed[time] *= given[time]
    moves = _flat(given * weights[:, :, None]).transpose(0, 2, 1) @ _flat(ahead) * models.onward
    return (total * weights).sum(axis=1), smoothed * weights[:, :, None], moves


def _maximised(curves: np.ndarray, smoothed: np.ndarray, moves: np.ndarray, models: Models, prior: Prior) -> Models:
    """The models that fit best where runs are in their states as expected."""
    points = curves.transpose(1, 0, 2).reshape(-1, curves.shape[-1])
    states = _flat(smoothed).transpose(0, 2, 1)
    mass = states.sum(axis=-1, keepdims=True)
    sums, squares = states @ points, states @ np.square(points)
    means = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), models.means)
    spread = squares - 2 * means * sums + np.square(means) * mass
    variances = (prior.variance + spread) / np.maximum(max(prior.weight - 1, 0) + mass, 1e-5)
    more = prior.probabilities - 1
    start = np.where(models.start > 0, np.maximum(more + smoothed[0].sum(axis=1), 0), 0)
    onward = np.where(models.onward > 0, np.maximum(more + moves, 0), 0)
    return Models(_normalised(start), _normalised(onward), means, variances)


def _flat(of_runs: np.ndarray) -> np.ndarray:
    """(time, model, run, state) as (model, time x run, state)."""
    times, models, runs, states = of_runs.shape
    return of_runs.transpose(1, 0, 2, 3).reshape(models, times * runs, states)


def _normalised(values: np.ndarray) -> np.ndarray:
    sums = values.sum(axis=-1, keepdims=True)
    return values / np.where(sums > 0, sums, 1)
