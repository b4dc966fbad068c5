"""What a fine-tuning minimises: the loss of each example of a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.inference.targets import Target

LossOf = Callable[[Any, Any], tuple[Any, Any]]
"""From a classifier's outputs and labels to losses (example,) and logits (example, class)."""


def loss_of(target: Target, settings: TrainSettings, labels: np.ndarray) -> LossOf:
    """The loss of a training; labels: of its training examples, as in `Encoded`.

    A step's loss is the mean over its examples, of weighted losses, too: a class of weight 2 pulls as if each of its
    examples stood there twice in that sum. Raises FinetraceError for weights of unknown classes.
    """
    import torch
    import torch.nn.functional as F

    if target.kind == "regression":
        return lambda outputs, y: ((outputs.logits.float()[:, 0] - y) ** 2, outputs.logits)
    if target.kind == "multi-label":
        return lambda outputs, y: (
            F.binary_cross_entropy_with_logits(outputs.logits.float(), y, reduction="none").mean(dim=1), outputs.logits)
    if settings.class_weights is None and not settings.label_smoothing:
        return cross_entropy_of
    weights = class_weights(settings.class_weights, labels, target.label_names)
    weight_tensor = None if weights is None else torch.from_numpy(weights.astype(np.float32))

    def weighted_loss(outputs: Any, y: Any) -> tuple[Any, Any]:
        weight = None if weight_tensor is None else weight_tensor.to(outputs.logits.device)
        return (F.cross_entropy(outputs.logits.float(), y, reduction="none", weight=weight,
                                label_smoothing=settings.label_smoothing), outputs.logits)

    return weighted_loss


def cross_entropy_of(outputs: Any, labels: Any) -> tuple[Any, Any]:
    """Per-example losses, in nats, and logits of a classifier's output."""
    import torch.nn.functional as F

    return F.cross_entropy(outputs.logits.float(), labels, reduction="none"), outputs.logits


def class_weights(setting: str | Mapping[str, float] | None, labels: np.ndarray,
                  names: tuple[str, ...]) -> np.ndarray | None:
    """(class,) float64 weight of each class, or None where all weigh the same.

    setting: balanced - examples / (classes that train has x examples of the class), so that every class counts the same
    and the mean over examples is 1; classes that train lacks weigh 1 -, or weights by name, of which absent ones are 1.
    """
    if setting is None:
        return None
    if setting == "balanced":
        counts = np.bincount(labels, minlength=len(names)).astype(np.float64)
        return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)
    assert not isinstance(setting, str)
    if unknown := sorted(set(setting) - set(names)):
        raise FinetraceError(f"train.class_weights: {unknown[0]!r} is no class of the task; its classes are "
                             f"{', '.join(names)}")
    return np.array([setting.get(name, 1.0) for name in names])


def loss_words(target: Target, settings: TrainSettings) -> str:
    """What `loss` in signals.parquet and in the training rows of history.parquet is, in words; "" where it is plain
    cross-entropy."""
    if target.kind == "regression":
        return "squared error"
    if target.kind == "multi-label":
        return "mean over the classes of binary cross-entropies, nats"
    parts = [*(["weighted by class (train.class_weights)"] if settings.class_weights is not None else []),
             *([f"labels smoothed by {settings.label_smoothing:g}"] if settings.label_smoothing else [])]
    return f"cross-entropy, nats, {' and '.join(parts)}; that of evaluations and looks is plain" if parts else ""
