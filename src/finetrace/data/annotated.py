"""Tasks of words: annotated files and their tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.config.data import SPANS, RowsSettings, format_kinds
from finetrace.data.bio import read_bio
from finetrace.data.conllu import read_conllu
from finetrace.data.dpr import read_dpr_task
from finetrace.data.edge_records import read_edge_records
from finetrace.data.examples import HEAD_FIRST, Annotated, Example
from finetrace.data.ontonotes import read_ontonotes_task
from finetrace.data.readers import decode, split_files
from finetrace.data.semeval import read_semeval_task
from finetrace.data.spans import read_spans
from finetrace.data.spr import read_spr_task
from finetrace.data.streusle import read_streusle
from finetrace.errors import FinetraceError

Reader = Callable[[str, RowsSettings, Path, str | None], dict[str, Annotated]]
SOURCES: dict[str, Reader] = {"semeval": read_semeval_task, "dpr": read_dpr_task, "spr1": read_spr_task,
                              "spr2": read_spr_task, "ontonotes": read_ontonotes_task}
"""Format whose source does not have one file per split -> what reads all of it."""
FORMATS = ("bio", "conllu", "streusle", "spans", "edges", *SOURCES)


def read_annotated(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Annotated]:
    """Read the files of a task of words; `path` is a file (train) or a folder with one file per split, or what the
    format's own reader says.

    only: the one split that is wanted, by default all. Raises FinetraceError naming file, line, field and the fix.
    """
    from finetrace.store.files import sha256_file

    if task.format in SOURCES:
        return SOURCES[task.format](name, task, root, only)
    result = {}
    for split, path in split_files(name, task, root, only).items():
        result[split] = _read(path, task)
        result[split].origin = {"file": path.name, "sha256": sha256_file(path)}
    return result


def _read(path: Path, task: RowsSettings) -> Annotated:
    text, where = decode(path, task.encoding or "utf-8"), str(path)
    if task.format == "conllu":
        return read_conllu(text, where, str(task.label), order=task.pair_order or HEAD_FIRST, subtypes=task.subtypes,
                           roots=bool(task.roots), parity=bool(task.conllu_parity))
    if task.format == "bio":
        return read_bio(text, where, str(task.label))
    if task.format == "spans":
        return read_spans(text, where)
    if task.format == "edges":
        return read_edge_records(text, where)
    form = path.suffix.removeprefix(".")
    if form not in ("conllulex", "json", "tsv"):
        raise FinetraceError(f"{path}: a STREUSLE file ends in .conllulex, .json or .tsv; rename it, or name "
                             "another in `splits`")
    return read_streusle(text, where, str(task.label), form, multiword=task.multiword)


def kind_of(name: str, task: RowsSettings, splits: dict[str, Annotated]) -> str:
    """token, span or span-pair: as the format or the setting says,
    checked against all examples (of which there are some)."""
    possible = format_kinds(task.format, task.label) if task.format in FORMATS else ()
    only_kind = possible[0] if len(possible) == 1 else None
    kind = task.kind or (micro_kind(task.config or name) if task.source == "micro" else only_kind)
    for part in splits.values():
        for example in part.examples:
            kind = kind or ("span-pair" if len(example.spans) == 2 else "span")
            if len(example.spans) != SPANS[kind]:
                raise FinetraceError(f"{example.place}: has {len(example.spans)} span(s), but {name} of kind {kind} "
                                     f"needs {SPANS[kind]} in every split; mend the file, or change `kind`")
            if kind == "token" and example.spans[0][1] - example.spans[0][0] != 1:
                raise FinetraceError(f"{example.place}: marks {example.spans[0][1] - example.spans[0][0]} words, but "
                                     f"{name} is of kind token; use kind: span")
    return str(kind)


def micro_kind(name: str) -> str | None:
    """Kind of a micro task of words; None for other names."""
    from finetrace.data.world import MICRO_WORD_TASKS

    return MICRO_WORD_TASKS[name].kind if name in MICRO_WORD_TASKS else None


def several_labels(name: str, splits: dict[str, Annotated]) -> bool:
    """Whether the task's examples have lists of labels.
    Raises FinetraceError when some have, and some have one label."""
    first: dict[bool, str] = {}
    for example in (e for part in splits.values() for e in part.examples):
        first.setdefault(example.labels is not None, example.place)
    if len(first) == 2:
        raise FinetraceError(f"{name}: the label at {first[True]} is a list of names, that at {first[False]} is one "
                             "name; give all splits lists, or all names")
    return True in first


def word_table(examples: Sequence[Example], labels: Sequence[int], max_words: int | None,
               lists: Sequence[Sequence[int]] | None = None) -> tuple[pa.Table, int]:
    """The table of one split, and the number of sentences that are longer than `max_words` and left out.

    lists: in tasks with several labels per example, the class numbers of each; they become the column `labels`
    list<int32>. Columns as of any task (example_id counts the source's examples, those of long sentences included) and
    sentence int64, words list<string>, spans list<int32>[2 or 4]: start and end of the first, then of the second span.
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
        **({} if lists is None else {"labels": pa.array(lists, pa.list_(pa.int32()))}),
    })
    if max_words is None:
        return table, 0
    short = np.array([len(w) for w in sentences]) <= max_words
    return table.filter(pa.array(short[which])), int((~short).sum())


def marked_words(table: pa.Table, rows: np.ndarray) -> list[dict[str, Any]]:
    """For the floor: rows of a word table with the words of the first span as text_a,
    of the second (if any) as text_b."""
    part = table.select(["label", "words", "spans"]).take(pa.array(rows)).to_pylist()
    texts = [[" ".join(row["words"][s:e]) for s, e in zip(row["spans"][::2], row["spans"][1::2], strict=True)]
             for row in part]
    return [{"text_a": text[0], "text_b": text[1] if len(text) == 2 else None, "label": row["label"]}
            for text, row in zip(texts, part, strict=True)]
