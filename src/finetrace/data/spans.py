"""The project's own annotated sentences: JSON lines with `text`, `spans`, `label` and perhaps `id`.

    {"text": "the team went to fenton", "spans": [[1, 2]], "label": "NOUN"}
    {"text": ["the", "team", "went"], "spans": [[2, 3], [1, 2]], "label": "nsubj", "id": "s1"}

A text is a string, whose words stand between white space, or a list of words. A span is first word and word after the
last, from 0; an example has one span, or two. Lines with the same text in a row are one sentence.
"""

from typing import Any

from finetrace.data.examples import Annotated, Example, Span
from finetrace.data.readers import parse_json
from finetrace.data.texts import require_whole
from finetrace.errors import FinetraceError

KEYS = ("text", "spans", "label", "id")


def read_spans(text: str, where: str) -> Annotated:
    """Examples of a file of JSON lines in the format above.

    text: the file's content;  where: its name for messages. Raises FinetraceError naming line, key and fix.
    """
    examples: list[Example] = []
    words: tuple[str, ...] = ()
    sentence, count = -1, 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{where} line {number}"
        row = _object(line, place)
        words_read = _words(row["text"], place)
        if words_read != words:
            words, sentence = words_read, sentence + 1
        spans = tuple(_span(value, i, len(words), place) for i, value in enumerate(_list(row["spans"], place)))
        count = count or len(spans)
        if len(spans) != count:
            raise FinetraceError(f"{place}: key 'spans' has {len(spans)} spans, the lines before have {count}; all "
                                 "examples of a task need the same number")
        label, name = row["label"], row.get("id")
        if isinstance(label, bool | float | list | dict) or label is None or not str(label).strip():
            raise FinetraceError(f"{place}: key 'label' holds {label!r}; give a name, or a whole number")
        examples.append(Example(words, spans, str(label).strip(), sentence, place, None if name is None else str(name)))
    return Annotated(examples)


def _object(line: str, place: str) -> dict[str, Any]:
    row = parse_json(line, place)
    if not isinstance(row, dict):
        raise FinetraceError(f'{place}: is not an object like {{"text": ..., "spans": [[0, 1]], "label": ...}}')
    for key in KEYS[:3]:
        if key not in row:
            raise FinetraceError(f"{place}: key {key!r} is missing; its keys are {', '.join(row) or 'none'}")
    if unknown := [key for key in row if key not in KEYS]:
        raise FinetraceError(f"{place}: unknown key {unknown[0]!r}; known keys: {', '.join(KEYS)}")
    return row


def _words(value: Any, place: str) -> tuple[str, ...]:
    words = tuple(value.split()) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise FinetraceError(f"{place}: key 'text' holds {value!r}; give a text with words, or a list of words none of "
                             "which is empty")
    require_whole(" ".join(words), place, "text")
    return words


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or len(value) not in (1, 2):
        raise FinetraceError(f"{place}: key 'spans' holds {value!r}; give one span as [[0, 1]], or two "
                             "as [[0, 1], [2, 4]]")
    return value


def _span(value: Any, number: int, words: int, place: str) -> Span:
    well_formed = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    if not well_formed or not 0 <= value[0] < value[1] <= words:
        raise FinetraceError(f"{place}: spans[{number}] is {value!r}; give [first word, word after the last] with "
                             f"0 <= first < after <= {words} (the text has {words} words)")
    return value[0], value[1]
