"""One micro world: its words, facts, templates and corpus, from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetrace.config.world import WorldSettings
from finetrace.data.world import frames
from finetrace.data.world.corpus import build_corpus
from finetrace.data.world.facts import RELATIONS, Fact, build_facts, candidates
from finetrace.data.world.grammar import Sentence, parse_frame
from finetrace.data.world.lexicon import (
    ACTIONS,
    ADJECTIVES,
    CIRCUMSTANCES,
    COMPARATIVES,
    DOMAINS,
    INTENSIFIERS,
    NEGATORS,
    NEUTRAL_ADJECTIVES,
    PERCEPTIONS,
    TOPICS,
    TRAVELLERS,
    VERDICTS,
    Lexicon,
    build_lexicon,
)

FUNCTION_WORDS = (
    *("a", "although", "and", "as", "because", "became", "born", "but", "by", "capital"),
    *("city", "comes", "did", "festival", "from", "has", "he", "her", "him", "his", "in", "is", "it", "its", "job"),
    *(
        "language",
        "lies",
        "likes",
        "located",
        "native",
        "of",
        "she",
        "so",
        "speaks",
        "surely",
        "than",
        "thanked",
        "the",
    ),
    *("to", "was", "went", "while", "who", "works", "writes", ","),
)
"""Words that the frames spell out."""


@dataclass(frozen=True)
class World:
    """A micro world; two worlds of the same settings and seed are equal."""

    settings: WorldSettings
    seed: int
    lexicon: Lexicon
    facts: list[Fact]
    """All facts, held-out ones included."""
    candidates: dict[str, tuple[str, ...]]
    """Relation -> every word of the right type for its object."""
    templates: dict[str, list[str]]
    """Relation -> cloze templates with [X] for the subject and [Y] for the object; the corpus uses all of them."""
    vocabulary: list[str]
    """All words in alphabetical order, without special tokens."""
    corpus: list[Sentence]


def build_world(settings: WorldSettings, seed: int) -> World:
    """Make the world of one seed; takes about a second for the default settings.

    Args:
        settings: sizes and shares.
        seed: any whole number from 0 on; names, facts and corpus all follow from it.
    """
    lexicon = build_lexicon(settings, named_rng(seed, "lexicon"))
    facts = build_facts(settings, lexicon, named_rng(seed, "facts"))
    return World(
        settings=settings,
        seed=seed,
        lexicon=lexicon,
        facts=facts,
        candidates=candidates(lexicon),
        templates={relation: _templates(relation) for relation in RELATIONS},
        vocabulary=_vocabulary(lexicon),
        corpus=build_corpus(settings, lexicon, facts, named_rng(seed, "corpus")),
    )


def named_rng(seed: int, name: str) -> np.random.Generator:
    """The generator for one purpose: independent of the generators of other names."""
    if seed < 0:
        raise ValueError(f"seed is {seed}: set it to 0 or more")
    return np.random.default_rng([seed, *name.encode()])


def _templates(relation: str) -> list[str]:
    x, y = frames.SLOT_KINDS[relation]
    marks = {x: "[X]", y: "[Y]"}
    texts = [frames.fact_frame(relation, which) for which in range(len(frames.FACT_FRAMES[relation]))]
    return [" ".join(parse_frame(text).words_with(marks, {})) for text in texts]


def _vocabulary(lexicon: Lexicon) -> list[str]:
    words = {*FUNCTION_WORDS, *lexicon.people, *lexicon.cities, *lexicon.countries, *lexicon.languages, *lexicon.jobs}
    words.update(
        *ACTIONS,
        *CIRCUMSTANCES,
        *COMPARATIVES,
        *DOMAINS.values(),
        *VERDICTS.values(),
        TRAVELLERS,
        INTENSIFIERS,
        NEGATORS,
        NEUTRAL_ADJECTIVES,
        PERCEPTIONS,
        TOPICS,
    )
    for topic in TOPICS.values():
        words.update(topic["verbs"], topic["nouns"])
    for polarities in ADJECTIVES.values():
        words.update(*polarities.values())
    return sorted(words)
