"""The stage infodynamics on a synthetic trajectory: files, numbers, figures from the stored measurement, clear
errors."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.hidden_outputs import NAME, PLACE, check_redrawn, finished, run_main, stage_output
from tests.pictures import assert_drawn
from tests.stages import ask, of_run

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.infodynamics import measures as lens
from finetrace.lenses.infodynamics import summary
from finetrace.lenses.infodynamics.settings import InfodynamicsSettings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import fixed_lists, matrix, read_table, write_table

BATCH, EPOCH = 8, 25  # examples of a step, steps of an epoch
QUICK: dict[str, Any] = {"window": 20, "windows": [5], "permutations": 20, "spans": [8, 4], "span": 6, "max_steps": 0}


def make_trajectory(folder: Path, *, steps: int = 60, looks: int = 9, probe: bool = True, seed: int = 0) -> None:
    """Logits that grow towards the labels, evaluations every ten steps, and a probe set of two splits."""
    random, count = np.random.default_rng(seed), steps * BATCH
    step, labels = np.repeat(np.arange(steps), BATCH), random.integers(0, 2, count)
    logits = random.normal(size=(count, 2)) + np.eye(2)[labels] * (6 * step / max(1, steps))[:, None]
    write_table(folder / "signals.parquet", pa.table({
        "step": pa.array(step), "example_id": pa.array(np.arange(count) % 150),
        "label": pa.array(labels.astype(np.int32)),
        "logits": fixed_lists(logits.reshape(-1, 2)), "loss": pa.array(random.random(count).astype(np.float32))}))
    evals = list(range(0, steps + 1, 10))
    write_table(folder / "history.parquet", {
        "step": [*evals, 1], "kind": ["eval"] * len(evals) + ["train"],
        "examples": [BATCH * s for s in evals] + [BATCH],
        "loss": [1 / (1 + s) for s in evals] + [0.5],
        "accuracy": [0.5 + 0.4 * s / max(1, steps) for s in evals] + [None]})
    rows = [(s, split, i) for s in range(looks) for split in ("train", "validation") for i in range(6)] if probe else []
    shown = np.array([[i % 2 * s, 0.3] for s, _, i in rows]).reshape(-1, 2)
    write_table(folder / "probe.parquet", pa.table({
        "step": pa.array([10 * s for s, _, _ in rows], pa.int64()),
        "split": pa.array([split for _, split, _ in rows], pa.string()),
        "label": pa.array([i % 2 for _, _, i in rows], pa.int32()), "logits": fixed_lists(shown)}))
    complete(folder, finished("trajectory", steps_per_epoch=EPOCH))


def stage_of(root: Path, settings: dict[str, Any] | None = None, **trajectory: Any) -> Stage:
    layout = Layout(root, root)
    make_trajectory(layout.place(PLACE) / "trajectory", **trajectory)
    ask(root, "infodynamics", NAME, **of_run(PLACE,
                                             infodynamics=asdict(InfodynamicsSettings(**QUICK | (settings or {})))))
    return open_stage("infodynamics", NAME, layout)


def run(root: Path, settings: dict[str, Any] | None = None, figures: bool = False, **trajectory: Any) -> Path:
    stage = stage_of(root, settings, **trajectory)
    run_main(stage, figures=figures)
    return stage_output(stage)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("infodynamics"), figures=True)


def test_the_table_holds_what_the_lens_says(out: Path) -> None:
    signals = read_table(out.parent / "trajectory" / "signals.parquet")
    p = lens.softmax(matrix(signals, "logits"))
    table = read_table(out / "table.parquet")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    for window in (20, 5):
        here = (columns["source"] == "training") & (columns["window"] == window)
        found = lens.resonance(p, window)
        for name in ("novelty", "transience", "resonance", "novelty_sd"):
            np.testing.assert_array_equal(columns[name][here], getattr(found, name))
        smoothed = lens.smooth(found, window, 6).novelty if window == 20 else np.full(480, np.nan)
        np.testing.assert_array_equal(columns["smoothed_novelty"][here], smoothed)
    assert columns["epoch"][:480][-1] == 59 / EPOCH
    assert set(columns["source"]) == {"training", "probe/train", "probe/validation"}
    assert read_manifest(out).facts == {"rows": 480, "classes": 2}


def test_metrics_lists_and_curves(out: Path) -> None:
    metrics, lists = (json.loads((out / name).read_text()) for name in ("metrics.json", "results.json"))
    assert metrics["examples"] == 480 and metrics["window_steps"] == 2.5
    assert metrics["probe/train/never_right_share"] == 0.5 and "probe/validation/novelty_mean" in metrics
    assert {len(values) for values in lists.values()} == {440} and set(lists) == {"novelty", "transience", "resonance"}
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["example", "novelty", "transience", "resonance", "confidence", "train_loss",
                             "train_accuracy"]
    assert [int(row["example"]) for row in rows] == list(range(20, 460))


def test_seeds_derive_from_the_study_and_the_repetition(out: Path) -> None:
    assert read_manifest(out).seeds == {"null": seeds.derive(0, "infodynamics", 1)}


def test_figures_are_written_and_fit_a_page(out: Path) -> None:
    figures = {path.stem: path for path in (out / "figures").glob("*.png")}
    assert figures.keys() == {"signals", "smoothing", "slope", "learning", "probe-train", "probe-validation"}
    for path in figures.values():
        assert_drawn(path)


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, {"spans": None})
    check_redrawn(stage, stage_output(stage), "finetrace.lenses.infodynamics.summary.training_dynamics")


@pytest.mark.parametrize(("measure", "unit", "plateau"), [("jsd", "nats", True), ("kl", "bits", False),
                                                          pytest.param("jeffreys", "bans (log10)", False,
                                                                       marks=pytest.mark.slow)])
def test_figures_name_the_unit_and_know_the_plateau_of_one_measure_only(tmp_path: Path, measure: str, unit: str,
                                                                        plateau: bool,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    told: list[dict[str, Any]] = []
    monkeypatch.setattr("finetrace.lenses.infodynamics.figures.panels.signals",
                        lambda *_, **more: told.append(more) or Figure(figsize=(1, 1)))
    run(tmp_path, {"measure": measure}, figures=True, steps=30, looks=3)
    assert told[0]["unit"] == unit and (told[0]["plateau"] is not None) is plateau


def test_a_probe_set_with_few_looks_or_none_has_no_figure(tmp_path: Path) -> None:
    few = run(tmp_path / "few", figures=True, looks=3)
    assert "probe/train/confidence" in json.loads((few / "metrics.json").read_text())
    none = run(tmp_path / "none", figures=True, probe=False)
    for out in (few, none):
        assert sorted(p.stem for p in (out / "figures").glob("*.png")) == ["learning", "signals", "slope", "smoothing"]
    assert set(read_table(none / "table.parquet")["source"].to_pylist()) == {"training"}


def test_only_the_first_steps_enter(tmp_path: Path) -> None:
    out = run(tmp_path, {"max_steps": 30})
    assert read_manifest(out).facts["rows"] == 30 * BATCH


def test_the_same_seed_gives_the_same_files(tmp_path: Path, out: Path) -> None:
    again = run(tmp_path)
    for name in ("table.parquet", "metrics.json", "results.json", "curves.csv", "measured.npz"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_unusable_trajectories_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match=r"no signals were recorded; set record.signals: true and train again"):
        run(tmp_path / "a", steps=0)
    with pytest.raises(FinetraceError, match=rf"params.yaml: infodynamics, for {NAME}: .*window"):
        run(tmp_path / "b", {"window": 300})
    stage = stage_of(tmp_path / "c")
    source = stage.folder / "trajectory"
    table = read_table(source / "signals.parquet")
    values = matrix(table, "logits").copy()
    values[20:, 1] = np.inf
    write_table(source / "signals.parquet", table.set_column(3, "logits", fixed_lists(values)))
    complete(source, finished("trajectory", steps_per_epoch=EPOCH))
    with pytest.raises(FinetraceError, match=r"signals.parquet row 20: logits are not finite \(step 2\); the training "
                                             r"diverged"):
        run_main(stage)
    assert not list(tmp_path.glob("*/outputs/*/*/*/*/infodynamics"))


def test_curves_are_those_of_the_smoothed_signals(out: Path) -> None:
    signals = read_table(out.parent / "trajectory" / "signals.parquet")
    columns = {name: signals[name].to_numpy() for name in ("label", "example_id", "step", "loss")}
    training = summary.training_dynamics(matrix(signals, "logits"), columns["label"], columns["example_id"],
                                         columns["step"] / EPOCH, columns["step"], window=20, span=6, permutations=20,
                                         seed=1)
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["novelty"]) for row in rows] == training.smoothed.novelty[20:460].tolist()
