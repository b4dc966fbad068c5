"""The one or two texts of a row: source columns, or templates over them."""

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
            raise FinetraceError(f"{place}: column {column!r} holds {row.get(column)!r}, not a text")
    texts = ([_filled(t, row) for t in task.template] if task.template
             else [row[column] for column in text_columns(task)])
    if task.lowercase:
        texts = [None if text is None else text.lower() for text in texts]
    return texts[0], texts[1] if len(texts) > 1 else None


def _filled(template: str, row: dict[str, Any]) -> str:
    """Values are put in as they are: braces in them mean nothing."""
    return "".join(literal + ("" if column is None else row[column])
                   for literal, column, _, _ in Formatter().parse(template))
