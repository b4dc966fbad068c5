"""The columns of the tables of the atlas: those of the trajectory itself, then the headline metrics of the lenses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from finetrace.atlas.collect import Entry
from finetrace.atlas.headlines import OF_FINE_TUNINGS, OF_MASKED_WORDS
from finetrace.atlas.places import Place
from finetrace.lenses.headline import Headline, name_of, names_of_mean, value_of

TASK_METRIC = "TASK-METRIC"
"""Stands in the name of a metric for the task's own."""
STEPS = Headline("steps", "steps", "optimiser steps", 0, "", "length of the training")
FINE_TUNING = (
    Headline(f"validation/{TASK_METRIC}", "validation", "", 3, "up",
             "the task's own metric on validation, final weights"),
    Headline("validation/accuracy|validation/pearson|validation/micro_f1", "accuracy", "share", 3, "up",
             "validation examples that are right", short="accuracy"),
    STEPS,
)
OF_GIVEN = {"before and after training": "of given checkpoints: the first and the last",
            "pre-trained": "of given checkpoints: the first", "after training": "of given checkpoints: the last"}
"""Words of a headline -> what they mean of checkpoints that were made elsewhere; the first that is there counts."""
INSTEAD = {"regression": "of a regression: Pearson's correlation", "multi-label": "of several classes: micro F1"}
"""What is predicted of a task's examples, where it is no class -> what stands in the place of the accuracy."""
MASKED_WORD_TRAINING = (
    STEPS,
    Headline("checkpoints", "checkpoints", "count", 0, "", "checkpoints of a published series or of an adaptation"),
    Headline("validation/accuracy", "masked words", "share", 3, "up",
             "held-out masked words that are right, final weights", short="accuracy"),
)


class Column(NamedTuple):
    """A column of a table. part: "trajectory" or a lens."""

    part: str
    headline: Headline


def _columns(parts: Mapping[str, Sequence[Headline]]) -> list[Column]:
    return [Column(part, headline) for part, headlines in parts.items() for headline in headlines]


FINE_TUNINGS = _columns({"trajectory": FINE_TUNING, **OF_FINE_TUNINGS})
MASKED_WORDS = _columns({"trajectory": MASKED_WORD_TRAINING, **OF_MASKED_WORDS})


def number_of(each: Entry | Place, column: Column) -> float | None:
    """A headline metric of a trajectory; None where it has none."""
    return value_of(each.metrics.get(column.part, {}), _metric(each, column))


def names_behind(each: Entry | Place, column: Column) -> list[str]:
    """The quantities of the one table, about the whole, that a headline metric is: one, or those of which it is the
    mean; empty where a trajectory has none."""
    metrics = each.metrics.get(column.part, {})
    name = name_of(metrics, _metric(each, column))
    return names_of_mean(metrics, column.headline) or ([] if name is None else [name])


def _metric(each: Entry | Place, column: Column) -> str:
    metric = column.headline.metric
    return metric.replace(TASK_METRIC, each.manifest.facts["metric"]) if TASK_METRIC in metric else metric


def few_numbers(each: Entry | Place, columns: Sequence[Column]) -> dict[str, float]:
    """The numbers of a trajectory that `dvc metrics` shows, by their short names, rounded as in the tables."""
    numbers = {column.headline: number_of(each, column) for column in columns if column.headline.short}
    return {headline.short: round(value, headline.digits) for headline, value in numbers.items() if value is not None}


def explanation(headline: Headline, facts: Iterable[Mapping[str, Any]]) -> str:
    """What a number says, also where a task has no accuracy, and of checkpoints that were made elsewhere.

    facts: of the manifests of the trajectories that are shown.
    """
    targets = {of.get("target") for of in facts}
    given = any(of.get("method_kind") == "given" for of in facts)
    instead = [text for target, text in INSTEAD.items() if target in targets and headline.heading == "accuracy"]
    of_given = [text for words, text in OF_GIVEN.items() if given and words in headline.sentence][:1]
    return "; ".join([headline.explanation, *instead, *of_given])
