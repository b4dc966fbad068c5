"""Layer statistics against published numbers, micro scores against scikit-learn, control tasks, description length,
recipes."""

from dataclasses import replace

import numpy as np
import pytest
from tests.edge_data import edge_data

from finetrace.lenses.edges import metrics
from finetrace.lenses.edges.control import ceiling, control_gold
from finetrace.lenses.edges.data import make_batch, take_sentences
from finetrace.lenses.edges.mdl import mdl_recipe, online_code
from finetrace.lenses.edges.network import Probe
from finetrace.lenses.edges.recipe import RECIPES, Recipe, recipe_of
from finetrace.lenses.edges.statistics import (
    center_of_gravity,
    deltas,
    entropy_bits,
    expected_layer,
    headroom,
    kl_from_uniform_bits,
    kl_of_deltas_bits,
)
from finetrace.lenses.edges.summary import COLUMNS, SplitHits, TaskResult, curves, headlines, task_rows
from finetrace.lenses.intervals import share_interval
from finetrace.longtable import LongTable

# mixing weights of layers 0 to 12, as published (rounded to three digits), with the published centres of gravity
WEIGHTS = {
    6.343: ".069 .069 .068 .068 .069 .071 .077 .082 .085 .086 .086 .086 .084",
    3.727: ".190 .163 .132 .108 .079 .058 .049 .040 .039 .037 .036 .034 .035",
    7.132: ".055 .058 .058 .056 .053 .051 .052 .062 .097 .114 .121 .120 .104"}
# scores of BERT-base, mixes of layers 0 to k, with the expected layers that follow
SCORES = {
    1.76: "88.4 93.5 95.0 95.4 96.0 96.4 96.4 96.4 96.6 96.5 96.6 96.4 96.5",
    3.62: "80.0 82.5 84.3 85.2 86.9 87.6 88.3 88.9 90.3 90.4 90.6 90.3 90.2",
    4.16: "58.9 66.0 68.6 70.9 74.0 74.7 77.3 78.2 80.2 81.2 81.6 83.3 82.9"}


def numbers(text: str) -> np.ndarray:
    return np.array([float(one) for one in text.split()])


def test_even_weights_and_a_single_layer():
    even, one = np.full(13, 1 / 13), np.eye(13)
    assert center_of_gravity(even) == pytest.approx(6.0) and kl_from_uniform_bits(even) == pytest.approx(0, abs=1e-12)
    assert entropy_bits(even) == pytest.approx(np.log2(13))
    assert center_of_gravity(one) == pytest.approx(np.arange(13))
    assert kl_from_uniform_bits(one) == pytest.approx(np.full(13, 3.7004), abs=1e-4) and (entropy_bits(one) == 0).all()
    with pytest.raises(ValueError, match="must sum to 1"):
        center_of_gravity([0.5, 0.6])


@pytest.mark.parametrize(("published", "weights"), WEIGHTS.items())
def test_centres_of_gravity_are_the_published_ones(published, weights):
    assert center_of_gravity(numbers(weights)) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(("published", "scores"), SCORES.items())
def test_expected_layers_are_the_published_ones_whatever_is_added(published, scores):
    scores = numbers(scores) / 100
    assert expected_layer(scores) == pytest.approx(published, abs=0.06)
    assert expected_layer(scores + 0.05) == pytest.approx(expected_layer(scores), abs=1e-9)
    assert deltas(scores).sum() == pytest.approx(scores[-1] - scores[0])


def test_expected_layer_of_simple_courses_and_its_guard():
    assert expected_layer([[0.5, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.9]]) == pytest.approx([1, 3])
    assert expected_layer([[0.5, 0.7, 0.9], [0.5, 0.5, 0.51]])[0] == pytest.approx(1.5)
    assert np.isnan(expected_layer([0.5, 0.6, 0.51]))  # a sum of differences that is noise
    assert np.isnan(expected_layer([0.9, 0.8, 0.7]))
    assert expected_layer([0.5, 0.6, 0.51], min_gain=0.005) == pytest.approx((1 * 0.1 - 2 * 0.09) / 0.01)
    assert expected_layer([0.5, 0.6, 0.51], running_max=True) == 1
    assert headroom([0.5, 0.8, 0.7]) == pytest.approx(0.3)
    assert kl_of_deltas_bits([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(0, abs=1e-12)
    assert kl_of_deltas_bits([0.1, 0.5, 0.5, 0.4,
                              0.4]) == pytest.approx(2) and np.isnan(kl_of_deltas_bits([0.5, 0.5, 0.5]))


@pytest.mark.parametrize("sets", [True, False])
def test_micro_scores_are_those_of_scikit_learn(sets):
    from sklearn.metrics import precision_recall_fscore_support

    random = np.random.default_rng(1)
    gold = random.random((200, 5)) < 0.3 if sets else np.eye(5, dtype=bool)[random.integers(0, 5, 200)]
    said = random.random((200, 5)) < 0.4 if sets else np.eye(5, dtype=bool)[random.integers(0, 5, 200)]
    hits = np.stack([(gold & said).sum(1), (said & ~gold).sum(1), (gold & ~said).sum(1)], axis=1)
    found = metrics.micro(hits.sum(0))
    precision, recall, f1, _ = precision_recall_fscore_support(gold, said, average="micro")
    assert [float(found[k]) for k in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
    if not sets:
        assert found["f1"] == pytest.approx((gold & said).any(1).mean())
    assert {k: float(v) for k, v in metrics.micro(np.zeros(3)).items()} == {"f1": 0, "precision": 0, "recall": 0}


def test_intervals_resample_sentences_and_agree_with_a_bootstrap():
    random = np.random.default_rng(2)
    sentences = np.repeat(np.arange(150), random.integers(1, 6, 150)) * 3 + 1
    quality = np.random.default_rng(3).beta(4, 2, 500)[sentences // 3]  # targets of a sentence are alike
    right = random.random(len(sentences)) < quality
    hits = np.stack([right, ~right, ~right], axis=1).astype(np.uint8)[None].repeat(2, axis=0)
    counts = metrics.sentence_counts(hits, sentences)
    assert counts.shape == (150, 2, 3) and counts.sum(0)[0].tolist() == hits[0].sum(0).tolist()
    value, low, high = (one[0] for one in metrics.micro_intervals(counts)["f1"])
    assert value == pytest.approx(right.mean())
    draws = random.multinomial(150, np.full(150, 1 / 150), 4000) @ counts[:, 0]
    wanted = np.quantile(metrics.micro(draws)["f1"], [0.025, 0.975])
    assert [low, high] == pytest.approx(wanted, abs=0.012)
    assert [float(v) for v in share_interval(right, sentences)] == pytest.approx([low, high])
    everything = metrics.micro_intervals(metrics.sentence_counts(np.tile([1, 0, 0], (1, 180, 1)), np.arange(180) // 3))
    assert [float(v[0]) for v in everything["f1"]] == pytest.approx([1, 0.978, 1], abs=2e-3)  # all right of 180
    difference = metrics.f1_difference(counts, counts)
    value, low, high = (float(v[0]) for v in difference)
    assert value == 0 and 0 > low == pytest.approx(-high) and high < 0.01  # paired: what is equal hardly differs


@pytest.mark.parametrize(("sentences", "first", "second"), [
    (8, 0.99, 0.95), (20, 0.99, 0.95), (20, 0.8, 0.9), (56, 0.97, 0.97), (56, 0.5, 0.5), (277, 0.9, 0.6)])
def test_the_interval_of_a_difference_of_f1_holds_it(sentences, first, second):
    """Of 1,000 samples at least 90 %, and 98 % at most where F1 is not at its end."""
    random = np.random.default_rng(sentences)
    drawn = random.random((2, sentences, 1000))
    drawn[1] = np.where(random.random((sentences, 1000)) < 0.5, drawn[0], drawn[1])  # half of them go together
    right = drawn < np.array([first, second])[:, None, None]
    counts = np.stack([right, ~right, ~right], axis=-1).astype(np.float64)
    _, low, high = metrics.f1_difference(*counts)
    held = np.mean((low <= first - second) & (first - second <= high))
    assert held >= 0.9 and (held <= 0.98 or max(first, second) > 0.95)


def test_equal_extremes_in_few_sentences_are_no_certainty():
    counts = np.tile([1.0, 0.0, 0.0], (4, 1))
    value, low, high = metrics.f1_difference(counts, counts)
    assert value == 0 and -1 <= low < -0.3 and 0.3 < high <= 1


def test_the_clean_convention_is_told_by_the_names():
    mask, text = metrics.clean_classes(["ARG0", "ARGA", "ARGM-TMP", "C-ARG0", "R-ARGM-LOC", "V"])
    assert mask.tolist() == [True, True, True, False, False, False] and text == "roles without C- and R-"
    mask, text = metrics.clean_classes(["Cause-Effect(e1,e2)", "Other"])
    assert mask.tolist() == [True, False] and text == "all but Other"
    mask, text = metrics.clean_classes(["0", "1"])
    assert mask.tolist() == [False, True] and text == "class 1 only"
    assert metrics.clean_classes(["nsubj", "other", "R-"]) is None


def test_majority_of_classes_and_of_sets():
    train = np.eye(3, dtype=bool)[[0, 1, 1, 2]]
    decided = metrics.majority_decision(train, sets=False)
    assert decided.tolist() == [False, True, False]
    assert metrics.micro(metrics.hits_of_decision(decided, train).sum(0))["f1"] == pytest.approx(0.5)
    sets = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=bool)
    assert metrics.majority_decision(sets, sets=True).tolist() == [True, True, False]
    assert metrics.hits_of_decision(np.array([True, True, False]), sets).tolist() == [[2, 0, 0], [1, 1, 0], [1, 1, 0]]


def test_control_labels_depend_on_the_type_alone_and_keep_the_shares():
    words = [f"w{k}" for k in np.random.default_rng(0).integers(0, 400, 3000)]
    train = np.eye(3, dtype=bool)[np.random.default_rng(1).choice(3, 3000, p=[0.6, 0.3, 0.1])]
    types = {"train": words, "test": ["w1", "w1", "new", "w2"]}
    found = control_gold(types, train, seed=5)
    assert (found["train"].sum(1) == 1).all() and np.abs(found["train"].mean(0) - [0.6, 0.3, 0.1]).max() < 0.1
    by_type = {}
    for split, names in types.items():
        for name, row in zip(names, found[split].tolist(), strict=True):
            assert by_type.setdefault(name, row) == row
    again = control_gold({"test": ["w2"]}, train, seed=5)
    assert again["test"][0].tolist() == by_type["w2"] and len({tuple(row) for row in by_type.values()}) == 3
    assert not np.array_equal(control_gold(types, train, seed=6)["train"], found["train"])
    attached = control_gold(types, train, seed=5, labels="attachment")
    assert attached["train"].shape == (3000, 3) and np.abs(attached["train"].mean(0) - 1 / 3).max() < 0.08
    assert ceiling(words, ["w1", "w1", "new", "w2"]) == 0.75


def test_taking_sentences_changes_no_batch():
    data, chosen = edge_data(), np.array([7, 2, 5])
    part = take_sentences(data, chosen)
    import torch

    like = torch.empty(0, dtype=torch.float64)
    one, two = (make_batch(d, s, np.arange(3), None, False, like) for d, s in ((data, chosen), (part, np.arange(3))))
    assert torch.equal(one.states, two.states) and torch.equal(one.gold, two.gold)
    for a, b in zip(one.sides, two.sides, strict=True):
        expand = [[s.pieces[s.span_of == t] for t in (range(s.spans) if s.targets is None else s.targets)]
                  for s in (a, b)]
        assert all(torch.equal(x, y) for x, y in zip(*expand, strict=True))


def test_description_length_of_states_that_say_nothing_and_of_those_that_say_all():
    recipe = Recipe(head="linear", max_steps=60, validate_every=10, batch_sentences=16, learning_rate=2e-2)
    told = {"sides": 1, "classes": 4, "single": True, "dim": 16, "signal": 0.0}
    train, dev = edge_data(sentences=160, **told), edge_data(sentences=60, seed=1, **told)
    clear = [replace(d, states=np.stack([d.states[0], *_shown(d)])) for d in (train, dev)]
    found = online_code(*clear, [Probe("layer", 0), Probe("layer", 1)], recipe, seed=1, fractions=[0.05, 0.25, 1.0])
    targets = len(train.gold)
    assert found.uniform_bits == 2 * targets and found.ends[-1] == targets
    assert found.block_bits[:, 0].tolist() == [2 * found.ends[0]] * 2
    assert found.bits == pytest.approx(found.block_bits.sum(1)) and (found.data_bits < found.bits).all()
    assert found.compression == pytest.approx(found.uniform_bits / found.bits)
    assert (
        0.7 < found.compression[0] < 1.1 and found.compression[1] > 1.7
    )  # some tokens have two targets of two classes
    assert mdl_recipe(recipe).loss == "softmax"
    with pytest.raises(ValueError, match="exactly one class"):
        online_code(edge_data(sets=True), edge_data(), [Probe("layer", 0)], recipe, seed=1)
    with pytest.raises(ValueError, match="must ascend"):
        online_code(*clear, [Probe("layer", 0)], recipe, seed=1, fractions=[0.5, 0.2, 1])


def _shown(data) -> list[np.ndarray]:
    """Two layers in which the token of each target tells its class; layer 0 keeps noise without class."""
    layer = np.random.default_rng(9).normal(size=data.states.shape[1:]) * 0.1
    for (start, _), gold in zip(data.spans[:, 0], data.gold, strict=True):
        layer[data.tokens[start]] = 0
        layer[data.tokens[start], :4] = 3 * gold
    return [layer, layer]


def test_recipes_and_their_changes():
    assert set(RECIPES) == {"seed-compat", "tenney", "fast"}
    compat = RECIPES["seed-compat"]
    assert (compat.learning_rate, compat.scalar_learning_rate, compat.epochs, compat.select, compat.normalisation,
            compat.twin_spans, compat.dropout, compat.hidden) == (5e-5, 5e-5, 20, "last", "batch", True, 0.2, 0)
    assert compat.steps(6851) == 4280 and compat.steps(12522) == 7820  # as the logs of the study say
    tenney = RECIPES["tenney"]
    assert (tenney.projection, tenney.hidden, tenney.dropout, tenney.learning_rate, tenney.clip, tenney.amsgrad,
            tenney.halve_patience, tenney.stop_patience, tenney.floor) == (256, 256, 0.3, 1e-4, 5.0, True, 5, 20, 1e-6)
    assert RECIPES["fast"].scalar_learning_rate == 1e-2 and RECIPES["fast"].normalisation == "fixed"
    changed = recipe_of("fast", {"epochs": 3, "dropout": 0, "head": "linear"})
    assert (changed.epochs, changed.max_steps, changed.dropout) == (3.0, 0, 0.0) and isinstance(changed.dropout, float)
    assert recipe_of("seed-compat", {"max_steps": 7}).epochs == 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"droput": 0.1}, "unknown key 'droput'; did you mean 'dropout'"),
    ({"zzz": 1}, "unknown key 'zzz'; known: amsgrad, "),
    ({"head": "big"}, "head: 'big' is none of linear, mlp, fancy_mlp"),
    ({"hidden": 2.5}, "hidden: 2.5 is not a whole number"),
    ({"amsgrad": 1}, "amsgrad: 1 is not true or false"), ({"dropout": "x"}, "dropout: 'x' is not a number"),
    ({"dropout": 1.0}, r"dropout: 1.0 is not in \[0, 0.99\)"), ({"max_steps": 5, "epochs": 2}, "contradict"),
    ({"learning_rate": 0}, "learning_rate: 0.0 is not above 0"),
    ({"batch_sentences": 0}, "batch_sentences: 0 is less than 1")])
def test_wrong_changes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe_of("fast", changes)


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="'slow' is none of seed-compat, tenney, fast"):
        recipe_of("slow")


def result(**changes) -> TaskResult:
    random = np.random.default_rng(0)
    readouts = [("layer", 0), ("layer", 1), ("mix", 0), ("mix", 1), ("full", 1)]
    right = random.random((5, 40)) < np.array([0.3, 0.9, 0.3, 0.9, 0.9])[:, None]
    hits = np.stack([right, ~right, ~right], axis=2).astype(np.uint8)
    hits[4], right[4] = hits[3], right[3]
    one = SplitHits(hits, np.repeat(np.arange(10), 4), None, right, [10, 30, 30])
    return replace(TaskResult(readouts, {"validation": one, "test": one}, np.array([0.25, 0.75]), 1.5), **changes)


def test_rows_of_the_table():
    control = {"validation": np.broadcast_to([1, 0, 0], (2, 40, 3)), "test": np.broadcast_to([0, 1, 1], (2, 40, 3))}
    found = result(control=control,
                   ceiling={"validation": 0.5, "test": 0.5}, mdl={0: (1.5, 1.2), 1: (0.5, 4.0)}, targets=99)
    rows = task_rows("pos", 7, found)
    table = LongTable.of_rows(rows, COLUMNS)

    def value(statistic, split, readout, layer):
        return table.value(task="pos", statistic=statistic, split=split, readout=readout, layer=layer, step=7)

    assert value("f1", "test", "layer", 1) == found.splits["test"].hits[1, :, 0].mean()
    np.testing.assert_array_equal(table.course(statistic="f1", split="test", readout="full"),
                                  table.course(statistic="f1", split="test", readout="mix", layer=1))
    assert value("cog", "test", "full", 1) == pytest.approx(0.75)
    assert value("weight", "test", "full", 0) == 0.25 and value("gamma", "test", "full", 1) == 1.5
    assert value("majority", "test", "", -1) == pytest.approx(0.25)
    f1 = [value("f1", "test", "mix", k) for k in (0, 1)]
    assert value("delta", "test", "mix", 1) == pytest.approx(f1[1] - f1[0])
    assert value("expected_layer", "test", "mix", 1) == pytest.approx(1)
    assert value("selectivity", "test", "layer", 1) == value("f1", "test", "layer", 1)
    assert value("selectivity", "validation", "layer", 1) == pytest.approx(value("f1", "validation", "layer", 1) - 1)
    assert value("compression", "train", "layer", 1) == 4
    assert value("control_ceiling", "test", "", -1) == 0.5
    assert {row["n"] for row in rows if row["statistic"] == "compression"} == {99}
    for row in rows:
        assert np.isnan(row["low"]) or row["low"] <= row["value"] <= row["high"], row
    told = headlines(table, [7], {"pos": "test"})
    assert told["pos/best_layer/last"] == 1 and told["pos/f1/full/first"] == f1[1]
    assert told["pos/compression/best_layer/last"] == 4
    assert curves(table, [7], {"pos": "test"}) == {"step": [7], "f1_pos": [f1[1]], "cog_pos": [0.75],
                                                   "expected_layer_pos": [pytest.approx(1)]}
    only = result(weights=None)
    only = replace(only, readouts=only.readouts[:2], splits={"validation": replace(
        only.splits["validation"], hits=only.splits["validation"].hits[:2], right=None)})
    table = LongTable.of_rows(task_rows("pos", 7, only), COLUMNS)
    assert not {"accuracy", "cog", "expected_layer"} & set(table.distinct("statistic"))
    assert list(curves(table, [7], {"pos": "validation"})) == ["step", "f1_best_layer_pos"]
    with pytest.raises(ValueError, match="neither a test nor a validation split"):
        task_rows("pos", 7, replace(only, splits={}))
