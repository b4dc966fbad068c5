"""The cross-task effect: counts and changes against plain ones, the stage on synthetic hidden states, clear errors."""

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
from tests.hidden_outputs import finished, load_script, make_hidden
from tests.stages import ask, of_run

from finetrace.config.base import parse
from finetrace.config.hidden import HiddenSettings
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.cross_task import transfer as lens
from finetrace.lenses.cross_task.settings import CrossTaskSettings
from finetrace.lenses.hulls.distances import label_distances
from finetrace.lenses.hulls.partition import probe
from finetrace.lenses.probes.settings import MlpSettings, ProbesSettings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.files import write_text
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table

STEPS = (0, 64)


# --- the lens -----------------------------------------------------------------------------------------------------


def test_the_published_table_s_cells_from_plain_numbers() -> None:
    random = np.random.default_rng(0)
    before, after = random.random(40), random.random(40)
    before[[3, 7]], after[[7, 9]] = np.nan, np.nan
    found = lens.effect(before, after)
    known = [k for k in range(40) if k not in (3, 7, 9)]
    assert found.grown == sum(after[k] > before[k] for k in known)
    assert found.shrunk == sum(after[k] < before[k] for k in known)
    assert found.same == 0 and found.grown + found.shrunk == 37
    changes = [after[k] - before[k] for k in known]
    mean = sum(changes) / 37
    assert found.mean == pytest.approx(mean, abs=1e-15)
    half = 2.028094 * (sum((c - mean) ** 2 for c in changes) / 36 / 37) ** 0.5  # 97.5 % of Student's t with 36 degrees
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), abs=1e-7)


def test_nothing_changes_counts_nothing_and_what_is_not_certain_is_no_change() -> None:
    distances = np.array([1.0, 2.0, np.nan])
    same = lens.effect(distances, distances * (1 + 1e-7))
    assert (same.grown, same.shrunk, same.same) == (0, 0, 2) and same.mean == pytest.approx(0, abs=1e-6)
    assert lens.effect(distances, distances * (1 + 1e-5)).grown == 2
    zero = lens.effect(np.array([0.0, 0.0]), np.array([0.0, 1e-30]))
    assert (zero.grown, zero.same) == (1, 1)  # from touching to apart, however little


def test_swapping_before_and_after_swaps_the_counts_and_scaling_scales() -> None:
    random = np.random.default_rng(3)
    one, other = random.random(9), random.random(9)
    there, back, scaled = lens.effect(one, other), lens.effect(other, one), lens.effect(10 * one, 10 * other)
    assert (there.grown, there.shrunk, there.mean) == (back.shrunk, back.grown, pytest.approx(-back.mean))
    assert (scaled.grown, scaled.shrunk) == (there.grown,
                                             there.shrunk) and scaled.mean == pytest.approx(10 * there.mean)
    order = random.permutation(9)
    assert lens.effect(one[order], other[order]).mean == pytest.approx(there.mean)


def test_labels_without_a_distance_are_no_part_of_it() -> None:
    nothing = lens.effect(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
    assert (nothing.grown, nothing.shrunk, nothing.same) == (0, 0, 0)
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    single = lens.effect(np.array([np.nan, 1.0]), np.array([1.0, 3.0]))
    assert single.mean == 2 and np.isnan([single.low, single.high]).all()


@pytest.mark.parametrize(("before", "after", "message"), [
    (np.zeros(2), np.zeros(3), r"shapes \(2,\) and \(3,\)"), (np.zeros((2, 2)), np.zeros((2, 2)), "shapes"),
    (np.array([np.inf]), np.zeros(1), "infinity")])
def test_distances_that_cannot_be_compared_are_refused(before: np.ndarray, after: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lens.effect(before, after)


def test_a_label_that_training_lacks_is_an_error_of_the_classifier() -> None:
    logits = np.array([[[3.0, 1.0], [0.0, 2.0], [5.0, 5.0], [0.0, 9.0]]])  # one problem, four rows, classes 2 and 5
    np.testing.assert_array_equal(lens.hits(logits, np.array([2, 5]), np.array([2, 5, 2, 7])),
                                  [[True, True, True, False]])


def test_accuracies_of_several_classifiers_have_a_spread_and_a_paired_change() -> None:
    before, after = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool), np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    alone = np.arange(4)
    rows = lens.accuracy_rows(8, 2, before, alone, "validation", "mlp_")
    spread = pytest.approx(np.std([0.5, 0.25], ddof=1))
    found = [(row["statistic"], row["value"], row["n"]) for row in rows]
    assert found == [("mlp_accuracy", 0.375, 4), ("mlp_accuracy_sd", spread, 2)]
    assert rows[0]["low"] < 0.375 < rows[0]["high"]
    change = lens.accuracy_change(8, 2, before, after, alone, "validation", "mlp_")
    assert change["statistic"] == "mlp_accuracy_change" and change["value"] == pytest.approx(0.875 - 0.375)
    assert -1 <= change["low"] < 0.5 < change["high"] <= 1
    none = lens.accuracy_change(8, 2, before, before, alone, "validation")
    assert none["value"] == 0 and -1 < none["low"] < 0 < none["high"] < 1, "four examples prove nothing"
    sentences = np.array([0, 0, 1, 1])
    of_one = lens.accuracy_change(8, 2, before, after, np.zeros(4, int), "validation")
    assert np.isnan([of_one["low"], of_one["high"]]).all()
    of_two = lens.accuracy_change(8, 2, before, after, sentences, "validation")
    assert of_two["high"] - of_two["low"] > change["high"] - change["low"]


def test_rows_of_a_space_name_classes_with_and_without_examples() -> None:
    points = np.array([[0.0, 0], [1, 0], [5, 0], [6, 0]])
    clusters = probe(points, np.array([0, 0, 3, 3]), classes=np.arange(4))
    rows = lens.space_rows(8, 1, clusters, label_distances(clusters), ["a", "b", "c", "d"], "train")
    found = {(r["statistic"], r["label"]): (r["value"], r["n"]) for r in rows}
    assert found["clusters", ""] == (2, 4) and found["labels", ""] == (2, 4) and found["linear", ""] == (1, 4)
    assert found["outside_min", ""] == (4, 2) and found["outside_min", "d"] == (4, 2)
    assert np.isnan(found["outside_min", "b"][0]) and found["outside_min", "b"][1] == 0


# --- the stage ----------------------------------------------------------------------------------------------------


def stage(root: Path, probes: dict | None = None, **entry: object) -> Stage:
    """cross-task@effect: the trajectory and the task are stubs, as their hidden states are synthetic."""
    layout, place = Layout(root, root), "micro-a/micro-dep/ft/s1"
    for folder in (layout.run("micro-a", "micro-dep", "ft", 1) / "trajectory", layout.task("micro-pos")):
        folder.mkdir(parents=True)
        write_text(folder / "x.txt", folder.name)
        complete(folder, finished("data"))
    settings = parse(CrossTaskSettings, {"tuned": place, "task": "micro-pos", **entry}, "params.yaml")
    ask(root, "cross-task", "effect", **of_run(place), cross_task=asdict(settings), hidden=asdict(HiddenSettings()),
        probes=asdict(ProbesSettings(**probes or {})))
    return open_stage("cross-task", "effect", layout)


def script(figures: bool = False, **hidden: object) -> ModuleType:
    """The stage's script on the hidden states of make_hidden."""
    module = load_script("cross_task")

    def states(stage, trajectory, task, settings, seed, scratch):
        assert settings.checkpoints == "ends" and settings.token_rows == {} and settings.vectors == ["cls"]
        return make_hidden(scratch / "hidden", **{"steps": STEPS, "spans": 1, "classes": 3, "token_rows": {}, **hidden})

    module._hidden_states = states
    if not figures:
        module.main = mock.patch("finetrace.lenses.cross_task.figures.draw", lambda record: {})(module.main)
    return module


def output(root: Path) -> tuple[list[dict], dict[str, float]]:
    folder = root / "cross-tasks" / "effect"
    return read_table(folder / "table.parquet").to_pylist(), json.loads((folder / "metrics.json").read_text())


def test_classes_that_training_pulls_apart_move_up(tmp_path: Path) -> None:
    script(figures=True, dim=4).main(stage(tmp_path))
    metrics = output(tmp_path)[1]
    assert metrics["labels_grown/layer-02"] == 3 and metrics["labels_shrunk/layer-02"] == 0
    assert metrics["mean_growth/layer-02"] > 1 and metrics["labels_grown/layer-00"] == 0
    assert (
        metrics["clusters/layer-02/last"] == 3 < metrics["clusters/layer-02/first"]
        and metrics["linear/layer-02/last"] == 1
    )
    assert metrics["accuracy/layer-02/last"] > 0.9 > metrics["accuracy/layer-02/first"]
    assert metrics["accuracy_change/layer-02"] == pytest.approx(metrics["accuracy/layer-02/last"]
                                                                - metrics["accuracy/layer-02/first"])
    assert metrics["majority_floor/validation"] == pytest.approx(14 / 40)
    folder = tmp_path / "cross-tasks" / "effect"
    assert sorted(p.name for p in (folder / "figures").glob("*.png")) == ["classes.png", "layers.png"]
    facts = read_manifest(folder)
    assert facts.kind == "lens" and facts.facts["tuned_on"] == "micro-dep" and facts.facts["task"] == "micro-pos"
    assert facts.facts["steps"] == [0, 64] and facts.facts["labels"] == 3
    assert not list((tmp_path / ".finetrace/scratch/cross-task").iterdir())  # the hidden states are gone
    with open(folder / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["layer"]) for row in rows] == [0, 1, 2]
    assert float(rows[2]["accuracy_after"]) == metrics["accuracy/layer-02/last"]
    kinds = {column.name: str(column.type) for column in read_table(folder / "table.parquet").schema}
    assert kinds == {"step": "int64", "layer": "int32", "statistic": "string", "value": "double", "low": "double",
                     "high": "double", "n": "int64", "split": "string", "label": "string"}


def test_values_are_those_of_the_probe_on_the_training_examples(tmp_path: Path) -> None:
    script().main(stage(tmp_path, probe="none", layers=[-1]))
    table, metrics = output(tmp_path)
    hidden = make_hidden(tmp_path / "again", steps=STEPS, spans=1, classes=3, token_rows={})
    train = hidden.rows("train")
    apart = [label_distances(probe(hidden.vectors(step)[2][train], hidden.labels[train])).outside_min for step in STEPS]
    for step, values in zip(STEPS, apart, strict=True):
        found = [row["value"] for row in table if row["statistic"] == "outside_min" and row["step"] == step
                 and row["label"]]
        assert found == pytest.approx(values.tolist(), rel=1e-9)
    changed = {row["label"]: row["value"] for row in table if row["statistic"] == "growth"}
    assert list(changed) == ["class-0", "class-1", "class-2"]
    assert list(changed.values()) == pytest.approx((apart[1] - apart[0]).tolist(), rel=1e-9)
    assert {row["layer"] for row in table} == {2} and not any("accuracy" in name or "floor" in name for name in metrics)


def test_pairs_unequal_classes_and_labels_of_one_split_are_defined(tmp_path: Path) -> None:
    labels = np.array([0] * 20 + [1] * 18 + [2] + [4] + [0] * 30 + [1] * 8
                      + [3] * 2)  # 2, 4: one example; 3: not in training
    script(spans=2, classes=5, labels=labels).main(stage(tmp_path, layers=[1, 2]))
    table, metrics = output(tmp_path)
    last = [row for row in table if row["step"] == 64 and row["layer"] == 2]
    by_label = {row["label"]: row for row in last if row["statistic"] == "outside_min"}
    assert by_label["class-2"]["n"] == by_label["class-4"]["n"] == 1 and by_label["class-2"]["value"] > 0
    assert by_label["class-3"]["n"] == 0 and np.isnan(by_label["class-3"]["value"])
    counts = [metrics[f"labels_{way}/layer-02"] for way in ("grown", "shrunk")]
    assert sum(counts) == 4
    accuracy = next(row for row in last if row["statistic"] == "accuracy")
    assert accuracy["n"] == 40 and accuracy["value"] <= 38 / 40  # the two examples of class 3 are errors


def test_layers_in_which_all_examples_are_alike_are_left_out(tmp_path: Path) -> None:
    def constant(values: np.ndarray) -> None:
        values[0] = values[0, 0]

    damage = {("cls", step): constant for step in STEPS}
    script(spans=0, vectors=("cls",), damage=damage).main(stage(tmp_path, probe="none"))
    assert {row["layer"] for row in output(tmp_path)[0]} == {1, 2}
    with pytest.raises(FinetraceError, match=r"effect.layers: all examples have the same vector in layer 0; name "
                                             r"another"):
        script(spans=0, vectors=("cls",), damage=damage).main(stage(tmp_path / "b", layers=[0]))


def test_fewer_points_keep_the_classes_shares(tmp_path: Path) -> None:
    script().main(stage(tmp_path, probe="none", layers=[2], max_points=12))
    rows = output(tmp_path)[0]
    sizes = [row["n"] for row in rows if row["statistic"] == "outside_min" and row["step"] == 0 and row["label"]]
    assert sizes == [4, 4, 4]


def test_the_study_s_perceptrons_have_a_spread_over_seeds(tmp_path: Path) -> None:
    mlp = MlpSettings(hidden=[[8, 8]], l2=[1e-4], seeds=2, max_epochs=800)
    script().main(stage(tmp_path, {"mlp": mlp}, layers=[2], probe="mlp"))
    table, metrics = output(tmp_path)
    found = {(row["statistic"], row["step"]): row for row in table if row["statistic"].startswith("mlp_")}
    assert set(found) == {("mlp_accuracy", 0), ("mlp_accuracy", 64), ("mlp_accuracy_sd", 0), ("mlp_accuracy_sd", 64),
                          ("mlp_accuracy_change", 64)}
    assert found["mlp_accuracy_sd", 64]["n"] == 2 and metrics["mlp_accuracy/layer-02/last"] > 0.8
    assert found["mlp_accuracy_change", 64]["value"] == pytest.approx(found["mlp_accuracy", 64]["value"]
                                                                      - found["mlp_accuracy", 0]["value"])


def test_one_checkpoint_is_no_change(tmp_path: Path) -> None:
    script(steps=(5,)).main(stage(tmp_path, layers=[2]))
    metrics = output(tmp_path)[1]
    assert metrics["labels_grown/layer-02"] == metrics["labels_shrunk/layer-02"] == metrics["mean_growth/layer-02"] == 0
    assert metrics["accuracy_change/layer-02"] == 0


@pytest.mark.parametrize("kind", ["logistic", "none"])
def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path, kind: str) -> None:
    first = stage(tmp_path, probe=kind)
    script(figures=True).main(first)
    out = tmp_path / "cross-tasks" / "effect"
    whole = {p: p.read_bytes() for p in out.rglob("*") if (p.is_file() and p.parent == out) or p.suffix == ".png"}
    ask(tmp_path, "cross-task", "effect", draw="another", **first.asked)
    shutil.rmtree(out)
    module = script(figures=True)
    module._hidden_states = lambda *rest: 1 / 0
    module.main(open_stage("cross-task", "effect", first.layout))
    assert len(whole) == 9 and {p: p.read_bytes() for p in whole} == whole


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        script().main(stage(tmp_path / name))
        made.append([(tmp_path / name / "cross-tasks/effect" / file).read_bytes()
                     for file in ("table.parquet", "metrics.json", "curves.csv")])
    assert made[0] == made[1]


def not_a_number(values: np.ndarray) -> None:
    values[1, 7, 0] = np.nan


@pytest.mark.parametrize(("hidden", "entry", "message"), [
    ({"damage": {("span", 64): not_a_number}}, {}, "span.npy layer 1 row 7: holds NaN"),
    ({"rows": {"train": 40}}, {}, "has no rows of the split 'validation'; add it to hidden.rows"),
    ({}, {"layers": [3]}, r"effect.layers: 3 does not exist; .* has layers 0 \(embeddings\) to 2"),
    ({"labels": np.zeros(80, int)}, {"layers": [2]},
     "cross_tasks.effect: micro-pos, step 0, layer 2: .* a probe needs two")])
def test_what_is_missing_or_broken_is_named(tmp_path: Path, hidden: dict, entry: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        script(**hidden).main(stage(tmp_path, **entry))
    assert not list(tmp_path.glob("cross-tasks/*"))


@pytest.mark.parametrize(("entry", "message"), [
    ({"tuned": "a_b_ft_s1"}, "did you mean 'a/b/ft/s1'"), ({"tuned": "a/b"}, "'a/b' is not a trajectory's folder"),
    ({"layers": []}, "layers: names no layer"), ({"train_split": "dev"}, "'dev' is not a split"),
    ({"test_split": "train"}, "test_split: 'train' trains the classifiers"), ({"min_size": 0}, "min_size: 0"),
    ({"max_points": 1}, "max_points: 1 leaves nothing"), ({"probe": "tree"}, "probe")])
def test_wrong_settings_are_refused_with_the_fix(entry: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(CrossTaskSettings, {"tuned": "a/b/ft/s1", "task": "c", **entry}, "params.yaml: cross_tasks.x")
