"""Linear probing: fit the head on the frozen encoder's features, choosing the L2 strength by cross-validation.

The objective is scikit-learn's, 1/2 |V|^2 + C sum of cross-entropies with a free bias (Tomihari and Sato 2024, section
5), minimised to rounding. `lp_parity` is the published program: scikit-learn 1.0's LogisticRegressionCV, which stops
L-BFGS at its tolerance and draws folds by the order of the rows, and its heads of two classes,
which have half the fitted size.
"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.config.training import TrainSettings
from finetrace.seeds import generator

log = logging.getLogger(__name__)
TOLERANCE = 1e-9  # largest gradient entry of the mean cross-entropy; the weakest penalty pulls with about 1e-7
MAX_ITERATIONS = 5000
PUBLISHED_TOLERANCE = 1e-4
SMALL = 2_000_000  # numbers in the features


@dataclass(frozen=True)
class LinearProbe:
    """A fitted head.

    weight: (class, dim) float64 and bias: (class,) float64, each summing to zero over the classes that training has;
    strength: the chosen C;  strengths: (strength,) tried, ascending;  accuracy: (strength,) mean accuracy on the folds
    held out, in [0, 1], higher is better; NaN where no folds could be made;  iterations: of the final fit;
    converged: whether it reached its tolerance.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    strengths: np.ndarray
    accuracy: np.ndarray
    iterations: int
    converged: bool


def fit_linear_probe(features: np.ndarray, labels: np.ndarray, classes: int, settings: TrainSettings,
                     seed: int) -> LinearProbe:
    """Choose C by the mean accuracy on stratified folds (the smallest of equals), then fit on all rows.

    features: (example, dim) float;  labels: (example,) int in 0 .. classes-1;  seed: of the folds. Classes that
    training lacks get weight 0 and a bias so low that they are not predicted.
    Raises ValueError for features that are not finite, or one class.
    """
    X, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if not np.isfinite(X).all():
        raise ValueError("features: NaN or infinity; the encoder gives no usable vectors")
    if len(np.unique(y)) < 2:
        raise ValueError(f"labels: {len(np.unique(y))} class only; a classifier needs two or more")
    low, high, count = settings.lp_strengths
    strengths = np.logspace(np.log10(low), np.log10(high), count)
    folds = _folds(y, settings.lp_folds, seed, settings.lp_parity)
    fit_count = len(strengths) * (int(folds.max()) + 1) if len(strengths) > 1 and folds.max() else 0
    log.info("linear probe: %s x %d features, %d classes; %d fits choose its strength", f"{len(X):,}", X.shape[1],
             classes, fit_count)
    accuracy = np.full(len(strengths), np.nan)
    best = 0 if folds.max() > 0 else int(np.abs(np.log(strengths)).argmin())
    if folds.max() > 0 and len(strengths) > 1:
        fold_accuracy = [_scores(X[folds != fold], y[folds != fold], X[folds == fold], y[folds == fold], classes,
                                 strengths, settings)
                         for fold in range(int(folds.max()) + 1)]
        accuracy = np.mean(fold_accuracy, axis=0)
        best = int(accuracy.argmax())
    weight, bias, iterations, converged = fit(X, y, classes, strengths[[best]], settings)
    if not converged[0]:
        log.warning("linear probe: stopped after %d iterations, short of its tolerance", iterations[0])
    return LinearProbe(weight[0], bias[0], float(strengths[best]), strengths, accuracy, int(iterations[0]),
                       bool(converged[0]))


def fit(X: np.ndarray, y: np.ndarray, classes: int, strengths: np.ndarray, settings: TrainSettings,
        max_iterations: int = MAX_ITERATIONS) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Multinomial logistic regressions from zero, one per strength, after at most `max_iterations` iterations.

    Returns weights (strength, class, dim), biases (strength, class),
    iterations (strength,) and whether each has converged.
    """
    present, codes = np.unique(y, return_inverse=True)
    means = np.zeros(X.shape[1]) if settings.lp_parity and not settings.lp_standardise else X.mean(axis=0)
    deviations = X.std(axis=0) if settings.lp_standardise else np.ones(X.shape[1])
    # a constant feature counts nothing
    deviations = np.where(deviations > 1e-6 * np.abs(X).max(initial=1e-300), deviations, np.inf)
    solve = _published if settings.lp_parity else _exact
    weight, bias, iterations, converged = solve((X - means) / deviations, codes, len(present), strengths,
                                                max_iterations)
    weight = weight / deviations
    bias = bias - weight @ means
    all_weights = np.zeros((len(strengths), classes, X.shape[1]))
    all_weights[:, present] = weight
    all_biases = np.repeat(bias.min(axis=1, keepdims=True) - 10, classes, axis=1)
    all_biases[:, present] = bias
    return all_weights, all_biases, iterations, converged


def _exact(X: np.ndarray, y: np.ndarray, classes: int, strengths: np.ndarray, max_iterations: int) -> Any:
    """To rounding. The caller centres the features (the free bias makes up for it):
    only so is the problem well conditioned."""
    import torch

    from finetrace.lenses.probes.solver import minimise, rotate

    threads = torch.get_num_threads()
    torch.set_num_threads(threads if X.size > SMALL else 1)  # threads that wait for each other cost more than they save
    try:
        rotated, vectors, spectrum = rotate(torch.from_numpy(X)[None])
        l2 = torch.from_numpy(1 / (len(X) * strengths))[None]
        solution = minimise(rotated, spectrum, torch.from_numpy(y), l2, classes, tolerance=TOLERANCE,
                            max_iterations=max_iterations)
    finally:
        torch.set_num_threads(threads)
    weights = solution.weights[0].numpy()
    return (weights[..., :-1] @ vectors[0].numpy().T, weights[..., -1], solution.iterations[0].numpy(),
            solution.converged[0].numpy())


def _published(X: np.ndarray, y: np.ndarray, classes: int, strengths: np.ndarray, max_iterations: int) -> Any:
    """As scikit-learn 1.0 with multi_class="multinomial": today's fit of two classes needs
    2 C and gives twice the one vector."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    binary = classes == 2
    weights, biases, iterations = [], [], []
    model = LogisticRegression(tol=PUBLISHED_TOLERANCE, max_iter=max_iterations, warm_start=len(strengths) > 1)
    for strength in strengths:  # each starts from the last, as LogisticRegressionCV does
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the caller says so
            model.set_params(C=strength * (2 if binary else 1)).fit(X, y)
        weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        # installed at half the fitted size: rows -w/2 and w/2 of a w that is half of today's
        weights.append(np.concatenate([-weight, weight]) / 4 if binary else weight)
        biases.append(np.concatenate([-bias, bias]) / 4 if binary else bias)
        iterations.append(int(model.n_iter_[0]))
    iteration_counts = np.array(iterations)
    return np.stack(weights), np.stack(biases), iteration_counts, iteration_counts < max_iterations


def _scores(X: np.ndarray, y: np.ndarray, held_features: np.ndarray, held_labels: np.ndarray, classes: int,
            strengths: np.ndarray, settings: TrainSettings) -> np.ndarray:
    """(strength,) accuracy on the held-out rows."""
    if len(np.unique(y)) < 2:
        return np.full(len(strengths), float((held_labels == y[0]).mean()))
    weight, bias, _, _ = fit(X, y, classes, strengths, settings)
    return np.array([((held_features @ w.T + b).argmax(axis=1) == held_labels).mean()
                     for w, b in zip(weight, bias, strict=True)])


def _folds(y: np.ndarray, count: int, seed: int, parity: bool) -> np.ndarray:
    """(example,) fold of each row: the rows of each class, shuffled, are dealt to the folds in turn; one fold only
    where no class has two rows. Parity: as scikit-learn's unshuffled stratified folds, after the seeded shuffle of all
    rows that the published data loader does."""
    order = generator(seed, "folds").permutation(len(y))
    count = min(count, int(np.bincount(y).max()))
    folds = np.zeros(len(y), dtype=np.int64)
    if count < 2:
        return folds
    if parity:
        from sklearn.model_selection import StratifiedKFold

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            for fold, (_, held_rows) in enumerate(StratifiedKFold(count).split(y[order], y[order])):
                folds[order[held_rows]] = fold
        return folds
    start = 0
    for label in np.unique(y):  # dealing goes on where the last class ended, so that folds have equal sizes
        rows = order[y[order] == label]
        folds[rows] = (start + np.arange(len(rows))) % count
        start += len(rows)
    return folds
