"""Minimal pairs in learning dynamics: what the lens pairs found, on the time axis of all sources."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.dynamics_outputs import NAME, STEPS, dynamics_stage, make_downstream, make_edges, make_pairs, make_place
from tests.hidden_outputs import check_redrawn, run_main

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.dynamics.gains import area_under_curve, step_of_gain
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.lenses.dynamics.table import Key, Table
from finetrace.lenses.pairs.summary import AGE
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_long_table, read_table, write_table

PLACES = {"original": ("m1/pretrain", "m2/pretrain"), "adapted": ("t1/adapt", "t2/adapt")}
WHOLE = Key("pairs", "blimp", "original", "accuracy")


def settings(arms=("original",), seeds=1, **more) -> DynamicsSettings:
    arms_of = {arm: PLACES[arm][:seeds] for arm in arms}
    return DynamicsSettings(**arms_of, **{"draws": 200, "sources": ("pairs",)} | more)


def project(root: Path, arms=("original",), seeds=1) -> Layout:
    layout = Layout(root, root)
    for arm in arms:
        for seed, place in enumerate(PLACES[arm][:seeds], 1):
            make_place(layout, place, "pre-training steps")
            make_pairs(layout, place, seed=seed, top=1.0 if arm == "original" else 0.6)
    return layout


def run(root: Path, entry: DynamicsSettings, figures: bool = False, **stage) -> tuple[Table, Path]:
    made = dynamics_stage(root, entry, **{"paired": PLACES["original"]} | stage)
    out = made.layout.dynamics(NAME)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(made.layout.measured("dynamics", NAME), ignore_errors=True)
    run_main(made, figures=figures)
    return Table.of_columns(read_table(out / "table.parquet").to_pydict()), out


def test_courses_and_ages_are_the_lens_s_own(tmp_path: Path) -> None:
    layout = project(tmp_path)
    table, out = run(tmp_path, settings())
    own = read_long_table(layout.place("m1/pretrain") / "pairs/table.parquet").select(field="", paradigm="")
    for phenomenon, control in (("", False), ("agreement", False), ("order", False), ("unknown", True)):
        key = WHOLE._replace(relation=phenomenon, held_out=control)
        found = table.course(key)
        theirs = own.course(STEPS, phenomenon=phenomenon, control=control, statistic="accuracy")
        np.testing.assert_allclose(found.value, theirs[:, 0])
        assert np.all((found.low <= found.value) & (found.value <= found.high)) and found.seeds == 1
        margin = table.course(key._replace(statistic="margin_nats"))
        np.testing.assert_allclose(margin.value, own.course(STEPS, phenomenon=phenomenon, control=control,
                                                            statistic="margin_nats")[:, 0])
        age = table.get(key._replace(statistic=AGE))
        if control:
            assert age is None
        else:
            theirs = own.course(STEPS[-1:], phenomenon=phenomenon, control=control, statistic=AGE)[0]
            assert age is not None and age.steps.tolist() == [160]
            np.testing.assert_allclose(age.last, theirs)
            rise = table.course(key._replace(statistic="accuracy_step_90_interpolated"))
            np.testing.assert_allclose(rise.value[-1],
                                       step_of_gain(np.array(STEPS), found.value, unit=10).interpolated)
            area = table.course(key._replace(statistic="accuracy_area"))
            np.testing.assert_allclose(area.value[-1], area_under_curve(np.array(STEPS), found.value, 10))
            assert area.low[-1] <= area.value[-1] <= area.high[-1]
    assert [table.course(WHOLE._replace(relation=name)).n for name in ("", "agreement", "order")] == [60, 40, 20]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics[f"pairs/blimp/{AGE}"] == table.course(WHOLE._replace(statistic=AGE)).value[-1]
    assert {f"pairs/blimp/accuracy/{what}" for what in ("first", "last", "step_90", "area")} <= set(metrics)
    facts = read_manifest(out).facts
    assert facts["n"] == {"pairs/blimp": 60, "pairs/blimp/control": 20} and facts["resampled"] == {"pairs": "examples"}
    assert "pairs/blimp/accuracy" in (out / "curves.csv").read_text().splitlines()[0]


def test_seeds_are_resampled_and_their_ages_averaged(tmp_path: Path) -> None:
    layout = project(tmp_path, seeds=2)
    table, out = run(tmp_path, settings(seeds=2), figures=True)
    own = [read_long_table(layout.place(place) / "pairs/table.parquet") for place in PLACES["original"]]
    ages = [one.value(field="", phenomenon="agreement", paradigm="", statistic=AGE) for one in own]
    found = table.course(WHOLE._replace(relation="agreement", statistic=AGE))
    assert found.value[-1] == pytest.approx(np.mean(ages)) and found.seeds == 2
    assert min(ages) - 1e-9 <= found.low[-1] < found.high[-1] <= max(ages) + 1e-9
    scores = [one.course(STEPS, field="", phenomenon="", paradigm="", statistic="accuracy")[:, 0] for one in own]
    np.testing.assert_allclose(table.course(WHOLE).value, np.mean(scores, axis=0))
    assert table.get(WHOLE._replace(statistic="accuracy_seed_sd")) is not None
    assert {path.stem for path in (out / "figures").glob("*.png")} == {"overview", "step_90", "acquisition"}


def test_a_phenomenon_that_one_seed_never_acquires_has_no_age(tmp_path: Path) -> None:
    layout = project(tmp_path, seeds=2)
    folder = layout.place("m2/pretrain") / "pairs"
    rows = read_table(folder / "table.parquet")
    lost = [s == AGE and p == "order" for s, p in zip(rows["statistic"].to_pylist(), rows["phenomenon"].to_pylist(),
                                                      strict=True)]
    write_table(folder / "table.parquet", rows.filter([not one for one in lost]))
    complete(folder, read_manifest(folder, verify=False))
    table, _ = run(tmp_path, settings(seeds=2))
    assert table.get(WHOLE._replace(relation="order", statistic=AGE)) is None
    assert table.get(WHOLE._replace(relation="agreement", statistic=AGE)) is not None


def test_what_adaptation_changes_is_paired_and_an_arm_it_has_not_seen_is_told(tmp_path: Path) -> None:
    layout = project(tmp_path, ("original", "adapted"))
    both = settings(("original", "adapted"))
    table, out = run(tmp_path, both, paired=("m1/pretrain", "t1/adapt"), figures=True)
    moved = table.course(WHOLE._replace(arm="difference"))
    np.testing.assert_allclose(moved.value, table.course(WHOLE._replace(arm="adapted")).value
                               - table.course(WHOLE).value)
    assert moved.high[-1] < 0 and read_manifest(out).facts["left_out"] == []
    shutil.rmtree(layout.place("t1/adapt") / "pairs")
    for place in ("m1/pretrain", "t1/adapt"):
        make_edges(layout, place, tasks=("pos",))
    alone, out = run(tmp_path, settings(("original", "adapted"), sources=("edges", "pairs")))
    assert {key.arm for key, _ in alone.select(source="pairs")} == {"original"}
    assert {key.arm for key, _ in alone.select(source="edges", statistic="f1")} >= {"adapted", "difference"}
    assert read_manifest(out).facts["left_out"] == ["pairs: adapted, at which it has not looked"]
    np.testing.assert_array_equal(alone.course(WHOLE).value, table.course(WHOLE).value)
    with pytest.raises(FinetraceError, match=r"no pairs results of t1/adapt; run finetrace repro pairs@t1_adapt"):
        run(tmp_path, both, paired=("m1/pretrain", "t1/adapt"))


def test_pairs_add_rows_and_leave_all_others_as_they_are(tmp_path: Path) -> None:
    layout = project(tmp_path)
    make_edges(layout, "m1/pretrain")
    make_downstream(layout, "learned")
    more = {"downstream": ("learned",)}
    asked = {"downstream": {"learned": ("m1/pretrain", "chem")}}
    before, _ = run(tmp_path, settings(sources=("edges",), **more), **asked)
    after, out = run(tmp_path, settings(sources=("edges", "pairs"), **more), **asked, figures=True)
    for key, course in before.select():
        np.testing.assert_array_equal(course.value, after.course(key).value)
        np.testing.assert_array_equal(course.high, after.course(key).high)
    assert {key.source for key, _ in after.select() if before.get(key) is None} == {"pairs"}
    assert (out / "figures/downstream.png").is_file()


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    project(tmp_path)
    stage = dynamics_stage(tmp_path, settings(), paired=PLACES["original"])
    check_redrawn(stage, tmp_path / "dynamics" / NAME, "finetrace.lenses.dynamics.report.metrics")


def test_common_pairs_are_compared_and_other_sets_refused(tmp_path: Path) -> None:
    layout = project(tmp_path, seeds=2)
    folder = layout.place("m2/pretrain") / "pairs"
    for path in sorted((folder / "scores").glob("*.parquet")):
        write_table(path, read_table(path).slice(1))
    complete(folder, read_manifest(folder, verify=False))
    table, out = run(tmp_path, settings(seeds=2))
    assert table.course(WHOLE).n == 59
    assert read_manifest(out).facts["left_out"] == [
        "pairs: 1 pair not in all trajectories: gender:0 good 0 bad 0"]
    path = folder / "scores/step-00000020.parquet"
    write_table(path, read_table(path).slice(1))
    complete(folder, read_manifest(folder, verify=False))
    with pytest.raises(FinetraceError, match=r"step-00000020.parquet: has 78 pairs instead of 79"):
        run(tmp_path, settings(seeds=2))
    for changes in ({"name": "babylm"}, {"scoring": "original"}):
        make_pairs(layout, "m2/pretrain", seed=2, **changes)
        with pytest.raises(FinetraceError, match="the trajectories have no set and scoring of pairs in common"):
            run(tmp_path, settings(seeds=2))
