"""From which probability on an example has a class: chosen on validation, so that F1 is highest there."""

from collections.abc import Mapping

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.inference.targets import Target, multi_label_metrics

Answers = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Split -> logits (example, class) and labels as `Encoded` has them."""


def require_thresholds(target: Target) -> None:
    """Raises FinetraceError for a task in which no threshold decides."""
    if target.kind == "regression" or (target.kind == "class" and len(target.label_names) != 2):
        count = len(target.label_names)
        reason = "a number is predicted" if target.kind == "regression" else f"there are {count} classes"
        raise FinetraceError(f"train.thresholds: chosen needs two classes, or target: multi-label, and here {reason}; "
                             "write half for this task (by_task)")


def threshold_metrics(answers: Answers, target: Target) -> tuple[dict[str, float], dict[str, float]]:
    """F1 with chosen thresholds, `SPLIT/f1_chosen` or `SPLIT/{micro_f1,macro_f1}_chosen`, of every split; and the
    thresholds, class name -> probability (of two classes: from which on an example is of the second).

    Chosen once, on validation, each class for itself: of equally good thresholds the nearest to one half.
    """
    if target.kind == "multi-label":
        scores = {split: (_probability(logits), labels) for split, (logits, labels) in answers.items()}
    else:
        scores = {split: (_probability(logits[:, 1:] - logits[:, :1]), labels[:, None])
                  for split, (logits, labels) in answers.items()}
    chosen = np.array([best_threshold(p, y) for p, y in zip(scores["validation"][0].T, scores["validation"][1].T,
                                                             strict=True)])
    names = target.label_names[-len(chosen):]
    by_name: dict[str, float] = {}
    for split, (p, y) in scores.items():
        metrics = multi_label_metrics(p >= chosen, y)
        for name in ("micro_f1", "macro_f1") if target.kind == "multi-label" else ("f1",):
            by_name[f"{split}/{name}_chosen"] = metrics["macro_f1" if name == "f1" else name]
    return by_name, dict(zip(names, chosen.tolist(), strict=True))


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the highest F1, in [0, 1]: halfway between two neighbouring probabilities; one half where
    nothing is better. An example has the class from the threshold on. probabilities, truth: (example,)."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(truth).astype(bool)
    order = np.argsort(-p, kind="stable")
    ranked, right = p[order], np.cumsum(y[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(p) - 1)  # equal probabilities stand together
    below = np.append(ranked[1:], 0.0)[last]
    cuts = np.append((ranked[last] + below) / 2, 0.5)
    half = p >= 0.5
    f1 = np.append(2 * right[last] / (last + 1 + y.sum()), 2 * (y & half).sum() / max(1, half.sum() + y.sum()))
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))
