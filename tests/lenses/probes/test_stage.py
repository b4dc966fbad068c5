"""The stage probes on synthetic hidden states: what they write, batches, settings, and what they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.hidden_outputs import NAME, hidden_stage, load_script, stage_output
from tests.stages import ask

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.probes import summary as probes_summary
from finetrace.lenses.probes.settings import ProbesSettings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table, write_table

SCRIPT = load_script("probes")


def probes_stage(root: Path, settings: ProbesSettings | None = None, **hidden) -> Stage:
    """A stage probes@NAME; the model's own classifier reached 0.5 at step 0 and 0.95 at step 64."""
    stage = hidden_stage(root, "probes", settings or ProbesSettings(l2=[0.01, 0.1]), **hidden)
    write_table(stage_output(stage).parent / "trajectory" / "history.parquet", {
        "step": [0, 8, 64, 64], "kind": ["eval", "train", "eval", "eval"],
        "split": ["validation", None, "validation", "test"], "accuracy": [0.5, None, 0.95, 0.1]})
    return stage


def afresh(stage: Stage) -> None:
    """Run the stage again as if it had never run."""
    shutil.rmtree(stage_output(stage))
    shutil.rmtree(stage.layout.measured(stage.stage, stage.item))
    SCRIPT.main(stage)


def rows(stage: Stage, **wanted) -> list[dict]:
    return [r for r in read_table(stage_output(stage) / "table.parquet").to_pylist()
            if all(r[k] == v for k, v in wanted.items())]


def test_the_stage_writes_table_metrics_curves_and_figures(tmp_path: Path) -> None:
    stage = probes_stage(tmp_path, rows={"train": 60, "validation": 50, "test": 40})
    SCRIPT.main(stage)
    out = stage_output(stage)
    table = read_table(out / "table.parquet")
    assert table.column_names == list(probes_summary.COLUMNS)
    assert [str(table.schema.field(n).type) for n in ("step", "layer", "value", "n")] == ["int64", "int32", "double",
                                                                                          "int64"]
    for split, n in (("train", 60), ("validation", 50)):
        found = rows(stage, statistic="accuracy", split=split)
        assert [(r["step"], r["layer"]) for r in found] == [(s, l) for s in (0, 8, 64) for l in range(3)]
        assert all(r["low"] <= r["value"] <= r["high"] + 1e-12 for r in found)
        assert all((r["n"], r["seed"], r["epoch"]) == (n, -1, -1) for r in found)
    assert {r["statistic"] for r in rows(stage)} == {"accuracy", "macro_f1", "loss", "l2", "held_out_loss",
                                                     "iterations", "gradient_norm", "converged"}
    assert all(r["value"] == 1 for r in rows(stage, statistic="converged"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy/validation/layer-02/last"] == 1  # a line separates the classes there
    assert metrics["accuracy/validation/layer-00/last"] == 0.5 == metrics["majority_floor/validation"]
    assert metrics["best_accuracy/validation/last"] == 1 and metrics["not_converged"] == 0
    lines = (out / "curves.csv").read_text().splitlines()
    assert lines[0] == "step,accuracy_layer_00,accuracy_layer_01,accuracy_layer_02" and lines[3].startswith("64,")
    assert float(lines[3].split(",")[3]) == metrics["accuracy/validation/layer-02/last"]
    manifest = read_manifest(out)
    assert manifest.kind == "lens" and set(manifest.seeds) == {"probes"} and manifest.device.startswith("cpu (")
    assert {p.name for p in (out / "figures").glob("*.png")} == {"lattice.png", "layers.png"}
    assert {Path(p).name for p in manifest.inputs} == {"hidden", "history.parquet"}


def test_the_size_of_batches_and_a_second_run_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = probes_stage(tmp_path)
    SCRIPT.main(stage)
    first, whole = (stage_output(stage) / "table.parquet").read_bytes(), rows(stage)
    afresh(stage)
    assert (stage_output(stage) / "table.parquet").read_bytes() == first
    sizes = []
    original = probes_summary.logistic_rows
    monkeypatch.setattr(probes_summary, "logistic_rows", lambda batch,
                        **s: sizes.append(len(batch.keys)) or original(batch, **s))
    monkeypatch.setattr(SCRIPT, "_problem_bytes", lambda *a: 2**30 // 2)
    afresh(stage)
    assert sizes == [2, 2, 2, 2, 1]
    for one, other in zip(whole, rows(stage), strict=True):
        if one["statistic"] in ("accuracy", "macro_f1", "l2", "converged"):
            assert one["value"] == other["value"]
        elif one["statistic"] == "loss":
            assert one["value"] == pytest.approx(other["value"], abs=1e-9)


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = probes_stage(tmp_path)
    SCRIPT.main(stage)
    out = stage_output(stage)
    whole = {p: p.read_bytes() for p in out.rglob("*") if (p.is_file() and p.parent == out) or p.suffix == ".png"}
    ask(tmp_path, "probes", NAME, draw="another", **stage.asked)
    monkeypatch.setattr(probes_summary, "logistic_rows", lambda *rest, **more: 1 / 0)
    shutil.rmtree(out)
    SCRIPT.main(open_stage("probes", NAME, stage.layout))
    assert len(whole) == 9 and {p: p.read_bytes() for p in whole} == whole


def test_adam_heads_with_changes_per_layer_write_their_curves(tmp_path: Path) -> None:
    settings = ProbesSettings(head="xlm", parity=True, epochs=3, seeds=2, layers=[0, -1], vectors="mean",
                              by_layer={2: {"epochs": 5}})
    stage = probes_stage(tmp_path, settings)
    SCRIPT.main(stage)
    final = rows(stage, statistic="accuracy", split="validation")
    assert [(r["step"], r["layer"], r["seed"]) for r in final] == [(s, l, k) for s in (0, 8, 64) for l in (0, 2)
                                                                   for k in (1, 2)]
    for layer, epochs in ((0, 3), (2, 5)):
        for statistic in ("epoch_loss", "epoch_accuracy", "epoch_training_loss", "epoch_training_accuracy"):
            found = rows(stage, statistic=statistic, split="train", layer=layer, step=8, seed=2)
            assert [r["epoch"] for r in found] == list(range(1, epochs + 1))
        last = rows(stage, statistic="epoch_accuracy", split="validation", layer=layer, step=64, seed=1, epoch=epochs)
        assert last[0]["value"] == rows(stage, statistic="accuracy", split="validation", layer=layer, step=64,
                                        seed=1)[0]["value"]
    assert {r["head"] for r in rows(stage)} == {"xlm"}
    assert {p.name for p in (stage_output(stage) / "figures").glob("*.png")} == {"lattice.png", "layers.png",
                                                                                 "training.png"}
    metrics = json.loads((stage_output(stage) / "metrics.json").read_text())
    assert set(metrics) >= {"accuracy/validation/layer-00/first", "accuracy/validation/layer-02/last"}
    assert "accuracy/validation/layer-01/last" not in metrics


@pytest.mark.parametrize(
    ("settings", "hidden", "message"),
    [
        ({"layers": [5]}, {}, "probes.layers: 5 does not exist; .* has layers 0 .* to 2"),
        ({"test_splits": ["test"]}, {}, "has no rows of the split 'test'; add it to hidden.rows"),
        ({"vectors": "mean"}, {"vectors": ("cls",)}, "mean.npy: was not extracted; add mean to hidden.vectors"),
        ({}, {"labels": np.repeat([0, 1], 40)},
         "index.parquet: the split 'train' holds one class only, 'class-0' .*hidden.rows"),
        ({}, {"labels": np.r_[np.arange(40) % 2, np.ones(40, int)]},
         "the split 'validation' holds one class only, 'class-1'"),
        ({"head": "xlm", "parity": True}, {"classes": 3}, f"for {NAME} .*parity: .* there are 3"),
        ({}, {"damage": {("cls", 8): lambda v: v.__setitem__((1, 7, 0), np.nan)}}, "cls.npy layer 1 row 7: holds NaN"),
        ({"holdout": 0.01}, {}, "no row can be held out of 40"),
        ({"subtest": 0.01}, {}, "probes.subtest: 0.01 of the 40 training sentences .* leaves none on one side"),
    ],
)
def test_what_cannot_be_probed_is_refused_with_the_fix(tmp_path: Path, settings, hidden, message: str) -> None:
    stage = probes_stage(tmp_path, ProbesSettings(**settings), **hidden)
    with pytest.raises(FinetraceError, match=message):
        SCRIPT.main(stage)
    assert not stage_output(stage).exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": "logistic", "parity": True}, "parity: is about the study's heads; set head"),
        ({"test_splits": ["train"]}, "test_splits: 'train' is the split that trains"),
        ({"test_splits": []}, "test_splits: names no split"),
        ({"train_split": "dev"}, "'dev' is not a split"),
        ({"l2": [0.0]}, "l2: .* must hold numbers above 0"),
        ({"layers": []}, "layers: names no layer"),
        ({"dropout": 1.0}, r"dropout: 1.0 is not in \[0, 1\)"),
        ({"seeds": 0}, "seeds: 0 is less than 1"),
        ({"subtest": 1.0}, r"subtest: 1.0 is not in \[0, 1\)"),
        ({"control": {"probe": "mlp"}}, "control.probe: mlp needs the networks; add mlp"),
        ({"control": {"probe": "mlp"}, "mlp": {"checkpoints": "ends"}},
         "control.checkpoints: all needs the networks at all"),
        ({"control": {}, "head": "xlm"}, "control.probe: logistic is about the logistic head; .* or probe: mlp"),
        ({"mlp": {"hiden": [[32]]}}, "unknown key 'mlp.hiden'; did you mean 'hidden'"),
        ({"mlp": {"hidden": [[0, 32]]}}, "must name shapes of sizes above 0"),
        ({"mlp": {"hidden": [[8, 8, 8]]}}, "a shape has more than two layers"),
        ({"mlp": {"hidden": [[8], [8]]}}, "hidden: a shape stands twice"),
        ({"mlp": {"l2": []}}, "l2: .* must hold numbers from 0 on"),
        ({"mlp": {"one_layer": [0]}}, "one_layer: .* must hold sizes above 0"),
        ({"mlp": {"folds": 0}}, "folds: 0 is less than 1"),
        ({"mdl": {"fractions": [0.5, 0.1, 1.0]}}, "fractions: .* must ascend"),
        ({"mdl": {"fractions": []}}, "fractions: .* must ascend"),
        ({"by_layer": {12: {"epochs": 60}}}, "by_layer: changes the training of Adam heads"),
        ({"head": "xlm", "by_layer": {12: {"l2": 1}}}, "by_layer.12: 'l2' cannot change per layer"),
        ({"head": "xlm", "by_layer": {12: {"epochs": 1.5}}}, "by_layer.12.epochs: 1.5 is not a whole number"),
        ({"head": "xlm", "by_layer": {12: {"epochs": 0}}}, "epochs: 0 is less than 1"),
        ({"by_model": {"camembert": {"epoch": 3}}}, "by_model.camembert: unknown key 'epoch'; did you mean 'epochs'"),
    ],
)
def test_contradictory_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(ProbesSettings, values, "params.yaml: probes")


def test_settings_change_by_model_and_by_layer() -> None:
    settings = parse(ProbesSettings, {"head": "xlm", "parity": True, "by_model": {
        "camembert": {"epochs": 200, "by_layer": {12: {"epochs": 60, "learning_rate": 1e-4}}}}}, "x")
    camembert = settings.for_model("camembert")
    assert (camembert.epochs, camembert.parity) == (200, True) and settings.for_model("flaubert").epochs == 30
    last = camembert.for_layer(12)
    assert (last.epochs, last.learning_rate) == (60, 1e-4) and camembert.for_layer(11).epochs == 200
    assert isinstance(last.epochs, int)
