"""Minimal pairs of the micro world: what its grammar, its words and its facts allow, and what they do not.

Good and bad sentence have the same number of words and differ in as little as the phenomenon allows. Sentences of the
corpus itself are left out but where facts are asked for, which can be known from it only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from finetrace import seeds
from finetrace.data.minimal_pairs import Pair
from finetrace.data.world.build import World
from finetrace.data.world.corpus import Dice
from finetrace.data.world.facts import RELATIONS, Fact
from finetrace.data.world.frames import (
    SLOT_KINDS,
    action,
    action_with,
    comparison,
    deed,
    fact_frame,
    feeling,
    feeling_about,
    it_was,
    job_done,
    join,
    likes_topic,
    subordinate,
    thanks,
)
from finetrace.data.world.grammar import make_sentence
from finetrace.data.world.lexicon import (
    ACTIONS,
    CIRCUMSTANCES,
    COMPARATIVES,
    DOMAINS,
    NEUTRAL_ADJECTIVES,
    PERCEPTIONS,
    TOPICS,
    VERDICTS,
    adjectives,
)

PAIRS = 25
"""Pairs of a paradigm unless said otherwise."""
_ATTEMPTS = 20  # per pair: small worlds have fewer sentences than are asked for
Words = tuple[list[str], list[str]]


def world_pairs(world: World, seed: int, count: int = PAIRS) -> list[Pair]:
    """Up to `count` pairs of each paradigm; the held-out facts are a control that nothing can tell."""
    maker, corpus = _Maker(world), {sentence.text for sentence in world.corpus}
    pairs: list[Pair] = []
    for phenomenon, paradigms in _PARADIGMS.items():
        for paradigm, make in paradigms.items():
            maker.dice = Dice(seeds.generator(seed, "minimal pairs", paradigm))
            good_to_bad: dict[str, str] = {}
            for _ in range(_ATTEMPTS * count):
                good, bad = (" ".join(words) for words in make(maker))
                if not {good, bad} & corpus and good != bad:
                    good_to_bad.setdefault(good, bad)
                if len(good_to_bad) == count:
                    break
            pairs += [Pair(f"{paradigm}:{number}", "grammar", phenomenon, paradigm, *sentences)
                      for number, sentences in enumerate(good_to_bad.items())]
    return pairs + list(_fact_pairs(world, seed, count))


def _fact_pairs(world: World, seed: int, count: int) -> Iterator[Pair]:
    """A true and a false object of the same type, at most one pair per fact."""
    for held_out in (False, True):
        for relation in RELATIONS:
            rng = seeds.generator(seed, "minimal pairs", relation, int(held_out))
            facts = [fact for fact in world.facts if fact.relation == relation and fact.held_out == held_out]
            chosen = sorted(rng.permutation(len(facts))[:count].tolist())
            dice, paradigm = Dice(rng), "held-out-facts" if held_out else relation.replace("_", "-")
            for fact in (facts[i] for i in chosen):
                which = dice.pick(range(len(world.templates[relation])))
                false = dice.pick([word for word in world.candidates[relation] if word != fact.object])
                good, bad = (_fact_text(fact, which, word) for word in (fact.object, false))
                yield Pair(fact.fact_id, "facts", "held-out-facts" if held_out else "facts", paradigm, good, bad,
                           held_out)


def _fact_text(fact: Fact, which: int, word: str) -> str:
    x, y = SLOT_KINDS[fact.relation]
    return make_sentence(fact_frame(fact.relation, which), {x: fact.subject, y: word}, {}, "fact").text


class _Maker:
    """Makes one pair of a paradigm at a time: the words of the good sentence, and of the bad one."""

    def __init__(self, world: World) -> None:
        self.lexicon = world.lexicon
        self.dice: Dice

    def words(self, frame: str, **values: str) -> list[str]:
        return list(make_sentence(frame, values, self.lexicon.gender, "pair").words)

    def couple(self) -> tuple[str, str]:
        """A woman and a man in either order."""
        pair = self.dice.pick(self.lexicon.women), self.dice.pick(self.lexicon.men)
        return pair if self.dice.chance(0.5) else pair[::-1]

    def deed_because(self) -> list[str]:
        """x baked the pie because he likes cooking"""
        topic = self.dice.pick(tuple(TOPICS))
        frame = subordinate(deed("person1", "verb1", "noun1"), "because", likes_topic("person1"))
        return self.words(frame, person1=self.dice.pick(self.lexicon.people), topic=topic,
                          verb1=self.dice.pick(TOPICS[topic]["verbs"]), noun1=self.dice.pick(TOPICS[topic]["nouns"]))

    def helped(self, group: int) -> list[str]:
        """x helped y with luggage"""
        person1, person2 = self.dice.two(self.lexicon.people)
        preposition, circumstance = CIRCUMSTANCES[group]
        return self.words(action_with("verb1", "person1", "person2"), verb1=self.dice.pick(ACTIONS[group]),
                          person1=person1, person2=person2, preposition=preposition, circumstance=circumstance)

    def subject_pronoun(self) -> Words:
        """... because he | she likes cooking"""
        good = self.deed_because()
        return good, _with_word(good, -3, "she" if good[-3] == "he" else "he")

    def possessive_pronoun(self) -> Words:
        """x did his | her job because he likes music"""
        frame = subordinate(job_done("person1"), "because", likes_topic("person1"))
        good = self.words(frame, person1=self.dice.pick(self.lexicon.people), topic=self.dice.pick(tuple(TOPICS)))
        return good, _with_word(good, 2, "her" if good[2] == "his" else "his")

    def object_pronoun(self) -> Words:
        """x helped y and he thanked her | him"""
        person1, person2 = self.couple()
        frame = join(action("verb1", "person1", "person2"), "and", thanks("person2", "person1"))
        good = self.words(frame, person1=person1, person2=person2, verb1=self.dice.pick(self.dice.pick(ACTIONS)))
        return good, _with_word(good, -1, "her" if good[-1] == "him" else "him")

    def agent_preposition(self) -> Words:
        """y was helped by | of x so x assisted y"""
        person1, person2 = self.dice.two(self.lexicon.people)
        verb1, verb2 = self.dice.two(self.dice.pick(ACTIONS))
        frame = join(action("verb1", "person1", "person2", passive=True), "so", action("verb2", "person1", "person2"))
        good = self.words(frame, person1=person1, person2=person2, verb1=verb1, verb2=verb2)
        return good, _with_word(good, 3, self.dice.pick(CIRCUMSTANCES)[0])

    def verb_circumstance(self) -> Words:
        """x helped y with luggage | of theft"""
        group, other = self.dice.two(range(len(ACTIONS)))
        good = self.helped(group)
        return good, [*good[:-2], *CIRCUMSTANCES[other]]

    def verb_object(self) -> Words:
        """x baked the pie | verdict because he likes cooking"""
        good = self.deed_because()
        topic = self.dice.pick([topic for topic in TOPICS if topic != good[-1]])
        return good, _with_word(good, 3, self.dice.pick(TOPICS[topic]["nouns"]))

    def subject_verb(self) -> Words:
        """x helped | helped x ..."""
        good = self.helped(self.dice.pick(range(len(ACTIONS))))
        return good, _swapped(good, 0)

    def determiner_noun(self) -> Words:
        """x baked the pie | pie the because ..."""
        good = self.deed_because()
        return good, _swapped(good, 2)

    def adjective_noun(self) -> Words:
        """x saw the old film | film old"""
        noun = self.dice.pick(DOMAINS[self.dice.pick(tuple(DOMAINS))])
        good = self.words(feeling_about("verb", "person1", "adj1", "noun1"), verb=self.dice.pick(PERCEPTIONS),
                          person1=self.dice.pick(self.lexicon.people), adj1=self.dice.pick(NEUTRAL_ADJECTIVES),
                          noun1=noun)
        return good, _swapped(good, 3)

    def preposition_object(self) -> Words:
        """x helped y with luggage | luggage with"""
        good = self.helped(self.dice.pick(range(len(ACTIONS))))
        return good, _swapped(good, 3)

    def converses(self) -> Words:
        """x is taller than y so y is shorter | taller than x"""
        person1, person2 = self.dice.two(self.lexicon.people)
        first, second = self.dice.two(self.dice.pick(COMPARATIVES))
        frame = join(comparison("word1", "person1", "person2"), "so", comparison("word2", "person2", "person1"))
        good = self.words(frame, person1=person1, person2=person2, word1=first, word2=second)
        return good, _with_word(good, 8, first)

    def reason(self) -> Words:
        """x liked the film because it was good | bad"""
        polarity, other = self.dice.two(tuple(VERDICTS))
        domain = self.dice.pick(tuple(DOMAINS))
        frame = subordinate(feeling("verb", "person1", "noun1", "1"), "because", it_was("adj1"))
        good = self.words(frame, verb=self.dice.pick(VERDICTS[polarity]), person1=self.dice.pick(self.lexicon.people),
                          noun1=self.dice.pick(DOMAINS[domain]), adj1=self.dice.pick(adjectives(domain, polarity)))
        return good, _with_word(good, -1, self.dice.pick(adjectives(domain, other)))


_PARADIGMS: dict[str, dict[str, Callable[[_Maker], Words]]] = {
    "agreement": {"subject-pronoun": _Maker.subject_pronoun, "possessive-pronoun": _Maker.possessive_pronoun,
                  "object-pronoun": _Maker.object_pronoun},
    "argument-structure": {"agent-preposition": _Maker.agent_preposition,
                           "verb-circumstance": _Maker.verb_circumstance, "verb-object": _Maker.verb_object},
    "word-order": {"subject-verb": _Maker.subject_verb, "determiner-noun": _Maker.determiner_noun,
                   "adjective-noun": _Maker.adjective_noun, "preposition-object": _Maker.preposition_object},
    "meaning": {"converses": _Maker.converses, "reason": _Maker.reason},
}
"""Phenomenon -> paradigm -> what makes a pair of it."""


def _with_word(words: Sequence[str], at: int, word: str) -> list[str]:
    changed: list[Any] = list(words)
    changed[at] = word
    return changed


def _swapped(words: Sequence[str], at: int) -> list[str]:
    """The words with those at `at` and after it in the other order."""
    return [*words[:at], words[at + 1], words[at], *words[at + 2:]]
