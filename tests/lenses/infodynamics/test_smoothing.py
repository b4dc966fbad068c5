"""Smoothing, fractal analysis and change points: reference values, slow oracles, exactness, refused input."""

import math
from itertools import pairwise

import numpy as np
import pytest
from tests.oracles import smoothing as oracle

from finetrace.lenses.infodynamics import measures as lens


def squares_mod_7(n: int) -> np.ndarray:
    return np.arange(n, dtype=float) ** 2 % 7


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


# --- adaptive filter ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "window", "expected"),
    [
        (12, 9, "1.866667 1.816667 1.766667 1.716667 1.666667 1.712500 1.783333 1.879167 2 2 2 2"),
        (
            14,
            9,
            "1.866667 1.816667 1.766667 1.716667 1.666667 1.668056 1.761111 1.945833 2.222222 2.350000 2.411111 "
            "2.405556 2.333333 2.333333",
        ),
        (11, 5, "0.8 1.3 1.8 2.65 2.6 2.2 1.6 1.0 1.6 2.266667 2.833333"),
        (
            20,
            9,
            "1.866667 1.816667 1.766667 1.716667 1.666667 1.668056 1.761111 1.945833 2.222222 2.319444 2.333333 "
            "2.263889 2.111111 2.016667 2.022222 2.127778 2.333333 2.5 2.666667 2.833333",
        ),
    ],
)
def test_detrend_reference_values(n: int, window: int, expected: str) -> None:
    trend, residual = lens.detrend(squares_mod_7(n), window)
    np.testing.assert_allclose(trend, np.array(expected.split(), float), rtol=0, atol=5.1e-7)
    np.testing.assert_allclose(trend + residual, squares_mod_7(n), rtol=0, atol=1e-14)


def test_adaptive_filter_reference_values() -> None:
    i = np.arange(20)
    expected = """0.821295479 0.715743462 0.610191444 0.504639427 0.399087409 0.218685367 0.225656739 0.420001526
    0.801719727 1.112568552 1.282176850 1.310544619 1.197671861 1.209697828 1.257075034 1.339803478 1.457883160
    1.515299392 1.572715624 1.630131856"""
    found = lens.adaptive_filter(np.sin(0.7 * i) + 0.1 * i, span=8)
    np.testing.assert_allclose(found, np.array(expected.split(), float), rtol=0, atol=5.1e-10)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("window", [5, 9, 13])
def test_detrend_equals_the_oracle_at_every_length(window: int, order: int) -> None:
    for n in range(
        2, 60
    ):  # holds the lengths at which the original program failed: 2n | length - 1, and length = 3n + 1
        y = noise(n, seed=n)
        np.testing.assert_allclose(
            lens.detrend(y, window, order)[0], oracle.detrend(y, window, order), rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("n", [1, 2, 3, 5, 55, 56, 57, 58, 113, 225, 1000])
def test_adaptive_filter_is_defined_at_every_length(n: int) -> None:
    y = noise(n)
    window = 4 * max(n // 56, 1) + 1
    found = lens.adaptive_filter(y)
    assert found.shape == (n,) and np.isfinite(found).all()
    np.testing.assert_allclose(found, oracle.detrend(y, window), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (0, 1), (1, 1), (2, 2), (1, 3), (3, 3)])
@pytest.mark.parametrize("n", [57, 100, 113])
def test_polynomials_pass_unchanged(n: int, degree: int, order: int) -> None:
    y = np.polynomial.Polynomial([0.3, -1.0, 0.5, 2.0][: degree + 1])(np.linspace(-1, 1, n))
    np.testing.assert_allclose(lens.adaptive_filter(y, span=8, order=order), y, rtol=0, atol=1e-12)


def test_adaptive_filter_of_high_order_widens_its_smallest_window() -> None:
    y = noise(30)
    np.testing.assert_allclose(lens.adaptive_filter(y, order=4), oracle.detrend(y, 9, 4), rtol=0, atol=1e-10)


def test_adaptive_filter_is_linear_and_larger_span_keeps_more() -> None:
    x, y = noise(500, 1), noise(500, 2)
    combined = lens.adaptive_filter(2 * x - 3 * y)
    np.testing.assert_allclose(combined, 2 * lens.adaptive_filter(x) - 3 * lens.adaptive_filter(y), rtol=0, atol=1e-12)
    left = [np.var(x - lens.adaptive_filter(x, span)) for span in (32, 56, 128)]
    assert left[0] > left[1] > left[2]


def test_adaptive_filter_of_a_long_signal_is_quick() -> None:
    import time

    y = noise(200_000)
    start = time.perf_counter()
    lens.adaptive_filter(y)
    assert time.perf_counter() - start < 1.0  # the dense hat matrix of this window would need 1.6 GB


# --- Gaussian, moving average, scaling ----------------------------------------------------------------------------


def test_gaussian_reference_values_and_widths() -> None:
    expected = """1.171774 1.702135 2.170140 2.414862 2.407010 2.141827 1.710646 1.480881 1.694193 2.083209 2.282597
    2.263265"""
    y = squares_mod_7(12)
    found = lens.gaussian_smooth(y, sigma=1.5)
    np.testing.assert_allclose(found, np.array(expected.split(), float), rtol=0, atol=5.1e-7)
    np.testing.assert_allclose(lens.gaussian_smooth(y, fwhm=1.5 * 2.3548200450), found, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n", "sigma"), [(1, 2.0), (2, 0.3), (40, 50.0), (300, 4.0), (300, 40.0), (700, 35.0)])
def test_gaussian_equals_the_full_kernel(n: int, sigma: float) -> None:
    y = noise(n) + 5
    np.testing.assert_allclose(lens.gaussian_smooth(y, sigma=sigma), oracle.gaussian(y, sigma), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 7.0, 200.0])
def test_gaussian_preserves_constants(sigma: float) -> None:
    np.testing.assert_allclose(lens.gaussian_smooth(np.full(2000, 0.37), sigma=sigma), 0.37, rtol=0, atol=1e-14)


def test_moving_average() -> None:
    expected = "1.666667 2.333333 2.666667 2.666667 2.333333 1.666667 0.666667 1.666667 2.333333 2.666667"
    found = lens.moving_average(squares_mod_7(12), 3)
    np.testing.assert_allclose(found, np.array(expected.split(), float), rtol=0, atol=5.1e-7)
    y = noise(100) + 1e3
    for n in (1, 5, 99, 100):
        np.testing.assert_allclose(lens.moving_average(y, n), oracle.moving_average(y, n), rtol=1e-13)


def test_normalise_and_zero_centre() -> None:
    np.testing.assert_allclose(lens.normalise([2.0, 4.0, 3.0]), [-1, 1, 0])
    np.testing.assert_allclose(lens.normalise([2.0, np.nan, 4.0, 3.0], 0, 1), [0, np.nan, 1, 0.5])
    np.testing.assert_allclose(lens.zero_centre([1.0, 2.0, 6.0]), [-2, -1, 3])


# --- Hurst exponent -----------------------------------------------------------------------------------------------


def fractional_noise(n: int, h: float, seed: int) -> np.ndarray:
    """Exact fractional Gaussian noise by circulant embedding (Davies and Harte 1987)."""
    k = np.arange(n + 1)
    gamma = 0.5 * ((k + 1.0) ** (2 * h) - 2 * k ** (2 * h) + np.abs(k - 1.0) ** (2 * h))
    eigenvalues = np.fft.fft(np.concatenate([gamma, gamma[-2:0:-1]])).real
    assert eigenvalues.min() > -1e-9
    rng = np.random.default_rng(seed)
    z = rng.normal(size=2 * n) + 1j * rng.normal(size=2 * n)
    return np.fft.fft(np.sqrt(np.maximum(eigenvalues, 0) / (2 * n)) * z).real[:n]


@pytest.mark.parametrize(("h", "expected"), [(0.3, 0.307), (0.5, 0.506), (0.8, 0.809)])
def test_hurst_exponent_of_fractional_noise(h: float, expected: float) -> None:
    fits = [lens.hurst_exponent(fractional_noise(4096, h, seed)) for seed in range(6)]
    assert fits[0].windows.tolist() == [2**i + 1 for i in range(3, 10)]
    mean = np.mean([fit.exponent for fit in fits])
    assert abs(mean - expected) < 0.02 and abs(mean - h) < 0.04
    assert all(fit.r2 > 0.97 for fit in fits)


@pytest.mark.parametrize(("order", "q"), [(1, 2.0), (2, 1.0)])
def test_fluctuations_equal_the_oracle(order: int, q: float) -> None:
    y = noise(150)
    fit = lens.hurst_exponent(y, order=order, q=q, windows=[9, 17, 33])
    expected = [oracle.fluctuation(y, w, order, q) for w in (9, 17, 33)]
    np.testing.assert_allclose(fit.fluctuations, expected, rtol=1e-11)
    slope = np.polyfit(np.log2((fit.windows + 1) / 2), np.log2(expected), 1)[0]
    assert fit.exponent == pytest.approx(slope, abs=1e-10)


def test_hurst_exponent_ignores_level_and_scale() -> None:
    y = noise(1000)
    assert lens.hurst_exponent(7 * y + 3).exponent == pytest.approx(lens.hurst_exponent(y).exponent, abs=1e-10)


# --- change points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shortest", [1, 2, 5])
@pytest.mark.parametrize("seed", range(6))
def test_change_points_are_the_optimum_of_the_full_search(seed: int, shortest: int) -> None:
    y = noise(70, seed) + np.repeat(noise(7, seed + 100) * 2, 10)
    for penalty in (0.5, 3.0, 12.0):
        changes, cost = oracle.change_points(y, penalty, shortest)
        found = lens.change_points(y, penalty=penalty, min_blocks=shortest)
        edges = [0, *found.positions, 70]
        parts = [y[a:b] for a, b in pairwise(edges)]
        assert sum(((p - p.mean()) ** 2).sum() for p in parts) + penalty * (len(parts) - 1) == pytest.approx(cost)
        assert found.positions.tolist() == changes
        np.testing.assert_allclose(found.means, [p.mean() for p in parts], rtol=0, atol=1e-12)


def test_change_points_of_a_noiseless_step() -> None:
    found = lens.change_points(np.repeat([1.0, 3.0, 2.0], [40, 25, 35]))
    assert found.positions.tolist() == [40, 65]
    np.testing.assert_allclose(found.means, [1, 3, 2], rtol=0, atol=1e-12)


def test_no_change_in_noise_and_in_a_constant() -> None:
    counts = [len(lens.change_points(noise(1000, seed)).positions) for seed in range(10)]
    assert sum(counts) <= 1
    assert lens.change_points(np.full(50, 0.3)).positions.size == 0


def test_change_points_on_blocks_of_a_long_signal() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0.1, 0.3, 0.25], [10_000, 15_000, 15_007]) + rng.normal(0, 0.1, 40_007)
    found = lens.change_points(y, block=160)
    assert found.block == 160 and len(found.positions) == 2
    np.testing.assert_allclose(found.positions, [10_000, 25_000], rtol=0, atol=40)  # finer than the block
    np.testing.assert_allclose(found.means, [0.1, 0.3, 0.25], rtol=0, atol=0.005)
    assert found.noise_sd == pytest.approx(0.1 / math.sqrt(160), rel=0.25)
    assert lens.change_points(y).block == 21  # at most 2,000 blocks


@pytest.mark.parametrize("windows", [10, 20, 60])
def test_novelty_of_examples_in_random_order_has_no_change_point(windows: int) -> None:
    """Few false alarms: neighbouring blocks of novelty share windows, and few blocks tell the noise badly."""
    random, window, alarms = np.random.default_rng(6), 10, 0
    for _ in range(150):
        sure = random.choice([0.95, 0.6], windows * window)
        first = np.where(random.random(len(sure)) < 0.5, sure, 1 - sure)
        novelty = lens.curb(lens.resonance(np.stack([first, 1 - first], axis=1), window), window).novelty
        alarms += bool(len(lens.change_points(novelty, block=window).positions))
    assert alarms <= 15


# --- refused input ------------------------------------------------------------------------------------------------

GAP = np.array([1.0, np.nan, 2.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lens.adaptive_filter(GAP), r"first at 1: cut incomplete windows off first \(infodynamics.curb\)"),
        (lambda: lens.adaptive_filter(np.zeros((3, 2))), "one dimension"),
        (lambda: lens.adaptive_filter([]), "at least one entry"),
        (lambda: lens.adaptive_filter(noise(9), span=0), "span is 0"),
        (lambda: lens.detrend(noise(9), 4), "odd number of at least 3"),
        (lambda: lens.detrend(noise(9), 1), "odd number of at least 3"),
        (lambda: lens.detrend(noise(9), 5, order=3), "odd number of at least 7"),
        (lambda: lens.detrend(noise(9), 5, order=-1), "0 or more"),
        (lambda: lens.gaussian_smooth(noise(9)), "exactly one width"),
        (lambda: lens.gaussian_smooth(noise(9), sigma=1, fwhm=1), "exactly one width"),
        (lambda: lens.gaussian_smooth(noise(9), sigma=0), "must be positive"),
        (lambda: lens.moving_average(noise(9), 10), "use 1 to 9"),
        (lambda: lens.moving_average(noise(9), 0), "use 1 to 9"),
        (lambda: lens.normalise([2.0, 2.0]), "constant"),
        (lambda: lens.normalise([np.nan, np.nan]), "finite entries"),
        (lambda: lens.zero_centre(GAP), "NaN"),
        (lambda: lens.hurst_exponent(GAP), "no NaN"),
        (lambda: lens.hurst_exponent(noise(60)), "at least 91"),
        (lambda: lens.hurst_exponent(np.ones(200)), "constant"),
        (lambda: lens.hurst_exponent(noise(200), q=0), "must be positive"),
        (lambda: lens.hurst_exponent(noise(200), windows=[9]), "at least two"),
        (lambda: lens.hurst_exponent(noise(200), windows=[9, 201]), "none longer"),
        (lambda: lens.change_points(GAP), "without NaN"),
        (lambda: lens.change_points(noise(9), block=4), "use a smaller block"),
        (lambda: lens.change_points(noise(9), block=0), "at least 1"),
        (lambda: lens.change_points(noise(9), penalty=-1), "not be negative"),
    ],
)
def test_bad_input_is_refused_with_the_fix(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
