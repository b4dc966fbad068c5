"""Kernel models against scikit-learn, general minimisers and worked numbers; leaks between folds; bad input."""

import warnings

import numpy as np
import pytest
from scipy.special import expit
from tests.oracles import kernel_models as oracle

from finetrace.lenses.kernel import solvers
from finetrace.lenses.kernel.logistic import logistic_path
from finetrace.lenses.kernel.statistics import as_matrix

CLASSES = 3


def problem(train: int = 24, others: int = 15, classes: int = CLASSES, *, apart: float = 1.5, seed: int = 0,
            scale: float = 1.0):
    """A kernel that knows the classes: train x train, eval x train, eval x eval's labels and train's."""
    random = np.random.default_rng(seed)
    labels = np.arange(train + others) % classes
    x = random.normal(size=(train + others, 6)) + apart * np.eye(classes, 6)[labels]
    weights = random.normal(size=(classes, 4, 6, 9))
    jacobian = np.tanh(np.einsum("ni,chij->nchj", x, weights)).reshape(train + others, classes, -1)
    head = np.einsum("nm,cd->ncmd", x @ x.T + 1, np.eye(classes))
    kernel = scale * (head + 0.3 * np.einsum("ncp,mdp->ncmd", jacobian, jacobian))
    return kernel[:train][:, :, :train], kernel[train:][:, :, :train], labels[:train], labels[train:]


def one_hot(labels: np.ndarray, classes: int = CLASSES) -> np.ndarray:
    return np.eye(classes)[labels]


# --- logistic regression ------------------------------------------------------------------------------------------


def test_each_fit_of_the_path_is_the_minimum() -> None:
    random = np.random.default_rng(3)
    x, t = random.normal(size=(40, 6)) * [1, 1, 5, 0.1, 2, 1], (random.random(40) < 0.4).astype(float)
    weights = np.column_stack([np.ones(40), np.arange(40) % 5 != 0, random.random(40)]).astype(float)
    path = logistic_path(x, t, weights, np.array([0.01, 1.0, 100.0]), tolerance=1e-12)
    assert path.converged.all()
    for number, strength in enumerate((0.01, 1.0, 100.0)):
        kept = weights[:, 1] > 0
        for which, (rows, targets) in enumerate(((x, t), (x[kept], t[kept]))):
            a, b = oracle.logistic(rows, targets, strength)
            np.testing.assert_allclose(path.coefficients[number, :, which], a, rtol=1e-4, atol=1e-5)
            assert path.intercepts[number, which] == pytest.approx(b, rel=1e-4, abs=1e-5)


def test_a_fit_does_not_depend_on_what_is_fitted_beside_it() -> None:
    random = np.random.default_rng(4)
    x, t = random.normal(size=(30, 5)), random.integers(0, 2, 30).astype(float)
    alone = logistic_path(x, t, np.ones((30, 1)), np.array([1.0]), tolerance=1e-13)
    beside = logistic_path(x, t, np.column_stack([random.random(30), np.ones(30)]), np.array([1.0]), tolerance=1e-13)
    np.testing.assert_allclose(beside.coefficients[0, :, 1], alone.coefficients[0, :, 0], rtol=1e-6)


def test_separable_rows_of_condition_1e14_are_fitted_exactly() -> None:
    """Where first-order solvers give up. At the minimum a whole Newton step, with the dense Hessian, promises no
    descent."""
    random = np.random.default_rng(5)
    left = np.linalg.qr(random.normal(size=(30, 30)))[0]
    x, t = left * np.logspace(7, -7, 30), (random.random(30) < 0.5).astype(float)
    path = logistic_path(x, t, np.ones((30, 1)), solvers.STRENGTHS)
    assert path.converged.all() and np.isfinite(path.coefficients).all()
    signs, rows = 2 * t - 1, np.column_stack([x, np.ones(30)])
    for strength, a, b, value in zip(solvers.STRENGTHS, path.coefficients[..., 0], path.intercepts[:, 0],
                                     path.objectives[:, 0], strict=True):
        wrong = expit(-signs * (x @ a + b))
        gradient = np.append(a, 0) - strength * rows.T @ (signs * wrong)
        hessian = np.diag([1.0] * 30 + [0]) + strength * (rows.T * (wrong * (1 - wrong))) @ rows
        size = np.sqrt(np.diag(hessian))
        promised = gradient / size @ np.linalg.solve(hessian / np.outer(size, size), gradient / size)
        assert promised < 1e-7 * value
        assert value == pytest.approx(0.5 * a @ a + strength * np.logaddexp(0, -signs * (x @ a + b)).sum())


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_the_published_solver_stops_far_from_the_minimum_on_a_badly_conditioned_kernel() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(6)
    left = np.linalg.qr(random.normal(size=(60, 60)))[0]
    kernel, t = (left * np.logspace(6, -4, 60)) @ left.T, (random.random(60) < 0.4).astype(float)
    published = LogisticRegression(C=1e4, max_iter=2000).fit(kernel, t)
    a, margins = published.coef_[0], (2 * t - 1) * published.decision_function(kernel)
    ours = logistic_path(kernel, t, np.ones((60, 1)), np.array([1e4])).objectives[0, 0]
    assert 0.5 * a @ a + 1e4 * np.logaddexp(0, -margins).sum() > 1.5 * ours


def test_the_default_is_the_least_of_the_published_objective_at_the_chosen_strength() -> None:
    kernel, _, labels, _ = problem()
    model = solvers.fit(kernel, labels)
    a, b = oracle.logistic(as_matrix(kernel) / 10, one_hot(labels).ravel(), model.strength * 100)
    np.testing.assert_allclose(model.coefficients.ravel(), a / 10, rtol=2e-3, atol=2e-4 * np.abs(a / 10).max())
    assert model.intercept == pytest.approx(b, rel=1e-3)


def test_parity_is_scikit_learn_on_unshuffled_rows() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    kernel, others, labels, true = problem(apart=0.6)
    model = solvers.fit(kernel, labels, parity=True)
    matrix, targets = as_matrix(kernel), one_hot(labels).ravel()
    grid = np.logspace(-4, 4, 10)
    folds = list(StratifiedKFold(5).split(matrix, targets))
    accuracy = [[LogisticRegression(C=c, max_iter=10_000).fit(matrix[i], targets[i]).score(matrix[o], targets[o])
                 for i, o in folds] for c in grid]
    assert model.strength == grid[int(np.mean(accuracy, axis=1).argmax())]
    again = LogisticRegression(C=model.strength, max_iter=10_000, tol=1e-8).fit(matrix, targets)
    found = solvers.scores(model, others)
    np.testing.assert_allclose(found.ravel(), again.decision_function(as_matrix(others)), atol=0.05)
    assert solvers.accuracies(model, found, true).flat == again.score(as_matrix(others), one_hot(true).ravel())


def test_no_warning_escapes_even_where_a_solver_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, others, labels, _ = problem(apart=0.0, scale=1e6)
    monkeypatch.setattr(solvers, "_SVM_ITERATIONS", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for solver in solvers.SOLVERS:
            model = solvers.fit(kernel, labels, solver=solver)
            assert solver not in ("svc", "svr") or not model.converged
        solvers.fit(kernel, labels, parity=True)
        solvers.scores(model, others, flipped=others)


def test_scaling_the_kernel_is_scaling_the_strengths_by_the_inverse_square(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, others, labels, _ = problem()
    first = solvers.scores(solvers.fit(kernel, labels), others)
    grid = solvers.STRENGTHS
    monkeypatch.setattr(solvers, "STRENGTHS", grid / 49)
    np.testing.assert_allclose(solvers.scores(solvers.fit(7 * kernel, labels), 7 * others), first, atol=1e-4)
    monkeypatch.setattr(solvers, "STRENGTHS", grid)
    assert np.abs(solvers.scores(solvers.fit(7 * kernel, labels), 7 * others) - first).max() > 1e-3


def test_rows_of_one_example_stay_in_one_fold_and_classes_are_spread() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 1)
    folds = solvers.example_folds(labels, 5, seed=1)
    assert sorted(np.bincount(folds)) == [3, 3, 3, 3, 4]
    np.testing.assert_array_equal(np.bincount(folds[:10]), [2] * 5)
    assert set(folds[10:15]) == set(range(5))
    assert (folds != solvers.example_folds(labels, 5, seed=2)).any()
    np.testing.assert_array_equal(folds, solvers.example_folds(labels, 5, seed=1))


def test_folds_of_rows_leak_the_classes_of_an_example_and_grouped_folds_do_not() -> None:
    """Without knowledge of classes, rows of an example tell on each other: if two classes are no, the third is yes."""
    random = np.random.default_rng(7)
    labels = random.integers(0, 3, 30)
    kernel = np.einsum("nm,cd->ncmd", np.eye(30), np.eye(3) - 1 / 3) * 10 + np.einsum("nm,cd->ncmd", np.eye(30),
                                                                                      np.eye(3)) * 1e-3
    targets = one_hot(labels).ravel()
    for folds, leaks in ((np.arange(90) % 5, True), (solvers.example_folds(labels, 5, 0).repeat(3), False)):
        found = solvers._logistic(as_matrix(kernel), targets, folds)
        assert (found["strength"] > solvers.STRENGTHS[0]) == leaks


def test_equal_arguments_give_equal_models() -> None:
    kernel, _, labels, _ = problem()
    np.testing.assert_array_equal(solvers.fit(kernel, labels, seed=3).coefficients,
                                  solvers.fit(kernel, labels, seed=3).coefficients)


# --- the other solvers --------------------------------------------------------------------------------------------


def test_least_squares_is_that_of_the_matrix_and_reports_its_rank() -> None:
    kernel, others, labels, _ = problem(train=9, others=4)
    model = solvers.fit(kernel, labels, solver="least-squares")
    expected = as_matrix(others) @ np.linalg.pinv(as_matrix(kernel)) @ one_hot(labels).ravel()
    np.testing.assert_allclose(solvers.scores(model, others).ravel(), expected, rtol=1e-6)
    assert model.rank == np.linalg.matrix_rank(as_matrix(kernel)) == 27


def test_ridge_is_kernel_ridge_at_the_strength_chosen_by_whole_examples() -> None:
    from sklearn.kernel_ridge import KernelRidge

    kernel, others, labels, _ = problem()
    model = solvers.fit(kernel, labels, solver="ridge")
    matrix, targets = as_matrix(kernel), one_hot(labels).ravel()
    again = KernelRidge(alpha=model.strength, kernel="precomputed").fit(matrix, targets)
    np.testing.assert_allclose(solvers.scores(model, others).ravel(), again.predict(as_matrix(others)), rtol=1e-6)
    folds, errors = solvers.example_folds(labels, 5, 0).repeat(CLASSES), []
    grid = solvers.RIDGES * np.diag(matrix).mean()
    for alpha in grid:
        errors.append(sum(np.square(KernelRidge(alpha=alpha, kernel="precomputed").fit(
            matrix[folds != f][:, folds != f], targets[folds != f]).predict(matrix[folds == f][:, folds != f])
            - targets[folds == f]).sum() for f in range(5)))
    assert model.strength == pytest.approx(grid[int(np.argmin(errors))])


@pytest.mark.parametrize("solver", ["svc", "svr"])
def test_support_vectors_are_scikit_learns(solver: solvers.Solver) -> None:
    from sklearn.svm import SVC, SVR

    kernel, others, labels, _ = problem()
    model = solvers.fit(kernel, labels, solver=solver)
    if solver == "svc":
        expected = SVC(kernel="precomputed").fit(as_matrix(kernel),
                                                 one_hot(labels).ravel()).decision_function(as_matrix(others))
    else:
        expected = SVR(kernel="precomputed").fit(as_matrix(kernel), one_hot(labels).ravel()).predict(as_matrix(others))
    np.testing.assert_allclose(solvers.scores(model, others).ravel(), expected, atol=1e-8)
    assert model.threshold == (0 if solver == "svc" else 0.5)


def test_the_asymmetric_solver_solves_its_system_and_takes_each_side_its_way() -> None:
    random = np.random.default_rng(9)
    jacobian = random.normal(size=(14, 2, 80))
    whole = np.einsum("ncp,mdp->ncmd", np.sign(jacobian), jacobian)
    kernel, labels = whole[:10][:, :, :10], np.arange(10) % 2
    model = solvers.fit(kernel, labels, solver="asymmetric", gamma=2.0)
    signs = 2 * one_hot(labels, 2).ravel() - 1
    alpha, beta = oracle.asymmetric(oracle.matrix(kernel), signs, 2.0)
    forward = whole[10:][:, :, :10]  # signs of the others
    back = whole[:10][:, :, 10:].transpose(2, 3, 0, 1)  # signs of the training examples
    expected = 0.5 * oracle.matrix(back) @ (alpha * signs) + 0.5 * oracle.matrix(forward) @ (beta * signs)
    np.testing.assert_allclose(solvers.scores(model, forward, flipped=back).ravel(), expected, rtol=1e-9)
    loose = solvers.fit(kernel, labels, solver="asymmetric", gamma=1e8)
    np.testing.assert_allclose(solvers.scores(loose, kernel, flipped=kernel.transpose(2, 3, 0, 1)).ravel(), signs,
                               atol=1e-3)


@pytest.mark.parametrize("solver", solvers.OFFSET_SOLVERS)
def test_fitting_what_the_start_leaves_over_adds_the_start_to_scores(solver: solvers.Solver) -> None:
    kernel, others, labels, _ = problem()
    random = np.random.default_rng(2)
    logits, of_others = random.normal(size=(24, 3)), random.normal(size=(15, 3))
    model = solvers.fit(kernel, labels, solver=solver, logits=logits, logits_scale=4.0)
    found = solvers.scores(model, others, logits=of_others)
    np.testing.assert_allclose(found - of_others / 4, solvers.scores(
        solvers.KernelModel(model.coefficients, model.intercept, model.scale, 0.5), others))
    exact = solvers.fit(kernel, labels, solver=solver, logits=one_hot(labels))
    assert np.abs(exact.coefficients).max() < 1e-8  # nothing is left over


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", solvers.SOLVERS)
@pytest.mark.parametrize("normalise", ["frobenius", "mean-diagonal"])
def test_a_normalised_model_does_not_depend_on_the_kernels_scale(solver: solvers.Solver,
                                                                 normalise: solvers.Normalise) -> None:
    kernel, others, labels, _ = problem()
    found = []
    for scale in (1.0, 1e5):
        model = solvers.fit(scale * kernel, labels, solver=solver, normalise=normalise)
        flipped = scale * others if solver == "asymmetric" else None
        found.append(solvers.scores(model, scale * others, flipped=flipped))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_regularization_adds_a_share_of_the_operator_norm_to_the_diagonal() -> None:
    kernel, others, labels, _ = problem(train=9, others=4)
    model = solvers.fit(kernel, labels, solver="least-squares", regularization=0.2)
    matrix = as_matrix(kernel)
    expected = as_matrix(others) @ np.linalg.solve(matrix + 0.2 * np.linalg.norm(matrix, 2) * np.eye(27),
                                                   one_hot(labels).ravel())
    np.testing.assert_allclose(solvers.scores(model, others).ravel(), expected, rtol=1e-8)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_solver_learns_classes_that_the_kernel_knows(solver: solvers.Solver, classes: int) -> None:
    kernel, others, labels, true = problem(train=60, others=40, classes=classes, apart=4.0)
    model = solvers.fit(kernel, labels, solver=solver)
    flipped = others if solver == "asymmetric" else None
    found = solvers.accuracies(model, solvers.scores(model, others, flipped=flipped), true)
    assert found.argmax > 0.85 and found.flat > 0.85 and found.n == 40


def test_renaming_the_classes_renames_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, others, labels, _ = problem()
    order = np.array([2, 0, 1])
    monkeypatch.setattr(solvers, "STRENGTHS",
                        np.array([0.1]))  # which is chosen hangs on folds, which are drawn class by class
    first = solvers.scores(solvers.fit(kernel, labels), others)
    renamed = solvers.fit(kernel[:, order][:, :, :, order], np.argsort(order)[labels])
    np.testing.assert_allclose(solvers.scores(renamed, others[:, order][:, :, :, order]), first[:, order], atol=1e-3)


def test_a_kernel_that_knows_nothing_says_no_to_every_class() -> None:
    labels = np.arange(12) % 3
    model = solvers.fit(np.zeros((12, 3, 12, 3)), labels)
    found = solvers.accuracies(model, solvers.scores(model, np.zeros((6, 3, 12, 3))), np.arange(6) % 3)
    assert found.flat == pytest.approx(2 / 3) and found.argmax == pytest.approx(1 / 3)
    assert model.intercept == pytest.approx(-np.log(2), abs=1e-3)


def test_classes_of_one_example_or_none_do_not_stop_a_fit() -> None:
    kernel, others, _, _ = problem()
    labels = np.array([0] * 23 + [1])
    for solver in solvers.SOLVERS:
        model = solvers.fit(kernel, labels, solver=solver)
        flipped = others if solver == "asymmetric" else None
        assert np.isfinite(solvers.scores(model, others, flipped=flipped)).all()


# --- both accuracies ----------------------------------------------------------------------------------------------


def test_flat_and_argmax_accuracy_are_different_numbers() -> None:
    model = solvers.KernelModel(np.zeros((1, 3)), 0.0, 1.0, 0.0)
    always_no = -np.ones((5, 3))
    assert solvers.accuracies(model, always_no, np.arange(5) % 3).flat == pytest.approx(2 / 3)
    shy = np.array([[-1.0, -2, -3], [-2, -1, -3]])  # the right class is highest, but below the threshold
    found = solvers.accuracies(model, shy, np.array([0, 1]))
    assert (found.argmax, found.flat) == (1.0, pytest.approx(4 / 6))
    half = solvers.KernelModel(np.zeros((1, 3)), 0.0, 1.0, 0.5)
    assert solvers.accuracies(half, np.array([[0.6, 0.4, 0.4], [0.4, 0.3, 0.7]]),
                              np.array([0, 0])).flat == pytest.approx(4 / 6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda k, o, y: solvers.fit(k, y, solver="lasso"), "is not known"),
    (lambda k, o, y: solvers.fit(o, y), "train x train"),
    (lambda k, o, y: solvers.fit(k, y[:-1]), "train x train"),
    (lambda k, o, y: solvers.fit(k[:1][:, :, :1], y[:1]), "two examples"),
    (lambda k, o, y: solvers.fit(k[:, :1][..., :1], 0 * y), "two classes"),
    (lambda k, o, y: solvers.fit(k, y + 1), "0 .. 2"),
    (lambda k, o, y: solvers.fit(k, y, logits=np.zeros((24, 3))), "cannot start"),
    (lambda k, o, y: solvers.fit(k, y, solver="ridge", logits=np.zeros((24, 2))), "one per example and class"),
    (lambda k, o, y: solvers.fit(k, y, solver="ridge", logits=np.zeros((24, 3)), logits_scale=0.0), "logits_scale"),
    (lambda k, o, y: solvers.fit(k, y, solver="svc", parity=True), "parity"),
    (lambda k, o, y: solvers.fit(k, y, regularization=-1.0), "regularization"),
    (lambda k, o, y: solvers.fit(k, y, normalise="trace"), "normalise"),
    (lambda k, o, y: solvers.fit(0 * k, y, normalise="frobenius"), "divided"),
    (lambda k, o, y: solvers.fit(k, y, folds=1), "at least 2"),
    (lambda k, o, y: solvers.fit(k, y, solver="asymmetric", gamma=0.0), "gamma"),
    (lambda k, o, y: solvers.fit(k + np.triu(np.ones((72, 72))).reshape(k.shape) * 99, y, solver="ridge"), "symmetric"),
    (lambda k, o, y: solvers.scores(solvers.fit(k, y), k[:, :, :5]), "training examples"),
    (lambda k, o, y: solvers.scores(solvers.fit(k, y), o, logits=np.zeros((15, 3))), "to both"),
    (lambda k, o, y: solvers.scores(solvers.fit(k, y, solver="asymmetric"), o), "either side signed"),
    (lambda k, o, y: solvers.scores(solvers.fit(k, y), o, flipped=o), "either side signed"),
])
def test_bad_input_is_refused_with_what_to_give(call, message: str) -> None:
    kernel, others, labels, _ = problem()
    with pytest.raises(ValueError, match=message):
        call(kernel, others, labels)
