"""Tasks on two texts: paraphrase and inference."""

from __future__ import annotations

from finetrace.data.world.build import World
from finetrace.data.world.corpus import Dice
from finetrace.data.world.lexicon import DOMAINS, NEGATORS, TRAVELLERS
from finetrace.data.world.tasks_words import TaskWords

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2


def paraphrase_row(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """Two statements about the same people or thing that mean the same (`label` 1) or do not (0)."""
    shape = dice.uniform()
    if shape < 0.4:
        return _paraphrase_opinion(words, dice, label)
    if shape < 0.65:
        return _paraphrase_comparison(world, words, dice, label)
    return _paraphrase_action(world, words, dice, label)


def _paraphrase_opinion(words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "the soup was not bad", "the soup was good". Needs the polarity of adjectives and the negation."""
    domain = dice.pick(tuple(DOMAINS))
    noun = dice.pick(DOMAINS[domain])
    polarity = dice.pick(("positive", "negative"))
    first, second = _two_judgements(words, dice, domain, polarity, polarity if label else _opposite(polarity))
    return f"the {noun} was {first}", f"the {noun} was {second}"


def _paraphrase_comparison(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "x is taller than y", "y is shorter than x". Needs the converse of the word and who comes first."""
    person, person2 = dice.two(world.lexicon.people)
    pair = dice.pick(words.comparatives)
    word = dice.pick(pair)
    converse = pair[1 - pair.index(word)]
    first = f"{person} is {word} than {person2}"
    # Of the four ways to order people and words, two mean the same; half of these repeat the text.
    if dice.chance(0.5):
        return first, (f"{person2} is {converse} than {person}" if label else f"{person} is {converse} than {person2}")
    return first, (first if label else f"{person2} is {word} than {person}")


def _paraphrase_action(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "x helped y", "y was assisted by x".

    Shared words, verbs and voice say nothing about the label at difficulty 1: where it is 0, either the roles are
    swapped while all words stay, or the verb is another one while all roles stay.
    """
    person, person2 = dice.two(world.lexicon.people)
    synonyms = dice.pick(words.actions)
    verb, verb2 = dice.pick(synonyms), dice.pick(synonyms)
    passive = dice.chance(0.5)
    passive2 = not passive if verb2 == verb else dice.chance(0.5)
    first = _action(verb, person, person2, passive)
    if label:
        return first, _action(verb2, person, person2, passive2)
    if dice.chance(0.3 + 0.4 * world.settings.difficulty):
        return first, _action(verb2, person2, person, passive2)
    other = dice.pick([pair for pair in words.actions if pair != synonyms])
    return first, _action(dice.pick(other), person, person2, passive2)


def nli_row(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """A premise and a hypothesis that it entails (`label` 0), leaves open (1) or contradicts (2)."""
    shape = dice.uniform()
    if shape < 0.3:
        return _nli_place(world, words, dice, label)
    if shape < 0.6:
        return _nli_comparison(world, words, dice, label)
    if shape < 0.85:
        return _nli_action(world, words, dice, label)
    return _nli_opinion(words, dice, label)


_PLACE_CASES = {
    ENTAILMENT: (("down", True, False), ("down", True, False), ("down", False, True), ("up", False, True)),
    NEUTRAL: (("up", True, False), ("up", True, True)),
    CONTRADICTION: (("down", False, False), ("down", True, True), ("up", False, False)),
}
"""Label -> cases: "down" from city to country or "up" from country to city, whether the city lies in that country,
whether the hypothesis says "never". Every choice of direction and "never" has at least two labels."""


def _nli_place(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "the team was in fenton": was it in albonia? Needs the country of the city."""
    direction, inside, never = dice.pick(_PLACE_CASES[label])
    city = dice.pick(words.cities)
    country = words.home[city]
    if not inside:
        country = dice.pick([other for other in world.lexicon.countries if other != country])
    place, place2 = (city, country) if direction == "down" else (country, city)
    traveller = dice.pick(TRAVELLERS)
    return f"the {traveller} was in {place}", f"the {traveller} was {'never ' if never else ''}in {place2}"


def _nli_comparison(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "x is taller than y": is y shorter than x? Needs the converse of the word."""
    person, person2 = dice.two(world.lexicon.people)
    pair, other = dice.two(words.comparatives)
    word = dice.pick(pair)
    converse = pair[1 - pair.index(word)]
    first = f"{person} is {word} than {person2}"
    if label == ENTAILMENT:
        return first, f"{person2} is {converse} than {person}"
    if label == CONTRADICTION:
        return first, dice.pick((f"{person2} is {word} than {person}", f"{person} is {converse} than {person2}"))
    order = (person, person2) if dice.chance(0.5) else (person2, person)
    return first, f"{order[0]} is {dice.pick(other)} than {order[1]}"


def _nli_opinion(words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "the soup was not bad": was it good? Needs the polarity of adjectives and the negation."""
    domain = dice.pick(tuple(DOMAINS))
    noun, noun2 = dice.two(DOMAINS[domain])
    polarity = dice.pick(("positive", "negative"))
    same = dice.chance(0.5) if label == NEUTRAL else label == ENTAILMENT
    first, second = _two_judgements(words, dice, domain, polarity, polarity if same else _opposite(polarity))
    return f"the {noun} was {first}", f"the {noun2 if label == NEUTRAL else noun} was {second}"


def _nli_action(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, str]:
    """ "x helped y": was y assisted by x? Needs roles, synonyms and the negation."""
    person, person2 = dice.two(world.lexicon.people)
    synonyms = dice.pick(words.actions)
    verb, passive, negated = dice.pick(synonyms), dice.chance(0.5), dice.chance(0.5)
    verb2 = dice.pick(synonyms)
    passive2 = not passive if verb2 == verb else dice.chance(0.5)
    first = _action(verb, person, person2, passive, negated)
    if label == NEUTRAL:
        return first, _action(verb2, person2, person, passive2, dice.chance(0.5))
    return first, _action(verb2, person, person2, passive2, negated if label == ENTAILMENT else not negated)


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
    if dice.chance(0.5):
        polarity, degree = _opposite(polarity), f"{dice.pick(NEGATORS)} "
    else:
        degree = ""
    return degree + dice.pick(words.adjectives["general"][polarity] + words.adjectives[domain][polarity])


def _opposite(polarity: str) -> str:
    return "negative" if polarity == "positive" else "positive"
