"""Kernel models: what a kernel alone predicts. Fitted on train x train, applied to eval x train.

As in Tomihari and Sato (2024), each pair (example, class) is one row, its target 1 if the example is of the class,
otherwise 0. A model is linear in kernel rows: f(x, c) = sum_md K(x, c, x_m, d) a_md + b. Kernels are (row example,
class, column example, class).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetrace.lenses.kernel.logistic import logistic_path
from finetrace.lenses.kernel.statistics import as_matrix, one_hot

Solver = Literal["logistic", "least-squares", "svc", "svr", "ridge", "asymmetric"]
Normalise = Literal["none", "frobenius", "mean-diagonal"]
SOLVERS: tuple[Solver, ...] = ("logistic", "least-squares", "svc", "svr", "ridge", "asymmetric")
OFFSET_SOLVERS = ("least-squares", "svr", "ridge")  # those that can start from the model's own logits
STRENGTHS = np.logspace(-4, 4, 10)  # scikit-learn's grid of C
RIDGES = np.logspace(-6, 2, 9)  # shares of the mean diagonal
_SVM_ITERATIONS = 1_000_000


@dataclass(frozen=True)
class KernelModel:
    """A fitted model. coefficients: (column example, class) of a;  intercept: b;  scale: what kernels are divided by;
    threshold: a score above it says "of the class";  offset_scale: logits divided by it are added to scores, None: no
    logits;
    flipped_coefficients: of the asymmetric solver, for the flipped kernel;  strength: chosen C or ridge, NaN where none
    is;
    rank: of least squares, else -1;  converged: False where a limit of iterations ended the fit.
    """

    coefficients: np.ndarray
    intercept: float
    scale: float
    threshold: float
    offset_scale: float | None = None
    flipped_coefficients: np.ndarray | None = None
    strength: float = float("nan")
    rank: int = -1
    converged: bool = True


@dataclass(frozen=True)
class Accuracies:
    """argmax: share of examples whose highest score is that of their class, the accuracy;  flat: share of pairs
    (example, class) on the right side of the threshold, the published number: (C - 1) / C for a model that always says
    no;  n: examples.
    """

    argmax: float
    flat: float
    n: int


def fit(kernel: np.ndarray, labels: np.ndarray, *, solver: Solver = "logistic", normalise: Normalise = "none",
        regularization: float = 0.0, logits: np.ndarray | None = None, logits_scale: float = 1.0, parity: bool = False,
        folds: int = 5, seed: int = 0, gamma: float = 1.0) -> KernelModel:
    """Fit a kernel model on a kernel between the training examples.

    labels: (example,) classes 0 .. C-1;  solver:
      logistic       min 1/2 |a|^2 + C sum CE, C from `STRENGTHS` by cross-validated flat accuracy, the smallest at a
                     tie. The penalty is on a, not on the norm of the function, so scale matters: s K is K with C times
                     s^2
      ridge          (K + l I) a = t, l from `RIDGES` times the mean diagonal by cross-validated squared error
      least-squares  the a of least norm among those with least |t - K a|
      svc, svr       scikit-learn's on the precomputed kernel, C = 1 (svr: epsilon = 0.1)
      asymmetric     Malladi et al. (2023), for kernels <sign J, J>; gamma: its regularisation
    normalise: divide kernels by the training kernel's Frobenius norm or mean diagonal, so that accuracies of kernels of
    very different sizes can be compared;  regularization: rho, adds rho |K|_op I to the training kernel;  logits:
    (example, class) of the model at its start; solvers of regression then fit t - logits / logits_scale;  parity: the
    published logistic fit, scikit-learn's LogisticRegressionCV: its folds are of unshuffled rows, so that classes of
    one example stand on both sides, and its L-BFGS stops early on badly conditioned kernels;  folds, seed: of the
    cross-validation, in which the rows of an example stay together and classes are spread evenly.

    Cost for M rows: about 20 M^3 operations and the memory of 4 kernels; seconds for M = 1,000. Raises ValueError for a
    kernel and labels that do not fit, and for options that a solver lacks.
    """
    matrix, count, classes = _training_matrix(kernel, labels)
    if solver not in SOLVERS:
        raise ValueError(f"solver: {solver!r} is not known; one of {', '.join(SOLVERS)}")
    if logits is not None and solver not in OFFSET_SOLVERS:
        raise ValueError(f"logits: {solver} cannot start from the model's logits; solvers that can: "
                         f"{', '.join(OFFSET_SOLVERS)}")
    if parity and solver != "logistic":
        raise ValueError(f"parity: is about the logistic solver, not {solver}")
    if not regularization >= 0:
        raise ValueError(f"regularization: {regularization} is not 0 or more")
    scale = _scale(matrix, normalise)
    matrix = matrix / scale
    if regularization:
        matrix = matrix + regularization * np.linalg.norm(matrix, 2) * np.eye(len(matrix))
    targets = one_hot(labels, classes).ravel()
    if solver == "logistic":
        solution = (_published(matrix, targets) if parity
                    else _logistic(matrix, targets, _folds(labels, classes, folds, seed)))
        threshold = 0.0
    elif solver in ("svc", "asymmetric"):
        solution = _svm(matrix, targets, "svc") if solver == "svc" else _asymmetric(matrix, 2 * targets - 1, gamma)
        threshold = 0.0
    else:
        regression_targets = (targets if logits is None
                              else targets - _offset(logits, logits_scale, count, classes).ravel())
        if solver == "ridge":
            solution = _ridge(matrix, regression_targets, _folds(labels, classes, folds, seed))
        else:
            solution = (_svm(matrix, regression_targets, "svr") if solver == "svr"
                        else _least_squares(matrix, regression_targets))
        threshold = 0.5
    shape = (count, classes)
    flipped = solution.pop("flipped", None)
    return KernelModel(solution.pop("coefficients").reshape(shape), solution.pop("intercept", 0.0), scale, threshold,
                       None if logits is None else logits_scale, None if flipped is None else flipped.reshape(shape),
                       **solution)


def scores(model: KernelModel, kernel: np.ndarray, *, flipped: np.ndarray | None = None,
           logits: np.ndarray | None = None) -> np.ndarray:
    """What a model says about some examples: (row example, class) float64, above `model.threshold` for "of the class".

    kernel: (row example, class, training example, class);  flipped: for the asymmetric solver the same with the other
    side's gradients signed: with K = <sign J, J> of rows and training examples it is <J, sign J>;  logits: (row
    example, class) of the model at its start, exactly if it was fitted with such.
    """
    matrix = as_matrix(kernel)
    rows, classes = np.shape(kernel)[:2]
    if np.shape(kernel)[2:] != model.coefficients.shape:
        raise ValueError(f"kernel {np.shape(kernel)}: its columns are not the training examples "
                         f"{model.coefficients.shape}")
    if (logits is None) != (model.offset_scale is None):
        raise ValueError("logits: give them to both fit and scores, or to none")
    if (flipped is None) != (model.flipped_coefficients is None):
        raise ValueError("flipped: the asymmetric solver needs the kernel with either side signed, others take one")
    row_scores = matrix @ model.coefficients.ravel() / model.scale + model.intercept
    if flipped is not None and model.flipped_coefficients is not None:
        row_scores += as_matrix(flipped) @ model.flipped_coefficients.ravel() / model.scale
    row_scores = row_scores.reshape(rows, classes)
    return row_scores if logits is None else row_scores + _offset(logits, model.offset_scale or 1.0, rows, classes)


def accuracies(model: KernelModel, row_scores: np.ndarray, labels: np.ndarray) -> Accuracies:
    """Both accuracies of scores (example, class); labels: (example,). Of equal highest scores the first counts."""
    truth = one_hot(labels, row_scores.shape[1])
    return Accuracies(float((row_scores.argmax(axis=1) == labels).mean()),
                      float(((row_scores > model.threshold) == (truth > 0)).mean()), len(labels))


def example_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold 0 .. folds-1 for each example, classes spread evenly, at random within them: (example,) int64."""
    labels = np.asarray(labels)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(labels)), labels))
    fold_numbers = np.empty(len(labels), dtype=np.int64)
    fold_numbers[order] = np.arange(len(labels)) % folds
    return fold_numbers


def _training_matrix(kernel: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, int, int]:
    matrix = as_matrix(kernel)
    count, classes = np.shape(kernel)[:2]
    if np.shape(kernel)[2:] != (count, classes) or len(labels) != count:
        raise ValueError(f"kernel {np.shape(kernel)} with {len(labels)} labels: give train x train and its examples' "
                         "labels")
    if count < 2 or classes < 2:
        raise ValueError(f"kernel {np.shape(kernel)}: a kernel model needs at least two examples and two classes")
    return matrix, count, classes


def _scale(matrix: np.ndarray, normalise: Normalise) -> float:
    sizes = {"none": 1.0, "frobenius": float(np.linalg.norm(matrix)), "mean-diagonal": float(np.diag(matrix).mean())}
    if normalise not in sizes:
        raise ValueError(f"normalise: {normalise!r} is not known; one of {', '.join(sizes)}")
    if not sizes[normalise] > 0:
        raise ValueError(f"normalise: {normalise} of the training kernel is {sizes[normalise]}, by which nothing can "
                         "be divided")
    return sizes[normalise]


def _offset(logits: np.ndarray, scale: float, count: int, classes: int) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape != (count, classes):
        raise ValueError(f"logits {logits.shape}: give one per example and class, {(count, classes)}")
    if not scale > 0:
        raise ValueError(f"logits_scale: {scale} is not above 0")
    return logits / scale


def _folds(labels: np.ndarray, classes: int, folds: int, seed: int) -> np.ndarray:
    """(row,) fold of each pair (example, class)."""
    if folds < 2:
        raise ValueError(f"folds: {folds}; cross-validation needs at least 2")
    return example_folds(labels, min(folds, len(labels)), seed).repeat(classes)


def _logistic(matrix: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> dict:
    """The fits of all folds and of all rows run side by side, in the directions of the kernel's singular vectors:
    rotating the features changes neither penalty nor fit."""
    left, singular_values, right = np.linalg.svd(matrix)
    nonzero = singular_values > singular_values[0] * len(singular_values) * np.finfo(np.float64).eps
    features = left[:, nonzero] * singular_values[nonzero]
    held_out = folds[:, None] == np.arange(folds.max() + 1)
    path = logistic_path(features, targets, np.column_stack([~held_out, np.ones(len(folds))]).astype(np.float64),
                         STRENGTHS)
    is_correct = np.stack([(features @ a + b > 0) == (targets > 0)[:, None]
                           for a, b in zip(path.coefficients[..., :-1], path.intercepts[:, :-1], strict=True)])
    fold_accuracy = (is_correct & held_out).sum(axis=1) / held_out.sum(axis=0)  # (strength, fold)
    best = int(fold_accuracy.mean(axis=1).argmax())
    return {"coefficients": right[nonzero].T @ path.coefficients[best, :, -1],
            "intercept": float(path.intercepts[best, -1]),
            "strength": float(STRENGTHS[best]), "converged": bool(path.converged.all())}


def _published(matrix: np.ndarray, targets: np.ndarray) -> dict:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV

    model = LogisticRegressionCV(Cs=STRENGTHS, cv=5, max_iter=10_000, l1_ratios=(0,), scoring="accuracy",
                                 random_state=0, use_legacy_attributes=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(matrix, targets)
    return {"coefficients": model.coef_[0], "intercept": float(model.intercept_[0]),
            "strength": float(np.ravel(model.C_)[0]),
            "converged": not any(issubclass(warning.category, ConvergenceWarning) for warning in warned)}


def _least_squares(matrix: np.ndarray, targets: np.ndarray) -> dict:
    coefficients, _, rank, _ = np.linalg.lstsq(matrix, targets, rcond=None)
    return {"coefficients": coefficients, "rank": int(rank)}


def _ridge(matrix: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> dict:
    strengths = RIDGES * float(np.diag(matrix).mean())
    if not strengths[0] > 0 or not np.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-8 * np.abs(matrix).max()):
        raise ValueError("kernel: ridge regression needs a symmetric one with a positive diagonal; take another solver")
    errors = np.zeros(len(strengths))
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        for number, strength in enumerate(strengths):
            train_matrix = matrix[np.ix_(~held_out, ~held_out)] + strength * np.eye(int((~held_out).sum()))
            error = (matrix[np.ix_(held_out, ~held_out)] @ np.linalg.solve(train_matrix, targets[~held_out])
                     - targets[held_out])
            errors[number] += error @ error
    best = float(strengths[errors.argmin()])
    return {"coefficients": np.linalg.solve(matrix + best * np.eye(len(matrix)), targets), "strength": best}


def _svm(matrix: np.ndarray, targets: np.ndarray, kind: Literal["svc", "svr"]) -> dict:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC, SVR

    model = (SVC if kind == "svc" else SVR)(kernel="precomputed", max_iter=_SVM_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        model.fit(matrix, targets)
    coefficients = np.zeros(len(matrix))
    coefficients[model.support_] = model.dual_coef_[0]
    return {"coefficients": coefficients, "intercept": float(model.intercept_[0]), "converged": model.fit_status_ == 0}


def _asymmetric(matrix: np.ndarray, signs: np.ndarray, gamma: float) -> dict:
    """[[I / gamma, H], [H', I / gamma]] [alpha; beta] = 1 with H_ij = y_i K_ij y_j; scores are the mean of both sides'
    sums."""
    if not gamma > 0:
        raise ValueError(f"gamma: {gamma} is not above 0")
    inner = signs[:, None] * matrix * signs
    eye = np.eye(len(matrix)) / gamma
    alpha, beta = np.split(np.linalg.solve(np.block([[eye, inner], [inner.T, eye]]), np.ones(2 * len(matrix))), 2)
    return {"coefficients": beta * signs / 2, "flipped": alpha * signs / 2}
