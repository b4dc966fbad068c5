"""Files that cannot be what they seem: headers that are absent, encodings, pipes, loops, letters that look alike."""

import os
from pathlib import Path

import pytest
from tests.row_files import GOOD, ROWS, build, csv_text, jsonl_text, refused, task, write

from finetrace.config.base import parse
from finetrace.config.corpora import CorpusSettings
from finetrace.config.data import FilesTaskSettings, TaskSettings
from finetrace.data.build import build_task
from finetrace.data.corpus import build_corpus
from finetrace.data.registry import resolve, resolve_ood
from finetrace.errors import FinetraceError

COLA = "gj04\t1\t\tOur friends came.\ngj04\t0\t*\tThey drank the pub.\ngj04\t1\t\tIt \"was\" so.\n"


# --- columns


def test_files_without_a_header_line(tmp_path: Path):
    write(tmp_path, in_domain_train_tsv=COLA, in_domain_dev_tsv=COLA)
    facts, tables = build(
        tmp_path, columns=["source", "label", "mark", "sentence"], text=["sentence"],
        label_names=["unacceptable", "acceptable"],
        splits={"train": "in_domain_train.tsv", "validation": "in_domain_dev.tsv"},
    )
    assert tables["train"]["text_a"].to_pylist() == ["Our friends came.", "They drank the pub.", 'It "was" so.']
    assert tables["train"]["label"].to_pylist() == [1, 0, 1] and facts["rows"]["train"] == 3


def test_a_header_that_is_a_row_is_guessed(tmp_path: Path):
    write(tmp_path, train_tsv=COLA)
    assert "; if the file has no header line, name its columns with `columns`" in refused(tmp_path, text=["sentence"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"columns": ["text", "label", "more"]},
         "train.csv line 1: 2 fields instead of the `columns`' 3; mend the line"),
        ({"columns": ["text", "text"]}, "columns: names none, or one twice"),
        ({"columns": []}, "columns: names none, or one twice"),
        ({"columns": ["text", "label"], "format": "jsonl"}, "columns: is for csv and tsv files"),
        ({"columns": ["text", "klass"]}, "has no column 'label'"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, settings: dict[str, object], told: str):
    write(tmp_path, train_csv=GOOD)
    assert told in refused(tmp_path, **settings)


def test_columns_that_look_alike(tmp_path: Path):
    write(tmp_path, train_csv="re\u0301sume\u0301,label\na,0\nb,1\n")
    assert "is it 're\u0301sume\u0301' (U+0072 U+0065 U+0301" in refused(tmp_path, text=["r\u00e9sum\u00e9"])
    write(tmp_path, train_csv="text, label\na,0\nb,1\n")
    assert "is it ' label' (U+0020 U+006C" in refused(tmp_path)


# --- encodings


@pytest.mark.parametrize("encoding", ["utf_8", "UTF8", "utf-8-sig", None])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, encoding: str | None):
    write(tmp_path, train_csv="\ufeff" + csv_text(ROWS))
    assert build(tmp_path, encoding=encoding, holdout=0.3)[0]["rows"]["train"] == 5


@pytest.mark.parametrize(
    ("written", "told"),
    [("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32")],
)
@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_two_bytes_per_character_are_seen(tmp_path: Path, written: str, told: str, encoding: str | None):
    write(tmp_path, train_csv=GOOD.encode(written))
    message = refused(tmp_path, encoding=encoding)
    assert f"set `encoding: {told}`" in message and "train.csv" in message
    assert build(tmp_path, encoding=told, holdout=0.5)[0]["rows"]["train"] == 1


@pytest.mark.parametrize("encoding", ["hex", "undefined", "no\0pe", "rot13"])
def test_encodings_that_are_none(tmp_path: Path, encoding: str):
    write(tmp_path, train_csv=GOOD)
    assert f"train.csv: encoding {encoding!r} is not known; use e.g. utf-8 or latin-1" in refused(tmp_path,
                                                                                                  encoding=encoding)


def test_half_a_character(tmp_path: Path):
    write(tmp_path, train_jsonl=jsonl_text(ROWS) + '{"text": "cut \\ud83d", "label": "good"}\n')
    assert "train.jsonl line 8: the column 'text' has half a character (U+D83D) at 4; mend the row" in refused(tmp_path)
    (tmp_path / "rows" / "train.jsonl").write_text('{"text": "cut \\ud83d", "spans": [[0, 1]], "label": "a"}\n')
    assert "train.jsonl line 1: the text has half a character" in refused(tmp_path, format="spans", text=None,
                                                                          label=None)
    corpus = parse(CorpusSettings, {"path": "rows", "format": "jsonl", "field": "text"}, "x")
    with pytest.raises(FinetraceError, match=r"train.jsonl line 1: the key 'text' has half a character"):
        build_corpus("c", corpus, tmp_path / "out", root=tmp_path, seed=0)


def test_deep_json(tmp_path: Path):
    write(tmp_path, train_jsonl="[" * 100_000 + "\n")
    assert "train.jsonl line 1: not valid JSON (brackets are nested too deeply)" in refused(tmp_path)


# --- what is no file


def test_a_folder_or_a_pipe_in_place_of_a_file(tmp_path: Path):
    folder = write(tmp_path)
    (folder / "train.csv").mkdir()
    assert "train.csv is a folder, not a file; put a file there" in refused(tmp_path)
    assert "train.csv is a folder, not a file" in refused(tmp_path, splits={"train": "train.csv"})
    (folder / "train.csv").rmdir()
    os.mkfifo(folder / "train.csv")
    assert "train.csv is a pipe or a device, not a file" in refused(tmp_path)
    assert "rows/train.csv is a pipe or a device" in refused(tmp_path, path="rows/train.csv")
    (folder / "train.csv").unlink()
    (folder / "train.csv").symlink_to("nowhere.csv")
    assert "train.csv is a link that leads nowhere" in refused(tmp_path)


@pytest.mark.parametrize("form", [{}, {"format": "semeval", "text": None, "label": None}])
def test_links_that_go_in_a_circle(tmp_path: Path, form: dict[str, None]):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "tasks.own: a" in refused(tmp_path, path="a", **form)
    corpus = parse(CorpusSettings, {"path": "a"}, "x")
    with pytest.raises(FinetraceError, match=r"corpora\.c: a"):
        build_corpus("c", corpus, tmp_path / "out", root=tmp_path, seed=0)


def test_one_file_per_class(tmp_path: Path):
    folder = write(tmp_path)
    for name in ("pos.txt", "neg.txt"):
        (folder / name).write_text("a\nb\n")
    message = refused(tmp_path)
    assert "the folder has neg.txt, pos.txt; classes that have a file each have to be one file" in message


# --- names in messages, and built-in tasks in local files


def test_messages_name_the_section(tmp_path: Path):
    write(tmp_path, train_csv=GOOD)
    with pytest.raises(FinetraceError, match=r"^task_files\.own: has no validation split"):
        build_task("own", task(), tmp_path / "out", root=tmp_path, seed=0, section="task_files")
    settings = parse(FilesTaskSettings, {"path": "x"}, "x")
    with pytest.raises(FinetraceError, match=r"params.yaml: task_files\.cola: key 'text' is missing"):
        resolve("cola", settings)
    values = {"source": "files", "path": "x", "text": ["a"], "label": "b", "ood": {"other": {"like": "nope"}}}
    whole = parse(TaskSettings, values, "x")
    with pytest.raises(FinetraceError, match=r"task_files\.cola\.ood\.other: 'nope' is not a built-in task"):
        resolve_ood("cola", whole, "task_files")


def test_a_built_in_task_in_local_files_needs_no_splits(tmp_path: Path):
    header = "index\tsentence1\tsentence2\tlabel\n"
    lines = ["0\tIt rains.\tIt is wet.\tentailment\n", "1\tIt rains.\tIt is dry.\tnot_entailment\n"]
    write(tmp_path, train_tsv=header + "".join(lines), dev_tsv=header + "".join(lines[::-1]))
    settings = resolve("mine", parse(FilesTaskSettings, {"path": "rows", "like": "rte"}, "x"))
    assert settings.splits is None and settings.id is None and settings.label_names == ("entailment", "not_entailment")
    facts = build_task("mine", settings, tmp_path / "out", root=tmp_path, seed=0)
    assert facts["rows"] == {"train": 2, "validation": 2} and facts["kind"] == "pair"


def test_a_built_in_task_of_files_keeps_its_own_splits():
    settings = resolve("mine", parse(FilesTaskSettings, {"path": "rows", "like": "pubmed-rct"}, "x"))
    assert settings.splits == {"train": "train.txt", "validation": "dev.txt",
                               "test": "test.txt"} and settings.format == "pubmed"
