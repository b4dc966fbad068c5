"""The one or two texts of a row: source columns, or templates over them."""

import unicodedata
from collections.abc import Iterable
from string import Formatter
from typing import Any

from finetrace.config.data import RowsSettings, template_columns
from finetrace.errors import FinetraceError


def text_columns(task: RowsSettings) -> tuple[str, ...]:
    """The source columns that the texts are made of."""
    if task.source == "micro":
        return ("text_a", "text_b")
    if task.format in ("trec", "pubmed"):
        return ("text",)
    return (tuple(dict.fromkeys(c for t in task.template for c in template_columns(t))) if task.template
            else task.text or ())


def row_texts(row: dict[str, Any], task: RowsSettings, place: str) -> tuple[str, str | None]:
    """First text and second text (None in tasks of one text). Raises FinetraceError where a column holds no text."""
    for column in text_columns(task):
        if not isinstance(row.get(column), str) and not (task.source == "micro" and column == "text_b"):
            raise FinetraceError(f"{place}: column {column!r} holds {_shown(row.get(column))}, not a text")
        require_whole(row.get(column) or "", place, f"column {column!r}")
    texts = [_filled(t, row) for t in task.template] if task.template else [row[column]
                                                                            for column in text_columns(task)]
    if task.lowercase:
        texts = [None if text is None else text.lower() for text in texts]
    return texts[0], texts[1] if len(texts) > 1 else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + " ..."


def require_whole(text: str, place: str, column: str) -> None:
    """Raises FinetraceError for half a character, as "\\ud83d" of JSON: no file can hold it."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FinetraceError(f"{place}: the {column} has half a character (U+{ord(text[error.start]):04X}) at "
                             f"{error.start}; mend the row (was the text cut?)") from None


def spelled(text: str) -> str:
    """A text with its characters' numbers, where two texts look the same."""
    return f"{text!r} ({' '.join(f'U+{ord(c):04X}' for c in text[:20])}{' ...' if len(text) > 20 else ''})"


def look_alike(text: str, others: Iterable[str]) -> str | None:
    """One of the others that a person would take for the text, spelled out; blanks around and marks without width
    count not."""
    for other in others:
        if other != text and _visible_text(other) == _visible_text(text):
            return f"{spelled(other)}, not {spelled(text)}"
    return None


def _visible_text(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf").strip()


def _filled(template: str, row: dict[str, Any]) -> str:
    """Values are put in as they are: braces in them mean nothing."""
    return "".join(literal + ("" if column is None else row[column])
                   for literal, column, _, _ in Formatter().parse(template))
