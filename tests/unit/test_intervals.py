"""Confidence intervals: textbook cases, coverage, and what happens with too little data."""

import numpy as np
import pytest
from scipy import stats

from finetrace.lenses.intervals import (
    bootstrap_mean,
    bootstrap_weights,
    groups_of,
    jackknife_interval,
    percentile_interval,
    wilson_interval,
)


def test_every_resample_draws_as_many_items_as_there_are():
    weights = bootstrap_weights(17, 300, seed=1)
    assert weights.shape == (300, 17) and (weights.sum(axis=1) == 17).all() and (weights >= 0).all()
    np.testing.assert_array_equal(weights, bootstrap_weights(17, 300, seed=1))
    assert (weights != bootstrap_weights(17, 300, seed=2)).any()


def test_the_bootstrap_of_a_mean_is_close_to_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    low, high = bootstrap_mean(values, bootstrap_weights(400, 4000, seed=0))
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_the_bootstrap_covers_the_truth_in_about_95_of_100_samples():
    generator, weights = np.random.default_rng(5), bootstrap_weights(60, 500, seed=0)
    low, high = bootstrap_mean(generator.normal(1.0, 1.0, size=(60, 1000)), weights)
    assert 0.92 < ((low < 1.0) & (high > 1.0)).mean() < 0.97


def test_items_without_a_value_are_left_out():
    values = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    low, high = bootstrap_mean(values, bootstrap_weights(4, 500, seed=0))
    assert 1 <= low[0] < high[0] <= 3
    assert np.isnan([low[1], high[1]]).all()


def test_percentiles_of_draws_are_numpys():
    draws = np.random.default_rng(0).normal(size=(1000, 2, 3))
    low, high = percentile_interval(draws)
    np.testing.assert_allclose(low, np.quantile(draws, 0.025, axis=0))
    np.testing.assert_allclose(high, np.quantile(draws, 0.975, axis=0))
    draws[:, 1, 1] = np.nan
    draws[0, 0, 0] = np.nan
    low, high = percentile_interval(draws)
    assert np.isnan(low[1, 1]) and np.isfinite(low[0, 0])


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(1).normal(size=30)
    left_out = (values.sum() - values) / 29
    low, high = jackknife_interval(values.mean(), left_out)
    wanted = stats.t.interval(0.95, 29, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(wanted, rel=1e-12)


def test_the_jackknife_takes_many_statistics_at_once():
    values, left_out = np.array([1.0, 2.0]), np.random.default_rng(2).normal(size=(10, 2))
    low, high = jackknife_interval(values, left_out)
    for i in range(2):
        assert (low[i], high[i]) == jackknife_interval(values[i], left_out[:, i])


def test_one_group_gives_no_interval():
    assert np.isnan(jackknife_interval(1.0, np.ones(1))).all()


def test_groups_are_of_equal_size_and_at_most_as_many_as_items():
    sizes = np.bincount(groups_of(23, 10, seed=0))
    assert len(sizes) == 10 and sizes.max() - sizes.min() == 1
    assert sorted(groups_of(3, 10, seed=0).tolist()) == [0, 1, 2]
    np.testing.assert_array_equal(groups_of(23, 10, seed=4), groups_of(23, 10, seed=4))


@pytest.mark.parametrize(("right", "total"), [(0, 10), (7, 10), (10, 10), (81, 263)])
def test_wilson_is_scipys(right, total):
    wanted = stats.binomtest(right, total).proportion_ci(0.95, "wilson")
    assert wilson_interval(right, total) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_of_nothing_is_nothing():
    assert np.isnan(wilson_interval(0, 0)).all()
