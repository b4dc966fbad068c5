"""Tasks on two texts: paraphrase and inference."""

from __future__ import annotations

from finetrace.data.world.build import World
from finetrace.data.world.corpus import Dice
from finetrace.data.world.lexicon import DOMAINS, NEGATORS, TRAVELLERS
from finetrace.data.world.tasks_words import TaskWords

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2

PASSIVE_SHARE = 0.25
"""Share of statements about actions in the passive voice, in each of the two texts."""

NEGATED_SHARE = 0.3
"""Share of judgements and actions that are negated. With two of them, equality decides, and no word alone tells it."""


def paraphrase_row(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """Two statements about the same thing or people that mean the same (`label` 1) or do not (0)."""
    if dice.chance(0.6):
        return _paraphrase_opinion(words, dice, label)
    return _paraphrase_action(world, words, dice, label)


def _paraphrase_opinion(words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "the soup was not bad", "the soup was good". Needs the polarity of adjectives and the negation."""
    domain = dice.pick(tuple(DOMAINS))
    noun = dice.pick(DOMAINS[domain])
    polarity = dice.pick(("positive", "negative"))
    first, second = _two_judgements(words, dice, domain, polarity, polarity if label else _opposite(polarity))
    return f"the {noun} was {first}", f"the {noun} was {second}"


def _paraphrase_action(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "x helped y", "y was assisted by x".

    The two verbs always differ, and voice is free, so shared words say nothing about the label. Where it is 0, the
    verb is no synonym, or (a share of a tenth of the difficulty) it is one but the people have changed their roles.
    """
    person, person2 = dice.two(world.lexicon.people)
    synonyms = dice.pick(words.actions)
    verb, verb2 = dice.two(synonyms)
    first = _action(verb, person, person2, dice.chance(PASSIVE_SHARE))
    passive2 = dice.chance(PASSIVE_SHARE)
    if label:
        return first, _action(verb2, person, person2, passive2)
    if dice.chance(0.1 * world.settings.difficulty):
        return first, _action(verb2, person2, person, passive2)
    other = dice.pick([pair for pair in words.actions if pair != synonyms])
    return first, _action(dice.pick(other), person, person2, passive2)


def nli_row(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """A premise and a hypothesis that it entails (`label` 0), leaves open (1) or contradicts (2)."""
    shape = dice.uniform()
    if shape < 0.12 and label != NEUTRAL:
        return _nli_place(words, dice, label)
    if shape < 0.5:
        return _nli_action(world, words, dice, label)
    return _nli_opinion(words, dice, label)


def _nli_place(words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "the team went to fenton": was it in albonia? Needs the country of the city."""
    city = dice.pick(words.cities)
    country = words.home[city]
    inside = dice.chance(0.5)
    if not inside:
        # The home of another city, not any country: else large countries would tell of a match.
        homes = [words.home[other] for other in words.cities] + list(words.home.values())
        country = dice.pick([home for home in homes if home != country])
    truth = "surely" if inside == (label == ENTAILMENT) else "never"
    return f"the {dice.pick(TRAVELLERS)} {dice.pick(('was in', 'went to'))} {city}", f"it was {truth} in {country}"


def _nli_action(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "x never helped y": was y assisted by x? Needs synonyms and the negation."""
    person, person2 = dice.two(world.lexicon.people)
    synonyms = dice.pick(words.actions)
    verb, verb2 = dice.two(synonyms)
    negated = dice.chance(NEGATED_SHARE)
    negated2 = negated if label == ENTAILMENT else not negated
    if label == NEUTRAL:
        verb2 = dice.pick(dice.pick([pair for pair in words.actions if pair != synonyms]))
        negated2 = dice.chance(0.5)
    first = _action(verb, person, person2, dice.chance(PASSIVE_SHARE), negated)
    return first, _action(verb2, person, person2, dice.chance(PASSIVE_SHARE), negated2)


def _nli_opinion(words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "the soup was not bad": was it good? Needs the polarity of adjectives, if they have one, and the negation."""
    domain = dice.pick(tuple(DOMAINS))
    noun = dice.pick(DOMAINS[domain])
    polarity = dice.pick(("positive", "negative"))
    entailed = label == ENTAILMENT
    first, second = _two_judgements(words, dice, domain, polarity, polarity if entailed else _opposite(polarity))
    if label == NEUTRAL:
        negator = f"{dice.pick(NEGATORS)} " if dice.chance(NEGATED_SHARE) else ""
        second = negator + dice.pick(words.neutral)
        if dice.chance(0.5):
            first, second = second, first
    return f"the {noun} was {first}", f"the {noun} was {second}"


def _action(verb: str, subject: str, object_: str, passive: bool, negated: bool = False) -> str:
    never = "never " if negated else ""
    return f"{object_} was {never}{verb} by {subject}" if passive else f"{subject} {never}{verb} {object_}"


def _two_judgements(words: TaskWords, dice: Dice, domain: str, polarity: str, polarity2: str) -> tuple[str, str]:
    """Two different judgements of the given polarities."""
    first = second = _judgement(words, dice, domain, polarity)
    while second == first:
        second = _judgement(words, dice, domain, polarity2)
    return first, second


def _judgement(words: TaskWords, dice: Dice, domain: str, polarity: str) -> str:
    if dice.chance(NEGATED_SHARE):
        polarity, degree = _opposite(polarity), f"{dice.pick(NEGATORS)} "
    else:
        degree = ""
    return degree + dice.pick(words.adjectives["general"][polarity] + words.adjectives[domain][polarity])


def _opposite(polarity: str) -> str:
    return "negative" if polarity == "positive" else "positive"
