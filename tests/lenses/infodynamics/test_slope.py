"""Information dynamics: the plateau to expect, the slope of resonance over novelty, its null and its interval."""


import numpy as np
import pytest
import scipy.stats
from tests.oracles import infodynamics as oracle
from tests.series import one_hot, rows

from finetrace.lenses.infodynamics import measures as lens


@pytest.mark.parametrize(
    ("shares", "plateau"),
    [([0.5, 0.5], 0.346574), ([0.442, 0.558], 0.341910), ([0.326, 0.674], 0.304602), ([1 / 3] * 3, 0.462098)],
)
def test_one_hot_rows_reach_the_label_balance_plateau(shares: list[float], plateau: float) -> None:
    assert lens.label_balance_plateau(shares) == pytest.approx(plateau, abs=1e-6)
    assert lens.label_balance_plateau(np.array(shares) * 1000) == pytest.approx(plateau, abs=1e-6)
    w = 160
    novelty = lens.curb(lens.resonance(one_hot(40_000, shares), w), w).novelty
    blocks = novelty[: len(novelty) // (2 * w) * 2 * w].reshape(-1, 2 * w).mean(axis=1)  # nearly independent
    assert abs(novelty.mean() - plateau) < 3 * blocks.std() / np.sqrt(len(blocks)) + 5e-4


@pytest.mark.parametrize(("shares", "slope"), [([0.5, 0.5], 0.711), ([1 / 3] * 3, 0.702), ([0.442, 0.558], 0.408)])
def test_slope_of_shuffled_one_hot_rows_is_not_zero(shares: list[float], slope: float) -> None:
    dynamics = lens.resonance(one_hot(40_000, shares), 160)
    assert lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance).slope == pytest.approx(slope, abs=0.04)


def test_growing_confidence_toy() -> None:
    m, w = 40_000, 160
    scores = np.linspace(0, 6, m) * np.random.default_rng(0).choice([-1, 1], m) / 2
    novelty = lens.resonance(lens.softmax(np.stack([scores, -scores], axis=1)), w).novelty
    for g, expected in {0.5: 0.0148, 1: 0.0549, 2: 0.163, 3: 0.250, 4: 0.301, 5: 0.327, 5.9: 0.335}.items():
        centre = int(g / 6 * m)
        assert novelty[centre - 200 : centre + 200].mean() == pytest.approx(expected, abs=0.01)


def test_slope_is_the_correlation() -> None:
    dynamics = lens.resonance(rows(400), 10)
    inner = lens.curb(dynamics, 10)
    found = lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance)  # NaN ends are dropped
    r = np.corrcoef(inner.novelty, inner.resonance)[0, 1]
    assert found.slope == pytest.approx(r, abs=1e-12)
    assert found.r2 == pytest.approx(r * r, abs=1e-12)
    assert (found.slope, found.r2) == pytest.approx(oracle.slope_and_r2(inner.novelty, inner.resonance), abs=1e-12)
    assert found.count == 380 and found.null.size == 0 and np.isnan(found.null_mean) and np.isnan(found.p_value)


def test_null_finds_the_i_i_d_series_ordinary_and_the_persistent_one_not() -> None:
    w = 20
    ordinary = rows(3000, 2, 1.0)
    null = lens.shuffled_order_null(ordinary, w, permutations=40, seed=1)
    dynamics = lens.resonance(ordinary, w)
    found = lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance, null)
    assert found.null_low <= found.slope <= found.null_high and found.p_value > 0.05
    assert found.null_mean > 0.15  # far from 0 although nothing persists

    jumps = np.repeat(rows(60, 2, 1.0, seed=4), 50, axis=0)  # levels that persist far beyond the window
    dynamics = lens.resonance(jumps, w)
    null = lens.shuffled_order_null(jumps, w, permutations=40, seed=1)
    found = lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance, null)
    assert found.slope > found.null_high and found.p_value == pytest.approx(1 / 41)


def test_null_is_seeded_and_blocks_keep_the_drift() -> None:
    p = rows(600)
    first = lens.shuffled_order_null(p, 5, permutations=3, seed=7)
    np.testing.assert_array_equal(first, lens.shuffled_order_null(p, 5, permutations=3, seed=7))
    assert len(set(first)) == 3 and not np.array_equal(first, lens.shuffled_order_null(p, 5, permutations=3, seed=8))
    shuffled = p[np.random.default_rng(7).permutation(600)]
    dynamics = lens.resonance(shuffled, 5)
    assert first[0] == pytest.approx(lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance).slope)

    # Growing confidence: a full shuffle mixes early and late rows, blocks leave each row at its level of confidence.
    scores = np.linspace(0, 6, 4000) * np.random.default_rng(0).choice([-1, 1], 4000) / 2
    toy = lens.softmax(np.stack([scores, -scores], axis=1))
    dynamics = lens.resonance(toy, 40)
    slope = lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance).slope
    inside = lens.shuffled_order_null(toy, 40, permutations=5, block=100)
    anywhere = lens.shuffled_order_null(toy, 40, permutations=5)
    assert np.abs(inside - slope).max() < 0.05 < 0.08 < (anywhere - slope).min()


def test_slope_of_a_frozen_model_is_undefined() -> None:
    p = np.tile([0.4, 0.6], (30, 1))
    dynamics = lens.resonance(p, 3)
    null = lens.shuffled_order_null(p, 3, permutations=2)
    found = lens.resonance_novelty_slope(dynamics.novelty, dynamics.resonance, null)
    assert all(np.isnan([found.slope, found.r2, found.ci_low, found.null_mean, found.p_value]))


def test_blocks_widen_the_interval_of_dependent_points() -> None:
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=(2, 100)), 40, axis=1) + 0.01 * rng.normal(size=(2, 4000))
    naive, blocked = lens.resonance_novelty_slope(x, y), lens.resonance_novelty_slope(x, y, block=80)
    assert blocked.slope == naive.slope
    assert 3 < (blocked.ci_high - blocked.ci_low) / (naive.ci_high - naive.ci_low) < 12  # about sqrt(40)
    independent = lens.resonance_novelty_slope(*rng.normal(size=(2, 4000)), block=10)
    assert independent.se == pytest.approx(1 / np.sqrt(4000), rel=0.2)


def test_interval_of_blocks_is_the_plain_jackknife_on_fishers_scale() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 103)) + np.linspace(0, 2, 103)
    without = [np.corrcoef(np.delete(x, part), np.delete(y, part))[0, 1]
               for part in (range(0, 20), range(20, 40), range(40, 60), range(60, 80), range(80, 103))]
    z, left_out = np.arctanh(np.corrcoef(x, y)[0, 1]), np.arctanh(without)
    half = scipy.stats.t.ppf(0.975, 4) * np.sqrt(4 / 5 * ((left_out - left_out.mean()) ** 2).sum())
    found = lens.resonance_novelty_slope(x, y, block=20)
    assert (found.ci_low, found.ci_high) == pytest.approx((np.tanh(z - half), np.tanh(z + half)), abs=1e-10)
    assert found.se == pytest.approx(np.sqrt(4 / 5 * np.var(without) * 5), abs=1e-10)


@pytest.mark.parametrize("blocks", [5, 20])
def test_interval_of_overlapping_windows_holds_the_truth(blocks: int) -> None:
    rng, window, held = np.random.default_rng(4), 10, []
    for _ in range(400):
        noise = rng.normal(size=(2, 2 * blocks * window + window - 1))
        smooth = np.stack([np.convolve(row, np.full(window, 1 / window), mode="valid") for row in noise])
        found = lens.resonance_novelty_slope(smooth[0], 0.6 * smooth[0] + 0.8 * smooth[1], block=2 * window)
        held.append(found.ci_low <= 0.6 <= found.ci_high)
    assert 0.9 <= np.mean(held) <= 0.98


def test_a_slope_of_one_is_certain() -> None:
    found = lens.resonance_novelty_slope(np.arange(40.0) % 7, 2 * (np.arange(40.0) % 7), block=5)
    assert (found.ci_low, found.ci_high, found.se) == pytest.approx((1, 1, 0), abs=1e-6)


def test_regression_band_against_scipy_and_coverage() -> None:
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 3, 2000)
    y = 1.5 - 0.7 * x + rng.normal(0, 0.4, 2000)
    band, other = lens.regression_band(x, y, level=0.9, grid=11), linregress(x, y)
    assert (band.slope, band.intercept, band.se) == pytest.approx((other.slope, other.intercept, other.stderr))
    assert band.r2 == pytest.approx(other.rvalue**2)
    inside = (y > np.interp(x, band.x, band.lower)) & (y < np.interp(x, band.x, band.upper))
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
