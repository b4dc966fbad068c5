"""OntoNotes as formatted for CoNLL-2012: each label from hand-made sentences, folders, and what is refused."""

from pathlib import Path

import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.build import build_task
from finetrace.data.ontonotes import phrase_label, read_ontonotes, read_ontonotes_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError


def line(number, word, pos="NN", parse="*", ner="*", arguments=(), coref="-") -> str:
    return "   ".join(["bc/cctv/00/cctv_0001", "0", str(number), word, pos, parse, "-", "-", "-", "Speaker#1", ner,
                       *arguments, coref])


def document(*sentences: list[str]) -> str:
    middle = "".join("\n".join(rows) + "\n\n" for rows in sentences)
    return f"#begin document (bc/cctv/00/cctv_0001); part 000\n{middle}#end document\n"


IAN = [line(0, "Ian", "NNP", "(TOP(S(NP-SBJ*)", "(PERSON)", ["(ARG0*)"], "(3)"),
       line(1, "ate", "VBD", "(VP*", "*", ["(V*)"], "-"),
       line(2, "ice", "NN", "(NP=2*", "*", ["(ARG1*"], "(5"),
       line(3, "cream", "NN", "*))))", "*", ["*)"], "5)")]
# "She told him that her mother ( Ann ) left Rome": two predicates, nested mentions, brackets as words
SHE = [line(0, "She", "PRP", "(TOP(S(NP*)", "*", ["(ARG0*)", "*"], "(1)"),
       line(1, "told", "VBD", "(VP*", "*", ["(V*)", "*"]),
       line(2, "him", "PRP", "(NP*)", "*", ["(ARG2*)", "*"], "(0)"),
       line(3, "that", "IN", "(SBAR*", "*", ["(ARG1*", "*"]),
       line(4, "her", "PRP$", "(S(NP(NP*", "*", ["*", "(ARG0*"], "(2|(1)"),
       line(5, "mother", "NN", "*)", "*", ["*", "*"]),
       line(6, "-LRB-", "-LRB-", "(PRN*", "*", ["*", "*"]),
       line(7, "Ann", "NNP", "(NP*)", "(PERSON)", ["*", "*"]),
       line(8, "-RRB-", "-RRB-", "*))", "*", ["*", "*)"], "2)"),
       line(9, "left", "VBD", "(VP*", "*", ["*", "(V*)"]),
       line(10, "New", "NNP", "(NP*", "(GPE*", ["*", "(ARG1*"], "(1"),
       line(11, "York", "NNP", "*)))))))", "*)", ["*)", "*)"], "1)")]


def read(label, *sentences):
    return read_ontonotes(document(*sentences), "f.gold_conll", label)[0]


def shown(part):
    return [(*(" ".join(e.words[a:b]) for a, b in e.spans), e.label) for e in part.examples]


def test_the_published_example_of_roles():
    found = read("srl", IAN)
    assert [(e.spans, e.label) for e in found.examples] == [(((1, 2), (0, 1)), "ARG0"), (((1, 2), (2, 4)), "ARG1")]


def test_every_predicate_has_its_phrases():
    assert shown(read("srl", SHE)) == [
        ("told", "She", "ARG0"), ("told", "him", "ARG2"),
        ("told", "that her mother -LRB- Ann -RRB- left New York", "ARG1"),
        ("left", "her mother -LRB- Ann -RRB-", "ARG0"), ("left", "New York", "ARG1")]
    assert read("srl", [line(0, "No"), line(1, "verbs")]).examples == []


def test_predicates_without_a_verb_and_with_two_are_counted():
    rows = [line(0, "a", arguments=["(ARG0*)", "(V*)"]), line(1, "b", arguments=["*", "(C-ARG1*)"]),
            line(2, "c", arguments=["*", "(V*)"])]
    found = read("srl", rows)
    assert shown(found) == [("a", "b", "C-ARG1")]
    assert found.left_out == {"predicates without a verb's span": 1, "further verb spans of a predicate": 1}


def test_the_published_example_of_coreference():
    rows = [line(0, "A", coref="(3)"), line(1, "B", coref="(3)"), line(2, "C", coref="(5)")]
    assert shown(read("coref", rows)) == [("A", "B", "1"), ("A", "C", "0"), ("B", "C", "0")]


def test_mentions_stand_by_place_and_can_nest():
    assert shown(read("coref", SHE)) == [
        ("She", "him", "0"), ("She", "her", "1"), ("She", "her mother -LRB- Ann -RRB-", "0"), ("She", "New York", "1"),
        ("him", "her", "0"), ("him", "her mother -LRB- Ann -RRB-", "0"), ("him", "New York", "0"),
        ("her", "her mother -LRB- Ann -RRB-", "0"), ("her", "New York", "1"),
        ("her mother -LRB- Ann -RRB-", "New York", "0")]
    inner = [line(0, "a", coref="(1|(1"), line(1, "b", coref="1)"), line(2, "c", coref="1)")]
    assert shown(read("coref", inner)) == [("a b", "a b c", "1")]
    assert read("coref", [line(0, "one", coref="(3)"), line(1, "alone")]).examples == []


def test_entities():
    assert shown(read("ner", SHE, IAN)) == [("Ann", "PERSON"), ("New York", "GPE"), ("Ian", "PERSON")]


def test_parts_of_speech():
    assert shown(read("pos", IAN)) == [("Ian", "NNP"), ("ate", "VBD"), ("ice", "NN"), ("cream", "NN")]
    assert [e.label for e in read("pos", SHE).examples][4:9] == ["PRP$", "NN", "-LRB-", "NNP", "-RRB-"]


def test_constituents_are_phrases_and_words_and_nonterminals_phrases_only():
    phrases = [("Ian ate ice cream", "TOP"), ("Ian ate ice cream", "S"), ("Ian", "NP"), ("ate ice cream", "VP"),
               ("ice cream", "NP")]
    assert shown(read("nonterminals", IAN)) == phrases
    assert shown(read("constituents", IAN)) == [*phrases[:3], ("Ian", "NNP"), phrases[3], ("ate", "VBD"), phrases[4],
                                                ("ice", "NN"), ("cream", "NN")]
    she, tags = (shown(read(label, SHE)) for label in ("constituents", "pos"))
    assert sorted(she) == sorted([*shown(read("nonterminals", SHE)), *tags])
    assert ("-LRB- Ann -RRB-", "PRN") in she and ("her mother -LRB- Ann -RRB-", "NP") in she
    unparsed = [line(0, "x", parse="-"), line(1, "y", parse="-")]
    assert read("constituents", unparsed, IAN).left_out == {"sentences without a parse": 1}


@pytest.mark.parametrize(("tag", "label"), [
    ("NP-SBJ-1", "NP"), ("NP=2", "NP"), ("PRT|ADVP", "PRT"), ("-LRB-", "-LRB-"), ("WP-S", "WP-S"), ("PRP-S-2", "PRP-S"),
    ("S", "S"), ("TOP", "TOP"), ("PRP$", "PRP$"), (",", ","), ("``", "``")])
def test_labels_of_phrases_lose_their_functions(tag, label):
    assert phrase_label(tag) == label


def test_sentences_are_numbered_and_know_their_document():
    part, count = read_ontonotes(document([line(0, "x")], IAN, SHE), "f", "ner", first=10)
    assert count == 3 and [e.sentence for e in part.examples] == [11, 12, 12]
    assert part.examples[0].source_id == "bc/cctv/00/cctv_0001/0:11" and part.examples[0].place == "f line 4"
    text = document(IAN)
    for form in (text.replace("\n", "\r\n"), text.replace("   ", " "),
                 text.replace("#end document\n", "").rstrip("\n")):
        assert shown(read_ontonotes(form, "f", "srl")[0]) == shown(read("srl", IAN))


def folder(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / "onto" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "onto" / name).write_text(text)
    return root


def task(like="ep-ner", **values):
    return resolve("onto", parse(FilesTaskSettings, {"path": "onto", "like": like, **values},
                                 "params.yaml: task_files.onto"))


BELOW = "conll-formatted-ontonotes-5.0/data"
RELEASE = {f"{BELOW}/train/data/english/annotations/nw/b.gold_conll": document(IAN),
           f"{BELOW}/train/data/english/annotations/bc/a.v4_gold_conll": document(SHE),
           f"{BELOW}/train/data/english/annotations/bc/a.gold_skel": "not read",
           f"{BELOW}/development/data/english/c.gold_conll": document(IAN, SHE),
           f"{BELOW}/test/data/d.gold_conll": document(SHE),
           f"{BELOW}/conll-2012-test/data/e.gold_conll": document(IAN)}


def test_splits_are_folders_whose_files_are_read_by_path(tmp_path):
    root = folder(tmp_path, RELEASE)
    found = read_ontonotes_task("tasks.onto", task(), root)
    assert {split: len(part.examples) for split, part in found.items()} == {"train": 3, "validation": 3, "test": 2}
    assert [e.sentence for e in found["train"].examples] == [0, 0, 1] and found["train"].examples[2].words[0] == "Ian"
    assert found["train"].origin["files"] == 2 and found["train"].origin["file"].endswith("bc/a.v4_gold_conll and 1 "
                                                                                          "more")
    other = read_ontonotes_task("tasks.onto", task(splits={"train": "development", "test": f"{BELOW}/conll-2012-test"}),
                                root)
    assert {split: len(part.examples) for split, part in other.items()} == {"train": 3, "test": 1}
    assert set(read_ontonotes_task("tasks.onto", task(), root, "validation")) == {"validation"}
    with pytest.raises(FinetraceError, match=r"tasks\.onto: splits\.test: the source has no split 'tests'"):
        read_ontonotes_task("tasks.onto", task(splits={"test": "tests"}), root)


@pytest.mark.parametrize(("like", "kind", "labels"), [
    ("ep-pos", "token", 8), ("ep-constituents", "span", 14), ("ep-nonterminals", "span", 6), ("ep-ner", "span", 2),
    ("ep-srl", "span-pair", 3), ("ep-coref", "span-pair", 2)])
def test_every_label_becomes_a_task(tmp_path, like, kind, labels):
    facts = build_task("onto", task(like), tmp_path / "a", root=folder(tmp_path, RELEASE), seed=0)
    assert facts["kind"] == kind and set(facts["rows"]) == {"train", "validation", "test"}
    assert len(facts["label_names"]) == labels


def test_paths_without_files_or_folders_are_named(tmp_path):
    (tmp_path / "onto").mkdir()
    with pytest.raises(FinetraceError, match=r"tasks\.onto: .*onto has no file \*gold_conll.*licensed copy of "
                                             r"OntoNotes"):
        read_ontonotes_task("tasks.onto", task(), tmp_path)
    folder(tmp_path, {"x/a.gold_conll": document(IAN)})
    with pytest.raises(FinetraceError, match=r"none of the splits train, development, test, but none; set `splits`"):
        read_ontonotes_task("tasks.onto", task(), tmp_path)
    path = "onto/x/a.gold_conll"
    assert set(read_ontonotes_task("tasks.onto", task(path=path), tmp_path)) == {"train"}


def test_two_versions_of_a_document_are_not_read_together(tmp_path):
    root = folder(tmp_path, {**RELEASE, f"{BELOW}/test/data/d.v4_gold_conll": document(SHE)})
    with pytest.raises(FinetraceError, match=r"tasks\.onto: .*data: d\.gold_conll and d\.v4_gold_conll are two "
                                             r"versions"):
        read_ontonotes_task("tasks.onto", task(), root)


@pytest.mark.parametrize(("rows", "label", "words"), [
    ([line(0, "a"), line(1, "b").rsplit(" ", 7)[0]], "ner", "f.gold_conll line 3: 9 columns instead of 12 or more"),
    ([line(0, "a"), line(1, "b", arguments=["*"])], "ner", "line 3: 13 columns, but the sentence's first word has 12"),
    ([line(0, "a"), line(2, "b")], "ner", "line 3: the number of the word is '2' where 1 is next"),
    ([line(0, "a", ner="(GPE*"), line(1, "b")], "ner",
     "line 2: column named entities opens (GPE, which the sentence does not"),
    ([line(0, "a", ner="*)")], "ner", "line 2: column named entities is '*)', but no bracket is open"),
    ([line(0, "a", parse="(S*"), line(1, "b")], "constituents", "line 2: column parse bit opens (S"),
    ([line(0, "a", arguments=["*", "(V*"])], "srl", "line 2: column arguments 2 opens (V"),
    ([line(0, "a", coref="(1")], "coref",
     "line 2: column coreference opens chain 1, which the sentence does not close"),
    ([line(0, "a", coref="1)")], "coref", "line 2: column coreference closes chain 1, which is not open"),
    ([line(0, "a", coref="12")], "coref",
     "line 2: column coreference is '12', not numbers of chains that open or close"),
])
def test_damaged_lines_are_named(rows, label, words):
    with pytest.raises(FinetraceError) as caught:
        read(label, rows)
    assert words in str(caught.value)
