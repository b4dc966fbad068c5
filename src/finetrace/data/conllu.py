"""CoNLL-U files (universaldependencies.org/format.html): parts of speech as tasks of words,
relations as tasks of pairs."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from finetrace.data.examples import Annotated, Example, relation_examples
from finetrace.errors import FinetraceError

FIELDS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_NO_WORD = re.compile(r"\d+-\d+|\d+\.\d+")  # the id of a multi-word token, as in 3-4, or of an empty node, as in 8.1
_SENT_ID = re.compile(r"#\s*sent_id\s*=\s*(.*\S)")


@dataclass
class ConlluSentence:
    """One sentence: its syntactic words with their fields."""

    name: str | None = None
    """The comment `sent_id`."""
    rows: list[list[str]] = field(default_factory=list)
    """(word, field): all fields of each syntactic word."""
    lines: list[int] = field(default_factory=list)
    """(word,): line number of each."""
    empty: bool = False
    """Whether it has an empty node."""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(row[1] for row in self.rows)


def read_conllu(text: str, where: str, label: str, *, order: str = "head-dependent", subtypes: bool = True,
                roots: bool = False, parity: bool = False) -> Annotated:
    """Examples of a CoNLL-U file.

    Multi-word tokens (3-4) and empty nodes (8.1) are no words: positions count syntactic words only. Values `_` are
    left out and counted. For `deprel` an example is a word with its head; roots have none, and are examples only if
    `roots` says so, with themselves in the place of the head.

    text: the file's content;  where: its name for messages;  label: upos | xpos | deprel;  order: head-dependent |
    dependent-head;  subtypes: whether relations keep theirs;  parity: leave out, and count, what edge probing's
    original converter (Tenney et al. 2019) lost: sentences with an empty node, and the file's last sentence.
    Raises FinetraceError naming line and field.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    column = FIELDS.index(label.upper())
    sentences = list(conllu_sentences(text, where))
    for number, sentence in enumerate(sentences):
        words = sentence.words
        if parity and (sentence.empty or number == len(sentences) - 1):
            left_out["sentences with an empty node" if sentence.empty else "last sentence of the file"] += 1
            continue
        labelled = [i for i, row in enumerate(sentence.rows) if row[column] != "_"]
        left_out[f"{label} is _"] += len(words) - len(labelled)
        if label == "deprel":
            arcs = []
            for i in labelled:
                place, head = f"{where} line {sentence.lines[i]}", _head(sentence, i, where)
                if head >= 0 or roots:
                    arcs.append((i, i if head < 0 else head, _label(sentence.rows[i][column], place, "DEPREL"), place))
            examples += relation_examples(words, arcs, number, order=order, subtypes=subtypes, source=sentence.name)
        else:
            for i in labelled:
                place = f"{where} line {sentence.lines[i]}"
                source = None if sentence.name is None else f"{sentence.name}:{i + 1}"
                examples.append(Example(words, ((i, i + 1),), _label(sentence.rows[i][column], place, label.upper()),
                                        number, place, source))
    return Annotated(examples, +left_out)


def conllu_sentences(text: str, where: str, fields: int = len(FIELDS)) -> Iterator[ConlluSentence]:
    """The sentences of a file in CoNLL-U, or in a format with more columns (`fields` in all)."""
    sentence = ConlluSentence()
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            if sentence.rows:
                yield sentence
            sentence = ConlluSentence()
        elif line.startswith("#"):
            if match := _SENT_ID.match(line):
                sentence.name = match[1]
        else:
            _add(sentence, line, number, where, fields)
    if sentence.rows:
        yield sentence


def _add(sentence: ConlluSentence, line: str, number: int, where: str, fields: int) -> None:
    row = line.split("\t")
    if _NO_WORD.fullmatch(row[0]):
        sentence.empty = sentence.empty or "." in row[0]
        return
    place = f"{where} line {number}"
    if len(row) != fields:
        raise FinetraceError(f"{place}: {len(row)} fields instead of {fields}, separated by tabs; mend the line (is "
                             "the file cut off, or are its tabs blanks?)")
    expected = len(sentence.rows) + 1
    if row[0] != str(expected):
        raise FinetraceError(f"{place}: field ID is {row[0]!r} where {expected} is next; words count 1, 2, 3, ... "
                             "and an empty line ends a sentence")
    if not row[1].strip():
        raise FinetraceError(f"{place}: field FORM is empty; give the word, or _ for an unknown one")
    sentence.rows.append(row)
    sentence.lines.append(number)


def _head(sentence: ConlluSentence, i: int, where: str) -> int:
    """Position of the head of word `i` from 0 on; -1 for a root."""
    value, place = sentence.rows[i][6], f"{where} line {sentence.lines[i]}"
    if not re.fullmatch(r"[0-9]+", value):
        raise FinetraceError(f"{place}: field HEAD is {value!r}, not the number of a word; mend it, or set "
                             "DEPREL to _ as well")
    head = int(value)
    if head > len(sentence.rows):
        raise FinetraceError(f"{place}: field HEAD is {head}, but the sentence has {len(sentence.rows)} words; "
                             "mend it (is the sentence cut off?)")
    if head == i + 1:
        raise FinetraceError(f"{place}: field HEAD is {head}, the word itself; mend it")
    return head - 1


def _label(value: str, place: str, name: str) -> str:
    if not value.strip():
        raise FinetraceError(f"{place}: field {name} is empty; give a value, or _ for none")
    return value.strip()
