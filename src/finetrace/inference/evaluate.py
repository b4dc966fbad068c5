"""Logits in evaluation mode and the metrics of a classification."""

from collections.abc import Callable
from typing import Any

import numpy as np

from finetrace.models.head import last_linear
from finetrace.models.rows import Collator, Encoded, batches_by_length


def predict(model: Any, rows: Encoded, collator: Collator, batch_size: int = 64, bf16: bool = False) -> np.ndarray:
    """Logits (example, class) float32 in evaluation mode (dropout off), in the order of the examples.

    Leaves the model's mode, gradients and torch's random state as they were.
    """
    return _run(model, rows, collator, batch_size, bf16, lambda outputs: outputs.logits)


def predict_with_features(model: Any, rows: Encoded, collator: Collator, batch_size: int = 64,
                          bf16: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Logits (example, class) and features (example, dim), what goes into the head's last linear layer;
    float32, as `predict`."""
    features: list[Any] = []
    layer = last_linear(model)
    hook = layer.register_forward_pre_hook(lambda _, args: features.append(args[0].detach()))
    try:
        joined = _run(model, rows, collator, batch_size, bf16,
                      lambda outputs: _side_by_side(outputs.logits, features.pop()))
    finally:
        hook.remove()
    return np.ascontiguousarray(joined[:, :layer.out_features]), np.ascontiguousarray(joined[:, layer.out_features:])


def _side_by_side(logits: Any, features: Any) -> Any:
    """(example, class) and (example, dim) side by side, in full precision."""
    import torch

    return torch.cat([logits.float(), features.float()], dim=1)


def _run(model: Any, rows: Encoded, collator: Collator, batch_size: int, bf16: bool,
         pick: Callable[[Any], Any]) -> np.ndarray:
    """What `pick` takes from the outputs of every batch: (example, column) float32."""
    import torch

    device = next(model.parameters()).device
    was_training, result = model.training, None
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for index in batches_by_length(rows.lengths, batch_size):
            batch = collator(rows, index)
            batch.pop("labels")
            values = pick(model(**{k: v.to(device) for k, v in batch.items()})).float().cpu().numpy()
            if result is None:
                result = np.empty((len(rows.labels), values.shape[1]), dtype=np.float32)
            result[rows.examples(index)] = values
    model.train(was_training)
    assert result is not None
    return result


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per-example loss in nats, float64: (row, class), (row,) -> (row,); 0 is perfect, ln(classes) is a coin toss."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss (nats), accuracy, macro F1, and for two classes F1 of class 1 and Matthews correlation;
    higher is better but loss."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    predicted = logits.argmax(axis=1)
    classes = logits.shape[1]
    metrics = {
        "loss": float(cross_entropy(logits, labels).mean()),
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, labels=list(range(classes)), average="macro", zero_division=0)),
    }
    if classes == 2:
        metrics["f1"] = float(f1_score(labels, predicted, zero_division=0))
        metrics["matthews"] = float(matthews_corrcoef(labels, predicted))
    return metrics
