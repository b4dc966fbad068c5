"""Sets out of distribution: where they come from, labels by name, and that adding one re-runs no training."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.hidden_outputs import load_script
from tests.stages import ask_study, stage_of

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings, TaskSettings
from finetrace.data.build import build_task
from finetrace.data.ood import build_ood
from finetrace.data.registry import resolve, resolve_ood
from finetrace.errors import FinetraceError
from finetrace.pipeline.stage import AlreadyThere
from finetrace.store.manifest import read_key, read_manifest
from finetrace.study import parse_study

OWN = {"path": "rows", "format": "tsv", "text": ["text"], "label": "label", "label_names": ["negative", "positive"],
       "splits": {"train": "books/train.tsv", "validation": "books/dev.tsv"}}


def files_task(**values: Any) -> TaskSettings:
    return resolve("books", parse(FilesTaskSettings, {**OWN, **values}, "params.yaml: task_files.books"))


def write(root: Path, name: str, labels: list[object], columns: tuple[str, str] = ("text", "label")) -> None:
    path = root / "rows" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["\t".join(columns), *(f"{name} {i}\t{label}" for i, label in enumerate(labels))]) + "\n")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    for name, labels in {"books/train.tsv": [0, 1, 0, 1], "books/dev.tsv": [1, 0], "kitchen/test.tsv": [1, 1, 0],
                         "tweets/test.csv": [-1, 0, 1, 0, 1], "stars/test.tsv": [1, 2, 3, 4, 5]}.items():
        write(tmp_path, name, labels)
    return tmp_path


def build(root: Path, task: TaskSettings, world: Any = None) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """(facts of the sets, set -> rows) of a resolved task."""
    own = build_task("books", task, root / "out", root=root, seed=1, world=world)
    facts = build_ood("books", resolve_ood("books", task), root / "ood", kind=own["kind"],
                      label_names=tuple(own["label_names"]), root=root, seed=1, world=world)
    return facts, {p.stem: pq.read_table(p).to_pylist() for p in (root / "ood").glob("*.parquet")}


# --- where sets come from


def test_a_set_is_what_the_task_is_but_for_its_own_keys(rows):
    facts, sets = build(rows, files_task(ood={"kitchen": {"splits": {"test": "kitchen/test.tsv"}}}))
    assert [(r["text_a"], r["label"]) for r in sets["kitchen"]] == [
        ("kitchen/test.tsv 0", 1), ("kitchen/test.tsv 1", 1), ("kitchen/test.tsv 2", 0)]
    assert facts["sets"]["kitchen"]["rows"] == 3
    assert facts["sets"]["kitchen"]["label_shares"] == {"negative": pytest.approx(1 / 3, abs=1e-6),
                                                        "positive": pytest.approx(2 / 3, abs=1e-6)}
    assert (
        facts["sets"]["kitchen"]["origin"]["file"] == "test.tsv"
        and len(facts["sets"]["kitchen"]["origin"]["sha256"]) == 64
    )
    assert (facts["kind"], facts["label_names"]) == ("sequence", ["negative", "positive"])


def test_schema_is_that_of_the_task(rows):
    build(rows, files_task(ood={"kitchen": {"splits": {"test": "kitchen/test.tsv"}}}))
    assert pq.read_schema(rows / "ood" / "kitchen.parquet") == pq.read_schema(rows / "out" / "train.parquet")


def test_labels_are_matched_by_name_not_by_number(rows):
    write(rows, "turned/test.tsv", [0, 1, 1])
    entry = {"splits": {"test": "turned/test.tsv"}, "label_names": ["positive", "negative"]}
    _, sets = build(rows, files_task(ood={"turned": entry}))
    assert [r["label"] for r in sets["turned"]] == [1, 0, 0]


def test_classes_that_the_task_lacks_are_mapped_or_left_out(rows):
    tweets = {"splits": {"test": "tweets/test.csv"}, "label_values": {"-1": "negative", "1": "positive", "0": None}}
    facts, sets = build(rows, files_task(ood={"tweets": tweets, "merged": {**tweets, "label_values": {
        "-1": "negative", "1": "positive", "0": "negative"}}}))
    assert [(r["example_id"], r["label"]) for r in sets["tweets"]] == [(0, 0), (2, 1), (4, 1)]
    assert [r["label"] for r in sets["merged"]] == [0, 0, 1, 0, 1]
    assert facts["sets"]["tweets"]["left_out"] == {"rows with label 0": 2} and "left_out" not in facts["sets"]["merged"]


def test_a_range_of_scores_in_the_place_of_the_task_s_values(rows):
    stars = {"splits": {"test": "stars/test.tsv"}, "label_ranges": {"negative": [None, 3], "positive": [4, None]}}
    task = files_task(label_values={"0": "negative", "1": "positive"}, ood={"stars": stars})
    assert [r["label"] for r in build(rows, task)[1]["stars"]] == [0, 0, 1, 1]


def test_a_built_in_set_by_its_name_in_the_task_s_folder(rows):
    write(rows, "dynasent/test.tsv", [0, 1, 2, 2], ("Text", "Label"))
    with pytest.raises(FinetraceError, match=r"tasks\.books\.ood\.dynasent: neutral: no such class in the task, which "
                                             r"has "
                                             r"negative, positive; map them .* with label_values: \{neutral: null\}"):
        build(rows, files_task(ood={"dynasent": "dynasent"}))
    facts, sets = build(rows, files_task(ood={"dynasent": {"like": "dynasent", "label_values": {"neutral": None}}}))
    assert [r["label"] for r in sets["dynasent"]] == [0, 1]
    assert facts["sets"]["dynasent"]["left_out"] == {"rows with label neutral": 2}


def test_one_class_and_one_file_will_do(rows):
    write(rows, "bad.tsv", ["negative", "negative"])
    entry = {"source": "files", "path": "rows/bad.tsv", "text": ["text"], "label": "label"}
    facts, sets = build(rows, files_task(ood={"bad": entry}))
    assert [r["label"] for r in sets["bad"]] == [0, 0]
    assert facts["sets"]["bad"]["label_shares"] == {"negative": 1.0, "positive": 0.0}


def test_another_split_and_fewer_rows(rows):
    facts, sets = build(rows, files_task(ood={"dev": {"split": "validation",
                                                      "splits": {"validation": "kitchen/test.tsv"},
                                                      "max_rows": {"validation": 2}, "choose": "first"}}))
    assert [r["example_id"] for r in sets["dev"]] == [0, 1] and facts["sets"]["dev"]["rows"] == 2


def test_keys_that_are_given_win_where_they_are_the_default(rows):
    task = files_task(encoding="latin-1", lowercase=True, choose="first", ood={
        "kitchen": {"splits": {"test": "kitchen/test.tsv"}, "encoding": "utf-8", "lowercase": False,
                    "choose": "random"}})
    found = resolve_ood("books", task)["kitchen"]
    assert (found.encoding, found.lowercase, found.choose) == ("utf-8", False, "random")


def test_another_data_set_of_the_hub_keeps_its_own_order_of_classes():
    task = resolve("sst2", parse(TaskSettings,
                                 {"ood": {"imdb": {"id": "stanfordnlp/imdb", "config": "plain_text", "splits": {
        "test": "test"}, "text": ["text"]}}}, "params.yaml"))
    found = resolve_ood("sst2", task)["imdb"]
    assert (found.id, found.label, found.label_names, found.source) == ("stanfordnlp/imdb", "label", None, "hub")


def test_a_task_without_sets_has_none(rows):
    assert build(rows, files_task()) == ({"kind": "sequence", "label_names": ["negative", "positive"], "sets": {}}, {})


# --- what is refused


@pytest.mark.parametrize(("ood", "words"), [
    ({"x": {"splits": {"test": "nothing.tsv"}}}, "tasks.books.ood.x: splits.test: "),
    ({"x": {"splits": {"validation": "books/dev.tsv"}}},
     "tasks.books.ood.x: there is no split test; name it in `splits`"),
    ({"x": {"splits": {"test": "tweets/test.csv"}}}, "tweets/test.csv line 2: unknown label '-1'"),
    ({"x": {"splits": {"test": "kitchen/test.tsv"}, "text": ["text", "label"]}},
     "tasks.books.ood.x: is of kind pair, but the task is of kind sequence; both must be of one"),
    ({"x": {"splits": {"test": "kitchen/test.tsv"}, "label_names": ["bad", "good"]}},
     "bad, good: no such class in the task"),
])
def test_sets_that_do_not_fit(rows, ood, words):
    with pytest.raises(FinetraceError) as caught:
        build(rows, files_task(ood=ood))
    assert words in str(caught.value)
    assert not list(rows.glob("ood/*"))


@pytest.mark.parametrize(("ood", "words"), [
    ({"x": "nothing"}, r"tasks\.books\.ood\.x: 'nothing' is not a built-in task "
                       r"\(.*dynasent.*micro-sentiment-food.*\)"),
    ({"x": {}}, r"tasks\.books\.ood\.x: is the task itself; say what it is with splits, path"),
    ({"x": {"choose": "first"}}, "is the task itself"),
    ({"x": {"source": "hub", "id": "a/b", "text": ["t"]}}, r"tasks\.books\.ood\.x: key 'label' is missing; add it"),
])
def test_definitions_that_are_refused(ood, words):
    with pytest.raises(FinetraceError, match=words):
        resolve_ood("books", files_task(ood=ood))


@pytest.mark.parametrize(("ood", "words"), [
    ({"test": "dynasent"}, "ood: 'test' cannot name a set"),
    ({"A b": "dynasent"}, "ood: 'A b' cannot name a set"),
    ({"x": {"splt": {}}}, "ood.x: unknown key 'splt'; did you mean 'split'?"),
    ({"x": {"holdout": 0.1}}, "ood.x: unknown key 'holdout'"),
    ({"x": {"split": "all"}}, "ood.x: split: "),
    ({"x": 3}, "ood.x: "),
    ({"x": {"path": "elsewhere/x"}}, "ood.x.path: elsewhere/x lies outside rows, so that a change would not be "
                                     "noticed"),
    ({"x": {"path": "rows/../x"}}, "lies outside rows"),
])
def test_settings_that_are_refused_when_the_study_is_read(ood, words):
    with pytest.raises(FinetraceError) as caught:
        parse_study({"study": {"name": "x"}, "task_files": {"books": {**OWN, "ood": ood}}}, "params.yaml")
    assert "params.yaml: task_files.books: " in str(caught.value) and words in str(caught.value)


# --- the micro world, and the stage


def test_shifted_domains_of_the_micro_world(tmp_path, micro):
    task = parse(TaskSettings, {"source": "micro", "config": "micro-sentiment",
                                "ood": {"food": "micro-sentiment-food", "travel": "micro-sentiment-travel"}},
                 "params.yaml")
    facts, sets = build(tmp_path, task, micro.world)
    food = parse(TaskSettings, {"source": "micro"}, "params.yaml")
    build_task("micro-sentiment-food", food, tmp_path / "food", root=tmp_path, seed=1, world=micro.world)
    assert sets["food"] == pq.read_table(tmp_path / "food" / "test.parquet").to_pylist(), "the test split of that task"
    assert {name: one["rows"] for name, one in facts["sets"].items()} == {"food": 24, "travel": 24}
    with pytest.raises(FinetraceError, match=r"tasks\.books\.ood\.food: micro-sentiment-food has no split train; "
                                             r"choose another"):
        build(tmp_path, parse(TaskSettings, {"source": "micro", "config": "micro-sentiment", "ood": {
            "food": {"like": "micro-sentiment-food", "split": "train"}}}, "params.yaml"), micro.world)


def test_the_other_split_of_a_micro_task_is_a_set(tmp_path, micro):
    own = {"source": "micro", "config": "micro-topic"}
    _, sets = build(tmp_path, parse(TaskSettings, {**own, "ood": {"again": {"split": "validation"}}}, "x"), micro.world)
    assert sets["again"] == pq.read_table(tmp_path / "out" / "validation.parquet").to_pylist()
    task = parse(TaskSettings, {"source": "micro", "ood": {"again": {"split": "validation"}}}, "params.yaml")
    assert resolve_ood("micro-topic", task)["again"].config == "micro-topic", "the task's name says which it is"


def test_tasks_of_words_may_have_sets_too(tmp_path, micro):
    task = parse(TaskSettings, {"source": "micro", "config": "micro-pos", "ood": {"again": "micro-pos"}}, "params.yaml")
    _, sets = build(tmp_path, task, micro.world)
    assert sets["again"] == pq.read_table(tmp_path / "out" / "test.parquet").to_pylist()


def run_stage(root: Path, ood: dict[str, Any] | None, section: str = "task_files") -> None:
    ask_study(root, {"study": {"name": "x"}, section: {"books": {**OWN, **({} if ood is None else {"ood": ood})}}})
    load_script("data").main(stage_of(root, "data", "books"))


def test_another_set_changes_nothing_that_trainings_depend_on(rows: Path) -> None:
    data = rows / "data" / "books"
    run_stage(rows, None)
    content, key = (data / "manifest.json").read_bytes(), read_key(data)
    nothing = (data / "ood" / "manifest.json").read_bytes()
    of_sets = json.loads(nothing)
    assert of_sets["facts"] == {"kind": "sequence", "label_names": ["negative", "positive"], "sets": {}}
    assert of_sets["files"] == {}

    run_stage(rows, {"kitchen": {"splits": {"test": "kitchen/test.tsv"}}})
    assert (data / "manifest.json").read_bytes() == content and read_key(data) == key
    of_sets = json.loads((data / "ood" / "manifest.json").read_text())
    assert set(of_sets["files"]) == {"kitchen.parquet"} and set(of_sets["facts"]["sets"]) == {"kitchen"}
    kept = read_manifest(data / "ood")
    assert kept.kind == "data" and kept.facts == of_sets["facts"] and set(kept.inputs) == {"rows"}

    run_stage(rows, None)
    assert sorted(p.name for p in (data / "ood").iterdir()) == ["cost.json", "manifest.json", "provenance.json"], \
        "what is gone is gone"
    assert (data / "ood" / "manifest.json").read_bytes() == nothing


def test_a_task_whose_sets_are_damaged_is_made_again(rows: Path) -> None:
    sets = {"kitchen": {"splits": {"test": "kitchen/test.tsv"}}}
    run_stage(rows, sets)
    with pytest.raises(AlreadyThere):
        run_stage(rows, sets)
    (rows / "data" / "books" / "ood" / "kitchen.parquet").unlink()
    run_stage(rows, sets)
    assert set(read_manifest(rows / "data" / "books" / "ood", verify="content").files) == {"kitchen.parquet"}


def test_the_stage_names_what_it_cannot_watch(rows: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = {"source": "micro", "config": "micro-sentiment", "ood": {
        "kitchen": {"source": "files", "path": "rows/kitchen", "text": ["text"], "label": "label",
                    "label_names": ["negative", "positive"]}}}
    world = {"corpus_sentences": 500, "train_rows": 64, "validation_rows": 24, "test_rows": 24}
    ask_study(rows, {"study": {"name": "x"}, "world": world, "tasks": {"books": task}})
    with caplog.at_level("INFO", logger="finetrace"):
        load_script("data").main(stage_of(rows, "data", "books"))
    assert "kitchen: changes of rows/kitchen are not noticed; after one, run dvc repro -f data@books" in caplog.text
    assert pq.read_table(rows / "data" / "books" / "ood" / "kitchen.parquet").num_rows == 3
