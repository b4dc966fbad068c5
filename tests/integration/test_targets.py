"""Trainings on numbers, on several labels and on tagged words, from data to trajectory and hidden states."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.training_fixtures import SEEDS, WORDS, model_folder, recording, settings, task_folder

from finetrace.config.hidden import HiddenSettings
from finetrace.config.training import MethodSettings
from finetrace.errors import FinetraceError
from finetrace.inference.trajectory import extract_trajectory
from finetrace.store.files import atomic_folder
from finetrace.store.hidden import read_hidden
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import matrix, read_table, write_table
from finetrace.training.finetune import finetune

pytestmark = pytest.mark.slow  # several trainings; tests/unit has the parts

GOOD = [w for w in WORDS if w.startswith("good")]
BAD = [w for w in WORDS if w.startswith("bad")]
TAGS = ["B-x", "I-x", "O"]


def task(path, target, rows=(96, 32, 24)):
    """How many good words a text of six has; which kinds of words it has; runs of good words as entities."""
    facts = {"kind": "token" if target == "tags" else "sequence", "spans": int(target == "tags"),
             "rows": dict(zip(("train", "validation", "test"), rows, strict=True))}
    facts |= {"regression": {"label_names": ["score"], "metric": "pearson", "target": target},
              "multi-label": {"label_names": ["good", "bad"], "metric": "micro_f1", "target": target,
                              "multi_label": True},
              "tags": {"label_names": TAGS, "metric": "entity_f1", "tags": "bio"}}[target]
    with atomic_folder(path) as out:
        for number, (split, count) in enumerate(facts["rows"].items()):
            rng = np.random.default_rng(number)
            good = rng.random((count, 6)) < rng.choice([0.0, 0.3, 0.7, 1.0], size=(count, 1))
            words = np.where(good, rng.choice(GOOD, (count, 6)), rng.choice(BAD, (count, 6)))
            table = {"example_id": pa.array(range(count), pa.int64()),
                     "text_a": pa.array([" ".join(row) for row in words]), "text_b": pa.nulls(count, pa.string()),
                     "label": pa.array(good.mean(axis=1) * 5, pa.float64())}
            if target == "multi-label":
                table["label"] = pa.array([-1] * count, pa.int32())
                table["labels"] = pa.array([[0] * int(row.any()) + [1] * int((~row).any()) for row in good],
                                           pa.list_(pa.int32()))
            if target == "tags":
                tags = [2 if not one else 1 if i % 6 and before else 0
                        for i, (one, before) in enumerate(zip(good.ravel(), [False, *good.ravel()], strict=False))]
                table = {"example_id": pa.array(range(6 * count), pa.int64()),
                         **{k: pa.array(np.repeat(table[k].to_numpy(zero_copy_only=False), 6)) for k in ("text_a",)},
                         "text_b": pa.nulls(6 * count, pa.string()), "label": pa.array(tags, pa.int32()),
                         "sentence": pa.array(np.repeat(np.arange(count), 6)),
                         "words": pa.array([list(row) for row in words for _ in range(6)]),
                         "spans": pa.array([[i, i + 1] for i in range(6)] * count, pa.list_(pa.int32(), 2))}
            write_table(out / f"{split}.parquet", pa.table(table))
        complete(out, Manifest("data", "data", target, "0", {}, {}, {}, facts), started=0.0)
    return path


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
