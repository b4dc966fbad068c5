"""Series that are looked at with tasks: which lenses can look where, which items follow, what is refused."""

from typing import Any

import pytest
import yaml
from tests.unit.test_docs import ROOT, blocks

from finetrace.errors import FinetraceError
from finetrace.study import parse_study
from finetrace.study.plan import plan_of

BASE: dict[str, Any] = {
    "study": {"name": "demo"},
    "models": {"m": {"id": "lab/m"}},
    "tasks": {"t": {"source": "micro", "config": "micro-sentiment"}, "u": {"source": "micro", "config": "micro-topic"}},
    "series": {"folder": {"path": "runs/mine", "tasks": ["t", "u"], "head": "t"},
               "one": {"model": "m", "tasks": "t"},
               "hub": {"id": "lab/{step}", "steps": [1, 2], "tasks": ["t"]},
               "traced": {"path": "runs/traced", "tasks": "t", "signals": True}},
}
HEADS = {"folder/t/given/s1", "traced/t/given/s1"}


def problem(**changes: Any) -> str:
    content = BASE | {k: {**BASE[k], **v} if isinstance(v, dict) and k in BASE else v for k, v in changes.items()}
    with pytest.raises(FinetraceError) as caught:
        parse_study(content, "params.yaml")
    return str(caught.value)


def test_without_look_the_cheap_lenses_look_as_far_as_they_can() -> None:
    looked = parse_study(BASE, "params.yaml").looked
    every = ["folder/t/given/s1", "folder/u/given/s1", "one/t/given/s1", "hub/t/given/s1", "traced/t/given/s1"]
    assert {lens: list(places) for lens, places in looked.items()} == {
        "infodynamics": ["traced/t/given/s1"],
        **dict.fromkeys(("geometry", "similarity", "probes", "convergence"), every),
        "calibration": sorted(HEADS), "features": sorted(HEADS)}


def test_numbers_are_looked_at_by_lenses_that_need_no_classes() -> None:
    of_numbers = {"tasks": {**BASE["tasks"], "stsb": None}, "series": {"one": {"model": "m", "tasks": "stsb"}}}
    looked = parse_study(BASE | of_numbers, "params.yaml").looked
    assert {lens: list(places) for lens, places in looked.items()} == {
        lens: ["one/stsb/given/s1"] for lens in ("geometry", "similarity")}
    assert "series.one.head: stsb is target: regression" in problem(
        tasks=of_numbers["tasks"], series={"one": {"path": "runs/one", "model": "", "tasks": ["stsb"], "head": "stsb"}})


def test_groups_and_all_mean_the_places_that_a_lens_can_look_at() -> None:
    look = {"layers": "*/u/given/*", "answers, kernel": "all", "edges": "folder/pretrain"}
    looked = parse_study(BASE | {"look": look, "edges": {"tasks": ["t"]}}, "params.yaml").looked
    assert set(looked["kernel"]) == set(looked["calibration"]) == HEADS
    assert list(looked["hulls"]) == ["folder/u/given/s1"] and list(looked["edges"]) == ["folder/pretrain"]


def test_the_items_of_a_series() -> None:
    study = parse_study(BASE | {"look": {"kernel": "traced/t/given/s1", "geometry": "folder/t/given/s1"}},
                        "params.yaml")
    items = {f"{item.stage}@{item.key}": item for item in plan_of(study)}
    made = ["series@hub", "series-folder@folder", "series-folder@traced", "series-model@one"]
    given = [f"given@{key}" for key in study.given]
    assert sorted(name for name in items if name.startswith(("series", "given"))) == sorted([*given, *made])
    assert [name for name in items if name.startswith(("hidden", "predictions"))] == ["hidden@folder_t_given_s1"]
    folder = items["series-folder@folder"]
    assert (folder.paths, folder.folder) == ({"path": "runs/mine"}, "series")
    assert items["kernel@traced_t_given_s1"].paths["base"] == "outputs/traced/pretrain/trajectory"
    asked = items["given@traced_t_given_s1"].asked
    assert asked is not None and asked["given"] == {
        "head": True, "labels": (), "recorded": "runs/traced", "max_length": 128, "pieces": "mean"}


def test_another_task_does_not_look_a_series_up_again() -> None:
    def asked(series: dict[str, Any]) -> Any:
        study = parse_study(BASE | {"series": {"x": {"path": "runs"} | series}}, "params.yaml")
        return next(item.asked for item in plan_of(study) if item.stage == "series-folder")

    assert asked({}) == asked({"tasks": ["t", "u"], "head": ["u"]}) != asked({"pattern": "step-{step}"})


def test_given_trajectories_are_compared() -> None:
    sides = {"first": "one/t/given/s1", "second": "folder/t/given/s1"}
    study = parse_study(BASE | {"look": {}, "comparisons": {"x": sides}}, "params.yaml")
    assert [item.key for item in plan_of(study) if item.stage == "hidden"] == ["folder_t_given_s1", "one_t_given_s1"]


def test_the_study_of_the_guide_is_one() -> None:
    texts = [text for text in blocks(ROOT / "docs/use.md", "yaml") if "TraceCallback" in text]
    study = parse_study(yaml.safe_load(texts[0]), "docs/use.md")
    assert len(study.given) == 7 and len(study.looked["calibration"]) == 2


@pytest.mark.parametrize(("changes", "words"), [
    ({"look": {"calibration": "one/t/given/s1"}},
     "look.calibration: 'one/t/given/s1': at one/t/given/s1 calibration needs the checkpoints' own head; if they have "
     "one for its classes, say so: head: t (series.one)"),
    ({"look": {"infodynamics": "folder/**"}}, "infodynamics needs the signals of a training; of a folder that"),
    ({"look": {"edges": "one/t/given/s1"}, "edges": {"tasks": ["t"]}}, "edges needs the place one/pretrain"),
    ({"series": {"x": {"path": "a", "tasks": ["v"]}}}, "series.x.tasks: 'v' is not defined; known: t, u"),
    ({"series": {"x": {"path": "a", "tasks": ["t"], "head": "u"}}}, "head: 'u' is none of tasks (t); name it there"),
    ({"series": {"x": {"model": "n"}}}, "series.x.model: 'n' is not defined; known: m"),
    ({"series": {"x": {"tasks": "t"}}}, "series.x: names nothing; name one of id (hub), path (folder), model"),
    ({"series": {"x": {"id": "a", "path": "b"}}}, "series.x: names id and path; name one of"),
    ({"series": {"x": {"path": "b", "revision": "c"}}}, "revision: says nothing about a folder (path); remove it"),
    ({"series": {"x": {"id": "b", "pattern": "c-{step}"}}}, "pattern: says nothing about a hub id; remove it"),
    ({"series": {"x": {"path": "b", "pattern": "c"}}}, "pattern: 'c' does not have {step} once"),
    ({"series": {"x": {"path": "outputs/x"}}}, "series: x: path outputs/x lies in outputs/x, which the result"),
    ({"series": {"x": {"path": "b", "tasks": "t", "labels": ["a", "b"]}}}, "labels: are of a head; name its task"),
    ({"series": {"x": {"path": "b", "tasks": ["t", "u"], "signals": True}}}, "signals: are of one training on one"),
    ({"series": {"x": {"id": "b", "phases": [{"revision": "s{step}"}]}}}, "phases.0.steps: is missing; the hub is"),
    ({"series": {"x": {"id": "b", "phases": [{"pattern": "s{step}", "steps": [1]}]}}}, "stand in revision"),
    ({"series": {"x": {"path": "b", "steps": [1], "phases": [{"pattern": "s{step}"}]}}}, "remove those beside them"),
    ({"methods": {"given": {"kind": "ft"}}}, "methods: 'given' stands for checkpoints that were made elsewhere"),
    ({"adapt": {"x": {"start": "one/t/given/s1", "corpus": "t"}}}, "adapt.x.start: 'one/t/given/s1' is not defined"),
])
def test_what_is_wrong_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in problem(**changes)
