"""Control tasks (Hewitt and Liang 2019, "Designing and interpreting probes with control tasks"): random labels that a
probe can only learn by heart. Selectivity, accuracy minus control accuracy, tells how much of the accuracy is not the
probe's own memory.
"""

from collections.abc import Sequence

import numpy as np


def word_types(words: Sequence[Sequence[str]], spans: Sequence[Sequence[int]]) -> list[str]:
    """What a word type is in a task of words: the words of the span as written; of a pair, those of both spans.

    words: per example its sentence;  spans: per example start and end (exclusive) of its span, or of both, in a row.
    Returns one text per example, the spans parted by a tab.
    """
    return ["\t".join(" ".join(sentence[start:end]) for start, end in zip(bounds[0::2], bounds[1::2], strict=True))
            for sentence, bounds in zip(words, spans, strict=True)]


def control_labels(types: Sequence[str] | np.ndarray, y: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Labels that depend on the word type alone, at random: (row,) int64.

    types: (row,) equal for equal words; a number of its own for every row makes a task that can be learned by heart
    only;
    y: (row,) int labels;  train: (row,) bool, rows that train. Types get their labels so that the training rows keep
    the shares of y, to the rows of one type: the types, in random order, are laid side by side, each as long as it has
    rows, over the labels as long as they have. A type that training lacks gets a label at random from the training
    rows'.
    """
    y, train = np.asarray(y), np.asarray(train, dtype=bool)
    names, type_of_row = np.unique(np.asarray(types), return_inverse=True)
    if type_of_row.shape != y.shape or train.shape != y.shape:
        raise ValueError(f"types {type_of_row.shape}, y {y.shape} and train {train.shape} must have one entry per row")
    if not train.any():
        raise ValueError("train: marks no row")
    random = np.random.default_rng(seed)
    counts = np.bincount(type_of_row[train], minlength=len(names))
    gold = np.sort(y[train])
    labels = random.permutation(np.unique(gold))  # which labels lie side by side is random too
    laid = np.concatenate([gold[gold == label] for label in labels])
    order = random.permutation(len(names))
    middle = (np.cumsum(counts[order]) - 0.5 * counts[order]).astype(np.int64)
    drawn = laid[np.minimum(middle, len(laid) - 1)]
    drawn = np.where(counts[order] > 0, drawn, random.choice(gold, size=len(names)))
    label_of_type = np.empty(len(names), dtype=np.int64)
    label_of_type[order] = drawn
    return label_of_type[type_of_row]
