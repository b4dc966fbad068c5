"""Definite pronouns: which words are pronoun and candidate, which pairs are left out, and which files are refused."""

import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.build import build_task
from finetrace.data.dpr import moses, read_dpr, read_dpr_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError

BIRD = "The bird ate the pie because it was hungry."


def block(text: str, hypothesis: str, entailed: str = "entailed", partof: str = "train", index: str = "1") -> str:
    return (f"provenance: schema-challenge\nindex: {index}\ntext: {text}\nhypothesis: {hypothesis}\nentailed: "
            f"{entailed}\npartof: {partof}\n\n")


def read(text: str, **found):
    return read_dpr(text, "f.txt", moses())


def one(text: str, hypothesis: str):
    part = read(block(text, hypothesis))["train"]
    return part.examples[0] if part.examples else dict(part.left_out)


def test_pronoun_and_candidate_are_found_in_the_text():
    found = one(BIRD, "The bird ate the pie because the bird was hungry.")
    assert found.words == tuple("The bird ate the pie because it was hungry .".split())
    assert (found.spans, found.label, found.source_id) == (((6, 7), (0, 2)), "entailed",
                                                           "1"), "a capital at the beginning"
    found = read(block(BIRD, "The bird ate the pie because the pie was hungry.", "not-entailed"))["train"].examples[0]
    assert (found.spans, found.label, found.place) == (((6, 7), (3, 5)), "not-entailed", "f.txt line 1")


@pytest.mark.parametrize(("text", "hypothesis", "spans"), [
    ("Tom hit Bob, so he ran away.", "Tom hit Bob, so Bob ran away.", ((5, 6), (2, 3))),
    ("Ann thanked her.", "Ann thanked Ann.", ((2, 3), (0, 1))),
    ("When he slept, the old man snored.", "When the old man slept, the old man snored.", ((1, 2), (4, 7))),
    ("He & Tom saw it : he left.", "He & Tom saw it : Tom left.", ((6, 7), (2, 3))),
    ("the dog saw the dog and it ran.", "the dog saw the dog and the dog ran.", ((6, 7), (0, 2))),
])
def test_pairs(text, hypothesis, spans):
    assert one(text, hypothesis).spans == spans


@pytest.mark.parametrize(("text", "hypothesis", "reason"), [
    (BIRD, BIRD, "pairs whose hypothesis does not differ from the text"),
    (BIRD, "The bird ate the pie because the cat was hungry.", "pairs whose candidate is not in the text"),
    (BIRD, "The bird ate the pie because the bird was tired.", "pairs that differ in more than the pronoun"),
    (BIRD, "The bird ate the pie because was hungry.", "pairs that differ in more than the pronoun"),
    ("He saw a Big dog and it ran.", "He saw a Big dog and a big dog ran.", "pairs whose candidate is not in the text"),
])
def test_pairs_without_a_candidate_are_left_out_and_counted(text, hypothesis, reason):
    assert one(text, hypothesis) == {reason: 1}


def test_pairs_of_one_text_are_one_sentence_also_where_others_stand_between():
    bird, pie, other = (block(BIRD, f"The bird ate the pie because the {x} was hungry.")
                        for x in ("bird", "pie", "bird"))
    tom = block("Tom saw Bob and he ran.", "Tom saw Bob and Bob ran.")
    found = read(bird + tom + pie + other.replace("train", "dev"))
    assert [(e.sentence, e.spans[1]) for e in found["train"].examples] == [(0, (0, 2)), (0, (3, 5)), (1, (2, 3))]
    assert [e.sentence for e in found["dev"].examples] == [0]


def test_splits_come_from_the_file(tmp_path):
    (tmp_path / "dpr" / "inference_is_everything").mkdir(parents=True)
    file = tmp_path / "dpr" / "inference_is_everything" / "dpr_data.txt"
    candidates = (("bird", "entailed"), ("pie", "not-entailed"), ("cat", "entailed"))
    blocks = [block(BIRD, f"The bird ate the pie because the {x} was hungry.", y, split)
              for split in ("train", "dev", "test") for x, y in candidates]
    file.write_text("\n".join(blocks) + "\n\n")

    def task(**values):
        return resolve("dpr", parse(FilesTaskSettings, {"path": "dpr", "like": "ep-dpr", **values}, "params.yaml: dpr"))

    facts = build_task("dpr", task(), tmp_path / "a", root=tmp_path, seed=0)
    assert facts["rows"] == {"train": 2, "validation": 2, "test": 2} and facts["label_names"] == ["entailed",
                                                                                                  "not-entailed"]
    assert facts["left_out"]["test"] == {"pairs whose candidate is not in the text": 1} and facts["kind"] == "span-pair"
    assert facts["origin"]["train"]["file"] == "dpr_data.txt"
    path = "dpr/inference_is_everything/dpr_data.txt"
    assert set(read_dpr_task("tasks.dpr", task(path=path, splits={"train": "test"}), tmp_path)) == {"train"}
    assert set(read_dpr_task("tasks.dpr", task(), tmp_path, "validation")) == {"validation"}
    with pytest.raises(FinetraceError, match=r"tasks\.dpr: splits\.test: the source has no split 'tests'; it has "
                                             r"train, dev"):
        read_dpr_task("tasks.dpr", task(splits={"test": "tests"}), tmp_path)
    with pytest.raises(FinetraceError, match=r"tasks\.dpr: there is no split test; name it in `splits`.*there are: "
                                             r"train"):
        read_dpr_task("tasks.dpr", task(splits={"train": "train"}), tmp_path, "test")


@pytest.mark.parametrize(("text", "words"), [
    ("text: a\nhypotheses: b\n", "f.txt line 2: 'hypotheses: b' is not one of provenance, index, text, hypothesis"),
    ("text a\n", "f.txt line 1: 'text a' is not one of"),
    (block("a", "b").rstrip("\n") + "\n" + block("a", "b"),
     "f.txt line 7: 'provenance: schema-challenge' is not one of"),
    ("\n" + block("a", "b").replace("partof: train\n", ""), "f.txt line 2: the block has no 'partof'; mend it"),
    (block("a", ""), "f.txt line 1: the block has no 'hypothesis'"),
    (block("a", "b", "maybe"), "f.txt line 1: key 'entailed' is 'maybe'; it is entailed or not-entailed"),
])
def test_damaged_blocks_are_named(text, words):
    with pytest.raises(FinetraceError) as caught:
        read(text)
    assert words in str(caught.value)
