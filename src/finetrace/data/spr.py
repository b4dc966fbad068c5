"""Semantic proto-roles (decomp.io), as tasks of pairs with several labels:
which properties an argument has to its predicate.

SPR1 (Reisinger et al. 2015), on the Penn Treebank, in one of two forms, told apart by the file's extension:
    .json, .jsonl   the processed release (Rudinger et al. 2018): per line `tokens`, `split`, `sent_id` and `spr1`,
                    pairs with `pred_idx`, `arg_idx` (words, from 0) and `responses`,
                    each with `spr_property` and `response` (1 to 5)
    .tsv            the release itself, whose sentences are in the treebank: `wsj_NNNN.mrg` must lie below `path` as
                    well; columns Split, Sentence.ID, Pred.Token, Arg.Pos, Property, Response, Applicable, and more
SPR2 (White et al. 2016), on Universal Dependencies English 1.2: a .tsv with columns Split, Sentence.ID, Pred.Token,
Arg.Phrase, Arg.Tokens.Begin, Arg.Tokens.End, Property, Response, Applicable, and more;
`en-ud-{train,dev,test}.conllu` must lie below `path`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace.config.data import RowsSettings
from finetrace.data.brackets import Tree, at_height, head_word, read_trees
from finetrace.data.conllu import ConlluSentence, conllu_sentences
from finetrace.data.examples import Annotated, Example, Span
from finetrace.data.readers import base_of, decode, parse_json
from finetrace.data.sources import files_below, our_splits
from finetrace.errors import FinetraceError

OF_SPR1 = ("Split", "Sentence.ID", "Pred.Token", "Arg.Pos", "Property", "Response", "Applicable")
OF_SPR2 = ("Split", "Sentence.ID", "Pred.Token", "Arg.Phrase", "Arg.Tokens.Begin", "Arg.Tokens.End", "Property",
           "Response", "Applicable")
_WORD = re.compile(r"[0-9]+")
_POSITION = re.compile(r"([0-9]+):([0-9]+)")


@dataclass
class _Pair:
    """A predicate and an argument with the responses of the annotators."""

    sentence: str
    words: tuple[str, ...]
    spans: tuple[Span, Span]
    place: str
    responses: dict[str, list[float]] = field(default_factory=dict)
    """Property -> responses, in the order of the file."""

    def add(self, name: str, response: Any, place: str) -> None:
        try:
            value = float(response)
        except (TypeError, ValueError):
            value = 0.0
        if not name or not 1 <= value <= 5:
            raise FinetraceError(f"{place}: the response to {name!r} is {response!r}; a property has a name, and a "
                                 "number from 1 to 5; mend it")
        self.responses.setdefault(name, []).append(value)


Pairs = dict[str, dict[tuple[Any, ...], _Pair]]
"""Split -> (sentence, spans) -> pair."""


def read_spr_task(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Annotated]:
    """All splits of SPR1 or SPR2; `path` is a folder that holds the files of the module's docstring,
    or the one .json file.

    A property holds (is among the pair's labels) where its mean response is above 3 (SPR1), or 4 or more (SPR2); with
    `spr_parity` its last response decides, as in edge probing's converter of SPR1. Raises FinetraceError naming file,
    line and fix.
    """
    from finetrace.store.files import sha256_file

    base = base_of(name, task, root)
    tables = files_below(base, "*.json", "*.jsonl") if task.format == "spr1" else []
    tables = tables or files_below(base, "*.tsv")
    if not tables:
        raise FinetraceError(f"{name}: {base} has no .tsv{' or .json' if task.format == 'spr1' else ''} with "
                             "responses; put it there, or let `path` be its folder")
    left_out: dict[str, Counter[str]] = {}
    pairs: Pairs = {}
    for path in tables:
        text = decode(path, task.encoding or "utf-8")
        if task.format == "spr2":
            read_spr2(text, str(path), _treebank(base, name), pairs, left_out)
        elif path.suffix == ".tsv":
            read_spr1_table(text, str(path), _trees(base, name), pairs, left_out)
        else:
            read_spr1_json(text, str(path), pairs)
    above, least = (3.0, False) if task.format == "spr1" else (4.0, True)
    splits = {split: Annotated(proto_roles(split_pairs.values(), above, least, last=bool(task.spr_parity)),
                               +left_out.get(split, Counter())) for split, split_pairs in pairs.items()}
    for part in splits.values():
        part.origin = {"file": ", ".join(p.name for p in tables), "sha256": ", ".join(sha256_file(p) for p in tables)}
    return our_splits(name, task, splits, only)


def proto_roles(pairs: Iterable[_Pair], limit: float, inclusive: bool, *, last: bool = False) -> list[Example]:
    """Examples with the properties that hold, those of one sentence together, in order of first appearance.

    limit: a property holds where its mean response is above it, or reaches it if `inclusive`;  last:
    take the last response.
    """
    by_sentence: dict[str, list[_Pair]] = {}
    for pair in pairs:
        by_sentence.setdefault(pair.sentence, []).append(pair)
    examples = []
    for number, sentence_pairs in enumerate(by_sentence.values()):
        for pair in sorted(sentence_pairs, key=lambda p: p.spans):
            scores = {name: values[-1] if last else sum(values) / len(values)
                      for name, values in pair.responses.items()}
            holding = sorted(name for name, score in scores.items() if score > limit or (inclusive and score == limit))
            examples.append(Example(sentence_pairs[0].words, pair.spans, "", number, pair.place, pair.sentence,
                                    tuple(holding)))
    return examples


def read_spr1_json(text: str, where: str, pairs: Pairs) -> None:
    """Add the pairs of a file of the processed SPR1."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{where} line {number}"
        row = parse_json(line, place, "sentence")
        words = tuple(_key(row, "tokens", list, place))
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise FinetraceError(f"{place}: key 'tokens' holds {words!r}; give the sentence's words, "
                                 "none of them empty")
        split, sentence = _key(row, "split", str, place), _key(row, "sent_id", str, place)
        for item in _key(row, "spr1", list, place):
            spans = tuple(_width_one(_key(item, key, int, place), len(words), key, place)
                          for key in ("pred_idx", "arg_idx"))
            pair = pairs.setdefault(split, {}).setdefault((sentence, spans),
                                                          _Pair(sentence, words, (spans[0], spans[1]), place))
            for answer in _key(item, "responses", list, place):
                pair.add(_key(answer, "spr_property", str, place), answer.get("response"), place)


def _key(item: Any, key: str, kind: type, place: str) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get(key), kind) or isinstance(item[key], bool):
        raise FinetraceError(f"{place}: key {key!r} is missing or no {kind.__name__}; is this the "
                             "processed release of SPR1?")
    return item[key]


def _width_one(value: Any, words: int, name: str, place: str) -> Span:
    if not _WORD.fullmatch(str(value)) or int(value) >= words:
        raise FinetraceError(f"{place}: {name} is {value!r}, not the number of one of the sentence's {words} "
                             "words (from 0); mend it")
    return int(value), int(value) + 1


def read_spr1_table(text: str, where: str, trees: dict[str, list[Tree]], pairs: Pairs,
                    left_out: dict[str, Counter[str]]) -> None:
    """Add the pairs of SPR1's own table. trees: number of a file of the treebank -> its trees.

    Arg.Pos holds PropBank's addresses of the argument; the second span is the head word of the first of these phrases
    that is more than a trace. Rows that have none are left out and counted.
    """
    verbs = total = 0
    for line, row in _rows(text, where, OF_SPR1):
        place, split, name = f"{where} line {line}", row["Split"], row["Sentence.ID"]
        file, _, number = name.partition("_")
        if not number.isdecimal() or file not in trees or int(number) >= len(trees[file]):
            raise FinetraceError(f"{place}: Sentence.ID is {name!r}: there is no file wsj_{file}.mrg below `path`, "
                                 "or it has no such tree (from 0); put the Penn Treebank's merged files there")
        leaves = trees[file][int(number)].leaves
        word_leaves = [i for i, leaf in enumerate(leaves) if leaf.label != "-NONE-"]
        predicate = _width_one(row["Pred.Token"], len(leaves), "Pred.Token", place)[0]
        verbs, total = verbs + leaves[predicate].label.startswith(("V", "AUX")), total + 1
        heads = [head for head in _heads(trees[file][int(number)], row["Arg.Pos"], place) if head in word_leaves]
        if not heads or predicate not in word_leaves:
            left_out.setdefault(split, Counter())["rows whose argument is a trace"] += 1
            continue
        words = tuple(str(leaves[i].word) for i in word_leaves)
        spans = ((word_leaves.index(predicate), word_leaves.index(predicate) + 1),
                 (word_leaves.index(heads[0]), word_leaves.index(heads[0]) + 1))
        pair = pairs.setdefault(split, {}).setdefault((name, spans), _Pair(name, words, spans, place))
        if row["Applicable"].lower() != "false" or re.fullmatch(r"[0-9.]+", row["Response"]):
            pair.add(row["Property"], row["Response"], place)
    if 2 * verbs < total:
        raise FinetraceError(f"{where}: only {verbs} of {total} predicates are verbs in the treebank below "
                             "`path`; is it the Penn Treebank, with its files as they were published?")


def _heads(tree: Tree, addresses: str, place: str) -> list[int]:
    """Head words of the phrases that PropBank's addresses name, as in 2:1, 0:0*4:1 and 3:0,5:1."""
    heads = []
    for address in re.split(r"[*,;]", addresses):
        if not (match := _POSITION.match(address.strip())):
            raise FinetraceError(f"{place}: Arg.Pos is {addresses!r}, not numbers of words, each with a colon and "
                                 "steps up the tree; mend it")
        try:
            heads.append(head_word(at_height(tree, int(match[1]), int(match[2]))))
        except ValueError as error:
            raise FinetraceError(f"{place}: Arg.Pos is {addresses!r}, but {error}; is the "
                                 "treebank the right one?") from None
    return heads


def read_spr2(text: str, where: str, sentences: dict[str, list[ConlluSentence]], pairs: Pairs,
              left_out: dict[str, Counter[str]]) -> None:
    """Add the pairs of SPR2's table. sentences: name of a file of the treebank -> its sentences.

    Rows whose property does not apply count for nothing; pairs without any that applies are left out and counted.
    """
    matching = total = 0
    silent: dict[tuple[str, tuple[Any, ...]], None] = {}
    for line, row in _rows(text, where, OF_SPR2):
        place, split = f"{where} line {line}", row["Split"]
        file, _, number = row["Sentence.ID"].partition(" ")
        if not number.isdecimal() or not 1 <= int(number) <= len(sentences.get(file, ())):
            raise FinetraceError(f"{place}: Sentence.ID is {row['Sentence.ID']!r}: there is no file {file} below "
                                 "`path`, or it has no such sentence (from 1); put Universal Dependencies "
                                 "English 1.2 there")
        words = sentences[file][int(number) - 1].words
        predicate = _width_one(row["Pred.Token"], len(words), "Pred.Token", place)
        start, last = (_width_one(row[key], len(words), key, place)[0]
                       for key in ("Arg.Tokens.Begin", "Arg.Tokens.End"))
        if start > last:
            raise FinetraceError(f"{place}: Arg.Tokens.Begin {start} is after Arg.Tokens.End {last}; mend the line")
        matching, total = matching + (" ".join(words[start:last + 1]).lower() == row["Arg.Phrase"].lower()), total + 1
        spans = (predicate, (start, last + 1))
        key = (row["Sentence.ID"], spans)
        silent.setdefault((split, key))
        if row["Applicable"].lower() != "no":
            pair = pairs.setdefault(split, {}).setdefault(key, _Pair(row["Sentence.ID"], words, spans, place))
            pair.add(row["Property"], row["Response"], place)
    if 2 * matching < total:
        raise FinetraceError(f"{where}: only {matching} of {total} argument phrases are those of the treebank below "
                             "`path`; it must be Universal Dependencies English of release 1.2")
    for split, key in silent:
        if key not in pairs.get(split, {}):
            left_out.setdefault(split, Counter())["pairs without a property that applies"] += 1


def _rows(text: str, where: str, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and columns of each row of a tab-separated table with a header."""
    lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
    for column in needed:
        if column not in lines[0]:
            raise FinetraceError(f"{where} line 1: the header has no column {column!r}, separated by tabs; it has "
                                 f"{', '.join(lines[0])}")
    for number, row in enumerate(lines[1:], 2):
        if row == [""]:
            continue
        if len(row) != len(lines[0]):
            raise FinetraceError(f"{where} line {number}: {len(row)} fields instead of {len(lines[0])}; mend the "
                                 "line (is the file cut off?)")
        yield number, dict(zip(lines[0], row, strict=True))


def _treebank(base: Path, name: str) -> dict[str, list[ConlluSentence]]:
    """File name -> sentences of Universal Dependencies English 1.2."""
    files = {p.name: p for p in files_below(base, "en-ud-*.conllu")} if base.is_dir() else {}
    if not files:
        raise FinetraceError(f"{name}: {base} has no en-ud-train.conllu, en-ud-dev.conllu or en-ud-test.conllu with "
                             "the sentences of the table; put Universal Dependencies English 1.2 there")
    return {file: list(conllu_sentences(decode(path, "utf-8"), str(path))) for file, path in files.items()}


def _trees(base: Path, name: str) -> dict[str, list[Tree]]:
    """Number of a file of the Penn Treebank -> its trees."""
    files = files_below(base, "wsj_*.mrg") if base.is_dir() else []
    if not files:
        raise FinetraceError(f"{name}: {base} has no wsj_NNNN.mrg with the sentences of the table; put the Penn "
                             "Treebank's merged files there, or take the processed release of SPR1 (.json)")
    return {path.stem.removeprefix("wsj_"): read_trees(decode(path, "latin-1"), str(path)) for path in files}
