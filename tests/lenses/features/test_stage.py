"""The stage features on synthetic predictions: files, numbers, tasks of words, few examples, clear errors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tests.hidden_outputs import check_redrawn, run_main, stage_output
from tests.lenses.calibration.test_stage import one, table_of
from tests.pictures import assert_drawn
from tests.prediction_outputs import prediction_stage

from finetrace.errors import FinetraceError
from finetrace.lenses.features import change as lens
from finetrace.lenses.features.settings import FeaturesSettings
from finetrace.store.manifest import read_manifest
from finetrace.store.predictions import read_predictions

STEPS = (0, 8, 64)
QUICK = {"tsne": False, "figure_rows": 20}


def run(root: Path, figures: bool = False, settings: dict | None = None, **predictions: object) -> Path:
    stage = prediction_stage(root, "features", FeaturesSettings(**QUICK | (settings or {})), **predictions)
    run_main(stage, figures=figures)
    return stage_output(stage)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("features"), steps=STEPS, kept=8, classes=3)


def test_values_are_those_of_the_lens(out: Path) -> None:
    predictions, table = read_predictions(out.parent / "predictions"), table_of(out)
    for step in STEPS:
        weight = predictions.weight(step)
        assert one(table, step=step, statistic="head_norm") == pytest.approx(np.linalg.norm(weight), rel=1e-6)
        assert one(table, step=step, statistic="head_row_norm",
                   label="class-1") == pytest.approx(np.linalg.norm(weight[1]))
        for name in ("train", "validation", "test", "far"):
            rows = predictions.with_features(name)
            x, labels = predictions.features(step, name).astype(np.float64), predictions.labels[rows]
            fisher = lens.fisher_ratio(x, labels)
            expected = {"cosine": lens.cosine_similarity(x).value, "norm": np.linalg.norm(x, axis=1).mean(),
                        "cosine_with_diagonal": lens.cosine_similarity(x, diagonal=True).value,
                        "diff": np.linalg.norm(x - predictions.features(0, name), axis=1).mean(), "fdr": fisher.value,
                        "fdr_ridge": fisher.ridge, "fdr_rank": fisher.rank, "fdr_singular": float(fisher.singular),
                        "fdr_lost": fisher.lost}
            for statistic, value in expected.items():
                assert one(table, step=step, set=name, statistic=statistic) == pytest.approx(value, abs=1e-9), statistic
            assert one(table, "n", step=step, set=name, statistic="cosine") == 30 == len(rows)
    low, value, high = (one(table, end, step=64, set="test", statistic="cosine") for end in ("low", "value", "high"))
    assert low < value < high


def test_head_rows_turn_to_their_classes(out: Path) -> None:
    predictions, table = read_predictions(out.parent / "predictions"), table_of(out)
    x, labels = predictions.features(64, "test"), predictions.labels[predictions.with_features("test")]
    cosines = lens.head_cosines(predictions.weight(64), lens.class_means(x, labels, 3))
    assert one(table, step=64, set="test", statistic="head_cosine", label="class-2") == pytest.approx(cosines[2, 2])
    assert one(table, step=64, set="test", statistic="head_cosine_own") == pytest.approx(np.diag(cosines).mean())
    assert one(table, step=64, set="test",
               statistic="head_cosine_other") == pytest.approx(cosines[~np.eye(3, dtype=bool)].mean())
    centred = [one(table, step=64, set="test", statistic=f"head_cosine_{side}_centred") for side in ("own", "other")]
    assert centred[0] > 0.5 > 0 > centred[1]
    assert one(table, step=64, set="test", statistic="class_norm", label="class-0") == pytest.approx(
        np.linalg.norm(x[labels == 0].mean(axis=0)))


def test_nothing_has_moved_at_the_first_checkpoint(out: Path) -> None:
    table = table_of(out)
    first = (table["step"] == 0) & (table["statistic"] == "diff")
    assert (table["value"][first] == 0).all() and first.sum() == 4


def test_metrics_and_curves(out: Path) -> None:
    metrics, table = json.loads((out / "metrics.json").read_text()), table_of(out)
    names = ("train", "validation", "test", "far")
    assert set(metrics) == {f"{name}/{key}/{when}" for name in names for key in ("cosine", "fdr", "fdr_ridge")
                            for when in ("first", "kept")} | {f"{name}/diff" for name in names} | {
                                "head_norm/first", "head_norm/kept"}
    assert metrics["far/cosine/kept"] == one(table, step=8, set="far", statistic="cosine")
    assert metrics["test/fdr_ridge/first"] == one(table, step=0, set="test", statistic="fdr_ridge")
    assert metrics["test/diff"] == one(table, step=8, set="test", statistic="diff") > metrics["far/diff"] > 0
    assert metrics["head_norm/kept"] > 10 * metrics["head_norm/first"]
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:5] == ["step", "head_norm", "train_cosine", "train_diff", "train_fdr_ridge"]
    assert [int(row["step"]) for row in rows] == list(STEPS) and float(rows[2]["far_diff"]) == pytest.approx(2,
                                                                                                             rel=1e-5)


def test_few_examples_make_the_ratio_singular_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "finetrace"):
        out = run(tmp_path, dim=40, feature_rows=30)
    assert read_manifest(out).facts["singular"] == ["far", "test", "train", "validation"]
    assert "compare fdr_ridge there, not fdr" in caplog.text
    assert one(table_of(out), step=64, set="test", statistic="fdr_rank") == 28  # 30 examples less 2 classes


def test_a_task_of_words_with_rare_labels(tmp_path: Path) -> None:
    labels = np.r_[np.zeros(36), [1, 2, 3, 4], np.zeros(28), [5, 6]].astype(int)
    sets = {"validation": 40, "test": 30}
    out = run(tmp_path, figures=True, sets=sets, classes=17, labels=labels, spans=1, feature_rows=99)
    table = table_of(out)
    present = {label for label in table["label"][(table["set"] == "test") & (table["statistic"] == "class_norm")]}
    assert present == {"class-0", "class-5", "class-6"}
    defined = ("cosine", "diff", "fdr", "fdr_ridge", "head_cosine_own", "head_cosine_other")
    assert np.isfinite(table["value"][np.isin(table["statistic"], defined)]).all()
    predictions = read_predictions(out.parent / "predictions")
    units = lens.Units(np.arange(30) // 2, 20, read_manifest(out).seeds["features"])
    expected = lens.cosine_similarity(predictions.features(64, "test"), units)
    assert one(table, "low", step=64, set="test", statistic="cosine") == pytest.approx(expected.low, abs=1e-12)


def test_a_set_of_one_class_has_no_ratio_and_leaves_it_out_of_the_metrics(tmp_path: Path) -> None:
    labels = np.r_[np.arange(20) % 2, np.ones(10)].astype(int)
    out = run(tmp_path, sets={"validation": 20, "far": 10}, labels=labels, figures=True)
    metrics = json.loads((out / "metrics.json").read_text())
    assert "far/fdr/kept" not in metrics and "validation/fdr/kept" in metrics and "far/diff" in metrics
    assert "far_fdr_ridge" not in (out / "curves.csv").read_text() and (out / "figures/course.png").is_file()


@pytest.mark.parametrize(("tsne", "names"),
                         [(False, ["course.png", "pca.png"]), (True, ["course.png", "pca.png", "tsne.png"])])
def test_figures_are_written_and_fit_a_page(tmp_path: Path, tsne: bool, names: list[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # no sketches
    made = sorted((run(tmp_path, figures=True, steps=(0, 8), settings={"tsne": tsne}) / "figures").glob("*.png"))
    assert [path.name for path in made] == names
    for path in made:
        assert_drawn(path)


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    stage = prediction_stage(tmp_path, "features", FeaturesSettings(tsne=True, figure_rows=20), steps=(0, 8))
    check_redrawn(stage, stage_output(stage), "finetrace.lenses.features.summary.set_rows")


def test_one_checkpoint_and_few_examples_are_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = run(tmp_path, figures=True, steps=(5,), sets={"test": 4}, labels=np.array([0, 1, 0, 1]))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test/diff"] == 0 and metrics["head_norm/first"] == metrics["head_norm/kept"]
    assert [path.name for path in (out / "figures").glob("*.png")] == ["course.png"]
    assert "4 examples of test are too few" in caplog.text
    alone = run(tmp_path / "alone", figures=True, steps=(5,), sets={"test": 20})
    assert sorted(path.name for path in (alone / "figures").glob("*.png")) == ["course.png", "pca.png"]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    made = [run(tmp_path / name) for name in ("a", "b")]
    for file in ("table.parquet", "metrics.json", "curves.csv"):
        assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes()


def test_broken_features_are_named(tmp_path: Path) -> None:
    def broken(values: np.ndarray) -> None:
        values[35, 2] = np.inf

    with pytest.raises(FinetraceError, match="features of validation at checkpoint 8 hold NaN or infinity in row 5"):
        run(tmp_path, damage={("features", 8): broken})
