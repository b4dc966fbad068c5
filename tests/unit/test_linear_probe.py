"""The linear probe that starts lp, lp-ft and lp-lora: against scikit-learn, in parity with what was published, and its
limits."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from finetrace.config.training import TrainSettings
from finetrace.training.linear_probe import fit, fit_linear_probe


def rows(n=120, dim=6, classes=3, spread=1.0, seed=0):
    """Features far from zero, as those of an encoder are; the classes overlap."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return 3 + rng.normal(size=(n, dim)) + spread * rng.normal(size=(classes, dim))[y], y


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_the_head_is_scikit_learns_with_rows_that_sum_to_zero(classes, strength):
    X, y = rows(classes=classes)
    weight, bias, _, converged = (part[0] for part in fit(X, y, classes, np.array([strength]), TrainSettings()))
    centre = X.mean(axis=0)  # scikit-learn converges on centred features; the free bias makes up for it
    model = LogisticRegression(C=strength * (2 if classes == 2 else 1), tol=1e-12, max_iter=10000, solver="newton-cg")
    theirs = model.fit(X - centre, y)
    expected = np.concatenate([-theirs.coef_, theirs.coef_]) / 2 if classes == 2 else theirs.coef_
    offset = np.concatenate([-theirs.intercept_, theirs.intercept_]) / 2 if classes == 2 else theirs.intercept_
    assert converged
    np.testing.assert_allclose(weight, expected, atol=2e-6)
    np.testing.assert_allclose(bias, offset - expected @ centre, atol=2e-5)
    np.testing.assert_allclose(weight.sum(axis=0), 0, atol=1e-9)
    assert abs(bias.sum()) < 1e-9


def test_two_classes_are_installed_whole_by_default_and_at_half_scale_in_parity():
    X, y = rows(classes=2)
    for parity, share in ((False, 1.0), (True, 0.5)):
        weight, bias, *_ = (part[0] for part in fit(X, y, 2, np.array([1.0]), TrainSettings(lp_parity=parity)))
        model = LogisticRegression(C=2.0, tol=1e-10 if not parity else 1e-4, max_iter=5000).fit(X, y)
        gap = (X @ weight.T + bias) @ [-1, 1]
        np.testing.assert_allclose(gap, share * model.decision_function(X), atol=5e-3 if not parity else 1e-9)
        np.testing.assert_array_equal(gap > 0, model.decision_function(X) > 0)


def test_weaker_penalties_never_give_smaller_heads():
    X, y = rows()
    weight, *_ = fit(X, y, 3, np.logspace(-4, 4, 10), TrainSettings())
    norms = np.linalg.norm(weight.reshape(10, -1), axis=1)
    assert (np.diff(norms) > 0).all()


def test_labels_that_the_features_do_not_tell_give_the_smallest_strength_and_the_majority_class():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(200, 4)), (rng.random(200) < 0.25).astype(int)
    probe = fit_linear_probe(X, y, 2, TrainSettings(lp_strengths=(1e-4, 1e-2, 3)), seed=3)
    assert probe.strength == pytest.approx(1e-4) and (probe.accuracy == probe.accuracy[0]).all()
    assert (np.argmax(X @ probe.weight.T + probe.bias, axis=1) == 0).all()


def test_the_choice_does_not_depend_on_the_order_of_classes_and_repeats():
    X, y = rows(spread=0.5)
    first, again = (fit_linear_probe(X, y, 3, TrainSettings(), seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.weight, again.weight)
    assert first.strength == first.strengths[int(first.accuracy.argmax())]
    other = fit_linear_probe(X, y, 3, TrainSettings(), seed=6)
    assert not np.array_equal(first.accuracy, other.accuracy)


def test_the_first_iterations_are_those_of_the_whole_fit():
    X, y = rows()
    total = int(fit(X, y, 3, np.array([1.0]), TrainSettings())[2][0])
    losses = []
    for step in range(total + 1):
        weight, bias, count, converged = (part[0] for part in fit(X, y, 3, np.array([1.0]), TrainSettings(), step))
        assert count == step and converged == (step == total)
        z = X @ weight.T + bias
        losses.append((np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]).sum() + 0.5 * (weight ** 2).sum())
    assert losses[0] == pytest.approx(len(y) * np.log(3))
    assert losses[-1] == pytest.approx(min(losses), rel=1e-13)  # the last steps move it by rounding only


def test_standardised_features_are_folded_back():
    X, y = rows()
    X = X * [1, 10, 100, 1, 1, 0] + [0, 0, 0, 0, 0, 7]  # the last is constant
    weight, bias, *_ = (part[0] for part in fit(X, y, 3, np.array([1.0]), TrainSettings(lp_standardise=True)))
    scaled = np.divide(X - X.mean(0), X.std(0), out=np.zeros_like(X), where=X.std(0) > 0)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(scaled, y)
    np.testing.assert_allclose(X @ weight.T + bias, theirs.decision_function(scaled), atol=1e-4)
    assert (weight[:, -1] == 0).all()


def test_classes_that_training_lacks_are_never_predicted():
    X, y = rows(classes=3)
    probe = fit_linear_probe(X, np.array([1, 3, 4])[y], 6, TrainSettings(lp_strengths=(1.0, 1.0, 1)), seed=0)
    assert probe.weight.shape == (6, 6) and set(np.argmax(X @ probe.weight.T + probe.bias, axis=1)) <= {1, 3, 4}
    assert np.isnan(probe.accuracy).all()


def test_classes_of_one_example_do_not_stop_the_cross_validation():
    X, y = rows(classes=3)
    y = np.concatenate([y, [3]])
    X = np.concatenate([X, X[:1] + 9])
    for parity in (False, True):
        probe = fit_linear_probe(X, y, 4, TrainSettings(lp_strengths=(0.1, 10, 3), lp_parity=parity), seed=0)
        assert np.isfinite(probe.weight).all() and np.isfinite(probe.accuracy).all()
    lone = fit_linear_probe(X[:3], np.array([0, 1, 2]), 3, TrainSettings(), seed=0)  # no folds can be made: C next to 1
    assert abs(np.log10(lone.strength)) < 0.5


@pytest.mark.parametrize(("X", "y", "message"), [(np.full((4, 2), np.nan), [0, 1, 0, 1], "NaN"),
                                                 (np.ones((4, 2)), [1] * 4, "class")])
def test_useless_input_is_refused(X, y, message):
    with pytest.raises(ValueError, match=message):
        fit_linear_probe(X, np.array(y), 2, TrainSettings(), seed=0)
