"""Edge probing's record format: reading, writing, several labels per target, and what is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.training_fixtures import tokenizer
from tests.word_tasks import word_task_folder

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.build import build_task
from finetrace.data.edge_records import edge_records, export_task, read_edge_records, write_edge_records
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError
from finetrace.models.rows import encode

DEP = {"text": "Dogs bark loudly .", "targets": [
    {"span1": [0, 1], "span2": [1, 2], "label": "nsubj"}, {"span1": [1, 2], "span2": [1, 2], "label": "root"},
    {"span1": [2, 3], "span2": [1, 2], "label": "advmod"}, {"span1": [3, 4], "span2": [1, 2], "label": "punct"}],
    "info": {"source": "UD_English-EWT"}}
SRL = {"text": "Ian ate ice cream", "targets": [{"span1": [1, 2], "span2": [0, 1], "label": "ARG0"},
                                                {"span1": [1, 2], "span2": [2, 4], "label": "ARG1", "info": {"n": 1}}]}
SPR = {"text": "the boy slept", "targets": [{"span1": [2, 3], "span2": [0, 2], "label": ["volition", "awareness"]},
                                            {"span1": [2, 3], "span2": [1, 2], "label": []}]}


def lines(*rows) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def read(*rows):
    return read_edge_records(lines(*rows), "f.json")


def refused(*rows) -> str:
    with pytest.raises(FinetraceError) as caught:
        read(*rows)
    return str(caught.value)


def build(root: Path, files: dict[str, str], **settings):
    """(facts, split -> table) of a task in the folder edges/."""
    (root / "edges").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / "edges" / name).write_bytes(text.encode())
    task = resolve("own", parse(FilesTaskSettings, {"path": "edges", "format": "edges", **settings},
                                "params.yaml: own"))
    facts = build_task("own", task, root / "own", root=root, seed=0)
    return facts, {p.stem: pq.read_table(p) for p in (root / "own").glob("*.parquet")}


def test_the_published_examples():
    found = read(DEP).examples
    assert [(e.words[e.spans[0][0]], e.words[e.spans[1][0]], e.label) for e in found] == [
        ("Dogs", "bark", "nsubj"), ("bark", "bark", "root"), ("loudly", "bark", "advmod"), (".", "bark", "punct")]
    assert {e.words for e in found} == {("Dogs", "bark", "loudly", ".")} and {e.sentence for e in found} == {0}
    assert [(e.spans, e.label) for e in read(SRL).examples] == [(((1, 2), (0, 1)), "ARG0"), (((1, 2), (2, 4)), "ARG1")]
    assert [(e.labels, e.label) for e in read(SPR).examples] == [(("awareness", "volition"), ""), ((), "")]


def test_one_span_and_numbers_as_labels():
    row = {"text": "a b", "targets": [{"span1": [0, 2], "label": 3}, {"span1": [1, 2], "label": "3"}]}
    assert [(e.spans, e.label) for e in read(row).examples] == [(((0, 2),), "3"), (((1, 2),), "3")]
    row = {"text": "a b", "targets": [{"span1": [0, 1], "label": [2, "x"]}]}
    assert read(row).examples[0].labels == ("2", "x")


def test_records_without_targets_are_left_out_and_counted_and_equal_neighbours_are_one_sentence():
    empty = {"text": "nothing here", "targets": []}
    found = read(empty, SRL, SRL, DEP, empty, DEP, SRL)
    assert found.left_out == {"records without targets": 2}
    assert [e.sentence for e in found.examples] == [0] * 4 + [1] * 8 + [2] * 2
    assert read(empty).examples == []


def test_white_space_line_ends_and_unusual_words():
    row = {**SRL, "text": " Ian\tate  ice\u3000cream "}
    assert read(row).examples[0].words == ("Ian", "ate", "ice", "cream")
    odd = {"text": "nai\u0308ve \u200b 👩\u200d🚀 日本", "targets": [{"span1": [1, 2], "label": "x"}]}
    assert read(odd).examples[0].words == ("nai\u0308ve", "\u200b", "👩\u200d🚀", "日本")
    text = lines(SRL, DEP)
    plain = read_edge_records("\n" + text.replace("\n", "\r\n") + "\r\n", "f").examples
    assert [(e.words, e.spans, e.label) for e in plain] == [(e.words, e.spans, e.label)
                                                            for e in read(SRL, DEP).examples]


T = {"span1": [0, 1], "label": "x"}
A = {"text": "a b c", "targets": [T]}


@pytest.mark.parametrize(("row", "words"), [
    ('{"text": "a"', "line 2: not valid JSON"),
    ("[]", "line 2: the line is not an object"),
    ({"targets": [T]}, "line 2: key 'text' is missing; its keys are targets"),
    ({"text": "a b"}, "line 2: key 'targets' is missing"),
    ({**A, "target": 1}, "line 2: unknown key 'target'; known keys: text, targets, info"),
    ({**A, "text": " "}, "line 2: key 'text' holds ' '; give a text with words"),
    ({**A, "text": ["a"]}, "line 2: key 'text' holds ['a']"),
    ({**A, "targets": {}}, "line 2: key 'targets' holds {}; give a list"),
    ({**A, "targets": [1]}, "line 2: targets[0] is not an object"),
    ({**A, "targets": [T, {"label": "x"}]}, "line 2: key 'targets[1].span1' is missing; its keys are label"),
    ({**A, "targets": [{"span1": [0, 1]}]}, "line 2: key 'targets[0].label' is missing"),
    ({**A, "targets": [{**T, "span3": [0, 1]}]}, "line 2: unknown key 'targets[0].span3'; known keys: span1, span2"),
    ({**A, "targets": [{**T, "span1": [0, 4]}]},
     "line 2: key 'targets[0].span1' holds [0, 4]; give [first word, word after the "
                                                 "last] with 0 <= first < after <= 3 (the text has 3 words)"),
    ({**A, "targets": [{**T, "span1": [1, 1]}]}, "line 2: key 'targets[0].span1' holds [1, 1]"),
    ({**A, "targets": [{**T, "span1": [-1, 1]}]}, "line 2: key 'targets[0].span1' holds [-1, 1]"),
    ({**A, "targets": [{**T, "span1": None}]}, "line 2: key 'targets[0].span1' holds None"),
    ({**A, "targets": [{**T, "span1": [0, True]}]}, "line 2: key 'targets[0].span1' holds [0, True]"),
    ({**A, "targets": [{**T, "span2": [0, 1]}]},
     "line 2: targets[0] has 2 span(s), but that of f.json line 1 has 1; give all"),
    ({**A, "targets": [{**T, "label": ["x"]}]},
     "line 2: key 'targets[0].label' holds a list, but that of f.json line 1 a name"),
    ({**A, "targets": [{**T, "label": None}]}, "line 2: key 'targets[0].label' holds None; give a name, or a list"),
    ({**A, "targets": [{**T, "label": " "}]}, "line 2: key 'targets[0].label' holds ' '"),
    ({**A, "targets": [{**T, "label": True}]}, "line 2: key 'targets[0].label' holds True"),
    ({**A, "targets": [{**T, "label": ["x", ""]}]}, "line 2: key 'targets[0].label' holds ''"),
    ({**A, "targets": [{**T, "label": ["x", "x"]}]}, "where a label stands twice; remove one"),
])
def test_damaged_records_are_named(row, words):
    assert words in refused(A, row)


def test_a_name_after_lists_is_refused_too():
    assert "line 2: key 'targets[0].label' holds a name, but that of f.json line 1 a list" in refused(SPR, SRL)


def test_classes_are_those_of_all_files_and_files_are_found_by_their_names(tmp_path):
    files = {"train.json": lines(DEP), "development.json": lines(SRL), "test.jsonl": lines(SRL, DEP)}
    facts, tables = build(tmp_path, files)
    assert facts["label_names"] == ["ARG0", "ARG1", "advmod", "nsubj", "punct", "root"] and facts["kind"] == "span-pair"
    assert facts["rows"] == {"train": 4, "validation": 2, "test": 6} and "multi_label" not in facts
    assert tables["train"].to_pylist()[1]["spans"] == [1, 2, 1, 2] and "labels" not in tables["train"].schema.names
    assert facts["absent_from_train"] == ["ARG0", "ARG1"]


def test_several_labels_become_a_column_of_their_own(tmp_path):
    other = {"text": "she ran", "targets": [{"span1": [1, 2], "span2": [0, 1],
                                             "label": ["awareness", "exists", "volition"]}]}
    facts, tables = build(tmp_path, {"train.json": lines(SPR, {"text": "x", "targets": []}), "dev.json": lines(other)})
    assert facts["label_names"] == ["awareness", "exists", "volition"] and facts["multi_label"] is True
    assert facts["kind"] == "span-pair" and facts["spans"] == 2 and "majority_accuracy" not in facts
    assert tables["train"]["labels"].to_pylist() == [[0, 2],
                                                     []] and tables["validation"]["labels"].to_pylist() == [[0, 1, 2]]
    assert str(tables["train"].schema.field("labels").type).replace("element", "item") == "list<item: int32>"
    assert tables["train"]["label"].to_pylist() == [-1, -1] and tables["train"].schema.field("label").type == pa.int32()
    assert facts["label_shares"]["train"] == {"awareness": 0.5, "exists": 0.0, "volition": 0.5}
    assert facts["absent_from_train"] == ["exists"] and facts["left_out"] == {"train": {"records without targets": 1}}


def test_labels_of_lists_can_be_renamed_and_dropped(tmp_path):
    files = {"train.json": lines(SPR), "dev.json": lines(SPR)}
    facts, tables = build(tmp_path, files, label_values={"volition": "will", "awareness": "will"},
                          label_names=["will", "x"])
    assert tables["train"]["labels"].to_pylist() == [[0], []]
    facts, tables = build(tmp_path, files, label_values={"volition": None}, label_names=["awareness", "x"])
    assert tables["train"]["labels"].to_pylist() == [[0], []] and facts["left_out"]["train"] == {"labels with label "
                                                                                                 "volition": 1}


def test_sentences_with_lists_are_held_out_limited_and_left_out_as_others(tmp_path):
    rows = [{"text": f"w{i} " + "x " * (i % 3), "targets": [{"span1": [0, 1], "label": ["a", "b"][:i % 3]}] * 2}
            for i in range(30)]
    facts, tables = build(tmp_path, {"train.json": lines(*rows)}, holdout=0.2, max_rows={"train": 10}, max_words=2)
    assert facts["sentences"] == {"train": 10,
                                  "validation": 4} and facts["left_out"]["train"]["sentences over max_words"] == 10
    assert all(row["labels"] == [0, 1][:int(row["words"][0][1:]) % 3] for t in tables.values() for row in t.to_pylist())


def test_splits_of_lists_and_of_names_do_not_mix(tmp_path):
    with pytest.raises(FinetraceError, match=r"tasks\.own: the label at .*dev\.json line 1 is a list of names, that "
                                             r"at .*train"):
        build(tmp_path, {"train.json": lines(SRL), "dev.json": lines(SPR)})


def test_no_classifier_is_trained_on_several_labels_and_no_set_out_of_distribution_has_them(tmp_path):
    build(tmp_path, {"train.json": lines(SPR), "dev.json": lines(SPR)})
    with pytest.raises(FinetraceError, match=r"train\.parquet: its examples can have several labels.*lens edges only"):
        encode(tmp_path / "own" / "train.parquet", tokenizer(), 30, {"input_ids"})
    from finetrace.data.tables import read_tables

    task = parse(FilesTaskSettings, {"path": "edges", "format": "edges"}, "x")
    with pytest.raises(FinetraceError, match=r"tasks\.own: its examples can have several labels.*remove it from ood"):
        read_tables("tasks.own", task, tmp_path, 0, only="validation")


@pytest.mark.parametrize("rows", [(DEP, SRL), (SPR, {**SPR, "text": "a b c d"})])
def test_what_is_written_reads_as_it_was(tmp_path, rows):
    facts, tables = build(tmp_path, {"train.json": lines(*rows), "dev.json": lines(*rows)})
    count = write_edge_records(tmp_path / "out.json", tables["train"], facts["label_names"])
    again = read_edge_records((tmp_path / "out.json").read_text("utf-8"), "out").examples
    before = read(*rows).examples
    assert count == 2 and [(e.words, e.spans, e.label, e.labels, e.sentence) for e in again] == [
        (e.words, e.spans, e.label, e.labels, e.sentence) for e in before]
    bare = [{"text": row["text"], "targets": [{k: sorted(v) if k == "label" and isinstance(v, list) else v
                                               for k, v in t.items() if k != "info"} for t in row["targets"]]}
            for row in rows]
    assert list(edge_records(tables["train"], facts["label_names"])) == bare
    assert next(edge_records(tables["train"], facts["label_names"], info={"source": "s"}))["info"] == {"source": "s"}


def test_words_with_blanks_need_something_in_their_place(tmp_path):
    (tmp_path / "spans").mkdir()
    for split in ("train", "dev"):
        rows = [{"text": ["a", "10 000", "b"], "spans": [[1, 2]], "label": label} for label in "XY"]
        (tmp_path / "spans" / f"{split}.jsonl").write_text(lines(*rows))
    task = resolve("s", parse(FilesTaskSettings, {"path": "spans", "format": "spans"}, "x"))
    facts = build_task("s", task, tmp_path / "s", root=tmp_path, seed=0)
    table = pq.read_table(tmp_path / "s" / "train.parquet")
    with pytest.raises(FinetraceError, match=r"sentence 0: the word '10 000' has white space inside.*give `blank`"):
        list(edge_records(table, facts["label_names"]))
    record = next(edge_records(table, facts["label_names"], blank="_"))
    assert record == {"text": "a 10_000 b",
                      "targets": [{"span1": [1, 2], "label": "X"}, {"span1": [1, 2], "label": "Y"}]}


def test_a_finished_task_can_be_exported(tmp_path):
    task = word_task_folder(tmp_path / "data" / "tiny", spans=2)
    assert export_task(task, tmp_path / "out") == {"train": 24, "validation": 10, "test": 6}
    assert (tmp_path / "out" / "labels.txt").read_text() == "other\nsame\n"
    found = read_edge_records((tmp_path / "out" / "test.json").read_text("utf-8"), "test.json").examples
    table = pq.read_table(task / "test.parquet")
    assert [e.label for e in found] == [["other", "same"][k] for k in table["label"].to_pylist()]
    assert [[*e.spans[0], *e.spans[1]] for e in found] == table["spans"].to_pylist()
    with pytest.raises(FinetraceError, match="no column 'spans'"):
        list(edge_records(table.drop_columns(["spans"]), ["a", "b"]))
