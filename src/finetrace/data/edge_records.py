"""Edge probing's record format (Tenney et al. 2019): JSON lines, each a text with its targets. Reading and writing.

    {"text": "Ian ate ice cream", "targets": [{"span1": [1, 2], "span2": [0, 1], "label": "ARG0"},
                                              {"span1": [1, 2], "span2": [2, 4], "label": "ARG1"}], "info": {"source":
                                              "..."}}

The words of a text stand between white space. A span is first word and word after the last, from 0; `span2` is absent
in tasks of one span. A label is a name, or a list of names, perhaps empty, in tasks with several labels per target.
`info` says what it likes.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetrace.data.examples import Annotated, Example, Span
from finetrace.data.readers import parse_json
from finetrace.data.texts import require_whole
from finetrace.errors import FinetraceError

KEYS = ("text", "targets", "info")
TARGET_KEYS = ("span1", "span2", "label", "info")
_SHAPE = '{"text": ..., "targets": [{"span1": [0, 1], "label": ...}]}'


def read_edge_records(text: str, where: str) -> Annotated:
    """Examples of a file of records: one per target.

    Records with the same text in a row (role labelling has one per predicate) are one sentence; those without targets
    are left out and counted.

    text: the file's content;  where: its name for messages. Raises FinetraceError naming line, key and fix.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    words: tuple[str, ...] = ()
    sentence = -1
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{where} line {number}"
        row = _object(line, place)
        words_read = tuple(row["text"].split())
        if not row["targets"]:
            left_out["records without targets"] += 1
            continue
        if words_read != words:
            words, sentence = words_read, sentence + 1
        for i, target in enumerate(row["targets"]):
            example = _example(target, f"targets[{i}]", words, sentence, place)
            if examples:
                _check_alike(examples[0], example, f"targets[{i}]")
            examples.append(example)
    return Annotated(examples, left_out)


def _object(line: str, place: str) -> dict[str, Any]:
    row = parse_json(line, place, "record")
    _check_keys(row, "", KEYS, KEYS[:2], place)
    if not isinstance(row["text"], str) or not row["text"].split():
        raise FinetraceError(f"{place}: key 'text' holds {row['text']!r}; give a text with words between blanks")
    require_whole(row["text"], place, "text")
    if not isinstance(row["targets"], list):
        raise FinetraceError(f"{place}: key 'targets' holds {row['targets']!r}; give a list, as in {_SHAPE}")
    return row


def _check_keys(row: Any, name: str, known: tuple[str, ...], needed: tuple[str, ...], place: str) -> None:
    """An object with these keys and no others; `name` is where it stands in its record, empty for the record itself."""
    if not isinstance(row, dict):
        raise FinetraceError(f"{place}: {name or 'the line'} is not an object; a record looks like {_SHAPE}")
    prefix = f"{name}." if name else ""
    for key in needed:
        if key not in row:
            raise FinetraceError(f"{place}: key '{prefix}{key}' is missing; its keys are {', '.join(row) or 'none'}")
    if unknown := [key for key in row if key not in known]:
        raise FinetraceError(f"{place}: unknown key '{prefix}{unknown[0]}'; known keys: {', '.join(known)}")


def _example(target: Any, name: str, words: tuple[str, ...], sentence: int, place: str) -> Example:
    _check_keys(target, name, TARGET_KEYS, ("span1", "label"), place)
    spans = tuple(_span(target[key], f"{name}.{key}", len(words), place) for key in ("span1", "span2") if key in target)
    label = target["label"]
    if not isinstance(label, list):
        return Example(words, spans, _name(label, f"{name}.label", place), sentence, place)
    labels = tuple(sorted(_name(value, f"{name}.label", place) for value in label))
    if len(set(labels)) < len(labels):
        raise FinetraceError(f"{place}: key '{name}.label' holds {label!r}, where a label stands twice; remove one")
    return Example(words, spans, "", sentence, place, labels=labels)


def _span(value: Any, name: str, words: int, place: str) -> Span:
    well_formed = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    if not well_formed or not 0 <= value[0] < value[1] <= words:
        raise FinetraceError(f"{place}: key '{name}' holds {value!r}; give [first word, word after the last] with "
                             f"0 <= first < after <= {words} (the text has {words} words)")
    return value[0], value[1]


def _name(value: Any, name: str, place: str) -> str:
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise FinetraceError(f"{place}: key '{name}' holds {value!r}; give a name, or a list of names where a "
                             "target can have several labels")
    return value.strip()


def _check_alike(first: Example, example: Example, name: str) -> None:
    """All targets of a file have the same number of spans, and one label or a list of them."""
    if len(example.spans) != len(first.spans):
        raise FinetraceError(f"{example.place}: {name} has {len(example.spans)} span(s), but that of {first.place} has "
                             f"{len(first.spans)}; give all targets 'span2', or none")
    if (example.labels is None) != (first.labels is None):
        found_form, first_form = ("a name", "a list") if example.labels is None else ("a list", "a name")
        raise FinetraceError(f"{example.place}: key '{name}.label' holds {found_form}, but that of {first.place} "
                             f"{first_form}; give all targets a list, or all a name")


def edge_records(table: pa.Table, label_names: Sequence[str], *, blank: str | None = None,
                 info: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """The records of a split of a task of words, one per sentence.

    table: as `build_task` writes it;  label_names: the task's classes;  blank: what takes the place of white space
    inside a word, as in "10 000", which would read as two;  info: goes into every record. Raises FinetraceError for a
    table without marked words, and for words with white space where `blank` is not given.
    """
    if "spans" not in table.column_names:
        raise FinetraceError("the table has no column 'spans': only tasks of words have records for edge probing")
    multi_label, current = "labels" in table.column_names, None
    record: dict[str, Any] = {}
    for row in table.select(["sentence", "words", "spans", "labels" if multi_label else "label"]).to_pylist():
        if row["sentence"] != current:
            if record:
                yield record
            current = row["sentence"]
            record = {"text": _text(row["words"], current, blank), "targets": [], **({"info": info} if info else {})}
        spans = zip(row["spans"][::2], row["spans"][1::2], strict=True)
        target: dict[str, Any] = {f"span{i}": list(span) for i, span in enumerate(spans, 1)}
        target["label"] = [label_names[k] for k in row["labels"]] if multi_label else label_names[row["label"]]
        record["targets"].append(target)
    if record:
        yield record


def _text(words: list[str], sentence: int, blank: str | None) -> str:
    if blank is not None:
        words = [blank.join(word.split()) for word in words]
    text = " ".join(words)
    if text.split() != words:
        word = next(word for word in words if word.split() != [word])
        raise FinetraceError(f"sentence {sentence}: the word {word!r} has white space inside or nothing else, so "
                             "the record's text would not have the same words; give `blank`, e.g. _ in its place, or "
                             "leave the sentence out")
    return text


def write_edge_records(path: Path, table: pa.Table, label_names: Sequence[str], *, blank: str | None = None,
                       info: dict[str, Any] | None = None) -> int:
    """Write a split of a task of words as records for edge probing (see `edge_records`); returns their number.

    Reading the file gives the same examples, but that records of equal neighbouring texts are one sentence.
    """
    from finetrace.store.files import atomic_file

    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for record in edge_records(table, label_names, blank=blank, info=info):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def export_task(task: Path, out: Path, *, blank: str | None = None) -> dict[str, int]:
    """Write a finished task (`data/TASK`) into the folder `out` as other tools for edge probing read it.

    Files: SPLIT.json with the records, and labels.txt, one class per line in the order of their numbers. Returns split
    -> number of records. Raises FinetraceError for a task that is not one of words.
    """
    from finetrace.config.data import SPLITS
    from finetrace.store.files import atomic_folder, write_text
    from finetrace.store.manifest import read_manifest
    from finetrace.store.tables import read_table

    manifest = read_manifest(task)
    if not manifest.facts.get("spans"):
        raise FinetraceError(f"{task}: is of kind {manifest.facts.get('kind')}; only tasks of words (token, "
                             "span, span-pair) have records for edge probing")
    names, counts = manifest.facts["label_names"], {}
    with atomic_folder(out) as folder:
        for split in (s for s in SPLITS if (task / f"{s}.parquet").exists()):
            table = read_table(task / f"{split}.parquet")
            counts[split] = write_edge_records(folder / f"{split}.json", table, names, blank=blank,
                                               info={"source": task.name})
        write_text(folder / "labels.txt", "".join(f"{name}\n" for name in names))
    return counts
