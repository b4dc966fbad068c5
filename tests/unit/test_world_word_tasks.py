"""The micro world's tasks of words: right labels, no leaks, and classes that words alone do not tell."""

import itertools
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from finetrace.config.data import TaskSettings
from finetrace.config.world import WorldSettings
from finetrace.data.build import build_task
from finetrace.data.world import MICRO_TASKS, MICRO_WORD_TASKS, build_world, word_examples
from finetrace.data.world.lexicon import ACTIONS, ADJECTIVES, TOPICS

SPANS = {"token": 1, "span": 1, "span-pair": 2}


@pytest.fixture(scope="module")
def world():
    return build_world(WorldSettings(), seed=0)


@pytest.fixture(scope="module")
def examples(world):
    made = {name: word_examples(world, name, seed=0) for name in MICRO_WORD_TASKS}
    assert made and all(made.values()) and all(part for parts in made.values() for part in parts.values())
    return made


def sentences(part):
    return list(dict.fromkeys((e.sentence, e.words) for e in part))


def with_settings(world, **changes):
    return replace(world, settings=replace(world.settings, **changes))


@pytest.mark.parametrize("name", MICRO_WORD_TASKS)
def test_sizes_are_sentences_and_examples_of_one_stand_together(name, examples, world):
    sizes = (world.settings.train_sentences, world.settings.validation_sentences, world.settings.test_sentences)
    assert tuple(examples[name]) == MICRO_WORD_TASKS[name].splits == ("train", "validation", "test")
    for part, size in zip(examples[name].values(), sizes, strict=True):
        assert [number for number, _ in sentences(part)] == list(range(size))
        assert [e.sentence for e in part] == sorted(e.sentence for e in part)
        assert all(len(e.spans) == SPANS[MICRO_WORD_TASKS[name].kind] for e in part)
        assert all(0 <= start < end <= len(e.words) for e in part for start, end in e.spans)


@pytest.mark.parametrize("name", MICRO_WORD_TASKS)
def test_no_sentence_occurs_twice_in_or_across_splits(name, examples):
    everything = [words for part in examples[name].values() for _, words in sentences(part)]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("name", MICRO_WORD_TASKS)
def test_same_seed_same_examples_and_other_seed_others(name, examples, world):
    assert word_examples(world, name, seed=0) == examples[name]
    assert word_examples(world, name, seed=1)["test"] != examples[name]["test"]


@pytest.mark.parametrize("name", MICRO_WORD_TASKS)
def test_classes_are_among_those_declared_and_the_frequent_ones_occur_in_all_splits(name, examples):
    frequent = {"micro-pos": 10, "micro-dep": 12, "micro-role": 4, "micro-entities": 3, "micro-coref": 2,
                "micro-srl": 7}[name]
    known = [{e.label for e in part} for part in examples[name].values()]
    assert set.union(*known) <= set(MICRO_WORD_TASKS[name].label_names) and len(set.intersection(*known)) >= frequent


@pytest.mark.parametrize("name", MICRO_WORD_TASKS)
def test_all_words_are_known_to_the_pretrained_model_and_some_only_to_it(name, examples, world):
    shown = {split: {word for e in part for word in e.words} for split, part in examples[name].items()}
    assert set.union(*shown.values()) <= set(world.vocabulary)
    content = {word for part in ADJECTIVES.values() for words in part.values() for word in words}
    content |= {word for topic in TOPICS.values() for kind in ("verbs", "nouns") for word in topic[kind]}
    # Training may show two in five; evaluation, of which there is less, has others.
    assert len(content & shown["train"]) <= 0.5 * len(content)
    assert len(content & (shown["validation"] | shown["test"]) - shown["train"]) >= 10


def test_with_all_words_seen_training_shows_more(world, examples):
    opened = word_examples(with_settings(world, seen_share=1.0), "micro-pos", seed=0)
    every, some = sentences(opened["train"]), sentences(examples["micro-pos"]["train"])
    assert len({w for _, words in every for w in words}) > len({w for _, words in some for w in words})
    assert [len(words) for _, words in every] == [len(words) for _, words in some], "unseen words give way to seen ones"


def test_no_word_is_joined_with_itself(world):
    narrow = with_settings(world, seen_share=0.3, train_sentences=600)
    train = [words for _, words in sentences(word_examples(narrow, "micro-pos", seed=0)["train"])]
    adjectives = {word for part in ADJECTIVES.values() for words in part.values() for word in words}
    joined = [words for words in train if "and" in words and words[-1] in adjectives]
    assert len(joined) > 5 and not any(words[-1] in words[:-1] for words in joined)


def test_every_word_has_its_part_of_speech(examples, world):
    tags = {word: tag for s in world.corpus for word, tag in zip(s.words, s.pos, strict=True)}
    for part in examples["micro-pos"].values():
        assert all(e.label == tags[e.words[e.spans[0][0]]] and e.spans[0][1] - e.spans[0][0] == 1 for e in part)
        assert Counter(e.sentence for e in part) == {number: len(words) for number, words in sentences(part)}


def test_relations_form_a_tree_whose_root_is_left_out(examples):
    for part in examples["micro-dep"].values():
        for number, words in sentences(part):
            heads = {e.spans[1][0]: e.spans[0][0] for e in part if e.sentence == number}
            assert len(heads) == len(words) - 1
            root, = set(range(len(words))) - set(heads)
            for word in range(len(words)):
                for _ in words:
                    word = heads.get(word, word)
                assert word == root


def test_relations_of_simple_sentences(examples):
    found = 0
    for e in (e for part in examples["micro-dep"].values() for e in part):
        head, dependent = (e.words[start] for start, _ in e.spans)
        if head in dict(ACTIONS) and "was" not in e.words and dependent[-1] in "ao" and e.label in ("nsubj", "obj"):
            found += 1
            assert (e.label == "nsubj") == (e.spans[1] < e.spans[0]), e
    assert found > 10


def test_the_order_of_a_pair_and_subtypes_are_settings(world, examples):
    turned = word_examples(world, "micro-dep", seed=0, order="dependent-head", subtypes=False)["test"]
    assert [e.spans[::-1] for e in turned] == [e.spans for e in examples["micro-dep"]["test"]]
    assert [e.label for e in turned] == [e.label.split(":")[0] for e in examples["micro-dep"]["test"]]


def test_roots_are_a_setting(world, examples):
    found = word_examples(world, "micro-dep", seed=0, order="dependent-head", roots=True)["test"]
    assert [e.spans[::-1] for e in found if e.label != "root"] == [e.spans for e in examples["micro-dep"]["test"]]
    for number, words in sentences(found):
        of = [e for e in found if e.sentence == number]
        assert [e.spans[0] for e in of] == [(i, i + 1) for i in range(len(words))]
        assert [e.spans[0] == e.spans[1] for e in of] == [e.label == "root" for e in of]
        assert sum(e.label == "root" for e in of) == 1


def test_entities_are_typed_by_their_words(examples, world):
    facts = {"LANG": {f.object for f in world.facts if f.relation == "speaks"}, "PER": set(world.lexicon.people)}
    for part in examples["micro-entities"].values():
        for e in part:
            start, end = e.spans[0]
            if e.label == "EVENT":
                assert e.words[start] == "the" and e.words[end - 1] == "festival" and end - start == 3
            else:
                assert end - start == 1 and all((e.words[start] in words) == (kind == e.label)
                                                for kind, words in facts.items())
        assert all(a.spans[0][1] <= b.spans[0][0] for a, b in itertools.pairwise(part) if a.sentence == b.sentence)


def test_mentions_are_paired_once_and_equal_names_are_of_one_chain(examples, world):
    people, pronouns = set(world.lexicon.people), Counter()
    for part in examples["micro-coref"].values():
        for number, _ in sentences(part):
            pairs = [e.spans for e in part if e.sentence == number]
            mentions = sorted({span for pair in pairs for span in pair})
            assert pairs == list(itertools.combinations(mentions, 2)), "all pairs, by place, the first mention first"
        for e in part:
            one, other = (e.words[start] for start, _ in e.spans)
            if {one, other} <= people:
                assert (one == other) == (e.label == "1"), e
            if "he" in (one, other) or "she" in (one, other):
                pronouns[e.label] += 1
        chains = {(e.sentence, *pair): e.label == "1" for e in part for pair in (e.spans, e.spans[::-1])}
        assert all(chains[s, a, c] for (s, a, b), yes in chains.items() if yes
                   for (t, x, c), too in chains.items() if too and (s, b) == (t, x) and a != c), "chains are closed"
    assert min(pronouns.values()) >= 5


def test_roles_of_whole_phrases_belong_to_their_predicate(examples):
    seen = set()
    for part in examples["micro-srl"].values():
        for e in part:
            (verb, end), (start, stop) = e.spans
            assert end == verb + 1 and not start <= verb < stop, e
            if e.words[start] == "by":
                assert e.label == "ARG0" and "was" in e.words
                seen.add("agent")
            if e.label == "ARGM-NEG":
                assert e.words[start:stop] == ("never",)
                seen.add("never")
        for key in {(e.sentence, e.spans[0]) for e in part}:
            of = [e.label for e in part if (e.sentence, e.spans[0]) == key]
            assert all(of.count(role) == 1 for role in of if role in ("ARG0", "ARG1")), "each numbered role once"
    assert seen == {"agent", "never"}


def test_roles_of_active_and_passive_sentences(examples, world):
    verbs = {verb for pair in ACTIONS for verb in pair}
    people, seen = set(world.lexicon.people), Counter()
    for part in examples["micro-role"].values():
        for e in part:
            (start, end), words = e.spans[0], e.words
            clause = words[:next((i for i, w in enumerate(words) if w in ("so", "but", "and")), len(words))]
            if end > len(clause) or words[start] not in people or not verbs & set(clause) or "who" in clause:
                continue
            passive = "by" in clause
            expected = "ARG0" if (words[start - 1] == "by" if passive else start == 0) else "ARG1"
            assert e.label == expected, e
            seen[passive, e.label] += 1
    assert len(seen) == 4 and min(seen.values()) >= 3


def test_marked_phrases_are_names_and_pronouns_without_their_preposition(examples):
    for part in examples["micro-role"].values():
        assert not any(e.words[e.spans[0][0]] in ("by", "in", "to", "of", "as", "the", "a") for e in part)


@pytest.mark.parametrize(("name", "ceiling"),
                         [("micro-role", 0.65), ("micro-dep", 0.9), ("micro-pos", 0.97), ("micro-srl", 0.93),
                                               ("micro-coref", 0.97), ("micro-entities", 0.96)])
def test_facts_and_floor_of_the_built_task(name, ceiling, world, tmp_path):
    facts = build_task("mine", TaskSettings(source="micro", config=name), tmp_path, root=tmp_path, seed=0, world=world)
    assert facts["kind"] == MICRO_WORD_TASKS[name].kind and facts["spans"] == SPANS[facts["kind"]]
    assert facts["sentences"] == {"train": 200, "validation": 60, "test": 60}
    assert facts["label_names"] == sorted(facts["label_names"])
    assert facts["majority_accuracy"] < facts["bag_of_words_accuracy"] <= ceiling
    table = pq.read_table(tmp_path / "test.parquet")
    assert table["text_a"].to_pylist()[0] == " ".join(table["words"].to_pylist()[0])
    assert facts["origin"]["train"] == {"world": name}


def test_label_noise_changes_training_labels_only(world, examples):
    for name in MICRO_WORD_TASKS:
        noisy = word_examples(with_settings(world, label_noise=0.25), name, seed=0)
        assert noisy["validation"] == examples[name]["validation"] and noisy["test"] == examples[name]["test"]
        before, after = examples[name]["train"], noisy["train"]
        assert [replace(e, label="") for e in after] == [replace(e, label="") for e in before]
        assert sum(a.label != b.label for a, b in zip(after, before, strict=True)) == round(0.25 * len(before))


def test_too_many_sentences_for_a_small_world_are_an_error():
    settings = WorldSettings(people=16, cities=8, countries=3, languages=3, jobs=6, corpus_sentences=10, fact_share=1.0,
                             train_sentences=1000)
    with pytest.raises(ValueError, match=r"micro-pos: no 1000 different sentences found; lower world\.train_sentences"):
        word_examples(build_world(settings, 0), "micro-pos", 0)


def test_unknown_names_list_the_known(world):
    with pytest.raises(ValueError, match="unknown micro task of words 'micro-tag': choose one of micro-pos, micro-dep"):
        word_examples(world, "micro-tag", 0)
    assert not set(MICRO_TASKS) & set(MICRO_WORD_TASKS)
