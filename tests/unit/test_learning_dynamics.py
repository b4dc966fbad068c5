"""The tables of learning dynamics, from a table that the stage could have written."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.markdown import plain
from tests.outputs import manifest

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.dynamics.table import UNION, Key, Table
from finetrace.reports.learning_dynamics import tables
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table

STEPS = [0, 2000]
FACTS = {"arms": {"original": ["a/pretrain", "b/pretrain"], "adapted": ["c/adapt", "d/adapt"]},
         "axes": {"original": "pre-training steps", "adapted": "pre-training steps"}, "identical_rows": 0,
         "identical": [], "left_out": []}


def filled() -> Table:
    table = Table()

    def add(key: Key, value, spread=None, p=None, steps=STEPS):
        ends = [None, None] if spread is None else [[v - spread for v in value], [v + spread for v in value]]
        table.add(key, steps, value, *ends, p, n=50, seeds=2)

    pos = Key("edges", "pos", "original", "f1", "full", 2)
    add(pos, [0.5, 0.875], 0.0625)
    for layer, values in enumerate(([0.25, 0.5], [0.5, 0.9375], [0.375, 0.75])):
        add(pos._replace(readout="layer", layer=layer), values)
    add(pos._replace(statistic="cog"), [1.0, 1.25])
    add(pos._replace(statistic="expected_layer", readout="mix"), [0.75, 1.5])
    add(pos._replace(statistic="f1_step_90"), [2000], steps=[2000])
    add(pos._replace(statistic="f1_step_90_interpolated"), [1500], 500, steps=[2000])
    add(pos._replace(statistic="f1_area"), [0.75], steps=[2000])
    add(pos._replace(arm="adapted"), [0.5, 0.75])
    add(pos._replace(arm="difference"), [0.0, -0.125], 0.0625, [1.0, 0.001])
    facts = Key("cloze", "world", "original", "p_at_1", "own", 2)
    for layer, values in ((0, [0.0, 0.0]), (2, [0.0, 0.5]), (UNION, [0.0, 0.625])):
        add(facts._replace(layer=layer), values)
        add(facts._replace(layer=layer, statistic="p_at_10"), [0.125, 0.75])
    add(facts._replace(held_out=True), [0.0, 0.0])
    add(facts._replace(readout="tuned"), [0.25], steps=[2000])
    for name, share in (("kept", 0.25), ("lost", 0.5), ("learned", 0.125)):
        add(facts._replace(arm="difference", statistic=name), [0.0, share])
    down = Key("downstream", "chemprot", "original", "accuracy")
    add(down, [0.5, 0.75], 0.125)
    add(down._replace(arm="adapted"), [0.5, 0.875])
    add(down._replace(statistic="majority"), [0.375, 0.375])
    return table


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, tmp_path)
    write(layout, FACTS)
    return layout


def write(layout: Layout, facts: dict) -> None:
    write_table(layout.dynamics("life") / "table.parquet", filled().columns())
    made = manifest("lens", "dynamics", "life")
    made.facts = facts
    complete(layout.dynamics("life"), made)


def study(*names: str) -> SimpleNamespace:
    return SimpleNamespace(dynamics=dict.fromkeys(names))


def lines(text: str, heading: str) -> list[str]:
    return text.split(f"**{heading}", 1)[1].split("\n\n", 2)[1].split("\n")


def test_scores_by_step_with_best_and_last_layer(project):
    text = plain(tables(project, study("life")))
    assert lines(text, "Words probed, F1") == ["| step | pos |", "| --- | --- |", "| 0 | 50.0 / 50.0 (1) / 37.5 |",
                                               "| 2,000 | 87.5 / 93.8 (1) / 75.0 |"]
    assert lines(text, "Words probed: centre of gravity")[2:] == ["| 0 | 1.00; 0.75 |", "| 2,000 | 1.25; 1.50 |"]


def test_when_things_are_learned(project):
    found = lines(plain(tables(project, study("life"))), "When it is learned (pre-training steps)")
    assert found[2:] == ["| pos (f1) | 50.0 | 87.5 | 2,000 | 1,500 [1,000, 2,000] | 75.0 |",
                         "| world (p_at_1) | 0.0 | 50.0 | - | - | - |",
                         "| chemprot (accuracy) | 50.0 | 75.0 | - | - | - |"]


def test_facts_by_layer_and_readout(project):
    text = plain(tables(project, study("life")))
    assert lines(text, "Facts of world, read-out own") == [
        "| step | 0 | 2 | any layer | held-out facts |", "| --- | --- | --- | --- | --- |",
        "| 0 | 0.0 / 12.5 | 0.0 / 12.5 | 0.0 / 12.5 | 0.0 / - |",
        "| 2,000 | 0.0 / 75.0 | 50.0 / 75.0 | 62.5 / 75.0 | 0.0 / - |"]
    assert lines(text, "Facts of world, read-out tuned") == ["| step | 2 |", "| --- | --- |", "| 2,000 | 25.0 / - |"]
    assert lines(text, "Facts that adaptation kept")[2:] == ["| world, own | 0 | 0.0 / 0.0 / 0.0 | - | - | - |",
                                                            "| world, own | 2,000 | 25.0 / 50.0 / 12.5 | - | - | - |"]


def test_adapted_original_and_downstream(project):
    text = plain(tables(project, study("life")))
    assert lines(text, "Adapted, original and control")[2:] == [
        "| pos | 0 | 50.0 | 50.0 | - | +0.0 [-6.2, +6.2] | 1.000 | - | - |",
        "| pos | 2,000 | 87.5 | 75.0 | - | -12.5 [-18.8, -6.2] | 0.001 | - | - |"]
    assert lines(text, "Learned downstream")[2:] == ["| 0 | 50.0 [37.5, 62.5]; 50.0 |",
                                                     "| 2,000 | 75.0 [62.5, 87.5]; 87.5 |", "| majority class | 37.5 |"]
    assert "Means over 2 trajectories" in text and "Missing" not in text


def test_only_the_last_step_and_what_is_missing(project):
    text = plain(tables(project, study("life", "other"), last=True))
    assert "\n| 0 |" not in text and lines(text, "life: Words probed, F1")[2:] == ["| 2,000 | 87.5 / 93.8 (1) / 75.0 |"]
    assert text.endswith("Missing:\n- dvc repro dynamics@other\n")


def test_what_a_reader_must_know_is_said(project):
    one = {"original": ["a/pretrain"], "adapted": ["c/adapt"]}
    write(project, FACTS | {"arms": one, "axes": {"original": "pre-training steps", "adapted": "adaptation steps"},
                            "identical_rows": 7, "identical": ["edges, pos, step 0: a and b"],
                            "left_out": ["edges: 1 task"]})
    text = plain(tables(project, study("life")))
    assert "One trajectory per arm" in text and "adaptation steps, compared with the original's last checkpoint" in text
    assert "Warning: 7 pairs" in text and "edges, pos, step 0: a and b" in text and "Left out: edges: 1 task." in text


def test_a_study_without_dynamics_is_told_what_to_add(project):
    with pytest.raises(FinetraceError, match="the section dynamics is empty; add an entry"):
        tables(project, study())


def test_minimal_pairs_and_when_they_are_acquired(project):
    table = filled()
    whole = Key("pairs", "blimp", "original", "accuracy")
    for key, values in ((whole, [0.5, 0.75]), (whole._replace(relation="agreement"), [0.5, 0.875]),
                        (whole._replace(held_out=True), [0.5, 0.5])):
        table.add(key, [0, 2000], values, n=8, seeds=2)
    table.add(whole._replace(relation="agreement", statistic="age_of_acquisition"), 2000, 1000, 500, 1500, n=8, seeds=2)
    write_table(project.dynamics("life") / "table.parquet", table.columns())
    made = manifest("lens", "dynamics", "life")
    made.facts = FACTS
    complete(project.dynamics("life"), made)
    text = plain(tables(project, study("life")))
    assert lines(text, "Minimal pairs of blimp") == [
        "| step | all | agreement | control |", "| --- | --- | --- | --- |", "| 0 | 50.0 | 50.0 | 50.0 |",
        "| 2,000 | 75.0 | 87.5 | 50.0 |", "| acquired | - | 1,000 [500, 1,500] | - |"]
    assert "| blimp (accuracy) | 50.0 | 75.0 |" in text
