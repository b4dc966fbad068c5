"""Classifier probes as Zhou and Srikumar (2022, "A closer look at how fine-tuning changes BERT") train them:
multi-layer perceptrons with ReLU, sizes and L2 strength from a grid, the best point trained again from several first
weights.

A model is defined as in scikit-learn's MLPClassifier, which that study used: cross-entropy plus l2/2 times the squared
weights over the rows of the mini-batch, mini-batches of 200 in a new order each epoch, Adam (Kingma and Ba 2015) with
rate 1e-3, first weights and biases uniform within -+ sqrt(6 / (in + out)), one logistic output for two classes;
training ends when the loss of an epoch did not fall by 1e-4 below the best in more than 10 epochs in a row. Equal seeds
draw equal numbers, so in float64 the weights are scikit-learn's to rounding.

What makes it fast: all networks of one shape are trained in one batched computation, from which finished ones drop out,
and shapes are computed side by side. On a CPU that gains little over one network after the other, for both are bound by
the same matrix products; there a search by successive halving (see `mlp_search`) saves most of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetrace.lenses.probes.linear import checked, held_out_rows, spread
from finetrace.lenses.probes.mlp_search import Hidden, weight_count

if TYPE_CHECKING:
    import torch

    from finetrace.lenses.probes.mlp_trainer import Trained

SIZES = (32, 64, 128, 256)
HIDDEN: tuple[Hidden, ...] = tuple((a, b) for a in SIZES for b in SIZES)
L2_GRID = tuple(10.0**k for k in range(-7, 1))
BATCH = 200  # rows of a mini-batch
SEEDS_AT_ONCE = 3  # on a CPU: final trainings of one problem that are computed together, so that two cores have work
CACHE_BYTES = 8 * 2**20  # networks and rows that a processor holds close by


@dataclass(frozen=True)
class MlpProbe:
    """The best networks of a grid, per problem.

    hidden: (shape,) sizes of the hidden layers;  l2: (strength,) ascending;  held_out_accuracy: (problem, shape,
    strength) in [0, 1], mean over folds, of the points that were trained to their end, NaN for the others and when the
    grid has one point;
    search_epochs: (problem, shape, strength) that a point was trained in the search, mean over folds, 0 without a
    search;
    chosen_hidden: (problem,) position in `hidden`;  chosen_l2: (problem,);  weights: per problem, per layer (seed, in,
    out);
    biases: per problem, per layer (seed, out); one output stands for two classes;  epochs: (problem, seed) int64 until
    the training ended;  converged: (problem, seed) bool, ended before the last epoch allowed;  classes: (class,) int64;
    centre, scale: (problem, dim) float64, features are (x - centre) scale.
    """

    hidden: tuple[Hidden, ...]
    l2: np.ndarray
    held_out_accuracy: np.ndarray
    search_epochs: np.ndarray
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
             seeds: Sequence[int] = (0, 1, 2, 3, 4), search: Literal["full", "halving"] = "full", folds: int = 1,
             holdout: float = 0.2, seed: int = 0, max_epochs: int = 1000, standardise: bool = False,
             memory_mib: int = 1024,
             device: str = "cpu", dtype: str = "float32",
             progress: Callable[[int, int], None] | None = None) -> MlpProbe:
    """Search the grid for every problem and train the best point once per seed.

    X: (problem, row, dim) float;  y: (row,) int labels;  hidden: shapes, () being no hidden layer, (64,) one, (64, 32)
    two;
    l2: strengths >= 0;  seeds: of the final trainings (first weights and order of the rows);  seed: of the search.
    search: full trains every point to its end, as the study did; halving gives up worse shapes early (see
    `mlp_search.halving_rounds`), which is several times faster, finds a point as good within the noise of seeds, but
    not always the same one, and prefers networks that learn fast.
    folds: 1 chooses on one stratified `holdout` share of the rows (the default: a fifth of the time of 5 folds), more
    is stratified cross-validation as GridSearchCV has it. The highest mean accuracy wins; among equals the network with
    the fewest weights, then the stronger penalty. The final networks see all rows. A grid of one point is not searched.
    standardise: features with mean 0 and standard deviation 1 over the training rows; the study's protocol takes them
    as they are.  memory_mib: for what is computed at once on a GPU. The result of a problem depends on the others by
    rounding only, which a long training in float32 can blow up to an example or two; equal calls give equal bytes.
    progress: called with (thousandths done, 1000) of the search.
    Raises ValueError for NaN, a single class, fewer rows than classes, sizes < 1, l2 < 0.
    """
    import torch

    X, classes, codes = checked(X, y)
    if search not in ("full", "halving"):
        raise ValueError(f"search: {search!r} is neither full nor halving")
    shapes, strengths = _checked_grid(hidden, l2)
    if not len(seeds):
        raise ValueError("seeds: names none; give at least one")
    centre, scale = _scaling(X, standardise)

    X = (X - centre[:, None]) * scale[:, None] if standardise else X
    problems = _Problems(torch.as_tensor(X).to(getattr(torch, dtype)), torch.as_tensor(codes, device=device),
                         len(classes), shapes, strengths, max_epochs, device, memory_mib * 2**20)
    grid = (len(X), len(shapes), len(strengths))
    held_out, search_epochs = np.full(grid, np.nan), np.zeros(grid)
    if grid[1] * grid[2] > 1:
        held_out, search_epochs = _search_scores(problems, fold_rows(y, folds, holdout, seed), search, seed, progress)
    best = [_best(table, shapes, X.shape[2], len(classes)) for table in held_out]
    return MlpProbe(shapes, strengths, held_out, search_epochs, np.array([s for s, _ in best]),
                    strengths[[k for _, k in best]], *_final_networks(problems, best, seeds), classes, centre, scale)


def mlp_logits(probe: MlpProbe, problem: int, X: np.ndarray) -> np.ndarray:
    """Scores of every class: X (row, dim) of one problem -> (seed, row, class) float64; for two classes they are (0,
    z)."""
    import torch

    from finetrace.lenses.probes.mlp_trainer import BLOCK, forward

    weights, biases = ([torch.from_numpy(v) for v in values[problem]] for values in (probe.weights, probe.biases))
    scaled = (np.asarray(X, dtype=np.float64) - probe.centre[problem]) * probe.scale[problem]
    blocks = []
    for start in range(0, len(scaled), BLOCK):
        a = torch.as_tensor(scaled[start:start + BLOCK], dtype=weights[0].dtype).expand(len(weights[0]), -1, -1)
        blocks.append(forward(weights, biases, a).to(torch.float64).numpy())
    z = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(weights[0]), 0, biases[-1].shape[-1]))
    return z if len(probe.classes) > 2 else np.concatenate([np.zeros_like(z), z], axis=2)


def fold_rows(y: np.ndarray, folds: int, holdout: float, seed: int) -> list[np.ndarray]:
    """Which rows are held out, per fold (row,) bool: one stratified share, or `folds` stratified parts that cover all
    rows."""
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


def mlp_bytes(rows: int, dim: int, classes: int, hidden: Hidden, models: int) -> int:
    """Memory that one problem takes while `models` networks of one shape are trained on its rows, in bytes."""
    network = 4 * weight_count(dim, hidden, classes) + BATCH * (dim + 3 * (sum(hidden) + classes))
    return 4 * (rows * dim + models * network)


def search_bytes(rows: int, dim: int, classes: int, hidden: Sequence[Hidden], strengths: int, folds: int) -> int:
    """Memory that one problem takes while all its networks of a search are kept, in bytes."""
    # weights twice and two moments
    networks = 4 * strengths * sum(weight_count(dim, shape, classes) for shape in hidden)
    return 4 * folds * (rows * dim + networks)


def grid_operations(rows: int, dim: int, classes: int, hidden: Sequence[Hidden], strengths: int, folds: int) -> float:
    """Floating-point operations of one epoch of the search of one problem, all grid points and folds."""
    share = (folds - 1) / folds if folds > 1 else 0.8
    per_row = sum(6 * weight_count(dim, h, classes) - 2 * dim * (h[0] if h else 1) for h in hidden)
    return float(per_row) * rows * share * strengths * max(1, folds)


@dataclass(frozen=True)
class _Problems:
    """What networks are trained on, and where.

    rows: (problem, row, dim) on the CPU;  gold: (row,) numbers of classes, on the device;  memory: bytes on a GPU.
    """

    rows: "torch.Tensor"
    gold: "torch.Tensor"
    classes: int
    shapes: tuple[Hidden, ...]
    strengths: np.ndarray
    max_epochs: int
    device: str
    memory: int

    @property
    def outputs(self) -> int:
        """One output stands for two classes."""
        return self.classes if self.classes > 2 else 1

    def groups(self, shape: int, problems: int, models: int) -> list[slice]:
        """Problems of one shape in groups that fit the memory, on a CPU its cache."""
        room = CACHE_BYTES if self.device == "cpu" else self.memory
        _, count, dim = self.rows.shape
        size = max(1, room // mlp_bytes(count, dim, self.classes, self.shapes[shape], models))
        return [slice(start, min(start + size, problems)) for start in range(0, problems, size)]


def _search_scores(data: _Problems, held_out: list[np.ndarray], search: str, seed: int,
                   progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """(problem, shape, strength) held-out accuracy and epochs of the search, means over the folds, of which `held_out`
    says the rows, (row,) bool."""
    import torch

    from finetrace.lenses.probes.mlp_search import Fold, halving_rounds, search_grid

    count, dim, shapes, strengths = len(data.rows), data.rows.shape[2], data.shapes, data.strengths
    accuracy, epochs = np.empty((2, count, len(shapes), len(strengths)))
    splits = [torch.as_tensor(held) for held in held_out]
    updates = -(-int((~splits[0]).sum()) // BATCH)
    rounds = (halving_rounds(len(shapes), len(strengths), data.max_epochs, updates) if search == "halving"
              else [(len(shapes), data.max_epochs)])
    size = max(1, data.memory // search_bytes(data.rows.shape[1], dim, data.classes, shapes, len(strengths),
                                              len(splits)))
    smaller = _simplicity(shapes, len(strengths), dim, data.classes)
    for start in range(0, count, size):
        block = data.rows[start:start + size]
        folds = [Fold(block[:, ~held].to(data.device), data.gold[~held], block[:, held].to(data.device),
                      data.gold[held])
                 for held in splits]
        groups = [data.groups(shape, len(block), len(strengths)) for shape in range(len(shapes))]

        def tell(share: float, problems: int = len(block), done: int = start) -> None:
            if progress:
                progress(round(1000 * (done + share * problems) / count), 1000)

        accuracy[start:start + size], epochs[start:start + size] = search_grid(
            folds, shapes, strengths.tolist(), data.outputs, smaller, rounds, groups, seed, data.max_epochs,
            data.device, tell)
    return accuracy, epochs


def _final_networks(data: _Problems, best: list[tuple[int, int]], seeds: Sequence[int],
                    ) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]], np.ndarray, np.ndarray]:
    """Weights, biases, epochs and converged, as `MlpProbe` has them, of the chosen (shape, strength) of each problem on
    all rows."""
    from finetrace.lenses.probes.mlp_search import in_parallel
    from finetrace.lenses.probes.mlp_trainer import Training

    count, at_once = len(data.rows), SEEDS_AT_ONCE if data.device == "cpu" else len(seeds)
    jobs = [(chosen, problems[part], slice(start, start + at_once)) for chosen in sorted(set(best))
            for problems in [[p for p in range(count) if best[p] == chosen]]
            for part in data.groups(chosen[0], len(problems), at_once) for start in range(0, len(seeds), at_once)]

    def train(job: tuple[tuple[int, int], list[int], slice]) -> "Trained":
        (shape, strength), part, seeds_chosen = job
        return Training(data.rows[part].to(data.device), data.gold, data.outputs, data.shapes[shape],
                        data.strengths[[strength]].tolist(), seeds[seeds_chosen], data.max_epochs).run(data.max_epochs)

    weights: list[list[np.ndarray]] = [[] for _ in range(count)]
    biases: list[list[np.ndarray]] = [[] for _ in range(count)]
    epochs, converged = np.zeros((count, len(seeds)), dtype=np.int64), np.zeros((count, len(seeds)), dtype=bool)
    for (_, part, seeds_of_part), trained in zip(jobs, in_parallel(train, jobs, data.device), strict=True):
        for i, p in enumerate(part):
            for target, values in ((weights, trained.weights), (biases, trained.biases)):
                new = [v[i, :, 0].cpu().numpy() for v in values]
                target[p] = [np.concatenate(pair) for pair in zip(target[p], new, strict=True)] if target[p] else new
            epochs[p, seeds_of_part], converged[p, seeds_of_part] = trained.epochs[i, :, 0], trained.converged[i, :, 0]
    return weights, biases, epochs, converged


def _checked_grid(hidden: Sequence[Sequence[int]], l2: Sequence[float]) -> tuple[tuple[Hidden, ...], np.ndarray]:
    shapes = tuple(tuple(int(size) for size in shape) for shape in hidden)
    strengths = np.sort(np.asarray(l2, dtype=np.float64))
    if not shapes or len(set(shapes)) != len(shapes) or any(size < 1 for shape in shapes for size in shape):
        raise ValueError(f"hidden: {list(hidden)} must name different shapes of sizes above 0, e.g. [[32, 32], [64, "
                         "32]]")
    if strengths.ndim != 1 or not len(strengths) or not (strengths >= 0).all() or not np.isfinite(strengths).all():
        raise ValueError(f"l2: {list(l2)} must hold numbers from 0 on")
    return shapes, strengths


def _scaling(X: np.ndarray, standardise: bool) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract and to multiply with, (problem, dim) float64; a feature of float32 rounding only becomes 0."""
    if not standardise:
        return np.zeros((len(X), X.shape[2])), np.ones((len(X), X.shape[2]))
    parts = [spread(x) for x in X]
    return np.array([mean for mean, _ in parts]), np.array([scale for _, scale in parts])


def _simplicity(shapes: tuple[Hidden, ...], strengths: int, dim: int, classes: int) -> np.ndarray:
    """Place of each point (shape, strength) in the order of preference among equals: few weights, then a strong
    penalty."""
    size = [(weight_count(dim, shape, classes), shape) for shape in shapes]
    place = np.array([sorted(size).index(weights) for weights in size])
    return place[:, None] * strengths + np.arange(strengths)[::-1]


def _best(table: np.ndarray, shapes: tuple[Hidden, ...], dim: int, classes: int) -> tuple[int, int]:
    """The chosen (shape, strength) of one problem: table (shape, strength) of held-out accuracy, NaN for points given
    up."""
    top = np.nanmax(table) if np.isfinite(table).any() else np.nan
    equal = ~(table < top - 1e-12) & (np.isfinite(table) | np.isnan(top))
    order = np.where(equal, _simplicity(shapes, table.shape[1], dim, classes), table.size)
    shape, strength = np.unravel_index(order.argmin(), table.shape)
    return int(shape), int(strength)
