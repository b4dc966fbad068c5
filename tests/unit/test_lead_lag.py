"""Which signal moves first: against loops, planted leads, independent and trending signals; what changes nothing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from tests.oracles import lead_lag as oracle

from finetrace.atlas.lead_lag import LEAST_SEEDS, MOST_LAG, MOST_SEEDS, LeadLag, lead_lag, leads

Pair = tuple[np.ndarray, np.ndarray]
SHORT, ALL = 120, 500


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth(rng: np.random.Generator, seeds: int, times: int) -> np.ndarray:
    """(seed, time): its changes are autoregressive, by 0.9."""
    changes = np.zeros((seeds, times + 40))
    for t in range(1, times + 40):
        changes[:, t] = 0.9 * changes[:, t - 1] + rng.normal(size=seeds)
    return changes[:, 40:].cumsum(axis=1)


def planted(rng: np.random.Generator, lag: int, *, seeds: int = 6, times: int = 16, noise: float = 0.5) -> Pair:
    """The second's change is the first's of `lag` checkpoints before, with noise."""
    changes = rng.normal(size=(seeds, times + 2 * abs(lag)))
    first = changes[:, abs(lag):abs(lag) + times]
    second = changes[:, abs(lag) - lag:abs(lag) - lag + times] + noise * rng.normal(size=(seeds, times))
    return first.cumsum(axis=1), second.cumsum(axis=1)


def independent(rng: np.random.Generator) -> Pair:
    return rng.normal(size=(5, 14)), rng.normal(size=(5, 14))


def autocorrelated(rng: np.random.Generator) -> Pair:
    return smooth(rng, 6, 14), smooth(rng, 6, 14)


def trending(rng: np.random.Generator) -> Pair:
    """Both follow one course that all seeds share, the second two checkpoints later; what differs is independent."""
    course = 6 / (1 + np.exp(-(np.arange(18.0) - 8)))
    return (course[2:] + rng.normal(size=(8, 16)).cumsum(axis=1) * 0.5,
            course[:-2] + rng.normal(size=(8, 16)).cumsum(axis=1) * 0.5)


NOTHING: dict[str, Callable[[np.random.Generator], Pair]] = {
    "independent": independent, "autocorrelated": autocorrelated, "a common trend": trending}


def same(one: LeadLag, other: LeadLag) -> None:
    for field in fields(LeadLag):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9, err_msg=field.name)


def mirrored(one: LeadLag) -> tuple[np.ndarray, int, float]:
    return one.correlation[::-1], -one.best_lag, one.p


def test_correlations_and_p_are_those_of_loops() -> None:
    rng = random(3)
    first, second = planted(rng, 1, seeds=4, times=9, noise=1.0)
    third = rng.normal(size=first.shape)
    signals = [first, second, third]
    found = leads(np.stack(signals, axis=1), seed=1)
    lags = found[0, 1].lags.tolist()
    slow = oracle.judged([signal.tolist() for signal in signals], lags)
    assert lags == [-2, -1, 0, 1, 2] and set(found) == set(slow) == {(0, 1), (0, 2), (1, 2)}
    for (i, j), one in found.items():
        expected = [oracle.correlation(signals[i].tolist(), signals[j].tolist(), lag) for lag in lags]
        np.testing.assert_allclose(one.correlation, expected, rtol=0, atol=1e-12)
        assert (one.p, one.p_cell, one.best_lag) == pytest.approx(slow[i, j], abs=1e-12)


@pytest.mark.parametrize("lag", [-3, -1, 0, 1, 3])
def test_a_planted_lag_is_found(lag: int) -> None:
    found = [lead_lag(*planted(random(seed), lag), seed=seed) for seed in range(20)]
    assert sum(one.best_lag == lag for one in found) >= 18
    said = Counter(one.verdict for one in found)
    assert said["together" if lag == 0 else "first leads" if lag > 0 else "second leads"] >= 18
    one = found[0]
    at = one.lags.tolist().index(lag)
    assert one.low[at] <= one.correlation[at] <= one.high[at] and one.correlation[at] > one.null_high[at]
    assert one.p < 0.05 and one.seeds == 6 and one.changes == 15


def test_a_lead_beside_a_trend_that_all_seeds_share() -> None:
    """The trend would say that the second leads; what differs between seeds says the first."""
    course = 8 / (1 + np.exp(-(np.arange(20.0) - 9)))
    first, second = planted(random(1), 1, seeds=8, times=18)
    one = lead_lag(course[:-2] + 0.5 * first, course[2:] + 0.5 * second, seed=1)
    assert one.verdict == "first leads" and one.best_lag == 1


def false_alarms(make: Callable[[np.random.Generator], Pair], count: int) -> float:
    found = Counter(lead_lag(*make(random(seed)), seed=seed).verdict for seed in range(count))
    assert not found["undecided"]
    return (count - found["none"]) / count


@pytest.mark.parametrize("name", NOTHING)
def test_false_alarms(name: str) -> None:
    assert false_alarms(NOTHING[name], SHORT) <= 0.09  # 5 % of 120, and two standard deviations


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTHING)
def test_false_alarms_in_many_studies(name: str) -> None:
    assert false_alarms(NOTHING[name], ALL) <= 0.05


def of_a_cell(seed: int) -> np.ndarray:
    """(seed, signal, time): two groups of three alike signals each, the groups independent."""
    rng = random(seed)
    sources = [smooth(rng, 6, 12) for _ in range(2)]
    return np.stack([source + 0.3 * rng.normal(size=source.shape) for source in sources for _ in range(3)], axis=1)


def alarms_of_cells(count: int) -> float:
    """Share of cells in which a pair of two groups is called anything but none."""
    between = [(i, j) for i in range(3) for j in range(3, 6)]
    return sum(any(found[pair].verdict != "none" for pair in between)
               for found in (leads(of_a_cell(seed), seed=seed) for seed in range(count))) / count


def test_the_search_of_pairs_is_paid_for() -> None:
    assert alarms_of_cells(25) <= 0.12
    found = leads(of_a_cell(0), seed=0)
    assert all(one.p_cell >= one.p for one in found.values())
    assert found[0, 1].verdict == found[4, 5].verdict == "together"


@pytest.mark.slow
def test_the_search_of_pairs_is_paid_for_in_many_studies() -> None:
    assert alarms_of_cells(ALL) <= 0.05


def test_what_changes_nothing() -> None:
    first, second = planted(random(2), 1, seeds=5)
    one = lead_lag(first, second, seed=1)
    same(lead_lag(3 + 7 * first, 1e-3 * second - 2, seed=1), one)
    same(lead_lag(first + np.arange(16.0), second, seed=1), one)  # a steady climb has no changes of its own
    order = [3, 0, 4, 1, 2]
    again = lead_lag(first[order], second[order], seed=1)
    np.testing.assert_allclose(again.correlation, one.correlation, rtol=0, atol=1e-12)
    assert (again.p, again.best_lag, again.verdict) == (one.p, one.best_lag, one.verdict)
    turned = lead_lag(-first, second, seed=1)
    np.testing.assert_allclose(turned.correlation, -one.correlation, rtol=0, atol=1e-12)
    assert (turned.p, turned.verdict) == (one.p, one.verdict)


def test_the_other_way_round_lags_are_mirrored() -> None:
    first, second = planted(random(2), 2, seeds=5)
    one, other = lead_lag(first, second, seed=1), lead_lag(second, first, seed=1)
    assert one.verdict == "first leads" and other.verdict == "second leads"
    for a, b in zip(mirrored(one), (other.correlation, other.best_lag, other.p), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_equal_seeds_give_equal_numbers() -> None:
    values = random(1).normal(size=(9, 3, 12))
    for pair, one in leads(values, seed=4).items():
        same(leads(values, seed=4)[pair], one)
    assert any(leads(values, seed=5)[pair].p != one.p for pair, one in leads(values, seed=4).items())


def test_few_seeds_are_undecided() -> None:
    first, second = planted(random(1), 1, noise=0.01)
    for seeds in range(1, LEAST_SEEDS):
        one = lead_lag(first[:seeds], second[:seeds], seed=1)
        assert one.verdict == "undecided" and f"{LEAST_SEEDS} or more" in one.reason and one.best_lag == 1
        assert one.correlation[one.lags == 1] > 0.9
    alone = lead_lag(first[:1], second[:1], seed=1)
    assert np.isnan([*alone.low, *alone.null_high, alone.p, alone.p_cell]).all()
    assert lead_lag(first[:LEAST_SEEDS], second[:LEAST_SEEDS], seed=1).p == pytest.approx(1 / 24)


def test_few_checkpoints_and_constant_signals_are_undecided() -> None:
    first, second = planted(random(1), 1)
    few = lead_lag(first[:, :4], second[:, :4], seed=1)
    assert few.verdict == "undecided" and "3 changes" in few.reason
    flat = lead_lag(np.full_like(first, 0.1), second, seed=1)
    assert flat.verdict == "undecided" and "does not change" in flat.reason and not flat.correlation.any()
    climb = np.tile(0.1 * np.arange(first.shape[1]), (len(first), 1))
    assert "does not change" in lead_lag(climb, second, seed=1).reason  # its changes are equal, up to rounding
    assert "3 changes" in lead_lag(first[:, :4], second[:, :4], seed=1).reason
    lone = first.copy()
    lone[0] = 0.5
    assert lead_lag(lone, second, seed=1).verdict == "first leads"  # one seed that stands still says nothing


def test_lags_and_seeds_are_bounded() -> None:
    one = lead_lag(*random(1).normal(size=(2, MOST_SEEDS + 3, 80)), seed=1)
    assert one.lags.tolist() == list(range(-MOST_LAG, MOST_LAG + 1)) and one.seeds == MOST_SEEDS
    assert lead_lag(*random(1).normal(size=(2, 4, 5)), seed=1).lags.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("values", [np.zeros((4, 2)), np.zeros((4, 1, 9)), np.zeros((0, 2, 9)),
                                    np.full((4, 2, 9), np.nan)])
def test_other_shapes_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(seed, signal, time\)"):
        leads(values, seed=1)
