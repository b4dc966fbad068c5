"""The stage calibration on synthetic predictions: files, numbers, the fitting set, tasks of words, clear errors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tests.hidden_outputs import check_redrawn, run_main, stage_output
from tests.pictures import assert_drawn
from tests.prediction_outputs import SETS, prediction_stage

from finetrace.errors import FinetraceError
from finetrace.lenses.calibration import measures as lens
from finetrace.lenses.calibration.settings import CalibrationSettings
from finetrace.lenses.calibration.summary import STATISTICS
from finetrace.store.manifest import read_manifest
from finetrace.store.predictions import Predictions, read_predictions
from finetrace.store.tables import read_table

STEPS = (0, 8, 64)
ALL = {"train": 40, "validation": 60, "test": 50, "far": 70}


def table_of(folder: Path, name: str = "table") -> dict[str, np.ndarray]:
    table = read_table(folder / f"{name}.parquet")
    return {column: table[column].to_numpy(zero_copy_only=False) for column in table.column_names}


def one(table: dict[str, np.ndarray], column: str = "value", **where: object) -> float:
    keep = np.ones(len(table["step"]), dtype=bool)
    for name, value in where.items():
        keep &= table[name] == value
    assert keep.sum() == 1, f"{keep.sum()} rows of {where}"
    return float(table[column][keep][0])


def run(root: Path, settings: CalibrationSettings | None = None, figures: bool = False, **predictions: object) -> Path:
    stage = prediction_stage(root, "calibration", settings or CalibrationSettings(), **predictions)
    run_main(stage, figures=figures)
    return stage_output(stage)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("calibration"), steps=STEPS, kept=8, classes=3)


def pairs(predictions: Predictions, step: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = predictions.rows(name)
    return predictions.logits(step)[rows], predictions.labels[rows]


def test_the_table_has_every_measure_of_every_set_and_checkpoint(out: Path) -> None:
    table = table_of(out)
    assert {name: str(values.dtype) for name, values in table.items()} == {
        "step": "int64", "set": "object", "scaled": "bool", "statistic": "object", "value": "float64", "low": "float64",
        "high": "float64", "n": "int64"}
    keys = set(zip(*(table[name].tolist() for name in ("step", "set", "scaled", "statistic")), strict=True))
    expected = {(step, name, scaled, statistic) for step in STEPS for name in ("validation", "test", "far")
                for scaled in (False, True) for statistic in STATISTICS}
    expected |= {(step, "validation", True, f"temperature{rest}") for step in STEPS for rest in ("", "_at_bound")}
    assert keys == expected and len(table["step"]) == len(keys)
    assert all(one(table, "n", step=8, set=name, scaled=False, statistic="ece") == ALL[name]
               for name in ("test", "far"))


def test_values_are_those_of_the_lens_with_the_temperature_of_validation(out: Path) -> None:
    predictions, table = read_predictions(out.parent / "predictions"), table_of(out)
    for step in STEPS:
        t = lens.fit_temperature(*pairs(predictions, step, "validation"))
        assert one(table, step=step, statistic="temperature") == t
        for name in ("validation", "test", "far"):
            logits, labels = pairs(predictions, step, name)
            for scaled in (False, True):
                found = lens.calibration(lens.probabilities_of(logits, t if scaled else 1), labels)
                for statistic in STATISTICS:
                    value = one(table, step=step, set=name, scaled=scaled, statistic=statistic)
                    assert value == pytest.approx(getattr(found, statistic), abs=1e-12)
            low, high = (one(table, end, step=step, set=name, scaled=False, statistic="ece") for end in ("low", "high"))
            assert low < one(table, step=step, set=name, scaled=False, statistic="ece") < high
    own = [one(table, step=64, set="validation", scaled=scaled, statistic="nll") for scaled in (False, True)]
    assert own[1] < own[0]  # overconfident logits: the temperature helps where it was fitted


def test_metrics_speak_of_the_kept_checkpoint(out: Path) -> None:
    metrics, table = json.loads((out / "metrics.json").read_text()), table_of(out)
    plain = {"accuracy", "ece", "mce", "adaptive_ece", "brier", "nll", "confidence", "ece_scaled", "mce_scaled",
             "nll_scaled"}
    assert set(metrics) == {f"{name}/{key}" for name in ("validation", "test", "far") for key in plain} | {
        "temperature", "temperature_at_bound"}
    assert metrics["test/ece"] == one(table, step=8, set="test", scaled=False, statistic="ece")
    assert metrics["far/nll_scaled"] == one(table, step=8, set="far", scaled=True, statistic="nll")
    assert metrics["temperature"] == one(table, step=8,
                                         statistic="temperature") and metrics["temperature_at_bound"] == 0
    facts = read_manifest(out).facts
    assert (facts["fit"], facts["kept_step"], facts["examples"]) == ("validation", 8,
                                                                     {k: ALL[k] for k in list(ALL)[1:]})


def test_bins_and_curves(out: Path) -> None:
    bins, table = table_of(out, "bins"), table_of(out)
    assert len(bins["step"]) == 3 * 3 * 2 * 15
    here = (bins["step"] == 64) & (bins["set"] == "test") & ~bins["scaled"]
    assert bins["count"][here].sum() == 50 and bins["from"][here][0] == 0 and bins["to"][here][-1] == 1
    gaps = np.nan_to_num(bins["count"] * np.abs(bins["confidence"] - bins["accuracy"]))[here].sum() / 50
    assert gaps == pytest.approx(one(table, step=64, set="test", scaled=False, statistic="ece"), abs=1e-12)
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:7] == ["step", "temperature", "validation_accuracy", "validation_ece",
                                 "validation_ece_scaled", "validation_nll", "validation_nll_scaled"]
    assert [int(row["step"]) for row in rows] == list(STEPS)
    assert float(rows[2]["far_ece"]) == one(table, step=64, set="far", scaled=False, statistic="ece")


def test_the_temperature_may_come_from_another_set(tmp_path: Path) -> None:
    out = run(tmp_path, CalibrationSettings(fit="far", bins=4))
    predictions, table = read_predictions(out.parent / "predictions"), table_of(out)
    assert one(table, step=64, statistic="temperature") == lens.fit_temperature(*pairs(predictions, 64, "far"))
    assert (table_of(out, "bins")["bin"].max(), read_manifest(out).facts["fit"]) == (3, "far")


def test_in_a_task_of_words_sentences_are_the_units_and_rare_labels_do_no_harm(tmp_path: Path) -> None:
    sets = {"validation": 40, "test": 30}
    labels = np.r_[np.zeros(36), [1, 2, 3, 4], np.zeros(28),
                   [5, 6]].astype(int)  # classes of one example, or of none in a set
    out = run(tmp_path / "words", sets=sets, classes=17, labels=labels, spans=1)
    predictions, table = read_predictions(out.parent / "predictions"), table_of(out)
    assert np.isfinite(table["value"]).all()
    logits, labels = pairs(predictions, 64, "test")
    ends = lens.intervals(lens.probabilities_of(logits), labels, np.arange(30) // 2,
                          seed=read_manifest(out).seeds["groups"])
    for name, (low, high) in ends.items():
        assert one(table, "low", step=64, set="test", scaled=False, statistic=name) == pytest.approx(low, abs=1e-12)
        assert one(table, "high", step=64, set="test", scaled=False, statistic=name) == pytest.approx(high, abs=1e-12)


def test_a_separated_fitting_set_is_flagged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def certain(logits: np.ndarray) -> None:
        logits[:] = np.where(np.eye(2)[labels] > 0, 500.0, -500.0)
        logits[-1] *= -1  # and one test example certain and wrong: its probability rounds to 0

    labels = np.arange(20) % 2
    with caplog.at_level("WARNING", "finetrace"):
        out = run(tmp_path, sets={"validation": 10, "test": 10}, labels=labels, damage={("logits", 64): certain})
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["temperature_at_bound"] == 1 and "examples are all classified rightly" in caplog.text
    assert metrics["temperature"] == 1 and metrics["test/nll"] == pytest.approx(100)  # finite all the same
    assert metrics["test/accuracy"] == 0.9 and metrics["validation/ece"] == 0


def test_without_a_test_set_the_figures_say_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrace.lenses.calibration import figures

    told = []
    monkeypatch.setattr(figures, "reliability", lambda sets, t,
                        **more: told.append((list(sets), more["note"])) or style())
    monkeypatch.setattr(figures, "course", lambda *args, **more: style())
    run(tmp_path, figures=True, sets={"validation": 20, "far": 20, "near": 9}, steps=(0,))
    ((drawn, note),) = told
    assert drawn == ["validation", "far", "near"] and "no test set: validation is also what is shown" in note
    run(tmp_path / "b", figures=True, sets={"validation": 20, "test": 9, "b": 9, "a": 9, "c": 9, "d": 9}, steps=(0,))
    assert told[1][0] == ["test", "b", "a",
                          "c"] and "4 of 5 sets are drawn" in told[1][1] and "no test" not in told[1][1]


def style():
    from matplotlib.figure import Figure

    return Figure(figsize=(1, 1))


def test_figures_are_written_and_fit_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # no sketches
    made = sorted((run(tmp_path, figures=True, steps=(0, 8)) / "figures").glob("*.png"))
    assert [path.name for path in made] == ["course.png", "reliability.png"]
    for path in made:
        assert_drawn(path)


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    stage = prediction_stage(tmp_path, "calibration", CalibrationSettings(), steps=(0, 8), kept=8)
    check_redrawn(stage, stage_output(stage), "finetrace.lenses.calibration.measures.temperature")


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    made = [run(tmp_path / name) for name in ("a", "b")]
    for file in ("table.parquet", "bins.parquet", "metrics.json", "curves.csv"):
        assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes()


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match=r"calibration.fit: .*has no set 'dev' to fit the temperature on; name "
                                             r"one of train"):
        run(tmp_path / "a", CalibrationSettings(fit="dev"))
    with pytest.raises(FinetraceError, match="logits of checkpoint 8 hold NaN or infinity in row 0"):
        run(tmp_path / "b", damage={("logits", 8): lambda values: values.fill(np.nan)})
    assert SETS["validation"] == 60 and not list(tmp_path.glob("*/outputs/*/*/*/*/calibration"))
