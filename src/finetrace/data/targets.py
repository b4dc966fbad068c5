"""Labels that are no single class: numbers to be predicted (regression), and any number of classes per example."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.config.data import RowsSettings
from finetrace.data.labels import Classes, as_text, classes, label_number
from finetrace.errors import FinetraceError

SCORE = "score"
"""The name of the one number of a regression, where names of classes stand otherwise."""
TRUTHS = {"0": False, "1": True, "false": False, "true": True}


def score_of(value: Any, place: str) -> float:
    """A label as a number. Raises FinetraceError, naming the place, for anything but a finite one."""
    if isinstance(value, bool):
        raise FinetraceError(f"{place}: label {value} is a truth value, and target: regression needs a number; remove "
                             "target, or mend the row")
    text = as_text(value, place)
    try:
        score = float(text)
    except ValueError:
        raise FinetraceError(f"{place}: label {text!r} is not a number, as target: regression needs; mend or remove "
                             "the row") from None
    if not math.isfinite(score):
        raise FinetraceError(f"{place}: label {text!r} is no finite number; mend or remove the row")
    return score


def several_classes(name: str, task: RowsSettings, rows: Iterable[tuple[Any, str]],
                    declared: tuple[str, ...] | None) -> Classes:
    """The classes of a task whose examples have any number of them.

    rows: label, a list, and place of each row, read only where nothing else tells the names;  declared: names by
    number as the source says. Raises FinetraceError as `labels.classes` does.
    """
    if task.labels:
        return Classes(task.labels, ())
    return classes(name, task, ((label, place) for value, place in rows for label in _list(value, place)), declared)


def class_numbers(row: Mapping[str, Any], task: RowsSettings, known: Classes, place: str) -> list[int]:
    """Numbers of the classes of a row, ascending; those that `label_values` drops are none of it. Raises
    FinetraceError, naming the place, for unknown classes and for columns that hold anything but 0 and 1."""
    if task.labels:
        return [i for i, column in enumerate(task.labels) if _truth(row.get(column), column, place)]
    numbers = (label_number(label, task, known, place) for label in _list(row.get(str(task.label)), place))
    return sorted({number for number in numbers if number is not None})


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise FinetraceError(f"{place}: label {str(value)[:60]!r} is not a list, as target: multi-label needs; give "
                             "lists (jsonl, parquet), or a column of 0 and 1 per class with `labels`")
    return list(value)


def _truth(value: Any, column: str, place: str) -> bool:
    text = as_text(value, place, f"value of {column}").lower()
    if text not in TRUTHS:
        raise FinetraceError(f"{place}: column {column!r} holds {text!r}, and `labels` needs 0 or 1; mend the row")
    return TRUTHS[text]


def score_facts(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, float]]:
    """Split -> mean, standard deviation, lowest and highest of its scores. Raises ValueError where all scores of
    train are equal: there is nothing to learn then."""
    facts = {}
    for split, table in tables.items():
        values = table["label"].to_numpy()
        facts[split] = {"mean": round(float(values.mean()), 6), "deviation": round(float(values.std()), 6),
                        "lowest": float(values.min()), "highest": float(values.max())}
        if split == "train" and facts[split]["lowest"] == facts[split]["highest"]:
            raise ValueError(f"every label of train is {values[0]:g}, which leaves nothing to predict; is it the "
                                 "right column?")
    return facts
