"""Corpora: texts from files, cleaned and counted, and the texts of folders in data."""

import json

import pytest
from tests.hidden_outputs import load_script
from tests.lama_files import BORN, CAPITAL, folder
from tests.stages import ask_study, stage_of

from finetrace.config.base import parse
from finetrace.config.corpora import CorpusSettings
from finetrace.config.facts import FactFilesSettings
from finetrace.data import corpus
from finetrace.data.corpus import build_corpus, clean_texts, corpus_texts
from finetrace.data.facts import file_facts
from finetrace.errors import FinetraceError
from finetrace.pipeline.stage import AlreadyThere
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import write_table


def build(root, seed=0, held_out_seed=0, **settings):
    """Facts and texts of a corpus."""
    facts = build_corpus("c", parse(CorpusSettings, {"path": "texts", **settings}, "p"), root / "out", root=root,
                         seed=seed, held_out_seed=held_out_seed)
    return facts, corpus_texts(root / "out")


def write(root, **files):
    for name, text in files.items():
        path = root / "texts" / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return root


def test_lines_of_files_in_the_order_of_their_names(tmp_path):
    root = write(tmp_path, b_txt="five  little words\there now\n\n \none\r\nagain\n", a_txt="﻿first\nagain",
                 c_md="not this")
    facts, texts = build(root)
    assert texts == ["first", "again", "five little words here now", "one"]
    assert facts == {"texts": 4, "words": 8, "characters": 39, "files": 2, "left_out": {"empty": 2, "duplicate": 1}}
    assert build(root, deduplicate=False)[1].count("again") == 2
    assert build(root, min_words=2)[0]["left_out"] == {"empty": 2, "under min_words": 4}
    assert build(root, path="texts/a.txt", lowercase=True)[1] == ["first", "again"]


def test_paragraphs_and_documents(tmp_path):
    root = write(tmp_path, a_txt="One\ntwo \n\n \nThree\n", b_txt="\n\nFour\n")
    assert build(root, unit="paragraph")[1] == ["One two", "Three", "Four"]
    assert build(root, unit="document")[1] == ["One\ntwo\n\n\nThree", "Four"]
    assert build(root, unit="document", lowercase=True, strip=["T"])[1][0] == "one\ntwo\n\n\nhree"


def test_running_text_and_sentences_of_lama_in_one_corpus(tmp_path):
    row = {"masked_sentences": ["The capital is [MASK] ."], "obj_label": "Baku", "sub_label": "x"}
    root = write(tmp_path, a_txt="plain text\n", Squad__test_jsonl=json.dumps(row) + "\n")
    assert build(root, format="text+lama")[1] == ["plain text", "The capital is Baku ."]


def test_files_are_chosen_by_patterns_each_once(tmp_path):
    root = write(tmp_path, a_txt="a", b_txt="b", PROVENANCE_txt="p", sub__c_txt="c")
    assert build(root, files=["*.txt", "!PROVENANCE.txt"])[1] == ["a", "b"]
    assert build(root, files=["b.txt", "*.txt"])[1] == ["b", "p", "a"]
    assert build(root, files=["**/*.txt", "!P*"])[1] == ["a", "b", "c"]
    with pytest.raises(FinetraceError, match=r"corpora\.c: no file in .*texts is called \*\.md; it has "
                                             r"PROVENANCE\.txt, a\.txt"):
        build(root, files=["*.md"])
    with pytest.raises(FinetraceError, match=r"has no file called \*\.jsonl; it has .*; set `files`"):
        build(root, format="jsonl", field="text")
    with pytest.raises(FinetraceError, match=r"path is one file, so `files` cannot choose"):
        build(root, path="texts/a.txt", files=["*.txt"])
    with pytest.raises(FinetraceError, match=r"corpora\.c: nowhere: no such file or folder"):
        build(root, path="nowhere")


def test_marks_are_removed_before_duplicates_are_looked_for(tmp_path):
    rows = ["a (<< EMP >>) of [[ AR ]].", "a (EMP) of << AR >>.", "other"]
    root = write(tmp_path, t_jsonl="".join(json.dumps({"text": row}) + "\n" for row in rows))
    for strip, first in ((["<< ", " >>", "[[ ", " ]]"], "a (EMP) of AR."),
                         (["<<", ">>", "[[", "]]"], "a ( EMP ) of AR .")):
        facts, texts = build(root, format="jsonl", field="text", strip=strip)
        assert texts == [first, "other"] and facts["left_out"] == {"duplicate": 1}
    assert len(build(root, format="jsonl", field="text")[1]) == 3


def test_clean_texts_is_what_tasks_need():
    assert clean_texts(["a  b", "", "a b", " ", "ab"]) == ["a b", "ab"]
    assert clean_texts(["a", "a"], deduplicate=False) == ["a", "a"]
    assert clean_texts(["(<< x >>) y", "(x) [[ y ]]"], ("<< ", " >>", "[[ ", " ]]")) == ["(x) y"]


def test_max_texts_chooses_among_what_is_left_by_seed(tmp_path, monkeypatch):
    root = write(tmp_path, a_txt="".join(f"text {i}\ntext {i}\n\n" for i in range(50)))
    monkeypatch.setattr(corpus, "CHUNK", 7)
    facts, chosen = build(root, max_texts=20)
    everything = build(root)[1]
    assert len(everything) == 50 and everything == [f"text {i}" for i in range(50)], "chunks keep the order"
    assert facts["texts"] == len(chosen) == 20 and facts["left_out"] == {"empty": 50, "duplicate": 50,
                                                                         "over max_texts": 30}
    assert chosen == sorted(chosen, key=everything.index) and chosen != everything[:20]
    assert chosen == build(root, max_texts=20)[1] != build(root, seed=1, max_texts=20)[1]
    assert build(root, max_texts=50)[1] == everything


def test_evidence_of_lama_with_the_object_put_back(tmp_path):
    evidences = [{"obj_surface": "the city", "masked_sentence": "In [MASK] ; [MASK] !"},
                 {"masked_sentence": "See [MASK]."}]
    root = folder(tmp_path, TREx__P36=[CAPITAL | {"evidences": evidences}, {"sub_label": "x", "obj_label": "y"}],
                  TREx__P19=None)
    facts, texts = build(root, path="lama", format="lama")
    assert texts == ["In the city ; the city !", "See Baku.", "Ada was born in London. She wrote.",
                     "A dog is an animal.", "It was gold."]
    assert facts["left_out"] == {"no sentence": 1} and facts["files"] == 4
    assert build(root, path="lama", format="lama", files=["Squad/*.jsonl"])[1] == ["It was gold."]
    root = folder(tmp_path, Squad__test=[{"masked_sentences": ["[MASK]"]}])
    with pytest.raises(FinetraceError, match=r"test\.jsonl line 1: key 'obj_label' holds None; give the object"):
        build(root, path="lama", format="lama")


def test_sentences_of_held_out_facts_are_left_out_and_the_questions_agree(tmp_path):
    def row(i, **more):
        return CAPITAL | {"uuid": f"u{i}", "sub_label": f"Land {i}", "obj_label": f"City {i}",
                          "evidences": [{"masked_sentence": f"Land {i} has its capital in [MASK]."}]} | more

    shared = {"masked_sentence": "[MASK] and City 1 are capitals.", "obj_surface": "City 0"}
    rows = [row(i) for i in range(300)] + [row(900, evidences=[shared]), row(901, evidences=[shared])]
    again = {"sub_label": "LAND 7", "obj_label": "city 7", "masked_sentences": ["Others say so of [MASK]."]}
    root = folder(tmp_path, TREx__P36=rows, TREx__P19=None, Google_RE__place_of_birth_test=[BORN | again])
    texts = {}
    for seed in (5, 6):
        settings = parse(FactFilesSettings, {"path": "lama", "corpora": ["TREx", "Google_RE"], "held_out": 0.25}, "p")
        facts = {fact.subject: fact.held_out for fact in file_facts(settings, root, 0, seed)[0]}
        counts, texts[seed] = build(root, path="lama", format="lama", held_out=0.25, held_out_seed=seed)
        for i in range(300):
            assert (f"Land {i} has its capital in City {i}." in texts[seed]) != facts[f"Land {i}"]
        assert ("City 0 and City 1 are capitals." in texts[seed]) != (facts["Land 900"] or facts["Land 901"])
        assert ("Others say so of city 7." in texts[seed]) != facts["Land 7"] == facts["LAND 7"]
        assert 50 < counts["left_out"]["of a held-out fact"] < 100 and 0.18 < sum(facts.values()) / len(facts) < 0.32
    assert texts[5] != texts[6]
    assert len(build(root, path="lama", format="lama")[1]) == 304


@pytest.mark.parametrize(("files", "settings", "message"), [
    ({"a_txt": b"fine\nna\xefve\n"}, {},
     r"a\.txt line 2: byte 7 is not utf-8; convert the file to UTF-8 or set `encoding`"),
    ({"a_txt": "x"}, {"encoding": "klingon"}, r"encoding 'klingon' is not known"),
    ({"a_txt": b"\xff"}, {"unit": "document"}, r"a\.txt line 1: byte 0 is not utf-8"),
    ({"a_txt": "\n \n"}, {}, r"corpora\.c: no text is left of 1 files \(2 empty\); look at files, field, unit and "
                             r"min_words"),
    ({"a_txt": ""}, {}, r"no text is left of 1 files \(the files are empty\)"),
    ({"a_txt": "one two\n"}, {"min_words": 3, "max_texts": 1}, r"no text is left of 1 files \(1 under min_words\)"),
    ({"a_jsonl": "{}\n"}, {"format": "jsonl", "field": "text"},
     r"a\.jsonl line 1: key 'text' is missing; its keys are"),
    ({"a_jsonl": '\n{"text": 1}\n'}, {"format": "jsonl", "field": "text"},
     r"a\.jsonl line 2: key 'text' holds '1', not a text"),
    ({"a_jsonl": "[]\n"}, {"format": "jsonl", "field": "text"}, r"line 1: key 'text' is missing; it is not an object"),
    ({"a_jsonl": "{\n"}, {"format": "jsonl", "field": "text"}, r"a\.jsonl line 1: not valid JSON"),
])
def test_bad_files_are_named_with_line_and_fix(tmp_path, files, settings, message):
    with pytest.raises(FinetraceError, match=message):
        build(write(tmp_path, **files), **settings)


def test_other_encodings(tmp_path):
    root = write(tmp_path, a_txt="naïve\n".encode("latin-1"))
    assert build(root, encoding="latin-1")[1] == ["naïve"]


@pytest.mark.parametrize(("settings", "message"), [
    ({"format": "jsonl"}, "field: name the key that holds the text"),
    ({"field": "x"}, "field: is for format: jsonl, not text"),
    ({"format": "lama", "unit": "line"}, "unit: is for format: text, not lama"),
    ({"files": ["../*"]}, "does not stay inside"),
    ({"files": ["/etc/*"]}, "does not stay inside"), ({"files": ["!a"]}, "files: name at least one pattern"),
    ({"strip": [""]}, "strip: an empty mark"), ({"max_texts": 0}, "max_texts: 0 is less than 1"),
    ({"held_out": 0.1}, "held_out: is about LAMA's facts, not for format: text"),
    ({"format": "lama", "held_out": 1.0}, r"held_out: 1\.0 is not in \[0, 1\)"),
    ({"min_words": 0}, "min_words: 0"), ({"path": ""}, "path: name the file")])
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(FinetraceError, match=message):
        parse(CorpusSettings, {"path": "texts", **settings}, "p")


def test_texts_of_a_task_are_distinct_and_second_texts_stand_by_themselves(tmp_path):
    write_table(tmp_path / "train.parquet", {"text_a": ["a", "b", "a", " "], "text_b": ["c", "a", None, "d"]})
    assert corpus_texts(tmp_path) == ["a", "c", "b", "d"]
    write_table(tmp_path / "corpus.parquet", {"text": ["x", "x"], "kind": ["fact", "fact"]})
    assert corpus_texts(tmp_path) == ["x", "x"], "a corpus is taken as it is"


def test_a_folder_without_texts_says_what_is_needed(tmp_path):
    with pytest.raises(FinetraceError, match=r"has neither corpus\.parquet nor train\.parquet; name the world, an "
                                             r"entry of"):
        corpus_texts(tmp_path)
    write_table(tmp_path / "corpus.parquet", {"text": []})
    with pytest.raises(FinetraceError, match="has no texts"):
        corpus_texts(tmp_path)


def test_the_stage_writes_texts_and_their_content(tmp_path):
    write(tmp_path, a_txt="one two\nthree\n")
    ask_study(tmp_path, {"study": {"name": "study"}, "corpora": {"plain": {"path": "texts"}}})
    script = load_script("corpus")
    script.main(stage_of(tmp_path, "corpus", "plain"))
    out = tmp_path / "data" / "plain"
    found = read_manifest(out)
    assert (found.kind, found.facts["texts"], found.facts["words"]) == ("data", 2,
                                                                        3) and list(found.inputs) == ["texts"]
    assert corpus_texts(out) == ["one two", "three"]
    with pytest.raises(FinetraceError, match=r"corpus/x\.json: not found, .* \(it asks for plain\)"):
        stage_of(tmp_path, "corpus", "x")
    with pytest.raises(AlreadyThere):
        script.main(stage_of(tmp_path, "corpus", "plain"))
    write(tmp_path, a_txt="one two\nthree four\n")
    script.main(stage_of(tmp_path, "corpus", "plain"))
    assert corpus_texts(out) == ["one two", "three four"]
