"""The loss of each example as the output of a model, so that the machinery of kernels takes its gradient."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

KINDS = ("class", "regression", "multi-label")
TRUTHS = "truths"


class Losses(torch.nn.Module):
    """A classifier whose output is (example, 1): the loss of each example, in the precision of its logits.

    Called with the classifier's inputs and `truths`, (row, class) of `truths_of`, or (row, slot, class) where rows hold
    several examples.
    """

    def __init__(self, model: Any, kind: str):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; give one of {', '.join(KINDS)}")
        self.model, self.kind, self.spans = model, kind, getattr(model, "spans", 1)

    def forward(self, truths: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        output = self.model(**inputs)
        logits = getattr(output, "logits", output)
        if "slots" in inputs:
            truths = truths.flatten(0, 1)[inputs["slots"]]
        return losses_of(logits, truths, self.kind)[:, None]


def losses_of(logits: torch.Tensor, truths: torch.Tensor, kind: str) -> torch.Tensor:
    """(example,) loss of logits (example, class) beside truths (example, class) of `truths_of`: cross-entropy in nats,
    squared error of the first logit, or the mean over the classes of binary cross-entropies in nats; 0 is perfect."""
    if kind == "regression":
        return (logits[:, 0] - truths[:, 0]) ** 2
    if kind == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, truths, reduction="none").mean(dim=1)
    return -(truths * F.log_softmax(logits, dim=1)).sum(dim=1)


def truths_of(labels: np.ndarray, kind: str, classes: int, weights: np.ndarray | None = None, smoothing: float = 0.0,
              ) -> np.ndarray:
    """What `losses_of` compares logits with: (example, class) float64, (example, 1) of a regression.

    labels: (example,) classes or scores, (example, class) of 0 and 1;  weights: (class,) of a weighted cross-entropy;
    smoothing: share of each label that all classes get. Of classes it is what each -log p is multiplied with, as
    `torch.nn.functional.cross_entropy` does it: (1 - smoothing) w[label] for the label, and smoothing w / classes.
    """
    labels = np.asarray(labels)
    if kind == "regression":
        return labels.astype(np.float64)[:, None]
    if kind == "multi-label":
        return labels.astype(np.float64)
    own = np.ones(classes) if weights is None else np.asarray(weights, dtype=np.float64)
    return (1 - smoothing) * own * np.eye(classes)[labels] + smoothing * own / classes


def with_truths(batch: dict[str, Any], truths: np.ndarray, spans: int = 1) -> dict[str, Any]:
    """A batch of a classifier as `Losses` takes it. truths: (example, class), in the order of its logits;  spans: of
    each example."""
    values = torch.from_numpy(np.ascontiguousarray(truths, dtype=np.float64))
    if "slots" in batch:
        rows, places = batch["spans"].shape[0], batch["spans"].shape[1] // spans
        every = values.new_zeros((rows * places, values.shape[1]))
        every[batch["slots"]] = values
        values = every.view(rows, places, -1)
    return {name: value for name, value in batch.items() if name != "labels"} | {TRUTHS: values}


def plain_labels(labels: Any, kind: str, names: Sequence[str]) -> list[str]:
    """Labels as a person reads them: names of classes, several with commas between, or numbers."""
    if kind == "regression":
        return [f"{label:g}" for label in labels]
    if kind == "multi-label":
        return [", ".join(name for name, there in zip(names, row, strict=True) if there) or "none" for row in labels]
    return [names[label] for label in labels]
