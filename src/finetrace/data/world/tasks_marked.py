"""Tasks of words in the language of the micro world, from the gold annotation of fresh sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finetrace.data.examples import Example, relation_examples
from finetrace.data.world.build import World, named_rng
from finetrace.data.world.corpus import Dice, build_corpus
from finetrace.data.world.grammar import Sentence
from finetrace.data.world.tasks import TaskInfo
from finetrace.data.world.tasks_words import task_words

_ALL = ("train", "validation", "test")
_TAGS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "NOUN", "PRON", "PROPN", "PUNCT", "SCONJ", "VERB")
_RELATIONS = ("acl:relcl", "advcl", "advmod", "amod", "aux:pass", "case", "cc", "compound", "conj", "cop", "det", "mark", "nmod",
              "nmod:poss", "nsubj", "nsubj:pass", "obj", "obl", "obl:agent", "punct", "xcomp")
_ROLES = ("ARG0", "ARG1", "ARG2", "ARG4", "ARGM-DIR", "ARGM-LOC", "ARGM-MNR")

MICRO_WORD_TASKS: dict[str, TaskInfo] = {
    "micro-pos": TaskInfo("token", _TAGS, "accuracy", _ALL),
    "micro-dep": TaskInfo("span-pair", _RELATIONS, "accuracy", _ALL),
    "micro-role": TaskInfo("span", _ROLES, "accuracy", _ALL),
}
"""Task name -> TaskInfo; classes are as frequent as the language has them, and a rare one may occur in one split only."""

_ATTEMPTS_PER_SENTENCE = 50


def word_examples(world: World, name: str, seed: int, *, order: str = "head-dependent",
                  subtypes: bool = True) -> dict[str, list[Example]]:
    """Write all splits of one task of words.

    micro-pos: the part of speech of each word. micro-dep: the relation of each word to its head. micro-role: the semantic role
    of each phrase whose head is a name or a pronoun, marked without its preposition: any name can be agent or patient, and in
    the passive voice they change places, so that the words alone do not tell.

    Sentences are made as the corpus is. None occurs twice, in one split or in two. In training sentences an adjective or a topic
    word outside the share `world.settings.seen_share` gives way to one of its class inside, so that sentences of all lengths are
    as frequent as elsewhere. `label_noise` changes labels of training examples.

    Args:
        world: where words and facts come from.
        name: a key of `MICRO_WORD_TASKS`.
        seed: any whole number from 0 on.
        order, subtypes: of micro-dep, as in `relation_examples`.

    Returns:
        Split name -> examples.
    """
    if name not in MICRO_WORD_TASKS:
        raise ValueError(f"unknown micro task of words {name!r}: choose one of {', '.join(MICRO_WORD_TASKS)}")
    settings = world.settings
    sizes = (settings.train_sentences, settings.validation_sentences, settings.test_sentences)
    seen = _seen_of_class(world)
    written: set[tuple[str, ...]] = set()
    splits = {}
    for split, size in zip(_ALL, sizes, strict=True):
        rng = named_rng(seed, f"{name} {split}")
        splits[split] = _write_split(world, name, size, rng, seen if split == "train" else {}, written, order, subtypes)
    if settings.label_noise:
        classes = sorted({e.label for e in splits["train"]})
        splits["train"] = _with_noise(splits["train"], settings.label_noise, classes, named_rng(seed, f"{name} noise"))
    return splits


def _write_split(world: World, name: str, size: int, rng: np.random.Generator,
                 seen: dict[str, tuple[str, ...]], written: set[tuple[str, ...]], order: str, subtypes: bool) -> list[Example]:
    examples: list[Example] = []
    batch = replace(world.settings, corpus_sentences=2 * size)
    dice = Dice(rng)
    number = tried = 0
    while True:
        for sentence in build_corpus(batch, world.lexicon, world.facts, rng):
            sentence = _with_seen_words(sentence, seen, dice)
            if sentence.words in written:
                continue
            made = _examples(sentence, name, number, order, subtypes)
            if made:
                written.add(sentence.words)
                examples += made
                number += 1
            if number == size:
                return examples
        tried += batch.corpus_sentences
        if tried > _ATTEMPTS_PER_SENTENCE * size:
            raise ValueError(f"{name}: no {size} different sentences found; lower world.train_sentences, "
                             "world.validation_sentences or world.test_sentences, or raise world.people")


def _examples(sentence: Sentence, name: str, number: int, order: str, subtypes: bool) -> list[Example]:
    words, place = sentence.words, f"{name} sentence {number}"
    if name == "micro-pos":
        return [Example(words, ((i, i + 1),), tag, number, place) for i, tag in enumerate(sentence.pos)]
    if name == "micro-dep":
        arcs = [(i, head - 1, relation, place) for i, (head, relation)
                in enumerate(zip(sentence.heads, sentence.deprels, strict=True)) if head]
        return relation_examples(words, arcs, number, order=order, subtypes=subtypes)
    examples = []
    for _, start, end, role in sentence.roles:
        start += sentence.pos[start] == "ADP"
        head = next(i for i in range(start, end) if not start <= sentence.heads[i] - 1 < end)
        if sentence.pos[head] in ("PROPN", "PRON"):
            examples.append(Example(words, ((start, end),), role, number, place))
    return sorted(examples, key=lambda e: e.spans)


def _seen_of_class(world: World) -> dict[str, tuple[str, ...]]:
    """Word that training sentences may not show -> those of its class that they may."""
    every, seen = task_words(world, seen_only=False), task_words(world, seen_only=True)
    classes = [(every.neutral, seen.neutral)]
    classes += [(words, seen.adjectives[domain][polarity]) for domain, polarities in every.adjectives.items()
                for polarity, words in polarities.items()]
    classes += [(words, seen.topics[topic][kind]) for topic, kinds in every.topics.items() for kind, words in kinds.items()]
    return {word: part for words, part in classes for word in words if word not in part}


def _with_seen_words(sentence: Sentence, seen: dict[str, tuple[str, ...]], dice: Dice) -> Sentence:
    words = list(sentence.words)
    for i, word in enumerate(words):
        if word in seen:  # never one that stands there already, as in "good and good"
            words[i] = dice.pick([other for other in seen[word] if other not in words])
    return replace(sentence, words=tuple(words))


def _with_noise(examples: list[Example], share: float, classes: list[str], rng: np.random.Generator) -> list[Example]:
    """Give a share of the examples another label, every other class being equally likely."""
    noisy = list(examples)
    chosen = rng.permutation(len(examples))[: round(share * len(examples))]
    for i, shift in zip(chosen.tolist(), rng.integers(1, len(classes), len(chosen)).tolist(), strict=True):
        label = classes[(classes.index(examples[i].label) + shift) % len(classes)]
        noisy[i] = replace(examples[i], label=label)
    return noisy
