"""Scores of facts: worked examples, bounds, macro means as published, learned/kept/lost, intervals, the lens' table."""

import numpy as np
import pytest
from scipy import stats
from tests.oracles import cloze as oracle

from finetrace.lenses.cloze import summary
from finetrace.lenses.cloze.metrics import (
    estimates,
    groups,
    intermediate_contribution,
    known_changes,
    precision_at,
    reciprocal_rank,
)
from finetrace.lenses.cloze.ranking import Ranks
from finetrace.lenses.cloze.views import View


def ranks_of(rank, full=None, candidates=None):
    rank = np.asarray(rank, dtype=np.int32)
    full = rank + 1 if full is None else np.asarray(full, dtype=np.int32)
    candidates = np.zeros_like(rank) if candidates is None else np.asarray(candidates, dtype=np.int32)
    return Ranks(rank, full, -np.log(full).astype(np.float32), np.zeros((*rank.shape, 5), np.int32), candidates)


def facts_of(relations, corpora=None, types=None, held_out=None, candidates=None):
    n = len(relations)
    return summary.Facts(corpora or ["TREx"] * n, relations, types or ["1-1"] * n, np.array(held_out or [False] * n),
                         np.array(candidates or [0] * n))


def value(table, **where):
    return table.value(**({"held_out": False, "readout": "own", "vocabulary": "common", "relation": ""} | where))


def test_worked_example():
    """Two facts of P36 at ranks 2 and 1, one of P1376 at rank 20: macro .25, mean over facts .333."""
    table = summary.table({0: {"own": ranks_of([[2, 1, 20]])}}, facts_of(["P36", "P36", "P1376"]), "common")
    p = {"layer": 0, "step": 0, "corpus": "TREx", "statistic": "p_at_1"}
    assert value(table, **p, relation="P36") == 0.5
    assert value(table, **p, relation="P1376") == 0
    assert value(table, **p) == 0.25
    assert value(table, **p, relation="type:1-1") == 0.25
    assert value(table, **p | {"statistic": "p_at_10"}) == 0.5
    assert value(table, **p | {"statistic": "mrr"}, relation="P36") == 0.75
    squad = summary.table({0: {"own": ranks_of([[2, 1, 20]])}}, facts_of(["a", "a", "b"], ["Squad"] * 3), "common")
    assert value(squad, **p | {"corpus": "Squad"}) == pytest.approx(1 / 3)


def test_bounds_and_oracle():
    random = np.random.default_rng(3)
    ranks = random.integers(1, 60, 500)
    relations = random.choice(["a", "b", "c"], 500, p=[0.7, 0.2, 0.1])
    first, ten, mrr = precision_at(ranks, 1).mean(), precision_at(ranks, 10).mean(), reciprocal_rank(ranks).mean()
    assert first == oracle.precision(ranks, 1) and ten == oracle.precision(ranks, 10)
    assert mrr == pytest.approx(oracle.reciprocal(ranks))
    assert first <= ten and 1 / 60 <= mrr <= 1 and first <= mrr <= first + (1 - first) / 2
    table = summary.table({7: {"own": ranks_of(ranks[None])}}, facts_of(relations.tolist()), "common")
    found = value(table, step=7, layer=0, corpus="TREx", statistic="p_at_10")
    assert found == pytest.approx(oracle.macro(ranks, relations, lambda r: oracle.precision(r, 10)))
    assert abs(found - ten) > 1e-3
    assert value(table, step=7, layer=0, corpus="TREx", statistic="mean_log_prob_nats", vocabulary="full") < 0


def test_parity_is_the_program_of_bertnesia():
    """Its ranks count from 0: P@10 is P@11, the first place scores 0 and the second 1."""
    ranks = np.array([1, 2, 3, 11, 12])
    assert precision_at(ranks, 10, parity=True).tolist() == [1, 1, 1, 1, 0]
    assert precision_at(ranks, 10).tolist() == [1, 1, 1, 0, 0]
    assert precision_at(np.array([1, 2]), 1, parity=True).tolist() == [1, 0]
    assert reciprocal_rank(ranks, parity=True).tolist() == [0, 1, 1 / 2, 1 / 10, 1 / 11]


def test_changes_partition_the_facts():
    before, after = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    assert {k: v.tolist() for k, v in known_changes(before, after).items()} == {
        "learned": [0, 1, 0, 0], "kept": [0, 0, 0, 1], "lost": [0, 0, 1, 0]}
    records = {0: {"own": ranks_of([[2, 2, 1, 1]])}, 5: {"own": ranks_of([[1, 2, 2, 1]])},
               9: {"own": ranks_of([[1, 1, 2, 2]])}}
    table = summary.table(records, facts_of(["a"] * 4), "common")
    where = {"corpus": "TREx", "layer": 0}
    for step in (5, 9):
        told = {s: value(table, step=step, statistic=s, **where) for s in ("learned", "kept", "lost", "p_at_1")}
        assert told["learned"] + told["kept"] == told["p_at_1"]
    assert value(table, step=5, statistic="lost", **where) == 0.25
    assert value(table, step=9, statistic="lost", **where) == 0.25
    assert value(table, step=9, statistic="learned_since_first", **where) == 0.5
    assert value(table, step=9, statistic="lost_since_first", **where) == 0.5
    assert not len(table.select(step=0, statistic="learned"))


def test_any_layer_leaves_the_embeddings_out():
    layers = [[1, 2, 2, 2], [2, 1, 2, 2], [2, 2, 1, 2]]  # layer 0 knows the first fact
    table = summary.table({0: {"own": ranks_of(layers)}}, facts_of(["a"] * 4), "common")
    assert value(table, corpus="TREx", layer=-1, statistic="p_at_1") == 0.5
    assert value(table, corpus="TREx", layer=-1, statistic="intermediate") == 0.5
    assert intermediate_contribution(np.array([[True, False], [False, False]])) == 1
    assert np.isnan(intermediate_contribution(np.zeros((2, 3), bool)))


def test_groups_part_corpora_types_and_held_out_facts():
    found = groups(["TREx", "TREx", "Squad", "TREx"], ["P1", "P2", "Squad", "P1"], ["1-1", "N-1", "", "1-1"],
                   np.array([False, False, False, True]))
    assert [(g.corpus, g.relation, g.held_out, g.facts) for g in found] == [
        ("TREx", "", False, 2), ("TREx", "type:1-1", False, 1), ("TREx", "type:N-1", False, 1),
        ("TREx", "P1", False, 1),
        ("TREx", "P2", False, 1), ("TREx", "", True, 1), ("TREx", "type:1-1", True, 1), ("TREx", "P1", True, 1),
        ("Squad", "", False, 1)]


def test_intervals():
    random = np.random.default_rng(0)
    values = np.stack([random.random(60) < 0.3, random.random(60)], axis=1).astype(float)
    relations = ["a"] * 40 + ["b"] * 20
    wanted = groups(["TREx"] * 60, relations, [""] * 60, np.zeros(60, bool))
    whole, a, _ = estimates(wanted, lambda part: iter([values[part]]), np.array([True, False]))
    error = values[:40, 1].std(ddof=1) / np.sqrt(40)
    half = stats.t.ppf(0.975, 39) * error
    assert (a.low[1], a.high[1]) == pytest.approx((values[:40, 1].mean() - half, values[:40, 1].mean() + half))
    assert (a.low[0], a.high[0]) == pytest.approx(tuple(stats.binomtest(int(values[:40, 0].sum()), 40).proportion_ci(
        method="wilson")))
    left_out = [np.mean([np.delete(values[:40, 1], i).mean() if i < 40 else values[:40, 1].mean(),
                         np.delete(values[40:, 1], i - 40).mean() if i >= 40 else values[40:, 1].mean()])
                for i in range(60)]
    parts = [np.array(left_out[:40]), np.array(left_out[40:])]  # delete-one jackknife of a stratified mean
    variance = sum((len(p) - 1) / len(p) * ((p - p.mean()) ** 2).sum() for p in parts)
    assert whole.high[1] - whole.value[1] == pytest.approx(stats.t.ppf(0.975, 58) * np.sqrt(variance))
    assert 0 <= whole.low[0] <= whole.value[0] <= whole.high[0] <= 1


def test_intervals_cover():
    """Of a macro mean over relations with different rates: about 95 of 100 samples."""
    random, covered = np.random.default_rng(5), 0
    relations = ["a"] * 80 + ["b"] * 30
    wanted = groups(["TREx"] * 110, relations, [""] * 110, np.zeros(110, bool))[:1]
    for _ in range(300):
        values = np.concatenate([random.random(80) < 0.6, random.random(30) < 0.2]).astype(float)[:, None]
        (found,) = estimates(wanted, lambda part, values=values: iter([values[part]]), np.array([True]))
        covered += found.low[0] <= 0.4 <= found.high[0]
    assert 0.91 <= covered / 300 <= 0.985


@pytest.mark.parametrize("known", [0.0, 1.0])
def test_a_mean_over_relations_of_nothing_or_all_has_a_width(known):
    wanted = groups(["TREx"] * 110, ["a"] * 80 + ["b"] * 30, [""] * 110, np.zeros(110, bool))[:1]
    (found,) = estimates(wanted, lambda part: iter([np.full((len(part), 1), known)]), np.array([True]))
    assert found.value[0] == known and 0.03 < found.high[0] - found.low[0] < 0.1


def test_a_single_fact_has_a_wide_interval_or_none():
    table = summary.table({0: {"own": ranks_of([[1]])}}, facts_of(["a"]), "common")
    row = table.select(relation="a", statistic="p_at_1", vocabulary="common").frame.iloc[0]
    assert row["value"] == 1 and row["low"] < 0.3 and row["n"] == 1
    row = table.select(relation="a", statistic="mrr", vocabulary="common").frame.iloc[0]
    assert row["low"] < 0.1 and row["high"] == 1
    row = table.select(relation="a", statistic="mean_log_prob_nats", vocabulary="full").frame.iloc[0]
    assert np.isnan(row["low"]) and np.isnan(row["high"])


@pytest.fixture
def world():
    """Known facts at the first place at the end, held-out ones never; two steps, three layers."""
    held_out = [False] * 6 + [True] * 6
    first, last = np.full((3, 12), 9), np.full((3, 12), 4)
    last[2, :6] = 1
    last[2, 6] = 1
    records = {0: {"own": ranks_of(first, candidates=first)},
               100: {"own": ranks_of(last, candidates=last), "trained": ranks_of(last, candidates=last)}}
    return records, facts_of(["a", "b"] * 6, ["world"] * 12, held_out=held_out, candidates=[4, 8] * 6)


def test_held_out_facts_stand_apart_beside_chance(world):
    records, facts = world
    table = summary.table(records, facts, "common")
    told = summary.metrics(table, facts, [0, 100], 3, "common")
    assert told["world/p_at_1"] == 1 and told["world/learned_since_first"] == 1
    assert told["world/held_out_chance"] == pytest.approx((1 / 4 + 1 / 8) / 2)
    assert told["world/held_out_p_at_1_candidates"] == pytest.approx(1 / 6)
    assert told["world/trained_best_layer"] == 2
    assert told["world/held_out_p_at_1"] == pytest.approx(1 / 6) and told["world/held_out_p_at_10"] == 1
    assert np.isnan(summary.chance(facts_of(["a"]), "TREx", True))


def test_held_out_facts_without_candidates_are_ranked_among_all_words(world):
    records, facts = world
    records = {step: {name: ranks_of(ranks.rank) for name, ranks in record.items()} for step, record in records.items()}
    facts = facts_of(facts.relations, facts.corpora, held_out=list(facts.held_out))
    table = summary.table(records, facts, "common")
    told = summary.metrics(table, facts, [0, 100], 3, "common")
    assert told["world/held_out_p_at_1"] == pytest.approx(1 / 6) and "world/held_out_chance" not in told
    assert summary.curves(table, facts, [0, 100], 3, "common")["world/held_out"] == pytest.approx([0, 1 / 6])
    control = View(table, [0, 100], 3, "common", "world").control("own", facts)
    assert control["known"][:, 0].tolist() == [0, 1] and control["held_out"][:, 0].tolist() == pytest.approx([0, 1 / 6])
    assert np.isnan(control["chance"])
    assert View(table, [0, 100], 3, "common", "world").control("own", facts_of(["a"], ["world"])) is None


def test_curves_and_views(world):
    records, facts = world
    table = summary.table(records, facts, "common")
    curves = summary.curves(table, facts, [0, 100], 3, "common")
    assert curves["step"] == [0, 100] and curves["world/own_layer2"] == [0.0, 1.0] and len(curves) <= summary.CURVES + 1
    assert curves["world/trained_layer2"] == ["", 1.0]
    view = View(table, [0, 100], 3, "common", "world")
    assert list(view.relations("own", facts)) == ["a (3)", "b (3)"]
    assert view.relations("own", facts)["a (3)"].tolist() == [[0, 0], [0, 0], [0, 1]]
    assert view.changes("own")["learned"].tolist() == [1, 1]
    assert set(view.readouts(["own", "trained", "tuned"])["p_at_1"]) == {"own", "trained"}
    assert view.control("own", facts)["held_out"][:, 0].tolist() == pytest.approx([0, 1 / 6])
    assert view.by_layer("own")["p_at_10"][-1][:, 0].tolist() == [1, 1]


def test_a_full_vocabulary_is_not_told_twice():
    table = summary.table({0: {"own": ranks_of([[1, 3]], full=[[1, 3]])}}, facts_of(["a", "a"]), "full")
    assert len(table.select(relation="a", layer=0, statistic="p_at_1")) == 1
