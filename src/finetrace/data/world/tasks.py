"""Classification tasks in the language of the micro world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetrace.data.world.build import World, named_rng
from finetrace.data.world.corpus import Dice
from finetrace.data.world.lexicon import TOPICS
from finetrace.data.world.tasks_pair import nli_row, paraphrase_row
from finetrace.data.world.tasks_single import sentiment_row, topic_row
from finetrace.data.world.tasks_words import TaskWords, task_words

Row = dict[str, str | int | None]
Texts = tuple[str, str | None]


@dataclass(frozen=True)
class TaskInfo:
    """What a user of a task needs to know before reading a row."""

    kind: str
    """"sequence" (one text) or "pair" (two texts); tasks of words are of kind "token", "span" or "span-pair"."""
    label_names: tuple[str, ...]
    """Class names; a row's label is the position in this tuple."""
    metric: str
    """"accuracy": classes are balanced."""
    splits: tuple[str, ...]
    """Names of the splits that `task_rows` returns."""


_ALL = ("train", "validation", "test")
_SENTIMENT = ("negative", "positive")

MICRO_TASKS: dict[str, TaskInfo] = {
    "micro-sentiment": TaskInfo("sequence", _SENTIMENT, "accuracy", _ALL),
    "micro-paraphrase": TaskInfo("pair", ("different", "paraphrase"), "accuracy", _ALL),
    "micro-nli": TaskInfo("pair", ("entailment", "neutral", "contradiction"), "accuracy", _ALL),
    "micro-topic": TaskInfo("sequence", tuple(TOPICS), "accuracy", _ALL),
    "micro-sentiment-food": TaskInfo("sequence", _SENTIMENT, "accuracy", ("validation", "test")),
    "micro-sentiment-travel": TaskInfo("sequence", _SENTIMENT, "accuracy", ("validation", "test")),
}
"""Task name -> TaskInfo. The last two are shifted domains of micro-sentiment, which is about films; they have no
training rows."""

_WRITERS: dict[str, Callable[[World, TaskWords, Dice, int], Texts]] = {
    "micro-sentiment": lambda world, words, dice, label: sentiment_row(world, words, dice, label, "film"),
    "micro-sentiment-food": lambda world, words, dice, label: sentiment_row(world, words, dice, label, "food"),
    "micro-sentiment-travel": lambda world, words, dice, label: sentiment_row(world, words, dice, label, "travel"),
    "micro-paraphrase": paraphrase_row,
    "micro-nli": nli_row,
    "micro-topic": topic_row,
}

_ATTEMPTS_PER_ROW = 50


def task_rows(world: World, name: str, seed: int) -> dict[str, list[Row]]:
    """Write all splits of one task.

    Training rows use only the share `world.settings.seen_share` of the content words, so what the other words mean
    can be known from pre-training only; validation and test rows use all words. No row occurs twice, in one split
    or in two, and classes are balanced in every split (before label noise).

    Args:
        world: where words and facts come from.
        name: a key of `MICRO_TASKS`.
        seed: any whole number from 0 on; which words training rows may use follows from the world's seed alone.

    Returns:
        Split name -> rows with keys text_a (str), text_b (str, or None for kind "sequence") and label (int).
    """
    if name not in MICRO_TASKS:
        raise ValueError(f"unknown micro task {name!r}: choose one of {', '.join(MICRO_TASKS)}")
    info, settings = MICRO_TASKS[name], world.settings
    sizes = {"train": settings.train_rows, "validation": settings.validation_rows, "test": settings.test_rows}
    written: set[Texts] = set()
    splits = {}
    for split in info.splits:
        rng = named_rng(seed, f"{name} {split}")
        words = task_words(world, seen_only=split == "train")
        splits[split] = _write_split(world, name, words, sizes[split], rng, written)
    if "train" in splits and settings.label_noise:
        _add_label_noise(splits["train"], settings.label_noise, len(info.label_names), named_rng(seed, f"{name} noise"))
    return splits


def _write_split(
    world: World, name: str, words: TaskWords, count: int, rng: np.random.Generator, written: set[Texts]
) -> list[Row]:
    dice, classes = Dice(rng), len(MICRO_TASKS[name].label_names)
    rows: list[Row] = []
    for label in rng.permutation(np.arange(count) % classes).tolist():
        for _ in range(_ATTEMPTS_PER_ROW):
            texts = _WRITERS[name](world, words, dice, label)
            if texts not in written:
                break
        else:
            raise ValueError(
                f"{name}: no new row found after {_ATTEMPTS_PER_ROW} attempts; "
                "lower world.train_rows, world.validation_rows or world.test_rows, or raise world.people"
            )
        written.add(texts)
        rows.append({"text_a": texts[0], "text_b": texts[1], "label": label})
    return rows


def _add_label_noise(rows: list[Row], share: float, classes: int, rng: np.random.Generator) -> None:
    """Give a share of the rows another label, every other class being equally likely."""
    chosen = rng.permutation(len(rows))[: round(share * len(rows))]
    for row, shift in zip(chosen.tolist(), rng.integers(1, classes, len(chosen)).tolist(), strict=True):
        rows[row]["label"] = (rows[row]["label"] + shift) % classes
