"""Information dynamics of probe sets, means over steps, smoothing, confidence and data maps."""

import math

import numpy as np
import pytest
from tests.oracles import infodynamics as oracle
from tests.series import FIELDS, assert_same, one_hot, rows

from finetrace.lenses.infodynamics import measures as lens


def test_probe_resonance_is_the_mean_of_single_examples() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), (25, 8))
    single = [lens.resonance(p[:, example], 4) for example in range(8)]
    found, every = lens.probe_resonance(p, 4), lens.probe_resonance(p, 4, per_example=True)
    for name in FIELDS:
        stacked = np.stack([getattr(one, name) for one in single], axis=1)
        np.testing.assert_allclose(getattr(every, name), stacked, rtol=0, atol=1e-13)
        np.testing.assert_allclose(getattr(found, name), stacked.mean(axis=1), rtol=0, atol=1e-13)
    several = lens.probe_resonance(p, [2, 4])
    assert list(several) == [2, 4]
    assert_same(several[4], found, atol=0)
    for example in (0, 7):
        column = oracle.dynamics(p[:, example], 4)["novelty"]
        np.testing.assert_allclose(every.novelty[:, example], column, rtol=0, atol=1e-12)


def test_probe_resonance_of_a_standing_model_is_zero_whatever_the_labels() -> None:
    p = np.tile(one_hot(50, [0.5, 0.5]), (12, 1, 1))
    assert lens.curb(lens.probe_resonance(p, 3), 3).novelty.max() == 0
    p[6:] = p[6:, :, ::-1]  # every prediction flips at step 6 and stays
    found = lens.probe_resonance(p, 3)
    assert found.novelty[6] == pytest.approx(math.log(2)) and found.resonance[6] == pytest.approx(math.log(2))


def test_step_mean() -> None:
    p = rows(7)
    steps, means = lens.step_mean(p, np.array([4, 4, 4, 7, 7, 9, 9]))
    np.testing.assert_array_equal(steps, [4, 7, 9])
    np.testing.assert_allclose(means, [p[:3].mean(axis=0), p[3:5].mean(axis=0), p[5:].mean(axis=0)], rtol=0, atol=1e-15)


def test_smooth_filters_the_curbed_part_of_every_signal() -> None:
    raw = lens.resonance(rows(200), 8, fill=0.0)  # zeros at the ends must not leak into the trend
    found = lens.smooth(raw, 8, span=10)
    for name in FIELDS:
        value = getattr(found, name)
        assert np.isnan(value[:8]).all() and np.isnan(value[-8:]).all() and len(value) == 200
        np.testing.assert_array_equal(
            value[8:-8], lens.adaptive_filter(getattr(raw, name)[8:-8], span=10), err_msg=name
        )


def test_mean_confidence() -> None:
    p, w = rows(30), 5
    found = lens.mean_confidence(p, w)
    assert np.isnan(found[:w]).all()
    np.testing.assert_allclose(
        found[w:], [p[i - w : i + 1].max(axis=1).mean() for i in range(w, 30)], rtol=0, atol=1e-13
    )


def test_cartography_against_the_loops() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(3), (9, 40))
    labels = np.random.default_rng(2).integers(0, 3, 40)
    found = lens.cartography(p, labels)
    expected = np.array(oracle.cartography(p, labels))
    np.testing.assert_allclose(
        np.stack([found.confidence, found.variability, found.correctness], 1), expected, rtol=0, atol=1e-14
    )
    sure = lens.cartography(np.tile(np.eye(2)[[0, 1]], (4, 1, 1)), np.array([0, 0]))
    assert sure.confidence.tolist() == [1, 0] and sure.variability.tolist() == [0, 0]
    assert sure.correctness.tolist() == [1, 0]
