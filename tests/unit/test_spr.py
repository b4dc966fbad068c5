"""Proto-roles: which properties hold, joins with the treebanks, trees in brackets, and what is refused."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.brackets import at_height, head_word, read_trees
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.data.spr import OF_SPR1, OF_SPR2, read_spr_task
from finetrace.errors import FinetraceError

TREE = """
( (S (NP-SBJ-1 (NP (DT The) (NN boy)) (PP (IN of) (NP (NNP Rome))))
     (VP (VBD wanted)
         (S (NP-SBJ (-NONE- *-1)) (VP (TO to) (VP (VB eat) (NP (JJ ice) (NN cream)) (PP-LOC (IN in) (NP (NNP
         Pisa))))))) (. .)) )
( (S (NP-SBJ (PRP He)) (VP (VBD slept))) )
"""


def answers(**values):
    return [{"spr_property": name, "response": value} for name, of in values.items() for value in of]


def sentence(split="train", name="1_0", words=("boys", "eat", "pie"), pairs=None) -> str:
    pairs = pairs or [{"pred_idx": 1, "arg_idx": 0,
                       "responses": answers(volition=[5.0, 2.0], changed=[1.0, 5.0], existed=[3.0])}]
    return json.dumps({"tokens": list(words), "split": split, "sent_id": name, "pb": [], "spr1": pairs}) + "\n"


def task(like="ep-spr1", **values):
    return resolve("spr", parse(FilesTaskSettings, {"path": "spr", "like": like, **values},
                                "params.yaml: task_files.spr"))


def files(root: Path, **contents: str) -> Path:
    (root / "spr" / "deep").mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (root / "spr" / "deep" / name.replace("__", "-").replace("_dot_", ".")).write_text(text)
    return root


def read(root: Path, **values):
    return read_spr_task("tasks.spr", task(**values), root)


def shown(part):
    return [(" ".join(e.words[a] for a, _ in e.spans), e.labels) for e in part.examples]


def test_the_mean_response_decides_and_the_last_one_as_the_original_did(tmp_path):
    root = files(tmp_path, spr_dot_json=sentence() + sentence("dev", "2_0"))
    assert shown(read(root)["train"]) == [("eat boys", ("volition",))], "means 3.5, 3.0 and 3.0: above 3"
    assert shown(read(root, spr_parity=True)["train"]) == [("eat boys", ("changed",))]
    assert set(read(root)) == {"train", "validation"}


def test_the_processed_release_of_spr1_becomes_a_task_with_several_labels(tmp_path):
    none = [{"pred_idx": 1, "arg_idx": i, "responses": answers(volition=[1], moved=[i + 2])} for i in (2, 0)]
    train = sentence() + sentence(name="1_1", words=("cats", "eat", "fish"), pairs=none)
    root = files(tmp_path, spr1_dot_train_dot_json=train, spr1_dot_dev_dot_json=sentence("dev", "9_9"),
                 spr1_dot_test_dot_json=sentence("test", "8_8"))
    facts = build_task("spr", task(), root / "a", root=root, seed=0)
    table = pq.read_table(root / "a" / "train.parquet")
    assert facts["multi_label"] is True and facts["label_names"] == ["moved", "volition"]
    assert table["labels"].to_pylist() == [[1], [], [0]]
    assert table["spans"].to_pylist() == [[1, 2, 0, 1], [1, 2, 0, 1], [1, 2, 2, 3]]
    assert table["source_id"].to_pylist() == ["1_0", "1_1", "1_1"] and table["sentence"].to_pylist() == [0, 1, 1]


@pytest.mark.parametrize(("text", "words"), [
    ("{", "spr.json line 1: not valid JSON"),
    ("[]\n", "line 1: key 'tokens' is missing or no list; is this the processed release of SPR1?"),
    (sentence(words=("a", "")), "line 1: key 'tokens' holds ('a', '')"),
    (sentence().replace('"split"', '"part"'), "line 1: key 'split' is missing"),
    (sentence(pairs=[{"pred_idx": 3, "arg_idx": 0, "responses": []}]),
     "line 1: pred_idx is 3, not the number of one of"),
    (sentence(pairs=[{"pred_idx": 0, "arg_idx": -1, "responses": []}]), "line 1: arg_idx is -1, not the number"),
    (sentence(pairs=[{"pred_idx": 0, "arg_idx": 1, "responses": answers(x=[6])}]),
     "the response to 'x' is 6; a property has"),
    (sentence(pairs=[{"pred_idx": 0, "arg_idx": 1, "responses": answers(x=[None])}]), "the response to 'x' is None"),
])
def test_damaged_lines_are_named(tmp_path, text, words):
    with pytest.raises(FinetraceError) as caught:
        read(files(tmp_path, spr_dot_json=text))
    assert words in str(caught.value)


def table(columns, *rows) -> str:
    return "\n".join("\t".join(str(v) for v in row)
                     for row in [("Arg", *columns), *(("0", *row) for row in rows)]) + "\n"


def of_spr1(*rows) -> str:
    return table(OF_SPR1, *rows)


def test_spr1_is_joined_with_the_treebank(tmp_path):
    rows = [("train", "0012_0", 4, "0:2", "volition", 4, "True"), ("train", "0012_0", 4, "0:2", "volition", 3, "True"),
            ("train", "0012_0", 4, "0:2", "moved", 1, "False"), ("train", "0012_0", 4, "0:2", "moved", "NA", "False"),
            ("train", "0012_0", 7, "5:1*0:2", "volition", 5, "True"),
            ("train", "0012_0", 7, "8:1", "changed", 5, "True"),
            ("train", "0012_0", 7, "10:1", "changed", 2, "True"), ("train", "0012_0", 7, "5:0", "volition", 5, "True"),
            ("dev", "0012_1", 1, "0:1", "volition", 5, "True")]
    found = read(files(tmp_path, spr1_dot_tsv=of_spr1(*rows), wsj_0012_dot_mrg=TREE))
    assert found["train"].examples[0].words == tuple("The boy of Rome wanted to eat ice cream in Pisa .".split())
    assert shown(found["train"]) == [("wanted boy", ("volition",)), ("eat boy", ("volition",)),
                                     ("eat cream", ("changed",)), ("eat Pisa", ())]
    assert found["train"].left_out == {"rows whose argument is a trace": 1}
    assert shown(found["validation"]) == [("slept He", ("volition",))]


@pytest.mark.parametrize(("row", "words"), [
    (("train", "0012_7", 4, "0:2", "x", 4, "True"),
     "spr1.tsv line 2: Sentence.ID is '0012_7': there is no file wsj_0012"),
    (("train", "0013_0", 4, "0:2", "x", 4, "True"), "line 2: Sentence.ID is '0013_0'"),
    (("train", "0012_0", 99, "0:2", "x", 4, "True"),
     "line 2: Pred.Token is '99', not the number of one of the sentence's 13"),
    (("train", "0012_0", 4, "0-2", "x", 4, "True"),
     "line 2: Arg.Pos is '0-2', not numbers of words, each with a colon"),
    (("train", "0012_0", 4, "0:9", "x", 4, "True"),
     "line 2: Arg.Pos is '0:9', but 9 steps up from word 0 lead out of the tree"),
    (("train", "0012_0", 4, "44:0", "x", 4, "True"), "line 2: Arg.Pos is '44:0', but the tree has no word 44"),
    (("train", "0012_0", 4, "0:2", "x", "NA", "True"), "line 2: the response to 'x' is 'NA'"),
    (("train", "0012_0", 1, "0:2", "x", 4, "True"),
     "spr1.tsv: only 0 of 1 predicates are verbs in the treebank below `path`"),
])
def test_what_does_not_fit_the_treebank_is_named(tmp_path, row, words):
    with pytest.raises(FinetraceError) as caught:
        read(files(tmp_path, spr1_dot_tsv=of_spr1(row), wsj_0012_dot_mrg=TREE))
    assert words in str(caught.value)


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"tasks\.spr: .*spr has no \.tsv or \.json with responses"):
        read(files(tmp_path))
    with pytest.raises(FinetraceError, match=r"has no wsj_NNNN\.mrg with the sentences of the table.*processed "
                                             r"release"):
        read(files(tmp_path, spr1_dot_tsv=of_spr1()))
    with pytest.raises(FinetraceError, match=r"has no en-ud-train\.conllu, en-ud-dev\.conllu or"):
        read(tmp_path, like="ep-spr2")
    files(tmp_path, spr1_dot_tsv="Split\tProperty\n", wsj_0012_dot_mrg=TREE)
    with pytest.raises(FinetraceError, match=r"spr1\.tsv line 1: the header has no column 'Sentence\.ID', separated "
                                             r"by tabs; it"):
        read(tmp_path)


def conllu(*sentences: str) -> str:
    return "\n".join("".join(f"{i}\t{w}\t_\tX\t_\t_\t0\troot\t_\t_\n" for i, w in enumerate(s.split(), 1))
                     for s in sentences)


def of_spr2(*rows) -> str:
    return table(OF_SPR2, *rows)


UD = "en-ud-train.conllu 2"
MAN = ("train", UD, 2, "The old man", 0, 2)
ROWS = [(*MAN, "awareness", 5, "yes"), (*MAN, "awareness", 3, "yes"), (*MAN, "volition", 4, "yes"),
        (*MAN, "volition", 3, "yes"), (*MAN, "change", 5, "no"), ("train", UD, 2, "bread", 3, 3, "change", 1, "no"),
        ("train", UD, 3, "bread", 3, 3, "change", 5, "yes"),
        ("dev", "en-ud-dev.conllu 1", 1, "we", 0, 0, "awareness", 4, "yes")]


def spr2(root: Path, *rows) -> Path:
    return files(root, spr2_dot_tsv=of_spr2(*rows), en__ud__train_dot_conllu=conllu("a b", "The old man bread ate"),
                 en__ud__dev_dot_conllu=conllu("we slept"))


def test_spr2_is_joined_with_its_treebank_by_annotators_mean(tmp_path):
    found = read(spr2(tmp_path, *ROWS), like="ep-spr2")
    assert [(e.spans, e.labels) for e in found["train"].examples] == [(((2, 3), (0, 3)), ("awareness",)),
                                                                      (((3, 4), (3, 4)), ("change",))]
    assert found["train"].left_out == {"pairs without a property that applies": 1}, "bread to predicate 2"
    assert found["validation"].examples[0].words == ("we", "slept") and found["validation"].examples[0].labels == (
        "awareness",
    )


@pytest.mark.parametrize(("row", "words"), [
    (("train", "en-ud-train.conllu 9", 2, "x", 0, 0, "p", 5, "yes"),
     "spr2.tsv line 2: Sentence.ID is 'en-ud-train.conllu 9'"),
    (("train", "en-ud-train.conllu 0", 2, "x", 0, 0, "p", 5, "yes"), "line 2: Sentence.ID is 'en-ud-train.conllu 0'"),
    (("train", "12", 2, "x", 0, 0, "p", 5, "yes"), "line 2: Sentence.ID is '12'"),
    (("train", UD, 5, "x", 0, 0, "p", 5, "yes"),
     "line 2: Pred.Token is '5', not the number of one of the sentence's 5 words"),
    (("train", UD, 1, "x", 0, 5, "p", 5, "yes"), "line 2: Arg.Tokens.End is '5'"),
    (("train", UD, 1, "x", 2, 1, "p", 5, "yes"), "line 2: Arg.Tokens.Begin 2 is after Arg.Tokens.End 1"),
    (("train", UD, 1, "other words", 0, 1, "p", 5, "yes"),
     "spr2.tsv: only 0 of 1 argument phrases are those of the treebank"),
    (("train", UD, 1, "The", 0, 0, "p", "five", "yes"), "line 2: the response to 'p' is 'five'"),
    (("train", UD, 1, "The", 0, 0, "p", 5), "line 2: 9 fields instead of 10"),
])
def test_what_does_not_fit_spr2s_treebank_is_named(tmp_path, row, words):
    with pytest.raises(FinetraceError) as caught:
        read(spr2(tmp_path, row), like="ep-spr2")
    assert words in str(caught.value)


def test_parity_is_for_spr1_only():
    with pytest.raises(FinetraceError, match="spr_parity: is for files of format spr1, not spr2; remove spr_parity"):
        task(like="ep-spr2", spr_parity=True)


def test_trees_know_their_words_and_phrases():
    first, second = read_trees(TREE, "f")
    assert [leaf.word for leaf in second.leaves] == ["He", "slept"] and (second.start, second.end) == (0, 2)
    assert [leaf.start for leaf in first.leaves] == list(range(13))
    assert at_height(first, 0, 0).word == "The" and [at_height(first, 0, i).label for i in (1, 2)] == ["NP", "NP-SBJ-1"]
    assert at_height(first, 5, 2).label == "S" and (at_height(first, 5, 2).start, at_height(first, 5, 2).end) == (5, 12)
    words = [leaf.word for leaf in first.leaves]
    nodes = [at_height(first, word, height) for word, height in ((0, 2), (2, 1), (4, 1), (4, 2), (8, 1), (10, 1))]
    heads = [(node.label, words[head_word(node)]) for node in nodes]
    assert heads == [("NP-SBJ-1", "boy"), ("PP", "Rome"), ("VP", "eat"), ("S", "eat"), ("NP", "cream"),
                     ("PP-LOC", "Pisa")]


@pytest.mark.parametrize(("text", "words"), [
    ("(S (NN a)", "f: tree 1 is not closed"), ("(S (NN a)))", "f: tree 2: a bracket closes that none opens"),
    ("(S (NN a)) b", "f: 'b' after tree 1 stands in no bracket"),
    ("(S (NN))", "f: tree 1: the bracket (NN) holds nothing"),
    ("(S (NN a b))", "f: tree 1: 'b' is a second thing in the bracket of NN"),
])
def test_damaged_trees_are_named(text, words):
    with pytest.raises(FinetraceError) as caught:
        read_trees(text, "f")
    assert words in str(caught.value)
