"""Which examples two trainings answer differently, and whether that is more than chance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.predictions import Predictions, read_predictions
from finetrace.store.tables import read_table


@dataclass(frozen=True)
class Example:
    """One example that only one of the two gets right. flipped: the first checkpoint from which on the second one's
    answer is the one it ends with."""

    example_id: int
    text: str
    label: str
    first: str
    second: str
    flipped: int


@dataclass(frozen=True)
class Paired:
    """Two trainings on the same examples of a set, their kept weights.

    difference: accuracy of the second minus that of the first, in -1 .. 1, with its 95 % interval.  p: of McNemar's
    exact test that both are right equally often; NaN for words, which come in sentences.
    """

    set: str
    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    lost: list[Example]
    won: list[Example]


def paired(layout: Layout, first: str, second: str, task: str, name: str) -> Paired:
    """Compare the predictions of two places on the examples of a set that both looked at.

    Raises FinetraceError when a place has no predictions, when their classes differ, or without common examples.
    """
    one, other = (_read(layout, place) for place in (first, second))
    if one.label_names != other.label_names:
        raise FinetraceError(f"{first} and {second} tell other classes apart: {', '.join(one.label_names)} and "
                             f"{', '.join(other.label_names)}")
    rows = [p.rows(name) for p in (one, other)]
    shared, at, other_at = np.intersect1d(one.example_ids[rows[0]], other.example_ids[rows[1]], return_indices=True)
    if not len(shared):
        raise FinetraceError(f"{first} and {second} have no example of {name} in common; look at both with the same "
                             "predictions.max_rows")
    labels, sentences = one.labels[rows[0][at]], one.sentences[rows[0][at]]
    said = one.logits(one.kept_step)[rows[0][at]].argmax(1)
    answers = np.stack([other.logits(step)[rows[1][other_at]].argmax(1) for step in other.steps])
    says = answers[other.steps.index(other.kept_step)]
    right, rights = said == labels, says == labels
    difference, low, high = paired_difference(right, rights, sentences)
    independent = len(np.unique(sentences)) == len(sentences)
    texts = texts_of(layout, task, name)
    until = other.steps.index(other.kept_step) + 1
    since = np.array(other.steps)[flips(answers[:until])]

    def listed(keep: np.ndarray) -> list[Example]:
        names = one.label_names
        return [Example(int(shared[i]), texts.get(int(shared[i]), ""), names[labels[i]], names[said[i]], names[says[i]],
                        int(since[i])) for i in np.flatnonzero(keep)]

    return Paired(name, len(shared), float(right.mean()), float(rights.mean()), difference, low, high,
                  mcnemar(right, rights) if independent else float("nan"),
                  listed(right & ~rights), listed(~right & rights))


def paired_difference(first: np.ndarray, second: np.ndarray, units: np.ndarray) -> tuple[float, float, float]:
    """Difference of two shares on the same examples, second minus first, with its 95 % interval.

    first, second: (example,) bool, right or not;  units: (example,) which belong together, e.g. by sentence. After
    Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions": half a change is
    added in each direction, so that no change at all is not taken for certainty; sums over units stand for examples.
    """
    changes = second.astype(np.float64) - first
    count, mean = len(changes), changes.mean()
    sums = np.bincount(np.unique(units, return_inverse=True)[1], changes - mean)
    half = 1.959963984540054 * np.sqrt(np.square(sums).sum() + 1) / (count + 2)
    middle = changes.sum() / (count + 2)
    return float(mean), float(max(middle - half, -1)), float(min(middle + half, 1))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """P value of McNemar's exact two-sided test, in 0 .. 1; 1 where nothing differs."""
    from scipy.stats import binomtest

    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    return float(binomtest(won, lost + won).pvalue) if lost + won else 1.0


def _read(layout: Layout, place: str) -> Predictions:
    folder = layout.place(place) / "predictions"
    if not (folder / "manifest.json").is_file():
        raise FinetraceError(f"{place}: no predictions; let calibration or features look there (params.yaml: look), "
                             "and run finetrace repro")
    return read_predictions(folder)


def texts_of(layout: Layout, task: str, name: str) -> dict[int, str]:
    """Number of an example -> its text, for a split of a task or a set out of distribution; empty where its table is
    not there."""
    folder = layout.task(task)
    paths = [path for path in (folder / f"{name}.parquet", folder / "ood" / f"{name}.parquet") if path.is_file()]
    if not paths:
        return {}
    table = read_table(Path(paths[0]), ["example_id", "text_a", "text_b"]).to_pylist()
    return {row["example_id"]: " | ".join(filter(None, (row["text_a"], row["text_b"]))) for row in table}


def flips(answers: np.ndarray) -> np.ndarray:
    """(example,) int64: the first checkpoint from which on an example's answer is the last one's.

    answers: (checkpoint, example) classes.
    """
    other = answers != answers[-1]
    return np.where(other.any(0), len(answers) - np.argmax(other[::-1], 0), 0)
