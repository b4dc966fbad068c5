"""Classifier probes as Zhou and Srikumar (2022, "A closer look at how fine-tuning changes BERT") train them: multi-layer
perceptrons with ReLU, sizes and L2 strength from a grid, the best point trained again from several first weights.

A model is defined as in scikit-learn's MLPClassifier, which that study used: cross-entropy plus l2/2 times the squared weights
over the rows of the mini-batch, mini-batches of 200 in a new order each epoch, Adam (Kingma and Ba 2015) with rate 1e-3, first
weights and biases uniform within -+ sqrt(6 / (in + out)), one logistic output for two classes; training ends when the loss of
an epoch did not fall by 1e-4 below the best in more than 10 epochs in a row. Equal seeds draw equal numbers, so in float64 the
weights are scikit-learn's to rounding.

What makes it fast: all networks of one shape are trained in one batched computation, from which finished ones drop out, and
shapes are computed side by side.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.lenses.probes import checked, held_out_rows, spread

if TYPE_CHECKING:
    import torch

    from finetrace.lenses.probes.mlp_trainer import Trained

Hidden = tuple[int, ...]
SIZES = (32, 64, 128, 256)
HIDDEN: tuple[Hidden, ...] = tuple((a, b) for a in SIZES for b in SIZES)
ONE_LAYER: tuple[Hidden, ...] = tuple((a,) for a in SIZES)
L2_GRID = tuple(10.0**k for k in range(-7, 1))
BATCH = 200  # rows of a mini-batch
CACHE_BYTES = 8 * 2**20  # networks and rows that a processor holds close by
BLOCK = 4096  # rows per forward pass of an evaluation: bounds memory, changes nothing


@dataclass(frozen=True)
class MlpProbe:
    """The best networks of a grid, per problem.

    hidden: (shape,) sizes of the hidden layers;  l2: (strength,) ascending;  held_out_accuracy: (problem, shape, strength) in
    [0, 1], mean over folds, NaN when the grid has one point;  chosen_hidden: (problem,) position in `hidden`;  chosen_l2:
    (problem,);  weights: per problem, per layer (seed, in, out);  biases: per problem, per layer (seed, out); one output stands
    for two classes;  epochs: (problem, seed) int64 until the training ended;  converged: (problem, seed) bool, ended before the
    last epoch allowed;  classes: (class,) int64;  centre, scale: (problem, dim) float64, features are (x - centre) scale.
    """

    hidden: tuple[Hidden, ...]
    l2: np.ndarray
    held_out_accuracy: np.ndarray
    chosen_hidden: np.ndarray
    chosen_l2: np.ndarray
    weights: list[list[np.ndarray]]
    biases: list[list[np.ndarray]]
    epochs: np.ndarray
    converged: np.ndarray
    classes: np.ndarray
    centre: np.ndarray
    scale: np.ndarray


def mlp_grid(X: np.ndarray, y: np.ndarray, *, hidden: Sequence[Sequence[int]] = HIDDEN, l2: Sequence[float] = L2_GRID,
             seeds: Sequence[int] = (0, 1, 2, 3, 4), folds: int = 1, holdout: float = 0.2, seed: int = 0, max_epochs: int = 1000,
             standardise: bool = False, memory_mib: int = 1024, device: str = "cpu", dtype: str = "float32",
             told: Callable[[int, int], None] | None = None) -> MlpProbe:
    """Search the grid for every problem and train the best point once per seed.

    X: (problem, row, dim) float;  y: (row,) int labels;  hidden: shapes, () being no hidden layer, (64,) one, (64, 32) two;
    l2: strengths >= 0;  seeds: of the final trainings (first weights and order of the rows);  seed: of the search.
    folds: 1 chooses on one stratified `holdout` share of the rows (the default: a fifth of the time of 5 folds), more is
    stratified cross-validation as GridSearchCV has it. The highest mean accuracy wins; among equals the network with the fewest
    weights, then the stronger penalty. The final networks see all rows. A grid of one point is not searched.
    standardise: features with mean 0 and standard deviation 1 over the training rows; the study's protocol takes them as they
    are.  memory_mib: for what is computed at once on a GPU. The result of a problem depends on the others by rounding only,
    which a long training in float32 can blow up to an example or two; equal calls give equal bytes.
    told: called with (jobs done, all jobs) of the search.
    Raises ValueError for NaN, a single class, fewer rows than classes, sizes < 1, l2 < 0.
    """
    X, classes, codes = checked(X, y)
    shapes, strengths = _checked_grid(hidden, l2)
    if not len(seeds):
        raise ValueError("seeds: names none; give at least one")
    centre, scale = _scaling(X, standardise)

    def fit(part: np.ndarray, rows: np.ndarray, shape: int, strengths: np.ndarray, seeds: Sequence[int]) -> "Trained":
        return _train(features(part, rows), codes[rows], len(classes), shapes[shape], strengths, seeds, max_epochs, dtype, device)

    def features(part: np.ndarray, rows: np.ndarray) -> np.ndarray:
        values = X[np.ix_(part, np.flatnonzero(rows))]
        return (values - centre[part, None]) * scale[part, None] if standardise else values

    held_out = np.full((len(X), len(shapes), len(strengths)), np.nan)

    def parts(problems: Sequence[int], shape: int, models: int) -> list[np.ndarray]:
        """Problems of one shape in groups that fit the memory, on a CPU its cache."""
        room = CACHE_BYTES if device == "cpu" else memory_mib * 2**20
        size = max(1, room // mlp_bytes(X.shape[1], X.shape[2], len(classes), shapes[shape], models))
        return [np.asarray(problems[start:start + size]) for start in range(0, len(problems), size)]

    if len(shapes) * len(strengths) > 1:
        splits = fold_rows(y, folds, holdout, seed)
        searches = [(shape, part) for shape in range(len(shapes)) for part in parts(range(len(X)), shape, len(strengths))]

        def search(job: tuple[int, np.ndarray]) -> np.ndarray:
            shape, part = job
            found = [_accuracy(fit(part, ~out, shape, strengths, [seed]), features(part, out), codes[out]) for out in splits]
            return np.mean(found, axis=0)  # (problem, strength)

        for number, (job, found) in enumerate(zip(searches, _in_parallel(search, searches, device), strict=True)):
            held_out[job[1], job[0]] = found
            if told:
                told(number + 1, len(searches))
    best = [_best(table, shapes, X.shape[2], len(classes)) for table in held_out]
    everything = np.ones(len(y), dtype=bool)
    finals = [(chosen, part) for chosen in sorted(set(best))
              for part in parts([p for p in range(len(X)) if best[p] == chosen], chosen[0], len(seeds))]

    def finish(job: tuple[tuple[int, int], np.ndarray]) -> "Trained":
        (shape, strength), part = job
        return fit(part, everything, shape, strengths[[strength]], seeds)

    weights: list[list[np.ndarray]] = [[] for _ in X]
    biases: list[list[np.ndarray]] = [[] for _ in X]
    epochs, converged = np.zeros((len(X), len(seeds)), dtype=np.int64), np.zeros((len(X), len(seeds)), dtype=bool)
    for (_, part), found in zip(finals, _in_parallel(finish, finals, device), strict=True):
        for i, p in enumerate(part):
            weights[p] = [w[i, :, 0].cpu().numpy() for w in found.weights]
            biases[p] = [b[i, :, 0].cpu().numpy() for b in found.biases]
            epochs[p], converged[p] = found.epochs[i, :, 0], found.converged[i, :, 0]
    return MlpProbe(shapes, strengths, held_out, np.array([s for s, _ in best]), strengths[[k for _, k in best]], weights, biases,
                    epochs, converged, classes, centre, scale)


def mlp_logits(probe: MlpProbe, problem: int, X: np.ndarray) -> np.ndarray:
    """Scores of every class: X (row, dim) of one problem -> (seed, row, class) float64; for two classes they are (0, z)."""
    import torch

    weights, biases = ([torch.from_numpy(v) for v in values[problem]] for values in (probe.weights, probe.biases))
    scaled = (np.asarray(X, dtype=np.float64) - probe.centre[problem]) * probe.scale[problem]
    found = []
    for start in range(0, len(scaled), BLOCK):
        a = torch.as_tensor(scaled[start:start + BLOCK], dtype=weights[0].dtype).expand(len(weights[0]), -1, -1)
        found.append(_forward(weights, biases, a).to(torch.float64).numpy())
    z = np.concatenate(found, axis=1) if found else np.zeros((len(weights[0]), 0, biases[-1].shape[-1]))
    return z if len(probe.classes) > 2 else np.concatenate([np.zeros_like(z), z], axis=2)


def fold_rows(y: np.ndarray, folds: int, holdout: float, seed: int) -> list[np.ndarray]:
    """Which rows are held out, per fold (row,) bool: one stratified share, or `folds` stratified parts that cover all rows."""
    if folds == 1:
        return [held_out_rows(y, holdout, seed)]
    if not 2 <= folds <= len(y):
        raise ValueError(f"folds: {folds} is not between 1 and the number of rows, {len(y)}")
    random, part, start = np.random.default_rng(seed), np.empty(len(y), dtype=np.int64), 0
    for label in np.unique(y):  # deal each class round, going on where the last one ended: parts of equal size
        rows = random.permutation(np.flatnonzero(y == label))
        part[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    return [part == fold for fold in range(folds)]


def weight_count(dim: int, hidden: Hidden, classes: int) -> int:
    """Weights and biases of one network."""
    sizes = (dim, *hidden, classes if classes > 2 else 1)
    return sum((a + 1) * b for a, b in pairwise(sizes))


def mlp_bytes(rows: int, dim: int, classes: int, hidden: Hidden, models: int) -> int:
    """Memory that one problem takes while `models` networks of one shape are trained on its rows, in bytes."""
    network = 4 * weight_count(dim, hidden, classes) + BATCH * (dim + 3 * (sum(hidden) + classes))
    return 4 * (rows * dim + models * network)


def grid_operations(rows: int, dim: int, classes: int, hidden: Sequence[Hidden], strengths: int, folds: int) -> float:
    """Floating-point operations of one epoch of the search of one problem, all grid points and folds."""
    share = (folds - 1) / folds if folds > 1 else 0.8
    per_row = sum(6 * weight_count(dim, h, classes) - 2 * dim * (h[0] if h else 1) for h in hidden)
    return float(per_row) * rows * share * strengths * max(1, folds)


def _checked_grid(hidden: Sequence[Sequence[int]], l2: Sequence[float]) -> tuple[tuple[Hidden, ...], np.ndarray]:
    shapes = tuple(tuple(int(size) for size in shape) for shape in hidden)
    strengths = np.sort(np.asarray(l2, dtype=np.float64))
    if not shapes or len(set(shapes)) != len(shapes) or any(size < 1 for shape in shapes for size in shape):
        raise ValueError(f"hidden: {list(hidden)} must name different shapes of sizes above 0, e.g. [[32, 32], [64, 32]]")
    if strengths.ndim != 1 or not len(strengths) or not (strengths >= 0).all() or not np.isfinite(strengths).all():
        raise ValueError(f"l2: {list(l2)} must hold numbers from 0 on")
    return shapes, strengths


def _scaling(X: np.ndarray, standardise: bool) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract and to multiply with, (problem, dim) float64; a feature of float32 rounding only becomes 0."""
    if not standardise:
        return np.zeros((len(X), X.shape[2])), np.ones((len(X), X.shape[2]))
    parts = [spread(x) for x in X]
    return np.array([mean for mean, _ in parts]), np.array([scale for _, scale in parts])


def _best(table: np.ndarray, shapes: tuple[Hidden, ...], dim: int, classes: int) -> tuple[int, int]:
    """The chosen (shape, strength) of one problem: table (shape, strength) of held-out accuracy."""
    points = [(s, k) for s in range(len(shapes)) for k in range(table.shape[1])]
    top = np.nanmax(table) if np.isfinite(table).any() else np.nan
    equal = [(s, k) for s, k in points if not table[s, k] < top - 1e-12]
    return min(equal, key=lambda point: (weight_count(dim, shapes[point[0]], classes), shapes[point[0]], -point[1]))


def _train(X: np.ndarray, codes: np.ndarray, classes: int, hidden: Hidden, l2: np.ndarray, seeds: Sequence[int], max_epochs: int,
           dtype: str, device: str) -> "Trained":
    import torch

    from finetrace.lenses.probes.mlp_trainer import Training

    rows = torch.as_tensor(X, device=device).to(getattr(torch, dtype))
    gold = torch.as_tensor(codes, device=device)
    return Training(rows, gold, classes if classes > 2 else 1, hidden, l2.tolist(), seeds, max_epochs).run(max_epochs)


def _accuracy(found: "Trained", X: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Accuracy of networks of one seed on X (problem, row, dim), codes (row,): (problem, strength)."""
    import torch

    weights, biases = ([v.flatten(0, 2) for v in values] for values in (found.weights, found.biases))
    models = len(weights[0])
    rows = torch.as_tensor(X, device=weights[0].device).to(weights[0].dtype)
    gold = torch.as_tensor(codes, device=rows.device)
    right = torch.zeros(models, dtype=torch.int64, device=rows.device)
    for start in range(0, len(codes), BLOCK):
        a = rows[:, start:start + BLOCK].repeat_interleave(models // len(X), dim=0)
        right += (_classes(_forward(weights, biases, a)) == gold[start:start + BLOCK]).sum(dim=1)
    return (right.cpu().numpy() / len(codes)).reshape(len(X), -1)


def _forward(weights: "list[torch.Tensor]", biases: "list[torch.Tensor]", a: "torch.Tensor") -> "torch.Tensor":
    """Outputs (model, row, out) of networks for a (model, row, dim)."""
    import torch

    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        a = torch.baddbmm(b[:, None], a, w)
        if number < len(weights) - 1:
            a = a.relu_()
    return a


def _classes(z: "torch.Tensor") -> "torch.Tensor":
    return z.argmax(dim=2) if z.shape[2] > 1 else (z[..., 0] > 0).long()


def _in_parallel(call: Callable[[Any], Any], jobs: Sequence[Any], device: str) -> Iterator[Any]:
    """Results in the order of the jobs. On the CPU one thread per job: the products are too small to be shared out, and so a
    result does not depend on the number of threads."""
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
