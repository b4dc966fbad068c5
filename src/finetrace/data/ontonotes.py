"""OntoNotes 5.0 as formatted for CoNLL-2012: parts of speech, constituents, entities,
roles and coreference as tasks of words.

The files end in `gold_conll`. Lines `#begin document ...` and `#end document` enclose documents, blank lines end
sentences, and a word's line has columns that are separated by blanks: document, part, number of the word (from 0),
word, part of speech, parse bit, lemma and sense of a predicate, another sense, speaker, named entities, one column of
arguments for each predicate, coreference.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from finetrace.config.data import RowsSettings
from finetrace.data.examples import Annotated, Example, Span
from finetrace.data.readers import base_of, decode
from finetrace.data.sources import files_below, our_splits
from finetrace.errors import FinetraceError

PATTERN = "*gold_conll"
FOLDERS = {"train": ("train",), "validation": ("development", "dev", "validation"), "test": ("test",)}
"""Our split -> the folder of the release that has it;
`conll-2012-test`, the shared task's, is taken where `splits` names it."""
FIXED = 12  # columns besides those of arguments
_OPEN = re.compile(r"\(([^()*]+)")
_Labelled = tuple[int, int, str]


@dataclass
class _Sentence:
    """Words with their columns; lines: number of each word's line."""

    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_ontonotes_task(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Annotated]:
    """All splits of the task; `path` is a folder with the files in folders train, development and test, anywhere below,
    or one file.

    Files of a split are read in the order of their paths. `splits` names other folders below `path`. Raises
    FinetraceError naming file, line and fix.
    """
    base = base_of(name, task, root)
    if base.is_file():
        return {only or "train": _read([base], base, task)}
    files = files_below(base, PATTERN)
    if not files:
        raise FinetraceError(f"{name}: {base} has no file {PATTERN}, also not further down; make them with the "
                             "scripts of CoNLL-2012 from a licensed copy of OntoNotes 5.0")
    documents: dict[Path, Path] = {}
    for path in files:
        twin = documents.setdefault(path.parent / path.name.split(".")[0], path)
        if twin != path:
            raise FinetraceError(f"{name}: {path.parent}: {twin.name} and {path.name} are two versions of one "
                                 "document; keep one of them")
    folders = {path: path.relative_to(base).parts[:-1] for path in files}
    usual = {split: next((n for n in names if any(n in parts for parts in folders.values())), names[0])
             for split, names in FOLDERS.items()}
    groups = {source_split: [p for p in files if _contains(folders[p], PurePosixPath(source_split).parts)]
              for source_split in (task.splits or usual).values()}
    groups = {source_split: paths for source_split, paths in groups.items() if paths}
    return {split: _read(paths, base, task) for split, paths in our_splits(name, task, groups, only, usual).items()}


def _contains(folders: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Whether a path's folders have these among them, one after the other."""
    return any(folders[i:i + len(part)] == part for i in range(len(folders) - len(part) + 1))


def _read(files: list[Path], base: Path, task: RowsSettings) -> Annotated:
    """One split: all its files, whose sentences are numbered through."""
    digest = hashlib.sha256()
    joined = Annotated([])
    first = 0
    for path in files:
        digest.update(path.read_bytes())
        part, count = read_ontonotes(decode(path, task.encoding or "utf-8"), str(path), str(task.label), first=first)
        joined.examples += part.examples
        joined.left_out += part.left_out
        first += count
    shown = files[0].name if len(files) == 1 else f"{files[0].relative_to(base)} and {len(files) - 1} more"
    joined.origin = {"file": shown, "files": len(files), "sha256": digest.hexdigest()}
    return joined


def read_ontonotes(text: str, where: str, label: str, *, first: int = 0) -> tuple[Annotated, int]:
    """Examples of a file, and the number of its sentences, which are numbered from `first`.

    pos: each word's part of speech. constituents: every phrase of the parse, words with their tags included;
    nonterminals: without those; the label is the tag up to the first -, = or | (brackets like -LRB- and a second part
    S, as in WP-S, stay). ner: named entities. srl: per predicate, its verb with each of its other phrases. coref: all
    pairs of the sentence's mentions, by place, "1" where they are of one chain and "0" elsewhere.

    text: the file's content;  where: its name for messages. Raises FinetraceError naming line, column and fix.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    count = 0
    for sentence in _sentences(text, where):
        words = tuple(row[3] for row in sentence.rows)
        place = f"{where} line {sentence.lines[0]}"
        source = f"{sentence.rows[0][0]}/{sentence.rows[0][1]}:{first + count}"
        for spans, name in _labelled_spans(sentence, label, where, left_out):
            examples.append(Example(words, spans, name, first + count, place, source))
        count += 1
    return Annotated(examples, +left_out), count


def _labelled_spans(sentence: _Sentence, label: str, where: str,
                    left_out: Counter[str]) -> Iterator[tuple[tuple[Span, ...], str]]:
    """Spans and label of each example of a sentence."""
    rows = sentence.rows
    if label == "pos":
        for i, row in enumerate(rows):
            yield ((i, i + 1),), phrase_label(row[4])
    elif label in ("constituents", "nonterminals"):
        if all(row[5] in ("-", "*") for row in rows):
            left_out["sentences without a parse"] += 1
            return
        phrases = [(s, e, phrase_label(tag)) for s, e, tag in _bracketed(sentence, 5, "parse bit", where)]
        words = [(i, i + 1, phrase_label(row[4])) for i, row in enumerate(rows)] if label == "constituents" else []
        for start, end, name in sorted([*phrases, *words], key=lambda p: (p[0], -p[1])):
            yield ((start, end),), name
    elif label == "ner":
        for start, end, name in _bracketed(sentence, 10, "named entities", where):
            yield ((start, end),), name
    elif label == "srl":
        yield from _roles(sentence, where, left_out)
    else:
        mentions = sorted(_mentions(sentence, where))
        for i, (start, end, chain) in enumerate(mentions):
            for start2, end2, chain2 in mentions[i + 1:]:
                yield ((start, end), (start2, end2)), str(int(chain == chain2))


def phrase_label(tag: str) -> str:
    """A tag without its functions: NP-SBJ-1 is NP, -LRB- stays, and WP-S too."""
    if tag.startswith("-"):
        return tag
    parts = re.split(r"[-=|]", tag)
    return f"{parts[0]}-S" if parts[1:2] == ["S"] else parts[0]


def _roles(sentence: _Sentence, where: str, left_out: Counter[str]) -> Iterator[tuple[tuple[Span, Span], str]]:
    for column in range(11, len(sentence.rows[0]) - 1):
        phrases = _bracketed(sentence, column, f"arguments {column - 10}", where)
        verbs = [(start, end) for start, end, name in phrases if name == "V"]
        if not verbs:
            left_out["predicates without a verb's span"] += 1
            continue
        left_out["further verb spans of a predicate"] += len(verbs) - 1
        for start, end, name in phrases:
            if name != "V":
                yield (verbs[0], (start, end)), name


def _bracketed(sentence: _Sentence, column: int, name: str, where: str) -> list[_Labelled]:
    """Spans of a column in which brackets open with a label and close, as in (NP*, * and *));
    by place, outer ones first."""
    spans: list[tuple[int, tuple[int, int, str]]] = []
    stack: list[tuple[int, int, str]] = []
    opened = 0
    for i, row in enumerate(sentence.rows):
        value = row[column]
        for label in _OPEN.findall(value):
            stack.append((opened, i, label))
            opened += 1
        for _ in range(value.count(")")):
            if not stack:
                raise FinetraceError(f"{where} line {sentence.lines[i]}: column {name} is {value!r}, but no "
                                     "bracket is open; mend it")
            number, start, label = stack.pop()
            spans.append((number, (start, i + 1, label)))
    if stack:
        raise FinetraceError(f"{where} line {sentence.lines[stack[-1][1]]}: column {name} opens "
                             f"({stack[-1][2]}, which the sentence does not close; mend it (is the file cut off?)")
    return [span for _, span in sorted(spans)]


def _mentions(sentence: _Sentence, where: str) -> list[tuple[int, int, int]]:
    """(start, end, chain) of the last column, as in (12, 12), (12) or (3|(12); mentions of one chain can nest."""
    mentions: list[tuple[int, int, int]] = []
    opened: dict[int, list[int]] = {}
    for i, row in enumerate(sentence.rows):
        for part in row[-1].split("|") if row[-1] not in ("-", "_", "*") else ():
            match = re.fullmatch(r"(\(?)(\d+)(\)?)", part)
            if not match or not (match[1] or match[3]):
                raise FinetraceError(f"{where} line {sentence.lines[i]}: column coreference is {row[-1]!r}, "
                                     "not numbers of chains that open or close, as in (12 or 12); mend it")
            chain = int(match[2])
            if match[1]:
                opened.setdefault(chain, []).append(i)
            if match[3]:
                if not opened.get(chain):
                    raise FinetraceError(f"{where} line {sentence.lines[i]}: column coreference closes chain "
                                         f"{chain}, which is not open; mend it")
                mentions.append((opened[chain].pop(), i + 1, chain))
    if unclosed := [chain for chain, starts in opened.items() if starts]:
        raise FinetraceError(f"{where} line {sentence.lines[0]}: column coreference opens chain {unclosed[0]}, which "
                             "the sentence does not close; mend it (is the file cut off?)")
    return mentions


def _sentences(text: str, where: str) -> Iterator[_Sentence]:
    sentence = _Sentence()
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.startswith(("#begin document", "#end document")) or not line.strip():
            if sentence.rows:
                yield sentence
            sentence = _Sentence()
            continue
        row = line.split()
        place = f"{where} line {number}"
        if len(row) < FIXED:
            raise FinetraceError(f"{place}: {len(row)} columns instead of {FIXED} or more; mend the line (is the "
                                 "file cut off, or of another format?)")
        if sentence.rows and len(row) != len(sentence.rows[0]):
            raise FinetraceError(f"{place}: {len(row)} columns, but the sentence's first word has "
                                 f"{len(sentence.rows[0])}; mend the line")
        if row[2] != str(len(sentence.rows)):
            raise FinetraceError(f"{place}: the number of the word is {row[2]!r} where {len(sentence.rows)} is next; "
                                 "words count 0, 1, 2, ... and a blank line ends a sentence")
        sentence.rows.append(row)
        sentence.lines.append(number)
