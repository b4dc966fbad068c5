"""The search over the grid of `mlp`: every point to its end, or successive halving.

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization"): all points are trained for a few epochs; the better half goes on from where it stands, and so on with
ever more epochs and ever fewer points, of which the last are trained to their end and compared as a full search
compares all. Each L2 strength halves its own shapes: a penalty acts late, so that early losses say how well a shape
learns, but would give up strong penalties wrongly.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Hidden = tuple[int, ...]
FACTOR = 2  # one in so many shapes of a round goes on, to so many times the epochs
EPOCHS, UPDATES = 5, 15  # of the first round at least
FINALISTS = 4  # points at least that are trained to their end


@dataclass(frozen=True)
class Fold:
    """Rows of one split of the training rows, tensors on the device: train (problem, row, dim), its codes (row,) int64,
    and the same of the rows held out."""

    train: "torch.Tensor"
    train_codes: "torch.Tensor"
    out: "torch.Tensor"
    out_codes: "torch.Tensor"


def halving_rounds(shapes: int, strengths: int, max_epochs: int, updates: int) -> list[tuple[int, int]]:
    """(shapes that train per strength, epoch up to which they do) per round, with `updates` per epoch: 16 shapes, 8
    strengths and 1,000 epochs of 3 updates give (16, 5), (8, 10), (4, 20), (2, 40), (1, 1000). A training may end by
    its loss before."""
    rounds, shapes_left, epoch, last = ([], shapes, max(EPOCHS, -(-UPDATES // updates)),
                                        max(1, -(-FINALISTS // strengths)))
    while shapes_left > last and epoch < max_epochs:
        rounds.append((shapes_left, epoch))
        shapes_left, epoch = max(last, -(-shapes_left // FACTOR)), epoch * FACTOR
    return [*rounds, (shapes_left, max_epochs)]


def mean_epochs(rounds: Sequence[tuple[int, int]], end: int) -> float:
    """Epochs per point of a search, if every training that goes on ends at epoch `end`; one round gives `end`."""
    ends = [0, *(min(epoch, end) for _, epoch in rounds)]
    return sum(shapes * (b - a) for (shapes, _), (a, b) in zip(rounds, pairwise(ends), strict=True)) / rounds[0][0]


def best_points(loss: np.ndarray, accuracy: np.ndarray, smaller: np.ndarray, keep: int) -> np.ndarray:
    """Which points go on, (point,) bool: the `keep` lowest losses on the rows held out, which early in a training tell
    networks apart that are right about the same rows; among equals the highest accuracy, then the lowest place in
    `smaller`.

    loss: (point,) nats, NaN for points given up before, infinity comes last;  accuracy: (point,) in [0, 1];  smaller:
    (point,) rank of the network by simplicity.
    """
    order = np.lexsort((smaller, -accuracy, loss))  # NaN is sorted to the end
    chosen = np.zeros(len(loss), dtype=bool)
    chosen[order[:keep]] = True
    return chosen & ~np.isnan(loss)


def search_grid(folds: Sequence[Fold], hidden: Sequence[Hidden], l2: Sequence[float], outputs: int, smaller: np.ndarray,
                rounds: Sequence[tuple[int, int]], parts: Sequence[Sequence[slice]], seed: int, max_epochs: int,
                device: str, progress: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """Held-out accuracy of the points that were trained to their end, mean over folds, NaN for the others, and the
    epochs that each was trained, mean over folds; both (problem, shape, strength).

    smaller: (shape, strength) rank of a point by simplicity;  rounds: see `halving_rounds`; one round is the full
    search;
    parts: per shape the problems that train at once;  progress: called with the share of the parts that are done.
    """
    from finetrace.lenses.probes.mlp_trainer import Training, scores

    size = (len(folds[0].train), len(hidden), len(l2))
    accuracy, loss, epochs = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size)
    alive = np.ones(size, dtype=bool)
    jobs = [(shape, part) for shape in range(len(hidden)) for part in parts[shape]]
    jobs.sort(key=lambda job: -smaller[job[0]].max())  # long ones first, so that no thread waits for the last
    going_on: dict[tuple[int, int], list[Training]] = {}  # trainings that go on

    def train(job: tuple[int, slice, int]) -> tuple[np.ndarray, ...]:
        shape, part, until = job
        trainings = going_on.pop((shape, part.start), None) or [
            Training(fold.train[part], fold.train_codes, outputs, hidden[shape], l2, [seed], max_epochs)
            for fold in folds]
        for training in trainings:
            training.drop(~alive[part, None, shape])
        results = []
        for training, fold in zip(trainings, folds, strict=True):
            networks = training.run(until)
            results.append((*scores(networks, fold.out[part], fold.out_codes), networks.epochs[:, 0]))
        if until < max_epochs:
            going_on[shape, part.start] = trainings
        return tuple(np.mean(values, axis=0) for values in zip(*results, strict=True))  # of (problem, strength)

    for number, (keep, until) in enumerate(rounds):
        if number:
            for p, k in np.ndindex(size[0], size[2]):
                alive[p, :, k] = best_points(loss[p, :, k], accuracy[p, :, k], smaller[:, k], keep)
            accuracy[~alive] = np.nan
        going = [(shape, part, until) for shape, part in jobs if alive[part, shape].any()]
        if len(going) < len(jobs):
            going_on = {job: trainings for job, trainings in going_on.items()
                        if job in {(shape, part.start) for shape, part, _ in going}}
        done = number * len(jobs)
        for (shape, part, _), (right, nats, trained) in zip(going, in_parallel(train, going, device), strict=True):
            nats = np.where(np.isnan(nats), np.inf, nats)  # of a network that overflowed
            accuracy[part, shape], loss[part, shape] = np.where(alive[part, shape], (right, nats), np.nan)
            epochs[part, shape] = trained
            done += 1
            progress(done / len(jobs) / len(rounds))
        progress((number + 1) / len(rounds))
    return accuracy, epochs


def in_parallel(call: Callable[[Any], Any], jobs: Sequence[Any], device: str) -> Iterator[Any]:
    """Results in the order of the jobs. On the CPU one thread per job: the products are too small to be shared out, and
    so a result does not depend on the number of threads."""
    import torch

    if device != "cpu":
        yield from map(call, jobs)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads == 1 or len(jobs) < 2:
            yield from map(call, jobs)
        else:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield from pool.map(call, jobs)
    finally:
        torch.set_num_threads(threads)


def weight_count(dim: int, hidden: Hidden, classes: int) -> int:
    """Weights and biases of one network."""
    sizes = (dim, *hidden, classes if classes > 2 else 1)
    return sum((a + 1) * b for a, b in pairwise(sizes))
