"""The micro world: facts, gold annotation, corpus and tokenizer are right by construction."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import pytest

from finetrace.config.world import WorldSettings
from finetrace.data.world import build_tokenizer, build_world
from finetrace.data.world.facts import RELATIONS
from finetrace.data.world.grammar import make_sentence, parse_frame

SMALL = WorldSettings(corpus_sentences=4_000, train_rows=200, validation_rows=50, test_rows=50)


@pytest.fixture(scope="module")
def world():
    made = build_world(SMALL, seed=0)
    assert made.corpus and made.facts and made.templates  # what the tests loop over
    return made


@pytest.fixture(scope="module")
def tokenizer(world):
    return build_tokenizer(world)


def test_same_seed_same_world_and_other_seed_another(world):
    assert pickle.dumps(build_world(SMALL, seed=0)) == pickle.dumps(world)
    other = build_world(SMALL, seed=1)
    assert other.facts != world.facts
    assert other.corpus != world.corpus


def test_corpus_has_the_asked_size_and_share_of_facts(world):
    assert len(world.corpus) == SMALL.corpus_sentences
    share = sum(sentence.kind == "fact" for sentence in world.corpus) / len(world.corpus)
    # Standard error of a share near one half of 4,000 draws is 0.008.
    assert share == pytest.approx(SMALL.fact_share, abs=0.03)


def test_vocabulary_is_sorted_unique_and_exactly_the_words_of_the_corpus(world):
    assert world.vocabulary == sorted(set(world.vocabulary))
    assert set(world.vocabulary) == {word for sentence in world.corpus for word in sentence.words}


def test_sentences_are_short(world):
    assert max(len(sentence.words) for sentence in world.corpus) <= 14


def test_every_sentence_is_one_tree(world):
    for sentence in world.corpus:
        count = len(sentence.words)
        assert len(sentence.pos) == len(sentence.heads) == len(sentence.deprels) == count
        assert [i for i, head in enumerate(sentence.heads) if head == 0] == [sentence.deprels.index("root")]
        assert sentence.deprels.count("root") == 1
        assert "dep" not in sentence.deprels, f"a frame leaves a dependency unnamed: {sentence.text}"
        for word in range(count):
            at, steps = word, 0
            while sentence.heads[at]:
                at, steps = sentence.heads[at] - 1, steps + 1
                assert steps <= count, f"cycle in {sentence.text}"


def test_heads_do_not_cross(world):
    for sentence in {s.heads: s for s in world.corpus}.values():
        arcs = [(min(i, head - 1), max(i, head - 1)) for i, head in enumerate(sentence.heads) if head]
        assert arcs
        for low, high in arcs:
            assert not any(low < other_low < high < other_high for other_low, other_high in arcs), sentence.text


def test_spans_lie_inside_and_constituents_nest(world):
    for sentence in world.corpus:
        count = len(sentence.words)
        spans = [span[:2] for span in sentence.constituents + sentence.entities]
        spans += [span for chain in sentence.coref for span in chain] + [role[1:3] for role in sentence.roles]
        assert all(0 <= start < end <= count for start, end in spans)
        assert sentence.constituents[0] == (0, count, "S")
        for start, end, _ in sentence.constituents:
            for start2, end2, _ in sentence.constituents:
                assert not start < start2 < end < end2, f"crossing constituents in {sentence.text}"


def test_a_constituent_has_one_word_whose_head_lies_outside(world):
    for sentence in {s.constituents: s for s in world.corpus}.values():
        assert sentence.constituents
        for start, end, label in sentence.constituents:
            outside = [i for i in range(start, end) if not start < sentence.heads[i] <= end]
            assert len(outside) == 1, f"{label} {sentence.words[start:end]} is not a subtree"


def test_entities_are_exactly_the_names(world):
    lexicon = world.lexicon
    types = {**dict.fromkeys(lexicon.people, "PER"), **dict.fromkeys(lexicon.cities + lexicon.countries, "LOC")}
    types.update(dict.fromkeys(lexicon.languages, "LANG"))
    assert {label for s in world.corpus for *_, label in s.entities} == {"PER", "LOC", "LANG", "EVENT"}
    for sentence in world.corpus:
        covered = set()
        for start, end, label in sentence.entities:
            assert not covered & set(range(start, end)), "nested entities"
            covered |= set(range(start, end))
            if label == "EVENT":
                assert sentence.words[end - 1] == "festival"
            else:
                assert [types[word] for word in sentence.words[start:end]] == [label]
        assert {i for i, word in enumerate(sentence.words) if word in types} <= covered


def test_pronouns_agree_with_their_antecedents(world):
    gender = {"he": "m", "him": "m", "his": "m", "she": "f", "her": "f", "it": "n"}
    seen = Counter()
    for sentence in world.corpus:
        for chain in sentence.coref:
            assert len(chain) > 1
            words = [sentence.words[end - 1] for _, end in chain]
            genders = {gender.get(word) or world.lexicon.gender.get(word, "n") for word in words}
            assert len(genders) == 1, f"{words} in {sentence.text}"
            seen.update(word for word in words if word in gender)
            names = {word for word in words if word in world.lexicon.gender}
            assert len(names) <= 1, "one chain, one person"
        pronouns = [i for i, word in enumerate(sentence.words) if word in gender]
        mentioned = {start for chain in sentence.coref for start, _ in chain}
        assert set(pronouns) <= mentioned, f"a pronoun without antecedent in {sentence.text}"
    assert set(seen) == set(gender)


def test_personal_pronouns_are_unambiguous(world):
    met = 0
    for sentence in world.corpus:
        names = [word for word in set(sentence.words) if word in world.lexicon.gender]
        if len(names) > 1 and {"he", "she", "him", "her", "his"} & set(sentence.words):
            met += 1
            assert len({world.lexicon.gender[name] for name in names}) == len(names)
    assert met > 0


def test_roles_have_a_verb_as_predicate_outside_their_arguments(world):
    labels = set()
    for sentence in world.corpus:
        for predicate, start, end, role in sentence.roles:
            assert sentence.pos[predicate] in ("VERB", "AUX")
            assert not start <= predicate < end
            labels.add(role)
        by_predicate = Counter((predicate, role) for predicate, *_, role in sentence.roles)
        assert max(by_predicate.values()) == 1, f"a role given twice in {sentence.text}"
    assert {"ARG0", "ARG1", "ARG2", "ARGM-LOC", "ARGM-NEG"} <= labels


def test_passive_and_active_mean_the_same_roles(world):
    doubled = [s for s in world.corpus if s.kind == "action" and "so" in s.words]
    assert doubled
    for sentence in doubled:
        by_predicate: dict[int, dict[str, str]] = {}
        for predicate, start, end, role in sentence.roles:
            if role != "ARGM-NEG":
                by_predicate.setdefault(predicate, {})[role] = " ".join(sentence.words[start:end]).removeprefix("by ")
        assert len({tuple(sorted(roles.items())) for roles in by_predicate.values()}) == 1, sentence.text


def test_facts_have_one_word_objects_from_their_candidates(world):
    assert {fact.relation for fact in world.facts} == set(RELATIONS) == set(world.candidates) == set(world.templates)
    assert len({fact.fact_id for fact in world.facts}) == len(world.facts)
    for fact in world.facts:
        assert fact.object in world.candidates[fact.relation]
        assert fact.subject in world.vocabulary and fact.object in world.vocabulary
    assert all(len(set(words)) == len(words) for words in world.candidates.values())


def test_templates_name_subject_and_object_once(world):
    for templates in world.templates.values():
        assert len(templates) >= 3
        assert all(t.split().count("[X]") == 1 and t.split().count("[Y]") == 1 for t in templates)


def test_known_facts_are_stated_in_every_template(world):
    texts = {sentence.text for sentence in build_world(WorldSettings(), seed=0).corpus}
    stated = [
        any(t.replace("[X]", f.subject).replace("[Y]", f.object) in texts for t in world.templates[f.relation])
        for f in world.facts
        if not f.held_out
    ]
    assert all(stated)


def test_held_out_facts_are_absent_in_any_form(world):
    held_out = [fact for fact in world.facts if fact.held_out]
    assert {fact.relation for fact in held_out} == set(RELATIONS) - {"capital_of"}
    pairs = {(fact.subject, fact.object) for fact in held_out}
    stated = {fact_id for sentence in world.corpus for fact_id in sentence.fact_ids}
    assert not stated & {fact.fact_id for fact in held_out}
    for sentence in world.corpus:
        words = set(sentence.words)
        assert not any(subject in words and object_ in words for subject, object_ in pairs), sentence.text


def test_held_out_facts_cannot_be_inferred(world):
    """Nothing links the subject of a held-out fact to any word of the object's type, not even by absence."""
    capitals = {fact.object for fact in world.facts if fact.relation == "capital_of"}
    topics = set(world.lexicon.job_topic.values())
    held_out, mentioned = [fact for fact in world.facts if fact.held_out], 0
    assert held_out
    for fact in held_out:
        assert not (fact.relation == "located_in" and fact.subject in capitals), "a capital's country is no secret"
        same_type = set(world.candidates[fact.relation])
        for sentence in world.corpus:
            if fact.subject not in sentence.words:
                continue
            mentioned += 1
            others = same_type & set(sentence.words) - {fact.subject}
            if fact.relation == "located_in":
                assert not others, sentence.text
            else:
                assert not others or sentence.kind != "fact", sentence.text
            if fact.relation == "works_as" and "job" in sentence.words:
                assert not topics & set(sentence.words), "the topic of a held-out job"
    assert mentioned > 0


def test_held_out_share_is_per_relation(world):
    counts = Counter((fact.relation, fact.held_out) for fact in world.facts)
    assert counts["born_in", True] == counts["works_as", True] == counts["speaks", True] == 0.15 * 60
    assert not [fact for fact in build_world(replace(SMALL, held_out_share=0.0), 0).facts if fact.held_out]


def test_tokenizer_round_trip_and_word_ids(world, tokenizer):
    assert len(tokenizer) == len(world.vocabulary) + 5
    for sentence in world.corpus[:200]:
        encoded = tokenizer(sentence.text)
        assert tokenizer.unk_token_id not in encoded["input_ids"]
        assert encoded.word_ids() == [None, *range(len(sentence.words)), None]
        assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == sentence.text


def test_tokenizer_encodes_pairs_like_bert(tokenizer):
    encoded = tokenizer("the film was good", "the plot was bad")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == "[CLS] the film was good [SEP] the plot was bad [SEP]".split()
    assert encoded["token_type_ids"] == [0] * 6 + [1] * 5
    assert tokenizer("the [MASK] was unheard")["input_ids"].count(tokenizer.mask_token_id) == 1
    assert tokenizer("unheard")["input_ids"][1] == tokenizer.unk_token_id


def test_tokenizer_is_saved_and_read_as_an_ordinary_one(tokenizer, tmp_path):
    import transformers

    tokenizer.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast
    assert loaded.model_max_length == SMALL.max_tokens
    assert (loaded.mask_token, loaded.pad_token_id) == ("[MASK]", 0)
    text = ("the film was good", "the plot was bad")
    assert loaded(*text).data == tokenizer(*text).data


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("people", 81),
        ("people", 4),
        ("cities", 16),
        ("fact_share", 1.5),
        ("held_out_share", 0.9),
        ("label_noise", -0.1),
    ],
)
def test_bad_settings_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"world.{key} .*set it to"):
        WorldSettings(**{key: value})


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        build_world(SMALL, seed=-1)


def test_frame_notation_on_a_sentence_written_by_hand():
    sentence = make_sentence(
        "(S (NP:nsubj=ARG0#1 $person1/PROPN) *(VP *did/VERB! (NP:obj=ARG1 (NP:nmod:poss#1 $his_person1/PRON) "
        "*job/NOUN)))",
        {"person1": "ana"},
        {"ana": "f"},
        "topic",
    )
    assert sentence.text == "ana did her job"
    assert sentence.heads == (2, 0, 4, 2)
    assert sentence.deprels == ("nsubj", "root", "nmod:poss", "obj")
    assert sentence.constituents == ((0, 4, "S"), (0, 1, "NP"), (1, 4, "VP"), (2, 4, "NP"), (2, 3, "NP"))
    assert sentence.coref == (((0, 1), (2, 3)),)
    assert sentence.roles == ((1, 0, 1, "ARG0"), (1, 2, 4, "ARG1"))
    assert sentence.entities == ((0, 1, "PER"),)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("(S a/DET b/NOUN)", "has 0 heads"),
        ("(S (NP:nsubj=ARG0 a/NOUN) *b/VERB)", "predicate"),
        ("(S a/NOUN) b/NOUN", "closing bracket"),
        ("(S a)", "cannot read"),
    ],
)
def test_wrong_frames_are_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        parse_frame(frame)
