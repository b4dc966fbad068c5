"""The stage dynamics on synthetic outputs of edges, cloze and downstream: files, numbers, arms, copies, clear
errors."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.dynamics_outputs import (
    NAME,
    RELATIONS,
    STEPS,
    dynamics_stage,
    make_cloze,
    make_downstream,
    make_edges,
    make_place,
)
from tests.hidden_outputs import check_redrawn, run_main

from finetrace.errors import FinetraceError
from finetrace.figures.style import to_png
from finetrace.layout import Layout
from finetrace.lenses.dynamics.figures import figures_of
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.lenses.dynamics.table import COLUMNS, DIFFERENCES, UNION, Key, Table
from finetrace.store.arrays import read_array, write_array
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.record import read_record
from finetrace.store.tables import read_table, write_table

SEEDS = (1, 2)
PLACES = {"original": tuple(f"m{s}/pretrain" for s in SEEDS), "adapted": tuple(f"t{s}/adapt" for s in SEEDS),
          "control": tuple(f"c{s}/adapt" for s in SEEDS)}
TOPS = {"original": 1.0, "adapted": 0.8, "control": 0.95}
LEARNED = {f"{arm}-{s}": (PLACES[arm][s - 1], "chem") for arm in ("original", "adapted") for s in SEEDS}


def settings(arms=("original",), seeds=1, **more) -> DynamicsSettings:
    return DynamicsSettings(**{arm: PLACES[arm][:seeds] for arm in arms}, **{"draws": 100} | more)


def project(root: Path, arms=("original",), seeds=1, axis="pre-training steps", steps=STEPS, **edges) -> Layout:
    """Outputs of both lenses for each arm and seed; `axis` and `steps` are those of adapted and control."""
    layout = Layout(root, root)
    for arm in arms:
        for seed, place in zip(SEEDS, PLACES[arm][:seeds], strict=False):
            first = arm == "original"
            make_place(layout, place, "pre-training steps" if first else axis)
            make_edges(layout, place, seed=seed, top=TOPS[arm], steps=STEPS if first else steps, **edges)
            make_cloze(layout, place, seed=seed, top=TOPS[arm], steps=STEPS if first else steps)
    return layout


def run(root: Path, entry: DynamicsSettings, figures: bool = False, **stage) -> Path:
    """As DVC does, which removes outputs beforehand, and without a kept measurement."""
    made = dynamics_stage(root, entry, **stage)
    out = made.layout.dynamics(NAME)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(made.layout.measured("dynamics", NAME), ignore_errors=True)
    run_main(made, figures=figures)
    return out


def table_of(out: Path) -> Table:
    return Table.of_columns(read_table(out / "table.parquet").to_pydict())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    """Three arms of two seeds, and a task learned downstream from two of them."""
    root = tmp_path_factory.mktemp("dynamics")
    layout = project(root, tuple(PLACES), 2)
    for name in LEARNED:
        make_downstream(layout, name, top=0.9 if "original" in name else 1.0, shift=int(name[-1]))
    return layout, run(root, settings(tuple(PLACES), 2, downstream=tuple(LEARNED)), figures=True, downstream=LEARNED)


def test_the_table_is_long_and_values_are_means_over_seeds(whole):
    layout, out = whole
    columns = read_table(out / "table.parquet")
    assert columns.column_names == list(COLUMNS)
    assert [str(columns.schema.field(n).type) for n in ("layer", "step", "value", "held_out", "seeds")] == [
        "int32", "int64", "double", "bool", "int64"]
    table = table_of(out)
    for task in ("pos", "dep"):
        course = table.course(Key("edges", task, "original", "f1", "mix", 1))
        assert course.steps.tolist() == list(STEPS) and (course.n, course.seeds) == (60, 2)
        for i in range(len(STEPS)):
            scores = []
            for place in PLACES["original"]:
                hits = read_array(layout.place(place) / "edges/hits" / f"{task}.npy")
                tp, fp, fn = hits[i, 4].sum(axis=0, dtype=int)
                scores.append(2 * tp / (2 * tp + fp + fn))
            assert (
                course.value[i] == pytest.approx(np.mean(scores)) and course.low[i] <= course.value[i] <= course.high[i]
            )
            sd = table.course(Key("edges", task, "original", "f1_seed_sd", "mix", 1))
            assert sd.value[i] == pytest.approx(np.std(scores, ddof=1))


def test_facts_are_macro_means_and_any_layer_leaves_the_embeddings_out(whole):
    layout, out = whole
    table = table_of(out)
    index = read_table(layout.place("m1/pretrain") / "cloze/facts/index.parquet").to_pylist()
    of_seeds, any_layer = [], []
    for place in PLACES["original"]:
        rows = read_table(layout.place(place) / "cloze/facts/step-00000040.parquet").to_pylist()
        right = {(r["layer"], r["fact"]): r["rank"] == 1 for r in rows if r["readout"] == "own"}
        for found, layers in ((of_seeds, [2]), (any_layer, [1, 2])):
            found.append([np.mean([any(right[layer, fact["fact"]] for layer in layers) for fact in index
                                   if fact["relation"] == relation and not fact["held_out"]])
                          for relation in sorted(RELATIONS)])
    at = STEPS.index(40)
    last = table.course(Key("cloze", "world", "original", "p_at_1", "own", 2))
    assert last.value[at] == pytest.approx(np.mean(of_seeds)) and last.n == 30
    union = Key("cloze", "world", "original", "p_at_1", "own", UNION)
    assert table.course(union).value[at] == pytest.approx(np.mean(any_layer))
    for column, relation in enumerate(sorted(RELATIONS)):
        here = table.course(union._replace(layer=2, relation=relation))
        assert here.value[at] == pytest.approx(np.mean(of_seeds, axis=0)[column])
        assert table.course(union._replace(layer=2, relation=f"type:{RELATIONS[relation]}")).value[at] == here.value[at]
    known = {name: table.course(Key("cloze", "world", "original", name, "own", 2))
             for name in ("learned", "kept", "lost")}
    assert (
        known["kept"].steps.tolist() == list(STEPS[1:]) and known["learned"].value[2] > 0.5 > known["lost"].value.max()
    )
    held_out = table.course(Key("cloze", "world", "original", "p_at_1", "own", 2, held_out=True))
    assert not held_out.value.any() and held_out.n == 10


def test_differences_are_paired_and_the_control_is_taken_off(whole):
    table, metrics = table_of(whole[1]), json.loads((whole[1] / "metrics.json").read_text())
    for key in (Key("edges", "pos", "original", "f1", "full", 2),
                Key("cloze", "world", "original", "p_at_1", "own", 2)):
        arms = {arm: table.course(key._replace(arm=arm)) for arm in (*PLACES, *DIFFERENCES)}
        np.testing.assert_allclose(arms["difference"].value, arms["adapted"].value - arms["original"].value)
        np.testing.assert_allclose(arms["net-difference"].value,
                                   arms["difference"].value - arms["control-difference"].value)
        assert (
            arms["difference"].high[-1] < 0 and arms["difference"].p[-1] < 0.05 and np.isnan(arms["original"].p).all()
        )
        width = [one.high[-2] - one.low[-2] for one in (arms["difference"], arms["adapted"])]
        assert width[0] < 1.5 * width[1]
    assert metrics["edges/pos/f1/difference"] == table.course(Key("edges", "pos", "difference", "f1", "full",
                                                                  2)).value[-1]
    moved = table.course(Key("edges", "pos", "difference", "cog", "full", 2))
    np.testing.assert_allclose(moved.value, -0.05 * np.log10(1 + np.array(STEPS)), atol=1e-12)
    assert table.course(Key("downstream", "chem", "difference", "accuracy")).value[-1] > 0
    forgotten = table.course(Key("cloze", "world", "difference", "p_at_1_forgotten", "own", 2))
    assert 0 < forgotten.value[-1] < 1


def test_headlines_tell_the_transition_of_facts(whole):
    metrics = json.loads((whole[1] / "metrics.json").read_text())
    assert metrics["cloze/world/steepest/step_before"] == 20 and metrics["cloze/world/steepest/step_after"] == 40
    assert metrics["cloze/world/steepest/p_at_1_before"] < 0.1 and metrics["cloze/world/steepest/p_at_1_after"] > 0.6
    assert metrics["edges/pos/f1/step_90"] <= metrics["edges/dep/f1/step_90"] <= 80
    assert metrics["cloze/world/p_at_1_held_out/last"] == 0 and metrics["identical_rows"] == 0
    assert set(metrics) >= {"downstream/chem/accuracy/last", "edges/dep/expected_layer/last",
                            "cloze/world/onset_layer/last"}
    assert all(np.isfinite(list(metrics.values()))) and len(metrics) < 60


def test_curves_and_facts(whole):
    with open(whole[1] / "curves.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(STEPS) and len(rows[0]) <= 31
    assert {"edges/pos/f1", "cloze/world/p_at_1", "downstream/chem/accuracy", "edges/pos/cog_adapted"} <= set(rows[0])
    facts = read_manifest(whole[1]).facts
    assert facts["arms"]["adapted"] == list(PLACES["adapted"]) and facts["step_unit"] == 10
    assert facts["resampled"]["edges"] == "seeds and examples" and not facts["left_out"]
    figures = {path.stem for path in (whole[1] / "figures").glob("*.png")}
    assert figures == {"overview", "arms", "differences", "step_90", "centre_of_gravity", "downstream"}
    assert not list((whole[0].home / ".finetrace").rglob("*.npy"))


def test_figures_need_no_more_than_the_courses_that_are_stored_for_them(whole):
    _, out = whole
    record = read_record(out / "measured.npz")
    made = figures_of(NAME, table_of(out), record["axes"], record["units"], record["note"])
    assert len(record["table"]["step"]) < len(table_of(out).columns()["step"]) / 2
    for name in ("overview", "step_90", "differences"):
        assert (out / "figures" / f"{name}.png").read_bytes() == to_png(made[name]), name


def test_the_same_seed_gives_the_same_table(tmp_path):
    project(tmp_path, seeds=2, tasks=("pos",))
    before, after = ((run(tmp_path, settings(seeds=2)) / "table.parquet").read_bytes() for _ in range(2))
    assert before == after


def test_figures_are_drawn_from_the_stored_measurement(tmp_path):
    project(tmp_path, ("original", "adapted"), tasks=("pos",))
    stage = dynamics_stage(tmp_path, settings(("original", "adapted")))
    check_redrawn(stage, tmp_path / "dynamics" / NAME, "finetrace.lenses.dynamics.report.metrics")


def test_one_trajectory_has_intervals_of_examples_and_the_lens_s_own(tmp_path):
    layout = project(tmp_path)
    make_downstream(layout, "learned", seeds=(1, 2, 3))
    out = run(tmp_path, settings(downstream=("learned",)), downstream={"learned": ("m1/pretrain", "chem")})
    table, facts = table_of(out), read_manifest(out).facts
    assert facts["resampled"] == {"edges": "examples", "cloze": "examples", "downstream": "seeds and examples"}
    cog = table.course(Key("edges", "pos", "original", "cog", "full", 2))
    np.testing.assert_allclose(cog.high - cog.low, 0.04)
    downstream = table.course(Key("downstream", "chem", "original", "accuracy"))
    hits = np.asarray(read_array(layout.downstream("learned") / "hits.npy"))
    np.testing.assert_allclose(downstream.value, hits.mean(axis=(1, 2)))
    assert downstream.seeds == 3 and table.get(Key("edges", "pos", "original", "f1_seed_sd", "full", 2)) is None


def test_adaptation_with_its_own_time_is_compared_with_the_last_step_before(tmp_path):
    project(tmp_path, ("original", "adapted"), axis="adaptation steps", steps=(0, 5, 50))
    out = run(tmp_path, settings(("original", "adapted")), figures=True)
    table = table_of(out)
    key = Key("edges", "pos", "original", "f1", "full", 2)
    moved, adapted = (table.course(key._replace(arm=arm)) for arm in ("difference", "adapted"))
    assert moved.steps.tolist() == [0, 5, 50]
    np.testing.assert_allclose(moved.value, adapted.value - table.course(key).value[-1])
    header = (out / "curves.csv").read_text().splitlines()[0]
    assert "adapted" not in header  # its steps are others
    assert (out / "figures" / "arms.png").is_file()


def test_only_common_steps_and_tasks_are_compared_and_the_rest_is_told(tmp_path):
    layout = project(tmp_path, ("original", "adapted"))
    make_edges(layout, "t1/adapt", steps=(0, 20, 160, 320), tasks=("pos",), top=0.8)
    out = run(tmp_path, settings(("original", "adapted"), sources=("edges",)))
    table, facts = table_of(out), read_manifest(out).facts
    assert table.items_of("edges") == ["pos"] and "edges: 1 task not in all trajectories: dep" in facts["left_out"]
    assert table.course(Key("edges", "pos", "difference", "f1", "full", 2)).steps.tolist() == [0, 20, 160]
    assert table.course(Key("edges", "pos", "adapted", "f1", "full", 2)).steps.tolist() == [0, 20, 160, 320]
    project(tmp_path / "b", seeds=2)
    make_edges(Layout(tmp_path / "b", tmp_path / "b"), "m2/pretrain", steps=(0, 20, 160, 320))
    facts = read_manifest(run(tmp_path / "b", settings(seeds=2, sources=("edges",)))).facts
    assert facts["steps"]["edges"]["original"] == [0, 20, 160]
    assert "edges: m1/pretrain: steps 10, 40, 80 (not in all of original)" in facts["left_out"]


def test_readouts_may_be_made_at_some_checkpoints(tmp_path):
    layout = project(tmp_path)
    folder = layout.place("m1/pretrain") / "cloze"
    for step in STEPS[1:-1]:
        path = folder / "facts" / f"step-{step:08d}.parquet"
        rows = read_table(path)
        write_table(path, rows.filter(rows["readout"].to_numpy() == "own"))
    complete(folder, read_manifest(folder, verify=False))
    table = table_of(run(tmp_path, settings(sources=("cloze",))))
    assert table.course(Key("cloze", "world", "original", "p_at_1", "own", 2)).steps.tolist() == list(STEPS)
    assert table.course(Key("cloze", "world", "original", "p_at_1", "trained", 2)).steps.tolist() == [0, 160]


def test_copies_of_a_trajectory_are_told(tmp_path, caplog):
    layout = project(tmp_path, seeds=2)
    make_edges(layout, "m2/pretrain", seed=1)
    with caplog.at_level("WARNING", "finetrace"):
        facts = read_manifest(run(tmp_path, settings(seeds=2))).facts
    assert facts["identical_rows"] == 2 * len(STEPS)
    assert (
        "edges, pos, step 0: m1/pretrain and m2/pretrain" in facts["identical"]
        and "no second measurement" in caplog.text
    )


def test_a_trajectory_that_a_lens_has_not_seen_is_named_with_the_section(tmp_path):
    layout = project(tmp_path)
    shutil.rmtree(layout.place("m1/pretrain") / "cloze")
    with pytest.raises(FinetraceError, match=r"no cloze results of m1/pretrain; add m1/pretrain to look\.cloze, or "
                                             r"name only "
                                             r"what there is in dynamics\.life\.sources"):
        run(tmp_path, settings())
    with pytest.raises(FinetraceError, match="no cloze results of m1/pretrain; run finetrace repro cloze@m1_pretrain"):
        run(tmp_path, settings(), named=("m1/pretrain",))
    with pytest.raises(FinetraceError, match="downstream: gone has no results; run finetrace repro downstream@gone"):
        run(tmp_path, settings(sources=("edges",), downstream=("gone",)), downstream={"gone": ("m1/pretrain", "chem")})
    assert not (tmp_path / "dynamics").exists()
    run(tmp_path, settings(sources=("edges",)))


def test_outputs_that_cannot_be_compared_are_refused(tmp_path):
    layout = project(tmp_path, seeds=2)
    make_edges(layout, "m2/pretrain", targets=58)
    with pytest.raises(FinetraceError, match=r"m2/pretrain/edges: task pos: its targets are not those of "
                                             r".*m1/pretrain/edges"):
        run(tmp_path, settings(seeds=2))
    make_place(layout, "m2/pretrain", "adaptation steps")
    with pytest.raises(FinetraceError, match=r"different time axes \(m1/pretrain: pre-training steps; m2/pretrain: "
                                             r"adaptation"):
        run(tmp_path, settings(seeds=2))
    make_place(layout, "m2/pretrain", "pre-training steps")
    make_edges(layout, "m2/pretrain", steps=(7, 9))
    with pytest.raises(FinetraceError, match="original: its trajectories have no common step in edges"):
        run(tmp_path, settings(seeds=2))
    make_edges(layout, "m2/pretrain", tasks=("ner",))
    with pytest.raises(FinetraceError, match="the trajectories have no task of edges in common"):
        run(tmp_path, settings(seeds=2))


def test_damaged_outputs_are_named(tmp_path):
    layout = project(tmp_path)
    folder = layout.place("m1/pretrain") / "edges"
    write_array(folder / "hits" / "pos.npy", np.zeros((2, 7, 60, 3), dtype=np.uint8))
    complete(folder, read_manifest(folder, verify=False))
    with pytest.raises(FinetraceError, match=r"pos.npy: has shape \(2, 7, 60, 3\) instead of \(6, 7, 60, 3\)"):
        run(tmp_path, settings())
    folder = layout.place("m1/pretrain") / "cloze"
    path = folder / "facts" / "step-00000040.parquet"
    rows = read_table(path)
    write_table(path, rows.slice(1))
    complete(folder, read_manifest(folder, verify=False))
    with pytest.raises(FinetraceError, match=r"step-00000040.parquet: readout .* does not have one row for each of 40 "
                                             r"facts"):
        run(tmp_path, settings(sources=("cloze",)))
    write_table(path, rows.drop_columns("rank"))
    complete(folder, read_manifest(folder, verify=False))
    with pytest.raises(FinetraceError, match=r"step-00000040.parquet: has no column rank"):
        run(tmp_path, settings(sources=("cloze",)))


@pytest.mark.parametrize(("entries", "message"), [
    ({"a": ("m1/pretrain", "chem")}, "chem from m2/pretrain is missing; add an entry with that trajectory, or take a "
                                     "out"),
    ({"a": ("m1/pretrain", "chem"), "b": ("m2/pretrain", "chem"), "c": ("x/adapt", "chem")},
     "c starts from x/adapt, which is"),
    ({"a": ("t1/adapt", "chem"), "b": ("t2/adapt", "chem")}, "chem is not learned from original"),
    ({"a": ("m1/pretrain", "chem"), "b": ("m2/pretrain", "chem")}, "different numbers of test examples")])
def test_downstream_entries_that_do_not_fit_are_named(tmp_path, entries, message):
    layout = project(tmp_path, ("original", "adapted"), 2, tasks=("pos",))
    for number, name in enumerate(entries):
        make_downstream(layout, name, examples=50 - number * ("different" in message), seeds=(1,))
    arms = ("original", "adapted")
    with pytest.raises(FinetraceError, match=message):
        run(tmp_path, settings(arms, 2, sources=(), downstream=tuple(entries)), downstream=entries)
