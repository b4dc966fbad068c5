"""Tasks of words in the language of the micro world, from the gold annotation of fresh sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finetrace.data.examples import Example, Span, relation_examples
from finetrace.data.world.build import World, named_rng
from finetrace.data.world.corpus import Dice, build_corpus
from finetrace.data.world.grammar import Sentence
from finetrace.data.world.tasks import TaskInfo
from finetrace.data.world.tasks_words import task_words

_ALL = ("train", "validation", "test")
_TAGS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "NOUN", "PRON", "PROPN", "PUNCT", "SCONJ", "VERB")
_RELATIONS = ("acl:relcl", "advcl", "advmod", "amod", "aux:pass", "case", "cc", "compound", "conj", "cop", "det",
              "mark", "nmod", "nmod:poss", "nsubj", "nsubj:pass", "obj", "obl", "obl:agent", "punct", "xcomp")
_ROLES = ("ARG0", "ARG1", "ARG2", "ARG4", "ARGM-DIR", "ARGM-LOC", "ARGM-MNR")
_ALL_ROLES = ("ARG0", "ARG1", "ARG2", "ARG4", "ARGM-ADV", "ARGM-DIR", "ARGM-LOC", "ARGM-MNR", "ARGM-NEG")
_ENTITIES = ("EVENT", "LANG", "LOC", "PER")

MICRO_WORD_TASKS: dict[str, TaskInfo] = {
    "micro-pos": TaskInfo("token", _TAGS, "accuracy", _ALL),
    "micro-dep": TaskInfo("span-pair", _RELATIONS, "accuracy", _ALL),
    "micro-role": TaskInfo("span", _ROLES, "accuracy", _ALL),
    "micro-entities": TaskInfo("span", _ENTITIES, "accuracy", _ALL),
    "micro-coref": TaskInfo("span-pair", ("0", "1"), "accuracy", _ALL),
    "micro-srl": TaskInfo("span-pair", _ALL_ROLES, "accuracy", _ALL),
}
"""Task name -> TaskInfo; classes are as frequent as the language has them,
and a rare one may occur in one split only."""

_ATTEMPTS_PER_SENTENCE = 50


def word_examples(world: World, name: str, seed: int, *, order: str = "head-dependent",
                  subtypes: bool = True, roots: bool = False) -> dict[str, list[Example]]:
    """Write all splits of one task of words.

    micro-pos: the part of speech of each word. micro-dep: the relation of each word to its head. micro-role: the
    semantic role of each phrase whose head is a name or a pronoun, marked without its preposition: any name can be
    agent or patient, and in the passive voice they change places, so that the words alone do not tell. micro-entities:
    the type of each name, of which an EVENT has several words. micro-coref: whether two mentions
    (names, and what else is mentioned more than once) are of the same person or thing, 1, or not, 0; all pairs of a
    sentence, the first mention first. micro-srl: the role of a whole phrase towards its predicate, which comes first.

    Sentences are made as the corpus is. None occurs twice, in one split or in two. In training sentences an adjective
    or a topic word outside the share `world.settings.seen_share` gives way to one of its class inside, so that
    sentences of all lengths are as frequent as elsewhere. `label_noise` changes labels of training examples.

    Args:
        world: where words and facts come from.
        name: a key of `MICRO_WORD_TASKS`.
        seed: any whole number from 0 on.
        order, subtypes: of micro-dep, as in `relation_examples`.
        roots: of micro-dep: whether roots are examples too, with themselves in the place of their head.

    Returns:
        Split name -> examples.
    """
    if name not in MICRO_WORD_TASKS:
        raise ValueError(f"unknown micro task of words {name!r}: choose one of {', '.join(MICRO_WORD_TASKS)}")
    settings = world.settings
    sizes = (settings.train_sentences, settings.validation_sentences, settings.test_sentences)
    replacements = _seen_of_class(world)
    written: set[tuple[str, ...]] = set()
    splits = {}
    for split, size in zip(_ALL, sizes, strict=True):
        rng = named_rng(seed, f"{name} {split}")
        splits[split] = _write_split(world, name, size, rng, replacements if split == "train" else {}, written,
                                     (order, subtypes, roots))
    if settings.label_noise:
        classes = sorted({e.label for e in splits["train"]})
        splits["train"] = _with_noise(splits["train"], settings.label_noise, classes, named_rng(seed, f"{name} noise"))
    return splits


def _write_split(world: World, name: str, size: int, rng: np.random.Generator,
                 replacements: dict[str, tuple[str, ...]], written: set[tuple[str, ...]],
                 relations: tuple[str, bool, bool],
                 ) -> list[Example]:
    examples: list[Example] = []
    batch = replace(world.settings, corpus_sentences=2 * size)
    dice = Dice(rng)
    number = tried = 0
    while True:
        for sentence in build_corpus(batch, world.lexicon, world.facts, rng):
            sentence = _with_seen_words(sentence, replacements, dice)
            if sentence.words in written:
                continue
            sentence_examples = _examples(sentence, name, number, relations)
            if sentence_examples:
                written.add(sentence.words)
                examples += sentence_examples
                number += 1
            if number == size:
                return examples
        tried += batch.corpus_sentences
        if tried > _ATTEMPTS_PER_SENTENCE * size:
            raise ValueError(f"{name}: no {size} different sentences found; lower world.train_sentences, "
                             "world.validation_sentences or world.test_sentences, or raise world.people")


def _examples(sentence: Sentence, name: str, number: int, relations: tuple[str, bool, bool]) -> list[Example]:
    """relations: order, subtypes and roots of micro-dep."""
    words, place = sentence.words, f"{name} sentence {number}"
    if name == "micro-pos":
        return [Example(words, ((i, i + 1),), tag, number, place) for i, tag in enumerate(sentence.pos)]
    if name == "micro-dep":
        order, subtypes, roots = relations
        arcs = [(i, head - 1 if head else i, relation, place) for i, (head, relation)
                in enumerate(zip(sentence.heads, sentence.deprels, strict=True)) if head or roots]
        return relation_examples(words, arcs, number, order=order, subtypes=subtypes)
    if name == "micro-entities":
        return [Example(words, ((start, end),), kind, number, place) for start, end, kind in sentence.entities]
    if name == "micro-coref":
        return [Example(words, pair, label, number, place) for pair, label in _mention_pairs(sentence)]
    if name == "micro-srl":
        return [Example(words, ((predicate, predicate + 1), (start, end)), role, number, place)
                for predicate, start, end, role in sentence.roles]
    examples = []
    for _, start, end, role in sentence.roles:
        start += sentence.pos[start] == "ADP"
        head = next(i for i in range(start, end) if not start <= sentence.heads[i] - 1 < end)
        if sentence.pos[head] in ("PROPN", "PRON"):
            examples.append(Example(words, ((start, end),), role, number, place))
    return sorted(examples, key=lambda e: e.spans)


def _mention_pairs(sentence: Sentence) -> list[tuple[tuple[Span, Span], str]]:
    """Spans of each pair of mentions, by place, with "1" where both are of one chain and "0" elsewhere."""
    chain_of: dict[Span, int] = {span: i for i, chain in enumerate(sentence.coref) for span in chain}
    mentions = sorted({*chain_of, *((start, end) for start, end, _ in sentence.entities)})
    return [((first, second), str(int(first in chain_of and chain_of[first] == chain_of.get(second))))
            for i, first in enumerate(mentions) for second in mentions[i + 1:]]


def _seen_of_class(world: World) -> dict[str, tuple[str, ...]]:
    """Word that training sentences may not show -> those of its class that they may."""
    all_words, seen_words = task_words(world, seen_only=False), task_words(world, seen_only=True)
    classes = [(all_words.neutral, seen_words.neutral)]
    classes += [(words, seen_words.adjectives[domain][polarity]) for domain, polarities in all_words.adjectives.items()
                for polarity, words in polarities.items()]
    classes += [(words, seen_words.topics[topic][kind]) for topic, kinds in all_words.topics.items()
                for kind, words in kinds.items()]
    return {word: part for words, part in classes for word in words if word not in part}


def _with_seen_words(sentence: Sentence, replacements: dict[str, tuple[str, ...]], dice: Dice) -> Sentence:
    words = list(sentence.words)
    for i, word in enumerate(words):
        if word in replacements:  # never one that stands there already, as in "good and good"
            words[i] = dice.pick([other for other in replacements[word] if other not in words])
    return replace(sentence, words=tuple(words))


def _with_noise(examples: list[Example], share: float, classes: list[str], rng: np.random.Generator) -> list[Example]:
    """Give a share of the examples another label, every other class being equally likely."""
    noisy = list(examples)
    chosen = rng.permutation(len(examples))[: round(share * len(examples))]
    for i, shift in zip(chosen.tolist(), rng.integers(1, len(classes), len(chosen)).tolist(), strict=True):
        label = classes[(classes.index(examples[i].label) + shift) % len(classes)]
        noisy[i] = replace(examples[i], label=label)
    return noisy
