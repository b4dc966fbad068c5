"""Tasks of words as tables: columns, classes, splits by sentence, sizes and floors."""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data import baseline
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError

COLUMNS = ["example_id", "source_id", "text_a", "text_b", "label", "sentence", "words", "spans"]


def conllu(sentences: list[str]) -> str:
    """A tree bank of sentences such as "the/DET team/NOUN"; each word depends on the next, the last is the root."""
    lines = []
    for number, sentence in enumerate(sentences):
        lines.append(f"# sent_id = s{number}")
        words = [word.rsplit("/", 1) for word in sentence.split()]
        for i, (form, tag) in enumerate(words, 1):
            head, relation = (0, "root") if i == len(words) else (i + 1, f"r:{tag.lower()}")
            lines.append("\t".join([str(i), form, "_", tag, "_", "_", str(head), relation, "_", "_"]))
        lines.append("")
    return "\n".join(lines)


def rows(*examples) -> str:
    return "".join(json.dumps({"text": text, "spans": spans, "label": label}) + "\n" for text, spans, label in examples)


TRAIN = ["the/DET team/NOUN went/VERB", "a/DET team/NOUN", "she/PRON slept/VERB well/ADV", "go/VERB",
         "we/PRON saw/VERB the/DET cat/NOUN"]
DEV = ["the/DET cat/NOUN slept/VERB", "wow/INTJ"]


def build(root: Path, files: dict[str, str], *, out: str = "out", seed: int = 0, **settings):
    """(facts, split -> table) of a task of words in the folder tree/."""
    (root / "tree").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / "tree" / name).write_bytes(text.encode())
    task = resolve("own", parse(FilesTaskSettings, {"path": "tree", **settings}, "params.yaml: task_files.own"))
    facts = build_task("own", task, root / out, root=root, seed=seed)
    return facts, {p.stem: pq.read_table(p) for p in (root / out).glob("*.parquet")}


def tree(root: Path, train=TRAIN, dev=DEV, **settings):
    files = {"x-ud-train.conllu": conllu(train), **({"x-ud-dev.conllu": conllu(dev)} if dev else {})}
    return build(root, files, **{"like": "ud-pos", **settings})


def refused(*args, **settings) -> str:
    with pytest.raises(FinetraceError) as caught:
        tree(*args, **settings)
    return str(caught.value)


def test_columns_types_and_facts_of_a_task_of_single_words(tmp_path):
    facts, tables = tree(tmp_path)
    train = tables["train"]
    assert train.schema.names == COLUMNS
    assert [str(t).replace("element", "item") for t in train.schema.types] == [
        "int64", "string", "string", "string", "int32", "int64", "list<item: string>",
        "fixed_size_list<item: int32>[2]"]
    assert train.to_pylist()[4] == {"example_id": 4, "source_id": "s1:2", "text_a": "a team", "text_b": None,
                                    "sentence": 1,
                                    "label": facts["label_names"].index("NOUN"), "words": ["a", "team"],
                                    "spans": [1, 2]}
    assert train["sentence"].to_pylist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4]
    assert (facts["kind"], facts["spans"]) == ("token", 1)
    assert facts["rows"] == {"train": 13, "validation": 4} and facts["sentences"] == {"train": 5, "validation": 2}
    assert facts["origin"]["train"]["file"] == "x-ud-train.conllu" and len(facts["origin"]["train"]["sha256"]) == 64
    assert sum(facts["label_shares"]["validation"].values()) == pytest.approx(1, abs=1e-5) and "left_out" not in facts


def test_pairs_have_two_spans(tmp_path):
    facts, tables = tree(tmp_path, like="ud-dep")
    assert str(tables["train"].schema.field("spans").type).endswith("[4]") and (facts["kind"],
                                                                                facts["spans"]) == ("span-pair", 2)
    first = tables["train"].to_pylist()[0]
    assert (first["words"], first["spans"]) == (["the", "team", "went"], [1, 2, 0, 1])
    assert facts["label_names"][first["label"]] == "r:det"
    turned = tree(tmp_path, like="ud-dep", pair_order="dependent-head", subtypes=False, out="o2",
                  label_values={"r": "x"}, label_names=["x", "y"])
    assert turned[1]["train"].to_pylist()[0]["spans"] == [0, 1, 1, 2] and turned[0]["label_names"] == ["x", "y"]


def test_classes_are_those_of_all_splits_and_those_absent_from_train_are_named(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "finetrace"):
        facts, tables = tree(tmp_path)
    assert facts["label_names"] == ["ADV", "DET", "INTJ", "NOUN", "PRON", "VERB"]
    assert facts["absent_from_train"] == ["INTJ"] and facts["label_shares"]["train"]["INTJ"] == 0
    assert tables["validation"]["label"].to_pylist()[-1] == 2
    assert "tasks.own: 1 of 6 classes have no training example: INTJ" in caplog.text


def test_classes_can_be_given_and_others_are_then_refused(tmp_path):
    names = ["VERB", "NOUN", "DET", "PRON", "ADV", "INTJ", "X"]
    assert tree(tmp_path, label_names=names)[0]["absent_from_train"] == ["INTJ", "X"]
    message = refused(tmp_path, label_names=names[:5], out="o2")
    assert "x-ud-dev.conllu line 7: unknown label 'INTJ'; known: VERB, NOUN" in message


def test_numbers_as_classes(tmp_path):
    one = [("a b", [[0, 1]], label) for label in (10, "9", "1.0", 1)]
    files = {"train.jsonl": rows(*one[:3]), "dev.jsonl": rows(one[3])}
    facts, tables = build(tmp_path, files, format="spans")
    assert facts["label_names"] == ["1", "9", "10"] and tables["train"]["label"].to_pylist() == [2, 1, 0]


def test_holdout_and_max_rows_never_split_a_sentence(tmp_path):
    many = [f"w{i}/A v/B x/C" if i % 3 else f"w{i}/A" for i in range(60)]
    chosen = []
    for seed in (0, 0, 1):
        facts, tables = tree(tmp_path, many, None, seed=seed, holdout=0.25, max_rows={"train": 20},
                             out=f"o{len(chosen)}")
        sentences = {split: set(table["sentence"].to_pylist()) for split, table in tables.items()}
        assert facts["sentences"] == {"train": 20, "validation": 15} == {s: len(v) for s, v in sentences.items()}
        assert not sentences["train"] & sentences["validation"]
        for table in tables.values():
            ids, counts = np.unique(table["sentence"].to_numpy(), return_counts=True)
            assert counts.tolist() == [3 if i % 3 else 1 for i in ids], "all examples of a sentence, or none"
            assert table["sentence"].to_pylist() == sorted(table["sentence"].to_pylist())
            assert table["example_id"].to_pylist() == sorted(table["example_id"].to_pylist())
            assert all(row["words"][0] == f"w{row['sentence']}" for row in table.to_pylist())
        chosen.append(sentences)
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_first_sentences_can_be_chosen(tmp_path):
    facts, tables = tree(tmp_path, max_rows={"train": 2}, choose="first")
    assert tables["train"]["text_a"].unique().to_pylist() == ["the team went", "a team"] and facts["rows"]["train"] == 5
    pairs = tree(tmp_path, like="ud-dep", train=["go/VERB", *TRAIN], max_rows={"train": 1}, choose="first", out="o2")[1]
    assert pairs["train"]["text_a"].unique().to_pylist() == ["the team went"], (
        "a sentence without a relation has no example"
    )


def test_the_first_rows_of_an_ordinary_task_can_be_chosen(tmp_path):
    text = "text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(9))
    facts, tables = build(tmp_path, {"train.csv": text, "dev.csv": text}, text=["text"], label="label",
                          max_rows={"train": 4}, choose="first")
    assert tables["train"]["text_a"].to_pylist() == ["t0", "t1", "t2", "t3"]
    assert facts["spans"] == 0 and facts["sentences"] == facts["rows"] == {"train": 4, "validation": 9}
    assert tables["train"].schema.names == COLUMNS[:5]


def test_long_sentences_are_left_out_and_counted_and_numbers_stay(tmp_path):
    whole, short = tree(tmp_path), tree(tmp_path, max_words=3, out="o2")
    assert short[0]["left_out"] == {"train": {"sentences over max_words": 1}} and short[0]["sentences"]["train"] == 4
    kept = [row for row in whole[1]["train"].to_pylist() if len(row["words"]) <= 3]
    assert short[1]["train"].to_pylist() == kept and len(kept) == 9
    assert "every sentence of train has more than 3 words; raise max_words" in refused(tmp_path, ["a/B c/D e/F g/H"],
                                                                                       max_words=3,
                                                                                        out="o3")


def test_left_out_values_are_counted_by_split(tmp_path):
    assert tree(tmp_path, [*TRAIN, "odd/_"])[0]["left_out"] == {"train": {"upos is _": 1}}


def test_unusual_words_come_back_as_they_were(tmp_path):
    words = ["nai\u0308ve", "\u200b", "👩\u200d🚀", "a\u2028b", "x\u00a0y", "10\u00a0000", "-", "\ufb01"]
    files = {"train.jsonl": rows(*((words, [[i, i + 1]], "AB"[i % 2]) for i in range(8)))}
    facts, tables = build(tmp_path, files, format="spans", splits={"train": "train.jsonl", "validation": "train.jsonl"})
    assert all(row["words"] == words and row["text_a"] == " ".join(words) for row in tables["train"].to_pylist())
    assert facts["kind"] == "span" and facts["sentences"]["train"] == 1


def test_words_with_blanks_inside_count_as_one(tmp_path):
    text = conllu(["a/X 10_000/NUM b/Y"]).replace("10_000", "10 000")
    tables = build(tmp_path, {"train.conllu": text, "dev.conllu": text}, like="ud-pos")[1]
    assert tables["train"].to_pylist()[1]["words"] == ["a", "10 000", "b"]
    assert tables["train"].to_pylist()[1]["text_a"] == "a 10 000 b"


def test_encodings_and_byte_order_marks(tmp_path):
    text = conllu(["café/A b/B"])
    cases = [(("\ufeff" + text).encode(), {}), (text.encode("latin-1"), {"encoding": "latin-1"})]
    for number, (content, settings) in enumerate(cases):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / "train.conllu").write_bytes(content)
        splits = {"train": "train.conllu", "validation": "train.conllu"}
        tables = build(tmp_path, {}, like="ud-pos", splits=splits, out=f"o{number}", **settings)[1]
        assert tables["train"].to_pylist()[0]["words"] == ["café", "b"]
    with pytest.raises(FinetraceError, match=r"train\.conllu line 2: byte \d+ is not utf-8; .*`encoding`, e\.g\. "
                                             r"latin-1"):
        build(tmp_path, {}, like="ud-pos", splits={"train": "train.conllu"}, out="o9")


def test_kind_of_the_projects_own_format_follows_its_spans(tmp_path):
    one, two = ("a b", [[0, 1]], "x"), ("a b", [[0, 1], [1, 2]], "y")
    cases = [("span", {}, [one]), ("span-pair", {}, [two]), ("token", {"kind": "token"}, [one])]
    for number, (kind, settings, examples) in enumerate(cases):
        files = {"train.jsonl": rows(*examples, (*examples[0][:2], "z")), "dev.jsonl": rows(*examples)}
        assert build(tmp_path, files, format="spans", out=f"o{number}", **settings)[0]["kind"] == kind
    for settings, words in (({"kind": "span-pair"},
                             "train.jsonl line 1: has 1 span(s), but tasks.own of kind span-pair needs 2"),
                            ({}, "dev.jsonl line 1: has 2 span(s), but tasks.own of kind span needs 1 in every split")):
        with pytest.raises(FinetraceError) as caught:
            build(tmp_path, {"train.jsonl": rows(one), "dev.jsonl": rows(two)}, format="spans", out="bad", **settings)
        assert words in str(caught.value)
    with pytest.raises(FinetraceError, match=r"jsonl line 1: marks 2 words, but tasks\.own is of kind token; use "
                                             r"kind: span"):
        build(tmp_path, {"train.jsonl": rows(("a b", [[0, 2]], "x"))}, format="spans", kind="token", out="bad")


@pytest.mark.parametrize(("train", "dev", "settings", "words"), [
    ([], DEV, {}, "x-ud-train.conllu: the split has no examples with a label; leave it out of `splits`, or choose"),
    (["a/_"], DEV, {}, "x-ud-train.conllu: the split has no examples with a label"),
    (TRAIN, DEV, {"label": "xpos"}, "x-ud-train.conllu: the split has no examples with a label"),
    (["a/X b/X"], ["c/X"], {}, "there is one class only (X)"),
    (TRAIN, None, {}, "has no validation split; name one in `splits` or set `holdout`, e.g. 0.1"),
    (["a/X b/Y c/Z"], None, {"holdout": 0.4}, "holdout: 0.4 leaves no training rows of 1"),
    (TRAIN, DEV, {"metric": "f1"}, "metric 'f1' needs 2 classes, but there are 6"),
    (TRAIN, DEV, {"splits": {"train": "no.conllu"}}, "no.conllu does not exist; the folder has x-ud-dev.conllu, x-ud-"),
    (TRAIN, DEV, {"path": "nowhere"}, "nowhere: no such file or folder"),
])
def test_what_makes_no_task_is_refused(tmp_path, train, dev, settings, words):
    assert words in refused(tmp_path, train, dev, **settings)
    assert not list(tmp_path.glob("out/*"))


def test_files_are_found_by_the_split_in_their_names(tmp_path):
    one = conllu(TRAIN)
    names = ["en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu"]
    assert set(build(tmp_path, dict.fromkeys(names, one), like="ud-pos")[1]) == {"train", "validation", "test"}
    with pytest.raises(FinetraceError, match=r"a\.train\.conllu, en_ewt-ud-train\.conllu could all be train; set "
                                             r"`splits`"):
        build(tmp_path, {"a.train.conllu": one}, like="ud-pos", out="o2")
    with pytest.raises(FinetraceError, match=r"has no train\.conllulex\|json\|tsv; name the files with `splits`"):
        build(tmp_path, {}, like="streusle-role", out="o3")
    with pytest.raises(FinetraceError, match=r"en_ewt-ud-dev\.conllu: a STREUSLE file ends in \.conllulex, \.json or "
                                             r"\.tsv"):
        build(tmp_path, {}, like="streusle-role", splits={"train": names[1]}, out="o4")


def test_streusle_files_of_different_forms_can_be_splits_of_one_task(tmp_path):
    header = "sent_id\tfirst_tok\tlast_tok\texpression\tlexcat\trole\tfunction\tsentence\n"
    table = header + "s\t1\t1\tfor\tP\tp.Cost\tp.Locus\tbill for me\ns\t2\t2\tme\tP\tp.Time\tp.Time\tbill for me\n"
    content = [{"sent_id": "t", "toks": [{"#": 1, "word": "for"}], "smwes": {},
                "swes": {"1": {"ss": "p.Goal", "ss2": "p.Time", "toknums": [1], "lexcat": "P"}}}]
    files = {"a.tsv": table, "b.json": json.dumps(content)}
    facts, tables = build(tmp_path, files, like="streusle-role", splits={"train": "a.tsv", "validation": "b.json"})
    assert facts["label_names"] == ["p.Cost", "p.Goal", "p.Time"] and facts["absent_from_train"] == ["p.Goal"]
    assert facts["kind"] == "span" and tables["validation"].to_pylist()[0]["source_id"] == "t:1"


def test_the_floor_knows_the_marked_words_only(tmp_path, monkeypatch):
    # The class follows from the marked word; the other words of the sentence say the opposite.
    examples = [(f"{'x' if i % 2 else 'y'} n{i} {'y' if i % 2 else 'x'}", [[0, 1]], "AB"[i % 2]) for i in range(40)]
    files = {"train.jsonl": rows(*examples), "dev.jsonl": rows(*examples[:10], ("z", [[0, 1]], "B"))}
    facts = build(tmp_path, files, format="spans")[0]
    assert facts["bag_of_words_accuracy"] >= 10 / 11 and facts["majority_accuracy"] in (round(5 / 11, 6),
                                                                                        round(6 / 11, 6))
    same = [("w w", [[i % 2, i % 2 + 1]], "AB"[i % 2]) for i in range(40)]
    files = {"train.jsonl": rows(*same), "dev.jsonl": rows(*same)}
    assert build(tmp_path, files, format="spans", out="o2")[0]["bag_of_words_accuracy"] == 0.5
    pairs = [("p q", [[0, 1], [1, 2]] if i % 2 else [[1, 2], [0, 1]], "AB"[i % 2]) for i in range(40)]
    files = {"train.jsonl": rows(*pairs), "dev.jsonl": rows(*pairs)}
    monkeypatch.setattr(baseline, "LARGEST", 20)
    assert build(tmp_path, files, format="spans", out="o3")[0]["bag_of_words_accuracy"] == 1.0


def test_the_same_files_give_the_same_bytes(tmp_path):
    for out in ("a", "b"):
        tree(tmp_path, holdout=0.3, dev=None, out=out)
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()
