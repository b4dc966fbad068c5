"""What every reader of annotated sentences returns: examples, each one or two marked spans of words with a label."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Span = tuple[int, int]
"""First word and the word after the last one, counted from 0."""
HEAD_FIRST = "head-dependent"
"""The order of a dependency relation's words where a task does not say."""


@dataclass(frozen=True, slots=True)
class Example:
    """One marked word, phrase or pair of them, with its label."""

    words: tuple[str, ...]
    """All words of the sentence; examples of one sentence share the object."""
    spans: tuple[Span, ...]
    """One span, or two."""
    label: str
    """Name of the class; empty where `labels` takes its place."""
    sentence: int
    """Number of the sentence within its split, from 0; examples of one sentence stand together, sentences ascend."""
    place: str
    """"file line n", for messages."""
    source_id: str | None = None
    """The source's own name of the example, if it has one."""
    labels: tuple[str, ...] | None = None
    """In tasks with several labels per example: the names of those that it has, perhaps none."""


@dataclass
class Annotated:
    """The examples of one split."""

    examples: list[Example]
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number of annotated words or phrases that are no examples."""
    origin: dict[str, Any] = field(default_factory=dict)
    """What was read, with its hash."""


def relation_examples(words: tuple[str, ...], arcs: Iterable[tuple[int, int, str, str]], sentence: int, *, order: str,
                      subtypes: bool, source: str | None = None) -> list[Example]:
    """Examples of dependency relations: one per arc, in their order.

    arcs: (dependent, head, relation, place), word positions from 0; a root that is to be an example is its own head;
    order: head-dependent | dependent-head, which span comes first;  subtypes: keep "obl:npmod" as it is, or make it
    "obl";  source: name of the sentence, completed by the number of the dependent from 1 on.
    """
    examples = []
    for dependent, head, relation, place in arcs:
        spans = ((head, head + 1), (dependent, dependent + 1))
        examples.append(Example(words, spans if order == "head-dependent" else spans[::-1],
                                relation if subtypes else relation.split(":")[0], sentence, place,
                                None if source is None else f"{source}:{dependent + 1}"))
    return examples
