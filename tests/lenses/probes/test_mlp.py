"""Networks of a grid: the loop oracle, scikit-learn to the last digit, the choice, independence of the batch, refused
input."""

import warnings

import numpy as np
import pytest
from tests.oracles import probe_parts as oracle

from finetrace.lenses.probes import mlp as lens
from finetrace.lenses.probes.linear import held_out_rows


def problems(count: int = 2, rows: int = 230, dim: int = 6, classes: int = 3, signal: float = 0.8, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(rows) % classes)
    means = rng.normal(size=(count, classes, dim)) * signal
    return (rng.normal(size=(count, rows, dim)) + means[:, y]).astype(np.float32), y


def grid(X, y, **settings) -> lens.MlpProbe:
    usual = {"hidden": [(8,)], "l2": [0.1], "seeds": (3, 4), "max_epochs": 12, "dtype": "float64"}
    return lens.mlp_grid(X, y, **(usual | settings))


@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
def test_networks_are_trained_as_the_loop_says(hidden: tuple[int, ...]) -> None:
    X, y = problems()
    probe = grid(X, y, hidden=[hidden], l2=[0.5])
    for p in range(2):
        for k, seed in enumerate((3, 4)):
            layers, _ = oracle.mlp(X[p], y, hidden, 0.5, seed, 12)
            assert len(layers) == len(hidden) + 1
            for number, (W, b) in enumerate(layers):
                np.testing.assert_allclose(probe.weights[p][number][k], W, atol=1e-9)
                np.testing.assert_allclose(probe.biases[p][number][k], b, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_weights_and_epochs_are_those_of_scikit_learn(classes: int) -> None:
    from sklearn.neural_network import MLPClassifier

    X, y = problems(1, 230, 6, classes, signal=1.0)
    probe = grid(X, y, hidden=[(24, 12)], l2=[10.0], max_epochs=480)
    assert probe.converged[0, 0] and probe.epochs[0, 0] < 480
    for k, seed in enumerate((3, 4)):
        model = MLPClassifier((24, 12), alpha=10.0, random_state=seed, max_iter=480).fit(X[0].astype(np.float64), y)
        assert model.n_iter_ == probe.epochs[0, k]
        for number, W in enumerate(model.coefs_):
            np.testing.assert_allclose(probe.weights[0][number][k], W, atol=1e-7)
        np.testing.assert_array_equal(lens.mlp_logits(probe, 0, X[0])[k].argmax(axis=1),
                                      model.predict(X[0].astype(np.float64)))


def test_the_choice_is_that_of_a_grid_search_over_scikit_learn() -> None:
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    X, y = problems(1, 150, 5, 3, signal=1.2)
    shapes, strengths = [(4,), (16, 8), (40, 10)], [1e-3, 1.0, 300.0]
    probe = grid(X, y, hidden=shapes, l2=strengths, max_epochs=60, seed=7, seeds=(1,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = GridSearchCV(MLPClassifier(max_iter=60, random_state=7),
                              {"hidden_layer_sizes": shapes, "alpha": strengths},
                              cv=PredefinedSplit(np.where(held_out_rows(y, 0.2, 7), 0, -1)), refit=False)
        search.fit(X[0].astype(np.float64), y)
    theirs = search.cv_results_["mean_test_score"].reshape(3, 3).T  # it varies the last name in the alphabet fastest
    np.testing.assert_allclose(probe.held_out_accuracy[0], theirs, atol=1e-12)
    assert len(np.unique(theirs)) > 4
    assert theirs[probe.chosen_hidden[0], strengths.index(probe.chosen_l2[0])] == theirs.max()


def test_of_equal_points_the_smaller_network_and_the_stronger_penalty_win() -> None:
    table = np.array([[0.8, 0.9, 0.9], [0.9, 0.9, 0.7]])
    assert lens._best(table, ((32,), (16,)), 10, 3) == (1, 1)
    assert lens._best(table, ((16,), (32,)), 10, 3) == (0, 2)
    assert lens._best(np.full((1, 1), np.nan), ((4,),), 10, 3) == (0, 0)


def test_mean_accuracy_agrees_with_scikit_learn_within_the_noise_of_seeds() -> None:
    from sklearn.neural_network import MLPClassifier

    X, y = problems(1, 500, 8, 3, signal=0.5)
    probe = lens.mlp_grid(X[:, :300], y[:300], hidden=[(16,)], l2=[0.1], seeds=range(10, 18), max_epochs=40)
    ours = (lens.mlp_logits(probe, 0, X[0, 300:]).argmax(axis=2) == y[300:]).mean(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [MLPClassifier((16,), alpha=0.1, random_state=s, max_iter=40).fit(X[0, :300],
                                                                                   y[:300]).score(X[0, 300:], y[300:])
                  for s in range(20, 28)]
    error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 8)
    assert error < 0.04 and abs(ours.mean() - np.mean(theirs)) < 4 * error + 1e-3


def test_finished_networks_leave_the_batch_with_the_weights_that_they_had() -> None:
    X, y = problems(3, 90, 5, 2, signal=1.0)
    X[2] *= 0.01
    whole = grid(X, y, l2=[1.0], max_epochs=300, hidden=[(30,)])
    assert len(np.unique(whole.epochs)) == 3 and whole.converged.sum() == 2
    for p in range(3):
        for k, seed in enumerate((3, 4)):
            one = grid(X[[p]], y, l2=[1.0], max_epochs=300, hidden=[(30,)], seeds=(seed,))
            assert one.epochs[0, 0] == whole.epochs[p, k] and one.converged[0, 0] == whole.converged[p, k]
            np.testing.assert_allclose(whole.weights[p][0][k], one.weights[0][0][0], atol=1e-9)


def test_the_order_of_problems_and_of_the_grid_changes_nothing() -> None:
    X, y = problems(4, 120, 5, 3)
    settings = {"hidden": [(4,), (6, 4)], "l2": [0.01, 1.0]}
    one = grid(X, y, **settings)
    other = grid(X[[2, 0]], y, hidden=[(6, 4), (4,)], l2=[1.0, 0.01])
    np.testing.assert_allclose(other.held_out_accuracy[:, ::-1], one.held_out_accuracy[[2, 0]], atol=1e-12)
    np.testing.assert_array_equal(other.chosen_l2, one.chosen_l2[[2, 0]])
    np.testing.assert_allclose(lens.mlp_logits(other, 0, X[2]), lens.mlp_logits(one, 2, X[2]), atol=1e-8)


def test_groups_of_any_size_and_threads_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    X, y = problems(5, 80, 4, 3)
    settings = {"hidden": [(4,), (5, 3)], "l2": [0.01, 1.0]}
    one = grid(X, y, **settings)
    monkeypatch.setattr(lens, "CACHE_BYTES", 1)  # every problem alone
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = grid(X, y, **settings)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.held_out_accuracy, other.held_out_accuracy)
    for p in range(5):
        np.testing.assert_allclose(one.weights[p][0], other.weights[p][0], atol=1e-9)


def test_names_of_labels_do_not_matter_and_equal_calls_give_equal_bytes() -> None:
    X, y = problems(1, 100, 5, 3)
    one, two = (lens.mlp_grid(X, y, hidden=[(4,), (5,)], l2=[0.1], seeds=(1, 2), max_epochs=10) for _ in range(2))
    for a, b in zip(one.weights[0] + one.biases[0], two.weights[0] + two.biases[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.weights[0][0].dtype == np.float32
    named = lens.mlp_grid(X, 10 * y + 5, hidden=[(4,), (5,)], l2=[0.1], seeds=(1, 2), max_epochs=10)
    assert named.classes.tolist() == [5, 15, 25]
    np.testing.assert_array_equal(named.weights[0][0], one.weights[0][0])


def test_standardised_features_do_not_feel_shift_and_scale() -> None:
    X, y = problems(1, 100, 5, 3)
    X = X.astype(np.float64)
    one = grid(X, y, standardise=True)
    moved = 100 + X * np.array([1, 10, 0.1, 3, 7])
    other = grid(moved, y, standardise=True)
    np.testing.assert_allclose(lens.mlp_logits(one, 0, X[0]), lens.mlp_logits(other, 0, moved[0]), atol=1e-8)
    constant = X.copy()
    constant[..., 2] = 4.0
    assert grid(constant, y, standardise=True).scale[0, 2] == 0


def test_folds_are_stratified_cover_all_rows_and_are_of_equal_size() -> None:
    y = np.r_[np.zeros(50, int), np.ones(31, int), np.full(7, 2), [3]]
    folds = lens.fold_rows(y, 5, 0.2, 0)
    assert np.array_equal(np.sum(folds, axis=0), np.ones(len(y)))
    sizes = [fold.sum() for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for label in range(4):
        counts = [np.sum(y[fold] == label) for fold in folds]
        assert max(counts) - min(counts) <= 1
    one, = lens.fold_rows(y, 1, 0.2, 0)
    assert not one[y == 3].any() and one.sum() == 10 + 6 + 1
    with pytest.raises(ValueError, match="folds: 1000 is not between 1 and the number of rows, 89"):
        lens.fold_rows(y, 1000, 0.2, 0)


def test_cross_validation_averages_the_folds() -> None:
    X, y = problems(1, 90, 5, 3)
    probe = grid(X, y, hidden=[(4,), (6,)], folds=3)
    expected = []
    for out in lens.fold_rows(y, 3, 0.2, 0):
        one = grid(X[:, ~out], y[~out], hidden=[(4,)], seeds=(0,))
        expected.append(np.mean(lens.mlp_logits(one, 0, X[0, out])[0].argmax(axis=1) == y[out]))
    assert probe.held_out_accuracy[0, 0, 0] == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_class_with_one_row_trains() -> None:
    X, y = problems(1, 60, 4, 3)
    y[0] = 7
    probe = grid(X, y, hidden=[(4,), (5,)])
    assert probe.classes.tolist() == [0, 1, 2, 7] and np.isfinite(probe.held_out_accuracy).all()


def test_counts_of_weights_bytes_and_operations() -> None:
    assert lens.weight_count(10, (4, 3), 5) == 10 * 4 + 4 + 4 * 3 + 3 + 3 * 5 + 5
    assert lens.weight_count(10, (), 2) == 11
    few, many = (lens.mlp_bytes(100, 10, 3, (4,), models) for models in (1, 9))
    assert 0 < few < many
    assert lens.grid_operations(100, 10, 3, [(4,)], 2,
                                5) == pytest.approx(5 * lens.grid_operations(100, 10, 3, [(4,)], 2, 1))


@pytest.mark.parametrize(("settings", "message"), [
    ({"hidden": []}, "hidden: .* must name different shapes"),
    ({"hidden": [(0,)]}, "hidden: .* sizes above 0"),
    ({"hidden": [(4,), (4,)]}, "hidden: .* different shapes"),
    ({"l2": [-1.0]}, "l2: .* numbers from 0 on"),
    ({"l2": []}, "l2: .* numbers from 0 on"),
    ({"seeds": ()}, "seeds: names none"),
])
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    X, y = problems(1, 30, 3, 3)
    with pytest.raises(ValueError, match=message):
        grid(X, y, **settings)


def test_bad_input_is_refused() -> None:
    X, y = problems(1, 30, 3, 3)
    with pytest.raises(ValueError, match="the labels hold 1 class"):
        grid(X, y * 0)
    with pytest.raises(ValueError, match="X of problem 0 holds NaN"):
        grid(X * np.nan, y)
    with pytest.raises(ValueError, match="no row can be held out"):
        grid(X, y, hidden=[(2,), (3,)], holdout=0.001)
