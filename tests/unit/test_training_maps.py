"""Phases of trainings: planted ones are found, noise has none, runs that go another way are named."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetrace.atlas.signals import cells_of
from finetrace.atlas.training_maps import LEAST_POINTS, MOST_STATES, TrainingMap, _pieces, training_map

SAMPLE = Path(__file__).parents[1] / "data/micro-a-pretrain-curves.parquet"
"""Curves of micro-a/pretrain in the default study: rows of atlas/table.parquet."""
ALL = 500


def levels(path: Sequence[int], levels: np.ndarray, rng: np.random.Generator, noise: float = 0.3) -> np.ndarray:
    """(signal, time): the level of each state of a path, with noise. levels: (state, signal)."""
    return levels[np.array(path)].T + noise * rng.normal(size=(levels.shape[1], len(path)))


def mapped(values: np.ndarray, lenses: Sequence[str] = ()) -> TrainingMap:
    return training_map(values, 10 * np.arange(values.shape[2]), lenses or [f"lens{i}" for i in range(values.shape[1])])


PATH = [0] * 5 + [1] * 4 + [2] * 7
LEVELS = np.array([[0.0, 5.0, 1.0], [3.0, 5.0, -1.0], [3.0, 1.0, -4.0]])


@pytest.mark.parametrize("runs", [1, 2, 6])
def test_planted_phases_are_found(runs: int) -> None:
    drawn = [np.random.default_rng(10 * runs + i) for i in range(3)]
    maps = [mapped(np.stack([levels(PATH, LEVELS, rng) for _ in range(runs)])) for rng in drawn]
    exact = [each for each in maps if each.states.tolist() == [PATH] * runs]
    assert len(exact) >= 2
    found = exact[0]
    assert found.verdict == "phases" and found.count == 3
    assert not found.other_way.any()
    assert [(phase.first_step, phase.last_step, phase.runs) for phase in found.phases] == [
        (0, 40, runs), (50, 80, runs), (90, 150, runs)]
    for phase in found.phases:
        np.testing.assert_allclose(phase.means, LEVELS[phase.state], atol=0.6)
    first, second = found.turns
    assert (first.step_before, first.step_after, second.step_before, second.step_after) == (40, 50, 80, 90)
    assert first.largest == 0 and second.largest == 1
    assert found.criterion == ("held-out seed" if runs > 1 else "every second checkpoint")
    assert (found.probability > 0.9).all() and "times as likely in 3 phases" in found.reason


def test_what_moves_first_at_a_turn() -> None:
    rng = np.random.default_rng(1)
    early, late = [0] * 6 + [1] * 8, [0] * 8 + [1] * 6
    values = np.stack([np.concatenate([levels(path, np.array([[0.0], [low]]), rng, 0.1)
                                       for path, low in ((early, 3.0), (late, -3.0), (late, 0.0))]) for _ in range(4)])
    found = mapped(values, ["cloze", "pairs", "edges"])
    moves = [turn.moves for turn in found.turns]
    assert moves[0] == "cloze" and 50 < found.turns[0].halfway[0] < 60 and np.isnan(found.turns[0].halfway[2])
    alike = mapped(values[:, [0, 0]] + 0.01 * rng.normal(size=(4, 2, 14)), ["cloze", "pairs"])
    assert [turn.moves for turn in alike.turns] == ["together"]
    assert [turn.moves for turn in mapped(values[:, [0, 0]], ["cloze", "cloze"]).turns] == ["cloze"]


def test_runs_that_take_another_way() -> None:
    rng = np.random.default_rng(2)
    skipping = [0] * 7 + [2] * 9
    found = mapped(np.stack([levels(path, LEVELS, rng) for path in (PATH, PATH, skipping, PATH, PATH)]))
    assert found.other_way.tolist() == [False, False, True, False, False]
    assert [phase.runs for phase in found.phases] == [5, 4, 5] and [turn.after for turn in found.turns] == [1, 2]
    assert found.states[2].tolist() == skipping


def test_states_never_fall_and_probabilities_are_ones() -> None:
    values = np.random.default_rng(3).normal(size=(4, 3, 30)).cumsum(axis=2)
    found = mapped(values)
    assert (np.diff(found.states, axis=1) >= 0).all() and found.count <= MOST_STATES
    assert set(found.states.ravel()) == set(range(found.count))
    assert ((found.probability > 0) & (found.probability <= 1 + 1e-12)).all()
    assert max(found.gains) <= MOST_STATES and found.gains[1] == 0


def test_scale_offset_and_order_of_signals_change_nothing() -> None:
    rng = np.random.default_rng(4)
    values = np.stack([levels(PATH, LEVELS, rng) for _ in range(3)])
    found, other = mapped(values), mapped((5 - 1e4 * values)[:, ::-1])
    np.testing.assert_array_equal(found.states, other.states)
    np.testing.assert_allclose([*found.gains.values()], [*other.gains.values()], rtol=1e-6)
    for one, two in zip(found.turns, other.turns, strict=True):
        np.testing.assert_allclose(one.change, -two.change[::-1], atol=1e-9)
    again = mapped(values)
    np.testing.assert_array_equal(found.probability, again.probability)


def alarms(runs: int, signals: int, times: int, count: int, *, shared: float = 0) -> float:
    """Share of studies of noise in which phases are found. shared: of noise that all signals have in common."""
    found = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(runs, signals, times)) + shared * rng.normal(size=(runs, 1, times))
        found += mapped(noise).verdict == "phases"
    return found / count


@pytest.mark.parametrize(("runs", "signals", "times"), [(1, 3, 12), (2, 3, 12)])
def test_noise_has_no_phases(runs: int, signals: int, times: int) -> None:
    assert alarms(runs, signals, times, 15) <= 0.14
    found = mapped(np.random.default_rng(1).normal(size=(runs, signals, times)))
    assert found.verdict == "none" and found.count == 1 and not found.turns and "nowhere 20 times" in found.reason
    assert not found.states.any() and (found.probability == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "signals", "times"), [(1, 1, 12), (1, 3, 12), (1, 8, 10), (2, 3, 12), (5, 2, 12)])
def test_noise_has_no_phases_in_many_studies(runs: int, signals: int, times: int) -> None:
    assert alarms(runs, signals, times, ALL) <= 0.05


def test_signals_that_say_the_same_are_no_evidence_of_their_own() -> None:
    assert alarms(1, 8, 12, 15, shared=3) <= 0.14


@pytest.mark.slow
def test_signals_that_say_the_same_are_no_evidence_of_their_own_in_many_studies() -> None:
    assert alarms(1, 8, 12, ALL, shared=3) <= 0.06
    assert alarms(2, 8, 12, ALL, shared=3) <= 0.06


def test_few_checkpoints_are_undecided() -> None:
    found = mapped(np.random.default_rng(1).normal(size=(1, 2, LEAST_POINTS - 1)))
    assert found.verdict == "undecided" and f"fewer than {LEAST_POINTS}" in found.reason and found.count == 1
    assert mapped(np.random.default_rng(1).normal(size=(1, 2, 1))).verdict == "undecided"
    assert mapped(np.ones((2, 2, 8))).verdict == "none"  # nothing moves


def test_pieces_are_the_best_of_all() -> None:
    curve = np.random.default_rng(5).normal(size=(9, 2))

    def cost(begins: tuple[int, ...]) -> float:
        edges = [0, *begins, len(curve)]
        return sum(np.square(part - part.mean(axis=0)).sum()
                   for part in (curve[a:b] for a, b in pairwise(edges)))

    for count in (1, 2, 3, 4):
        best = min(combinations(range(1, len(curve)), count - 1), key=cost)
        assert tuple(_pieces(curve, count).tolist()) == best


@pytest.mark.parametrize("values", [np.zeros((2, 9)), np.zeros((2, 3, 9)), np.zeros((2, 2, 8)), np.zeros((0, 2, 9)),
                                    np.full((2, 2, 9), np.nan)])
def test_other_shapes_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values"):
        training_map(values, np.arange(9), ["a", "b"])


def test_facts_are_a_phase_of_the_micro_world() -> None:
    """Facts are learned (P@1 from 37 to 98 %) between steps 1,200 and 2,000."""
    (cell,) = cells_of(pd.read_parquet(SAMPLE))
    found = training_map(cell.values, cell.steps, [signal.lens for signal in cell.signals])
    names = [signal.name for signal in cell.signals]
    assert cell.name == "micro-a/pretrain" and found.verdict == "phases"
    turn = next(turn for turn in found.turns if turn.step_before >= 1200 and turn.step_after <= 2000)
    known = names.index("cloze/p_at_1")
    assert turn.change[known] > 1.5 and 1200 < turn.halfway[known] < 2000 and turn.moves == "cloze"
    assert abs(turn.change[names.index("trajectory/validation/loss")]) < turn.change[known] / 2
