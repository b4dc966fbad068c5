"""Labels that drop rows, splits as published, and the built-in tasks of sentiment."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import TaskSettings
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.data.splits import last_rows
from finetrace.errors import FinetraceError


def settings(**values) -> TaskSettings:
    base = {"source": "files", "path": "rows", "text": ["text"], "label": "label"} if "like" not in values else {}
    return parse(TaskSettings, {**base, **values}, "params.yaml: tasks.own")


def write(root: Path, split: str, labels: list, texts: list[str] | None = None) -> None:
    (root / "rows").mkdir(exist_ok=True)
    rows = [{"text": texts[i] if texts else f"row {i}", "label": label} for i, label in enumerate(labels)]
    (root / "rows" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def build(root: Path, **values):
    """(facts, split -> rows) of the task in rows/."""
    facts = build_task("own", resolve("own", settings(**values)), root / "out", root=root, seed=0)
    return facts, {p.stem: pq.read_table(p).to_pylist() for p in (root / "out").glob("*.parquet")}


def labelled(root: Path, labels: list, **values):
    """(class names, labels, example ids, rows left out) of the training split."""
    for split in ("train", "validation"):
        write(root, split, labels)
    facts, splits = build(root, **values)
    assert facts.get("left_out", {}).get("train") == facts.get("left_out", {}).get("validation")
    return (facts["label_names"], [r["label"] for r in splits["train"]], [r["example_id"] for r in splits["train"]],
            facts.get("left_out", {}).get("train"))


# --- labels that drop rows


@pytest.mark.parametrize(("labels", "values", "names", "numbers", "ids", "left_out"), [
    # names in the source; one is dropped
    (["neg", "neu", "pos"], {"label_values": {"neu": None}}, ["neg", "pos"], [0, 1], [0, 2],
     {"rows with label neu": 1}),
    # numbers in the source, with their names; the number of the last class moves up
    ([0, 1, 2, 1], {"label_names": ["neg", "neu", "pos"], "label_values": {"neu": None}}, ["neg", "pos"], [0, 1],
     [0, 2], {"rows with label neu": 2}),
    # five classes to three
    ([0, 1, 2, 3, 4], {"label_names": ["--", "-", "o", "+", "++"],
                       "label_values": {"--": "negative", "-": None, "o": "neutral", "+": None, "++": "positive"}},
     ["negative", "neutral", "positive"], [0, 1, 2], [0, 2, 4], {"rows with label -": 1, "rows with label +": 1}),
    # the same as values of the source, in an order of one's own
    ([0, 1, 2, 3, 4], {"label_names": ["negative", "positive", "neutral"],
                       "label_values": {"0": "negative", "1": None, "2": "neutral", "3": None, "4": "positive"}},
     ["negative", "positive", "neutral"], [0, 2, 1], [0, 2, 4], {"rows with label 1": 1, "rows with label 3": 1}),
    # two classes become one
    (["a", "b", "c"], {"label_names": ["a", "b", "c"], "label_values": {"c": "a"}}, ["a", "b"], [0, 1, 0], [0, 1, 2],
     None),
    # names that change places keep the order of label_names
    (["a", "b"], {"label_names": ["a", "b"], "label_values": {"a": "b", "b": "a"}}, ["a", "b"], [1, 0], [0, 1], None),
    # scores
    ([0.0, 0.199, 0.2, 0.4, 0.599, 0.6, 0.8, 1], {"label_names": ["negative", "positive", "neutral"], "label_ranges": {
        "negative": [None, 0.2], "neutral": [0.4, 0.6], "positive": [0.8, None]}},
     ["negative", "positive", "neutral"], [0, 0, 2, 2, 1, 1], [0, 1, 3, 4, 6, 7],
     {"rows with a label outside label_ranges": 2}),
    (["0.1", "2e-1"], {"label_ranges": {"low": [0, 0.15], "high": [0.15, 1]}}, ["low", "high"], [0, 1], [0, 1], None),
])
def test_labels_can_be_mapped_and_dropped(tmp_path, labels, values, names, numbers, ids, left_out):
    assert labelled(tmp_path, labels, **values) == (names, numbers, ids, left_out)


@pytest.mark.parametrize(("labels", "values", "words"), [
    ([0, 1, 3], {"label_names": ["neg", "neu", "pos"], "label_values": {"neu": None}},
     "line 3: unknown label '3'; known: neg, pos"),
    ([0, 1], {"label_values": {"0": "neg", "4": None}}, "there is one class only (neg)"),
    (["neg", "x"], {"label_names": ["neg", "pos"], "label_values": {"x": "plus"}},
     "line 2: unknown label 'x' (by label_values 'plus'); known: neg, pos"),
    (["2.5", "1"], {"label_names": ["neg", "pos", "neu"]}, "line 1: unknown label '2.5'; known: neg, pos, neu"),
    (["abc", "1"], {"label_names": ["neg", "pos", "neu"]}, "line 1: unknown label 'abc'"),
    (["high"], {"label_ranges": {"a": [0, 1], "b": [1, 2]}},
     "line 1: label 'high' is not a number, as label_ranges need"),
    ([5, 6], {"label_ranges": {"a": [0, 1], "b": [1, 2]}},
     "label_values or label_ranges leave out every row of train.jsonl"),
    ([0, 1], {"label_names": ["a", "b"], "label_ranges": {"a": [0, 1], "c": [1, 2]}},
     "label_ranges: c: no such class; there are: a, b"),
])
def test_labels_that_are_refused(tmp_path, labels, values, words):
    write(tmp_path, "train", labels)
    with pytest.raises(FinetraceError) as caught:
        build(tmp_path, holdout=0.5, **values)
    assert words in str(caught.value)


@pytest.mark.parametrize(("values", "words"), [
    ({"label_ranges": {"a": [0.5, 0.5]}}, "label_ranges.a: 0.5 is not below 0.5"),
    ({"label_ranges": {"a": [0, 1]}, "label_values": {"x": "a"}}, "label_ranges: cannot stand beside label_values"),
    ({"holdout_rows": "first"}, "holdout_rows"),
])
def test_settings_that_are_refused(values, words):
    with pytest.raises(FinetraceError, match=words):
        settings(**values)


@pytest.mark.parametrize("extension", ["tsv", "csv", "jsonl"])
def test_texts_that_look_like_missing_values_are_texts(tmp_path, extension):
    texts = ["NA", "null", "nan", "None", "", "N/A"]
    write(tmp_path, "train", [0, 1] * 3, texts)
    if extension != "jsonl":
        tab = {"tsv": "\t", "csv": ","}[extension]
        (tmp_path / "rows" / "train.jsonl").unlink()
        lines = [f"text{tab}label", *(f"{text}{tab}{i % 2}" for i, text in enumerate(texts))]
        (tmp_path / "rows" / f"train.{extension}").write_text("\n".join(lines) + "\n")
    _, splits = build(tmp_path, holdout=0.3, holdout_rows="last")
    assert [r["text_a"] for split in ("train", "validation") for r in splits[split]] == texts


# --- splits as published

SIZES = {"CB": (250, 225, 25), "RTE": (2490, 2241, 249), "BoolQ": (9427, 8484, 943), "WiC": (5428, 4885, 543),
         "WSC": (554, 498, 56),
         "CoLA": (8551, 7695, 856), "SST-2": (67349, 60614, 6735), "MRPC": (3668, 3301, 367),
         "Amazon": (30000, 27000, 3000)}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    rows, train, validation = SIZES[name]
    assert (rows - last_rows(rows, 0.1), last_rows(rows, 0.1)) == (train, validation)


def test_the_number_of_last_rows_is_exact():
    assert [last_rows(n, 0.1) for n in (1, 9, 10, 11, 30)] == [1, 1, 1, 2, 3]
    assert last_rows(100, 0.07) == 7, "100 * 0.07 is above 7 in floating point"


def test_the_last_rows_are_validation_and_the_first_stay(tmp_path):
    write(tmp_path, "train", [i % 2 for i in range(25)])
    write(tmp_path, "validation", [0, 1, 0])
    facts, splits = build(tmp_path, splits={"train": "train.jsonl", "test": "validation.jsonl"}, holdout=0.1,
                          holdout_rows="last")
    assert facts["rows"] == {"train": 22, "validation": 3, "test": 3}
    assert [r["example_id"] for r in splits["train"]] == list(range(22))
    assert [r["text_a"] for r in splits["validation"]] == ["row 22", "row 23", "row 24"]
    with pytest.raises(FinetraceError, match="leaves no training rows of 25"):
        build(tmp_path, splits={"train": "train.jsonl"}, holdout=0.99, holdout_rows="last")


@pytest.mark.parametrize("name", ["boolq", "cb", "rte", "wic", "wic-pair", "wsc", "wsc-mark", "multirc", "record"])
def test_superglue_is_split_as_published(name):
    task = resolve(f"superglue-{name}", TaskSettings())
    assert task.splits == {"train": "train", "test": "validation"}
    assert (task.holdout, task.holdout_rows, task.id) == (0.1, "last", "aps/super_glue")


def test_numbers_of_superglue_classes():
    assert resolve("superglue-cb", TaskSettings()).label_names == ("entailment", "contradiction", "neutral")
    for name in ("rte", "axb", "axg"):
        assert resolve(f"superglue-{name}", TaskSettings()).label_names == ("entailment", "not_entailment")
    for name in ("boolq", "wic", "wic-pair", "wsc", "wsc-mark", "multirc", "record"):
        assert resolve(f"superglue-{name}", TaskSettings()).label_names == ("False", "True")


def test_the_sentiment_sets_have_one_order_of_classes(tmp_path):
    names = ("negative", "positive", "neutral")
    for name in ("amazon", "dynasent", "semeval", "sst5", "sst-scores"):
        assert resolve(name, settings(like=name, path="boss")).label_names == names
    (tmp_path / "boss" / "amazon").mkdir(parents=True)
    for split, count in (("train", 21), ("test", 4)):
        rows = [f'"Text {i}, ""quoted""\nsecond line"\t{i % 3}' for i in range(count)]
        (tmp_path / "boss" / "amazon" / f"{split}.tsv").write_text("\n".join(["Text\tLabel", *rows]) + "\n")
    facts, splits = build(tmp_path, like="amazon", path="boss")
    assert facts["rows"] == {"train": 18, "validation": 3, "test": 4} and facts["label_names"] == list(names)
    assert splits["test"][1] | {"source_id": 0} == {"example_id": 1, "source_id": 0,
                                                    "text_a": 'Text 1, "quoted"\nsecond line',
                                                     "text_b": None, "label": 1}


def test_scores_of_sst(tmp_path):
    (tmp_path / "sst").mkdir()
    scores = [0.0, 0.19999, 0.2, 0.3, 0.4, 0.59999, 0.6, 0.79999, 0.8, 1.0]
    (tmp_path / "sst" / "test.csv").write_text("sentence,label\n" + "".join(f"s,{score}\n" for score in scores))
    facts, splits = build(tmp_path, like="sst-scores", path="sst")
    assert [r["example_id"] for r in splits["test"]] == [0, 1, 4, 5, 8, 9]
    assert [r["label"] for r in splits["test"]] == [0, 0, 2, 2, 1, 1]
    assert facts["left_out"] == {"test": {"rows with a label outside label_ranges": 4}}
