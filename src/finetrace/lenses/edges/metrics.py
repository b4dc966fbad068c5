"""Micro precision, recall and F1 from the hits of targets, with intervals whose unit of resampling is the sentence."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetrace.lenses.intervals import counted_interval, difference_interval

_CORE = re.compile(r"ARG[0-5A]|ARGM.*")
Estimate = tuple[np.ndarray, np.ndarray, np.ndarray]


def clean_classes(names: Sequence[str]) -> tuple[np.ndarray, str] | None:
    """The classes that Tenney et al. score: (class,) bool and what they are; None where they score all.

    It is told by the names: of 0 and 1 (coreference) class 1; of roles (ARG0, C-ARG0, R-ARGM-TMP) those without C- and
    R-; of relations all but Other and no_relation.
    """
    if sorted(names) == ["0", "1"]:
        return np.array([name == "1" for name in names]), "class 1 only"
    if any(re.match("[CR]-ARG", name) for name in names) and any(_CORE.fullmatch(name) for name in names):
        return np.array([bool(_CORE.fullmatch(name)) for name in names]), "roles without C- and R-"
    if unclean := {"Other", "no_relation"} & set(names):
        return np.array([name not in unclean for name in names]), f"all but {' and '.join(sorted(unclean))}"
    return None


def sentence_counts(hits: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """Hits (..., target, 3) added up per sentence: (sentence, ..., 3) float64. sentences: (target,) int, any
    numbers."""
    codes = np.unique(sentences, return_inverse=True)[1].ravel()
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return np.moveaxis(np.add.reduceat(hits[..., order, :].astype(np.float64), begins, axis=-2), -2, 0)


def micro(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Micro scores over all decisions from counts (..., 3) of true positives, false positives and false negatives.

    precision = TP / (TP + FP), recall = TP / (TP + FN), f1 = 2 TP / (2 TP + FP + FN), each (...) in [0, 1], higher is
    better, 0 where nothing was decided for or nothing is right, as scikit-learn has it. For one class per target in
    softmax mode all three are the accuracy.
    """
    right, wrong, missed = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return {"f1": _ratio(2 * right, 2 * right + wrong + missed), "precision": _ratio(right, right + wrong),
            "recall": _ratio(right, right + missed)}


def micro_intervals(counts: np.ndarray) -> dict[str, Estimate]:
    """Micro scores with 95 % intervals (`counted_interval` over sentences). counts: (sentence, ..., 3) of
    `sentence_counts`; returns value, low, high, each (...). F1 is a share, too: true positives of themselves and half
    of all errors."""
    right, wrong, missed = np.moveaxis(counts, (-1, 0), (0, -1))  # each (..., sentence)
    totals = {"f1": right + (wrong + missed) / 2, "precision": right + wrong, "recall": right + missed}
    values = micro(counts.sum(axis=0))
    return {name: (values[name], *counted_interval(right, total)) for name, total in totals.items()}


def f1_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """F1 of one set of hits minus that of another on the same sentences, with the paired interval; counts (sentence,
    ..., 3)."""
    wholes = [counts.sum(axis=0) for counts in (first, second)]
    value, other = (micro(counted)["f1"] for counted in wholes)
    left_out, other_left_out = (micro(counted - counts)["f1"]
                                for counted, counts in zip(wholes, (first, second), strict=True))
    decisions = sum(counted[..., 0] + counted[..., 1:].sum(axis=-1) / 2 for counted in wholes) / 2
    return value - other, *difference_interval(value - other, left_out - other_left_out, decisions)


def majority_decision(train: np.ndarray, sets: bool) -> np.ndarray:
    """What a probe without information decides for: (class,) bool. train: (target, class) bool; the most frequent
    class, or, where labels are sets, the classes of at least half of the targets."""
    rates = train.mean(axis=0)
    return rates >= 0.5 if sets else np.arange(len(rates)) == int(rates.argmax())


def hits_of_decision(decided: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Hits (target, 3) of one decision (class,) bool for all targets; gold: (target, class) bool."""
    true_positives = (gold & decided).sum(axis=1)
    return np.stack([true_positives, decided.sum() - true_positives, gold.sum(axis=1) - true_positives], axis=1)


def _ratio(part: Any, whole: Any) -> np.ndarray:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
