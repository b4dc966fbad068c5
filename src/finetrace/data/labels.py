"""From labels as a source writes them to numbers of classes."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from finetrace.config.data import RowsSettings
from finetrace.data.texts import look_alike, require_whole, spelled
from finetrace.errors import FinetraceError

SCORE = r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?"
"""A number that is no whole one, as far as its text shows."""


@dataclass(frozen=True)
class Classes:
    """The classes of a task, and how its source numbers them."""

    names: tuple[str, ...]
    """In the order of their numbers."""
    source: tuple[str, ...]
    """Names by the source's numbers; empty where it does not number them."""


def classes(name: str, task: RowsSettings, row_labels: Iterable[tuple[Any, str]],
            declared: tuple[str, ...] | None = None, *, few: bool = False) -> Classes:
    """The classes: as given, else as the source declares them, else those of `label_values` and `label_ranges`,
    else those found.

    row_labels: label and place of each row, read only if nothing else tells;  declared: names by number as the source
    says;  few: whether one class will do (sets that nothing is trained on). Names that `label_values` drops are no
    classes.
    Raises FinetraceError when the order contradicts the source's, or fewer than two are left.
    """
    values = task.label_values or {}
    if task.label_names and declared and set(task.label_names) == set(declared) and task.label_names != declared:
        raise FinetraceError(f"{name}: label_names are {', '.join(task.label_names)}, but the data set numbers "
                             f"them {', '.join(declared)}; take its order, or remove label_names")
    names = task.label_names or declared or tuple(task.label_ranges or ())
    if not names and any(value is not None for value in values.values()):
        names = tuple(value for value in values.values() if value is not None)
    if not names:
        names = sorted_names(found_names(row_labels, values))
    class_texts = [text if text in values.values() else values.get(text, text) for text in map(str, names)]
    names = tuple(dict.fromkeys(text for text in class_texts if text is not None))
    if len(names) < (1 if few else 2):
        raise FinetraceError(f"{name}: there is {'one' if names else 'no'} class {'only ' if names else ''}"
                             f"({', '.join(names)}); classification needs two or more")
    renamed = task.label_names and (declared is None or len(declared) == len(task.label_names))
    source = (task.label_names if renamed else declared) or ()
    if strange := set(task.label_ranges or ()) - set(names):
        raise FinetraceError(f"{name}: label_ranges: {', '.join(sorted(strange))}: no such class; there are: "
                             f"{', '.join(names)}")
    # where names are numerals, 0 is not short for the first of them
    numbered = not any(map(is_number, (*names, *values)))
    return Classes(names, tuple(map(str, source)) if numbered and not task.label_ranges else ())


def found_names(row_labels: Iterable[tuple[Any, str]], known: Mapping[str, Any]) -> set[str]:
    """The classes of rows that nothing else names: each label is one, if it can be.

    row_labels: label and place of each row;  known: labels that the settings know. Raises FinetraceError naming the row
    for what looks like anything but a class: scores, truth values, -1, numbers among names, two spellings of one name.
    """
    first: dict[str, str] = {}
    numbers: str | None = None  # where a number stands that is written as one
    for value, place in row_labels:
        text = as_text(value, place)
        if text in known:
            first.setdefault(text, place)
            continue
        if isinstance(value, bool):
            raise FinetraceError(f"{place}: label {value} is a truth value, not a class; name the two, e.g. "
                                 'label_values: {"False": no, "True": yes}')
        if text == "-1":
            raise FinetraceError(f"{place}: label -1 often says that a row has none; leave such rows out with "
                                 "label_values: "
                                 '{"-1": null}, or name the class, e.g. label_values: {"-1": negative, "1": positive}')
        if re.fullmatch(SCORE, text):
            raise FinetraceError(f"{place}: label {text} is a score, not a class; make classes of ranges, e.g. "
                                 "label_ranges: {low: [null, 0.5], high: [0.5, null]}, or list all classes in "
                                 "label_names")
        numbers = numbers or (None if isinstance(value, str) else place)
        first.setdefault(text, place)
    named = [text for text in first if not is_number(text)]
    if numbers and named:
        raise FinetraceError(f"{numbers}: the label is a number, but {named[0]!r} at {first[named[0]]} is a name; "
                             "mend the rows, or say with label_names which class is 0, which is 1, and so on")
    _no_twins(first)
    return set(first)


def _no_twins(first: dict[str, str]) -> None:
    """Raises FinetraceError for names that look the same; first: name -> its first place."""
    by_spelling: dict[str, str] = {}
    for text, place in first.items():
        other = by_spelling.setdefault(unicodedata.normalize("NFC", text), text)
        if other != text:
            raise FinetraceError(f"{place}: label {spelled(text)} looks like {spelled(other)} at {first[other]}; "
                                 "write both in one way, or map one with label_values")


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Numerals by size, anything else by alphabet."""
    names = list(names)
    return tuple(sorted(names, key=int) if all(map(is_number, names)) else sorted(names))


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
    if is_number(text) and not any(map(is_number, known.names)):
        hint = "mend the row, or say with label_names which class is 0, which is 1, and so on"
    if twin := look_alike(text, known.names):
        hint = f"it looks like {twin}; {hint}"
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
    named = text in (task.label_values or {}) or text in known.names
    return known.source[int(text)] if not named and text.isdecimal() and int(text) < len(known.source) else text


def _in_range(text: str, ranges: dict[str, tuple[float | None, float | None]], known: Classes,
              place: str) -> int | None:
    try:
        score = float(text)
    except ValueError:
        raise FinetraceError(f"{place}: label {text!r} is not a number, as label_ranges need; mend the row") from None
    if not math.isfinite(score):
        raise FinetraceError(f"{place}: label {text!r} is no number that a range can hold; mend or remove the row")
    for name, (low, high) in ranges.items():
        if (low is None or score >= low) and (high is None or score < high):
            return known.names.index(name)
    return None


def as_text(value: Any, place: str, column: str = "label") -> str:
    """A label or id as text; 1, 1.0, "1" and "1.0" (which pandas writes for 1) are the same."""
    if value is not None and not isinstance(value, str | int | float | Decimal):
        kinds: dict[type, str] = {list: "a list", dict: "an object"}
        kind = kinds.get(type(value), f"of type {type(value).__name__}")
        raise FinetraceError(f"{place}: the {column} {str(value)[:60]} is {kind}; give each row one {column}, a text "
                             "or a whole number")
    if value is None or value != value or not str(value).strip():
        raise FinetraceError(f"{place}: has no {column} ({value!r}); mend or remove the row")
    if isinstance(value, float) and abs(value) == math.inf:
        raise FinetraceError(f"{place}: the {column} is infinite, or too large a number; mend or remove the row")
    if isinstance(value, str):
        require_whole(value, place, column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.split(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def is_number(text: str) -> bool:
    """Whether a text is a whole number."""
    return bool(re.fullmatch(r"-?[0-9]+", text))
