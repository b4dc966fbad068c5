"""From products to influence, and what training recorded: formulas word for word, and what must not matter."""

import numpy as np
import pytest

from finetrace.lenses.influence import summary
from finetrace.lenses.influence.products import Products
from finetrace.lenses.influence.recorded import credit, drops
from finetrace.lenses.influence.scores import (
    Influence,
    extremes,
    ranks,
    rate_weights,
    top_share,
    visit_weights,
)
from finetrace.lenses.influence.settings import InfluenceSettings
from finetrace.longtable import LongTable

STEPS, AT = [0, 4, 10], np.arange(12)
RATES = np.linspace(1.0, 0.1, 12)


def plain_weights(at, amounts) -> np.ndarray:
    """Half to the checkpoint before (or at) a step, half to the one after; the last checkpoint has none after it."""
    found = np.zeros(len(STEPS))
    for step, amount in zip(at, amounts, strict=True):
        before = max(k for k, checkpoint in enumerate(STEPS) if checkpoint <= step)
        found[before] += amount / 2
        found[min(before + 1, len(STEPS) - 1)] += amount / 2
    return found


def test_rates_are_shared_between_the_checkpoints_around_a_step() -> None:
    found = rate_weights(STEPS, AT, RATES, 50)
    np.testing.assert_allclose(found, plain_weights(AT, RATES / 50))
    assert found.sum() == pytest.approx(RATES.sum() / 50)
    np.testing.assert_allclose(rate_weights([10], AT, RATES, 1), [RATES.sum()])
    np.testing.assert_allclose(rate_weights(STEPS, AT[::-1], RATES[::-1], 50), found)


def test_visits_count_the_steps_that_saw_an_example() -> None:
    draw = np.random.default_rng(0)
    batches = [draw.choice(6, size=3, replace=False) for _ in AT]
    visits, rows = np.repeat(AT, 3), np.concatenate(batches)
    found = visit_weights(STEPS, AT, RATES, visits, rows, 6)
    for row in range(6):
        mine = [step for step, batch in zip(AT, batches, strict=True) if row in batch]
        np.testing.assert_allclose(found[:, row], plain_weights(mine, RATES[mine] / 3))
    assert found.sum() == pytest.approx(RATES.sum())
    unknown = np.where(rows == 2, -1, rows)
    some = visit_weights(STEPS, AT, RATES, visits, unknown, 6)
    assert not some[:, 2].any()
    np.testing.assert_allclose(np.delete(some, 2, axis=1), np.delete(found, 2, axis=1))
    with pytest.raises(ValueError, match=r"history\.parquet lacks"):
        visit_weights(STEPS, AT[:5], RATES[:5], visits, rows, 6)


def made_up(seed: int = 0) -> tuple[Influence, list[Products]]:
    draw, of, every = np.random.default_rng(seed), Influence(), []
    for step in STEPS:
        gs = {name: (draw.normal(size=(5, 3)), draw.normal(size=(8, 3))) for name in ("layer-00", "head")}
        every.append(Products({n: e @ t.T for n, (e, t) in gs.items()}, {n: (t**2).sum(1) for n, (_, t) in gs.items()},
                              {n: (e**2).sum(1) for n, (e, _) in gs.items()}, draw.random(8), draw.random(5)))
        of.add(step, every[-1], np.float64(step + 1))
    return of, every


def test_influence_is_the_weighted_sum_over_checkpoints() -> None:
    of, every = made_up()
    expected = sum((step + 1) * (one.pairs["layer-00"] + one.pairs["head"])
                   for step, one in zip(STEPS, every, strict=True))
    np.testing.assert_allclose(of.whole, expected)
    np.testing.assert_allclose(np.sum(of.by_step, axis=0), expected, rtol=1e-5)
    np.testing.assert_allclose(of.own, sum((step + 1) * (one.train_squares["layer-00"] + one.train_squares["head"])
                                           for step, one in zip(STEPS, every, strict=True)))
    assert (np.abs(of.cosines) <= 1 + 1e-6).all() and of.shares.sum() == pytest.approx(1)


def test_extremes_and_ranks() -> None:
    whole = np.array([[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, -3.0, 1.0]])
    helpful, harmful = extremes(whole, 2)
    assert helpful.tolist() == [[2, 0], [0, 1]] and harmful.tolist() == [[1, 3], [2, 0]]
    assert extremes(whole, 9)[0].shape == (2, 4)
    assert ranks(np.array([0.1, 3.0, 3.0, 2.0])).tolist() == [4, 1, 2, 3]


def test_the_share_of_the_top() -> None:
    assert top_share(np.ones((3, 20))) == pytest.approx(0.1)
    assert top_share(np.eye(1, 20)) == 1
    assert np.isnan(top_share(np.zeros((3, 20))))


def test_the_table_says_what_the_arrays_say() -> None:
    of, _ = made_up()
    same = np.arange(5)[:, None] % 2 == np.arange(8) % 2
    table = LongTable.of_rows(summary.rows_of(of, 2.0, same, "validation"), summary.COLUMNS)
    whole = table.select(group="all")
    assert whole.value(step=4, statistic="influence") == pytest.approx(2 * of.by_step[1].sum(axis=1).mean(), rel=1e-5)
    assert table.value(step=4, statistic="influence", group="layer-00") == pytest.approx(
        2 * of.by_group[1]["layer-00"].mean())
    assert whole.value(step=10, statistic="cosine_same_class") == pytest.approx(np.mean(
        [of.cosines[2][e][same[e]].mean() for e in range(5)]), rel=1e-5)
    keys = table.frame[["step", "split", "group", "statistic"]]
    assert not keys.duplicated().any()
    numbers = summary.metrics(table, of, 2.0, "validation")
    predicted, seen = 2 * of.whole.sum(axis=1), of.eval_losses[0] - of.eval_losses[2]
    order = np.corrcoef(np.argsort(np.argsort(predicted)), np.argsort(np.argsort(seen)))[0, 1]
    assert numbers["agreement"] == pytest.approx(order)
    assert numbers["influence/head"] + numbers["influence/layer-00"] == pytest.approx(1)
    assert numbers["half_step"] in STEPS and numbers["seen_drop"] == pytest.approx(seen.mean())
    assert list(summary.curves(table, STEPS, "validation")["step"]) == STEPS


def test_one_checkpoint_and_one_gradient_are_no_trouble() -> None:
    of, (first, *_) = Influence(), made_up()[1]
    zero = {name: np.zeros_like(values) for name, values in first.pairs.items()}
    none = {name: np.zeros(8) for name in zero}
    of.add(3, Products(zero, none, {name: np.zeros(5) for name in zero}, np.ones(8), np.ones(5)), np.float64(1))
    table = LongTable.of_rows(summary.rows_of(of, 1.0, None, "test"), summary.COLUMNS)
    numbers = summary.metrics(table, of, 1.0, "test")
    assert numbers["cosine/last"] == 0 and "agreement" not in numbers and "top_tenth" not in numbers


# --- what training recorded ---------------------------------------------------------------------------------------


def test_drops_and_credit_of_looks_after_every_step() -> None:
    """Each step's batch has its own effect; examples get the mean over their batches' rows, and the whole adds up."""
    draw = np.random.default_rng(1)
    losses = draw.random((6, 4))  # after 0 .. 5 steps, of 4 watched examples
    looks, watched = np.repeat(np.arange(6), 4), np.tile(np.arange(4), 6)
    visits = np.repeat(np.arange(5), 2)
    examples = np.array([10, 11, 12, 13, 10, 14, 11, 12, 13, 14])
    found = drops(looks, watched, losses.ravel(), visits)
    assert found is not None
    np.testing.assert_allclose(found.value, losses[:-1].mean(axis=1) - losses[1:].mean(axis=1))
    assert found.visits.tolist() == [2] * 5 and (found.low <= found.value).all() and (found.value <= found.high).all()
    wanted = np.array([14, 10, 99])
    value, times = credit(found, visits, examples, wanted)
    np.testing.assert_allclose(value, [(found.value[2] + found.value[4]) / 2, (found.value[0] + found.value[2]) / 2, 0])
    assert times.tolist() == [2, 2, 0]
    everyone, _ = credit(found, visits, examples, np.arange(10, 15))
    assert everyone.sum() == pytest.approx(losses[0].mean() - losses[-1].mean())


def test_looks_that_are_rare_share_the_credit() -> None:
    visits, examples = np.repeat(np.arange(6), 3), np.tile([7, 8, 9], 6)
    found = drops(np.array([0, 0, 4, 4]), np.array([1, 2, 1, 2]), np.array([1.0, 2.0, 0.5, 1.0]), visits)
    assert found is not None and found.value.tolist() == [0.75] and found.visits.tolist() == [12]
    value, times = credit(found, visits, examples, np.array([7]))
    assert value[0] == pytest.approx(0.75 / 3) and times[0] == 4, "rows after the last look have no credit"
    assert drops(np.zeros(2, dtype=int), np.arange(2), np.ones(2), np.arange(3)) is None


@pytest.mark.parametrize(("change", "message"), [
    ({"rows": {"train": 5}}, "names train; write"), ({"rows": {"train": 1, "eval": 5}}, "too few; write 2 or more"),
    ({"top": 0}, "lists nothing"), ({"memory_gb": 0}, "not above 0"), ({"checkpoints": [-1]}, "not a list of steps"),
    ({"shown": -1}, "0 draws no lists"), ({"batch_tokens": 3}, "less than 16"), ({"max_length": 2}, "no room"),
])
def test_settings_that_mean_nothing(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        InfluenceSettings(**change)
