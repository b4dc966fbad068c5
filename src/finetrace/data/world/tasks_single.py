"""Tasks on one text: sentiment of a review line, topic of what somebody does."""

from __future__ import annotations

from finetrace.data.world.build import World
from finetrace.data.world.corpus import Dice
from finetrace.data.world.lexicon import DOMAINS, INTENSIFIERS, NEGATORS, TOPICS
from finetrace.data.world.tasks_words import TaskWords

_POLARITIES = ("negative", "positive")


def sentiment_row(world: World, words: TaskWords, dice: Dice, label: int, domain: str) -> tuple[str, None]:
    """A remark whose polarity is `label` (0 negative, 1 positive).

    Structured remarks negate the adjective or set two things against each other; the verdict is that of the main
    clause, or of the clause after "but". There every adjective goes with both labels equally often.
    """
    if dice.chance(1 - world.settings.difficulty):
        noun = dice.pick(DOMAINS[domain])
        return f"{_someone(world, dice)}the {noun} was {_plain(words, dice, domain, label)}", None
    noun, noun2 = dice.two(DOMAINS[domain])
    main = f"the {noun} was {_balanced(words, dice, domain, label)}"
    shape = dice.uniform()
    if shape < 0.4:
        return _someone(world, dice) + main, None
    other = f"the {noun2} was {_balanced(words, dice, domain, 1 - label)}"
    if shape < 0.7:
        return f"{other} but {main}", None
    return (f"{main} although {other}" if shape < 0.85 else f"although {other} , {main}"), None


def topic_row(world: World, words: TaskWords, dice: Dice, label: int) -> tuple[str, None]:
    """A sentence whose main clause is about topic number `label`.

    Structured sentences have a clause about another topic besides; or the main clause says only that somebody did
    his or her job, and the topic is that of the job which the corpus states for that person.
    """
    names = list(TOPICS)
    topic = names[label]
    other = dice.pick([name for name in names if name != topic])
    person, person2 = dice.two(world.lexicon.people)
    if words.employed[topic] and dice.chance(0.1):
        person = dice.pick(words.employed[topic])
        deed = f"did {'her' if world.lexicon.gender[person] == 'f' else 'his'} job"
    else:
        deed = _deed(words, dice, topic)
    if dice.chance(1 - world.settings.difficulty):
        return f"{person} {deed} while {person2} thanked {dice.pick(world.lexicon.people)}", None
    side = _deed(words, dice, other)
    shape = dice.uniform()
    if shape < 0.25:
        return f"{person} , who {side} , {deed}", None
    connective = dice.pick(("although", "while"))
    if shape < 0.65:
        return f"{connective} {person2} {side} , {person} {deed}", None
    return f"{person} {deed} {connective} {person2} {side}", None


def _someone(world: World, dice: Dice) -> str:
    """Nothing, or who thinks so; names make rows of few words differ."""
    return f"{dice.pick(world.lexicon.people)} writes " if dice.chance(0.7) else ""


def _adjective(words: TaskWords, dice: Dice, domain: str, label: int) -> str:
    polarity = _POLARITIES[label]
    return dice.pick(words.adjectives["general"][polarity] + words.adjectives[domain][polarity])


def _plain(words: TaskWords, dice: Dice, domain: str, label: int) -> str:
    degree = f"{dice.pick(INTENSIFIERS)} " if dice.chance(0.5) else ""
    return degree + _adjective(words, dice, domain, label)


def _balanced(words: TaskWords, dice: Dice, domain: str, label: int) -> str:
    """An adjective phrase of this polarity, as often a negated opposite as not."""
    if dice.chance(0.5):
        return f"{dice.pick(NEGATORS)} {_adjective(words, dice, domain, 1 - label)}"
    return _plain(words, dice, domain, label)


def _deed(words: TaskWords, dice: Dice, topic: str) -> str:
    return f"{dice.pick(words.topics[topic]['verbs'])} the {dice.pick(words.topics[topic]['nouns'])}"
