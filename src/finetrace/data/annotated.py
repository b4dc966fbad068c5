"""Tasks of words: annotated files and their tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.config.data import SPANS, RowsSettings
from finetrace.data.conllu import read_conllu
from finetrace.data.examples import Annotated, Example
from finetrace.data.readers import decode, split_files
from finetrace.data.spans import read_spans
from finetrace.data.streusle import read_streusle
from finetrace.errors import FinetraceError

FORMATS = ("conllu", "streusle", "spans")


def read_annotated(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Annotated]:
    """Read the files of a task of words; `path` is a file (train) or a folder with one file per split.

    only: the one split that is wanted, by default all. Raises FinetraceError naming file, line, field and the fix.
    """
    from finetrace.store.files import sha256_file

    result = {}
    for split, path in split_files(name, task, root, only).items():
        result[split] = _read(path, task)
        result[split].origin = {"file": path.name, "sha256": sha256_file(path)}
    return result


def _read(path: Path, task: RowsSettings) -> Annotated:
    text, where = decode(path, task.encoding or "utf-8"), str(path)
    if task.format == "conllu":
        return read_conllu(text, where, str(task.label), order=task.pair_order, subtypes=task.subtypes)
    if task.format == "spans":
        return read_spans(text, where)
    form = path.suffix.removeprefix(".")
    if form not in ("conllulex", "json", "tsv"):
        raise FinetraceError(f"{path}: a STREUSLE file ends in .conllulex, .json or .tsv; rename it, or name another in `splits`")
    return read_streusle(text, where, str(task.label), form, multiword=task.multiword)


def kind_of(name: str, task: RowsSettings, splits: dict[str, Annotated]) -> str:
    """token, span or span-pair: as the format or the setting says, checked against all examples (of which there are some)."""
    known = {"conllu": "span-pair" if task.label == "deprel" else "token", "streusle": "span"}.get(str(task.format))
    kind = task.kind or (micro_kind(task.config or name) if task.source == "micro" else known)
    for part in splits.values():
        for example in part.examples:
            kind = kind or ("span-pair" if len(example.spans) == 2 else "span")
            if len(example.spans) != SPANS[kind]:
                raise FinetraceError(f"{example.place}: has {len(example.spans)} span(s), but tasks.{name} of kind {kind} needs "
                                     f"{SPANS[kind]} in every split; mend the file, or change `kind`")
            if kind == "token" and example.spans[0][1] - example.spans[0][0] != 1:
                raise FinetraceError(f"{example.place}: marks {example.spans[0][1] - example.spans[0][0]} words, but "
                                     f"tasks.{name} is of kind token; use kind: span")
    return str(kind)


def micro_kind(name: str) -> str | None:
    """Kind of a micro task of words; None for other names."""
    from finetrace.data.world import MICRO_WORD_TASKS

    return MICRO_WORD_TASKS[name].kind if name in MICRO_WORD_TASKS else None


def word_table(examples: Sequence[Example], labels: Sequence[int], max_words: int | None) -> tuple[pa.Table, int]:
    """The table of one split, and the number of sentences that are longer than `max_words` and left out.

    Columns as of any task (example_id counts the source's examples, those of long sentences included) and sentence int64,
    words list<string>, spans list<int32>[2 or 4]: start and end of the first, then of the second span.
    """
    sentence = np.array([e.sentence for e in examples], dtype=np.int64)
    first = np.flatnonzero(np.diff(sentence, prepend=-1))  # the first example of each sentence
    sentences = [examples[i].words for i in first.tolist()]
    which = np.repeat(np.arange(len(first)), np.diff(first, append=len(examples)))
    words = pa.array(sentences, pa.list_(pa.string())).take(pa.array(which))
    texts = pa.array([" ".join(w) for w in sentences], pa.string()).take(pa.array(which))
    spans = np.array([e.spans for e in examples], dtype=np.int32).reshape(len(examples), -1)
    table = pa.table({
        "example_id": pa.array(np.arange(len(examples)), pa.int64()),
        "source_id": pa.array([e.source_id for e in examples], pa.string()),
        "text_a": texts,
        "text_b": pa.nulls(len(examples), pa.string()),
        "label": pa.array(labels, pa.int32()),
        "sentence": pa.array(sentence),
        "words": words,
        "spans": pa.FixedSizeListArray.from_arrays(pa.array(spans.reshape(-1)), spans.shape[1]),
    })
    if max_words is None:
        return table, 0
    short = np.array([len(w) for w in sentences]) <= max_words
    return table.filter(pa.array(short[which])), int((~short).sum())


def marked_words(table: pa.Table, rows: np.ndarray) -> list[dict[str, Any]]:
    """For the floor: rows of a word table with the words of the first span as text_a, of the second (if any) as text_b."""
    part = table.select(["label", "words", "spans"]).take(pa.array(rows)).to_pylist()
    texts = [[" ".join(row["words"][s:e]) for s, e in zip(row["spans"][::2], row["spans"][1::2], strict=True)] for row in part]
    return [{"text_a": text[0], "text_b": text[1] if len(text) == 2 else None, "label": row["label"]}
            for text, row in zip(texts, part, strict=True)]
