"""Probes: classifiers on frozen sentence vectors, which tell what a layer holds in a linearly readable form (Alain and
Bengio 2016, "Understanding intermediate layers using linear classifier probes").

A problem is one layer of one checkpoint. All problems share their rows and labels, and are solved in one batched
computation. This module holds the convex probe and the scores; `probes.heads` trains the heads of the French study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetrace.lenses.intervals import share_interval

if TYPE_CHECKING:
    import torch

L2_GRID = (1e-4, 1e-3, 1e-2, 1e-1)
CONSTANT = 1e-6  # relative spread that float32 rounding alone may leave
CACHE_BYTES = 16 * 2**20  # features that a processor holds close by
HISTORY_VECTORS = 30  # vectors of the solver per fit: 10 pairs and what it works with


@dataclass(frozen=True)
class LogisticProbe:
    """Fitted multinomial logistic regressions, for features as they come.

    weights: (problem, dim, class) float64;  bias: (problem, class) float64;  l2: (problem,) the chosen strength;
    held_out_loss: (problem, strength) nats per held-out example, NaN when only one strength was given;
    iterations: (problem,) int64 and gradient_norm: (problem,) of the final fit;  converged: (problem,) bool, every fit
    that was asked for, those behind the choice included;  classes: (class,) int64 labels in the order of the class
    axis.
    """

    weights: np.ndarray
    bias: np.ndarray
    l2: np.ndarray
    held_out_loss: np.ndarray
    iterations: np.ndarray
    gradient_norm: np.ndarray
    converged: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Scores:
    """How well problems do on one split.

    accuracy: (...,) in [0, 1], with low, high its 95 % Wilson interval over examples;  macro_f1: (...,) in [0, 1], mean
    F1 over the classes of the split or of the predictions (0 for a class never hit);  loss: (...,) nats per example of
    a class that training knows, NaN without any;  n: examples;  unseen: those of classes that training lacks, always
    counted as wrong.
    """

    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    macro_f1: np.ndarray
    loss: np.ndarray
    n: int
    unseen: int = 0


def logistic_probe(X: np.ndarray, y: np.ndarray, *, l2: Sequence[float] = L2_GRID, holdout: float = 0.2, seed: int = 0,
                   tolerance: float = 1e-5, max_iterations: int = 1000, device: str = "cpu") -> LogisticProbe:
    """Converged multinomial logistic regression of every problem, on standardised features.

    X: (problem, row, dim) float;  y: (row,) int labels;  l2: strengths > 0 (see `solver.minimise` for the
    objective and scikit-learn's C). With several, each problem takes the one with the lowest loss on a stratified
    `holdout` share of the rows (the stronger on a tie), and is fitted again on all rows. Features are centred and
    divided by their standard deviation over all rows; a feature whose spread is float32 rounding (a millionth of its
    mean or of the features' root mean square) becomes 0, so it counts nothing: the embedding of [CLS] is such a
    constant.
    tolerance: largest gradient entry of a converged fit (scikit-learn's default is 1e-4); ten times that for the
    choice. The result is deterministic; that of one problem does not depend on the others beyond rounding. Features
    without any information give the frequencies of the classes.
    Raises ValueError for NaN, a single class, fewer rows than classes, l2 <= 0, too few rows to hold some out.
    """
    X, classes, codes = checked(X, y)
    strengths = np.sort(np.asarray(l2, dtype=np.float64))
    if strengths.ndim != 1 or not len(strengths) or not (strengths > 0).all() or not np.isfinite(strengths).all():
        raise ValueError(f"l2: {list(l2)} must hold numbers above 0; without a penalty separable classes have no "
                         "minimum")
    held_out = held_out_rows(y, holdout, seed) if len(strengths) > 1 else None
    # a processor works fastest on what its cache holds, a GPU on everything at once
    size = len(X) if device != "cpu" else max(1, CACHE_BYTES // (8 * X.shape[1] * (X.shape[2] + 1)))
    parts = [_fit(X[start:start + size], codes, len(classes), strengths, held_out, tolerance, max_iterations, device)
             for start in range(0, len(X), size)]
    columns = [np.concatenate(values) for values in zip(*parts, strict=True)]
    return LogisticProbe(*columns, classes=classes)  # type: ignore[misc]


def logits(probe: LogisticProbe, X: np.ndarray) -> np.ndarray:
    """Scores of every class: X (problem, row, dim) -> (problem, row, class) float64, in the order of
    `probe.classes`."""
    return np.matmul(np.asarray(X, dtype=np.float64), probe.weights) + probe.bias[:, None]


def score(logits: np.ndarray, y: np.ndarray, classes: np.ndarray, units: np.ndarray | None = None) -> Scores:
    """Accuracy, macro F1 and loss of logits (..., row, class) against labels y (row,); classes: (class,) of the class
    axis;  units: (row,) int, rows of one unit (words of one sentence) depend on each other; by default none do.

    Labels that `classes` lacks count as wrong, and nothing towards the loss. Of equal logits the first class wins.
    Constant predictions give the share of that class.
    """
    logits = np.asarray(logits, dtype=np.float64)
    gold = known_codes(y, classes)
    known = gold >= 0
    top = logits.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
    gold_logits = np.take_along_axis(logits, np.broadcast_to(np.maximum(gold, 0)[:, None], (*logits.shape[:-1], 1)),
                                     -1)[..., 0]
    loss = (log_total - gold_logits)[..., known].mean(-1) if known.any() else np.full(logits.shape[:-2], np.nan)
    predicted = logits.argmax(axis=-1)
    right = (predicted == gold).sum(axis=-1)
    low, high = share_interval(predicted == gold, np.arange(len(gold)) if units is None else units)
    f1, present = np.zeros((*right.shape, len(classes))), np.zeros((*right.shape, len(classes)))
    for k in range(len(classes)):
        hits = ((predicted == k) & (gold == k)).sum(axis=-1)
        either = (predicted == k).sum(axis=-1) + (gold == k).sum()
        f1[..., k], present[..., k] = 2 * hits / np.maximum(either, 1), either > 0
    missing = len(np.unique(np.asarray(y)[~known]))  # classes with an F1 of 0
    return Scores(right / len(gold), low, high, f1.sum(-1) / (present.sum(-1) + missing), loss,
                  len(gold), int((~known).sum()))


def majority_floor(y: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy on y_test of always answering the most frequent class of y (the smallest label on a tie): to be
    beaten."""
    classes, counts = np.unique(y, return_counts=True)
    return float(np.mean(np.asarray(y_test) == classes[np.argmax(counts)]))


def held_out_rows(y: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A stratified random choice of rows: (row,) bool, true for about `share` of each class and never for a whole
    class."""
    y = np.asarray(y)
    if not 0 < share < 1:
        raise ValueError(f"holdout: {share} is not between 0 and 1")
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        held_out[rows[:min(round(share * len(rows)), len(rows) - 1)]] = True
    if not held_out.any():
        raise ValueError(f"holdout: no row can be held out of {len(y)} (a share of {share}); give more training rows, "
                         "or one value of l2")
    return held_out


def check_split(split: str, y: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a split that cannot be used: no rows, or one class only.

    split: its name for the message;  y: (row,) int labels;  names: of all classes.
    """
    present = np.unique(y)
    if not len(present):
        raise ValueError(f"the split {split!r} has no rows")
    if len(present) == 1:
        raise ValueError(f"the split {split!r} holds one class only, {_name(names, present[0])!r} ({len(y)} rows), so "
                         "there is nothing to tell apart")


def spread(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1/standard deviation of the features of X (row, dim): (dim,) float64 each; 0 instead of 1/sd for a
    feature whose spread is float32 rounding, as in `logistic_probe`."""
    import torch

    _, mean, scale = _standardised(torch.as_tensor(np.asarray(X)).to(torch.float64)[None])
    return mean[0].numpy(), scale[0].numpy()


def problem_bytes(rows: int, test_rows: int, dim: int, classes: int, strengths: int) -> int:
    """Memory that one problem of `logistic_probe` takes at most, with its rows of all splits, in bytes."""
    features = 8 * (dim + 1) * (3 * rows + 2 * test_rows)
    return features + 24 * dim * dim + 8 * strengths * classes * (HISTORY_VECTORS * (dim + 1) + 4 * rows)


def checked(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X as array, the classes (class,), and the labels as positions in them (row,); ValueError for bad input."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 3 or y.shape != X.shape[1:2]:
        raise ValueError(f"X {X.shape} and y {y.shape} are not (problem, row, dim) and (row,)")
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"the labels hold {len(classes)} class; a probe needs two")
    if len(y) <= len(classes):
        raise ValueError(f"{len(y)} rows are too few for {len(classes)} classes; give more training rows")
    good = np.isfinite(X).all(axis=(1, 2))
    if not good.all():
        raise ValueError(f"X of problem {int(np.argmin(good))} holds NaN or infinity")
    return X, classes, codes_of(y, classes)


def codes_of(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Labels as positions in `classes` (ascending): (row,) int64."""
    codes = known_codes(y, classes)
    if (codes < 0).any():
        unknown = np.setdiff1d(y, classes)
        raise ValueError(f"labels {unknown.tolist()} are none of the classes {np.asarray(classes).tolist()} of the "
                         "training rows")
    return codes


def known_codes(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Labels as positions in `classes` (ascending): (row,) int64, -1 for a label that is not among them."""
    y = np.asarray(y)
    codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return np.where(np.asarray(classes)[codes] == y, codes, -1).astype(np.int64)


def _fit(X: np.ndarray, codes: np.ndarray, classes: int, strengths: np.ndarray, held_out: np.ndarray | None,
         tolerance: float, max_iterations: int, device: str) -> tuple[np.ndarray, ...]:
    """The fields of a LogisticProbe for some problems. held_out: (row,) bool, for the choice of the strength."""
    import torch

    from finetrace.lenses.probes.solver import minimise, rotate

    rows, mean, scale = _standardised(torch.as_tensor(X, device=device).to(torch.float64))
    rotated, vectors, spectrum = rotate(rows)
    del rows
    gold, problems = torch.as_tensor(codes, device=device), np.arange(len(X))
    chosen, held_out_loss = np.full(len(X), strengths[0]), np.full((len(X), len(strengths)), np.nan)
    settled, start = np.ones(len(X), dtype=bool), None
    if held_out is not None:
        fitted_rows, held_rows = (torch.as_tensor(np.flatnonzero(rows), device=device)
                                  for rows in (~held_out, held_out))
        grid = torch.as_tensor(np.tile(strengths, (len(X), 1)), device=device)
        fit = minimise(rotated[:, fitted_rows], spectrum, gold[fitted_rows], grid, classes, tolerance=10 * tolerance,
                       max_iterations=max_iterations)
        scores = torch.einsum("prd,pscd->psrc", rotated[:, held_rows], fit.weights).log_softmax(dim=3)
        held_out_loss = -scores[:, :, torch.arange(len(held_rows), device=device),
                                gold[held_rows]].mean(dim=2).cpu().numpy()
        best = held_out_loss.min(axis=1, keepdims=True)
        # equal to rounding is a tie, so that machines agree on it
        tied = held_out_loss <= best + 1e-9 * np.maximum(1.0, best)
        choice = len(strengths) - 1 - np.argmax(tied[:, ::-1], axis=1)
        chosen, settled = strengths[choice], fit.converged.all(dim=1).cpu().numpy()
        start = fit.weights[problems, choice][:, None]
    fit = minimise(rotated, spectrum, gold, torch.as_tensor(chosen[:, None], device=device), classes, start=start,
                   tolerance=tolerance, max_iterations=max_iterations)
    weights = torch.bmm(vectors, fit.weights[:, 0, :, :-1].transpose(1, 2)) * scale[:, :, None]
    bias = fit.weights[:, 0, :, -1] - torch.bmm(mean[:, None], weights)[:, 0]
    fitted = [tensor.cpu().numpy()
              for tensor in (weights, bias, fit.iterations[:, 0], fit.gradient_norm[:, 0], fit.converged[:, 0])]
    return fitted[0], fitted[1], chosen, held_out_loss, fitted[2], fitted[3], settled & fitted[4]


def _standardised(X: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Features with mean 0 and standard deviation 1 over the rows, the mean and 1/sd (problem, dim); 0 for constant
    ones."""
    import torch

    mean = X.mean(dim=1)
    centred = X - mean[:, None]
    deviation = centred.square().mean(dim=1).sqrt()
    # the rounding of a forward pass depends on the batch, so on a text's length: blown up to unit size it could tell
    # classes
    size = (mean.square() + deviation.square()).mean(dim=1, keepdim=True).sqrt()
    constant = deviation <= CONSTANT * torch.maximum(mean.abs(), size)
    scale = torch.where(constant, 0.0, 1 / torch.where(constant, 1.0, deviation))
    return centred.mul_(scale[:, None]), mean, scale


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if 0 <= label < len(names) else str(label)
