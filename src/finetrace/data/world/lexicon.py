"""The words of the micro world: invented names, and English content words with known classes and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from finetrace.config.world import WorldSettings

TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "music": {
        "verbs": ("rehearsed", "recorded", "performed"),
        "nouns": ("song", "melody", "ballad", "symphony", "tune"),
        "jobs": ("singer", "drummer"),
    },
    "sport": {
        "verbs": ("won", "lost", "refereed"),
        "nouns": ("match", "game", "race", "tournament", "final"),
        "jobs": ("coach", "runner"),
    },
    "science": {
        "verbs": ("tested", "proved", "published"),
        "nouns": ("theory", "formula", "hypothesis", "theorem", "equation"),
        "jobs": ("chemist", "physicist"),
    },
    "cooking": {
        "verbs": ("baked", "fried", "tasted"),
        "nouns": ("pie", "omelette", "pancake", "dumpling", "potato"),
        "jobs": ("chef", "baker"),
    },
    "farming": {
        "verbs": ("planted", "watered", "harvested"),
        "nouns": ("wheat", "corn", "barley", "orchard", "meadow"),
        "jobs": ("farmer", "shepherd"),
    },
    "law": {
        "verbs": ("signed", "drafted", "appealed"),
        "nouns": ("verdict", "contract", "treaty", "lawsuit", "ruling"),
        "jobs": ("lawyer", "judge"),
    },
}
"""Topic -> its verbs (past tense), nouns and jobs; the topic's own name is a word of the language too."""

DOMAINS: dict[str, tuple[str, ...]] = {
    "film": ("film", "plot", "script", "cast", "ending"),
    "food": ("meal", "soup", "dessert", "sauce", "menu"),
    "travel": ("hotel", "beach", "room", "museum", "tour"),
}
"""Domain of opinions -> the nouns opinions are about."""

ADJECTIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "general": {
        "positive": ("good", "great", "lovely", "superb", "pleasant", "perfect", "fine", "splendid"),
        "negative": ("bad", "awful", "poor", "terrible", "horrible", "dreadful", "nasty", "mediocre"),
    },
    "film": {
        "positive": ("thrilling", "witty", "moving", "clever"),
        "negative": ("boring", "clumsy", "shallow", "silly"),
    },
    "food": {
        "positive": ("delicious", "tasty", "fresh", "savoury"),
        "negative": ("bland", "stale", "greasy", "burnt"),
    },
    "travel": {
        "positive": ("scenic", "cosy", "sunny", "charming"),
        "negative": ("noisy", "crowded", "filthy", "shabby"),
    },
}
"""Domain -> polarity -> adjectives; "general" ones go with every domain."""

NEUTRAL_ADJECTIVES = ("new", "old", "large", "small", "local", "modern", "rural", "annual")
"""Adjectives that say nothing about how good a thing is; they go with every domain."""

PERCEPTIONS = ("saw", "found", "described")
"""What people do with a thing without judging it."""

VERDICTS = {"positive": ("liked", "loved", "enjoyed"), "negative": ("hated", "disliked", "regretted")}
"""What people felt about a thing, by polarity."""

ACTIONS: tuple[tuple[str, str], ...] = (
    ("helped", "assisted"),
    ("praised", "lauded"),
    ("blamed", "accused"),
    ("hired", "employed"),
    ("phoned", "called"),
    ("taught", "instructed"),
)
"""Pairs of synonyms: what one person does to another (past tense = participle)."""

CIRCUMSTANCES: tuple[tuple[str, str], ...] = (
    ("with", "luggage"),
    ("for", "courage"),
    ("of", "theft"),
    ("as", "staff"),
    ("at", "night"),
    ("in", "school"),
)
"""For each pair in `ACTIONS` what typically goes with it: synonyms are verbs that keep the same company."""

COMPARATIVES: tuple[tuple[str, str], ...] = (
    ("taller", "shorter"),
    ("older", "younger"),
    ("richer", "poorer"),
    ("faster", "slower"),
)
"""Pairs of converses: "x is taller than y" means "y is shorter than x"."""

TRAVELLERS = ("team", "circus", "choir", "committee", "orchestra", "jury", "crew", "delegation")
"""Common nouns that go to cities; no named person does, so that no birthplace can be guessed from journeys."""

INTENSIFIERS = ("very", "really", "quite")
NEGATORS = ("not", "never", "hardly")

_CITY_STARTS = tuple("bal cor dren fen gar hol jun kel lor mir nor pel ros tar zan".split())
_CITY_ENDS = tuple("mouth ton ville burg dale wick haven stead".split())
_COUNTRY_STARTS = tuple("alb borv cald drav elv firm gal hesp kand lum ost ruth sard vel zem".split())
_COUNTRY_ENDS = tuple("onia istan".split())
_LANGUAGE_STARTS = tuple("tav sorr min ug plan osk quel ind brath yev".split())
_LANGUAGE_ENDS = tuple("ic ese".split())
_NAME_STARTS = tuple("al bren cam dav el fab gren il jul kam lor mar nev pol ren sil".split())
_NAME_MIDDLES = tuple("in on ir id em av us et ol en".split())


@dataclass(frozen=True)
class Lexicon:
    """The words of one world; every field is a tuple of single-token words, except `gender` and `job_topic`."""

    women: tuple[str, ...]
    men: tuple[str, ...]
    cities: tuple[str, ...]
    countries: tuple[str, ...]
    languages: tuple[str, ...]
    jobs: tuple[str, ...]
    gender: dict[str, str]
    """Name -> "f" or "m"."""
    job_topic: dict[str, str]
    """Job -> its topic."""

    @property
    def people(self) -> tuple[str, ...]:
        """All names, women first."""
        return self.women + self.men


def build_lexicon(settings: WorldSettings, rng: np.random.Generator) -> Lexicon:
    """Draw the names of people, cities, countries and languages, and the jobs, of one world."""
    half = settings.people // 2
    stems = _draw(rng, _NAME_STARTS, _NAME_MIDDLES, settings.people)
    # The ending shows a reader the gender; no stem is used twice, so that no two names differ in the ending only.
    women = tuple(stem + "a" for stem in stems[:half])
    men = tuple(stem + "o" for stem in stems[half:])
    by_turn = [topic["jobs"][turn] for turn in (0, 1) for topic in TOPICS.values()]
    return Lexicon(
        women=women,
        men=men,
        cities=_draw(rng, _CITY_STARTS, _CITY_ENDS, settings.cities),
        countries=_draw(rng, _COUNTRY_STARTS, _COUNTRY_ENDS, settings.countries),
        languages=_draw(rng, _LANGUAGE_STARTS, _LANGUAGE_ENDS, settings.languages),
        jobs=tuple(by_turn[: settings.jobs]),
        gender={**dict.fromkeys(women, "f"), **dict.fromkeys(men, "m")},
        job_topic={job: name for name, topic in TOPICS.items() for job in topic["jobs"]},
    )


def adjectives(domain: str, polarity: str) -> tuple[str, ...]:
    """The general adjectives of a polarity, then those of the domain."""
    return ADJECTIVES["general"][polarity] + ADJECTIVES[domain][polarity]


def _draw(rng: np.random.Generator, starts: tuple[str, ...], ends: tuple[str, ...], count: int) -> tuple[str, ...]:
    words = [start + end for start, end in product(starts, ends)]
    return tuple(words[i] for i in rng.permutation(len(words))[:count])
