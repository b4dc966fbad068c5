"""Which words a task may use: all of them, or only those that training rows are allowed to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetrace.data.world.build import World, named_rng
from finetrace.data.world.lexicon import ACTIONS, ADJECTIVES, NEUTRAL_ADJECTIVES, TOPICS


@dataclass(frozen=True)
class TaskWords:
    """The content words of a split."""

    adjectives: dict[str, dict[str, tuple[str, ...]]]
    """Domain ("general" included) -> polarity -> adjectives."""
    neutral: tuple[str, ...]
    """Adjectives without polarity."""
    actions: tuple[tuple[str, str], ...]
    """Pairs of synonymous verbs."""
    topics: dict[str, dict[str, tuple[str, ...]]]
    """Topic -> "verbs" and "nouns"."""
    employed: dict[str, tuple[str, ...]]
    """Topic -> people whose stated job belongs to it."""
    cities: tuple[str, ...]
    """Cities whose country is stated in the corpus."""
    home: dict[str, str]
    """City -> its country, for those cities."""


def task_words(world: World, seen_only: bool) -> TaskWords:
    """All words (`seen_only` False), or the share of each class that training rows may use."""
    share = world.settings.seen_share if seen_only else 1.0
    rng = named_rng(world.seed, "words of training rows")

    def part(items: Sequence) -> tuple:
        # Two at least, so that a task can set one against another.
        keep = min(len(items), max(2, round(share * len(items))))
        return tuple(items[i] for i in sorted(rng.permutation(len(items))[:keep].tolist()))

    stated = [fact for fact in world.facts if not fact.held_out]
    topic_of = {fact.subject: world.lexicon.job_topic[fact.object] for fact in stated if fact.relation == "works_as"}
    home = {fact.subject: fact.object for fact in stated if fact.relation == "located_in"}
    return TaskWords(
        adjectives={
            domain: {polarity: part(words) for polarity, words in polarities.items()}
            for domain, polarities in ADJECTIVES.items()
        },
        neutral=part(NEUTRAL_ADJECTIVES),
        actions=ACTIONS,
        topics={topic: {kind: part(words[kind]) for kind in ("verbs", "nouns")} for topic, words in TOPICS.items()},
        employed={topic: part([p for p in topic_of if topic_of[p] == topic]) for topic in TOPICS},
        cities=part(list(home)),
        home=home,
    )
