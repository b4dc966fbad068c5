"""The facts of the micro world: what is true, what the corpus states, and what it holds back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetrace.config.world import WorldSettings
from finetrace.data.world.lexicon import Lexicon

RELATIONS = ("born_in", "works_as", "speaks", "located_in", "capital_of")
"""Names of the relations; born_in, works_as and speaks are about people, capital_of leads from a country to a city."""


@dataclass(frozen=True)
class Fact:
    """One true statement of the world."""

    fact_id: str
    """"relation:subject", unique: a subject has one object per relation."""
    relation: str
    """One of `RELATIONS`."""
    subject: str
    """A single word."""
    object: str
    """A single word of the relation's candidate list."""
    held_out: bool
    """True if no sentence of the corpus states the fact or anything it could be inferred from."""


def build_facts(settings: WorldSettings, lexicon: Lexicon, rng: np.random.Generator) -> list[Fact]:
    """Draw all facts, a share of each relation held out.

    A held-out fact cannot be inferred, because each of these would be a way to infer it and is closed:
    objects are drawn independently for every subject (no elimination: two people may share a city, and
    what a person speaks says nothing about where that person was born); capitals, which follow from and
    restrict locations, are never held out and neither are the locations of capitals.
    """
    capitals = dict(zip(lexicon.countries, lexicon.cities, strict=False))
    home = {city: country for country, city in capitals.items()}
    for city in lexicon.cities:
        home.setdefault(city, str(rng.choice(lexicon.countries)))
    pairs = {
        "born_in": [(person, str(rng.choice(lexicon.cities))) for person in lexicon.people],
        "works_as": [(person, str(rng.choice(lexicon.jobs))) for person in lexicon.people],
        "speaks": [(person, str(rng.choice(lexicon.languages))) for person in lexicon.people],
        "located_in": list(home.items()),
        "capital_of": list(capitals.items()),
    }
    facts = []
    for relation in RELATIONS:
        open_to_choice = [s for s, _ in pairs[relation] if relation != "capital_of" and s not in capitals.values()]
        count = round(settings.held_out_share * len(open_to_choice))
        held_out = {open_to_choice[i] for i in rng.permutation(len(open_to_choice))[:count]}
        facts += [Fact(f"{relation}:{s}", relation, s, o, s in held_out) for s, o in pairs[relation]]
    return facts


def candidates(lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """Relation -> all words of the right type for its object."""
    return {
        "born_in": lexicon.cities,
        "works_as": lexicon.jobs,
        "speaks": lexicon.languages,
        "located_in": lexicon.countries,
        "capital_of": lexicon.cities,
    }
