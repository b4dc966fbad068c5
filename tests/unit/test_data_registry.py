"""The built-in tasks, and how a study changes them."""

from pathlib import Path

import pytest

from finetrace.config.base import parse
from finetrace.config.data import SPLITS, FilesTaskSettings, TaskSettings
from finetrace.data import registry
from finetrace.data.registry import entries, resolve, resolve_ood
from finetrace.errors import FinetraceError
from finetrace.layout import is_slug
from finetrace.study import load_study, parse_study

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def settings(**values) -> TaskSettings:
    return parse(TaskSettings, values, "params.yaml: tasks.x")


def test_there_are_entries():
    assert {"sst2", "cola", "mrpc", "qqp", "mnli", "qnli", "rte", "flue-cls"} <= set(entries())


@pytest.mark.parametrize("name", sorted(n for n, entry in entries().items() if entry["source"] == "hub"))
def test_every_entry_of_the_hub_is_complete(name):
    task = resolve(name, TaskSettings())
    assert is_slug(name)
    assert task.source == "hub" and task.id and "/" in task.id and task.revision
    texts = task.text or task.template
    assert texts and task.label and task.metric
    of_classes = name != "trec-50" and task.target != "regression"
    assert not of_classes or (task.label_names is not None and len(task.label_names) >= 2)
    assert task.splits is not None and set(task.splits) <= set(SPLITS)
    assert {"train", "validation"} <= set(task.splits) or task.holdout > 0 or set(task.splits) == {"test"}
    assert task.metric not in ("f1", "matthews") or len(task.label_names or ()) == 2
    assert task.kind in (None, "pair" if len(texts) == 2 else "sequence")


def test_pairs_have_two_text_columns():
    assert {name for name, entry in entries().items() if len(entry.get("text", ())) == 2} >= {
        "mrpc",
        "qqp",
        "mnli",
        "mnli-mismatched",
        "qnli",
        "rte",
        "wnli",
    }
    assert len(resolve("sst2", TaskSettings()).text) == len(resolve("cola", TaskSettings()).text) == 1


def test_glue_labels_have_the_hubs_numbers():
    assert resolve("mnli", TaskSettings()).label_names == ("entailment", "neutral", "contradiction")
    assert (
        resolve("rte", TaskSettings()).label_names
        == resolve("qnli", TaskSettings()).label_names
        == ("entailment", "not_entailment")
    )
    assert resolve("cola", TaskSettings()).label_names == ("unacceptable", "acceptable")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_tasks_of_every_study_are_complete(path):
    study = load_study(path)
    tasks = {**study.tasks, **study.task_files}
    assert tasks
    for name in tasks:
        resolve_ood(name, resolve(name, study.task(name)))


def test_the_study_of_linear_probing_has_the_published_tasks():
    study = load_study(next(path for path in STUDIES if path.stem == "lp-ft"))
    assert len(study.trajectories) == 10 * 5 * 5 and len(study.looked["kernel"]) == 4 * 4
    assert list(study.looked["calibration"]) == list(study.looked["features"]) == [
        run.place for run in study.trajectories.values()]
    tasks = {name: resolve(name, study.task(name)) for name in {**study.tasks, **study.task_files}}
    for name, task in tasks.items():
        assert task.metric == ("matthews" if name == "cola" else "accuracy")
        assert name == "pubmed" or (task.holdout, task.holdout_rows, "test" in task.splits) == (0.1, "last", True)
    sets = resolve_ood("amazon", tasks["amazon"])
    expected = {name: {"test": f"{name}/test.tsv"} for name in ("dynasent", "semeval", "sst5")}
    assert {name: one.splits for name, one in sets.items()} == expected
    assert {one.path for one in sets.values()} == {"sources/boss"}
    settled = {key: study.train_settings(cell) for key, cell in study.cells.items()}
    for key, numbers in (("superglue-cb_ft", (16, 5e-5)), ("superglue-cb_lp-ft", (8, 5e-6)),
                         ("superglue-wsc_lora", (16, 1e-4)),
                         ("superglue-boolq_lora", (32, 5e-4)), ("amazon_lp-ft", (8, 1e-6)),
                         ("pubmed_lp-lora", (8, 1e-3))):
        one = settled[f"roberta-base_{key}"]
        assert (one.batch_size, one.learning_rate) == numbers
        assert (one.head, one.keep, one.epochs, one.max_length, one.dropout) == ("linear", "best", 10, 128, 0.1)


def test_changes_of_the_study_apply():
    task = resolve("sst2", settings(max_rows={"train": 100}, revision="abc", holdout=0.2))
    assert (task.max_rows, task.revision, task.holdout) == ({"train": 100}, "abc", 0.2)
    assert (
        task.text == ("sentence",)
        and task.id == "nyu-mll/glue"
        and task.splits == {"train": "train", "validation": "validation"}
    )
    assert resolve("sst2", TaskSettings()).max_rows is None, "the entry itself is as it was"


def test_like_takes_another_entry():
    task = resolve("sst2-small", settings(like="sst2", max_rows={"train": 10}))
    assert (task.config, task.max_rows, task.source) == ("sst2", {"train": 10}, "hub")
    local = resolve("sst2-local", settings(like="sst2", source="files", path="sources/sst2"))
    assert (local.source, local.path, local.text, local.label_names) == (
        "files",
        "sources/sst2",
        ("sentence",),
        ("negative", "positive"),
    )
    assert isinstance(local, TaskSettings)


def test_like_works_for_task_files():
    task = parse(FilesTaskSettings, {"path": "sources/x", "like": "cola"}, "params.yaml: task_files.x")
    found = resolve("x", task)
    assert (found.source, found.path, found.text, found.metric) == ("files", "sources/x", ("sentence",), "matthews")


def test_unknown_name_lists_the_known():
    with pytest.raises(
        FinetraceError, match=r"params\.yaml: tasks\.sst: 'sst' is not a built-in task \(.*mrpc.*sst2.*\); define it"
    ):
        resolve("sst", TaskSettings())
    with pytest.raises(FinetraceError, match=r"tasks\.x: 'sst3' is not a built-in task"):
        resolve("x", settings(like="sst3"))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"source": "hub", "text": ["a"], "label": "l"}, "id"),
        ({"source": "hub", "id": "a/b", "label": "l"}, "text"),
        ({"source": "hub", "id": "a/b", "text": ["a"]}, "label"),
        ({"source": "files", "text": ["a"], "label": "l"}, "path"),
        ({"source": "files", "path": "x", "label": "l"}, "text"),
        ({"source": "files", "path": "x", "text": ["a"]}, "label"),
    ],
)
def test_a_definition_of_ones_own_must_be_complete(values, key):
    with pytest.raises(FinetraceError, match=rf"params\.yaml: tasks\.x: key '{key}' is missing; add it"):
        resolve("x", settings(**values))


def test_a_change_back_to_the_default_applies():
    assert entries()["trec-files"]["encoding"] == "latin-1" and entries()["pubmed-rct"]["lowercase"] is True
    task = resolve("x", settings(like="trec-files", path="p", encoding="utf-8", holdout_rows="random"))
    assert (task.encoding, task.holdout_rows) == ("utf-8", "random")
    assert resolve("x", settings(like="pubmed-rct", path="p", lowercase=False)).lowercase is False


def test_no_entry_sets_a_key_that_a_study_could_not_set_back():
    # the study's keys are known by differing from their defaults, so other defaults cannot win over an entry
    lasting = {k for k, f in TaskSettings.__dataclass_fields__.items() if f.default is not None} - {"source", "holdout"}
    assert lasting == {"choose", "subtypes", "multiword"}
    assert not {(name, key) for name, entry in entries().items() for key in lasting & set(entry)}


def test_template_and_text_replace_each_other():
    task = resolve("cola", settings(template=["Is it correct? {sentence}"]))
    assert (task.text, task.template) == (None, ("Is it correct? {sentence}",))
    task = resolve("superglue-wic", settings(text=["sentence1", "sentence2"]))
    assert (task.text, task.template) == (("sentence1", "sentence2"), None)


def test_a_change_that_contradicts_the_entry_is_refused():
    with pytest.raises(FinetraceError, match=r"params\.yaml: tasks\.mrpc: kind: sequence does not fit 2 text column"):
        resolve("mrpc", settings(kind="sequence"))


def test_micro_tasks_need_nothing_else():
    study = parse_study({"study": {"name": "x"}, "tasks": {"micro-sentiment": {"source": "micro"}}}, "params.yaml")
    assert resolve("micro-sentiment", study.task("micro-sentiment")).source == "micro"


def test_an_entry_defined_twice_is_an_error(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("x: {source: hub}\n")
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    entries.cache_clear()
    try:
        with pytest.raises(FinetraceError, match=r"b\.yaml: task 'x' is defined twice"):
            entries()
    finally:
        monkeypatch.undo()
        entries.cache_clear()


@pytest.mark.parametrize("name", ["micro-sentiment", "micro-nli"])
def test_micro_tasks_become_tables(tmp_path, micro, name):
    import pyarrow.parquet as pq

    from finetrace.data.build import build_task

    facts = build_task(name, settings(source="micro"), tmp_path / "a", root=tmp_path, seed=1, world=micro.world)
    again = build_task(
        "other", settings(source="micro", config=name), tmp_path / "b", root=tmp_path, seed=1, world=micro.world
    )
    assert facts == again and facts["rows"] == {"train": 64, "validation": 24, "test": 24}
    assert facts["kind"] == ("pair" if name == "micro-nli" else "sequence")
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()
    rows = pq.read_table(tmp_path / "a" / "train.parquet")
    assert set(rows["label"].to_pylist()) == set(range(len(facts["label_names"])))
    with pytest.raises(FinetraceError, match=r"tasks\.x: 'micro-nothing' is not a micro task; known: micro-sentiment"):
        build_task(
            "x",
            settings(source="micro", config="micro-nothing"),
            tmp_path / "c",
            root=tmp_path,
            seed=1,
            world=micro.world,
        )
