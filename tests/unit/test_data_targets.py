"""Tasks of numbers, of several labels, of tagged words, in files side by side, and with groups: made and refused."""

import json

import pytest
from tests.row_files import build, jsonl_text, refused, write

from finetrace.config.base import parse
from finetrace.config.data import OodSettings, TaskSettings
from finetrace.config.written import written
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError


def rows(values, **more):
    return jsonl_text([{"text": f"text {i}", "label": value} | {k: v[i] for k, v in more.items()}
                       for i, value in enumerate(values)])


# --- numbers


def test_scores(tmp_path):
    write(tmp_path, train_csv="text,label\na,0.5\nb,3\nc,4.25\n", dev_jsonl=rows([1, 2.5]))
    facts, tables = build(tmp_path, target="regression")
    assert tables["train"]["label"].to_pylist() == [0.5, 3.0, 4.25] and str(tables["train"]["label"].type) == "double"
    assert facts["target"] == "regression" and facts["metric"] == "pearson" and facts["label_names"] == ["score"]
    assert facts["scores"]["train"] == {"mean": 2.583333, "deviation": pytest.approx(1.559024, abs=1e-5), "lowest": 0.5,
                                        "highest": 4.25}
    assert "label_shares" not in facts and "majority_accuracy" not in facts
    assert build(tmp_path, out="more", target="regression", metric="spearman")[0]["metric"] == "spearman"


@pytest.mark.parametrize(("value", "told"), [
    ("high", "label 'high' is not a number, as target: regression needs"), (True, "is a truth value"),
    ([1.0], "is a list"), (None, "has no label"), ("nan", "no finite number"), ("inf", "no finite number"),
])
def test_what_is_no_score(tmp_path, value, told):
    write(tmp_path, train_jsonl=rows([1, 2]), dev_jsonl=rows([3, value]))
    message = refused(tmp_path, target="regression")
    assert "dev.jsonl line 2" in message and told in message


def test_scores_that_are_all_one_teach_nothing(tmp_path):
    write(tmp_path, train_jsonl=rows([2, 2]), dev_jsonl=rows([1, 2]))
    assert "every label of train is 2, which leaves nothing to predict" in refused(tmp_path, target="regression")


def test_stsb_is_one_of_numbers_and_ranges_make_classes_of_it():
    task = resolve("stsb", TaskSettings())
    assert (task.target, task.metric) == ("regression", "pearson")
    classes = resolve("stsb", parse(TaskSettings, {"label_ranges": {"low": [None, 2.5], "high": [2.5, None]}}, ""))
    assert (classes.target, classes.metric) == (None, None)


@pytest.mark.parametrize(("settings", "told"), [
    ({"target": "regression", "label_names": ["a", "b"]}, "label_names: makes classes"),
    ({"target": "regression", "metric": "accuracy"}, "metric: accuracy is none of target: regression; choose pearson"),
    ({"target": "regression", "ood": {"x": {"path": "rows/x"}}}, "only tasks of classes have sets out of distribution"),
    ({"target": "class", "labels": ["a", "b"], "label": None}, "labels: is for target: multi-label"),
    ({"labels": ["a"], "label": None}, "labels: names fewer than two columns"),
    ({"labels": ["a", "b"]}, "labels: takes the place of label"),
    ({"target": "regression", "format": "spans", "text": None, "label": None}, "hold names; remove target"),
    ({"format": "bio", "text": None, "label": "tag", "label_values": {"B-x": None}}, "would break its entity"),
    ({"files": {"train": {"text": "a"}}, "format": "csv"}, "files: names the files column by column; remove format"),
    ({"files": {"dev": {"text": "a"}}}, "files.dev: is not one of train, validation, test"),
    ({"format": "bio", "text": None, "label": "tag", "group": "who"}, "group: files of format bio have no columns"),
])
def test_settings_that_contradict_each_other(settings, told):
    with pytest.raises(FinetraceError) as caught:
        parse(TaskSettings, {k: v for k, v in {"source": "files", "path": "rows", "text": ["text"], "label": "label",
                                               **settings}.items() if v is not None}, "tasks.own")
    assert told in str(caught.value)


def test_sets_out_of_distribution_have_classes():
    with pytest.raises(FinetraceError, match="only tasks of classes have sets"):
        parse(OodSettings, {"target": "regression"}, "ood.x")


def test_later_keys_are_written_only_where_they_say_something():
    assert not {"target", "labels", "files", "group"} & set(written(TaskSettings()))
    assert written(TaskSettings(group="who"))["group"] == "who"


# --- several labels


def test_lists_of_labels(tmp_path):
    write(tmp_path, train_jsonl=rows([["b", "a"], [], ["c"], ["a", "a"]]), dev_jsonl=rows([["a"]]))
    facts, tables = build(tmp_path, target="multi-label")
    assert facts["label_names"] == ["a", "b", "c"] and facts["multi_label"] is True
    assert facts["target"] == "multi-label" and facts["metric"] == "micro_f1"
    assert tables["train"]["labels"].to_pylist() == [[0, 1], [], [2], [0]]
    assert set(tables["train"]["label"].to_pylist()) == {-1}
    assert facts["label_shares"]["train"] == {"a": 0.5, "b": 0.25, "c": 0.25}
    values = {"c": None, "b": "bee", "a": "a"}
    assert build(tmp_path, out="more", target="multi-label", label_values=values)[0]["label_names"] == ["bee", "a"]


def test_columns_of_labels(tmp_path):
    write(tmp_path, train_csv="text,toxic,rude\nx,1,0\ny,0,0\nz,true,1\n", dev_csv="text,toxic,rude\nx,0,1\n")
    facts, tables = build(tmp_path, out="first", label=None, labels=["toxic", "rude"])
    assert facts["label_names"] == ["toxic", "rude"]
    assert tables["train"]["labels"].to_pylist() == [[0], [], [0, 1]]
    write(tmp_path, dev_csv="text,toxic,rude\nx,0,2\n")
    message = refused(tmp_path, out="other", label=None, labels=["toxic", "rude"])
    assert "dev.csv line 2: column 'rude' holds '2', and `labels` needs 0 or 1" in message
    assert "has no column 'mean'" in refused(tmp_path, out="third", label=None, labels=["toxic", "mean"])


def test_a_label_that_is_no_list(tmp_path):
    write(tmp_path, train_jsonl=rows([["a"], "b"]), dev_jsonl=rows([["a"]]))
    assert "train.jsonl line 2: label 'b' is not a list" in refused(tmp_path, target="multi-label")


def test_a_class_that_is_not_known(tmp_path):
    write(tmp_path, train_jsonl=rows([["a"], ["b"]]), dev_jsonl=rows([["x"]]))
    assert "dev.jsonl line 1: unknown label 'x'" in refused(tmp_path, target="multi-label")


# --- tagged words

BIO = """-DOCSTART- -X- O O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP I-MISC

Peter NNP B-NP B-PER
"""


def test_tagged_words(tmp_path):
    write(tmp_path, train_txt=BIO, dev_txt="nobody\tO\r\nBonn\tB-LOC\r\n\r\n")
    facts, tables = build(tmp_path, format="bio", text=None, label="tag")
    assert facts["kind"] == "token" and facts["tags"] == "bio" and facts["metric"] == "entity_f1"
    assert facts["label_names"] == ["B-LOC", "B-MISC", "B-ORG", "B-PER", "I-MISC", "O"]
    train = tables["train"].to_pylist()
    assert [row["words"][row["spans"][0]] for row in train] == ["EU", "rejects", "German", "call", "Peter"]
    assert [facts["label_names"][row["label"]] for row in train] == ["B-ORG", "O", "B-MISC", "I-MISC", "B-PER"]
    assert [row["sentence"] for row in train] == [0, 0, 0, 0, 1]
    assert tables["validation"]["words"].to_pylist()[0] == ["nobody", "Bonn"]


def test_entities_are_spans(tmp_path):
    write(tmp_path, train_txt=BIO + "\nnobody DT B-NP O\n", dev_txt="Bonn B-ORG\n")
    facts, tables = build(tmp_path, format="bio", text=None, label="entity")
    assert facts["kind"] == "span" and "tags" not in facts and facts["metric"] == "accuracy"
    spans = [(tuple(r["spans"]), facts["label_names"][r["label"]]) for r in tables["train"].to_pylist()]
    assert spans == [((0, 1), "ORG"), ((2, 4), "MISC"), ((0, 1), "PER")]
    assert facts["left_out"] == {"train": {"sentences without an entity": 1}}


@pytest.mark.parametrize(("line", "told"), [
    ("word", "'word' is not a word and its tag"), ("word ORG", "tag 'ORG' is none"),
    ("a b O", "3 columns instead of 2"),
])
def test_lines_that_are_no_tagged_words(tmp_path, line, told):
    write(tmp_path, train_txt="EU B-ORG\n", dev_txt=f"EU B-ORG\n{line}\n")
    message = refused(tmp_path, format="bio", text=None, label="tag")
    assert "dev.txt line 2" in message and told in message


def test_a_task_of_tags_alone_has_the_f1_of_entities(tmp_path):
    write(tmp_path, train_jsonl=rows(["a", "b"]), dev_jsonl=rows(["a"]))
    assert "metric 'entity_f1' is none of this task's" in refused(tmp_path, metric="entity_f1")


# --- files side by side


def side_by_side(tmp_path, **files):
    folder = tmp_path / "rows"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return {"train": {"premise": "s1.train", "hypothesis": "s2.train", "label": "labels.train"},
            "validation": {"premise": "s1.dev", "hypothesis": "s2.dev", "label": "labels.dev"}}


GOOD = {"s1_train": "a\nb\n", "s2_train": "c\n\n", "labels_train": "yes\nno\n", "s1_dev": "d\n", "s2_dev": "e",
        "labels_dev": "no\n"}


def test_files_side_by_side(tmp_path):
    files = side_by_side(tmp_path, **GOOD)
    facts, tables = build(tmp_path, files=files, text=["premise", "hypothesis"])
    found = [(r["text_a"], r["text_b"], r["label"]) for r in tables["train"].to_pylist()]
    assert found == [("a", "c", 1), ("b", "", 0)]
    assert facts["kind"] == "pair" and set(facts["origin"]["train"]["sha256"]) == {"premise", "hypothesis", "label"}


@pytest.mark.parametrize(("name", "text", "told"), [
    ("s2_train", "c\n", "s1.train has 2, .*s2.train has 1, .*labels.train has 2"),
    ("labels_dev", "maybe\n", "s1.dev line 1: unknown label 'maybe'"),
])
def test_files_that_do_not_fit(tmp_path, name, text, told):
    files = side_by_side(tmp_path, **GOOD | {name: text})
    with pytest.raises(FinetraceError, match=told):
        build(tmp_path, files=files, text=["premise", "hypothesis"])


def test_files_that_are_not_there(tmp_path):
    files = side_by_side(tmp_path, **GOOD)
    missing = files | {"test": {"premise": "s1.test"}}
    assert "files.test.premise:" in refused(tmp_path, files=missing, text=["premise", "hypothesis"])
    outside = files | {"train": files["train"] | {"label": "../labels"}}
    assert "leaves the folder" in refused(tmp_path, files=outside, text=["premise", "hypothesis"])
    assert "has no column 'title'" in refused(tmp_path, files=files, text=["title"])


# --- groups


def test_groups_are_held_out_as_a_whole(tmp_path):
    who = [f"p{i % 10}" for i in range(60)]
    write(tmp_path, train_jsonl=rows(["a", "b"] * 30, who=who))
    for how in ("random", "last"):
        facts, tables = build(tmp_path, out=how, group="who", holdout=0.2, holdout_rows=how)
        of = {split: {who[i] for i in table["example_id"].to_pylist()} for split, table in tables.items()}
        assert not of["train"] & of["validation"] and len(of["validation"]) == 2
        assert facts["groups"] == {"train": 8, "validation": 2} and facts["rows"] == {"train": 48, "validation": 12}
        assert "group" not in tables["train"].column_names
        assert of["validation"] == {"p8", "p9"} or how == "random"


def test_splits_that_share_groups_are_refused(tmp_path):
    write(tmp_path, train_jsonl=rows(["a", "b"], who=["x", "y"]), dev_jsonl=rows(["a", "b"], who=["y", "z"]))
    message = refused(tmp_path, group="who")
    assert "group: train and validation share 1 values of 'who' (y)" in message
    write(tmp_path, dev_jsonl=rows(["a", "b"], who=["z", ""]))
    assert "has no value of who" in refused(tmp_path, out="other", group="who")
    assert "has no column 'where'" in refused(tmp_path, out="third", group="where")


def test_a_split_needs_a_label_of_every_row(tmp_path):
    write(tmp_path, train_jsonl=rows([1, 2]), dev_jsonl=json.dumps({"text": "a"}) + "\n")
    assert "has no column 'label'" in refused(tmp_path, target="regression")
