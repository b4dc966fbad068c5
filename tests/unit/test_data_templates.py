"""Texts from templates, prepared rows, and the files of PubMed RCT."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import TaskSettings, template_columns
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError


def settings(**values) -> TaskSettings:
    return parse(TaskSettings, {"source": "files", "path": "rows", **values}, "params.yaml: tasks.own")


def build(root: Path, task: TaskSettings, rows: list[dict] | None = None, name: str = "own"):
    """(facts, split -> rows) of a task, on rows/train.jsonl if rows are given."""
    if rows is not None:
        (root / "rows").mkdir(exist_ok=True)
        (root / "rows" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = build_task(name, resolve(name, task), root / "out", root=root, seed=0)
    return facts, {p.stem: pq.read_table(p).to_pylist() for p in (root / "out").glob("*.parquet")}


def built_in(root: Path, entry: str, rows: list[dict]):
    """A built-in task of the hub on local rows; half of them become validation."""
    task = settings(like=entry, splits={"train": "train.jsonl"}, holdout=0.5)
    facts, splits = build(root, task, rows)
    return facts, [row for split in ("train", "validation") for row in splits[split]]


# --- templates


@pytest.mark.parametrize(("template", "columns"), [
    ("{a}", ("a",)), ("{a} and {b}: {a}", ("a", "b", "a")), ("{{not}} {a}", ("a",)), ("plain", ()),
    ("{two words}", ("two words",)),
])
def test_columns_of_a_template(template, columns):
    assert template_columns(template) == columns


@pytest.mark.parametrize("template", ["{}", "{ }", "{0.x}", "{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{a", "a}",
                                      "{a{b}}"])
def test_anything_but_plain_columns_is_refused(template):
    with pytest.raises(FinetraceError, match=r"tasks\.own: template: "):
        settings(template=[template], label="label")


@pytest.mark.parametrize(("values", "words"), [
    ({"template": ["no column"]}, "names no column; write columns in braces"),
    ({"template": ["{a}"], "text": ["a"]}, "takes the place of text; remove one of them"),
    ({"template": []}, "give one text, or two for a pair task"),
    ({"template": ["{a}"] * 3}, "give one text, or two for a pair task"),
    ({"template": ["{a}"], "kind": "pair"}, "kind: pair does not fit 1 text"),
    ({"template": ["{a}"], "format": "conllu", "label": "upos"}, "template: files of format conllu have no columns"),
])
def test_templates_that_contradict(values, words):
    with pytest.raises(FinetraceError) as caught:
        settings(**values)
    assert words in str(caught.value)


def test_texts_are_filled_as_they_are(tmp_path):
    rows = [{"a": "{b} \\ %s {0}", "b": "NA", "label": 0}, {"a": "null", "b": "", "label": 1}]
    facts, splits = build(tmp_path, settings(template=["<{a}> {{x}} {b}", "{b}|{a}"], label="label", holdout=0.5), rows)
    texts = {(r["text_a"], r["text_b"]) for split in splits.values() for r in split}
    assert texts == {("<{b} \\ %s {0}> {x} NA", "NA|{b} \\ %s {0}"), ("<null> {x} ", "|null")}
    assert facts["kind"] == "pair"


@pytest.mark.parametrize(("row", "words"), [
    ({"a": "x", "label": 1}, "line 2: column 'b' holds None, not a text"),
    ({"a": "x", "b": 3, "label": 1}, "line 2: column 'b' holds 3, not a text"),
])
def test_a_row_without_a_text_is_named(tmp_path, row, words):
    with pytest.raises(FinetraceError, match=words):
        build(tmp_path, settings(template=["{a} {b}"], label="label", holdout=0.5),
              [{"a": "x", "b": "y", "label": 0}, row])


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"train\.jsonl: has no column 'c' \(tasks\.own\); its columns are a, "
                                             r"label"):
        build(tmp_path, settings(template=["{a} {c}"], label="label", holdout=0.5),
              [{"a": "x", "label": i} for i in (0, 1)])


def test_lower_case(tmp_path):
    rows = [{"a": "ÀB", "b": "Ç", "label": i} for i in (0, 1)]
    _, splits = build(tmp_path, settings(text=["a", "b"], label="label", holdout=0.5, lowercase=True), rows)
    assert [(r["text_a"], r["text_b"]) for r in splits["train"]] == [("àb", "ç")]


# --- SuperGLUE, as published

WIC = {"word": "bank", "sentence1": "A river bank.", "sentence2": "A bank account.", "start1": 8, "end1": 12}
WSC = {"text": "Mark told  Pete many lies which he told.", "span1_index": 0, "span2_index": 6, "span1_text": "Mark",
       "span2_text": "he"}


@pytest.mark.parametrize(("entry", "row", "texts"), [
    ("superglue-boolq", {"question": "is it", "passage": "It is."}, ("is it", "It is.")),
    ("superglue-cb", {"premise": "p", "hypothesis": "h"}, ("p", "h")),
    ("superglue-rte", {"premise": "p", "hypothesis": "h"}, ("p", "h")),
    ("superglue-wic", WIC, ("A river bank. A bank account. Does bank have the same meaning in both sentences?", None)),
    ("superglue-wic-pair", WIC, ("bank: A river bank.", "bank: A bank account.")),
    ("superglue-wsc", WSC, ("he: Mark told  Pete many lies which he told.", "Mark")),
    ("superglue-wsc-mark", WSC, ("Mark told Pete many lies which *he* told.", "Mark")),
    ("superglue-multirc", {"paragraph": "P.", "question": "Q?", "answer": "A"}, ("P.", "Q? A")),
])
def test_published_texts(tmp_path, entry, row, texts):
    facts, rows = built_in(tmp_path, entry, [{**row, "label": i} for i in (0, 1)])
    assert [(r["text_a"], r["text_b"]) for r in rows] == [texts, texts]
    assert facts["kind"] == ("pair" if texts[1] else "sequence")


def test_a_pronoun_outside_the_text_is_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"line 2: span2_index 8 is no word of the text, which has 8; mend the "
                                             r"row"):
        built_in(tmp_path, "superglue-wsc-mark", [{**WSC, "label": 0}, {**WSC, "span2_index": 8, "label": 1}])
    with pytest.raises(FinetraceError, match=r"has no column 'span2_index', needed by prepare: wsc-mark; its columns "
                                             r"are text"):
        built_in(tmp_path, "superglue-wsc-mark", [{"text": "x", "span1_text": "x", "label": i} for i in (0, 1)])


def questions(count: int) -> list[dict]:
    return [{"passage": "Intro.\n@highlight\nOne.\n@highlight\nTwo.", "query": f"@placeholder won {i}",
             "answers": ["Ann"],
             "entities": ["Ann", "Bob", "Cy"], "idx": {"passage": 7, "query": i}} for i in range(count)]


def test_record_has_a_row_per_entity_and_no_question_in_two_splits(tmp_path):
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.Table.from_pylist(questions(10)), tmp_path / "rows" / "train.parquet")
    task = settings(like="superglue-record", splits={"train": "train.parquet"}, max_rows={"train": 4}, choose="first")
    facts, splits = build(tmp_path, task)
    assert facts["rows"] == {"train": 12,
                             "validation": 3}, "the last tenth of the questions, and 4 of the other questions"
    assert [(r["text_b"], r["label"], r["source_id"]) for r in splits["validation"]] == [
        ("Ann won 9", 1, "7-9-0"), ("Bob won 9", 0, "7-9-1"), ("Cy won 9", 0, "7-9-2")]
    assert splits["train"][0]["text_a"] == "Intro.\n- One.\n- Two."
    assert [r["example_id"] for r in splits["train"]] == list(range(12)) and "unit" not in splits["train"][0]
    assert facts["sentences"] == {"train": 4, "validation": 1}


# --- PubMed RCT

PUBMED = ("###1\nOBJECTIVE\tTo See @ People .\nMETHODS\tWe looked\tat NA .\n\n###2\r\nBACKGROUND\tnull\r\n\r\n"
          "###3\nRESULTS\tYes .\nCONCLUSIONS\tFine .")


def pubmed(root: Path, train: str = PUBMED, **values):
    (root / "rct").mkdir(exist_ok=True)
    for name, text in (("train", train), ("dev", PUBMED), ("test", PUBMED)):
        (root / "rct" / f"{name}.txt").write_text(text, newline="")
    task = parse(TaskSettings, {"like": "pubmed-rct", "path": "rct", **values}, "params.yaml")
    return build(root, task, name="pubmed")


def test_pubmed_files_with_the_last_abstract(tmp_path):
    facts, splits = pubmed(tmp_path)
    assert [r["text_a"] for r in splits["train"]] == ["to see @ people .", "we looked\tat na .", "null", "yes .",
                                                      "fine ."]
    assert [facts["label_names"][r["label"]] for r in splits["test"]] == [
        "OBJECTIVE", "METHODS", "BACKGROUND", "RESULTS", "CONCLUSIONS"]
    assert facts["label_names"] == ["BACKGROUND", "CONCLUSIONS", "METHODS", "OBJECTIVE", "RESULTS"]
    assert facts["rows"] == {"train": 5, "validation": 5, "test": 5} and facts["kind"] == "sequence"
    assert pubmed(tmp_path, PUBMED + "\n\n")[1]["train"] == splits["train"], "with or without a blank line at the end"
    assert pubmed(tmp_path, lowercase=False)[1]["train"][0]["text_a"] == "To See @ People ."


@pytest.mark.parametrize(("text", "words"), [
    (PUBMED + "\nRESULTS no tab", "train.txt line 11: 'RESULTS no tab' is not a label, a tab and a sentence"),
    ("OBJECTIVE\tfirst\n" + PUBMED, "train.txt line 1: 'OBJECTIVE\\tfirst' is not a label"),
    (PUBMED.replace("RESULTS", "RESULT"), "train.txt line 9: unknown label 'RESULT'; known: BACKGROUND, CONCLUSIONS"),
    ("", "train.txt: the split has no rows"),
])
def test_broken_pubmed_files(tmp_path, text, words):
    with pytest.raises(FinetraceError) as caught:
        pubmed(tmp_path, text)
    assert words in str(caught.value)


def test_pubmed_has_no_columns_to_choose():
    with pytest.raises(FinetraceError, match="text: files of format pubmed have no columns; remove text"):
        settings(format="pubmed", text=["text"])
