"""Classification in special domains: JSON lines whose files end in .jsonl or .txt."""

import json

import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.build import build_task
from finetrace.data.corpus import clean_texts, corpus_texts
from finetrace.data.registry import resolve

CHEMPROT = [("a << kinase >> is blocked by [[ drug ]] .", "INHIBITOR"),
            ("a kinase is blocked by [[ drug ]] << here >> .", "AGONIST"), ("[[ x ]] makes << y >> .", "PRODUCT-OF")]


def build(root, task, rows, extension):
    for name in ("train", "dev", "test"):
        lines = (json.dumps({"text": text, "label": label, "metadata": []}) + "\n" for text, label in rows)
        (root / f"{name}.{extension}").write_text("".join(lines))
    (root / "PROVENANCE.txt").write_text("where the files are from\n")
    settings = resolve("mine", parse(FilesTaskSettings, {"path": ".", "like": task}, "p"))
    return build_task("mine", settings, root / "out", root=root, seed=0)


@pytest.mark.parametrize("extension", ["txt", "jsonl"])
def test_chemprot_from_its_files(tmp_path, extension):
    facts = build(tmp_path, "chemprot", CHEMPROT, extension)
    assert facts["rows"] == {"train": 3, "validation": 3, "test": 3} and len(facts["label_names"]) == 13
    assert facts["metric"] == "accuracy" and "INHIBITOR" not in facts["absent_from_train"]
    texts = corpus_texts(tmp_path / "out")
    assert len(texts) == 3 and texts[0] == CHEMPROT[0][0]
    cleaned = ["a kinase is blocked by drug .", "a kinase is blocked by drug here .", "x makes y ."]
    assert clean_texts(texts, ("<< ", " >>", "[[ ", " ]]")) == cleaned


@pytest.mark.parametrize(("task", "metric"), [
    ("rct-20k", "accuracy"), ("rct-sample", "accuracy"), ("acl-arc", "macro_f1"), ("scierc", "macro_f1"),
    ("scicite", "macro_f1"),
    ("hyperpartisan", "macro_f1"), ("agnews", "macro_f1"), ("helpfulness", "macro_f1"), ("imdb", "macro_f1")])
def test_the_others_find_their_classes_in_the_files(tmp_path, task, metric):
    facts = build(tmp_path, task, [("one text", "B"), ("two texts", "A")], "jsonl")
    assert (facts["label_names"], facts["metric"]) == (["A", "B"], metric)
