"""STREUSLE (Schneider et al. 2018): semantic role and function of prepositions and possessives,
as tasks of marked spans.

Three forms of the same annotation, told apart by the file's extension:
    .conllulex   CoNLL-U with 9 more columns, 11 SMWE, 12 LEXCAT, 14 SS (role) and 15 SS2 (function) among them
    .json        a list of sentences with `toks`, `swes` (single words) and `smwes` (strong multi-word expressions)
    .tsv         one preposition per line: sent_id, first_tok, last_tok (from 0, both included), expression
                 (words joined by blanks or _), lexcat, role, function, sentence (words joined by blanks)
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from finetrace.data.conllu import conllu_sentences
from finetrace.data.examples import Annotated, Example
from finetrace.errors import FinetraceError

COLUMNS = ("sent_id", "first_tok", "last_tok", "expression", "lexcat", "role", "function", "sentence")
_SPECIAL = "??", "`$"  # unintelligible usage; slot of an idiom: annotated, but with no supersense


@dataclass(frozen=True)
class _Expression:
    """A lexical expression: its words' positions from 0, its supersenses, and where it stands."""

    positions: tuple[int, ...]
    role: str
    function: str
    place: str
    phrase: bool = False
    """A prepositional phrase: always of several words, even where a file names but one."""


def read_streusle(text: str, where: str, label: str, form: str, *, multiword: bool = False) -> Annotated:
    """Examples of a STREUSLE file: prepositions, possessives and infinitive markers with a supersense p.*.

    Without `multiword`, single words only (the tasks PS-role and PS-fxn); with it, expressions of adjacent words too.
    Expressions with a gap, and usages without a supersense (??, `$), are left out and counted.

    text: the file's content;  where: its name for messages;  label: role | function;  form: conllulex | json | tsv.
    Raises FinetraceError naming line or sentence, and field.
    """
    read = {"conllulex": _conllulex, "json": _json, "tsv": _tsv}[form]
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for number, (name, words, expressions) in enumerate(read(text, where)):
        sentence_examples = []
        if not all(word.strip() for word in words):
            raise FinetraceError(f"{where}: sentence {name or number + 1} has an empty word; mend it")
        for item in expressions:
            if not item.role.startswith("p."):
                left_out["no supersense"] += item.role in _SPECIAL
                continue
            if not item.positions or not all(0 <= i < len(words) for i in item.positions):
                raise FinetraceError(f"{item.place}: names words {[i + 1 for i in item.positions]} of a sentence of "
                                     f"{len(words)}; mend the positions")
            start, end = min(item.positions), max(item.positions) + 1
            if end - start != len(item.positions) or (item.phrase and end - start == 1):
                left_out["with a gap"] += 1
            elif end - start > 1 and not multiword:
                left_out["several words"] += 1
            else:
                value = item.role if label == "role" else item.function
                if not value.startswith("p."):
                    raise FinetraceError(f"{item.place}: has the role {item.role} but the function {value!r}; a "
                                         "preposition has both")
                sentence_examples.append(Example(words, ((start, end),), value, number, item.place,
                                                 None if name is None else f"{name}:{start + 1}"))
        examples += sorted(sentence_examples, key=lambda e: e.spans)
    return Annotated(examples, +left_out)


_Sentences = Iterable[tuple[str | None, tuple[str, ...], list[_Expression]]]


def _conllulex(text: str, where: str) -> _Sentences:
    for sentence in conllu_sentences(text, where, 19):
        groups: dict[str, list[int]] = {}
        for i, row in enumerate(sentence.rows):
            if row[10] != "_":
                groups.setdefault(row[10].split(":")[0], []).append(i)
        expressions = []
        for i, row in enumerate(sentence.rows):
            if row[13] == "_" or not row[13]:  # no supersense, or not the first word of its expression
                continue
            positions = (i,) if row[10] == "_" else tuple(groups[row[10].split(":")[0]])
            expressions.append(_Expression(positions, row[13], row[14], f"{where} line {sentence.lines[i]}"))
        yield sentence.name, sentence.words, expressions


def _json(text: str, where: str) -> _Sentences:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise FinetraceError(f"{where}: not valid JSON ({error}); is the file cut off?") from error
    except RecursionError:
        raise FinetraceError(f"{where}: not valid JSON (brackets are nested too deeply); is this the right "
                             "file?") from None
    if not isinstance(content, list):
        raise FinetraceError(f"{where}: is not a list of sentences; STREUSLE's conllulex2json makes one")
    for number, sentence in enumerate(content, 1):
        place = f"{where} sentence {number}"
        tokens = _key(sentence, "toks", list, place)
        words = tuple(_key(token, "word", str, place) for token in tokens)
        numbers = [_key(token, "#", int, place) for token in tokens]
        if numbers != list(range(1, len(words) + 1)):
            raise FinetraceError(f"{place}: key '#' of the words counts {numbers[:4]}..., not 1, 2, 3, ...")
        groups = [_key(sentence, key, dict, place) for key in ("swes", "smwes")]
        expressions = []
        for item in (item for group in groups for item in group.values()):
            positions = tuple(n - 1 for n in _key(item, "toknums", list, place))
            expressions.append(_Expression(positions, item.get("ss") or "", item.get("ss2") or "", place))
        yield sentence.get("sent_id"), words, expressions


def _key(item: Any, key: str, kind: type, place: str) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get(key), kind):
        raise FinetraceError(f"{place}: key {key!r} is missing or no {kind.__name__}; is this a STREUSLE json file?")
    return item[key]


def _tsv(text: str, where: str) -> _Sentences:
    lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
    if tuple(lines[0]) != COLUMNS:
        raise FinetraceError(f"{where} line 1: the header is {' '.join(lines[0])!r} instead of {' '.join(COLUMNS)!r}, "
                             "separated by tabs")
    current: tuple[str, str] | None = None
    words: tuple[str, ...] = ()
    expressions: list[_Expression] = []
    for number, row in enumerate(lines[1:], 2):
        if row == [""]:
            continue
        place = f"{where} line {number}"
        if len(row) != len(COLUMNS):
            raise FinetraceError(f"{place}: {len(row)} fields instead of {len(COLUMNS)}; mend the line (is "
                                 "the file cut off?)")
        name, first, last, expression, lexcat, role, function, sentence = row
        if current != (name, sentence):
            if current:
                yield current[0] or None, words, expressions
            current, words, expressions = (name, sentence), tuple(sentence.split(" ")), []
        for field, value in (("first_tok", first), ("last_tok", last)):
            if not value.isdecimal() or int(value) >= len(words):
                raise FinetraceError(f"{place}: field {field} is {value!r}, not the number of one of the sentence's "
                                     f"{len(words)} words (from 0)")
        between = tuple(range(int(first), int(last) + 1))
        contiguous = expression.replace("_", " ") == " ".join(words[int(first):int(last) + 1]).replace("_", " ")
        if not contiguous:  # the words between belong to others; which they are, the table does not say
            if len(between) < 3:
                raise FinetraceError(f"{place}: field expression is {expression!r}, but words {first} to {last} are "
                                     f"{' '.join(words[int(first):int(last) + 1])!r}; mend one of them")
            between = (between[0], between[-1])
        expressions.append(_Expression(between, role, function, place, lexcat == "PP"))
    if current:
        yield current[0] or None, words, expressions
