"""Trainings on numbers, on several labels and on tagged words, from data to trajectory and hidden states."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.target_tasks import task
from tests.training_fixtures import SEEDS, model_folder, recording, settings, task_folder

from finetrace.config.hidden import HiddenSettings
from finetrace.config.training import MethodSettings
from finetrace.errors import FinetraceError
from finetrace.inference.trajectory import extract_trajectory
from finetrace.store.hidden import read_hidden
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import matrix, read_table
from finetrace.training.finetune import finetune

pytestmark = pytest.mark.slow  # several trainings; tests/unit has the parts

@pytest.fixture(scope="module")
def here(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("targets")
    model_folder(root / "model")
    return root


def train(here, name, folder, method="ft", **changes):
    out = here / name / "trajectory"
    out.mkdir(parents=True)
    wanted = settings(**{"epochs": 6.0, "learning_rate": 4e-3, "dropout": 0.0} | changes)
    facts = finetune(here / "model", folder, wanted, recording(checkpoints={"steps": [0]}), SEEDS,
                     scratch=here / name / "scratch", out=out, name=name, method=MethodSettings(kind=method))
    return out, facts, json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize("method", ["ft", "lora"])
def test_numbers(here, method):
    folder = task(here / f"numbers-{method}", "regression")
    out, facts, metrics = train(here, f"run-{method}", folder, method)
    assert facts["target"] == "regression" and facts["loss"] == "squared error"
    signals = read_table(out / "signals.parquet")
    predicted, labels = matrix(signals, "logits")[:, 0], signals["label"].to_numpy()
    np.testing.assert_allclose(signals["loss"].to_numpy(), (predicted - labels) ** 2, rtol=1e-5, atol=1e-6)
    assert {"pearson", "spearman", "mse", "loss"} == {key.split("/")[1] for key in metrics if key.startswith("test/")}
    evaluations = [r for r in read_table(out / "history.parquet").to_pylist() if r["kind"] == "eval"]
    assert evaluations[-1]["pearson"] == pytest.approx(metrics["validation/pearson"]) and "accuracy" in evaluations[0]
    assert method == "lora" or metrics["test/pearson"] > 0.9
    assert read_table(out / "probe.parquet")["label"].type == pa.float32()


def test_several_labels(here):
    folder = task(here / "several", "multi-label")
    out, facts, metrics = train(here, "run-several", folder, thresholds="chosen", epochs=20.0)
    assert metrics["test/micro_f1"] > 0.9 and metrics["validation/macro_f1_chosen"] >= metrics["validation/macro_f1"]
    assert "test/micro_f1_chosen" in metrics and set(facts["thresholds"]) == {"good", "bad"}
    signals = read_table(out / "signals.parquet")
    truth, logits = np.array(signals["label"].to_pylist(), dtype=float), matrix(signals, "logits").astype(float)
    assert truth.shape == logits.shape == (20 * 96, 2)
    slow = -(truth * np.log(1 / (1 + np.exp(-logits))) + (1 - truth) * np.log(1 / (1 + np.exp(logits)))).mean(axis=1)
    np.testing.assert_allclose(signals["loss"].to_numpy(), slow, rtol=1e-4, atol=1e-6)


def test_tagged_words(here):
    folder = task(here / "tags", "tags", (48, 16, 16))
    _, _, metrics = train(here, "run-tags", folder)
    assert metrics["test/entity_f1"] > 0.8 and metrics["test/accuracy"] >= metrics["test/entity_f1"] - 0.1
    assert {"entity_precision", "entity_recall"} <= {key.split("/")[1] for key in metrics if "/" in key}


def test_weights_and_smoothing_change_the_training_and_are_told(here):
    folder = task_folder(here / "classes", {"train": 32, "validation": 16})
    runs = {name: train(here, name, folder, **changes) for name, changes in (
        ("plain", {}), ("weighted", {"class_weights": "balanced"}), ("smoothed", {"label_smoothing": 0.2}),
        ("thresholds", {"thresholds": "chosen"}))}
    losses = {name: read_table(out / "signals.parquet")["loss"].to_pylist() for name, (out, _, _) in runs.items()}
    assert losses["plain"] == losses["thresholds"] != losses["weighted"] != losses["smoothed"]
    assert "loss" not in runs["plain"][1] and "weighted by class" in runs["weighted"][1]["loss"]
    chosen = runs["thresholds"][2]
    assert chosen["validation/f1_chosen"] >= chosen["validation/f1"]
    assert {k: v for k, v in chosen.items() if "chosen" not in k} == runs["plain"][2]


def test_unknown_weights_end_before_the_training(here):
    folder = task_folder(here / "unknown", {"train": 32, "validation": 16})
    with pytest.raises(FinetraceError, match=r"'x' is no class of the task; its classes are negative, positive"):
        train(here, "run-unknown", folder, class_weights={"x": 2.0})


@pytest.mark.parametrize("target", ["regression", "multi-label"])
def test_hidden_states_of_tasks_without_classes(here, target):
    folder = task(here / f"hidden-{target}", target, (24, 12, 8))
    out, _, _ = train(here, f"hidden-run-{target}", folder)
    states = here / f"states-{target}"
    states.mkdir()
    facts = extract_trajectory(out, here / "model", folder, HiddenSettings(rows={"train": 10, "validation": 6}), 16, 3,
                               scratch=here / f"scratch-{target}", out=states, name="hidden")
    assert facts["target"] == target and facts["rows"] == {"train": 10, "validation": 6}
    complete(states, Manifest("hidden", "hidden", "x", "0", {}, {}, {}, facts), started=0.0)
    hidden = read_hidden(states)
    labels = dict(enumerate(read_table(folder / "train.parquet")["label"].to_pylist()))
    rows = hidden.rows("train")
    np.testing.assert_allclose(hidden.labels[rows], [labels[i] for i in hidden.example_ids[rows]], rtol=1e-6)
