"""Logistic probes: the Newton oracle and scikit-learn, what must not matter, worked cases, refused input."""

import numpy as np
import pytest
from tests.oracles import probes as oracle

from finetrace.lenses.probes import linear as lens

GRID = (1e-3, 1e-2, 1e-1)


def problems(count: int = 3, rows: int = 80, dim: int = 6, classes: int = 3, signal: float = 0.7, seed: int = 0):
    """X (problem, row, dim) with correlated features of unequal scale, and labels (row,)."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(rows) % classes)
    mixing = rng.normal(size=(count, dim, dim)) * np.geomspace(1, 30, dim)
    means = rng.normal(size=(count, classes, dim)) * signal
    return (rng.normal(size=(count, rows, dim)) + means[:, y]) @ mixing + 5.0, y


def fit(X, y, l2=0.01, **settings):
    return lens.logistic_probe(X, y, l2=[l2] if isinstance(l2, float) else l2, **settings)


# --- the minimiser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_the_minimiser_is_that_of_newtons_method(classes: int, l2: float) -> None:
    X, y = problems(2, 60, 4, classes)
    probe = fit(X, y, l2, tolerance=1e-11)
    assert probe.converged.all() and (probe.gradient_norm <= 1e-11).all() and (probe.iterations > 0).all()
    for x, found in zip(X, lens.logits(probe, X), strict=True):
        weights, bias = oracle.logistic(oracle.standardise(x), y, l2)
        np.testing.assert_allclose(found, oracle.standardise(x) @ weights + bias, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("classes", "factor"), [(2, 2), (4, 1)])
def test_scikit_learn_finds_the_same_probabilities_and_accuracies(classes: int, factor: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    X, y = problems(3, 120, 8, classes)
    train, test = slice(0, 80), slice(80, None)
    probe = fit(X[:, train], y[train], 0.01, tolerance=1e-9)
    scores = lens.score(lens.logits(probe, X[:, test]), y[test], probe.classes)
    assert len(X) == len(scores.accuracy) == 3
    for p, x in enumerate(X):
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=factor / (80 * 0.01), tol=1e-10, max_iter=5000).fit(scaler.transform(x[train]),
                                                                                         y[train])
        expected = model.predict_proba(scaler.transform(x[test]))
        np.testing.assert_allclose(oracle.softmax(lens.logits(probe, X[:, test])[p]), expected, rtol=0, atol=1e-6)
        assert scores.accuracy[p] == model.score(scaler.transform(x[test]), y[test])


def test_more_dimensions_than_rows_are_solved_in_the_space_of_the_rows() -> None:
    X, y = problems(2, 20, 50, 2)
    probe = fit(X, y, 0.01, tolerance=1e-9)
    assert probe.converged.all()
    weights, bias = oracle.logistic(oracle.standardise(X[0]), y, 0.01)
    np.testing.assert_allclose(lens.logits(probe, X)[0], oracle.standardise(X[0]) @ weights + bias, rtol=0, atol=1e-5)


def test_without_convergence_the_probe_says_so() -> None:
    X, y = problems(3, 80, 6, 3)
    probe = fit(X, y, 1e-4, max_iterations=3)
    assert not probe.converged.any() and (probe.gradient_norm > 1e-5).all() and (probe.iterations == 3).all()
    assert fit(X, y, 1e-4).converged.all()


# --- worked cases -------------------------------------------------------------------------------------------------


def test_separable_classes_give_100_percent() -> None:
    X, y = problems(4, 200, 16, 3, signal=15.0)
    probe = lens.logistic_probe(X[:, :150], y[:150])
    scores = lens.score(lens.logits(probe, X[:, 150:]), y[150:], probe.classes)
    assert (scores.accuracy == 1).all() and (scores.macro_f1 == 1).all() and (scores.loss < 0.1).all()


def test_shuffled_labels_give_chance() -> None:
    X, y = problems(1, 8000, 10, 2, signal=2.0)
    shuffled = np.random.default_rng(3).permutation(y)
    probe = lens.logistic_probe(X[:, :3000], shuffled[:3000])
    found = lens.score(lens.logits(probe, X[:, 3000:]), shuffled[3000:], probe.classes)
    assert abs(found.accuracy[0] - 0.5) < 0.02
    assert found.loss[0] == pytest.approx(np.log(2), abs=0.01)
    assert found.low[0] < 0.5 < found.high[0]
    probe = lens.logistic_probe(X[:, :3000], y[:3000])  # the same rows with their own labels do better
    assert lens.score(lens.logits(probe, X[:, 3000:]), y[3000:], probe.classes).accuracy[0] > 0.9


def test_features_without_information_give_the_class_frequencies() -> None:
    y = np.array([0] * 30 + [1] * 10)
    probe = fit(np.full((1, 40, 3), 0.1, dtype=np.float32), y)
    found = oracle.softmax(lens.logits(probe, np.full((1, 40, 3), 0.1, dtype=np.float32))[0])
    np.testing.assert_allclose(found, [[0.75, 0.25]] * 40, atol=1e-4)
    assert lens.majority_floor(y, y) == 0.75
    assert lens.majority_floor(y, 1 - y) == 0.25


def test_a_constant_feature_counts_nothing_even_where_the_test_rows_differ() -> None:
    X, y = problems(2, 60, 4, 2)
    wide = np.concatenate([X, np.full((2, 60, 1), 0.3, dtype=np.float32)], axis=2)
    probe = fit(wide, y)
    assert (probe.weights[:, 4] == 0).all()
    moved = wide.copy()
    moved[:, :, 4] = 1e6
    np.testing.assert_array_equal(lens.logits(probe, moved), lens.logits(probe, wide))
    np.testing.assert_allclose(lens.logits(probe, wide), lens.logits(fit(X, y), X), atol=1e-3)


def test_rounding_that_goes_with_the_class_is_not_read() -> None:
    y = np.arange(60) % 2
    constant = np.random.default_rng(0).normal(size=8).astype(np.float32)
    X = np.tile(constant, (1, 60, 1))
    X[0, y == 1] = np.nextafter(X[0, y == 1], np.float32(9))  # one unit in the last place
    assert (X[0, 0] != X[0, 1]).all()
    assert lens.score(lens.logits(fit(X, y), X), y, np.arange(2)).accuracy[0] == 0.5
    X[0, y == 1] += 1e-4  # small, but no rounding
    assert lens.score(lens.logits(fit(X, y), X), y, np.arange(2)).accuracy[0] == 1


def test_scores_are_what_their_definitions_say() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(3, 50, 4)), rng.integers(0, 3, 50) * 10  # the fourth class is never right
    found = lens.score(logits, y, np.array([0, 10, 20, 30]))
    for p in range(3):
        predicted = logits[p].argmax(axis=1) * 10
        assert found.accuracy[p] == np.mean(predicted == y)
        assert found.macro_f1[p] == pytest.approx(oracle.macro_f1(predicted, y), abs=1e-15)
        gold = oracle.softmax(logits[p])[np.arange(50), y // 10]
        assert found.loss[p] == pytest.approx(-np.log(gold).mean(), abs=1e-14)
        assert found.low[p] < found.accuracy[p] < found.high[p]
    assert found.n == 50
    ends = lens.score(np.tile([1.0, 0.0], (1, 10, 1)), np.zeros(10, int), np.array([0, 1]))
    assert ends.accuracy[0] == 1 and ends.high[0] == pytest.approx(1) and ends.low[0] == pytest.approx(0.7224672,
                                                                                                       abs=1e-6)


# --- what must not matter -----------------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_bits() -> None:
    X, y = problems(5, 100, 12, 3)
    one, two = (lens.logistic_probe(X, y, l2=GRID) for _ in range(2))
    for name in ("weights", "bias", "l2", "held_out_loss", "iterations"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_other_problems_of_the_batch_change_nothing() -> None:
    X, y = problems(6, 100, 8, 3)
    X[3] *= 0  # one that is done at once
    whole = lens.logistic_probe(X, y, l2=GRID)
    order = [4, 0, 5]
    part = lens.logistic_probe(X[order], y, l2=GRID)
    np.testing.assert_array_equal(part.l2, whole.l2[order])
    np.testing.assert_allclose(part.weights, whole.weights[order], atol=1e-12)
    for p in range(6):
        alone = lens.logistic_probe(X[[p]], y, l2=GRID)
        np.testing.assert_allclose(lens.logits(alone, X[[p]])[0], lens.logits(whole, X)[p], atol=1e-9)


def test_blocks_that_fit_a_cache_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = problems(5, 100, 8, 3)
    whole = lens.logistic_probe(X, y, l2=GRID)
    monkeypatch.setattr(lens, "CACHE_BYTES", 2 * 8 * 100 * 9)
    blocks = lens.logistic_probe(X, y, l2=GRID)
    np.testing.assert_allclose(blocks.weights, whole.weights, atol=1e-12)
    np.testing.assert_array_equal(blocks.l2, whole.l2)
    assert blocks.iterations.shape == (5,) and blocks.held_out_loss.shape == (5, 3)


def test_the_memory_estimate_covers_what_is_used() -> None:
    import tracemalloc

    X, y = problems(4, 3000, 40, 2)
    lens.logistic_probe(X[:1], y)
    assert lens.problem_bytes(3000, 0, 40, 2, 4) > 3 * X[0].nbytes  # input, standardised, rotated
    tracemalloc.start()  # sees numpy's part: the logits
    lens.logits(lens.logistic_probe(X, y), X.astype(np.float32))
    assert tracemalloc.get_traced_memory()[1] < 4 * lens.problem_bytes(3000, 3000, 40, 2, 4)
    tracemalloc.stop()


def test_renaming_the_classes_permutes_the_logits() -> None:
    X, y = problems(2, 80, 5, 3)
    name = np.array([7, 2, 40])
    probe, renamed = fit(X, y, tolerance=1e-10), fit(X, name[y], tolerance=1e-10)
    np.testing.assert_array_equal(renamed.classes, [2, 7, 40])
    np.testing.assert_allclose(lens.logits(renamed, X), lens.logits(probe, X)[..., [1, 0, 2]], atol=1e-6)


def test_scale_and_shift_of_each_feature_do_not_matter() -> None:
    X, y = problems(2, 80, 5, 2)
    rng = np.random.default_rng(1)
    changed = X * rng.uniform(-20, 20, 5) + rng.normal(size=5) * 100
    found = lens.logits(fit(changed, y, tolerance=1e-10), changed)
    np.testing.assert_allclose(found, lens.logits(fit(X, y, tolerance=1e-10), X), atol=1e-6)


def test_a_rotation_does_not_matter_where_all_features_have_one_scale() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, 5))
    X = np.linalg.qr(X - X.mean(axis=0))[0]  # white: a rotation leaves the standardisation alone
    turned = X @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    one, two = (fit(x[None], y, tolerance=1e-10) for x in (X, turned))
    np.testing.assert_allclose(lens.logits(one, X[None]), lens.logits(two, turned[None]), atol=1e-6)


def test_row_order_does_not_matter_and_duplicated_rows_count_twice() -> None:
    X, y = problems(2, 60, 5, 3)
    probe = fit(X, y, tolerance=1e-10)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(lens.logits(fit(X[:, order], y[order], tolerance=1e-10), X), lens.logits(probe, X),
                               atol=1e-6)
    doubled = fit(np.concatenate([X, X], axis=1), np.concatenate([y, y]), tolerance=1e-10)
    np.testing.assert_allclose(lens.logits(doubled, X), lens.logits(probe, X), atol=1e-6)


def test_half_precision_and_single_precision_agree() -> None:
    X, y = problems(2, 80, 5, 2)
    X = X.astype(np.float16)
    np.testing.assert_array_equal(fit(X, y).weights, fit(X.astype(np.float32), y).weights)


# --- the choice of the penalty ------------------------------------------------------------------------------------


def test_the_penalty_with_the_lowest_held_out_loss_is_chosen_and_all_rows_are_fitted_again() -> None:
    X, y = problems(4, 100, 12, 2, signal=0.2)
    probe = lens.logistic_probe(X, y, l2=(1.0, 1e-3, 1e-2), seed=5, tolerance=1e-7)
    assert probe.held_out_loss.shape == (4, 3)
    out = lens.held_out_rows(y, 0.2, 5)
    for p in range(4):
        losses, x = [], oracle.standardise(X[p])
        for l2 in (1e-3, 1e-2, 1.0):
            weights, bias = oracle.logistic(x[~out], y[~out], l2)
            losses.append(lens.score((x[out] @ weights + bias)[None], y[out], np.arange(2)).loss[0])
        np.testing.assert_allclose(probe.held_out_loss[p], losses, rtol=1e-3)
        assert probe.l2[p] == (1e-3, 1e-2, 1.0)[int(np.argmin(losses))]
        again = fit(X[[p]], y, float(probe.l2[p]), tolerance=1e-7)
        np.testing.assert_allclose(lens.logits(probe, X)[p], lens.logits(again, X[[p]])[0], atol=1e-3)
    assert np.isnan(fit(X, y).held_out_loss).all()


def test_of_equally_good_penalties_the_strongest_wins() -> None:
    y = np.arange(40) % 2
    assert lens.logistic_probe(np.zeros((1, 40, 3)), y, l2=GRID).l2[0] == 0.1


def test_held_out_rows_are_a_seeded_share_of_every_class() -> None:
    y = np.array([0] * 50 + [1] * 20 + [2] * 2 + [3])
    out = lens.held_out_rows(y, 0.2, 0)
    assert [int(out[y == k].sum()) for k in range(4)] == [10, 4, 0, 0]
    np.testing.assert_array_equal(out, lens.held_out_rows(y, 0.2, 0))
    assert (out != lens.held_out_rows(y, 0.2, 1)).any()
    assert lens.held_out_rows(np.array([0, 0, 1, 1]), 0.9, 0).sum() == 2  # one of each class stays


# --- refused input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y * 0), "the labels hold 1 class; a probe needs two"),
        (lambda X, y: (X[:, :3], np.arange(3)), "3 rows are too few for 3 classes"),
        (lambda X, y: (np.where(np.arange(2)[:, None, None] == 1, np.nan, X), y),
         "X of problem 1 holds NaN or infinity"),
        (lambda X, y: (X, y[:-1]), r"X \(2, 60, 4\) and y \(59,\)"),
        (lambda X, y: (X[0], y), r"are not \(problem, row, dim\)"),
    ],
)
def test_input_that_cannot_be_probed_is_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(*change(*problems(2, 60, 4, 2)))


def test_penalties_and_shares_out_of_range_are_refused() -> None:
    X, y = problems(1, 60, 4, 2)
    for l2 in ([0.0], [], [float("nan")], [-1.0, 1.0]):
        with pytest.raises(ValueError, match=r"l2: .* must hold numbers above 0"):
            lens.logistic_probe(X, y, l2=l2)
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"holdout: .* is not between 0 and 1"):
            lens.logistic_probe(X, y, holdout=share)
    with pytest.raises(ValueError, match="no row can be held out of 6"):
        lens.logistic_probe(X[:, :6], np.arange(6) % 2, holdout=0.1)


def test_splits_that_cannot_be_scored_are_named() -> None:
    names = ["negative", "positive"]
    lens.check_split("train", np.array([0, 1]), names)
    with pytest.raises(ValueError, match=r"the split 'train' holds one class only, 'positive' \(3 rows\)"):
        lens.check_split("train", np.ones(3, int), names)
    with pytest.raises(ValueError, match="the split 'test' has no rows"):
        lens.check_split("test", np.array([], int), names)


def test_classes_that_training_lacks_count_as_wrong_and_not_towards_the_loss() -> None:
    z = np.log(np.array([[[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.75, 0.25]]]))
    found = lens.score(z, np.array([0, 5, 1, 9]), np.array([0, 1]))
    assert (found.accuracy[0], found.n, found.unseen) == (0.5, 4, 2)
    assert found.loss[0] == pytest.approx(-np.log(0.75))
    assert found.macro_f1[0] == pytest.approx((0.5 + 1 + 0 + 0) / 4)  # class 0: one hit of three answers and one row
    known = lens.score(z[:, [0, 2]], np.array([0, 1]), np.array([0, 1]))
    assert known.unseen == 0 and known.loss[0] == pytest.approx(found.loss[0])
    nothing = lens.score(z, np.full(4, 7), np.array([0, 1]))
    assert nothing.accuracy[0] == 0 and np.isnan(nothing.loss[0]) and nothing.macro_f1[0] == 0


def test_a_class_with_one_training_row_is_fitted_and_never_held_out() -> None:
    X, y = problems(1, 60, 4, 2)
    y[3] = 9
    assert not lens.held_out_rows(y, 0.5, 0)[3]
    probe = fit(X, y, l2=[0.01, 0.1])
    assert probe.classes.tolist() == [0, 1, 9] and probe.converged.all()
    assert np.isfinite(probe.held_out_loss).all()


def test_spread_is_that_of_the_probe() -> None:
    X, _ = problems(1, 60, 4, 2)
    X[0, :, 2] = 7.0
    mean, scale = lens.spread(X[0])
    np.testing.assert_allclose(mean, X[0].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(scale, [*1 / X[0].std(axis=0)[:2], 0, 1 / X[0].std(axis=0)[3]], rtol=1e-5)
