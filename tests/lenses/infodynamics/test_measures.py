"""Information dynamics: reference values, the loop oracle at every boundary, invariances, and refused input."""

import math
import subprocess
import sys

import numpy as np
import pytest
from tests.oracles import infodynamics as oracle
from tests.series import FIELDS, assert_same, one_hot, rows

from finetrace.lenses.infodynamics import divergences
from finetrace.lenses.infodynamics import measures as lens

NATS = math.e
LN2 = math.log(2)
PERIOD = np.array([[0.9, 0.1], [0.1, 0.9]])
TWO_CLASS_LOGITS = np.array(
    [[0.2, -0.1], [0.5, -0.4], [1, -1], [-0.3, 0.8], [2, -1.5], [-1, 1.2], [0, 0], [1.5, -2.5], [0.7, 0.3], [-2, 2]]
)
THREE_CLASS_LOGITS = np.array([[0, (i % 5) / 2 - 0.5, (2 * i % 5) / 2] for i in range(9)])


# --- the divergence -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "q", "nats"),
    [
        ((1, 0), (0, 1), LN2),
        ((0.3, 0.7), (0.3, 0.7), 0.0),
        ((0.9, 0.1), (0.1, 0.9), 0.3680642071684971),
        ((9, 1), (1, 9), 0.3680642071684971),
        ((0.7, 0.2, 0.1), (0.1, 0.3, 0.6), 0.23064548790411327),
        ((2, 2), (1, 3), 0.03382207556860521),
    ],
)
def test_jensen_shannon_reference_values(p: tuple, q: tuple, nats: float) -> None:
    assert lens.jensen_shannon(p, q) == pytest.approx(nats, abs=1e-12)
    assert oracle.jensen_shannon(np.array(p, float), np.array(q, float)) == pytest.approx(nats, abs=1e-12)


def test_jensen_shannon_bounds_symmetry_and_bits() -> None:
    p, q = rows(300, 4, 0.05, seed=1), rows(300, 4, 0.05, seed=2)
    found = lens.jensen_shannon(p, q)
    assert found.shape == (300,)
    assert (found >= 0).all() and (found <= LN2 + 1e-15).all()
    np.testing.assert_array_equal(found, lens.jensen_shannon(q, p))
    np.testing.assert_allclose(
        found, [oracle.jensen_shannon(a, b) for a, b in zip(p, q, strict=True)], rtol=0, atol=1e-14
    )
    assert lens.jensen_shannon(*PERIOD, base=2) == pytest.approx(0.5310044064107188, abs=1e-12)
    assert (lens.jensen_shannon(p, p) == 0).all()


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_jensen_shannon_keeps_its_digits_for_nearly_equal_rows(gap: float) -> None:
    from decimal import Decimal, localcontext

    p, q = (0.5 + gap, 0.5 - gap), (0.75, 0.25 + gap)  # q far from p for the control, p against (1/2, 1/2) for the test
    for one, other in ((p, (0.5, 0.5)), (p, q)):
        with localcontext() as context:
            context.prec = 60
            a, b = [Decimal(x) for x in one], [Decimal(x) for x in other]
            a, b = [x / sum(a) for x in a], [x / sum(b) for x in b]
            exact = sum(
                (x * (2 * x / (x + y)).ln() + y * (2 * y / (x + y)).ln()) / 2 for x, y in zip(a, b, strict=True)
            )
        assert lens.jensen_shannon(one, other) == pytest.approx(float(exact), rel=1e-15 / gap)


def test_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(lens.softmax([[1000.0, 0.0]]), [[1, 0]], rtol=0, atol=1e-300)
    np.testing.assert_allclose(lens.softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]], rtol=1e-15)


# --- reference series ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["jsd", "kl", "jeffreys"])
def test_constant_series_is_zero_everywhere(measure: str) -> None:
    found = lens.resonance(np.tile([0.2, 0.5, 0.3], (50, 1)), 7, measure, fill=0.0)
    for name in FIELDS:
        assert (getattr(found, name) == 0).all(), name


def test_period_two_series() -> None:
    found = lens.curb(lens.resonance(np.tile(PERIOD, (10, 1)), 4), 4)
    np.testing.assert_allclose(found.novelty, 0.18403210358424855, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.transience, 0.18403210358424855, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.resonance, 0, rtol=0, atol=1e-12)


def test_step_change_spreads_over_the_window() -> None:
    t0 = 9
    found = lens.resonance(np.vstack([np.tile(PERIOD[0], (t0, 1)), np.tile(PERIOD[1], (8, 1))]), 3, fill=0.0)
    ramp = [0.3680642072, 0.2453761381, 0.1226880691]
    novelty, transience = np.zeros(17), np.zeros(17)
    novelty[t0 : t0 + 3], transience[t0 - 3 : t0] = ramp, ramp[::-1]
    np.testing.assert_allclose(found.novelty, novelty, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.transience, transience, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.resonance, novelty - transience, rtol=0, atol=1e-10)


def test_two_class_reference() -> None:
    found = lens.resonance(lens.softmax(TWO_CLASS_LOGITS), 2, fill=0.0, partial_tail=True)
    expected = {
        "novelty": "0 0 0.0423437243 0.1658056945 0.1685664334 0.2411324238 0.1335217562 0.3314331455 0.0683000354 "
        "0.4194992386",
        "transience": "0.0360620182 0.0667268884 0.1182940390 0.1707477156 0.3136756403 0.2922019687 0.0926530296 "
        "0.3673632750 0 0",
        "resonance": "0 0 -0.0759503148 -0.0049420211 -0.1451092069 -0.0510695449 0.0408687266 -0.0359301294 0 0",
        "novelty_sd": "0 0 0.0195900015 0.0551056405 0.1528896903 0.2210931163 0.0316039844 0.1510530200 0.0633741018 "
        "0.1835531742",
        "transience_sd": "0.0258717076 0.0439731656 0.1026172960 0.1507084081 0.1485498997 0.1902841969 0.0877270960 "
        "0.2356891378 0 0",
    }
    for name, values in expected.items():
        np.testing.assert_allclose(
            getattr(found, name), np.array(values.split(), float), rtol=0, atol=5.1e-11, err_msg=name
        )
    inner = lens.curb(found, 2)
    np.testing.assert_allclose(inner.resonance_sd, (inner.novelty_sd + inner.transience_sd) / 2, rtol=0, atol=1e-15)
    line = lens.resonance_novelty_slope(inner.novelty, inner.resonance)
    assert line.slope == pytest.approx(0.0594923360, abs=1e-10)
    assert line.r2 == pytest.approx(0.0035393380, abs=1e-10)
    assert (line.se, line.ci_low, line.ci_high) == pytest.approx((0.4991143812, -1.3262713443, 1.4452560168), abs=1e-9)
    z = [(x - x.mean()) / x.std() for x in (inner.novelty, inner.resonance)]
    band = lens.regression_band(*z)
    assert band.residual_sd == pytest.approx(1.2225755571, abs=1e-9)
    assert band.upper[0] - band.fit[0] == pytest.approx(4.2439975, abs=1e-6)
    assert band.upper[-1] - band.fit[-1] == pytest.approx(4.3474905, abs=1e-6)
    assert band.x.shape == (100,) and band.count == 6


def test_three_class_reference() -> None:
    found = lens.resonance(lens.softmax(THREE_CLASS_LOGITS), 3, fill=0.0)
    expected = {
        "novelty": "0 0 0 0.06523440 0.03401836 0.06144992 0.03692147 0.04815003 0.06523440",
        "transience": "0.04791932 0.03500444 0.07518838 0.03732316 0.05033887 0.04791932 0 0 0",
        "resonance": "0 0 0 0.02791124 -0.01632052 0.01353060 0 0 0",
        "novelty_sd": "0 0 0 0.02324545 0.01550242 0.01238494 0.01218339 0.02422323 0.02324545",
    }
    for name, values in expected.items():
        np.testing.assert_allclose(
            getattr(found, name), np.array(values.split(), float), rtol=0, atol=5.1e-9, err_msg=name
        )


def test_jeffreys_and_kl_defaults_are_those_of_the_ancestors() -> None:
    series = np.tile(PERIOD, (2, 1))
    assert lens.resonance(series, 1, "jeffreys").novelty[1] == pytest.approx(1.5267880151029198, abs=1e-12)
    triple = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.7, 0.2, 0.1]])
    assert lens.resonance(triple, 1, "jeffreys").novelty[1] == pytest.approx(0.913743575105944, abs=1e-12)
    bits = 0.7 * math.log2(7) + 0.2 * math.log2(2 / 3) + 0.1 * math.log2(1 / 6)  # KL(centre = row 2 || row 1)
    assert lens.resonance(triple, 1, "kl").novelty[2] == pytest.approx(bits, abs=1e-12)
    back = 0.1 * math.log2(1 / 7) + 0.3 * math.log2(1.5) + 0.6 * math.log2(6)  # KL(centre = row 1 || row 2)
    assert lens.resonance(triple, 1, "kl").transience[1] == pytest.approx(back, abs=1e-12)


# --- the loop oracle ----------------------------------------------------------------------------------------------

CASES = [  # examples, classes, concentration, window
    pytest.param(3, 2, 1.0, 1, id="shortest series"),
    pytest.param(40, 2, 1.0, 1, id="window 1"),
    pytest.param(41, 3, 0.5, 20, id="m = 2w + 1"),
    pytest.param(42, 3, 0.5, 20, id="m = 2w + 2"),
    pytest.param(61, 6, 0.2, 7, id="six classes"),
    pytest.param(50, 3, 0.02, 9, id="confident rows"),
]


@pytest.mark.parametrize("measure", ["jsd", "kl", "jeffreys"])
@pytest.mark.parametrize(("m", "classes", "concentration", "window"), CASES)
def test_resonance_equals_the_loops(m: int, classes: int, concentration: float, window: int, measure: str) -> None:
    p = np.maximum(rows(m, classes, concentration), 1e-6)
    for fill, partial_tail in ((np.nan, False), (0.0, True)):
        found = lens.resonance(p, window, measure, base=NATS, fill=fill, partial_tail=partial_tail)
        assert_same(found, oracle.dynamics(p, window, measure, fill, partial_tail))


def test_resonance_equals_the_loops_on_exact_zeros() -> None:
    p = one_hot(60, [0.5, 0.3, 0.2, 0.0])
    assert_same(lens.resonance(p, 5), oracle.dynamics(p, 5))


def test_resonance_equals_the_loops_across_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergences, "_TILE_ELEMENTS", 1)  # tiles of 256 rows
    p = rows(700)
    assert_same(lens.resonance(p, 6), oracle.dynamics(p, 6))


def test_spread_does_not_cancel() -> None:
    p = np.tile(PERIOD[0], (60, 1))
    p[1::2] = [0.9 - 1e-9, 0.1 + 1e-9]  # divergences near 0 beside others of 0.6: squares differ in the 16th digit
    p[30] = [1e-9, 1 - 1e-9]
    for seed in (0, 1):
        series = p if seed == 0 else np.tile(PERIOD, (30, 1)) + np.random.default_rng(seed).normal(0, 1e-9, (60, 2))
        assert_same(lens.resonance(series, 10), oracle.dynamics(series, 10))


def test_tiny_movements_keep_their_relative_accuracy() -> None:
    u = 1e-6 * np.arange(30)  # rows (1/2 + u, 1/2 - u): the entropy form alone would be 1e-4 off
    p = np.stack([0.5 + u, 0.5 - u], axis=1)
    found = lens.resonance(p, 1).novelty[1:]
    np.testing.assert_allclose(found, lens.jensen_shannon(p[1:], p[:-1]), rtol=1e-12)
    np.testing.assert_allclose(found, (np.diff(u)) ** 2 / 2, rtol=1e-6)


def test_several_windows_in_one_pass() -> None:
    p = rows(90, 3)
    found = lens.resonance(p, [20, 1, 8, 44])
    assert list(found) == [20, 1, 8, 44]
    for window, dynamics in found.items():
        assert_same(dynamics, lens.resonance(p, window), atol=1e-15)
        assert_same(dynamics, oracle.dynamics(p, window))
    legacy = lens.resonance(p, (3, 10), fill=0.0, partial_tail=True)
    assert_same(legacy[3], oracle.dynamics(p, 3, fill=0.0, partial_tail=True))


@pytest.mark.parametrize("fill", [np.nan, 0.0, -1.0])
def test_fill_marks_exactly_the_incomplete_windows(fill: float) -> None:
    w, m = 4, 20
    found = lens.resonance(rows(m), w, fill=fill)
    past, future = np.arange(m) < w, np.arange(m) >= m - w
    expected = dict(zip(FIELDS, [past, future, past | future] * 2, strict=True))
    for name, where in expected.items():
        value = getattr(found, name)
        np.testing.assert_array_equal(np.isnan(value) if np.isnan(fill) else value == fill, where, err_msg=name)


# --- invariances --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["jsd", "kl", "jeffreys"])
def test_time_reversal_swaps_novelty_and_transience(measure: str) -> None:
    p = rows(80)
    ahead, back = lens.resonance(p, 7, measure), lens.resonance(p[::-1], 7, measure)
    np.testing.assert_allclose(back.novelty, ahead.transience[::-1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(back.transience_sd, ahead.novelty_sd[::-1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(back.resonance, -ahead.resonance[::-1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("measure", ["jsd", "kl", "jeffreys"])
def test_class_order_and_scale_of_rows_do_not_matter(measure: str) -> None:
    p = rows(60, 4)
    scale = np.random.default_rng(3).uniform(0.01, 100, (60, 1))
    assert_same(lens.resonance(p[:, [2, 0, 3, 1]], 6, measure), lens.resonance(p, 6, measure), atol=1e-13)
    assert_same(lens.resonance(p * scale, 6, measure), lens.resonance(p, 6, measure), atol=1e-13)


def test_a_class_that_never_occurs_does_not_matter() -> None:
    p = np.maximum(rows(50, 3), 1e-9)
    for measure in ("jsd", "kl", "jeffreys"):
        wider = np.column_stack([p, np.zeros(50)])
        assert_same(lens.resonance(wider, 5, measure), lens.resonance(p, 5, measure), atol=1e-13)


def test_resonance_is_the_difference_and_has_the_curbed_length() -> None:
    p, w = rows(70), 9
    found = lens.curb(lens.resonance(p, w), w)
    assert len(found.resonance) == 70 - 2 * w
    np.testing.assert_array_equal(found.resonance, found.novelty - found.transience)
    np.testing.assert_array_equal(lens.curb(np.arange(70), w), np.arange(w, 70 - w))
    assert len(lens.curb(np.zeros(19), 9)) == 1


def test_base_only_changes_the_unit() -> None:
    p = rows(40)
    nats, bits = lens.resonance(p, 5), lens.resonance(p, 5, base=2)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(bits, name) * LN2, getattr(nats, name), rtol=0, atol=1e-14)


def test_single_precision_agrees() -> None:
    logits = np.random.default_rng(5).normal(0, 3, (500, 3))
    found = lens.resonance(lens.softmax(logits.astype(np.float32)), 20)
    assert_same(found, lens.resonance(lens.softmax(logits), 20), atol=1e-6)
    stored = lens.softmax(logits).astype(np.float32)
    assert_same(lens.resonance(stored, 20), lens.resonance(lens.softmax(logits), 20), atol=1e-6)


def test_input_is_not_changed_and_calls_do_not_influence_each_other() -> None:
    p = rows(60) * 3
    before = p.copy()
    first = lens.resonance(p, 5)
    lens.resonance(rows(60, 3, seed=9), 5)
    assert_same(lens.resonance(p, 5), first, atol=0)
    np.testing.assert_array_equal(p, before)


# --- refused input ------------------------------------------------------------------------------------------------

GOOD = rows(20)


def with_value(value: float) -> np.ndarray:
    bad = GOOD.copy()
    bad[7, 1] = value
    return bad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lens.resonance(GOOD, 0), "window is 0"),
        (lambda: lens.resonance(GOOD, -3), "window is -3"),
        (lambda: lens.resonance(GOOD, 10), "at least 21 examples and there are 20: use a window of at most 9"),
        (lambda: lens.resonance(GOOD, [2, 10]), "window 10 needs"),
        (lambda: lens.resonance(GOOD, []), "no window given"),
        (lambda: lens.resonance(GOOD, 2.5), "whole number"),
        (lambda: lens.resonance(GOOD, 2, "cosine"), "unknown measure 'cosine': use one of jeffreys, jsd, kl"),
        (lambda: lens.resonance(GOOD, 2, base=1), "base 1"),
        (lambda: lens.resonance(GOOD, 2, base=-2), "base -2"),
        (lambda: lens.resonance(with_value(np.nan), 2), "NaN or infinity, first in row 7"),
        (lambda: lens.resonance(with_value(np.inf), 2), "NaN or infinity, first in row 7"),
        (lambda: lens.resonance(with_value(-0.1), 2), r"negative, first in row 7.*softmax"),
        (lambda: lens.resonance(GOOD * (np.arange(20) != 7)[:, None], 2), "all zero in row 7"),
        (lambda: lens.resonance(GOOD[0], 2), r"expected 2 axes \(example, class\)"),
        (lambda: lens.resonance(GOOD[:, :1], 2), "at least 2 classes"),
        (lambda: lens.resonance(with_value(0.0), 2, "kl"), "row 7 gives a class probability 0"),
        (lambda: lens.resonance(with_value(0.0), 2, "jeffreys"), "'jeffreys' is infinite"),
        (lambda: lens.probe_resonance(GOOD, 2), r"expected 3 axes \(step, example, class\)"),
        (lambda: lens.probe_resonance(np.ones((4, 5, 2)), 2), "at least 5 steps and there are 4"),
        (lambda: lens.probe_resonance(np.ones((5, 0, 2)), 2), "no examples"),
        (lambda: lens.softmax([[0.0, np.nan]]), r"NaN or infinity, first at index \(0, 1\)"),
        (lambda: lens.softmax([[0.0, np.inf]]), "NaN or infinity"),
        (lambda: lens.softmax([[1.0]]), "at least 2 classes"),
        (lambda: lens.jensen_shannon([0.5, 0.5], [0.2, 0.3, 0.5]), "same classes"),
        (lambda: lens.jensen_shannon([0.0, 0.0], [0.5, 0.5]), "all zero"),
        (lambda: lens.curb(np.zeros(10), 5), "at least 11 entries"),
        (lambda: lens.curb(np.zeros(10), 0), "window is 0"),
        (lambda: lens.curb(np.float64(1), 1), "single number"),
        (lambda: lens.shuffled_order_null(GOOD, 2, permutations=0), "at least 1"),
        (lambda: lens.shuffled_order_null(GOOD, 2, block=1), "blocks of at least 2"),
        (lambda: lens.label_balance_plateau([0, 0]), "not all zero"),
        (lambda: lens.label_balance_plateau([0.5, -0.5]), "non-negative"),
        (lambda: lens.mean_confidence(GOOD, 20), "use 1 to 19"),
        (lambda: lens.step_mean(GOOD, np.zeros(3)), "one step number per example"),
        (lambda: lens.cartography(np.ones((2, 3, 2)), np.array([0, 1])), "one gold class per example"),
        (lambda: lens.cartography(np.ones((2, 3, 2)), np.array([0, 1, 2])), "expected 0 to 1"),
        (lambda: lens.cartography(np.ones((2, 3, 2)), np.array([0.0, 1, 1])), "integers"),
        (lambda: lens.cartography(np.ones((0, 3, 2)), np.array([0, 1, 1])), "no steps"),
        (lambda: lens.resonance_novelty_slope(np.zeros(4), np.zeros(5)), "shapes"),
        (lambda: lens.resonance_novelty_slope(np.full(9, np.nan), np.zeros(9)), "0 complete points"),
        (lambda: lens.resonance_novelty_slope(np.full(9, np.inf), np.zeros(9)), "infinity"),
        (lambda: lens.resonance_novelty_slope(np.arange(9.0), np.arange(9.0) % 4, level=95), "between 0 and 1"),
        (lambda: lens.resonance_novelty_slope(np.arange(9.0), np.arange(9.0) % 4, block=3), "use at most 2"),
        (lambda: lens.regression_band(np.ones(5), np.arange(5.0)), "x is constant"),
        (lambda: lens.regression_band(np.arange(5.0), np.arange(5.0), grid=1), "at least 2"),
    ],
)
def test_bad_input_is_refused_with_the_fix(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_import_needs_numpy_only() -> None:
    code = (
        "import sys; import finetrace.lenses.infodynamics.measures; "
        "print([m for m in ('scipy', 'pandas', 'torch', 'matplotlib', 'sklearn', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env())
    assert done.stdout.strip() == "[]"


def _env() -> dict[str, str]:
    import os
    from pathlib import Path

    return {**os.environ, "PYTHONPATH": str(Path(lens.__file__).parents[3])}
