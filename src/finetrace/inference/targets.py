"""What is predicted of an example - one class, a number, any number of classes -: its loss and its metrics.

The facts of a task's manifest say which: `target` (absent: one class) and `tags`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.inference.evaluate import classification_metrics, cross_entropy
from finetrace.models.rows import Encoded
from finetrace.tags import entity_scores


@dataclass(frozen=True)
class Target:
    """One of the kinds. kind: class, regression or multi-label;  label_names: classes in order, of a regression the one
    name of its number;  tags: whether the classes are tags of words that mark entities."""

    kind: str
    label_names: tuple[str, ...]
    tags: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics beside the loss that plain classes do not have: columns of a history."""
        if self.kind == "regression":
            return ("mse", "pearson", "spearman")
        if self.kind == "multi-label":
            return ("micro_f1", "exact_match")
        return ("entity_precision", "entity_recall", "entity_f1") if self.tags else ()

    def losses(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(example,) float64 loss of each: cross-entropy in nats, squared error, or the mean over the classes of binary
        cross-entropies in nats; 0 is perfect. logits: (example, class); labels: as in `Encoded`."""
        if self.kind == "regression":
            return (logits[:, 0].astype(np.float64) - labels) ** 2
        if self.kind == "multi-label":
            z = logits.astype(np.float64)
            return (np.logaddexp(0, z) - z * labels).mean(axis=1)
        return cross_entropy(logits, labels)

    def evaluate(self, logits: np.ndarray, rows: Encoded) -> dict[str, float]:
        """Loss and metrics of the answers to all examples of some rows; logits: (example, class)."""
        if self.kind == "regression":
            return regression_metrics(logits[:, 0], rows.labels)
        if self.kind == "multi-label":
            return {"loss": float(self.losses(logits, rows.labels).mean()),
                    **multi_label_metrics(logits > 0, rows.labels)}
        metrics = classification_metrics(logits, rows.labels)
        return metrics | self._entity_metrics(logits, rows) if self.tags else metrics

    def _entity_metrics(self, logits: np.ndarray, rows: Encoded) -> dict[str, float]:
        ends = np.cumsum(rows.sizes)[:-1]
        sentence_tags = ([[self.label_names[i] for i in sentence] for sentence in np.split(numbers, ends)]
                         for numbers in (rows.labels, logits.argmax(axis=1)))
        return entity_scores(*sentence_tags)


def target_of(facts: Mapping[str, Any]) -> Target:
    """The target of a task; facts: of its manifest."""
    return Target(facts.get("target", "class"), tuple(facts["label_names"]), "tags" in facts)


def regression_metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Loss and mse (both the mean squared error; 0 is perfect, lower is better), Pearson's and Spearman's correlation
    (-1 to 1, higher is better; 0 where all predictions or all truths are equal, as nothing is told then).

    predicted, truth: (example,).
    """
    from scipy.stats import pearsonr, spearmanr

    x, y = predicted.astype(np.float64), truth.astype(np.float64)
    mse = float(((x - y) ** 2).mean())
    if not np.isfinite(x).all():
        return {"loss": mse, "mse": mse, "pearson": float("nan"), "spearman": float("nan")}
    alike = len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0
    return {"loss": mse, "mse": mse, "pearson": 0.0 if alike else float(pearsonr(x, y).statistic),
            "spearman": 0.0 if alike else float(spearmanr(x, y).statistic)}


def multi_label_metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Micro F1 (all pairs of example and class together), macro F1 (mean over classes; a class that neither has nor is
    given to any example counts 0) and exact match (share of examples all of whose classes are right); 0 to 1, higher
    is better.

    predicted, truth: (example, class), nonzero where the example has the class.
    """
    answered, named = predicted.astype(bool), truth.astype(bool)
    right, predicted_count, true_count = (values.sum(axis=0).astype(np.float64)
                                          for values in (answered & named, answered, named))
    class_f1 = 2 * right / np.maximum(predicted_count + true_count, 1)
    return {"exact_match": float((answered == named).all(axis=1).mean()),
            "macro_f1": float(class_f1.mean()),
            "micro_f1": float(2 * right.sum() / max(1.0, predicted_count.sum() + true_count.sum()))}
