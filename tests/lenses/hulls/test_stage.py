"""The stage hulls on synthetic hidden states: files, numbers against the library, tasks of words, parity, clear
errors."""

import csv
import json
import shutil
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
from tests.hidden_outputs import NAME, hidden_stage, load_script, stage_output
from tests.oracles import directprobe_files as oracle
from tests.pictures import assert_drawn
from tests.stages import ask

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.hulls import partition as hulls
from finetrace.lenses.hulls import summary
from finetrace.lenses.hulls.centroids import centroids
from finetrace.lenses.hulls.settings import HullsSettings
from finetrace.originals import directprobe_files as files
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.hidden import HiddenStates, read_hidden
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table

SMALL = {"rows": {"train": 40, "validation": 30}, "classes": 4, "dim": 6, "layers": 2, "steps": (0, 8),
         "token_rows": {}}
RARE = np.concatenate([np.repeat([0, 1, 2, 3], [20, 12, 7, 1]), np.repeat([0, 1, 2, 4], [15, 10, 4, 1])])
"""Label 3 has one example and is in train only, label 4 is in validation only, label 5 nowhere."""


def script(figures: bool = False) -> ModuleType:
    module = load_script("hulls")
    if not figures:
        module.main = mock.patch("finetrace.lenses.hulls.figures.draw", lambda record: {})(module.main)
    return module


def table_of(stage: Stage) -> dict[str, np.ndarray]:
    table = read_table(stage_output(stage) / "table.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def pick(table: dict[str, np.ndarray], **where: object) -> dict[str, np.ndarray]:
    keep = np.ones(len(table["value"]), bool)
    for name, value in where.items():
        keep &= table[name] == value
    return {name: values[keep] for name, values in table.items()}


def one(table: dict[str, np.ndarray], **where: object) -> float:
    found = pick(table, **{"label": "", **where})["value"]
    assert len(found) == 1, f"{len(found)} rows of {where}"
    return float(found[0])


# --- a task of whole texts ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[HiddenStates, Stage]:
    stage = hidden_stage(tmp_path_factory.mktemp("texts"), "hulls",
                         HullsSettings(vectors="mean", predict_rows=12, files=True), dtype="float16", **SMALL)
    script(figures=True).main(stage)
    return read_hidden(stage_output(stage).parent / "hidden"), stage


def test_the_table_has_the_agreed_columns_and_statistics(texts: tuple[HiddenStates, Stage]) -> None:
    table = table_of(texts[1])
    assert {name: str(values.dtype) for name, values in table.items()} == {
        "step": "int64", "layer": "int32", "statistic": "object", "value": "float64", "low": "float64",
        "high": "float64", "n": "int64", "split": "object", "label": "object", "other": "object"}
    assert set(table["statistic"]) == {
        "clusters", "labels", "linear", "conflicts", "undecided", "distance", "outside_min", "inside_max",
        "inside_mean",
        "inside_mean_weighted", "max_ratio", "mean_ratio", "similarity_to_first", "similarity_to_previous_layer",
        "similarity_between_splits", "intra_accuracy", "labels_grown", "labels_shrunk", "mean_growth",
        "centroid_displacement", "centroid_path_x", "centroid_path_y", "displacement_x", "displacement_y"}
    keys = list(zip(*(table[name].tolist() for name in ("step", "layer", "statistic", "split", "label", "other")),
                    strict=True))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("step", "layer"), [(0, 0), (8, 1)])
def test_numbers_are_those_of_the_library_in_double_precision(texts: tuple[HiddenStates, Stage], step: int,
                                                              layer: int) -> None:
    hidden, stage = texts
    table = table_of(stage)
    found = {}
    for split in ("train", "validation"):
        rows = hidden.rows(split)
        points, labels = np.asarray(hidden.vectors(step, "mean")[layer][rows]).astype(np.float64), hidden.labels[rows]
        clusters = hulls.probe(points, labels)
        found[split] = between = hulls.label_distances(clusters)
        here = {"step": step, "layer": layer, "split": split}
        assert one(table, statistic="clusters", **here) == clusters.count
        assert one(table, statistic="linear", **here) == clusters.linear and one(table, statistic="labels", **here) == 4
        assert one(table, statistic="mean_ratio", **here) == pytest.approx(between.ratio_mean, nan_ok=True)
        own = pick(table, statistic="outside_min", **here)
        np.testing.assert_allclose(own["value"][own["label"] != ""], between.outside_min, rtol=1e-9, atol=1e-12)
        (whole,) = (i for i, label in enumerate(own["label"]) if not label)
        assert own["value"][whole] == pytest.approx(between.outside_min.mean()) and own["n"][whole] == 4
        assert own["low"][whole] <= own["value"][whole] <= own["high"][whole]
    pairs = pick(table, statistic="distance", step=step, layer=layer)
    np.testing.assert_allclose(pairs["value"], found["train"].vector, rtol=1e-9, atol=1e-12)
    assert list(zip(pairs["label"], pairs["other"], strict=True))[:2] == [("class-0", "class-1"),
                                                                          ("class-0", "class-2")]
    same = hulls.similarity(found["train"], found["validation"])
    assert one(table, statistic="similarity_between_splits", step=step, layer=layer) == pytest.approx(same.r,
                                                                                                      nan_ok=True)
    assert pick(table, statistic="similarity_between_splits", step=step, layer=layer)["n"][0] == same.pairs == 6


def test_the_first_checkpoint_is_like_itself_and_classes_move_apart_after_it(texts: tuple[HiddenStates, Stage]) -> None:
    table = table_of(texts[1])
    first, last = {"step": 0, "layer": 1, "split": "train"}, {"step": 8, "layer": 1, "split": "train"}
    assert (pick(table, statistic="centroid_displacement", step=0)["value"] == 0).all()
    assert one(table, statistic="labels_grown", **first) == 0 and one(table, statistic="mean_growth", **first) == 0
    assert one(table, statistic="labels_grown", **last) == 4 and one(table, statistic="labels_shrunk", **last) == 0
    assert one(table, statistic="mean_growth", **last) == pytest.approx(
        one(table, statistic="outside_min", **last) - one(table, statistic="outside_min", **first))
    assert one(table, statistic="linear", **last) == 1 and one(table, statistic="linear", **first) == 0
    accuracy = pick(table, statistic="intra_accuracy", **last)
    assert accuracy["n"][0] == 12 and accuracy["low"][0] <= accuracy["value"][0] <= accuracy["high"][0]


def test_metrics_and_curves(texts: tuple[HiddenStates, Stage]) -> None:
    out, table = stage_output(texts[1]), table_of(texts[1])
    metrics = json.loads((out / "metrics.json").read_text())
    expected = {f"{name}/layer-{layer:02d}/{when}"
                for name in ("clusters", "linear", "mean_outside_min", "intra_accuracy",
                "similarity_between_splits") for layer in range(2) for when in ("first", "last")}
    expected |= {f"similarity_to_first/layer-{layer:02d}/last" for layer in range(2)}
    expected |= {f"labels_grown/layer-{layer:02d}" for layer in range(2)} | {"labels", "undecided"}
    assert set(metrics) <= expected and {"clusters/layer-01/last", "similarity_to_first/layer-01/last"} <= set(metrics)
    assert metrics["labels"] == 4 and metrics["undecided"] == 0
    assert metrics["clusters/layer-01/last"] == one(table, statistic="clusters", step=8, layer=1, split="train")
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", *(f"{name}_layer_{layer:02d}" for name in ("clusters", "mean_outside_min")
                                       for layer in range(2))]
    assert float(rows[1]["mean_outside_min_layer_01"]) == metrics["mean_outside_min/layer-01/last"]


def test_figures_fit_a_page_and_are_at_most_six(texts: tuple[HiddenStates, Stage]) -> None:
    made = list((stage_output(texts[1]) / "figures").glob("*.png"))
    assert sorted(p.stem for p in made) == ["clusters", "labels", "likeness", "motion", "tracks"]
    for path in made:
        assert_drawn(path)


def test_the_original_programs_files_are_written_and_read_back(texts: tuple[HiddenStates, Stage]) -> None:
    hidden, stage = texts
    out, table = stage_output(stage) / "files", table_of(stage)
    rows = hidden.rows("train")
    entities = (out / "entities" / "train.txt").read_text().splitlines()
    assert len(entities) == 40 and entities[1] == "1\tclass-1"
    for step, layer in ((0, 0), (8, 1)):
        space = out / f"step-{step:08d}" / f"layer-{layer:02d}"
        numbers = files.read_clusters(space / "clusters.txt", len(rows))
        assert numbers.max() + 1 == one(table, statistic="clusters", step=step, layer=layer, split="train")
        points = np.asarray(hidden.vectors(step, "mean")[layer][rows]).astype(np.float64)
        plain = hulls.probe(points, hidden.labels[rows], shortcut=False)
        wanted = hulls.renumbered(plain, hulls.creation_order(plain))
        np.testing.assert_array_equal(numbers, wanted.assignment)
        distances = oracle.read_distances(space / "dis.txt")
        every = hulls.cluster_distances(wanted)
        assert len(distances) == np.isfinite(every).sum() // 2
        for (a, b), value in distances.items():
            assert a[1] == f"class-{wanted.cluster_labels[a[0]]}" and value == pytest.approx(every[a[0], b[0]],
                                                                                             abs=6e-5)
        pairs = pick(table, statistic="distance", step=step, layer=layer)
        read = oracle.read_label_pairs(space / "vec.txt")
        for label, other, value in zip(pairs["label"], pairs["other"], pairs["value"], strict=True):
            assert read[label, other] == pytest.approx(value, abs=6e-5)
        assert len(oracle.read_prediction(space / "prediction.txt")) == 12
        least = pick(table, statistic="outside_min", step=step, layer=layer, split="train")
        for label, value in oracle.read_label_values(space / "outside_min.txt").items():
            assert value == pytest.approx(least["value"][least["label"] == label][0], abs=6e-5)
    names, layers, values = oracle.read_batch_table(out / "batch_vec" / "8.txt")
    assert names[0] == "class-0---class-1" and layers == [0, 1] and values.shape == (6, 2)
    assert sorted(p.name for p in (out / "inside_mean").iterdir()) == ["0.txt", "8.txt"]


# --- tasks of words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spans", [1, 2])
def test_words_with_rare_and_absent_labels(tmp_path: Path, spans: int) -> None:
    stage = hidden_stage(tmp_path, "hulls", HullsSettings(files=True, predict_rows=10), spans=spans, labels=RARE,
                         **{**SMALL, "classes": 6})
    script(figures=spans == 1).main(stage)
    table = table_of(stage)
    assert one(table, statistic="labels", step=8, layer=1, split="train") == 4
    assert one(table, statistic="labels", step=8, layer=1, split="validation") == 4
    inside = pick(table, statistic="inside_max", step=8, layer=1, split="train")
    assert "class-3" not in inside["label"] and "class-3" in pick(table, statistic="outside_min",
                                                                  split="train")["label"]
    assert not {"class-4", "class-5"} & set(pick(table, split="train")["label"])
    assert set(pick(table, statistic="similarity_between_splits")["n"]) == {3}  # pairs of the labels 0, 1, 2
    vector = oracle.read_label_pairs(stage_output(stage) / "files" / "step-00000008" / "layer-01" / "vec.txt")
    assert len(vector) == 15 and np.isnan(vector["class-0", "class-4"]) and np.isfinite(vector["class-0", "class-3"])
    hidden = read_hidden(stage_output(stage).parent / "hidden")
    rows = hidden.rows("train")
    means = [centroids(hidden.vectors(step)[1][rows], hidden.labels[rows], 6) for step in (0, 8)]
    moved = pick(table, statistic="centroid_displacement", step=8, layer=1, split="train")
    got = dict(zip(moved["label"], moved["value"], strict=True))
    assert means[0].shape[1] == 6 * spans
    for label in range(4):
        assert got[f"class-{label}"] == pytest.approx(np.linalg.norm(means[1][label] - means[0][label]))


def test_parity_drops_small_clusters_and_writes_zeros(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "hulls", HullsSettings(parity=True, files=True, predict_rows=0), spans=1,
                         labels=RARE, **{**SMALL, "classes": 6})
    script().main(stage)
    space = stage_output(stage) / "files" / "step-00000008" / "layer-01"
    vector = oracle.read_label_pairs(space / "vec.txt")
    assert all(value == 0 for (a, b), value in vector.items() if {"class-3", "class-4", "class-5"} & {a, b})
    assert vector["class-0", "class-1"] > 0 and oracle.read_label_values(space / "outside_min.txt")["class-3"] == 0
    assert not (space / "prediction.txt").exists()
    assert "intra_accuracy" not in table_of(stage)["statistic"]


def test_files_list_labels_by_name_whatever_their_numbers(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "hulls", HullsSettings(files=True, predict_rows=0, compare_split="none"), **SMALL)
    folder = stage_output(stage).parent / "hidden"
    hidden = read_hidden(folder)
    hidden.manifest.facts["label_names"] = ["d", "b", "c", "a"]
    complete(folder, hidden.manifest)
    script().main(stage)
    vector = oracle.read_label_pairs(stage_output(stage) / "files" / "step-00000008" / "layer-01" / "vec.txt")
    assert list(vector)[:3] == [("a", "b"), ("a", "c"), ("a", "d")]
    rows = hidden.rows("train")
    own = np.asarray(hidden.vectors(8, "cls")[1][rows])
    exact = hulls.hull_distance(own[hidden.labels[rows] == 3], own[hidden.labels[rows] == 1]).distance
    assert vector["a", "b"] == pytest.approx(exact, abs=6e-5)
    assert "similarity_between_splits" not in table_of(stage)["statistic"]


# --- choices ------------------------------------------------------------------------------------------------------


def test_layers_checkpoints_and_points_are_chosen_by_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = HullsSettings(layers=[-1], checkpoints="ends", max_points=20, predict_rows=5)
    stage = hidden_stage(tmp_path, "hulls", chosen, labels=RARE, **{**SMALL, "classes": 6, "steps": (0, 4, 8)})
    with caplog.at_level("INFO", logger="finetrace"):
        script().main(stage)
    table = table_of(stage)
    assert set(table["step"]) == {0, 8} and set(table["layer"]) == {1}
    assert set(pick(table, statistic="clusters", split="train")["n"]) == {20}
    assert one(table, statistic="labels", step=8, split="train") == 4  # the rarest label is kept
    assert "20 of 40 examples" in caplog.text and read_manifest(stage_output(stage)).facts["points_train"] == 20
    assert (stage_output(stage) / "files" / "README.txt").read_text().startswith("Empty")


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        stage = hidden_stage(tmp_path / name, "hulls", HullsSettings(max_points=30, predict_rows=4), **SMALL)
        script().main(stage)
        made.append([(stage_output(stage) / file).read_bytes()
                     for file in ("table.parquet", "metrics.json", "curves.csv")])
    assert made[0] == made[1]


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hidden_stage(tmp_path, "hulls", HullsSettings(predict_rows=4, files=True), **SMALL)
    script(figures=True).main(stage)
    out = stage_output(stage)
    whole = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()
             and (p.parent.name != "figures" or p.suffix == ".png")}
    ask(tmp_path, "hulls", NAME, draw="another", **stage.asked)
    monkeypatch.setattr(hulls, "probe", lambda *rest, **more: 1 / 0)
    shutil.rmtree(out)
    script(figures=True).main(open_stage("hulls", NAME, stage.layout))
    assert out / "figures" / "motion.png" in whole and out / "files" / "batch_vec" / "8.txt" in whole
    assert {p: p.read_bytes() for p in whole} == whole


def test_one_checkpoint_and_two_labels_are_enough(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "hulls", HullsSettings(predict_rows=3), **{**SMALL, "classes": 2, "steps": (5,)})
    script(figures=True).main(stage)
    table = table_of(stage)
    assert np.isnan(pick(table, statistic="similarity_to_first")["value"]).all()
    assert set(pick(table, statistic="similarity_to_first")["n"]) == {1}
    assert sorted(p.stem for p in (stage_output(stage) / "figures").glob("*.png")) == ["clusters", "labels", "motion",
                                                                                       "tracks"]


def test_a_listed_checkpoint_after_the_last_one_is_left_out(tmp_path: Path) -> None:
    settings = HullsSettings(checkpoints=[4, 500], predict_rows=0, compare_split="none")
    stage = hidden_stage(tmp_path, "hulls", settings, **{**SMALL, "steps": (0, 4, 6, 8)})
    script().main(stage)
    assert set(read_table(stage_output(stage) / "table.parquet")["step"].to_pylist()) == {0, 4, 8}


def not_a_number(values: np.ndarray) -> None:
    values[1, 7, 0] = np.nan


@pytest.mark.parametrize(
    ("hidden", "settings", "message"),
    [
        ({"damage": {("cls", 8): not_a_number}}, {}, "cls.npy layer 1 row 7: holds NaN"),
        ({}, {"layers": [2]}, "hulls.layers: 2 does not exist"),
        ({}, {"checkpoints": [3]}, "hulls.checkpoints: 3 is not in"),
        ({"rows": {"train": 30}}, {}, "no rows of the split 'validation'"),
        ({"vectors": ("cls",)}, {"vectors": "mean"}, "add mean to hidden.vectors"),
    ],
)
def test_what_is_missing_or_broken_is_named(tmp_path: Path, hidden: dict, settings: dict, message: str) -> None:
    stage = hidden_stage(tmp_path, "hulls", HullsSettings(**{"predict_rows": 0, **settings}), **{**SMALL, **hidden})
    with pytest.raises(FinetraceError, match=message):
        script().main(stage)
    assert not stage_output(stage).exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "validation"}, "compare_split: 'validation' is the split that is probed anyway"),
        ({"parity": True, "min_size": 2}, "min_size: 2 contradicts parity, which means 6"),
        ({"layers": []}, "layers: names no layer"),
        ({"checkpoints": [-1]}, "checkpoints: .* not a list of steps"),
        ({"min_size": 0}, "min_size: 0 is less than 1"),
        ({"predict_rows": -1}, "predict_rows: -1 is negative"),
        ({"max_points": 1}, "max_points: 1 leaves nothing"),
        ({"reduce": "max"}, "reduce"),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(values: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(HullsSettings, values, "params.yaml: hulls")


def test_parity_stands_for_the_study_s_settings() -> None:
    given = HullsSettings(parity=True)
    assert (given.min_size, given.reduce, given.missing) == (6, "mean", "zero")
    assert (HullsSettings().min_size, HullsSettings().reduce, HullsSettings().missing) == (1, "min", "nan")


def test_the_mean_over_labels_has_student_s_interval() -> None:
    mean, low, high, n = summary.mean_interval(np.array([1.0, 2, 3, np.nan]))
    assert (
        (mean, n) == (2, 3)
        and high - mean == pytest.approx(4.302652729911275 / np.sqrt(3))
        and mean - low == high - mean
    )
    assert summary.mean_interval(np.array([4.0]))[0] == 4 and np.isnan(summary.mean_interval(np.array([4.0]))[1])
    assert np.isnan(summary.mean_interval(np.full(2, np.nan))[0])
