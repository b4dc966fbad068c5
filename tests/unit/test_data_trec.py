"""The original files of TREC's question classification."""

import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError

TRAIN = "DESC:manner How do bees fly ?\nNUM:date When was it ?\nNUM:count How many ?\nHUM:ind Who is Pelé ?\n"
TEST = "LOC:city Where : in fact ?\nNUM:date When ?\n"


def build(root, train=TRAIN, test=TEST, out="out", **settings):
    (root / "qc").mkdir(exist_ok=True)
    (root / "qc" / "train_5500.label").write_bytes(train.encode("latin-1"))
    (root / "qc" / "TREC_10.label").write_bytes(test.encode("latin-1"))
    task = resolve("x", parse(FilesTaskSettings, {"path": "qc", "like": "trec-files", **settings}, "p"))
    facts = build_task("x", task, root / out, root=root, seed=0)
    return facts, {p.stem: pq.read_table(p) for p in (root / out).glob("*.parquet")}


def test_coarse_and_fine_classes(tmp_path):
    facts, tables = build(tmp_path)
    assert facts["label_names"] == ["DESC", "HUM", "LOC", "NUM"] and facts["kind"] == "sequence"
    assert facts["rows"] == {"train": 3, "validation": 1, "test": 2}
    assert tables["test"]["text_a"].to_pylist() == ["Where : in fact ?", "When ?"]
    assert tables["test"]["label"].to_pylist() == [2, 3]
    fine = build(tmp_path, like="trec-50-files", out="o2")[0]
    assert fine["label_names"] == ["DESC:manner", "HUM:ind", "LOC:city", "NUM:count", "NUM:date"]
    assert "LOC:city" in fine["absent_from_train"], "a class of the test set only is kept"


def test_the_files_are_latin_1(tmp_path):
    tables = build(tmp_path)[1]
    assert "Who is Pelé ?" in tables["train"]["text_a"].to_pylist() + tables["validation"]["text_a"].to_pylist()
    with pytest.raises(FinetraceError, match=r"train_5500\.label line 4: byte \d+ is not ascii"):
        build(tmp_path, encoding="ascii", out="o2")


def test_windows_line_ends_and_blank_lines_change_nothing(tmp_path):
    plain = build(tmp_path)[1]
    windows = build(tmp_path, TRAIN.replace("\n", "\r\n") + "\r\n\r\n", out="o2")[1]
    assert windows["train"].equals(plain["train"])


@pytest.mark.parametrize("line", ["DESC How ?", ":x How ?", "DESC: How ?", "DESC:manner", "DESC:manner ",
                                  "How do bees fly ?"])
def test_damaged_lines_are_named(tmp_path, line):
    with pytest.raises(FinetraceError, match=r"train_5500\.label line 5: .* does not begin with a label and a "
                                             r"question"):
        build(tmp_path, TRAIN + line + "\n")


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(FinetraceError, match=r"train_5500\.label: the split has no rows"):
        build(tmp_path, "\n")
