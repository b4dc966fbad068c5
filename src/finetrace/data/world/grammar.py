"""Annotated sentence frames: a sentence and all its gold annotation come from one bracketed string.

A frame is an s-expression. A phrase is `(LABEL attributes child child ...)`, a word is `word/POS attributes`:

    (S (NP:nsubj=ARG0#1 $x/PROPN) *(VP *helped/VERB! (NP:obj=ARG1#2 $y/PROPN)))

`*` marks the head child of a phrase (an only child needs no mark). Attributes, in this order: `:nsubj` the
dependency label towards the parent phrase's head, `=ARG0` the semantic role towards the predicate of the smallest
clause around it, `#1` the coreference chain, `@EVENT` the entity type; `!` at a word's end marks its clause's
predicate. `$x` is a slot for one word; `$he_x`, `$him_x` and `$his_x` are pronouns that agree with the word in `$x`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

Span = tuple[int, int]

CLAUSE_LABELS = ("S", "SBAR")
PRONOUNS = {
    "he": {"m": "he", "f": "she"},
    "him": {"m": "him", "f": "her"},
    "his": {"m": "his", "f": "her"},
}
ENTITY_SLOTS = {"person": "PER", "city": "LOC", "country": "LOC", "language": "LANG"}
"""Slot name without digits -> entity type of the word that fills it."""

_PIECE = re.compile(r"\*?\([^\s()]+|\)|[^\s()]+")
_ATTRIBUTES = re.compile(r"(?::([a-z:]+))?(?:=([A-Z0-9-]+))?(?:#(\w))?(?:@([A-Z]+))?(!?)$")
_PHRASE = re.compile(r"(\*?)\(([A-Z]+)" + _ATTRIBUTES.pattern)
_WORD = re.compile(r"(\*?)([^/]+)/([A-Z]+)" + _ATTRIBUTES.pattern)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the corpus with its gold annotation; word spans are half-open and count from 0."""

    words: tuple[str, ...]
    """The words, punctuation marks included; `n` below is their number."""
    kind: str
    """"fact", "opinion", "action", "comparison", "journey" or "topic"."""
    pos: tuple[str, ...]
    """Universal part of speech of each word, (n,)."""
    heads: tuple[int, ...]
    """Dependency head of each word, (n,), counted from 1; 0 for the root."""
    deprels: tuple[str, ...]
    """Universal dependency label of each word, (n,)."""
    constituents: tuple[tuple[int, int, str], ...]
    """(start, end, label) of every phrase, outer before inner; none cross."""
    entities: tuple[tuple[int, int, str], ...]
    """(start, end, type) with type PER, LOC, LANG or EVENT; not nested."""
    coref: tuple[tuple[Span, ...], ...]
    """Chains of two or more mentions of the same person or thing."""
    roles: tuple[tuple[int, int, int, str], ...]
    """(predicate index, start, end, role)."""
    fact_ids: tuple[str, ...] = ()
    """The facts that the sentence states, in order."""

    @property
    def text(self) -> str:
        """The words joined by blanks."""
        return " ".join(self.words)

    @property
    def fact_id(self) -> str | None:
        """The first fact that the sentence states, or None."""
        return self.fact_ids[0] if self.fact_ids else None


@dataclass(frozen=True)
class Frame:
    """A parsed frame: the annotation of every sentence made from it."""

    words: tuple[str, ...]
    pos: tuple[str, ...]
    heads: tuple[int, ...]
    deprels: tuple[str, ...]
    constituents: tuple[tuple[int, int, str], ...]
    entities: tuple[tuple[int, int, str], ...]
    coref: tuple[tuple[Span, ...], ...]
    roles: tuple[tuple[int, int, int, str], ...]

    def words_with(self, values: dict[str, str], gender: dict[str, str]) -> tuple[str, ...]:
        """The words of one sentence: slots replaced by `values`; pronouns have the `gender` of the name meant."""
        return tuple(_fill(word, values, gender) if word[0] == "$" else word for word in self.words)


def make_sentence(
    frame_text: str, values: dict[str, str], gender: dict[str, str], kind: str, fact_ids: tuple[str, ...] = ()
) -> Sentence:
    """Fill the slots of a frame.

    Args:
        frame_text: the bracketed string (see the module's docstring); parsed once, then remembered.
        values: slot name -> word.
        gender: name -> "f" or "m", for the pronouns.
        kind: the kind of sentence.
        fact_ids: the facts that it states.
    """
    frame = parse_frame(frame_text)
    return Sentence(
        frame.words_with(values, gender),
        kind,
        frame.pos,
        frame.heads,
        frame.deprels,
        frame.constituents,
        frame.entities,
        frame.coref,
        frame.roles,
        fact_ids,
    )


@cache
def parse_frame(text: str) -> Frame:
    """Read a bracketed frame; ValueError if brackets, heads or predicates do not fit."""
    pieces = _PIECE.findall(text)
    builder = _Builder(text)
    end, _ = builder.phrase(pieces, 0, None)
    if end != len(pieces):
        raise ValueError(f"frame {text!r}: text after the closing bracket")
    return builder.frame()


class _Builder:
    """Collects the annotation while the frame is read once from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[str] = []
        self.pos: list[str] = []
        self.arcs: dict[int, tuple[int, str]] = {}
        self.constituents: list[tuple[int, int, str]] = []
        self.entities: list[tuple[int, int, str]] = []
        self.chains: dict[str, list[Span]] = {}
        self.roles: list[tuple[dict, int, int, str]] = []

    def phrase(self, pieces: list[str], at: int, clause: dict | None) -> tuple[int, int]:
        """Read the phrase that opens at piece `at`; returns the piece after it and its head word's index."""
        match = _PHRASE.match(pieces[at])
        if not match:
            raise ValueError(f"frame {self.text!r}: expected an opening bracket at {pieces[at]!r}")
        label, start = match[2], len(self.words)
        inner = {} if label in CLAUSE_LABELS else clause
        slot = len(self.constituents)
        self.constituents.append((start, start, label))
        children: list[tuple[bool, int, str]] = []
        at += 1
        while pieces[at] != ")":
            if "(" in pieces[at]:
                child = _PHRASE.match(pieces[at])
                assert child
                first = len(self.words)
                at_next, head = self.phrase(pieces, at, inner)
                deprel, role, chain, entity = child[3], child[4], child[5], child[6]
            else:
                child = _WORD.match(pieces[at])
                if not child:
                    raise ValueError(f"frame {self.text!r}: cannot read {pieces[at]!r}")
                first = head = len(self.words)
                at_next = at + 1
                self.words.append(child[2])
                self.pos.append(child[3])
                deprel, role, chain, entity = child[4], child[5], child[6], child[7]
                if child[2][0] == "$":
                    entity = entity or ENTITY_SLOTS.get(child[2][1:].rstrip("0123456789"))
                if child[8] and inner is not None:
                    inner["predicate"] = head
            self.mark(first, len(self.words), role, chain, entity, inner)
            children.append((bool(child[1]), head, deprel or "dep"))
            at = at_next
        heads = [head for starred, head, _ in children if starred or len(children) == 1]
        if len(heads) != 1:
            raise ValueError(f"frame {self.text!r}: phrase {label} at word {start} has {len(heads)} "
                             "heads, mark one with *")
        for _, head, deprel in children:
            if head != heads[0]:
                self.arcs[head] = (heads[0], deprel)
        self.constituents[slot] = (start, len(self.words), label)
        return at + 1, heads[0]

    def mark(self, start: int, end: int, role: str | None, chain: str | None, entity: str | None,
             clause: dict | None) -> None:
        if role and clause is not None:
            self.roles.append((clause, start, end, role))
        if chain:
            self.chains.setdefault(chain, []).append((start, end))
        if entity:
            # An outer entity replaces the ones inside it: "the fenton festival" is one EVENT.
            self.entities = [span for span in self.entities if span[1] <= start] + [(start, end, entity)]

    def frame(self) -> Frame:
        count = len(self.words)
        if any("predicate" not in clause for clause, *_ in self.roles):
            raise ValueError(f"frame {self.text!r}: a clause has roles but no word marked as its predicate with !")
        return Frame(
            words=tuple(self.words),
            pos=tuple(self.pos),
            heads=tuple(self.arcs[i][0] + 1 if i in self.arcs else 0 for i in range(count)),
            deprels=tuple(self.arcs[i][1] if i in self.arcs else "root" for i in range(count)),
            constituents=tuple(self.constituents),
            entities=tuple(self.entities),
            coref=tuple(tuple(chain) for chain in self.chains.values() if len(chain) > 1),
            roles=tuple(sorted((clause["predicate"], start, end, role) for clause, start, end, role in self.roles)),
        )


def _fill(word: str, values: dict[str, str], gender: dict[str, str]) -> str:
    slot = word[1:]
    if slot in values:
        return values[slot]
    form, _, antecedent = slot.partition("_")
    return PRONOUNS[form][gender[values[antecedent]]]
