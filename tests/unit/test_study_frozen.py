"""The studies mean what they meant before `runs` and `look`: tests/data/studies-f8e897a.json lists every item with
its settings, as the code before read them from the files before."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetrace.study import load_study
from finetrace.study.plan import Item, plan_of

ROOT = Path(__file__).parents[2]
FROZEN = json.loads((ROOT / "tests/data/studies-f8e897a.json").read_text("utf-8"))
NOT_ITEMS = ("study", "world", "tracking")
STAGES = {stage for groups in FROZEN.values() for stage in groups}  # a lens that came after is in none
LATER = ("on_nonfinite",)  # keys of `record` that came after; their defaults are what was

PUBLISHED = ("id", "revision", "steps", "unit", "tokenizer", "keep")  # of `series`; other keys came after


def as_before(item: Item) -> tuple[str, str, Any]:
    """Stage, name and settings of an item in the words of the frozen list."""
    asked, stage = item.asked or {}, item.folder
    if stage == "series":
        later = {key for key, value in asked[stage].items() if key not in PUBLISHED and not value}
        return stage, item.key, {key: value for key, value in asked[stage].items() if key not in later}
    if stage == "facts":
        return stage, item.key, asked.get("facts") or asked["fact_files"]
    if stage == "data":
        sets = {name: without_new(one) for name, one in asked["ood"].items()}
        return stage, item.key, {"task": without_new(asked["task"]), "ood": sets}
    if stage == "model":
        return item.stage, item.key, asked["model"]
    if stage == "tune":
        return (
            stage,
            asked["place"],
            {"kind": asked["method"]["kind"], "train": asked["train"], "tune": asked["tune"]},
        )
    if stage == "train":
        record = {key: value for key, value in asked["record"].items() if key not in LATER}
        return stage, asked["place"], {**asked["kind"], "record": record, "train": asked["train"]}
    if stage == "downstream":
        return stage, item.key, {**asked["downstream"], "train": asked["train"]}
    if stage == "dynamics":
        sources = [source for source in asked[stage]["sources"] if source in STAGES]
        return stage, item.key, {**asked[stage], "sources": sources}
    if stage == "comparison":
        return stage, item.key, {**asked["comparison"], **asked["similarity"]}
    if stage == "cross-task":
        return stage, item.key, {**asked["cross_task"], "hidden": asked["hidden"], "probes": asked["probes"]}
    return stage, asked.get("place", item.key), asked[stage]


def without_new(rows: dict[str, Any]) -> dict[str, Any]:
    """Settings of rows without the keys that are younger than the list; none of its studies uses them."""
    assert rows["columns"] is None
    return {key: value for key, value in rows.items() if key != "columns"}


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_a_study_means_what_it_meant(name: str):
    wanted = {
        (stage, at): group["settings"]
        for stage, groups in FROZEN[name].items()
        if stage not in NOT_ITEMS
        for group in groups
        for at in group["at"]
    }
    items = plan_of(load_study(ROOT / f"studies/{name}.yaml"))
    found = {
        (stage, at): json.loads(json.dumps(settings))
        for stage, at, settings in (as_before(item) for item in items if item.stage != "inputs"
                                    and {item.stage, item.folder} & STAGES)
    }
    assert set(found) == set(wanted)
    for key, settings in wanted.items():
        assert found[key] == settings, key


def test_every_study_is_in_the_list():
    assert {path.stem for path in (ROOT / "studies").glob("*.yaml")} == set(FROZEN)


def test_the_default_study_is_the_one_in_params():
    chosen, default = ((ROOT / name).read_text("utf-8") for name in ("params.yaml", "studies/micro.yaml"))
    assert chosen == default, "edit both alike, or choose the default study again: finetrace use micro"


@pytest.mark.parametrize(("name", "most"), [("micro", 18), ("lp-ft", 10)])
def test_few_lines_say_what_runs_and_who_looks(name: str, most: int):
    lines = (ROOT / f"studies/{name}.yaml").read_text("utf-8").splitlines()
    said, inside = 0, False
    for line in lines:
        inside = line.startswith(("runs:", "look:")) or (inside and line.startswith((" ", "-")))
        said += inside
    assert said <= most
