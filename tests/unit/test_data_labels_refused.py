"""Labels that are no classes: refused with the row and the fix, never made into classes silently."""

from pathlib import Path

import pytest
from tests.row_files import build, csv_text, jsonl_text, parquet_bytes, refused, write

from finetrace.config.base import parse
from finetrace.config.data import TaskSettings
from finetrace.data.build import build_task
from finetrace.errors import FinetraceError

E_ACUTE, E_WITH_ACUTE = "\u00e9", "e\u0301"


def rows(values: list[object]) -> str:
    return jsonl_text([{"text": f"text {i}", "label": value} for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "place", "told"),
    [
        (["a", "b", ["a", "b"]], 3, "the label ['a', 'b'] is a list; give each row one label"),
        (["a", {"x": 1}], 2, "the label {'x': 1} is an object; give each row one label"),
        ([0, 1, -1], 3, 'label -1 often says that a row has none; leave such rows out with label_values: {"-1": null}'),
        (["-1.0", "1"], 1, "label -1 often says"),
        ([True, False], 1, 'label True is a truth value, not a class; name the two, e.g. label_values: {"False": no, '),
        ([0.13, 0.98, 0.5], 1, "label 0.13 is a score, not a class; make classes of ranges, e.g. label_ranges"),
        ([1, 2, 3.8], 3, "label 3.8 is a score"),
        (["1e400", "1"], 1, "label 1e400 is a score"),
        (["pos", "neg", 1], 3, "the label is a number, but 'pos' at"),
        ([0, E_ACUTE], 1, "the label is a number"),
        ([E_ACUTE, E_WITH_ACUTE], 2, "looks like '\u00e9' (U+00E9)"),
        (["good\ud83d", "bad"], 1, "the label has half a character (U+D83D)"),
    ],
)
@pytest.mark.parametrize("split", ["train", "dev"])
def test_what_is_no_class(tmp_path: Path, values: list[object], place: int, told: str, split: str):
    text = "".join(row.replace("\ud83d", "\\ud83d") for row in rows(values))
    files = {"train_jsonl": rows(["x", "y"]), "dev_jsonl": rows(["x", "y"])} | {f"{split}_jsonl": text}
    write(tmp_path, **files)
    message = refused(tmp_path)
    if split == "train":
        assert f"train.jsonl line {place}: " in message and told in message and "\n" not in message
    else:
        assert "dev.jsonl line 1: unknown label" in message or f"dev.jsonl line {place}: " in message


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize("settings", [{}, {"label_names": ["0", "1"]},
                                      {"label_ranges": {"a": [None, 0.5], "b": [0.5, None]}}])
def test_infinite_labels(tmp_path: Path, value: str, settings: dict[str, object]):
    write(tmp_path, train_jsonl=rows([0, 1]) + f'{{"text": "x", "label": {value}}}\n')
    message = refused(tmp_path, **settings)
    assert "train.jsonl line 3: the label is infinite, or too large a number; mend or remove the row" in message


def test_scores_of_csv_and_parquet(tmp_path: Path):
    write(tmp_path, train_csv="text,label\na,0.0\nb,4.75\n")
    assert "train.csv line 3: label 4.75 is a score" in refused(tmp_path)
    (tmp_path / "rows" / "train.csv").unlink()
    write(tmp_path, train_parquet=parquet_bytes([{"text": "a", "label": 2.0}, {"text": "b", "label": 4.75}]))
    assert "train.parquet row 1: label 4.75 is a score" in refused(tmp_path)
    facts = build(tmp_path, label_ranges={"low": [None, 3], "high": [3, None]}, holdout=0.5)[0]
    assert facts["label_names"] == ["low", "high"]


def test_numbers_where_train_has_names(tmp_path: Path):
    write(tmp_path, train_csv="text,label\na,good\nb,bad\n", validation_csv="text,label\na,0\nb,1\n")
    message = refused(tmp_path)
    assert (
        "validation.csv line 2: unknown label '0'; known: bad, good; mend the row, or say with label_names" in message
    )
    tables = build(tmp_path, label_names=["good", "bad"])[1]
    assert tables["train"]["label"].to_pylist() == tables["validation"]["label"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "settings", "names", "numbers"),
    [
        ([True, False], {"label_values": {"False": "no", "True": "yes"}}, ["no", "yes"], [1, 0]),
        ([0, 1, -1], {"label_values": {"-1": None}}, ["0", "1"], [0, 1]),
        ([-1, 1], {"label_values": {"-1": "bad", "1": "good"}}, ["bad", "good"], [0, 1]),
        ([0.5, 1.5], {"label_names": ["0.5", "1.5"]}, ["0.5", "1.5"], [0, 1]),
        (["pos", "neg", 1], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0, 1]),
        (
            [E_ACUTE, E_WITH_ACUTE, "x"],
            {"label_values": {E_WITH_ACUTE: E_ACUTE, "x": "x", E_ACUTE: E_ACUTE}},
            [E_ACUTE, "x"],
            [0, 0, 1],
        ),
    ],
)
def test_told_what_it_is_a_label_may_be_anything(tmp_path: Path, values, settings, names, numbers):
    write(tmp_path, train_jsonl=rows(values), validation_jsonl=rows(values))
    facts, tables = build(tmp_path, **settings)
    assert facts["label_names"] == names and tables["train"]["label"].to_pylist() == numbers


def test_a_name_that_only_looks_like_a_known_one(tmp_path: Path):
    write(tmp_path, train_csv=csv_text([{"text": "a", "label": E_ACUTE}, {"text": "b", "label": "x"}]),
          validation_csv=csv_text([{"text": "a", "label": E_WITH_ACUTE}]))
    message = refused(tmp_path)
    assert "it looks like '\u00e9' (U+00E9), not 'e\u0301' (U+0065 U+0301)" in message


def test_ids_are_texts_or_numbers(tmp_path: Path):
    write(tmp_path, train_jsonl=jsonl_text([{"text": "a", "label": 0, "id": [1]}, {"text": "b", "label": 1, "id": 2}]))
    assert "train.jsonl line 1: the id [1] is a list" in refused(tmp_path, id_column="id")


# --- words


def words(root: Path, settings: dict[str, object] | None = None, **splits: list[object]) -> str:
    folder = root / "rows"
    folder.mkdir(exist_ok=True)
    for split, labels in splits.items():
        lines = [{"text": f"word {i}", "spans": [[0, 1]], "label": label} for i, label in enumerate(labels)]
        (folder / f"{split}.jsonl").write_text(jsonl_text(lines))
    task = parse(TaskSettings, {"source": "files", "path": "rows", "format": "spans", "kind": "span",
                                **(settings or {})}, "x")
    try:
        return str(build_task("own", task, root / "out", root=root, seed=0)["label_names"])
    except FinetraceError as error:
        assert not list(root.glob("out/*"))
        return str(error)


def test_labels_of_words(tmp_path: Path):
    assert "dev.jsonl line 1: label 0 is a number, but train names its classes (NOUN, VERB)" in words(
        tmp_path, train=["NOUN", "VERB"], dev=[0, 1])
    assert "label -1 often says" in words(tmp_path, train=[-1, 1], dev=[1, 1])
    assert "label 0.5 is a score" in words(tmp_path, train=["0.5", "0.7"], dev=["0.5"])
    assert words(tmp_path, train=["0", "1"], dev=[0, 1]) == "['0', '1']"
    assert words(tmp_path, {"label_names": ["NOUN", "VERB"]}, train=["NOUN", "VERB"], dev=[0, 1]) == "['NOUN', 'VERB']"
    assert words(tmp_path, {"label_values": {"-1": None}}, train=[-1, 1, 2], dev=[1, 2]) == "['1', '2']"
