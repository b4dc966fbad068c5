"""params.yaml: what is accepted, and errors that name file, key and fix."""

import copy
import dataclasses
import typing
from pathlib import Path

import pytest
import yaml

from finetrace.config.base import as_dict, merge, parse
from finetrace.config.training import TrainSettings
from finetrace.config.world import WorldSettings
from finetrace.errors import FinetraceError
from finetrace.study import Study, load_study, parse_study

ROOT = Path(__file__).parents[2]

BASE = {
    "study": {"name": "demo", "seed": 3},
    "pretrain": {"micro-a": {"steps": 10}},
    "models": {"minilm": {"id": "sentence-transformers/all-MiniLM-L6-v2"}},
    "model_folders": {"mine": {"path": "sources/mine"}},
    "tasks": {"sst2": {}, "micro-sentiment": {"source": "micro"}},
    "task_files": {"own": {"path": "sources/own.csv", "text": ["text"], "label": "label", "holdout": 0.1}},
    "methods": {"ft": {}, "ft-slow": {"settings": "tuned", "train": {"learning_rate": "1e-5"}}},
    "runs": [
        {"model": "micro-a", "task": "sst2", "method": "ft", "seed": [1, 12]},
        {"model": "mine", "task": "own", "method": "ft-slow"},
    ],
}


def study(changes: dict[str, object] | None = None) -> Study:
    """BASE with values set at dotted places, e.g. {"train.batch_size": 8}; `...` removes a key."""
    content: typing.Any = copy.deepcopy(BASE)
    for place, value in (changes or {}).items():
        *path, last = place.split("/") if "/" in place else place.split(".")
        here = content
        for part in path:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        if value is ...:
            del here[last]
        else:
            here[last] = value
    return parse_study(content, "demo.yaml")


def problem(changes: dict[str, object]) -> str:
    with pytest.raises(FinetraceError) as caught:
        study(changes)
    message = str(caught.value)
    assert all(line.startswith("demo.yaml: ") for line in message.splitlines()), message
    return message


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("studies/*.yaml"), *ROOT.glob("params.yaml")]), ids=lambda p: p.name
)
def test_the_projects_own_studies_load(path):
    loaded = load_study(path)
    assert loaded.places and loaded.looked, "a study in which nothing is trained or looked at shows nothing"
    for cell in loaded.cells.values():
        loaded.train_settings(cell)
    from finetrace.data.registry import resolve

    for name in {**loaded.tasks, **loaded.task_files}:
        resolve(name, loaded.task(name))


def test_a_good_study():
    loaded = study()
    assert loaded.study.seed == 3
    assert loaded.trajectories["micro-a_sst2_ft_s12"].seed == 12
    assert loaded.task("own").path == "sources/own.csv" and loaded.task("sst2").source == "registry"
    assert loaded.world == WorldSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.train.batch_size = 3  # type: ignore[misc]


def test_the_smallest_study():
    assert parse_study({"study": {"name": "x"}}, "p.yaml").trajectories == {}


def test_empty_sections_and_entries_are_defaults():
    loaded = study(
        {
            "train": None,
            "tracking": None,
            "world": None,
            "by_task": None,
            "tasks.sst2": None,
            "methods.ft": None,
            "train.dropout": None,
        }
        | {"train": {"dropout": None}}
    )
    assert loaded.train == TrainSettings()
    assert loaded.tasks["sst2"].source == "registry" and loaded.methods["ft"].kind == "ft"


def test_settings_survive_as_plain_yaml():
    loaded = study({"train": {"learning_rate": 1e-4}, "record": {"checkpoints": {"steps": [1, 5]}}})
    text = yaml.safe_dump(yaml.safe_load(yaml.safe_dump(_plain(as_dict(loaded)))))
    assert parse_study(yaml.safe_load(text), "again.yaml") == loaded


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


# --- keys


@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("trian", "train"),
        ("train.learning_rat", "learning_rate"),
        ("world.peple", "people"),
        ("tasks.sst2.holdut", "holdout"),
        ("pretrain.micro-a.step", "steps"),
        ("models.minilm.revison", "revision"),
        ("methods.ft.setings", "settings"),
        ("runs.0.sed", "seed"),
        ("runs.1.modle", "model"),
        ("record.signal", "signals"),
        ("by_task.sst2.batchsize", "batch_size"),
        ("by_model.minilm.learnin_rate", "learning_rate"),
        ("methods.ft.train.epoch", "epochs"),
        ("tracking.url", "uri"),
        ("tune.trails", "trials"),
        ("infodynamics.windw", "window"),
        ("task_files.own.lable", "label"),
    ],
)
def test_unknown_key_names_the_nearest(place, near):
    message = problem({place: 1})
    assert f"{place.split('.')[-1]}'" in message and f"did you mean {near!r}?" in message


def test_unknown_key_that_resembles_nothing_lists_the_known():
    message = problem({"tracking.zzz": 1})
    assert "unknown key 'tracking.zzz'" in message and "points" in message and "uri" in message


def test_all_problems_are_told_at_once():
    message = problem({"trian": {}, "train.learning_rate": "fast", "models.minilm.id": ...})
    assert len(message.splitlines()) == 3
    assert "key 'models.minilm.id' is missing; add it" in message
    assert "train.learning_rate: Input should be a valid number" in message and "'fast'" in message


@pytest.mark.parametrize("value", [[1], "text", 3])
def test_section_of_the_wrong_shape(value):
    assert "train: Input should be a dictionary" in problem({"train": value})


# --- names


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".", "UPPER", "with space", "under_score", "-a", ".hidden", "é", ""]
)
@pytest.mark.parametrize("section", ["models", "tasks", "methods", "pretrain", "task_files"])
def test_names_that_could_leave_the_project_are_refused(section, name):
    entry = {"models": {"id": "a/b"}, "task_files": {"path": "x", "text": ["t"], "label": "l"}}.get(section, {})
    content = copy.deepcopy(BASE)
    content[section][name] = entry
    with pytest.raises(FinetraceError, match="cannot name a folder; use lower-case letters"):
        parse_study(content, "demo.yaml")


@pytest.mark.parametrize("name", ["world", "pretrain"])
def test_names_of_finetraces_own_folders_are_refused(name):
    assert "choose another name" in problem({f"tasks.{name}": {}})


def test_names_defined_twice():
    for place, entry in (("pretrain.minilm", {}), ("model_folders.minilm", {"path": "x"})):
        assert "'minilm' names two of pretrain, series, adapt, models, model_folders, which" in problem({place: entry})
    assert "'own' names two of tasks, task_files" in problem({"tasks.own": {}})


@pytest.mark.parametrize(
    ("what", "known"),
    [
        ("model", "micro-a, minilm, mine"),
        ("task", "sst2, micro-sentiment, own"),
        ("method", "ft, lp, lp-ft, lora, lp-lora, ft-slow"),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_unknown_model_task_or_method(number, what, known):
    message = problem({f"runs.{number}.{what}": "nope"})
    assert f"runs.{number}.{what}: 'nope' is not defined; known: {known}" in message


@pytest.mark.parametrize("section", ["by_task", "by_model"])
def test_changes_for_something_unknown(section):
    assert f"{section}.nope: 'nope' is not defined; known:" in problem({f"{section}.nope": {"epochs": 1}})
    where = "methods.ft.by_task.nope"
    assert f"{where}: 'nope' is not defined; known:" in problem({where: {"epochs": 1}})


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"task_files.own.path": "data/own"}, "sources/own"),
        ({"task_files.own.path": "./data/x/../own/train.csv"}, "sources/own"),
        ({"model_folders.mine.path": "models/mine/"}, "sources/mine"),
    ],
)
def test_sources_that_the_result_would_replace_are_refused(changes, fix):
    message = problem(changes)
    assert "which the result replaces; move it" in message and fix in message


# --- values


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("train", {"batch_size": 10, "accumulate": 3}, "accumulate: 3 does not divide batch_size 10"),
        ("train", {"learning_rate": 0}, "learning_rate: 0.0 is not positive"),
        ("train", {"learning_rate": float("nan")}, "train.learning_rate: Input should be a finite number"),
        ("train", {"epochs": float("inf")}, "train.epochs: Input should be a finite number"),
        ("train", {"epochs": -1}, "epochs: -1.0"),
        ("train", {"batch_size": 2.5}, "batch_size: Input should be a valid integer"),
        ("train", {"warmup": 100}, "warmup: 100.0 is a share"),
        ("train", {"scheduler": "polynomial"}, "'linear', 'cosine' or 'constant'"),
        ("train", {"beta2": 1.0}, "beta2: 1.0"),
        ("train", {"dropout": 1.5}, "dropout: 1.5"),
        ("train", {"weight_decay": -0.1}, "weight_decay: -0.1"),
        ("train", {"max_length": 2}, "max_length: 2"),
        ("record", {"checkpoints": {"every": 0}}, "checkpoints.every: 0 is not a number of steps of 1 or more"),
        ("record", {"checkpoints": {"every": [5]}}, "checkpoints.every: [5]"),
        ("record", {"checkpoints": {"steps": 5}}, "checkpoints.steps: 5 is not a list of steps"),
        ("record", {"checkpoints": {"steps": [-5]}}, "checkpoints.steps: [-5]"),
        ("record", {"probe": {}}, "probe: {} is not a schedule; use log2, epochs, none, {every: n}, {log: n} or "
                                  "{steps: [...]}"),
        ("record", {"evaluate": {"evry": 5}}, "evaluate: {'evry': 5} is not a schedule"),
        ("record", {"evaluate": "weekly"}, "evaluate: 'weekly' is not a schedule"),
        ("pretrain.micro-a", {"heads": 3}, "heads: 3 does not divide width 64"),
        ("pretrain.micro-a", {"heads": 0}, "heads: 0"),
        ("pretrain.micro-a", {"batch_size": 0}, "batch_size: 0 is less than 1"),
        ("pretrain.micro-a", {"evaluate": {"every": -2}}, "evaluate.every: -2"),
        ("world", {"people": 17}, "people is 17: set it to an even number"),
        ("world", {"cities": 20, "countries": 15}, "at least 2 x world.countries = 30"),
        ("tasks.sst2", {"splits": {"dev": "validation"}}, "split 'dev' is not one of train, validation, test"),
        ("tasks.sst2", {"max_rows": {"train": 0}}, "max_rows.train: 0 is less than 1"),
        ("tasks.sst2", {"holdout": 1.0}, "holdout: 1.0 is not in [0, 1)"),
        ("tasks.sst2", {"text": []}, "text: give one column, or two for a pair task"),
        ("tasks.sst2", {"text": ["a"], "kind": "pair"}, "a pair has two, a sequence one"),
        ("tasks.sst2", {"text": ["a", "b"], "kind": "sequence"}, "a pair has two, a sequence one"),
        ("tasks.sst2", {"label_names": ["a", "b", "a"]}, "label_names: a name stands twice"),
        ("tasks.sst2", {"metric": "bleu"}, "'accuracy', 'f1', 'matthews', 'macro_f1'"),
        ("task_files.own", {"path": ""}, "path: name the file or folder with the rows"),
        ("tracking", {"points": 9999}, "points: 9999 is not in 2..2500"),
        ("tune", {"trials": 0}, "trials: 0 is less than 1"),
        ("tune", {"space": {"lr": {"choices": [1]}}}, "space.lr: is not a key of train; known: accumulate"),
        ("tune.space.learning_rate", {"choices": [1], "low": 1}, "choices and low/high exclude each other; remove one"),
        ("tune.space.learning_rate", {"choices": []}, "choices: is empty"),
        ("tune.space.learning_rate", {"low": 1}, "give low and high, or choices"),
        ("tune.space.learning_rate", {"low": 2, "high": 1}, "low 2.0 is above high 1.0"),
        (
            "tune.space.learning_rate",
            {"low": 0, "high": 1, "log": True},
            "low: 0.0 is not positive, as log: true needs",
        ),
        ("infodynamics", {"window": 0}, "window: 0 is less than 1 example"),
    ],
)
def test_values_and_pairs_that_make_no_sense(section, values, words):
    message = problem({f"{section}.{key}": value for key, value in values.items()})
    assert words in message
    assert section in message


def test_numbers_that_yaml_reads_as_text():
    content = yaml.safe_load("""
        study: {name: x}
        train: {learning_rate: 5e-5}
        tune: {space: {learning_rate: {low: 1e-5, high: 1e-3, log: true}, weight_decay: {choices: [0, 1e-2]},
                       keep: {choices: [last]}}}
        pretrain: {m: {learning_rate: 2e-3}}
    """)
    assert content["train"]["learning_rate"] == "5e-5", "the trap that this is about: YAML 1.1 wants 5.0e-5"
    loaded = parse_study(content, "p.yaml")
    assert loaded.train.learning_rate == 5e-5 and loaded.pretrain["m"].learning_rate == 2e-3
    assert loaded.tune.space["learning_rate"].low == 1e-5
    assert loaded.tune.space["weight_decay"].choices == [0, 0.01]
    assert loaded.tune.space["keep"].choices == ["last"]


# --- changes by model, task and method


def test_method_beats_task_beats_model_beats_train():
    changes = {
        "train": {"learning_rate": 1.0, "epochs": 1, "batch_size": 32, "weight_decay": 0.5},
        "by_model": {"mine": {"learning_rate": 2.0, "epochs": 2, "batch_size": 8}, "micro-a": {"epochs": 99}},
        "by_task": {"own": {"learning_rate": 3.0, "epochs": 3}, "sst2": {"epochs": 77}},
        "methods.ft-slow.train": {"learning_rate": "4e-0"},
    }
    loaded = study(changes)
    found = loaded.train_settings(loaded.cells["mine_own_ft-slow"])
    assert (found.learning_rate, found.epochs, found.batch_size, found.weight_decay) == (4.0, 3.0, 8, 0.5)
    assert loaded.train_settings(loaded.cells["micro-a_sst2_ft"]).epochs == 77


def test_a_contradiction_names_the_place_that_makes_it_and_the_cell():
    message = problem({"by_model": {"mine": {"accumulate": 4}}, "by_task": {"own": {"batch_size": 6}}})
    assert "demo.yaml: by_task.own: accumulate: 4 does not divide batch_size 6 (for cell mine_own_ft-slow)" in message
    assert "methods.ft.train: epochs: -1.0" in problem({"methods.ft.train": {"epochs": -1}})


def test_what_only_contradicts_on_the_way_is_fine():
    loaded = study({"by_model": {"mine": {"accumulate": 3}}, "by_task": {"own": {"batch_size": 12}}})
    assert loaded.train_settings(loaded.cells["mine_own_ft-slow"]).accumulate == 3


def test_merge_and_parse_name_their_place():
    assert merge(TrainSettings(), {"epochs": 7}, "x").epochs == 7
    with pytest.raises(FinetraceError, match=r"best\.yaml: unknown key 'epoch'; did you mean 'epochs'\?"):
        merge(TrainSettings(), {"epoch": 7}, "best.yaml")
    with pytest.raises(FinetraceError, match=r"best\.yaml: Input should be a dictionary"):
        parse(TrainSettings, None, "best.yaml")


# --- files


def load(tmp_path: Path, text: str | bytes) -> Study:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_study(path)


def test_missing_file(tmp_path):
    with pytest.raises(FinetraceError, match=r"nope\.yaml: not found; run this in the project folder"):
        load_study(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [("study: {name: x", 1), ("a: b: c", 1), ("study:\n\tname: x", 2), ("study: {name: x}\n---\nstudy: {name: y}", 2)],
)
def test_broken_yaml(tmp_path, text, line):
    with pytest.raises(FinetraceError, match=rf"params\.yaml line {line}: not valid YAML"):
        load(tmp_path, text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "text", "3"])
def test_file_that_is_no_mapping(tmp_path, text):
    with pytest.raises(FinetraceError, match=r"params\.yaml: is empty or not a mapping; start from studies/"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch owned']", "!!python/name:os.system", "!!python/tuple [1]"]
)
def test_python_tags_are_refused(tmp_path, tag, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FinetraceError, match="not valid YAML"):
        load(tmp_path, f"study: {{name: x}}\ntrain: {tag}\n")
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]


def test_a_key_written_twice_is_an_error(tmp_path):
    with pytest.raises(FinetraceError, match=r"params\.yaml line 5: .*'epochs' stands twice; remove one"):
        load(tmp_path, "study: {name: x}\ntrain:\n  epochs: 1\n  batch_size: 4\n  epochs: 3\n")


def test_anchors_and_merge_keys_work(tmp_path):
    loaded = load(
        tmp_path,
        "study: {name: été}\nmethods:\n  a: &a {settings: tuned, train: {epochs: 1}}\n  b: {<<: *a, settings: fixed}\n",
    )
    assert loaded.methods["b"].settings == "fixed" and loaded.methods["b"].train == {"epochs": 1}
    assert loaded.study.name == "été"


def test_no_key_is_a_word_that_yaml_reads_as_a_truth_value():
    def names(cls):
        for field in dataclasses.fields(cls):
            yield field.name
            kind = typing.get_type_hints(cls)[field.name]
            for inner in (kind, *typing.get_args(kind)):
                if dataclasses.is_dataclass(inner):
                    yield from names(inner)

    found = list(names(Study))
    assert len(found) > 100 and {"learning_rate", "representations"} <= set(found)
    assert [name for name in found if not isinstance(yaml.safe_load(name), str)] == []
