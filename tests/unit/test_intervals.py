"""Confidence intervals: textbook cases, coverage, and what happens with too little data."""

import numpy as np
import pytest
from scipy import stats

from finetrace.lenses.intervals import (
    bootstrap_mean,
    bootstrap_weights,
    difference_interval,
    groups_of,
    jackknife_interval,
    mean_of_parts,
    percentile_interval,
    share_interval,
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


def test_a_share_of_single_items_has_the_interval_of_wilson():
    right = np.array([1, 1, 0, 1, 0, 1, 1])
    low, high = share_interval(right, np.arange(7))
    assert (low, high) == pytest.approx(wilson_interval(5, 7), abs=1e-15)


@pytest.mark.parametrize("side", [0, 1])
def test_a_share_of_all_or_nothing_has_a_width(side):
    """0 of 180 words says that the share is below about 2 in 100, not that it is 0."""
    low, high = share_interval(np.full(180, side), np.repeat(np.arange(60), 3))
    assert (high - low) == pytest.approx(0.0217, abs=1e-3)
    assert side in (low, high)


def test_words_of_a_sentence_count_as_what_they_are_worth():
    """Sentences whose words are all right or all wrong: as many examples as sentences, not as words."""
    right = np.repeat([1, 0, 1, 1, 0, 1, 0, 1], 20)
    low, high = share_interval(right, np.repeat(np.arange(8), 20))
    alone, alone_high = wilson_interval(5, 8)
    assert low < alone + 0.02 and high > alone_high - 0.02
    assert high - low > 3 * np.diff(wilson_interval(100, 160))[0]


def test_shares_are_computed_over_leading_axes_alike():
    random = np.random.default_rng(0)
    right, units = random.random((2, 3, 50)) < 0.7, np.arange(50) // 4
    low, high = share_interval(right, units)
    for place in np.ndindex(2, 3):
        assert (low[place], high[place]) == share_interval(right[place], units)


def test_one_unit_says_nothing():
    low, high = share_interval(np.array([1, 0, 1]), np.zeros(3, dtype=int))
    assert np.isnan(low) and np.isnan(high)


def test_the_mean_of_parts_has_a_width_where_nothing_varies():
    for mean in (0.0, 1.0):
        for variances in (None, np.zeros((4, 1))):
            low, high = mean_of_parts(np.full((4, 1), mean), np.full(4, 30), variances)
            assert low <= mean <= high and 0.02 < high - low < 0.06
    low, high = mean_of_parts(np.array([1.0, 0.0]), np.array([1, 1]))
    assert low < 0.1 and high > 0.9, "two single items say nothing"


def test_the_mean_of_one_share_is_wilsons_and_of_many_numbers_students():
    assert mean_of_parts(np.array([0.3]), np.array([40])) == pytest.approx(wilson_interval(12, 40))
    numbers = np.random.default_rng(0).random((2, 4000))
    variances = numbers.var(axis=1, ddof=1) / 4000
    low, high = mean_of_parts(numbers.mean(axis=1), np.full(2, 4000), variances)
    half = 1.96 * np.sqrt(variances.sum()) / 2
    assert (low, high) == pytest.approx((numbers.mean() - half, numbers.mean() + half), abs=2e-5)


@pytest.mark.parametrize("rates", [(0.995,) * 5, (0.1,) * 5, (0.02, 0.1, 0.5, 0.9, 0.98)])
def test_the_interval_of_a_mean_of_parts_covers_the_truth(rates):
    right = np.random.default_rng(2).binomial(30, np.array(rates)[:, None], (5, 2000))
    low, high = mean_of_parts(right / 30, np.full(5, 30))
    assert 0.92 <= np.mean((low <= np.mean(rates)) & (np.mean(rates) <= high)) <= 0.985


def test_a_difference_of_shares_has_a_width_where_there_is_none():
    low, high = difference_interval(0.0, np.zeros(20), 20)
    assert -0.15 < low < 0 < high < 0.15 and low == -high
    assert np.isnan(difference_interval(0.5, np.array([0.5]), 1)).all()


@pytest.mark.parametrize("correlation", [0.0, 0.1])
def test_the_interval_of_a_share_covers_the_truth(correlation):
    random, hits, truth = np.random.default_rng(3), 0, 0.8
    units = np.arange(277) // 8
    for _ in range(400):
        rate = truth
        if correlation:
            strength = 1 / correlation - 1
            rate = random.beta(truth * strength, (1 - truth) * strength, units.max() + 1)[units]
        low, high = share_interval(random.random(277) < rate, units)
        hits += low <= truth <= high
    assert 0.9 <= hits / 400 <= 0.98
