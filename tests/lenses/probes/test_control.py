"""Control tasks: consistent per word type, shares of the labels kept, nothing to learn but by heart."""

import numpy as np
import pytest

from finetrace.lenses.probes.control import control_labels, word_types
from finetrace.lenses.probes.parts import control_rows
from finetrace.lenses.probes.summary import Batch, logistic_rows

RNG = np.random.default_rng(0)
TYPES = RNG.integers(0, 300, 2000).astype(str)
Y = RNG.choice(5, 2000, p=[0.5, 0.2, 0.15, 0.1, 0.05])
TRAIN = np.arange(2000) < 1500


def test_a_word_type_has_one_label_and_training_shares_are_kept() -> None:
    found = control_labels(TYPES, Y, TRAIN, seed=3)
    for word in np.unique(TYPES):
        assert len(set(found[TYPES == word])) == 1
    largest = np.bincount(TYPES[TRAIN].astype(int)).max()
    apart = np.abs(np.bincount(found[TRAIN], minlength=5) - np.bincount(Y[TRAIN], minlength=5))
    assert apart.max() <= largest < 20
    assert abs(np.corrcoef(found, Y)[0, 1]) < 0.1  # nothing of the true labels is left


def test_every_label_of_a_type_comes_up_as_often_as_it_should() -> None:
    drawn = np.array([control_labels(TYPES, Y, TRAIN, seed)[0] for seed in range(400)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 400, np.bincount(Y[TRAIN]) / 1500, atol=0.08)


def test_labels_depend_on_seed_and_training_rows_only() -> None:
    one = control_labels(TYPES, Y, TRAIN, seed=3)
    np.testing.assert_array_equal(one, control_labels(TYPES, Y, TRAIN, seed=3))
    assert (one != control_labels(TYPES, Y, TRAIN, seed=4)).any()
    other = np.where(TRAIN, Y, 0)  # labels of the test rows are not looked at
    np.testing.assert_array_equal(one, control_labels(TYPES, other, TRAIN, seed=3))


def test_types_of_test_rows_only_get_labels_of_training() -> None:
    found = control_labels(["a"] * 6 + ["b"] * 4 + ["c", "d"], [1] * 6 + [2] * 4 + [9, 9], np.arange(12) < 10, seed=0)
    assert set(found) <= {1, 2} and len(set(found[:6])) == len(set(found[6:10])) == 1


def test_a_number_per_row_is_a_random_order_of_the_labels() -> None:
    found = control_labels(np.arange(200), Y[:200], np.ones(200, bool), seed=1)
    np.testing.assert_array_equal(np.sort(found), np.sort(Y[:200]))
    assert (found != Y[:200]).mean() > 0.3


def test_the_type_is_the_words_of_the_span_and_of_a_pair_both() -> None:
    words = [["The", "New", "York", "cat"], ["a", "b"]]
    assert word_types(words, [[1, 3], [0, 1]]) == ["New York", "a"]
    assert word_types(words, [[1, 3, 3, 4], [1, 2, 0, 1]]) == ["New York\tcat", "b\ta"]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must have one entry per row"):
        control_labels(["a"], [1, 2], [True, True], 0)
    with pytest.raises(ValueError, match="marks no row"):
        control_labels(["a", "b"], [1, 2], [False, False], 0)


def batch(words: int = 12, rows: int = 300, noise: float = 0.1) -> tuple[Batch, dict]:
    """Word vectors: one per type with noise; the label is the sign of their first dimension."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(words, 20)) + 3 * np.eye(20)[0] * np.where(np.arange(words) % 2, 1, -1)[:, None]
    features, labels, types = {}, {}, {}
    for split in ("train", "validation"):
        of = rng.integers(0, words, rows)
        features[split] = (vectors[of] + noise * rng.normal(size=(rows, 20)))[None]
        labels[split], types[split] = (vectors[of, 0] > 0).astype(int), of.astype(str).tolist()
    return Batch([(8, 2)], features, labels, "train"), types


SETTINGS = {"control_seed": 5, "probe": "logistic", "l2": [0.01], "holdout": 0.2, "seed": 0}


def test_few_distinct_words_are_learned_by_heart_and_many_are_not() -> None:
    selective = {}
    for words in (12, 250):
        one, types = batch(words)
        gold = logistic_rows(one, l2=[0.01], seed=0)
        rows = control_rows(one, types, gold, **SETTINGS)
        assert [(r["statistic"], r["split"]) for r in rows] == [
            (name, split) for split in ("train", "validation") for name in ("control_accuracy", "selectivity")]
        of = {(r["statistic"], r["split"]): r["value"] for r in rows}
        true = next(r["value"] for r in gold if r["statistic"] == "accuracy" and r["split"] == "validation")
        assert of["selectivity", "validation"] == pytest.approx(true - of["control_accuracy", "validation"])
        selective[words] = of["selectivity", "validation"]
    assert selective[12] < 0.05 and selective[250] > 0.3


def test_whole_texts_have_a_control_task_on_the_training_rows_only() -> None:
    one, _ = batch()
    rows = control_rows(one, None, logistic_rows(one, l2=[0.01], seed=0), **SETTINGS)
    assert [(r["statistic"], r["split"], r["n"]) for r in rows] == [
        ("control_accuracy", "train", 300), ("selectivity", "train", 300)]


def test_control_labels_of_one_class_give_no_rows() -> None:
    one, types = batch()
    same = {split: ["x"] * len(names) for split, names in types.items()}
    assert control_rows(one, same, [], **SETTINGS) == []
