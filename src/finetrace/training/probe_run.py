"""The trajectory of a linear probe. Its steps are the iterations of the final fit, each on all training examples.

The fit is repeated up to each step that is recorded: it starts from zero and is deterministic, so the first k
iterations are always the same. Step 0 is the freshly drawn head, as in every trajectory.
"""

from pathlib import Path
from typing import Any

import numpy as np

from finetrace.config.training import RecordSettings, Schedule, TrainSettings
from finetrace.inference.evaluate import classification_metrics, cross_entropy, predict_with_features
from finetrace.models.head import last_linear
from finetrace.training.checkpoints import save_weights
from finetrace.training.linear_probe import LinearProbe, fit
from finetrace.training.methods import install
from finetrace.training.recorder import Recorder
from finetrace.training.schedule import steps_of


def record_linear_probe(model: Any, prepared: Any, settings: TrainSettings, record: RecordSettings, probe: LinearProbe,
                        features: np.ndarray, probe_rows: dict[str, Any], drawn: tuple[np.ndarray, np.ndarray],
                        recorder: Recorder, weights: Path) -> None:
    """Record signals, history, looks and heads of the fit, and leave the fitted head in the model.

    features: (example, dim) of the training rows;  probe_rows: split -> the rows of the looks;  drawn: weight and bias
    of step 0; weights: folder of the checkpoints. Evaluations, looks and signals happen on the powers of two where
    their schedule counts epochs, because every iteration is one.
    """
    train, total = prepared.splits["train"], probe.iterations
    schedule = lambda s: set(steps_of(_iteration_schedule(s), total, 1))  # noqa: E731
    evaluation_steps, look_steps, checkpoint_steps = (
        schedule(s) for s in (record.evaluate, record.probe, record.checkpoints))
    signal_steps = schedule("log2")
    split_features = {split: (rows, predict_with_features(model, rows, prepared.collator)[1])
                      for split, rows in [("validation", prepared.splits["validation"]), *_named_looks(probe_rows)]
                      if len(rows)}
    X, strength = np.asarray(features, dtype=np.float64), np.array([probe.strength])
    for step in sorted(evaluation_steps | look_steps | checkpoint_steps | signal_steps):
        if step in (0, total):
            weight, bias = (probe.weight, probe.bias) if step else drawn
        else:
            weight, bias = (fitted[0] for fitted in fit(X, train.labels, len(probe.bias), strength, settings, step)[:2])
        install(model, weight, bias)
        if step in look_steps:
            for split, rows in probe_rows.items():
                if len(rows):
                    look_logits = _logits(split_features[f"look {split}"][1], weight, bias)
                    recorder.probe(step, split, rows.example_ids, rows.labels, look_logits,
                                   cross_entropy(look_logits, rows.labels))
        if step in checkpoint_steps:
            save_weights(model, weights, step)
        if step in evaluation_steps:
            rows, values = split_features["validation"]
            recorder.evaluation(step, "validation", step * len(X), float(step),
                                classification_metrics(_logits(values, weight, bias), rows.labels))
        if step in signal_steps:  # last, because a training's row belongs to the update that follows
            logits = _logits(X, weight, bias)
            losses = cross_entropy(logits, train.labels)
            _signals(recorder, step, train, logits, losses)
            recorder.train_step({"step": step, "kind": "train", "split": None, "examples": step * len(X),
                                 "epoch": float(step), "loss": float(losses.mean()), "learning_rate": None,
                                 "gradient_norm": _gradient_norm(X, train.labels, logits, weight, probe.strength),
                                 "head_norm": float(np.sqrt((weight ** 2).sum() + (bias ** 2).sum())),
                                 "tokens": step * int(train.lengths.sum()), "seconds": 0.0, "step_seconds": 1.0,
                                 "step_tokens": 0})
    install(model, probe.weight, probe.bias)


def drawn_head(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weight (class, dim) and bias (class,) of the last linear layer, float64 copies."""
    layer = last_linear(model)
    return layer.weight.detach().cpu().double().numpy().copy(), layer.bias.detach().cpu().double().numpy().copy()


def _iteration_schedule(schedule: Schedule) -> Schedule:
    return "log2" if schedule == "epochs" else schedule


def _named_looks(probe_rows: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"look {split}", rows) for split, rows in probe_rows.items()]


def _logits(X: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (np.asarray(X, dtype=np.float64) @ weight.T + bias).astype(np.float32)


def _signals(recorder: Recorder, step: int, train: Any, logits: np.ndarray, losses: np.ndarray) -> None:
    import torch

    recorder.micro_batch(step, step, train.example_ids, torch.from_numpy(train.labels), torch.from_numpy(logits),
                         torch.from_numpy(losses.astype(np.float32)))


def _gradient_norm(X: np.ndarray, labels: np.ndarray, logits: np.ndarray, weight: np.ndarray, strength: float) -> float:
    """L2 norm of the gradient of what is minimised, per example: mean cross-entropy plus |V|^2 / (2 C n)."""
    scores = logits.astype(np.float64)
    residuals = np.exp(scores - scores.max(axis=1, keepdims=True))
    residuals /= residuals.sum(axis=1, keepdims=True)
    residuals[np.arange(len(labels)), labels] -= 1
    weight_gradient = residuals.T @ X / len(X) + weight / (strength * len(X))
    return float(np.sqrt((weight_gradient ** 2).sum() + (residuals.mean(axis=0) ** 2).sum()))
