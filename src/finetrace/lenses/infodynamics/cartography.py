"""Data maps: how sure a model is of each example over training, and how much it wavers."""

from dataclasses import dataclass

import numpy as np

from finetrace.lenses.infodynamics.divergences import check_probabilities


@dataclass(frozen=True)
class Cartography:
    """Where each example lies on the data map of Swayamdipta et al. 2020 ("Dataset Cartography").

    confidence: (example,) mean probability of the gold label over steps, 0 to 1, higher = easier; 1 / classes: chance.
    variability: (example,) population standard deviation of it, 0 to 0.5, higher = more ambiguous; 0 if never moving.
    correctness: (example,) share of steps at which the gold label is the most probable one, 0 to 1.
    """

    confidence: np.ndarray
    variability: np.ndarray
    correctness: np.ndarray


def cartography(probabilities: np.ndarray, labels: np.ndarray) -> Cartography:
    """Data map of a probe or training set: confidence, variability and correctness of every example over steps.

    probabilities: (step, example, class), e.g. at the end of every epoch. labels: (example,) integer gold class.
    Low confidence with low variability marks hard or mislabelled examples, high variability ambiguous ones.
    Source: Swayamdipta et al. 2020 (EMNLP).
    """
    p = check_probabilities(probabilities, ("step", "example", "class"))
    labels = np.asarray(labels)
    if labels.shape != p.shape[1:2]:
        raise ValueError(f"labels have shape {labels.shape} for {p.shape[1]} examples: one gold class per example")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels have type {labels.dtype}: pass class indices (integers)")
    if len(p) == 0:
        raise ValueError("no steps were recorded: a data map needs at least one, better two or more")
    if labels.size and not 0 <= labels.min() <= labels.max() < p.shape[2]:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}: expected 0 to {p.shape[2] - 1}")
    gold = np.take_along_axis(p, labels[None, :, None], axis=2)[:, :, 0]
    correct = p.argmax(axis=2) == labels
    return Cartography(gold.mean(axis=0), gold.std(axis=0), correct.mean(axis=0))
