"""Facts as cloze questions: the filters, by hand, and the stage."""

import json
from collections import Counter

import numpy as np
import pytest
from tests.hidden_outputs import load_script
from tests.lama_files import BORN, CAPITAL, RELATIONS, folder
from tests.stages import ask_study, stage_of

from finetrace.config.base import parse
from finetrace.config.facts import FactFilesSettings, FactsSettings
from finetrace.data.facts import Fact, file_facts, filled, unique_ids, world_facts
from finetrace.errors import FinetraceError
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table, write_table


def facts_of(root, **settings):
    return file_facts(parse(FactFilesSettings, {"path": "lama", **settings}, "p"), root, 0)


def born(number: int, subject: str = "Ada", answer: str = "London", **more):
    return BORN | {"uuid": f"g{number}", "sub_label": subject, "obj_label": answer} | more


def google(root, *rows, **settings):
    return facts_of(folder(root, Google_RE__place_of_birth_test=list(rows)), corpora=["Google_RE"], **settings)


def test_the_worked_example(tmp_path):
    """As in the notes of LAMA's pipeline: labels in lower case, the template as it is."""
    (fact,), _ = facts_of(folder(tmp_path), relations=["P36"], lowercase=True)
    assert fact == Fact("u1", "TREx", "P36", "1-1", "azerbaijan", "baku", ("The capital of azerbaijan is [MASK] .",),
                        True)
    (fact,), _ = facts_of(tmp_path, relations=["P36"])
    assert (fact.subject, fact.object, fact.sentences) == ("Azerbaijan", "Baku",
                                                           ("The capital of Azerbaijan is [MASK] .",))


def test_a_subject_that_looks_like_a_slot_stays_as_it_is():
    assert filled("[X] is [Y] .", "The [Y] and [X]") == "The [Y] and [X] is [MASK] ."
    assert filled("[Y] is of [X]", "x") == "[MASK] is of x"


def test_filters_count_what_they_leave_out_in_their_order(tmp_path):
    no = [{"judgment": "no"}, {"judgment": "no"}, {"judgment": "yes"}, {"judgment": "skip"}]
    rows = [born(1), born(2), born(3, "Bo"), born(4, "Cy", judgments=no), born(5, "Cy"), born(6, "Di", obj_label=None),
            born(7, sub_label="  "), born(8, "Ed", judgments=[{"judgment": "no"}, {"judgment": "yes"}])]
    found, counts = google(tmp_path, *rows)
    assert [fact.fact_id for fact in found] == ["g1", "g3", "g5", "g8"], "the first of a pair; judged ones do not count"
    assert counts["relations"]["Google_RE/place_of_birth"] == {
        "type": "", "rows": 8, "facts": 4, "several_masks": 0,
        "left_out": {"repeated pair": 1, "judged wrong": 1, "no obj_label": 1, "no sub_label": 1}}
    assert counts["corpora"]["Google_RE"]["left_out"] == counts["relations"]["Google_RE/place_of_birth"]["left_out"]
    assert counts["facts"] == 4 and all(fact.templated and not fact.held_out and fact.candidates is None
                                        for fact in found)


def test_a_fact_stays_when_yes_is_not_outvoted_by_all_other_votes(tmp_path):
    """As LAMA counts: skip is a vote against."""
    votes = {"Ada": "yes skip skip", "Bo": "yes skip", "Cy": "no yes yes skip skip", "Di": "yes no yes skip"}
    rows = [born(number, name, judgments=[{"judgment": vote} for vote in votes[name].split()])
            for number, name in enumerate(votes)]
    found, _ = google(tmp_path, *rows)
    assert [fact.subject for fact in found] == ["Bo", "Di"]


def test_bertnesia_keeps_repeated_pairs_with_judgements(tmp_path):
    rows = [born(1), born(2), born(3, "Bo", judgments=None), born(4, "Bo", judgments=None)]
    assert [fact.fact_id for fact in google(tmp_path, *rows, lama_parity=True)[0]] == ["g1", "g2", "g3"]


def test_pairs_are_compared_as_written_unless_lower_case_is_asked_for(tmp_path):
    assert len(google(tmp_path, born(1), born(2, "ADA"))[0]) == 2
    assert len(google(tmp_path, born(1), born(2, "ADA"), lowercase=True)[0]) == 1


def test_sentences_instead_of_templates_repeat_pairs_and_have_a_limit(tmp_path):
    long = {"masked_sentences": ["word " * 60 + "[MASK]", "word " * 40]}
    rows = [born(1), born(2), born(3, **long), born(4, masked_sentences=["w " * 99 + "[MASK]"]),
            born(5, masked_sentences=None)]
    found, counts = google(tmp_path, *rows, templates=False)
    assert [fact.fact_id for fact in found] == ["g1", "g2", "g4"]
    assert found[0].sentences == ("Ada was born in [MASK].", "She wrote.") and not found[0].templated
    assert counts["corpora"]["Google_RE"]["left_out"] == {"over max_words": 1, "no sentence": 1}
    assert len(google(tmp_path, *rows, templates=False, max_words=99)[0]) == 2
    assert len(google(tmp_path, *rows)[0]) == 1, "a template knows neither length nor sentences"


def test_the_first_evidence_that_is_short_enough_asks(tmp_path):
    evidences = [{"masked_sentence": "w " * 9 + "[MASK]"}, {"masked_sentence": "In [MASK] ."},
                 {"masked_sentence": "[MASK]"}]
    root = folder(tmp_path, TREx__P36=[CAPITAL | {"evidences": evidences}, CAPITAL | {"uuid": "u9", "evidences": []}])
    (fact,), counts = facts_of(root, relations=["P36"], templates=False, max_words=5)
    assert fact.sentences == ("In [MASK] .",) and counts["corpora"]["TREx"]["left_out"] == {"no sentence": 1}
    assert facts_of(root, relations=["P36"], templates=False, lowercase=True)[0][0].sentences[0].endswith("w [MASK]")


def test_several_masks_are_left_out_or_kept(tmp_path):
    two = {"masked_sentences": ["From [MASK].", "In [MASK] again."]}
    found, counts = google(tmp_path, born(1), born(2, **two), templates=False, several_masks="drop")
    assert len(found) == 1 and counts["corpora"]["Google_RE"]["left_out"] == {"several masks": 1}
    found, counts = google(tmp_path, born(1), born(2, **two), templates=False)
    assert len(found) == 2 and counts["corpora"]["Google_RE"]["several_masks"] == 1


def test_negated_and_misprimed_questions(tmp_path):
    cat = {"pred": "IsA", "sub_label": "cat", "obj_label": "pet", "masked_sentences": ["A cat is a [MASK]."],
           "masked_negations": ["A cat is not a [MASK]."], "masked_misprimed": ["Boat? A cat is a [MASK]."]}
    relations = [RELATIONS[0] | {"template_negated": "The capital of [X] is not [Y] ."}]
    root = folder(tmp_path, relations=relations,
                  ConceptNet__test=[cat, {k: v for k, v in cat.items() if "d_n" not in k}])
    found, _ = facts_of(root, wording="negated", corpora=["TREx", "Google_RE", "ConceptNet"])
    asked = {fact.corpus: fact.sentences[0] for fact in found}
    assert asked == {"TREx": "The capital of Azerbaijan is not [MASK] .", "Google_RE": "Ada was not born in [MASK] .",
                     "ConceptNet": "A cat is not a [MASK]."}
    _, counts = facts_of(root, wording="negated", corpora=["ConceptNet"])
    assert counts["corpora"]["ConceptNet"]["left_out"] == {"no negated sentence": 1}
    found, _ = facts_of(root, wording="misprimed", corpora=["ConceptNet"])
    assert [fact.sentences for fact in found] == [("Boat? A cat is a [MASK].",)] * 2
    with pytest.raises(FinetraceError, match=r"relation 'P36' has no key 'template_negated'; add it"):
        facts_of(folder(tmp_path), wording="negated")


def test_rows_of_conceptnet_without_sub_label_are_left_out_or_called_by_their_sub(tmp_path):
    row = {"pred": "IsA", "sub": "cat", "obj_label": "pet", "masked_sentences": ["[MASK]"]}
    root = folder(tmp_path, ConceptNet__test=[row])
    message = r"no fact of ConceptNet is left \(1 no sub_label\); the first row is .*test\.jsonl line 1; mend the rows"
    with pytest.raises(FinetraceError, match=message):
        facts_of(root)
    assert facts_of(root, corpora=["ConceptNet"], missing_subjects="sub")[0][0].subject == "cat"


def test_uhn_leaves_out_objects_in_the_subject_s_name(tmp_path):
    rows = [born(1, "Jack of London", "london"), born(2, "Apple Watch", "apple"), born(3, "Ada", "Oslo")]
    found, counts = google(tmp_path, *rows, uhn="strings")
    assert [fact.fact_id for fact in found] == ["g3"] and counts["corpora"]["Google_RE"]["left_out"] == {"object in "
                                                                                                         "subject": 2}


def test_max_facts_chooses_by_seed_and_keeps_the_order(tmp_path):
    rows = [born(i, f"Person {i}") for i in range(40)]
    settings = parse(FactFilesSettings, {"path": "lama", "corpora": ["Google_RE"], "max_facts": 10}, "p")
    root = folder(tmp_path, Google_RE__place_of_birth_test=rows)
    chosen = [[int(f.fact_id[1:]) for f in file_facts(settings, root, seed)[0]] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(len(c) == 10 and c == sorted(c) for c in chosen) and chosen[0] != list(range(10))
    assert file_facts(settings, root, 0)[1]["corpora"]["Google_RE"]["left_out"] == {"over max_facts": 30}


def test_ids_are_the_files_own_where_they_are_unique(tmp_path):
    facts = [Fact("", "c", "r", "", s, "o", ("[MASK]",), True) for s in ("a", "a", "b", "b", "d")]
    assert unique_ids(facts, ["u", "v", None, None, "c:r:b:o"]) == ["u", "v", "c:r:b:o#2", "c:r:b:o#3", "c:r:b:o"]
    assert unique_ids(facts, ["u", "u", None, "w", "u"]) == ["c:r:a:o", "c:r:a:o#2", "c:r:b:o", "w", "c:r:d:o"]
    found = unique_ids(facts * 20, [None] * 100)
    assert len(set(found)) == 100
    assert [fact.fact_id for fact in facts_of(folder(tmp_path))[0]] == ["u1", "u2", "g1", "c1", "s1"]


@pytest.mark.parametrize(("file", "change", "message"), [
    ("Squad__test", {"masked_sentences": ["No mask."]},
     r"Squad/test\.jsonl line 1: key 'masked_sentences': 'No mask\.' has no "
     r"\[MASK\]; put \[MASK\] where the object stood"),
    ("Squad__test", {"masked_sentences": "[MASK]"},
     r"key 'masked_sentences' holds '\[MASK\]'; give a list of sentences"),
    ("Squad__test", {"masked_sentences": ["[MASK]"] * 3}, r"key 'masked_sentences' has 3 sentences; give one or two"),
    ("Squad__test", {"obj_label": 7}, r"line 1: key 'obj_label' holds 7; give a text"),
    ("Google_RE__place_of_birth_test", {"judgments": ["yes"]}, r"line 1: key 'judgments' holds"),
    ("TREx__P36", {"evidences": [{"obj_surface": "x"}]},
     r"P36\.jsonl line 1: an entry of 'evidences' has no 'masked_sentence'; "
     "its keys are obj_surface"),
    ("TREx__P36", {"evidences": [{"masked_sentence": "x"}]}, r"key 'masked_sentence': 'x' has no \[MASK\]"),
    ("TREx__P36", {"evidences": "x"}, r"key 'evidences' holds 'x'; give a list of objects"),
])
def test_damaged_rows_are_named_with_file_line_key_and_fix(tmp_path, file, change, message):
    squad = {"sub_label": "Squad", "obj_label": "gold", "masked_sentences": ["It was [MASK]."]}
    whole = {"S": squad, "G": BORN, "T": CAPITAL}[file[0]]
    with pytest.raises(FinetraceError, match=message):
        facts_of(folder(tmp_path, **{file: [whole | change]}), templates=False)


@pytest.mark.parametrize(("settings", "message"), [
    ({"corpora": []}, "corpora: name at least one"), ({"corpora": ["Squad", "Squad"]}, "stands twice"),
    ({"corpora": ["TREx"], "files": {"Squad": "x"}}, r"files\.Squad: is not among `corpora`"),
    ({"path": ""}, "path: name the folder"), ({"relations": []}, "relations: name at least one"),
    ({"held_out": 1}, "held_out: 1.0 is not in"),
    ({"max_facts": 0}, "max_facts: 0 is less than 1"), ({"max_words": 0}, "max_words: 0 is less than 1")])
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(FinetraceError, match=message):
        parse(FactFilesSettings, {"path": "lama", **settings}, "p")


# --- the micro world, and the stage -------------------------------------------------------------------------------


def world_folder(path, world):
    """What facts are made of in the folder data/world."""
    path.mkdir(parents=True)
    write_table(path / "facts.parquet", {name: [getattr(f, name) for f in world.facts]
                                         for name in ("fact_id", "relation", "subject", "object", "held_out")})
    relations = {r: {"templates": world.templates[r], "candidates": list(world.candidates[r])} for r in world.templates}
    (path / "relations.json").write_text(json.dumps(relations))
    return path


def test_facts_of_the_world(tmp_path, micro):
    world = micro.world
    path = world_folder(tmp_path / "world", world)
    facts, counts = world_facts(path, FactsSettings())
    assert [f.fact_id for f in facts] == [f.fact_id for f in world.facts] and counts["facts"] == len(world.facts)
    assert [f.held_out for f in facts] == [f.held_out for f in world.facts] and 0 < counts["held_out"] < len(facts)
    kinds = {f.relation: f.relation_type for f in facts}
    assert kinds == {"born_in": "N-1", "works_as": "N-1", "speaks": "N-1", "located_in": "N-1", "capital_of": "1-1"}
    for fact in facts:
        (words,) = (sentence.split() for sentence in fact.sentences)
        assert words.count("[MASK]") == words.count(fact.subject) == 1 and not {"[X]", "[Y]", fact.object} & set(words)
        assert fact.object in fact.candidates and fact.templated
    said = {s.text for s in world.corpus if s.kind == "fact"}
    stated = [f for f in facts if f.sentences[0].replace("[MASK]", f.object) in said]
    assert stated and not any(f.held_out for f in stated), "some facts are stated just so, held-out ones never"
    every, counts = world_facts(path, FactsSettings(templates="all"))
    assert len(every) == counts["facts"] == sum(len(world.templates[f.relation]) for f in world.facts)
    assert len({f.fact_id for f in every}) == len(every) and len({f.sentences for f in every}) == len(every)
    assert Counter(f.fact_id.split("/")[0] for f in every)[facts[0].fact_id] == len(world.templates[facts[0].relation])


def test_a_world_that_is_not_there_names_its_stage(tmp_path):
    with pytest.raises(FinetraceError, match=r"relations\.json: not readable .*; run the stage that writes it \(dvc "
                                             r"repro"):
        world_facts(tmp_path, FactsSettings())


def test_the_stage_writes_a_table_and_its_content(tmp_path, micro):
    from tests.outputs import manifest

    from finetrace.store.manifest import complete

    complete(world_folder(tmp_path / "data" / "world", micro.world), manifest("world", "world", ""))
    root = folder(tmp_path, Squad__test=None)
    ask_study(root, {"study": {"name": "study"}, "facts": {"known": {}}, "fact_files": {"lama": {"path": "lama"}}})
    script = load_script("facts")
    for name in ("known", "lama"):
        script.main(stage_of(root, "facts", name))
        table, found = read_table(tmp_path / "data" / name / "facts.parquet"), read_manifest(tmp_path / "data" / name)
        assert table.column_names == list(Fact.__dataclass_fields__)
        assert [str(table.schema.field(c).type)
                for c in ("fact_id", "sentences", "templated", "held_out", "candidates")] == [
            "string", "list<element: string>", "bool", "bool", "list<element: string>"]
        assert found.kind == "data" and found.facts["facts"] == table.num_rows and len(found.inputs) == 1
    assert table["candidates"].null_count == table.num_rows and found.facts["corpora_without_files"] == ["Squad"]
    assert np.unique(table["fact_id"].to_pylist()).size == table.num_rows
    with pytest.raises(FinetraceError, match=r"facts/x\.json: not found, .* \(it asks for known, lama\)"):
        stage_of(root, "facts", "x")
