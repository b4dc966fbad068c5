"""SemEval-2010 task 8: tags, words, the published split, and where its files are found."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings, OodSettings
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.data.semeval import TEST, TRAIN, read_semeval, read_semeval_task
from finetrace.errors import FinetraceError


def block(number: int, sentence: str, label: str = "Other", comment: str = "Comment:") -> str:
    return f'{number}\t"{sentence}"\n{label}\n{comment}\n\n'


def many(count: int, first: int = 1) -> str:
    labels = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other"]
    return "".join(block(first + i, f"A <e1>w{i}</e1> has a <e2>part</e2>.", labels[i % 3]) for i in range(count))


def one(sentence: str, **changes):
    return read_semeval(block(7, sentence, **changes), "f.txt").examples[0]


def task(**values):
    return resolve("rel", parse(FilesTaskSettings, {"path": "semeval", "like": "ep-rel", **values}, "params.yaml: rel"))


def folder(root: Path, *, train: int = 40, test: int = 10, below: str = "") -> Path:
    path = root / "semeval" / below
    path.mkdir(parents=True)
    (path / TRAIN).write_text(many(train))
    (path / TEST).write_text(many(test, 8001))
    return root


def test_the_published_example():
    found = one("The <e1>engine</e1> of the <e2>car</e2>.", label="Component-Whole(e1,e2)")
    assert found.words == ("The", "engine", "of", "the", "car.") and found.spans == ((1, 2), (4, 5))
    assert (found.label, found.source_id, found.place) == ("Component-Whole(e1,e2)", "7", "f.txt line 1")


@pytest.mark.parametrize(("sentence", "words", "spans"), [
    ("<e1>a b</e1> c <e2>d</e2>", "a b c d", ((0, 2), (3, 4))),
    ("x-<e1>a</e1>-y <e2>b</e2>'s", "x-a-y b's", ((0, 1), (1, 2))),
    ("<e1>a</e1><e2>b</e2> c", "ab c", ((0, 1), (0, 1))),
    ("<e1>a</e1>/<e2>b c</e2>", "a/b c", ((0, 1), (0, 2))),
    ("z <e2>b</e2> <e1>a</e1>", "z b a", ((2, 3), (1, 2))),
    ("x <e1> a b </e1> <e2>c </e2> d", "x a b c d", ((1, 3), (3, 4))),
    ("say \"<e1>a</e1>\" and \"<e2>b</e2>\"", "say \"a\" and \"b\"", ((1, 2), (3, 4))),
    ("<e1>\u200bnai\u0308ve</e1>\u00a0x <e2>日本</e2>", "\u200bnai\u0308ve x 日本", ((0, 1), (2, 3))),
])
def test_words_are_parted_while_the_tags_are_there(sentence, words, spans):
    found = one(sentence)
    assert (found.words, found.spans) == (tuple(words.split(" ")), spans)


def test_blocks_end_with_blank_lines_or_where_the_next_begins():
    text = block(1, "<e1>a</e1> <e2>b</e2>") + block(2, "<e1>c</e1> <e2>d</e2>", comment="Comment: 3 of them")
    for form in (text, text.replace("\n", "\r\n"), text.rstrip("\n"), text.replace("\n\n", "\n"),
                 "\n\n" + text + "\n\n", text.replace("Comment:\n", "")):
        found = read_semeval(form, "f").examples
        assert [(e.source_id, e.words, e.label, e.sentence) for e in found] == [("1", ("a", "b"), "Other", 0),
                                                                                ("2", ("c", "d"), "Other", 1)]


@pytest.mark.parametrize(("text", "words"), [
    ('"<e1>a</e1> <e2>b</e2>"\nOther\n', "f line 1: '\"<e1>a</e1> <e2>b</e2>\"' is not a number, a tab and a sentence"),
    ("x\ta\nOther\n", "line 1: 'x\\ta' is not a number"),
    ('1\t"<e1>a</e1> <e2>b</e2>"\n\n', "f line 1: the sentence '1\\t\"<e1>a</e1> <e2>b</e2>\"' has no line with its "
                                       "relation"),
    ('1\t"<e1>a</e1> <e2>b</e2>"\nComment:\n',
     "f line 2: 'Comment:' is no relation such as Cause-Effect(e1,e2) or Other"),
    ('1\t"<e1>a</e1> <e2>b</e2>"\nCause-Effect\n', "line 2: 'Cause-Effect' is no relation"),
    ('1\t"<e1>a</e1> <e2>b"\nOther\n', "line 1: the tag </e2> stands 0 times in the sentence"),
    ('1\t"<e1>a</e1> <e1>x</e1> <e2>b</e2>"\nOther\n', "the tag <e1> stands 2 times"),
    ('1\t"<e1></e1> <e2>b</e2>"\nOther\n', "line 1: the phrase e1 is empty or ends before it begins"),
    ('1\t"</e1>a<e1> <e2>b</e2>"\nOther\n', "line 1: the phrase e1 is empty or ends before it begins"),
])
def test_damaged_sentences_are_named(text, words):
    with pytest.raises(FinetraceError) as caught:
        read_semeval(text, "f")
    assert words in str(caught.value)


@pytest.mark.parametrize("below", ["", "SemEval2010_task8_all_data/x"])
def test_train_is_split_as_published_whatever_the_seed(tmp_path, below):
    root = folder(tmp_path, below=below)
    random.seed(1)
    facts = build_task("rel", task(), root / "a", root=root, seed=5)
    tables = {split: pq.read_table(root / "a" / f"{split}.parquet") for split in ("train", "validation", "test")}
    draws = random.Random(42)
    mine = [draws.random() <= 0.85 for _ in range(40)]
    assert [int(i) - 1 for i in tables["train"]["source_id"].to_pylist()] == [i for i, k in enumerate(mine) if k]
    assert [int(i) - 1 for i in tables["validation"]["source_id"].to_pylist()] == [i for i, k in enumerate(mine)
                                                                                   if not k]
    assert tables["test"]["source_id"].to_pylist() == [str(8001 + i) for i in range(10)]
    assert facts["kind"] == "span-pair" and facts["label_names"] == ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)",
                                                                     "Other"]
    assert facts["origin"]["validation"]["file"] == TRAIN and facts["origin"]["validation"]["split_seed"] == 42
    assert build_task("rel", task(), root / "b", root=root, seed=6)["rows"] == facts["rows"]


def test_the_published_sizes():
    draws = random.Random(42)
    assert sum(draws.random() <= 0.85 for _ in range(8000)) == 6851


def test_other_files_and_a_holdout_take_the_place_of_the_split(tmp_path):
    root = folder(tmp_path)
    (root / "semeval" / "mine.txt").write_text(many(6, 100))
    named = task(splits={"train": TRAIN, "validation": "mine.txt"})
    facts = build_task("rel", named, root / "a", root=root, seed=0)
    assert facts["rows"] == {"train": 40, "validation": 6}
    facts = build_task("rel", task(holdout=0.25), root / "b", root=root, seed=0)
    assert facts["rows"] == {"validation": 10, "train": 30, "test": 10}
    assert len(read_semeval_task("tasks.rel", named, root, "train")["train"].examples) == 40
    whole = read_semeval_task("tasks.rel", task(splits={"train": TRAIN}), root)
    assert sum(len(part.examples) for part in whole.values()) == 40 and set(whole) == {"train", "validation"}


def test_one_split_alone(tmp_path):
    root = folder(tmp_path)
    whole = read_semeval_task("tasks.rel", task(), root)
    for split, part in whole.items():
        alone = read_semeval_task("tasks.rel", task(), root, split)
        assert set(alone) == {split} and alone[split].examples == part.examples
    path = f"semeval/{TEST}"
    of_file = OodSettings(source="files", format="semeval", path=path)
    assert len(read_semeval_task("tasks.rel", of_file, root, "test")["test"].examples) == 10
    assert set(read_semeval_task("tasks.rel", task(path=f"semeval/{TRAIN}"), root)) == {"train", "validation"}


def test_files_that_are_missing_or_there_twice_are_named(tmp_path):
    root = folder(tmp_path)
    (root / "semeval" / "copy").mkdir()
    (root / "semeval" / "copy" / TRAIN.lower()).write_text(many(3))
    with pytest.raises(FinetraceError, match=r"tasks\.rel: .*semeval: TRAIN_FILE\.TXT, copy/train_file\.txt could all "
                                             r"be"):
        read_semeval_task("tasks.rel", task(), root)
    (root / "empty").mkdir()
    with pytest.raises(FinetraceError, match=r"tasks\.rel: .*empty: has no file TRAIN_FILE\.TXT; let `path` name"):
        read_semeval_task("tasks.rel", task(path="empty"), root)
    with pytest.raises(FinetraceError, match=r"tasks\.rel: nowhere: no such file or folder"):
        read_semeval_task("tasks.rel", task(path="nowhere"), root)
