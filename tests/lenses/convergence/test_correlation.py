"""Correlation of cosines with accuracies: SciPy, resampling by hand, worked cases, refused input."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from finetrace.lenses.convergence import correlation as lens
from finetrace.lenses.intervals import bootstrap_weights


def pairs(units: int = 3, clusters: int = 6, ties: bool = False, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(units, clusters))
    y = 0.6 * x + rng.normal(size=(units, clusters))
    return (x.round(0), y.round(0)) if ties else (x, y)


def classical(x, y, kind) -> float:
    found = stats.spearmanr(x, y) if kind == "spearman" else stats.pearsonr(x, y)
    return float(found.statistic)


@pytest.mark.parametrize("kind", lens.KINDS)
@pytest.mark.parametrize("ties", [False, True])
def test_the_value_is_scipys(kind: str, ties: bool) -> None:
    for seed in range(5):
        x, y = pairs(ties=ties, seed=seed)
        found = lens.correlation(x, y, kind, draws=100)
        assert found.value == pytest.approx(classical(x.ravel(), y.ravel(), kind), abs=1e-12)
        assert (found.n, found.clusters) == (18, 6)
        assert -1 <= found.low <= found.high <= 1 and 0 < found.p <= 1


@pytest.mark.parametrize("kind", lens.KINDS)
def test_resampled_correlations_are_those_of_the_repeated_pairs(kind: str) -> None:
    x, y = (v.ravel() for v in pairs(1, 9, ties=True, seed=2))
    weights = bootstrap_weights(9, 40, 0)
    found = lens.weighted_correlation(x, y, weights, kind)
    assert np.isfinite(found).sum() > 30
    for value, row in zip(found, weights.astype(int), strict=True):
        again = np.repeat(x, row), np.repeat(y, row)
        if np.ptp(again[0]) == 0 or np.ptp(again[1]) == 0:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(classical(*again, kind), abs=1e-12)


def test_the_interval_resamples_whole_clusters() -> None:
    x, y = pairs(4, 8)
    found = lens.correlation(x, y, "pearson", draws=300, seed=9)
    rng_weights = bootstrap_weights(8, 300, 9).astype(int)
    values = [classical(*(np.repeat(v, row, axis=1).ravel() for v in (x, y)), "pearson") for row in rng_weights]
    np.testing.assert_allclose([found.low, found.high], np.quantile(values, [0.025, 0.975]), atol=1e-12)


@pytest.mark.parametrize("kind", lens.KINDS)
def test_p_counts_all_orders_of_whole_clusters(kind: str) -> None:
    x, y = pairs(2, 5)
    found = lens.correlation(x, y, kind, draws=100)
    values = [abs(classical(x.ravel(), y[:, list(order)].ravel(), kind)) for order in permutations(range(5))]
    assert found.p == pytest.approx(np.mean(np.array(values) >= abs(found.value) - 1e-12), abs=1e-15)


def test_p_of_unrelated_values_is_uniform_and_of_a_strong_link_small() -> None:
    rng = np.random.default_rng(0)
    p = [lens.correlation(rng.normal(size=(1, 9)), rng.normal(size=(1, 9)), draws=100, permutations=200, seed=k).p
         for k in range(200)]
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) <= 0.05) < 0.11
    x = np.arange(13.0)[None]
    assert lens.correlation(x, x, permutations=500).p == pytest.approx(1 / 501)


def test_worked_case() -> None:
    x = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    found = lens.correlation(x, 1 - x)
    assert found.value == -1 and (found.low, found.high) == pytest.approx((-1, -1))
    assert found.p == pytest.approx(2 / 120)  # the order itself and its reverse
    assert lens.correlation(x, np.exp(20 * x)).value == 1  # ranks see no curve
    assert lens.correlation(x, np.exp(20 * x), "pearson").value < 0.9


def test_scale_and_shift_do_not_matter() -> None:
    x, y = pairs()
    one, two = lens.correlation(x, y, "pearson"), lens.correlation(3 * x - 7, 100 * y + 2, "pearson")
    for name in ("value", "low", "high", "p"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-12)
    assert lens.correlation(x, -y, "pearson").value == pytest.approx(-one.value)


def test_too_few_or_constant_values_give_no_number_but_their_count() -> None:
    few = lens.correlation(*pairs(5, 3))
    assert math.isnan(few.value) and math.isnan(few.p) and math.isnan(few.low) and (few.n, few.clusters) == (15, 3)
    x, _ = pairs()
    assert math.isnan(lens.correlation(x, np.full_like(x, 0.1)).value)


def test_links_hold_levels_changes_and_all_three_directions() -> None:
    rng = np.random.default_rng(1)
    cosine, accuracy = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    found = lens.links(cosine, accuracy, draws=100, permutations=100)
    for kind in lens.KINDS:
        for c in range(6):
            level = lens.pick(found, kind, "level", "layers", c)
            assert level.value == pytest.approx(classical(cosine[c], accuracy[c], kind)) and level.n == 5
            change = lens.pick(found, kind, "change", "layers", c)
            if c == 0:
                assert change is None  # it is zero everywhere
            else:
                assert change.value == pytest.approx(classical(cosine[c] - cosine[0], accuracy[c] - accuracy[0], kind))
        for layer in range(5):
            over = lens.pick(found, kind, "level", "checkpoints", layer=layer)
            assert over.value == pytest.approx(classical(cosine[:, layer], accuracy[:, layer],
                                                         kind)) and over.clusters == 6
        pooled = lens.pick(found, kind, "level", "all")
        assert pooled.value == pytest.approx(classical(cosine.ravel(), accuracy.ravel(), kind))
        assert (pooled.n, pooled.clusters) == (30, 5)
        pooled = lens.pick(found, kind, "change", "all")
        changes = [(one - one[0])[1:].ravel() for one in (cosine, accuracy)]
        assert pooled.value == pytest.approx(classical(*changes, kind))
        assert (pooled.n, pooled.clusters) == (25, 5)
    assert len(found) == 2 * (6 + 5 + 5 + 2)


def test_one_checkpoint_has_no_changes() -> None:
    found = lens.links(np.arange(5.0)[None], np.arange(5.0)[None] ** 2, draws=100)
    assert {one.of for one in found} == {"level"}
    assert lens.pick(found, "spearman", "level", "layers", 0).value == 1


def test_equal_seeds_give_equal_numbers() -> None:
    x, y = pairs(3, 9)
    assert lens.correlation(x, y, seed=3) == lens.correlation(x, y, seed=3)
    assert lens.correlation(x, y, seed=3) != lens.correlation(x, y, seed=4)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="not equal"):
        lens.links(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="NaN"):
        lens.links(np.full((3, 4), np.nan), np.zeros((3, 4)))
