"""The benchmark influence_truth.py: what its score is on made-up truths, and which sentences it leaves out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from finetrace.store.tables import read_table, write_table

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import influence_truth

    yield influence_truth
    for name in ("influence_truth", "_facts_left_out", "_bars"):
        sys.modules.pop(name, None)


def made_up(noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True effects (example, row), classes (row,), halves, margins of two seeds on them with noise."""
    draw = np.random.default_rng(0)
    effects, classes = draw.normal(size=(12, 40)), np.arange(40) % 2
    halves = np.zeros((60, 40), dtype=bool)
    for half in halves:
        half[draw.permutation(40)[:20]] = True
    return effects, classes, halves, halves @ effects.T + noise * draw.normal(size=(2, 60, 12))


def said(truth: ModuleType, pairs: dict[str, np.ndarray]) -> Any:
    """What a lens says that has two checkpoints, the first of which knows nothing."""
    effects = pairs[truth.METHOD]
    nothing = np.random.default_rng(3).normal(size=effects.shape)
    return truth.Said(pairs, {0: nothing, 10: effects}, np.zeros(40), np.zeros(40))


def test_a_true_influence_reaches_the_ceiling_and_a_shuffled_one_nothing(truth: ModuleType) -> None:
    effects, classes, halves, margins = made_up(3.0)
    random = np.random.default_rng(1).normal(size=effects.shape)
    scores = truth.score(said(truth, {truth.METHOD: effects, "else": random}), classes, halves, margins)
    value, low, high = scores.of[truth.METHOD]
    assert low < value < high
    assert value == pytest.approx(scores.ceiling, abs=0.08)
    assert low > scores.nulls["among all"][1] and low > scores.nulls["within classes"][1]
    assert scores.ahead["else"][1] > 0 > scores.of["else"][1]
    assert scores.at[10] == value and scores.at[0] < scores.nulls["among all"][1]


def test_what_only_knows_classes_does_not_pass_the_null_within_them(truth: ModuleType) -> None:
    _, classes, halves, _ = made_up(0.0)
    effects = np.tile(np.where(classes == 1, 1.0, -1.0), (12, 1))
    margins = (halves @ effects.T)[None] + np.random.default_rng(2).normal(size=(2, 60, 12))
    scores = truth.score(said(truth, {truth.METHOD: effects}), classes, halves, margins)
    assert scores.of[truth.METHOD][1] > scores.nulls["among all"][1]
    assert scores.of[truth.METHOD][1] < scores.nulls["within classes"][1]


def test_one_seed_has_no_ceiling(truth: ModuleType) -> None:
    effects, classes, halves, margins = made_up(1.0)
    assert np.isnan(truth.score(said(truth, {truth.METHOD: effects}), classes, halves, margins[:1]).ceiling)


def test_more_halves_and_seeds_keep_those_that_were(truth: ModuleType) -> None:
    few, many = truth.plan(3, 30, 100, 1, 1), truth.plan(5, 30, 100, 2, 2)
    assert few.whole == many.whole and few.noisy == many.noisy[:1]
    np.testing.assert_array_equal(few.inside, many.inside[:3])
    assert set(few.parts) < set(many.parts)
    assert all(len(part.rows) == 15 and set(part.rows) <= set(few.whole.rows) for part in many.parts)
    assert len(few.noisy[0].wrong) == 2 and set(few.noisy[0].wrong) <= set(few.whole.rows)


def test_caught_counts_wrong_ones_at_the_top(truth: ModuleType) -> None:
    wrong = np.array([True, False, True, False])
    assert truth.caught(np.array([3.0, 1.0, 2.0, 0.0]), wrong) == 2
    assert truth.caught(np.array([3.0, 4.0, 2.0, 0.0]), wrong) == 1


def world(folder: Path) -> list[dict]:
    """A folder with a corpus of five sentences about two facts, and these."""
    sentences = ["ana was born in rome", "ana speaks latin", "bo was born in rome", "ana saw bo",
                 "ana , who was born in rome , speaks latin"]
    write_table(folder / "corpus.parquet", {"text": sentences, "words": [text.split() for text in sentences]})
    (folder / "tokenizer").mkdir()
    return [{"fact_id": f"{relation}:{subject}", "relation": relation, "subject": subject, "object": thing,
             "held_out": False} for relation, subject, thing in (
                 ("born_in", "ana", "rome"), ("speaks", "ana", "latin"), ("born_in", "bo", "rome"),
                 ("located_in", "rome", "italy"))]


def test_no_sentence_names_subject_and_object_of_a_fact_that_is_left_out(truth: ModuleType, tmp_path: Path) -> None:
    import _facts_left_out as facts_left_out

    facts = world(tmp_path)
    assert facts_left_out.without(tmp_path, facts, ["born_in:ana"], tmp_path / "less") == 2
    left = read_table(tmp_path / "less" / "corpus.parquet")["text"].to_pylist()
    assert left == ["ana speaks latin", "bo was born in rome", "ana saw bo"]


def test_each_training_leaves_out_other_facts(truth: ModuleType, tmp_path: Path) -> None:
    import _facts_left_out as facts_left_out

    facts = world(tmp_path)
    parts = facts_left_out.parts(facts, 3)
    assert sorted(name for part in parts for name in part) == ["born_in:ana", "born_in:bo", "speaks:ana"]
    with pytest.raises(SystemExit, match="states 3 facts"):
        facts_left_out.parts(facts, 4)


def test_known_facts_pass_and_leaks_do_not(truth: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    import _facts_left_out as facts_left_out

    names = [f"born_in:{number}" for number in range(20)]
    halves = names[:10], names[10:]

    def answers(rank_left_out: int) -> list:
        return [facts_left_out.Answers({name: (rank_left_out if name in missing else 1, 3, 10) for name in names},
                                       list(missing)) for missing in halves]

    assert facts_left_out.report(answers(5)) == 0
    assert "left out: 20 answers, first among all words 0.00" in capsys.readouterr().out
    assert facts_left_out.report(answers(1)) == 1
