"""Intervals of ECE and MCE: coverage near and far from calibration, and edge cases."""

import numpy as np
import pytest

from finetrace.lenses.calibration.error_intervals import Bins, error_interval, filled_bins

EDGES = 10


def sample(random, count, sharpness):
    """Confidences of a binary classifier that is right as often as its unsharpened confidence says."""
    logits = np.abs(random.normal(1.5, 1.5, count))
    true, said = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-sharpness * logits))
    return np.minimum((said * EDGES).astype(int), EDGES - 1), said, (random.random(count) < true).astype(float), true


def true_error(sharpness, statistic):
    place, said, _, true = sample(np.random.default_rng(7), 400_000, sharpness)
    count = np.bincount(place, minlength=EDGES)
    gaps = np.abs(np.bincount(place, said - true, minlength=EDGES))[count > 0]
    return gaps.sum() / count.sum() if statistic == "ece" else (gaps / count[count > 0]).max()


@pytest.mark.parametrize("statistic", ["ece", "mce"])
@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_the_interval_covers_the_truth(statistic, sharpness):
    random, truth, hits = np.random.default_rng(1), true_error(sharpness, statistic), 0
    truth = 0.0 if sharpness == 1 else truth
    for _ in range(100):
        place, said, right, _ = sample(random, 277, sharpness)
        low, high = error_interval(filled_bins(place, said, right, np.arange(277)), statistic, draws=200)
        hits += low <= truth <= high
    assert hits >= 88


def test_a_calibrated_classifier_is_not_told_to_be_miscalibrated():
    bins = Bins(np.array([0.5, 0.5]), np.array([0.01, -0.02]), np.array([0.05, 0.05]))
    assert error_interval(bins, "ece")[0] == 0


def test_a_large_error_is_measured_well():
    bins = Bins(np.array([0.3, 0.7]), np.array([0.4, 0.2]), np.array([1e-4, 1e-4]))
    assert error_interval(bins, "ece") == pytest.approx((0.26, 0.26), abs=1e-3)
    assert error_interval(bins, "mce") == pytest.approx((0.4, 0.4), abs=1e-3)


def test_without_noise_and_without_gaps_it_is_nothing():
    assert error_interval(Bins(np.ones(1), np.zeros(1), np.zeros(1)), "mce") == (0.0, 0.0)


def test_units_that_agree_widen_the_noise():
    random = np.random.default_rng(0)
    right = np.repeat(random.random(40) < 0.7, 5).astype(float)
    said, place = np.full(200, 0.7), np.zeros(200, dtype=int)
    alone = filled_bins(place, said, right, np.arange(200)).sd[0]
    together = filled_bins(place, said, right, np.arange(200) // 5).sd[0]
    assert together == pytest.approx(alone * np.sqrt(5), rel=1e-6)


def test_ends_are_ordered_and_within_0_and_1():
    random = np.random.default_rng(5)
    for _ in range(50):
        bins = Bins(np.full(4, 0.25), random.uniform(-1, 1, 4), random.uniform(0, 0.5, 4))
        for statistic in ("ece", "mce"):
            low, high = error_interval(bins, statistic, draws=50)
            assert 0 <= low <= high <= 1
