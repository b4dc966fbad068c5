"""Steps of gains, areas, onsets, facts learned and lost: against plain loops, published numbers and invariances."""

import numpy as np
import pytest
from tests.oracles import dynamics as oracle

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.dynamics import forgetting, gains
from finetrace.lenses.dynamics.arms import Arm, Scores, add_arms, differences
from finetrace.lenses.dynamics.resampling import Resampled
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.lenses.dynamics.table import Key, Table

STEPS = [0, 20, 60, 100, 200, 400, 700, 1000, 1500, 1800, 2000]
POS = [0.870, 0.962, 0.967, 0.969, 0.970, 0.971, 0.972, 0.973, 0.973, 0.973, 0.973]  # Zertuche and Liu 2021, table 2
REL = [0.339, 0.645, 0.694, 0.697, 0.711, 0.727, 0.728, 0.729, 0.742, 0.742, 0.739]


@pytest.mark.parametrize("unit", [1.0, 20.0])
def test_step_of_gain_and_area_are_those_of_plain_loops(unit):
    random = np.random.default_rng(0)
    curves = np.cumsum(random.normal(0.05, 0.1, size=(40, len(STEPS))), axis=1)
    found, areas = gains.step_of_gain(STEPS, curves, unit=unit), gains.area_under_curve(STEPS, curves, unit)
    for i, curve in enumerate(curves):
        recorded, between = oracle.step_of_gain(STEPS, curve.tolist(), 0.9, unit)
        np.testing.assert_allclose([found.recorded[i], found.interpolated[i]], [recorded, between], rtol=1e-9)
        assert areas[i] == pytest.approx(oracle.area(STEPS, curve.tolist(), unit), abs=1e-12)
    assert np.isnan(found.recorded).any() and np.isfinite(found.recorded).sum() > 20


def test_published_scores_are_there_early():
    assert gains.step_of_gain(STEPS, POS).recorded == 60  # 90 % of .103 is .0927: 20k has .092
    assert gains.step_of_gain(STEPS, REL).recorded == 200
    assert 20 < gains.step_of_gain(STEPS, POS).interpolated < 60
    rise = gains.steepest_rise(np.array(STEPS), np.array(POS))
    assert (rise.before, rise.after, rise.low, rise.high) == (0, 20, 0.870, 0.962)
    assert POS[-1] - POS[3] < 0.02 < POS[1] - POS[0]


def test_adding_a_constant_or_scaling_changes_no_step_of_gain():
    random = np.random.default_rng(1)
    curves = random.integers(0, 11, size=(200, 6)) / 10  # many scores lie exactly on the threshold
    steps = [0, 1, 2, 4, 8, 16]
    plain = gains.step_of_gain(steps, curves)
    for other in (curves + 0.1, curves + 1 / 3, 0.7 * curves, curves - 5):
        found = gains.step_of_gain(steps, other)
        np.testing.assert_array_equal(found.recorded, plain.recorded)
        np.testing.assert_allclose(found.interpolated, plain.interpolated, rtol=1e-9)
    np.testing.assert_allclose(gains.area_under_curve(steps, curves + 2), gains.area_under_curve(steps, curves) + 2)


def test_no_gain_beyond_its_error_has_no_step():
    assert np.isnan(gains.step_of_gain([0, 1, 2], [0.5, 0.6, 0.5]).recorded)
    assert np.isnan(gains.step_of_gain([0, 1, 2], [0.5, 0.4, 0.3]).interpolated)
    found = gains.step_of_gain([0, 1, 2], [[0.5, 0.5, 0.52], [0.5, 0.5, 0.6]], error=np.array([0.05, 0.05]))
    np.testing.assert_array_equal(found.recorded, [np.nan, 2])
    assert np.isnan(gains.step_of_gain([0, 1, 2], [0.1, np.nan, 0.9]).recorded)
    assert np.isnan(gains.step_of_gain([5], [1.0]).recorded)


def test_a_jump_gives_its_step_and_a_straight_line_its_place():
    assert gains.step_of_gain([0, 10, 100], [0, 0, 1]).recorded == 100
    line = gains.step_of_gain([0, 9], [0.0, 1.0], unit=1)
    assert line.interpolated == pytest.approx(10**0.9 - 1)
    assert gains.area_under_curve([0, 9], [0.0, 1.0]) == 0.5
    assert gains.area_under_curve([0, 7, 50], [0.3] * 3) == pytest.approx(0.3)
    assert np.isnan(gains.area_under_curve([3], [0.3]))
    assert gains.unit_of([0, 20, 60]) == 20 and gains.unit_of([0]) == 1 and gains.unit_of([0, 20], 1000) == 1000


def test_onsets_are_those_of_plain_loops():
    random = np.random.default_rng(2)
    scores = np.sort(random.random((30, 4, 5)), axis=2) * random.random((30, 4, 1))
    scores[0, -1] = 0
    steps = [0, 1, 2, 4, 8]
    onset, layers = gains.onset_step(steps, scores), gains.onset_layer(scores)
    for i, one in enumerate(scores.tolist()):
        np.testing.assert_array_equal(onset[i], oracle.onset_steps(steps, one, 0.5))
        np.testing.assert_array_equal(layers[i], oracle.onset_layers(one, 0.5))
    assert np.isnan(onset[0]).all() and np.isnan(layers[0]).all()


def test_relative_increase_and_rises():
    np.testing.assert_array_equal(gains.relative_increase([0.0, 0.2, 0.3, 0.3]), [np.nan, np.nan, 0.3 / 0.2, 1.0])
    assert np.isnan(gains.steepest_rise(np.array([0, 1]), np.array([1.0, 0.5])).after)
    two = gains.steepest_rise(np.array([0, 10, 100]), np.array([[0.0, 0.1, 1.0], [0.0, 0.9, 1.0]]))
    np.testing.assert_array_equal(two.after, [100, 10])


def test_facts_learned_kept_and_lost_add_up():
    random = np.random.default_rng(3)
    before, after = random.random((5, 50)) < 0.4, random.random((5, 50)) < 0.6
    found = forgetting.transitions(before, after)
    np.testing.assert_allclose(found.learned + found.kept, after.mean(axis=1))
    np.testing.assert_allclose(found.kept + found.lost, before.mean(axis=1))
    same = forgetting.transitions(before, before)
    assert not same.learned.any() and not same.lost.any()
    order = random.permutation(50)
    np.testing.assert_allclose(forgetting.transitions(before[:, order], after[:, order]).lost, found.lost)
    np.testing.assert_allclose(forgetting.forgotten_share([0.5, 0.4, 0.0], [0.25, 0.5, 0.1]), [0.5, -0.25, np.nan])


def test_relative_differences_need_something_learned():
    found = forgetting.relative_difference(np.array([-0.1, -0.3, -0.1]), np.array([0.4, 0.3, 0.0]),
                                           np.array([0.1, 0.1, 0.0]))
    np.testing.assert_allclose(found, [-0.25, -1, np.nan])
    assert np.isnan(forgetting.relative_difference(-0.1, 0.05, 0.06))


def test_arms_are_compared_on_common_steps_or_with_the_last_step_before():
    assert forgetting.compared_steps([0, 20, 60], "a", [0, 60, 100], "a") == [(0, 0), (60, 60)]
    assert forgetting.compared_steps([0, 5], "adaptation", [0, 60, 100], "a") == [(0, 100), (5, 100)]
    assert forgetting.repeated({"a": "1", "b": "2", "c": "1", "d": "1"}) == [("a", "c"), ("a", "d")]
    value = np.arange(6.0).reshape(3, 2)
    one = Scores((0, 20, 60), "a", 20, Resampled(value, np.stack([value] * 3)))
    other = Scores((20, 60), "a", 20, Resampled(value[1:] + 1, np.stack([value[1:] + 1] * 3)))
    found = differences({"original": one, "adapted": other})
    assert list(found) == ["difference"] and found["difference"].steps == (20, 60)
    np.testing.assert_array_equal(found["difference"].estimate.value, np.ones((2, 2)))
    both = differences({"original": one, "adapted": other, "control": one})
    assert list(both) == ["difference", "control-difference", "net-difference"]


def test_rows_of_a_score_hold_gains_and_relative_differences():
    table, random = Table(), np.random.default_rng(4)
    noise = 0.01 * random.normal(size=(200, 3, 1))
    original = np.array([[0.1], [0.5], [0.9]])
    arms = {name: Scores((0, 10, 100), "a", 10, Resampled(value, value + noise))
            for name, value in (("original", original), ("adapted", original - np.array([[0.0], [0.2], [0.4]])))}
    add_arms(table, "edges", "pos", "f1", arms, [("full", 4, "")], n=7, seeds=2)
    key = Key("edges", "pos", "original", "f1", "full", 4)
    assert table.course(key._replace(statistic="f1_gain")).value == pytest.approx(0.8)
    assert table.course(key._replace(statistic="f1_step_90")).value == 100
    between = table.course(key._replace(statistic="f1_step_90_interpolated"))
    assert between.low < between.value < between.high and between.steps == [100]
    moved = table.course(key._replace(arm="difference"))
    np.testing.assert_allclose(moved.value, [0, -0.2, -0.4], atol=1e-12)
    assert moved.p[2] == pytest.approx(1 / 201) and (moved.n, moved.seeds) == (7, 2)
    relative = table.course(key._replace(arm="difference", statistic="f1_relative"))
    np.testing.assert_allclose(relative.value, [np.nan, -0.5, -0.5])
    again = Table.of_columns(table.columns())
    for one, course in table.select():
        np.testing.assert_array_equal(again.course(one).value, course.value)
        assert (again.course(one).n, again.course(one).seeds) == (course.n, course.seeds)


def test_what_cannot_be_a_curve_is_refused():
    with pytest.raises(ValueError, match="not ascending"):
        gains.step_of_gain([0, 5, 5], [1, 2, 3])
    with pytest.raises(ValueError, match="last axis must be the 2 steps"):
        gains.area_under_curve([0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="share: 0"):
        gains.step_of_gain([0, 1], [1, 2], share=0)
    with pytest.raises(ValueError, match="unit: -1 is negative"):
        gains.unit_of([0, 1], -1)
    with pytest.raises(ValueError, match="the one before it layers"):
        gains.onset_step([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"give \(layer, step\)"):
        gains.onset_layer([0.1])
    with pytest.raises(ValueError, match="give the same facts"):
        forgetting.transitions(np.zeros(3, bool), np.zeros(4, bool))
    table = Table()
    table.add(Key("edges", "a", "original", "f1"), [1], [0.5], n=1, seeds=1)
    with pytest.raises(ValueError, match="is there already"):
        table.add(Key("edges", "a", "original", "f1"), [1], [0.5], n=1, seeds=1)
    assert Arm((0,), "a", 1, print).steps == (0,)


@pytest.mark.parametrize(("changes", "message"), [
    ({"sources": [], "downstream": []}, "sources: is empty and downstream too"),
    ({"adapted": ["m/pretrain"]}, "m/pretrain stands there twice"),
    ({"step_unit": -1}, "step_unit: -1 is negative"),
    ({"sources": ["probes"]}, "sources"),
    ({"draws": 10}, "draws: 10 are too few")])
def test_settings_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(FinetraceError, match=message):
        parse(DynamicsSettings, {"original": ["m/pretrain"]} | changes, "params.yaml: dynamics.x")
