"""What is done to rows before their texts are made, where columns and templates are not enough (setting `prepare`)."""

from collections.abc import Callable
from typing import Any

from finetrace.data.readers import Rows
from finetrace.errors import FinetraceError


def mark_pronoun(rows: Rows) -> Rows:
    """WSC: adds the column `marked`: the text's words, joined by single spaces,
    with asterisks around that at `span2_index`."""
    _require_columns(rows, "wsc-mark", "text", "span2_index")
    for row, place in zip(rows.values, rows.places, strict=True):
        words, index = str(row["text"]).split(), row["span2_index"]
        if not isinstance(index, int | float) or not 0 <= index < len(words):
            raise FinetraceError(f"{place}: span2_index {index!r} is no word of the text, which has "
                                 f"{len(words)}; mend the row")
        words[int(index)] = f"*{words[int(index)]}*"
        row["marked"] = " ".join(words)
    return Rows([*rows.columns, "marked"], rows.values, rows.places, rows.origin, rows.label_names)


def entity_rows(rows: Rows) -> Rows:
    """ReCoRD: one row per entity: passage, query with the entity in the gap, entity, label (1: it is an answer) and id.

    Highlights of the passage become a list ("- "). `units` tells which rows come of one question.
    """
    _require_columns(rows, "record", "passage", "query", "entities", "answers")
    values: list[dict[str, Any]] = []
    places: list[str] = []
    units: list[int] = []
    for number, (row, place) in enumerate(zip(rows.values, rows.places, strict=True)):
        passage = row["passage"].replace("@highlight\n", "- ")
        idx = row.get("idx")
        question = f"{idx['passage']}-{idx['query']}" if isinstance(idx, dict) else str(number if idx is None else idx)
        for i, entity in enumerate(row["entities"]):
            values.append({"passage": passage, "query": row["query"].replace("@placeholder", entity), "entity": entity,
                           "label": int(entity in row["answers"]), "id": f"{question}-{i}"})
            places.append(f"{place} entity {i}")
            units.append(number)
    return Rows(["passage", "query", "entity", "label", "id"], values, places, rows.origin, units=units)


PREPARE: dict[str, Callable[[Rows], Rows]] = {"wsc-mark": mark_pronoun, "record": entity_rows}


def _require_columns(rows: Rows, name: str, *columns: str) -> None:
    for column in columns:
        if column not in rows.columns:
            raise FinetraceError(f"{rows.places[0].rsplit(' ', 2)[0]}: has no column {column!r}, needed by "
                                 f"prepare: {name}; its columns are {', '.join(rows.columns)}")
