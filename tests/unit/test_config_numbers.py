"""params.yaml: numbers that are none, what a search may try, and numbers that stand for names."""

from typing import Any

import pytest

from finetrace.config.yamlfile import load_yaml
from finetrace.errors import FinetraceError
from finetrace.study import Study, parse_study

LOCAL = "task_files: {own: {path: x.csv, text: [text], label: label, %s}}"


def study(text: str) -> Study:
    return parse_study({"study": {"name": "demo"}, **load_yaml(text)}, "demo.yaml")


def problem(text: str) -> str:
    with pytest.raises(FinetraceError) as caught:
        study(text)
    return str(caught.value)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400", "1.0e+400"])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {learning_rate: %s}", "train.learning_rate: "),
        ("record: {resume_seconds: %s}", "record.resume_seconds: "),
        ("by_task: {rte: {weight_decay: %s}}\ntasks: {rte: {}}", "by_task.rte: weight_decay: "),
        ("tune: {space: {warmup: {low: 0.0, high: %s}}}", "tune.space.warmup.high: "),
        ("pretrain: {micro-a: {learning_rate: %s}}", "pretrain.micro-a.learning_rate: "),
        (LOCAL % "label_ranges: {good: [0.5, %s]}", "task_files.own.label_ranges.good.1: "),
    ],
)
def test_infinite_settings_are_refused(text: str, key: str, value: str):
    assert f"{key}Input should be a finite number" in problem(text % value)


def test_truth_values_are_no_numbers():
    told = problem("train: {learning_rate: true, max_steps: false}\nrecord: {probe: {every: true}}")
    assert "train.learning_rate: a number is needed, not True" in told
    assert "train.max_steps: a number is needed, not False" in told and "record.probe.every" in told


def test_changes_that_no_run_uses_are_looked_at():
    tasks = "\ntasks: {rte: {}}"
    assert "by_task.rte: batch_size: 0 is less than 1" in problem("by_task: {rte: {batch_size: 0}}" + tasks)
    study("by_task: {rte: {batch_size: 12, accumulate: 4}}" + tasks)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("batch_size: {low: 8, high: 32}", "space.batch_size: is a whole number; add type: int"),
        ("batch_size: {low: 0.5, high: 32, log: true}", "space.batch_size: is a whole number; add type: int"),
        ("batch_size: {low: 1.5, high: 32, type: int}", "low: 1.5 is no whole number, as type: int needs"),
        ("batch_size: {low: 0, high: 32, type: int}", "batch_size: 0 is less than 1; every value that can be drawn"),
        ("batch_size: {choices: [8, 16.5]}", "got 16.5"),
        ("accumulate: {choices: [0, 4]}", "every value that can be drawn must be one that train.accumulate can have"),
        ("learning_rate: {low: 0, high: 1}", "learning_rate: 0.0 is not positive"),
        ("learning_rate: {choices: [1e-5, inf]}", "Input should be a finite number"),
        ("warmup: {low: 0.0, high: 1.5}", "warmup: 1.5 is a share of the steps"),
        ("keep: {choices: [last, first]}", "'last' or 'best'"),
        ("keep: {low: 1, high: 2}", "space.keep: has no range; give `choices`"),
        ("lora_targets: {low: 1, high: 2}", "space.lora_targets: is a list"),
        ("lora_targets: {choices: [[query], [query, value]]}", "choices: ['query'] is none of what a search can try"),
        ("dropout: {choices: [0.1, ~]}", "choices: None is none of what a search can try"),
    ],
)
def test_searches_that_would_draw_what_cannot_be(space: str, told: str):
    message = problem(f"tune: {{space: {{{space}}}}}")
    assert told in message and "\n" not in message


def test_searches_that_can_be():
    space = study(
        "tune: {space: {batch_size: {low: 8, high: 32, type: int}, accumulate: {choices: [4, 8]}, head_scale_bias: "
        "{choices: [true, false]}, dropout: {low: 0.0, high: 0.5}, learning_rate: {choices: [1e-5, 3.0e-5]}}}"
    ).tune.space
    assert space is not None
    assert space["accumulate"].choices == [4, 8] and space["learning_rate"].choices == [1e-5, 3e-5]
    assert [type(c) for c in space["head_scale_bias"].choices or ()] == [bool, bool]


# --- names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("label_names: [no, yes]", ("no", "yes")),
        ("label_names: [off, y, 1, 2.50]", ("off", "y", "1", "2.50")),
        ("label_names: [2024-01-01, +1]", ("2024-01-01", "+1")),
    ],
)
def test_what_stands_for_a_name_is_the_text_that_was_written(text: str, names: tuple[str, ...]):
    assert study(LOCAL % text).task_files["own"].label_names == names


def test_numbers_as_names_of_entries_and_values():
    one = study(
        "tasks: {2024: {source: micro, config: micro-nli}}\n"
        "models: {m: {id: a/b, revision: 1234567}, n: {id: a/b, revision: 1.10}}\n"
        + LOCAL % "label_values: {0: neg, 1: pos, -1: null}"
    )
    assert list(one.tasks) == ["2024"] and one.models["m"].revision == "1234567" and one.models["n"].revision == "1.10"
    assert one.task_files["own"].label_values == {"0": "neg", "1": "pos", "-1": None}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LOCAL % "label_names: [true, false]",
         "label_names.0: true is a truth value, and a text is needed; put it in quotes"),
        (LOCAL % "label_values: {true: a}", "true is a truth value, and a text is needed; put it in quotes"),
        ("runs: [{model: {}, task: rte}]", "runs.0.model: Input should be a valid string or a valid tuple"),
    ],
)
def test_what_cannot_be_a_name(text: str, told: str):
    message = problem(text)
    assert told in message.splitlines()[0]


def test_settings_keep_their_types():
    one: Any = study("train: {learning_rate: 1.0e-3, batch_size: 1_6, lp_parity: yes}").train
    assert (one.learning_rate, one.batch_size, one.lp_parity) == (1e-3, 16, True)
    assert type(one.learning_rate) is float and type(one.batch_size) is int
