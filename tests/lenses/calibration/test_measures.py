"""Calibration against a slow oracle, worked numbers, and what temperature scaling must and must not change."""

import numpy as np
import pytest
from tests.oracles import calibration as oracle

from finetrace.lenses.calibration.measures import (
    bin_edges,
    calibration,
    fit_temperature,
    intervals,
    negative_log_likelihood,
    probabilities_of,
    temperature,
)


def example(seed: int = 0, rows: int = 200, classes: int = 3, size: float = 2.0, learned: float = 1.0) -> tuple:
    """Logits that know the labels a little, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    logits = size * (random.normal(size=(rows, classes)) + learned * np.eye(classes)[labels])
    return logits, labels


def confident(confidence: float, right: int, wrong: int) -> tuple:
    """Examples of two classes, all equally confident of class 0."""
    return np.tile([confidence, 1 - confidence], (right + wrong, 1)), np.repeat([0, 1], [right, wrong])


# --- calibration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("classes", [2, 3, 17])
def test_every_measure_is_that_of_the_oracle(classes: int, bins: int) -> None:
    logits, labels = example(classes, classes=classes)
    p = probabilities_of(logits)
    found = calibration(p, labels, bins)
    for name, value in oracle.errors(p, labels, bins).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name
    assert found.brier_mean == pytest.approx(np.square(p - np.eye(classes)[labels]).mean(), abs=1e-12)
    members = oracle.bins_of(p.max(axis=1), bins)
    assert found.counts.tolist() == [len(m) for m in members] and found.counts.dtype == np.int64
    right = p.argmax(axis=1) == labels
    for j, m in enumerate(members):
        if m:
            assert found.bin_confidence[j] == pytest.approx(p[m].max(axis=1).mean(), abs=1e-12)
            assert found.bin_accuracy[j] == pytest.approx(right[m].mean(), abs=1e-12)
        else:
            assert np.isnan(found.bin_confidence[j]) and np.isnan(found.bin_accuracy[j])


def test_worked_case_of_nine_tenths_confident_and_seven_tenths_right() -> None:
    p, labels = confident(0.9, 7, 3)
    found = calibration(p, labels)
    assert (found.ece, found.mce, found.adaptive_ece) == pytest.approx((0.2, 0.2, 0.2))
    assert (found.accuracy, found.confidence) == pytest.approx((0.7, 0.9))
    assert found.classwise_ece == pytest.approx(0.2)
    assert found.brier == pytest.approx(2 * (0.7 * 0.01
                                             + 0.3 * 0.81)) and found.brier_mean == pytest.approx(found.brier / 2)


def test_certain_and_right_is_zero_and_certain_and_wrong_is_the_worst() -> None:
    right = calibration(np.eye(3), np.arange(3))
    assert (right.ece, right.mce, right.adaptive_ece, right.classwise_ece, right.brier, right.nll) == (0,) * 6
    assert right.counts.tolist() == [0] * 14 + [3]
    wrong = calibration(np.eye(2), np.array([1, 0]))
    assert (wrong.ece, wrong.mce, wrong.brier, wrong.accuracy) == (1, 1, 2, 0) and wrong.nll == np.inf


@pytest.mark.parametrize("classes", [2, 5])
def test_equal_probabilities_have_the_values_of_chance(classes: int) -> None:
    found = calibration(probabilities_of(np.zeros((10, classes))), np.arange(10) % classes)
    assert found.confidence == pytest.approx(1 / classes) and found.nll == pytest.approx(np.log(classes))
    assert found.brier_mean == pytest.approx((classes - 1) / classes**2)


@pytest.mark.parametrize("bins", [4, 15])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(bins: int) -> None:
    edges = bin_edges(bins)
    for k in range((bins + 1) // 2, bins + 1):  # two classes: a confidence of at least a half
        if k / bins < 0.5:
            continue
        counts = calibration(np.array([[k / bins, 1 - k / bins]]), np.array([0]), bins).counts
        assert counts[k - 1] == 1, f"{k}/{bins}"
        above = calibration(np.array([[np.nextafter(k / bins, 2), 1 - k / bins]]), np.array([0]), bins).counts
        assert above[min(k, bins - 1)] == 1
    assert edges[0] == 0 and edges[-1] == 1 and len(edges) == bins + 1


def test_the_mean_error_never_exceeds_the_largest() -> None:
    for seed in range(30):
        logits, labels = example(seed, rows=7 + seed, learned=seed / 10)
        found = calibration(probabilities_of(logits), labels)
        assert 0 <= found.ece <= found.mce <= 1


def test_order_of_examples_and_names_of_classes_do_not_matter() -> None:
    logits, labels = example(1, classes=4)
    logits = np.round(logits) + 0.01 * np.arange(4)  # many equal confidences, no two likeliest classes
    random = np.random.default_rng(2)
    order, names = random.permutation(len(labels)), random.permutation(4)
    renamed = np.empty_like(logits)
    renamed[:, names] = logits
    whole = calibration(probabilities_of(logits), labels)
    for p, y in ((logits[order], labels[order]), (renamed, names[labels]),
                 (np.tile(logits, (2, 1)), np.tile(labels, 2))):
        other = calibration(probabilities_of(p), y)
        for name in ("ece", "mce", "classwise_ece", "brier", "nll", "confidence"):
            assert getattr(other, name) == pytest.approx(getattr(whole, name), abs=1e-12), name
    moved = calibration(probabilities_of(logits[order]), labels[order])
    assert moved.adaptive_ece == pytest.approx(whole.adaptive_ece, abs=1e-12)


def test_adaptive_bins_hold_equally_many_examples() -> None:
    p, labels = np.array([0.6, 0.7, 0.8, 0.9, 0.95, 1.0]), np.array([0, 1, 0, 1, 0, 0])
    p = np.stack([p, 1 - p], axis=1)
    expected = (abs(1.3 - 1) + abs(1.7 - 1) + abs(1.95 - 2)) / 6
    assert calibration(p, labels, 3).adaptive_ece == pytest.approx(expected)


def test_a_class_without_examples_and_one_example_are_defined() -> None:
    logits, _ = example(3, rows=1, classes=5)
    found = calibration(probabilities_of(logits), np.array([4]))
    assert np.isfinite([found.ece, found.adaptive_ece, found.classwise_ece,
                        found.nll]).all() and found.counts.sum() == 1


@pytest.mark.parametrize(
    ("p", "labels", "message"),
    [
        (np.array([[0.5, np.nan]]), [0], "row 0 holds NaN"),
        (np.array([[0.9, 0.9]]), [0], "row 0 sums to 1.8"),
        (np.array([[1.5, -0.5]]), [0], r"in \[0, 1\]"),
        (np.array([0.5, 0.5]), [0], r"shape \(2,\)"),
        (np.ones((3, 1)), [0, 0, 0], "two classes"),
        (np.empty((0, 2)), [], "an example"),
        (np.full((2, 2), 0.5), [0], r"shape \(1,\) instead of \(2,\)"),
        (np.full((2, 2), 0.5), [0, 2], "from 0 to 1"),
        (np.full((2, 2), 0.5), [0, -1], "from 0 to 1"),
        (np.full((2, 2), 0.5), [0.0, 1.0], "whole numbers"),
    ],
)
def test_what_is_no_prediction_is_refused(p: np.ndarray, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration(p, np.array(labels))
    with pytest.raises(ValueError, match="bins: 0"):
        calibration(np.eye(2), np.arange(2), bins=0)


# --- intervals ----------------------------------------------------------------------------------------------------


def test_left_out_groups_give_the_interval() -> None:
    from finetrace.lenses.intervals import groups_of, jackknife_interval

    logits, labels = example(5, rows=60)
    p, units = probabilities_of(logits), np.arange(60) // 3
    found = intervals(p, labels, units, groups=7, seed=1)
    group = groups_of(20, 7, 1)[units]
    left_out = [calibration(p[group != g], labels[group != g]) for g in range(7)]
    for name in ("brier", "nll", "confidence"):
        low, high = jackknife_interval(getattr(calibration(p, labels), name),
                                       np.array([getattr(one, name) for one in left_out]))
        most = {"nll": np.inf, "brier": 2}.get(name, 1)
        assert found[name] == pytest.approx((max(0, low), min(high, most)), abs=1e-12), name
    assert found["accuracy"][0] < calibration(p, labels).accuracy < found["accuracy"][1]


def test_intervals_cover_the_truth_of_a_calibrated_and_of_an_overconfident_classifier() -> None:
    random = np.random.default_rng(0)
    for shift, at_least in ((0.0, 0.85), (0.1, 0.85)):
        hits = 0
        for _ in range(60):
            confidence = 0.6 + 0.4 * random.random(400)
            labels = (random.random(400) > confidence - shift).astype(int)
            low, high = intervals(np.stack([confidence, 1 - confidence], axis=1), labels)["ece"]
            hits += low <= shift <= high
        assert hits >= at_least * 60


def test_examples_of_one_unit_count_once() -> None:
    logits, labels = example(6, rows=40)
    p = probabilities_of(logits)
    one = intervals(p, labels, groups=10)
    four = intervals(np.repeat(p, 4, axis=0), np.repeat(labels, 4), np.repeat(np.arange(40), 4), groups=10)
    alike = ("brier", "nll", "confidence")
    assert all(four[name] == pytest.approx(one[name], abs=1e-12) for name in alike)
    assert four["accuracy"] == pytest.approx(one["accuracy"], abs=0.02)  # Student's quantile, not the normal one
    for name in ("ece", "mce"):  # four times as many examples that agree: nearly as wide
        assert np.diff(four[name]) == pytest.approx(np.diff(one[name]), rel=0.35), name


def test_one_unit_has_no_interval_but_that_of_its_accuracy() -> None:
    found = intervals(np.array([[0.9, 0.1]]), np.array([0]))
    assert np.isnan(found["ece"]).all() and np.isnan(found["brier"]).all()
    assert 0 < found["accuracy"][0] < found["accuracy"][1] == 1


# --- temperature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "rows", "classes", "size"),
                         [(0, 30, 2, 3.0), (1, 50, 3, 0.2), (2, 40, 17, 5.0), (3, 25, 2, 40.0)])
def test_the_temperature_is_exact(seed: int, rows: int, classes: int, size: float) -> None:
    logits, labels = example(seed, rows, classes, size)
    found = temperature(logits, labels)
    assert found.bound == "" and found.value == pytest.approx(oracle.temperature(logits, labels), rel=1e-13)
    assert fit_temperature(logits, labels) == found.value


def test_the_published_optimiser_ends_near_the_same_temperature() -> None:
    logits, labels = example(4, rows=100, classes=2, size=2.0)
    assert oracle.adam_temperature(logits, labels) == pytest.approx(fit_temperature(logits, labels), abs=1e-4)


def test_scaling_changes_the_confidence_and_no_decision() -> None:
    logits, labels = example(7, classes=2, size=6.0)
    t = fit_temperature(logits, labels)
    before, after = probabilities_of(logits), probabilities_of(logits, t)
    assert t > 1.5
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    np.testing.assert_array_equal(np.argsort(before[:, 1], kind="stable"), np.argsort(after[:, 1], kind="stable"))
    assert negative_log_likelihood(logits, labels, t) < negative_log_likelihood(logits, labels)
    assert calibration(after, labels).ece < calibration(before, labels).ece
    assert calibration(after, labels).nll == pytest.approx(negative_log_likelihood(logits, labels, t), abs=1e-12)


def test_dividing_weight_and_bias_by_the_temperature_gives_the_same_probabilities() -> None:
    random = np.random.default_rng(8)
    features, weight, bias = random.normal(size=(20, 6)), random.normal(size=(3, 6)), random.normal(size=3)
    np.testing.assert_allclose(probabilities_of(features @ weight.T + bias, 2.5),
                               probabilities_of(features @ (weight / 2.5).T + bias / 2.5), atol=1e-15)


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e4])
def test_logits_times_a_number_give_the_temperature_times_it(factor: float) -> None:
    logits, labels = example(9)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * fit_temperature(logits, labels),
                                                                     rel=1e-12)
    assert fit_temperature(logits + 100, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-10)


def test_separated_examples_end_at_the_lower_bound_and_uninformative_ones_at_the_upper() -> None:
    logits, labels = example(10, rows=25, learned=20.0)
    sharp = temperature(logits, labels)
    scale = np.sqrt(np.square(logits - logits.mean(axis=1, keepdims=True)).mean())
    assert sharp.bound == "low" and sharp.value == pytest.approx(min(1, scale / 100))
    assert negative_log_likelihood(logits, labels, sharp.value) <= negative_log_likelihood(logits, labels)
    opposite = temperature(logits[:, ::-1], labels)
    assert opposite.bound == "high" and opposite.value == pytest.approx(1000 * scale)
    assert temperature(np.array([[3.0, 1.0]]), np.array([0])).bound == "low"
    tiny = temperature(1e-6 * logits[:, ::-1], labels)
    assert (tiny.value, tiny.bound) == (1.0, "high")  # never worse than no temperature
    flat = temperature(np.full((4, 3), 0.1), np.arange(4) % 3)
    assert (flat.value, flat.bound) == (1.0, "flat")


def test_the_likelihood_never_falls_also_at_the_bounds_and_for_huge_logits() -> None:
    for seed in range(40):
        random = np.random.default_rng(seed)
        logits, labels = example(seed, rows=int(random.integers(1, 12)), classes=int(random.integers(2, 5)),
                                 size=10.0 ** random.uniform(-3, 4), learned=float(random.uniform(-2, 4)))
        found = temperature(logits, labels)
        assert np.isfinite(found.value) and found.value > 0
        before = negative_log_likelihood(logits, labels)
        assert negative_log_likelihood(logits, labels, found.value) <= before * (1 + 1e-12)


def test_the_loss_of_impossible_labels_is_finite_from_logits() -> None:
    logits, labels = np.array([[1000.0, 0.0]]), np.array([1])
    assert negative_log_likelihood(logits, labels) == 1000.0 and calibration(probabilities_of(logits),
                                                                             labels).nll == np.inf
    with pytest.raises(ValueError, match="logits: row 0 holds NaN"):
        fit_temperature(np.array([[np.inf, 0.0]]), labels)
    with pytest.raises(ValueError, match="labels: have shape"):
        fit_temperature(logits, np.array([0, 1]))


def test_an_infinite_loss_has_no_interval() -> None:
    p = np.concatenate([np.full((10, 2), 0.5), [[1.0, 0.0]]])
    assert np.isnan(intervals(p, np.arange(11) % 2 + (np.arange(11) == 10))["nll"]).all()
