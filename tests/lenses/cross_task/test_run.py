"""The stage cross-task on a real, tiny trajectory: another task's examples through its first and last checkpoint."""

import json
from dataclasses import asdict

import pytest
from tests.hidden_outputs import finished, load_script
from tests.stages import ask, of_run
from tests.training_fixtures import model_folder, recording, settings, task_folder

from finetrace.config.hidden import HiddenSettings
from finetrace.layout import Layout
from finetrace.lenses.cross_task.settings import CrossTaskSettings
from finetrace.lenses.probes.settings import ProbesSettings
from finetrace.pipeline.stage import open_stage
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table
from finetrace.training.finetune import RunSeeds, finetune


@pytest.fixture
def stage(tmp_path):
    """A tiny model tuned on one task; the other task is its own, with pairs of texts."""
    layout = Layout(tmp_path, tmp_path)
    model, task = model_folder(layout.model("tiny")), task_folder(layout.task("one"))
    task_folder(layout.task("other"), {"train": 60, "validation": 30}, pairs=True)
    folder = layout.run("tiny", "one", "ft", 1) / "trajectory"
    folder.mkdir(parents=True)
    train = settings()
    finetune(model, task, train, recording(checkpoints="log2"), RunSeeds.of(0, 1), scratch=tmp_path / "scratch",
             out=folder, name="tiny")
    complete(folder, finished("trajectory", train={"max_length": 16}))
    ask(tmp_path, "cross-task", "effect", **of_run("tiny/one/ft/s1"), probes=asdict(ProbesSettings(vectors="mean")),
        cross_task=asdict(CrossTaskSettings(tuned="tiny/one/ft/s1", task="other")),
        hidden=asdict(HiddenSettings(rows={"train": 40, "validation": 30}, batch_tokens=64)))
    return open_stage("cross-task", "effect", layout)


def test_the_other_task_is_looked_at_before_and_after_and_nothing_is_left_behind(stage):
    load_script("cross_task").main(stage)
    out = stage.layout.cross_task("effect")
    rows = read_table(out / "table.parquet").to_pylist()
    assert {row["step"] for row in rows} == {0, 16} and {row["layer"] for row in rows} == {0, 1, 2}
    here = [row for row in rows if row["statistic"] == "outside_min" and row["step"] == 0 and row["layer"] == 1]
    sizes = {row["label"]: row["n"] for row in here if row["label"]}
    assert set(sizes) == {"negative", "positive"} and sum(sizes.values()) == 40
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["labels_grown/layer-02"] + metrics["labels_shrunk/layer-02"] == 2
    assert 0 <= metrics["accuracy/layer-02/last"] <= 1
    assert set(read_manifest(out).inputs) == {"outputs/tiny/one/ft/s1/trajectory", "data/other"}
    assert not [p for p in stage.layout.root.rglob("*.npy")]


def test_a_crash_after_the_forward_passes_does_not_repeat_them(stage, monkeypatch):
    module = load_script("cross_task")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("finetrace.lenses.hulls.partition.probe", lambda *rest, **more: 1 / 0)
        module.main(stage)
    before = {p: p.stat().st_mtime_ns for p in stage.layout.root.rglob("*.npy")}
    assert len(before) == 2 and not stage.layout.cross_task("effect").exists()

    def nothing(*args, **rest):
        raise AssertionError("extracted again")

    monkeypatch.setattr("finetrace.inference.trajectory.extract_trajectory", nothing)
    module.main(stage)
    assert stage.layout.cross_task("effect").is_dir() and not any(path.exists() for path in before)
