"""Tasks without classes in a study: which lenses look at them, and what is refused before anything runs."""

from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.study import Study, parse_study
from finetrace.study.plan import plan_of

FILES = {"path": "sources/x", "text": ["text"], "label": "label"}
BASE: dict[str, Any] = {
    "study": {"name": "demo"},
    "pretrain": {"a": {}},
    "tasks": {"senti": {"source": "micro", "config": "micro-sentiment"}, "stsb": None},
    "task_files": {"many": {**FILES, "target": "multi-label"}},
    "runs": [{"model": "a", "task": ["senti", "stsb", "many"]}],
}
NUMBERS, MANY, SENTI = "a/stsb/ft/s1", "a/many/ft/s1", "a/senti/ft/s1"


def study(**changes: Any) -> Study:
    return parse_study({**BASE, **changes}, "params.yaml")


def refusal(**changes: Any) -> str:
    with pytest.raises(FinetraceError) as caught:
        plan_of(study(**changes))
    return str(caught.value)


def test_without_look_the_lenses_that_need_classes_are_left_out(caplog):
    with caplog.at_level("INFO", "finetrace"):
        looked = study().looked
    at = {lens for lens, places in looked.items() if NUMBERS in places}
    assert at == {lens for lens, places in looked.items() if MANY in places} == {"geometry", "similarity"}
    assert set(looked["infodynamics"]) == set(looked["probes"]) == set(looked["calibration"]) == {SENTI}
    assert sum(NUMBERS in record.message for record in caplog.records) >= 1
    assert "infodynamics, hulls" not in caplog.text and "infodynamics, probes" in caplog.text


def test_a_study_of_numbers_alone_needs_no_look():
    looked = study(runs=[{"model": "a", "task": "stsb"}]).looked
    assert {lens: list(places) for lens, places in looked.items()} == {"geometry": [NUMBERS], "similarity": [NUMBERS]}


def test_no_predictions_where_no_lens_reads_them():
    items = {(item.stage, item.key) for item in plan_of(study())}
    assert ("hidden", "a_stsb_ft_s1") in items and ("predictions", "a_stsb_ft_s1") not in items


def test_a_group_or_a_wide_pattern_leaves_them_out():
    looked = study(look={"layers": "a/stsb/**", "infodynamics": "a/*/ft/s1"}).looked
    assert set(looked) == {"infodynamics", "geometry", "similarity"} and set(looked["infodynamics"]) == {SENTI}


@pytest.mark.parametrize("look", [{"hulls": NUMBERS}, {"hulls": "a/stsb/**"}, {"hulls": [SENTI, NUMBERS]},
                                  {"hulls": {"at": NUMBERS}}, {"kernel": "a/stsb/ft/*"}])
def test_a_lens_that_is_named_is_refused(look):
    message = refusal(look=look)
    assert f"needs classes, and the task of {NUMBERS} has none (target: regression)" in message
    assert message.count("\n") == 0


def test_ranges_make_classes():
    tasks = BASE["tasks"] | {"stsb": {"label_ranges": {"low": [None, 2.5], "high": [2.5, None]}}}
    assert NUMBERS in study(tasks=tasks, look={"hulls": NUMBERS}).looked["hulls"]


@pytest.mark.parametrize(("changes", "told"), [
    ({"runs": [{"model": "a", "task": "stsb", "method": "lp"}], "look": {}},
     "method lp fits a linear probe, which needs classes, and stsb is target: regression; train it by ft or lora"),
    ({"train": {"label_smoothing": 0.1}}, "train.label_smoothing: is about examples of one class each, and stsb is"),
    ({"train": {"class_weights": "balanced"}}, "set it back in by_task.stsb"),
    ({"runs": [{"model": "a", "task": "senti", "method": "lp-ft"}], "train": {"class_weights": {"positive": 2}}},
     "does not reach the linear probe of method lp-ft"),
    ({"train": {"thresholds": "chosen"}}, "train.thresholds: stsb is target: regression"),
    ({"cross_tasks": {"x": {"tuned": SENTI, "task": "stsb"}}}, "cross_tasks.x.task: stsb is target: regression"),
    ({"downstream": {"x": {"trajectory": "a/pretrain", "task": "stsb"}}}, "downstream.x.task: stsb is target"),
    ({"tune": {"space": {"model": {"choices": ["a", "b"]}}}}, "name the models in `runs`"),
])
def test_what_a_task_without_classes_cannot_have(changes, told):
    assert told in refusal(**changes)


def test_settings_are_written_as_before_where_nothing_new_is_said():
    items = {(item.stage, item.key): item.asked for item in plan_of(study())}
    train, data = items["train", "a_senti_ft_s1"]["train"], items["data", "senti"]["task"]
    assert not {"class_weights", "label_smoothing", "thresholds"} & set(train)
    assert not {"target", "labels", "files", "group"} & set(data)
    assert items["data", "stsb"]["task"]["target"] == "regression"
    told = plan_of(study(by_task={"senti": {"class_weights": "balanced"}}))
    assert next(i for i in told if i.key == "a_senti_ft_s1" and i.stage == "train").asked["train"]["class_weights"]
