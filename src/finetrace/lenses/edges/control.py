"""Control tasks (Hewitt and Liang 2019): labels that depend on the words of a span alone, at random. Selectivity, the
score minus that on the control task, tells how much of the score is not the probe's own memory."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from finetrace import seeds

Labels = Literal["empirical", "attachment"]
ATTACHMENTS = ("itself", "first", "last")


def control_gold(types: Mapping[str, Sequence[str]], train: np.ndarray, seed: int, labels: Labels = "empirical",
                 ) -> dict[str, np.ndarray]:
    """Labels of the control task: split -> (target, class) bool.

    types: split -> the type of each target;  train: (target, class) bool, real labels of the training targets;  labels:
    `empirical` draws for each type the labels of a random training target; `attachment` draws evenly what a word
    attaches to in the control task of dependencies: itself, the first or the last word, and that rule is the class. A
    type's labels are drawn by its name, so they do not depend on what else there is.
    """
    drawn: dict[str, int] = {}
    count = len(ATTACHMENTS) if labels == "attachment" else len(train)
    for name in sorted(set().union(*map(set, types.values()))):
        drawn[name] = seeds.derive(seed, "control", name) * count // 2**32
    gold_of = np.eye(count, dtype=bool) if labels == "attachment" else train
    return {split: gold_of[[drawn[name] for name in names]] for split, names in types.items()}


def ceiling(train: Sequence[str], types: Sequence[str]) -> float:
    """Share of targets, in [0, 1], whose type the training targets have: the others' control labels cannot be known."""
    known = set(train)
    return float(np.mean([name in known for name in types])) if len(types) else float("nan")
