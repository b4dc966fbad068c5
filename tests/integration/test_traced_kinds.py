"""Traces of trainings on numbers and on several labels, and of adapters: recorded rightly, and read by a study."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.hub import Hub
from tests.integration.test_given import STUDY, fresh, looked_up, project, run
from tests.integration.test_trace import SIGNALS, train_rows, trainer
from tests.stages import ask_study
from tests.training_fixtures import PROBE, WORDS, bert_config, model_folder, sentences, tokenizer

import finetrace
from finetrace.config.series import SeriesSettings
from finetrace.errors import FinetraceError
from finetrace.models import saved
from finetrace.models.given import load_trained
from finetrace.models.load import load_encoder
from finetrace.models.series import resolve_series
from finetrace.models.timeline import open_timeline
from finetrace.store.checkpoints import list_weights, mark, step_of
from finetrace.store.hidden import read_hidden
from finetrace.store.manifest import Manifest, complete, read_manifest
from finetrace.store.tables import matrix, read_table, write_table

ROOT = Path(__file__).parents[2]
ROWS = 24


def data(labels: Any, rows: int = ROWS, seed: int = 7) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({**tokenizer()(sentences(rows, seed)[0]), "labels": labels})


def numbers(rows: int = ROWS, seed: int = 2) -> list[float]:
    return np.random.default_rng(seed).uniform(0, 5, rows).round(2).tolist()


def classes(rows: int = ROWS, seed: int = 2) -> list[list[float]]:
    return (np.random.default_rng(seed).random((rows, 3)) < 0.4).astype(float).tolist()


def started(base: Path, **changes: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    return AutoModelForSequenceClassification.from_pretrained(base, **changes)


def traced(folder: Path, model: Any, labels: Any, validation: Any, told: dict[str, float], **options: Any) -> Any:
    callback = finetrace.TraceCallback(folder, validation=data(validation, 8, 8), probe_rows=8, **options)
    one = trainer([callback], folder.parent / "out", model, data=data(labels), eval_strategy="epoch",
                  more={"eval_dataset": data(validation, 8, 8), "compute_metrics": lambda _: told})
    one.train()
    return one


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return model_folder(tmp_path_factory.mktemp("models") / "tiny", bert_config(layers=1))


@pytest.fixture(scope="module")
def of_numbers(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers") / "traced"
    traced(folder, started(base, num_labels=1), numbers(), numbers(8), {"pearson": 0.5, "spearmanr": 0.25})
    return folder


@pytest.fixture(scope="module")
def of_labels(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels") / "traced"
    model = started(base, num_labels=3, problem_type="multi_label_classification")
    traced(folder, model, classes(), classes(8), {"micro_f1": 0.5}, label_names=["a", "b", "c"])
    return folder


@pytest.fixture(scope="module")
def of_adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters") / "traced"
    lora = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    train_rows(folder, folder.parent / "out", {"label_names": ["negative", "positive"]}, learning_rate=1e-2,
               model=get_peft_model(started(base, num_labels=2), lora))
    return folder


def test_numbers_are_recorded_as_numbers(of_numbers: Path) -> None:
    table, truth = read_table(of_numbers / SIGNALS), np.array(numbers(), np.float32)
    assert table.schema.field("label").type == pa.float32()
    np.testing.assert_array_equal(table["label"], truth[table["example_id"]])
    np.testing.assert_allclose(table["loss"], (matrix(table, "logits")[:, 0] - table["label"].to_numpy()) ** 2,
                               rtol=1e-5)
    probe = read_table(of_numbers / PROBE)
    assert probe.schema.field("label").type == pa.float32() and set(probe["split"].to_pylist()) == {"train",
                                                                                                    "validation"}
    history = read_table(of_numbers / "history.parquet")
    assert set(history.column_names) >= {"mse", "pearson", "spearman"} and "micro_f1" not in history.column_names
    evaluated = [row for row in history.to_pylist() if row["kind"] == "eval"]
    assert [(row["pearson"], row["spearman"]) for row in evaluated] == [(0.5, 0.25)] * 2
    facts = read_manifest(of_numbers).facts
    assert (facts["target"], facts["metric"], facts["trace"]["loss"]) == ("regression", "pearson", "squared_error")
    assert json.loads((of_numbers / "metrics.json").read_text())["validation/pearson"] == 0.5


def test_several_labels_are_recorded_as_one_truth_per_class(of_labels: Path) -> None:
    table, truth = read_table(of_labels / SIGNALS), np.array(classes(), bool)
    assert table.schema.field("label").type == pa.list_(pa.bool_(), 3)
    labels = np.array(table["label"].to_pylist())
    np.testing.assert_array_equal(labels, truth[table["example_id"]])
    z = matrix(table, "logits").astype(float)
    np.testing.assert_allclose(table["loss"], (np.logaddexp(0, z) - z * labels).mean(axis=1), rtol=1e-5)
    history = read_table(of_labels / "history.parquet")
    assert set(history.column_names) >= {"micro_f1", "exact_match"} and "pearson" not in history.column_names
    losses = [row["loss"] for row in history.to_pylist() if row["kind"] == "train"]
    np.testing.assert_allclose(losses, table["loss"].to_numpy().reshape(len(losses), -1).mean(axis=1), rtol=1e-5)
    facts = read_manifest(of_labels).facts
    assert (facts["target"], facts["metric"], facts["label_names"]) == ("multi-label", "micro_f1", ["a", "b", "c"])
    assert facts["trace"]["loss"] == "binary_cross_entropy"


def test_a_training_that_was_killed_goes_on_with_its_labels(base: Path, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    def prepared(folder: Path, *more: Any) -> Any:
        model = started(base, num_labels=3, problem_type="multi_label_classification")
        return trainer([finetrace.TraceCallback(folder, probe_rows=4), *more], tmp_path / "out", model,
                       data=data(classes()), num_train_epochs=1, save_strategy="steps", save_steps=2)

    whole, parts = tmp_path / "whole/trace", tmp_path / "parts/trace"
    prepared(whole).train()
    with pytest.raises(KeyboardInterrupt):
        prepared(parts, Killed()).train()
    prepared(parts).train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-2"))
    for file in (SIGNALS, "history.parquet", PROBE, "manifest.json"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_trace_without_weights_is_no_series(tmp_path: Path) -> None:
    train_rows(tmp_path / "trace", tmp_path / "out", {"checkpoints": "none"}, max_steps=2)
    with pytest.raises(FinetraceError, match=r"series.mine: .*trace kept no weights; train with checkpoints"):
        resolve_series("mine", SeriesSettings(path=str(tmp_path / "trace")), fresh(tmp_path / "series"))


@pytest.mark.parametrize(("changes", "labels", "told"), [
    ({"num_labels": 2}, numbers(), "labels are numbers such as .*, and the model tells 2 classes"),
    ({"num_labels": 3, "problem_type": "multi_label_classification"}, [[0.5, 0.0, 1.0]] * ROWS,
     "labels are neither 0 nor 1"),
])
def test_labels_that_are_none_of_the_kinds(base: Path, tmp_path: Path, changes: Any, labels: Any, told: str) -> None:
    loss = {"compute_loss_func": lambda outputs, labels, **_: outputs.logits.sum()}
    with pytest.raises(FinetraceError, match=told):
        trainer([finetrace.TraceCallback(tmp_path / "trace", probe="none")], tmp_path / "out",
                started(base, **changes), data=data(labels), more=loss).train()


def of_target(root: Path, target: str, names: list[str]) -> None:
    """data/tiny becomes a task of numbers, or of several labels."""
    folder = root / "data/tiny"
    for split, count in read_manifest(folder).facts["rows"].items():
        table = read_table(folder / f"{split}.parquet")
        place = table.schema.get_field_index("label")
        if target == "regression":
            table = table.set_column(place, "label", pa.array(numbers(count), pa.float64()))
        else:
            table = table.append_column("labels", pa.array([[0]] * count, pa.list_(pa.int32())))
        write_table(folder / f"{split}.parquet", table)
    facts = read_manifest(folder, verify=False).facts | {"target": target, "label_names": names}
    complete(folder, Manifest("data", "data", "tiny", "0", {}, {}, {}, facts), started=0.0)


@pytest.mark.parametrize(("kind", "names"), [("regression", ["score"]), ("multi-label", ["a", "b", "c"])])
def test_a_study_takes_their_signals_and_leaves_lenses_of_classes_out(
        kind: str, names: list[str], of_numbers: Path, of_labels: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    source = of_numbers if kind == "regression" else of_labels
    root = project(tmp_path)
    of_target(root, kind, names)
    shutil.copytree(source, root / "runs/mine")
    monkeypatch.chdir(root)
    extra = {"target": kind} if kind == "regression" else {"target": kind, "label_names": names}
    with caplog.at_level(logging.INFO, "finetrace"):
        study = ask_study(root, STUDY | {
            "tasks": {"tiny": {"source": "hub", "id": "lab/x", "text": ["text"], "label": "label",
                               "splits": {"train": "train", "validation": "validation"}, **extra}},
            "series": {"mine": {"path": "runs/mine", "tasks": ["tiny"], "signals": True}}, "comparisons": {},
            "look": {"infodynamics, geometry, kernel, answers": "all"}})
    assert set(study.looked) == {"geometry"}
    assert "infodynamics, kernel, calibration, features need classes" in caplog.text
    trajectory = looked_up(root)
    for table in (SIGNALS, "history.parquet", PROBE):
        assert (trajectory / table).read_bytes() == (source / table).read_bytes()
    facts = read_manifest(trajectory).facts
    assert facts["target"] == kind and facts["head"] == ""
    run(root, "hidden", "mine_tiny_given_s1")
    assert read_hidden(root / "outputs/mine/tiny/given/s1/hidden").steps == [0, 1, 2, 4, 8, 12]


def test_a_trace_of_another_kind_than_its_task_is_refused(of_numbers: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    shutil.copytree(of_numbers, root / "runs/mine")
    monkeypatch.chdir(root)
    ask_study(root, STUDY | {"series": {"mine": {"path": "runs/mine", "tasks": ["tiny"], "signals": True}},
                             "comparisons": {}, "look": {}})
    with pytest.raises(FinetraceError, match=r"series.mine.signals: runs/mine was trained on target: regression, and "
                                             r"the task is target: class"):
        looked_up(root)


def test_adapters_over_a_folder_are_read_as_they_were_trained(of_adapters: Path, base: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    shutil.copytree(of_adapters, root / "runs/mine")
    monkeypatch.chdir(root)
    ask_study(root, STUDY | {"series": {"mine": {"path": "runs/mine", "tasks": ["tiny"], "signals": True}},
                             "comparisons": {}, "look": {"geometry, calibration": "all"}})
    trajectory = looked_up(root)
    assert read_manifest(trajectory).facts["head"] == "sequence"
    last = list_weights(trajectory / "checkpoints")[12]
    batch = tokenizer()([WORDS[0], WORDS[20]], return_tensors="pt")
    with torch.no_grad():
        theirs = saved.load_trained(list_weights(of_adapters / "checkpoints")[12], base)(**batch).logits
        np.testing.assert_allclose(load_trained(last)(**batch).logits, theirs, atol=1e-5)
    run(root, "hidden", "mine_tiny_given_s1")
    hidden = read_hidden(root / "outputs/mine/tiny/given/s1/hidden")
    before, after = hidden.vectors(0, "cls")[1], hidden.vectors(12, "cls")[1]
    assert np.abs(before - after).max() > 1e-3


def rebased(trace: Path, to: Path, before: Path, after: str) -> Path:
    """A copy of a trace whose adapters name another base."""
    shutil.copytree(trace, to)
    for config in to.rglob("adapter_config.json"):
        config.write_text(config.read_text().replace(str(before), after))
        mark(config.parent, step_of(config.parent))
    complete(to, read_manifest(to, verify=False))
    return to


def opened_series(folder: Path, out: Path) -> Any:
    """The timeline of a trace as a series of a study."""
    facts = resolve_series("mine", SeriesSettings(path=str(folder)), fresh(out))
    complete(out, Manifest("trajectory", "series", "mine", "0", {}, {}, {}, facts), started=0.0)
    return open_timeline(out, out / "models", "ends")


def test_timelines_of_adapters_need_their_base(of_adapters: Path, base: Path, tmp_path: Path) -> None:
    timeline = opened_series(of_adapters, tmp_path / "out")
    assert (timeline.steps, timeline.axis) == ([0, 12], "fine-tuning steps")
    assert (timeline.tokenizer / "tokenizer.json").is_file() and len(set(timeline.digests.values())) == 2
    weights = []
    for step in timeline.steps:
        with timeline.checkpoint(step) as one:
            weights.append(load_encoder(one).state_dict()["encoder.layer.0.attention.self.query.weight"])
    untrained = load_encoder(base).state_dict()["encoder.layer.0.attention.self.query.weight"]
    torch.testing.assert_close(weights[0], untrained)
    assert not torch.allclose(weights[1], untrained, atol=1e-5)
    gone = rebased(of_adapters, tmp_path / "moved", base, str(tmp_path / "gone"))
    with pytest.raises(FinetraceError, match=r"base model .*gone is no folder of this machine; name it in `base`"):
        opened_series(gone, tmp_path / "out")


CLIENT = """
import sys
from pathlib import Path
from tests.integration.test_traced_kinds import load_encoder, opened_series
timeline = opened_series(Path(sys.argv[1]), Path(sys.argv[2]))
with timeline.checkpoint(12) as folder:
    weights = load_encoder(folder).state_dict()
    print("RESULT", float(sum(v.double().abs().sum() for v in weights.values())))
"""


def test_adapters_over_a_model_of_the_hub(of_adapters: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "hub/models/lab/tiny/main")
    folder = rebased(of_adapters, tmp_path / "traced", base, "lab/tiny")
    with opened_series(of_adapters, tmp_path / "out").checkpoint(12) as whole:
        wanted = float(sum(values.double().abs().sum() for values in load_encoder(whole).state_dict().values()))
    with Hub(tmp_path / "hub") as hub:  # its client reads HF_ENDPOINT once, when it is imported: a process of its own
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
                            "NO_PROXY": "127.0.0.1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        done = subprocess.run([sys.executable, "-c", CLIENT, str(folder), str(tmp_path / "of-hub")], env=env, text=True,
                              capture_output=True, timeout=120, check=False)
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    assert float(done.stdout.split("RESULT")[1]) == pytest.approx(wanted, rel=1e-6)
