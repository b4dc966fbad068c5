"""The pre-training corpus of the micro world: what is written about its facts, people and things."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetrace.config.world import WorldSettings
from finetrace.data.world import frames
from finetrace.data.world.facts import Fact
from finetrace.data.world.grammar import Sentence, make_sentence
from finetrace.data.world.lexicon import (
    ACTIONS,
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
    adjectives,
)

PLAIN_SHARES = {"opinion": 0.38, "action": 0.24, "comparison": 0.05, "journey": 0.14, "topic": 0.19}
"""Share of each kind among the sentences that state no facts."""

TWO_FACT_SHARE = 0.05
"""Share of fact sentences with a second fact about the same person, by pronoun."""

NEGATED_SHARE = 0.15
"""Share of judgements that negate the opposite: "not bad". Were it near one half, nothing would tell good from bad."""


def build_corpus(settings: WorldSettings, lexicon: Lexicon, facts: Sequence[Fact],
                 rng: np.random.Generator) -> list[Sentence]:
    """Write `settings.corpus_sentences` sentences in random order, none of which states a held-out fact."""
    writer = _Writer(settings, lexicon, facts, rng)
    kinds = list(PLAIN_SHARES)
    limits = np.cumsum([PLAIN_SHARES[kind] for kind in kinds])
    write: dict[str, Callable[[], Sentence]] = {kind: getattr(writer, kind) for kind in kinds}
    sentences = []
    for is_fact, position in rng.random((settings.corpus_sentences, 2)):
        if is_fact < settings.fact_share:
            sentences.append(writer.fact())
        else:
            sentences.append(write[kinds[min(int(np.searchsorted(limits, position)), len(kinds) - 1)]]())
    return sentences


class Dice:
    """Fast random choices from one generator: a block of uniform numbers is drawn at a time.

    `Generator.choice` takes about 10 microseconds a call, and a corpus makes some 100,000 choices.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def uniform(self) -> float:
        """A number from 0 (included) to 1 (excluded)."""
        if not self._block:
            self._block = self._rng.random(4096).tolist()
        return self._block.pop()

    def pick(self, items: Sequence[Any]) -> Any:
        """One of `items`, all equally likely."""
        return items[int(self.uniform() * len(items))]

    def often_first(self, items: Sequence[Any]) -> Any:
        """One of `items`, the first more often than the last: word frequencies fall off as in any language.

        The chance of one of the first k of n items is sqrt(k / n). As with facts, frequent words come first in
        learning and the classes of rare ones are learned by the company that they keep with them.
        """
        return items[int(self.uniform() ** 2 * len(items))]

    def two(self, items: Sequence) -> tuple:
        """Two different ones of `items`."""
        first = int(self.uniform() * len(items))
        second = int(self.uniform() * (len(items) - 1))
        return items[first], items[second + (second >= first)]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability


class _Writer:
    """Writes one sentence of a kind at a time."""

    def __init__(self, settings: WorldSettings, lexicon: Lexicon, facts: Sequence[Fact],
                 rng: np.random.Generator) -> None:
        self.lexicon = lexicon
        self.dice = Dice(rng)
        self.stated = [fact for fact in facts if not fact.held_out]
        by_frequency = rng.permutation(sorted({fact.subject for fact in facts})).tolist()
        rank = {subject: number for number, subject in enumerate(by_frequency, start=1)}
        # Imbalanced facts shorten the plateau before facts are learned (Zucchet et al. 2025, arXiv:2503.21676): the
        # circuit that looks facts up forms on frequent subjects, and then serves the rare ones.
        self.limits = np.cumsum([rank[fact.subject] ** -settings.fact_skew for fact in self.stated]).tolist()
        self.about: dict[str, list[Fact]] = {}
        for fact in self.stated:
            if fact.relation in frames.SECOND_FACT_FRAMES:
                self.about.setdefault(fact.subject, []).append(fact)
        self.home = {fact.subject: fact.object for fact in self.stated if fact.relation == "located_in"}
        self.placed = tuple(self.home)
        # Only people whose job is stated: "x did his job because he likes music" would give away a held-out one.
        self.job = {fact.subject: fact.object for fact in self.stated if fact.relation == "works_as"}
        self.employed = tuple(self.job)

    def make(self, frame: str, kind: str, fact_ids: tuple[str, ...] = (), **values: str) -> Sentence:
        return make_sentence(frame, values, self.lexicon.gender, kind, fact_ids)

    def fact(self) -> Sentence:
        fact = self.stated[bisect(self.limits, self.dice.uniform() * self.limits[-1])]
        which = self.dice.pick(range(len(frames.FACT_FRAMES[fact.relation])))
        x, y = frames.SLOT_KINDS[fact.relation]
        others = [other for other in self.about.get(fact.subject, ()) if other.relation != fact.relation]
        if others and self.dice.chance(TWO_FACT_SHARE):
            other = self.dice.pick(others)
            frame = frames.two_facts(fact.relation, which, other.relation)
            values = {x: fact.subject, y: fact.object, frames.SLOT_KINDS[other.relation][1] + "2": other.object}
            return self.make(frame, "fact", (fact.fact_id, other.fact_id), **values)
        frame, values = frames.fact_frame(fact.relation, which), {x: fact.subject, y: fact.object}
        return self.make(frame, "fact", (fact.fact_id,), **values)

    def couple(self) -> tuple[str, str]:
        """A woman and a man in either order, so that pronouns for them are unambiguous."""
        pair = self.dice.pick(self.lexicon.women), self.dice.pick(self.lexicon.men)
        return pair if self.dice.chance(0.5) else pair[::-1]

    def judgement(self, domain: str, polarity: str, number: str) -> dict[str, str]:
        """Adjective and degree that together have the polarity: "very good" or "not bad"."""
        dice = self.dice
        if dice.chance(NEGATED_SHARE):
            other = "negative" if polarity == "positive" else "positive"
            return {"adj" + number: dice.often_first(adjectives(domain, other)), "degree" + number: dice.pick(NEGATORS)}
        values = {"adj" + number: dice.often_first(adjectives(domain, polarity))}
        if dice.chance(0.3):
            values["degree" + number] = dice.pick(INTENSIFIERS)
        return values

    def opinion(self) -> Sentence:
        dice = self.dice
        domain = dice.pick(tuple(DOMAINS))
        polarity, other = ("positive", "negative") if dice.chance(0.5) else ("negative", "positive")
        noun, noun2 = dice.two(DOMAINS[domain])
        person, verb = dice.pick(self.lexicon.people), dice.often_first(VERDICTS[polarity])
        values = {"noun1": noun, **self.judgement(domain, polarity, "1")}
        degree = "degree1" if "degree1" in values else ""
        shape = dice.uniform()
        if shape < 0.15:  # x saw the old film
            adjective, verb = dice.often_first(NEUTRAL_ADJECTIVES), dice.often_first(PERCEPTIONS)
            frame = frames.feeling_about("verb", "person1", "adj1", "noun1")
            return self.make(frame, "opinion", person1=person, verb=verb, adj1=adjective, noun1=noun)
        if shape < 0.2:  # the film was old and local
            adj1, adj2 = dice.two(NEUTRAL_ADJECTIVES)
            return self.make(frames.opinion_of_two("noun1", "adj1", "adj2"), "opinion", noun1=noun,
                             adj1=adj1, adj2=adj2)
        if shape < 0.4:  # x liked the good film
            adjective = dice.often_first(adjectives(domain, polarity))
            frame = frames.feeling_about("verb", "person1", "adj1", "noun1")
            return self.make(frame, "opinion", person1=person, verb=verb, adj1=adjective, noun1=noun)
        if shape < 0.55:  # the film was good and witty
            adj1, adj2 = dice.often_first(adjectives(domain, polarity)), dice.often_first(adjectives(domain, polarity))
            if adj1 != adj2:
                frame = frames.opinion_of_two("noun1", "adj1", "adj2")
                return self.make(frame, "opinion", noun1=noun, adj1=adj1, adj2=adj2)
        if shape < 0.6:  # the film was not bad but good
            adj1, adj2 = dice.often_first(adjectives(domain, other)), dice.often_first(adjectives(domain, polarity))
            frame = frames.opinion_corrected("noun1", "adj1", "adj2")
            return self.make(frame, "opinion", noun1=noun, adj1=adj1, adj2=adj2)
        if shape < 0.72:  # the plot was dull but the film was good
            values.update(noun2=noun2, **self.judgement(domain, other, "2"))
            main = frames.opinion("noun1", "adj1", degree)
            side = frames.opinion("noun2", "adj2", "degree2" if "degree2" in values else "")
            if shape < 0.68:
                return self.make(frames.join(side, "but", main), "opinion", **values)
            return self.make(frames.subordinate(main, "although", side, first=dice.chance(0.5)), "opinion", **values)
        values.update(person1=person, verb=verb)
        if shape < 0.84:  # x liked the film because it was good
            liked = frames.feeling("verb", "person1", "noun1", "1")
            return self.make(frames.subordinate(liked, "because", frames.it_was("adj1", degree)), "opinion", **values)
        if shape < 0.92:  # the film was good so x liked it
            liked = frames.feeling("verb", "person1", "it", "1")
            good = frames.opinion("noun1", "adj1", degree, "1")
            return self.make(frames.join(good, "so", liked), "opinion", **values)
        # x hated the film although it was good
        values["verb"] = dice.often_first(VERDICTS[other])
        hated = frames.feeling("verb", "person1", "noun1", "1")
        return self.make(frames.subordinate(hated, "although", frames.it_was("adj1", degree)), "opinion", **values)

    def action(self) -> Sentence:
        dice = self.dice
        group = dice.often_first(range(len(ACTIONS)))
        verb, synonym = dice.two(ACTIONS[group])
        shape = dice.uniform()
        if shape < 0.3:  # x helped y with luggage
            person1, person2 = dice.two(self.lexicon.people)
            preposition, circumstance = CIRCUMSTANCES[group]
            values = {"preposition": preposition, "circumstance": circumstance}
            frame = frames.action_with("verb1", "person1", "person2")
            return self.make(frame, "action", verb1=verb, person1=person1, person2=person2, **values)
        if shape < 0.4:  # x helped y and he thanked her
            person1, person2 = self.couple()
            first, second = frames.action("verb1", "person1", "person2"), frames.thanks("person2", "person1")
            frame = frames.join(first, "and", second)
            return self.make(frame, "action", verb1=verb, person1=person1, person2=person2)
        person1, person2 = dice.two(self.lexicon.people)
        passive, negated = dice.chance(0.3), dice.chance(0.15)
        # One passive at most: what counts is the change of voice, and long sentences cost time in every training.
        passive2 = not passive and dice.chance(0.6)
        first = frames.action("verb1", "person1", "person2", passive, negated)
        values = {"verb1": verb, "verb2": synonym, "person1": person1, "person2": person2}
        if shape < 0.75:  # x helped y so y was assisted by x
            second = frames.action("verb2", "person1", "person2", passive2, negated)
            return self.make(frames.join(first, "so", second), "action", **values)
        # x helped y but x was assisted by y: whether it is "so" or "but" takes comparing who does what
        second = frames.action("verb2", "person2", "person1", passive2, negated)
        return self.make(frames.join(first, "but", second), "action", **values)

    def comparison(self) -> Sentence:
        dice = self.dice
        (word, converse), other = dice.two(COMPARATIVES)
        if dice.chance(0.5):
            word, converse = converse, word
        person1, person2 = dice.two(self.lexicon.people)
        first = frames.comparison("word1", "person1", "person2")
        values = {"word1": word, "person1": person1, "person2": person2}
        if dice.chance(0.65):  # x is taller than y so y is shorter than x
            frame = frames.join(first, "so", frames.comparison("word2", "person2", "person1"))
            return self.make(frame, "comparison", word2=converse, **values)
        order = ("person1", "person2") if dice.chance(0.5) else ("person2", "person1")
        frame = frames.join(first, "but", frames.comparison("word2", *order))
        return self.make(frame, "comparison", word2=dice.pick(other), **values)

    def journey(self) -> Sentence:
        dice = self.dice
        city = dice.pick(self.placed)
        country = self.home[city]
        traveller = dice.pick(TRAVELLERS)
        shape = dice.uniform()
        if shape < 0.2:  # the fenton festival was in albonia
            return self.make(frames.festival("country"), "journey", city=city, country=country)
        start = frames.journey if dice.chance(0.5) else frames.stay
        # "surely" and "never" depend on whether the two places match: predicting them takes comparing, not recall only.
        truth = "surely"
        if shape > 0.6:  # the team went to fenton so it was never in estistan
            truth = "never"
            while country == self.home[city]:
                country = self.home[dice.pick(self.placed)]
        frame = frames.join(start("traveller", "city"), "so", frames.it_was_in("country"))
        return self.make(frame, "journey", traveller=traveller, city=city, country=country, truth=truth)

    def topic(self) -> Sentence:
        dice = self.dice
        topic, topic2 = dice.two(tuple(TOPICS))
        person1, person2 = self.couple()
        shape = dice.uniform()
        if shape < 0.3:  # x did his job because he likes music
            person1 = dice.pick(self.employed)
            topic = self.lexicon.job_topic[self.job[person1]]
            frame = frames.subordinate(frames.job_done("person1"), "because", frames.likes_topic("person1"))
            return self.make(frame, "topic", person1=person1, topic=topic)
        verb1, noun1 = dice.pick(TOPICS[topic]["verbs"]), dice.pick(TOPICS[topic]["nouns"])
        values = {"person1": person1, "verb1": verb1, "noun1": noun1}
        main = frames.deed("person1", "verb1", "noun1")
        if shape < 0.6:  # x baked the pie because he likes cooking
            frame = frames.subordinate(main, "because", frames.likes_topic("person1"))
            return self.make(frame, "topic", topic=topic, **values)
        values.update(verb2=dice.pick(TOPICS[topic2]["verbs"]), noun2=dice.pick(TOPICS[topic2]["nouns"]))
        if shape < 0.75:  # x , who sang the song , baked the pie
            frame = frames.deed_with_relative("person1", "verb1", "noun1", "verb2", "noun2")
        else:  # although y sang the song , x baked the pie
            values.update(person2=person2)
            connective = "although" if dice.chance(0.5) else "while"
            side = frames.deed("person2", "verb2", "noun2")
            frame = frames.subordinate(main, connective, side, first=dice.chance(0.5))
        return self.make(frame, "topic", **values)
