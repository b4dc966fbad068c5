"""From labels as a source writes them to numbers of classes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from finetrace.config.data import RowsSettings
from finetrace.errors import FinetraceError


@dataclass(frozen=True)
class Classes:
    """The classes of a task, and how its source numbers them."""

    names: tuple[str, ...]
    """In the order of their numbers."""
    source: tuple[str, ...]
    """Names by the source's numbers; empty where it does not number them."""


def classes(name: str, task: RowsSettings, found: Iterable[tuple[Any, str]], declared: tuple[str, ...] | None = None, *,
            few: bool = False) -> Classes:
    """The classes: as given, else as the source declares them, else those of `label_values` and `label_ranges`,
    else those found.

    found: label and place of each row, read only if nothing else tells;  declared: names by number as the source says;
    few: whether one class will do (sets that nothing is trained on). Names that `label_values` drops are no classes.
    Raises FinetraceError when the order contradicts the source's, or fewer than two are left.
    """
    values = task.label_values or {}
    if task.label_names and declared and set(task.label_names) == set(declared) and task.label_names != declared:
        raise FinetraceError(f"tasks.{name}: label_names are {', '.join(task.label_names)}, but the data set numbers "
                             f"them {', '.join(declared)}; take its order, or remove label_names")
    names = task.label_names or declared or tuple(task.label_ranges or ())
    if not names and any(value is not None for value in values.values()):
        names = tuple(value for value in values.values() if value is not None)
    if not names:
        names = sorted_names({as_text(label, place) for label, place in found})
    kept = [text if text in values.values() else values.get(text, text) for text in map(str, names)]
    names = tuple(dict.fromkeys(text for text in kept if text is not None))
    if len(names) < (1 if few else 2):
        raise FinetraceError(f"tasks.{name}: there is {'one' if names else 'no'} class {'only ' if names else ''}"
                             f"({', '.join(names)}); classification needs two or more")
    renamed = task.label_names and (declared is None or len(declared) == len(task.label_names))
    source = (task.label_names if renamed else declared) or (() if values else names)
    if strange := set(task.label_ranges or ()) - set(names):
        raise FinetraceError(f"tasks.{name}: label_ranges: {', '.join(sorted(strange))}: no such class; there are: "
                             f"{', '.join(names)}")
    # where names are numerals, 0 is not short for the first of them
    numbered = not any(map(is_number, (*names, *values)))
    return Classes(names, tuple(map(str, source)) if numbered and not task.label_ranges else ())


def sorted_names(found: Iterable[str]) -> tuple[str, ...]:
    """Numerals by size, anything else by alphabet."""
    found = list(found)
    return tuple(sorted(found, key=int) if all(map(is_number, found)) else sorted(found))


def label_number(value: Any, task: RowsSettings, known: Classes, place: str) -> int | None:
    """Number of a label's class; None when the settings leave such rows out.
    Raises FinetraceError for unknown labels."""
    if task.label_ranges:
        return _in_range(as_text(value, place), task.label_ranges, known, place)
    text = _source_name(value, task, known, place)
    name = (task.label_values or {}).get(text, text)
    if name is None:
        return None
    if name in known.names:
        return known.names.index(name)
    hint = "mend the row, or set label_names or label_values"
    if text == "-1":
        hint = "-1 says that the row carries no label; if the whole split is so, leave it out of `splits`"
    text = repr(text) if name == text else f"{text!r} (by label_values {name!r})"
    raise FinetraceError(f"{place}: unknown label {text}; known: {', '.join(known.names)}; {hint}")


def left_out(value: Any, task: RowsSettings, known: Classes, place: str) -> str:
    """Why a row is left out, for the manifest."""
    if task.label_ranges:
        return "rows with a label outside label_ranges"
    return f"rows with label {_source_name(value, task, known, place)}"


def _source_name(value: Any, task: RowsSettings, known: Classes, place: str) -> str:
    """What the source calls a label: its text, or the name that it has for the number."""
    text = as_text(value, place)
    told = text in (task.label_values or {}) or text in known.names
    return known.source[int(text)] if not told and text.isdecimal() and int(text) < len(known.source) else text


def _in_range(text: str, ranges: dict[str, tuple[float | None, float | None]], known: Classes,
              place: str) -> int | None:
    try:
        score = float(text)
    except ValueError:
        raise FinetraceError(f"{place}: label {text!r} is not a number, as label_ranges need; mend the row") from None
    for name, (low, high) in ranges.items():
        if (low is None or score >= low) and (high is None or score < high):
            return known.names.index(name)
    return None


def as_text(value: Any, place: str, what: str = "label") -> str:
    """A label or id as text; 1, 1.0, "1" and "1.0" (which pandas writes for 1) are the same."""
    if value is None or value != value or not str(value).strip():
        raise FinetraceError(f"{place}: has no {what} ({value!r}); mend or remove the row")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.split(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def is_number(text: str) -> bool:
    """Whether a text is a whole number."""
    return bool(re.fullmatch(r"-?[0-9]+", text))
