"""Tasks from local files: what is read, what is refused and how the error helps."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import TaskSettings
from finetrace.data import baseline
from finetrace.data.build import build_task
from finetrace.errors import FinetraceError

ROWS = [
    {"text": "a fine film", "label": "good"},
    {"text": "an awful film", "label": "bad"},
    {"text": "élève, où ça ? « oui »", "label": "good"},
    {"text": "这部电影很好", "label": "good"},
    {"text": "🎬 0/10 👎🏽", "label": "bad"},
    {"text": 'he said "no"', "label": "bad"},
    {"text": "  spaces  ", "label": "good"},
]


def task(**settings) -> TaskSettings:
    values = {"source": "files", "path": "rows", "text": ["text"], "label": "label", **settings}
    return parse(TaskSettings, {k: v for k, v in values.items() if v is not None}, "params.yaml: tasks.own")


def write(root: Path, **files: str | bytes) -> Path:
    """Files of rows/: `train_csv="..."` is rows/train.csv."""
    folder = root / "rows"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, extension = name.rsplit("_", 1)
        (folder / f"{stem}.{extension}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def build(root: Path, seed: int = 0, out: str = "out", **settings):
    """(facts, split -> table) of the task in rows/."""
    facts = build_task("own", task(**settings), root / out, root=root, seed=seed)
    return facts, {p.stem: pq.read_table(p) for p in (root / out).glob("*.parquet")}


def refused(root: Path, **settings) -> str:
    with pytest.raises(FinetraceError) as caught:
        build(root, **settings)
    assert not list(root.glob("out/*")), "nothing is written when rows are refused"
    return str(caught.value)


def csv_text(rows: list[dict[str, str]], ending: str = "\n") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["text", "label"], lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def tsv_text(rows: list[dict[str, str]], ending: str = "\n") -> str:
    return "".join("\t".join(r) + ending for r in (["text", "label"], *([r["text"], r["label"]] for r in rows)))


def jsonl_text(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


def parquet_bytes(rows: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


FORMATS = {"csv": csv_text, "tsv": tsv_text, "jsonl": jsonl_text, "parquet": parquet_bytes}
GOOD = "text,label\nfine,1\nawful,0\n"


# --- formats


def test_formats_give_identical_bytes(tmp_path):
    written = set()
    for extension, text in FORMATS.items():
        root = tmp_path / extension
        root.mkdir()
        write(root, **{f"train_{extension}": text(ROWS), f"test_{extension}": text(ROWS[:3])})
        facts, _ = build(root, holdout=0.3, max_rows={"test": 2})
        written.add(
            tuple((root / "out" / f"{split}.parquet").read_bytes() for split in ("train", "validation", "test"))
        )
        assert facts["rows"] == {"train": 5, "validation": 2, "test": 2}
        assert facts["label_names"] == ["bad", "good"]
        assert (
            facts["origin"]["train"]["file"] == f"train.{extension}" and len(facts["origin"]["train"]["sha256"]) == 64
        )
    assert len(written) == 1


def test_columns_and_types(tmp_path):
    write(tmp_path, train_csv=csv_text(ROWS), dev_csv=csv_text(ROWS))
    facts, tables = build(tmp_path)
    train = tables["train"]
    assert train.schema.names == ["example_id", "source_id", "text_a", "text_b", "label"]
    assert [str(t) for t in train.schema.types] == ["int64", "string", "string", "string", "int32"]
    assert train["text_a"].to_pylist() == [r["text"] for r in ROWS]
    assert train["label"].to_pylist() == [1, 0, 1, 1, 0, 0, 1]
    assert train["example_id"].to_pylist() == list(range(7))
    assert train["source_id"].null_count == train["text_b"].null_count == 7
    assert facts["kind"] == "sequence" and facts["metric"] == "accuracy"
    assert facts["label_shares"]["train"] == {"bad": round(3 / 7, 6), "good": round(4 / 7, 6)}


def test_pair_task_with_ids_and_other_column_names(tmp_path):
    rows = [{"no": f"q{i}", "q1": f"a{i}", "q2": f"b{i}", "same": i % 2} for i in range(6)]
    write(tmp_path, train_jsonl=jsonl_text(rows))
    facts, tables = build(
        tmp_path, text=["q1", "q2"], label="same", id_column="no", label_names=["no", "yes"], holdout=0.5
    )
    both = pa.concat_tables([tables["train"], tables["validation"]]).sort_by("example_id")
    assert facts["kind"] == "pair" and facts["label_names"] == ["no", "yes"]
    assert both["text_b"].to_pylist() == [r["q2"] for r in rows] and both["source_id"].to_pylist() == [
        r["no"] for r in rows
    ]


def test_pair_with_the_columns_turned_around(tmp_path):
    write(tmp_path, train_jsonl=jsonl_text([{"a": "first", "b": "second", "label": i} for i in (0, 1)]))
    tables = build(tmp_path, text=["b", "a"], holdout=0.5)[1]
    assert tables["train"].to_pylist()[0]["text_a"] == "second" and tables["train"].to_pylist()[0]["text_b"] == "first"


def test_tsv_quotes_are_plain_text(tmp_path):
    lines = ['"open quote only\t1', 'say "this" twice\t0', '""\t1', '"a" "b"\t0', "tab-free, comma\t1"]
    write(tmp_path, train_tsv="text\tlabel\n" + "\n".join(lines) + "\n")
    tables = build(tmp_path, holdout=0.2)[1]
    found = pa.concat_tables(tables.values()).sort_by("example_id")["text_a"].to_pylist()
    assert found == [line.split("\t")[0] for line in lines]


def test_quoting_can_be_turned_on_for_tsv_and_off_for_csv(tmp_path):
    write(tmp_path, train_tsv='text\tlabel\n"a\tb"\t0\n"c ""d"""\t1\n')
    tables = build(tmp_path, quoting="standard", holdout=0.5)[1]
    assert set(pa.concat_tables(tables.values())["text_a"].to_pylist()) == {"a\tb", 'c "d"'}
    (tmp_path / "rows" / "train.tsv").unlink()
    write(tmp_path, train_csv='text,label\n"a,0\n"b",1\n')
    tables = build(tmp_path, quoting="none", holdout=0.5)[1]
    assert set(pa.concat_tables(tables.values())["text_a"].to_pylist()) == {'"a', '"b"'}


def test_csv_with_newlines_commas_and_quotes_inside(tmp_path):
    texts = [
        "line one\nline two",
        "windows\r\nending",
        'a, "b"',
        "",
        "x\u2028y",
        "plain\u2028unquoted",
        "next\x85line",
        "form\x0cfeed",
    ]
    rows = [{"text": t, "label": str(i % 2)} for i, t in enumerate(texts)]
    write(tmp_path, train_csv=csv_text(rows), validation_jsonl=jsonl_text(rows), test_parquet=parquet_bytes(rows))
    tables = build(tmp_path)[1]
    assert tables["train"]["text_a"].to_pylist() == texts
    assert tables["validation"]["text_a"].to_pylist() == texts
    assert tables["test"]["text_a"].to_pylist() == texts


def test_tsv_lines_end_at_newlines_only(tmp_path):
    write(tmp_path, train_tsv="text\tlabel\na\u2028b\t0\nc\x85d\x0c\t1\n")
    tables = build(tmp_path, holdout=0.5)[1]
    assert set(pa.concat_tables(tables.values())["text_a"].to_pylist()) == {"a\u2028b", "c\x85d\x0c"}


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl"])
def test_windows_line_ends_bom_and_blank_lines_change_nothing(tmp_path, extension):
    text = FORMATS[extension](ROWS)
    plain, windows = tmp_path / "plain", tmp_path / "windows"
    for root, content in ((plain, text), (windows, "\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n")):
        root.mkdir()
        write(root, **{f"train_{extension}": content.encode()})
        build(root, holdout=0.3)
    assert (plain / "out" / "train.parquet").read_bytes() == (windows / "out" / "train.parquet").read_bytes()


def test_last_line_without_a_newline_counts(tmp_path):
    write(tmp_path, train_tsv="text\tlabel\na\t0\nb\t1", validation_csv="text,label\na,0\nb,1")
    assert build(tmp_path)[0]["rows"] == {"train": 2, "validation": 2}


@pytest.mark.parametrize(
    ("name", "settings"), [("train_txt", {}), ("train_dat", {"format": "tsv", "splits": {"train": "train.dat"}})]
)
def test_format_by_name_or_by_setting(tmp_path, name, settings):
    write(tmp_path, **{name: tsv_text(ROWS)})
    assert build(tmp_path, holdout=0.3, **settings)[0]["rows"]["train"] == 5


# --- encodings


def test_latin_1_names_the_line_and_works_when_told(tmp_path):
    write(tmp_path, train_csv="text,label\nplain,0\ncafé,1\n".encode("latin-1"))
    message = refused(tmp_path, holdout=0.5)
    assert "train.csv line 3: byte 22 is not utf-8" in message and "`encoding`, e.g. latin-1" in message
    tables = build(tmp_path, encoding="latin-1", holdout=0.5)[1]
    assert "café" in pa.concat_tables(tables.values())["text_a"].to_pylist()


def test_unknown_encoding(tmp_path):
    write(tmp_path, train_csv=GOOD)
    assert "train.csv: encoding 'klingon' is not known; use e.g. utf-8 or latin-1" in refused(
        tmp_path, encoding="klingon"
    )


def test_utf_16(tmp_path):
    write(tmp_path, train_csv=csv_text(ROWS).encode("utf-16"))
    assert "is not utf-8" in refused(tmp_path)
    assert build(tmp_path, encoding="utf-16", holdout=0.3)[0]["rows"]["train"] == 5


# --- shape


@pytest.mark.parametrize(
    ("name", "text", "line", "fields"),
    [
        ("train_csv", "text,label\na,0\nb,1,x\n", 3, 3),
        ("train_csv", 'text,label\n"a\nb",0\nc\n', 4, 1),
        ("train_tsv", "text\tlabel\na\t0\n\nb\n", 4, 1),
        ("train_tsv", "text\tlabel\na\tb\t0\n", 2, 3),
    ],
)
def test_wrong_number_of_fields_names_the_line(tmp_path, name, text, line, fields):
    write(tmp_path, **{name: text})
    message = refused(tmp_path)
    assert f"{name.replace('_', '.')} line {line}: {fields} fields instead of the header's 2; mend the line" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('text,label\na,0\n"b,1\n', "unexpected end of data"),
        ('text,label\n"a"b,0\n', "line 2: "),
        ("", "train.csv: is empty; a header line and rows are needed"),
        ("\n\n", "is empty"),
        ("text,label\n", "train.csv: the split has no rows"),
        ("text,label,text\na,0,b\n", "column 'text' stands twice in the header"),
    ],
)
def test_broken_csv(tmp_path, text, words):
    write(tmp_path, train_csv=text)
    assert words in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"text": "a", "label": 0}\n{"text": \n', "train.jsonl line 2: not valid JSON"),
        ('[{"text": "a"}]\n', "train.jsonl line 1: is not an object like"),
        ("\n\n", "the split has no rows"),
        ("", "the split has no rows"),
    ],
)
def test_broken_jsonl(tmp_path, text, words):
    write(tmp_path, train_jsonl=text)
    assert words in refused(tmp_path)


def test_broken_parquet(tmp_path):
    write(tmp_path, train_parquet=parquet_bytes(ROWS)[:-9])
    assert "train.parquet: not a readable Parquet table" in refused(tmp_path)


@pytest.mark.parametrize(
    ("settings", "column"),
    [
        ({"text": ["sentence"]}, "sentence"),
        ({"label": "klass"}, "klass"),
        ({"id_column": "nr"}, "nr"),
        ({"text": ["text", "text2"]}, "text2"),
    ],
)
@pytest.mark.parametrize("extension", sorted(FORMATS))
@pytest.mark.parametrize("named", [["bad", "good"], None])
def test_missing_column_lists_the_columns(tmp_path, settings, column, extension, named):
    write(tmp_path, **{f"train_{extension}": FORMATS[extension](ROWS)})
    message = refused(tmp_path, label_names=named, **settings)
    assert f"train.{extension}: has no column '{column}' (tasks.own); its columns are text, label" in message


@pytest.mark.parametrize(
    ("rows", "place", "shown"),
    [
        ([{"text": "a", "label": 0}, {"text": None, "label": 1}], "line 2", "None"),
        ([{"text": "a", "label": 0}, {"label": 1}], "line 2", "None"),
        ([{"text": float("nan"), "label": 0}, {"text": "b", "label": 1}], "line 1", "nan"),
        ([{"text": 5, "label": 0}, {"text": "b", "label": 1}], "line 1", "5"),
        ([{"text": ["a", "b"], "label": 0}, {"text": "b", "label": 1}], "line 1", "['a', 'b']"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, rows, place, shown):
    write(tmp_path, train_jsonl=jsonl_text(rows))
    assert f"train.jsonl {place}: column 'text' holds {shown}, not a text" in refused(tmp_path)


def test_null_text_in_parquet(tmp_path):
    write(tmp_path, train_parquet=parquet_bytes([{"text": "a", "label": 0}, {"text": None, "label": 1}]))
    assert "train.parquet row 1: column 'text' holds None" in refused(tmp_path)


# --- labels


def labels(root: Path, values: list[object], **settings) -> tuple[list[str], list[int]]:
    write(
        root,
        train_jsonl=jsonl_text([{"text": "t", "label": v} for v in values]),
        validation_jsonl=jsonl_text([{"text": "t", "label": v} for v in values]),
    )
    facts, tables = build(root, **settings)
    return facts["label_names"], tables["train"]["label"].to_pylist()


@pytest.mark.parametrize(
    ("values", "settings", "names", "numbers"),
    [
        ([1, 0, 2], {}, ["0", "1", "2"], [1, 0, 2]),
        ([10, 9, 10], {}, ["9", "10"], [1, 0, 1]),
        ([-1, 1], {}, ["-1", "1"], [0, 1]),
        (["1.0", "0.0"], {}, ["0", "1"], [1, 0]),
        ([1.0, 0], {}, ["0", "1"], [1, 0]),
        ([" 1 ", "0"], {}, ["0", "1"], [1, 0]),
        ([True, False], {}, ["False", "True"], [1, 0]),
        (["pos", "neg"], {}, ["neg", "pos"], [1, 0]),
        ([1, 0], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0]),
        (["1.0", "0.0"], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0]),
        (["pos", "neg", 1], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0, 1]),
        (["pos", "neg"], {"label_names": ["pos", "neg"]}, ["pos", "neg"], [0, 1]),
        ([2, 1], {"label_names": ["1", "2"]}, ["1", "2"], [1, 0]),
        (["4", "0"], {"label_values": {"0": "neg", "4": "pos"}, "label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0]),
        ([4, 0], {"label_values": {"0": "neg", "4": "pos"}}, ["neg", "pos"], [1, 0]),
        (["A", "b", "c"], {"label_values": {"A": "x", "b": "y", "c": "x"}}, ["x", "y"], [0, 1, 0]),
    ],
)
def test_labels_as_numbers_names_or_values(tmp_path, values, settings, names, numbers):
    assert labels(tmp_path, values, **settings) == (names, numbers)


@pytest.mark.parametrize(
    ("values", "settings", "words"),
    [
        (
            ["pos", "neg", "neu"],
            {"label_names": ["neg", "pos"]},
            "line 3: unknown label 'neu'; known: neg, pos; mend the row",
        ),
        ([0, 1, 2], {"label_names": ["neg", "pos"]}, "line 3: unknown label '2'; known: neg, pos"),
        ([0, 1], {"label_names": ["1", "2"]}, "line 1: unknown label '0'; known: 1, 2"),
        (
            [0, -1],
            {"label_names": ["neg", "pos"]},
            "line 2: unknown label '-1'; known: neg, pos; -1 says that the row carries no label",
        ),
        ([0, 3], {"label_values": {"0": "neg", "4": "pos"}}, "line 2: unknown label '3'; known: neg, pos"),
        ([0.5, 1], {"label_names": ["neg", "pos"]}, "line 1: unknown label '0.5'"),
        ([0, None, 1], {}, "line 2: has no label (None); mend or remove the row"),
        ([0, "", 1], {}, "line 2: has no label ('')"),
        ([0, float("nan"), 1], {"label_names": ["neg", "pos"]}, "line 2: has no label (nan)"),
        (["²", "x"], {"label_names": ["neg", "pos"]}, "line 1: unknown label '²'"),
        ([1, 1, 1], {}, "there is one class only (1); classification needs two or more"),
        ([1, 1.0, "1.0"], {}, "there is one class only (1)"),
    ],
)
def test_labels_that_are_refused(tmp_path, values, settings, words):
    write(tmp_path, train_jsonl=jsonl_text([{"text": "t", "label": v} for v in values]))
    assert words in refused(tmp_path, **settings)


def test_validation_label_that_training_does_not_have(tmp_path):
    write(tmp_path, train_csv="text,label\na,2\nb,4\n", validation_csv="text,label\na,2\nb,1\n")
    assert "validation.csv line 3: unknown label '1'; known: 2, 4" in refused(tmp_path)


def test_test_split_without_labels(tmp_path):
    write(tmp_path, train_csv=GOOD, validation_csv=GOOD, test_csv="text,label\na,-1\nb,-1\n")
    assert "leave it out of `splits`" in refused(tmp_path)
    assert build(tmp_path, splits={"train": "train.csv", "validation": "validation.csv"})[0]["rows"] == {
        "train": 2,
        "validation": 2,
    }


def test_duplicated_id_names_both_rows(tmp_path):
    write(tmp_path, train_csv="id,text,label\nx,a,0\ny,b,1\nx,c,1\n")
    message = refused(tmp_path, id_column="id")
    assert "train.csv line 4: id 'x' stands already at" in message and "train.csv line 2;" in message


def test_missing_id(tmp_path):
    write(tmp_path, train_csv="id,text,label\nx,a,0\n,b,1\n")
    assert "train.csv line 3: has no id ('')" in refused(tmp_path, id_column="id")


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_two_class_metric_with_three_classes(tmp_path, metric):
    write(tmp_path, train_csv="text,label\na,0\nb,1\nc,2\n", validation_csv="text,label\na,0\n")
    assert f"metric '{metric}' needs 2 classes, but there are 3; use accuracy or macro_f1" in refused(
        tmp_path, metric=metric
    )
    assert build(tmp_path, metric="macro_f1")[0]["metric"] == "macro_f1"


# --- splits


@pytest.mark.parametrize("place", ["../secret.csv", "/etc/passwd", "sub/../../secret.csv", "link.csv"])
def test_splits_cannot_leave_the_folder(tmp_path, place):
    write(tmp_path, train_csv=GOOD)
    (tmp_path / "secret.csv").write_text(GOOD)
    (tmp_path / "rows" / "link.csv").symlink_to(tmp_path / "secret.csv")
    assert "splits.test: " in (message := refused(tmp_path, splits={"train": "train.csv", "test": place}))
    assert "leaves the folder rows" in message


def test_splits_by_their_usual_names_or_as_told(tmp_path):
    write(tmp_path, train_csv=GOOD, val_tsv=tsv_text([{"text": "x", "label": "1"}]), notes_md="# no data")
    assert build(tmp_path)[0]["rows"] == {"train": 2, "validation": 1}
    (tmp_path / "rows" / "sub").mkdir()
    (tmp_path / "rows" / "sub" / "odd.csv").write_text(GOOD)
    assert build(tmp_path, splits={"test": "sub/odd.csv"}, out="out2")[0]["rows"] == {"test": 2}


def test_one_file_is_the_training_split(tmp_path):
    (tmp_path / "all.csv").write_text(csv_text(ROWS))
    assert build(tmp_path, path="all.csv", holdout=0.3)[0]["rows"] == {"train": 5, "validation": 2}
    with pytest.raises(FinetraceError, match="path is one file, so `splits` cannot name others"):
        build(tmp_path, path="all.csv", splits={"train": "all.csv"}, out="out2")


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        ({}, {"path": "nowhere"}, "nowhere: no such file or folder"),
        ({"notes_md": "x"}, {}, "has no train.csv|tsv|jsonl|parquet; name the files with `splits`"),
        ({"train_csv": GOOD, "train_tsv": "x"}, {}, "train.csv, train.tsv could all be train; set `splits`"),
        (
            {"train_csv": GOOD, "dev_csv": GOOD, "val_csv": GOOD},
            {},
            "dev.csv, val.csv could all be validation; set `splits`",
        ),
        ({"train_csv": GOOD}, {"splits": {"train": "trian.csv"}}, "trian.csv does not exist; the folder has train.csv"),
        ({"train_csv": GOOD}, {"splits": {"train": ""}}, "does not exist"),
        (
            {"train_xyz": GOOD},
            {"splits": {"train": "train.xyz"}},
            "its format is not known from its name; set `format`",
        ),
        ({"train_csv": GOOD}, {}, "has no validation split; name one in `splits` or set `holdout`, e.g. 0.1"),
        ({"train_csv": GOOD}, {"holdout": 0.9}, "holdout: 0.9 leaves no training rows of 2"),
        ({"train_csv": GOOD, "test_csv": "text,label\n"}, {"holdout": 0.5}, "test.csv: the split has no rows"),
    ],
)
def test_splits_that_do_not_work(tmp_path, files, settings, words):
    write(tmp_path, **files)
    assert words in refused(tmp_path, **settings)


def numbered(count: int) -> str:
    return csv_text([{"text": f"row {i}", "label": str(i % 2)} for i in range(count)])


def test_holdout_is_seeded_disjoint_and_in_order(tmp_path):
    write(tmp_path, train_csv=numbered(100))
    chosen = []
    for seed in (0, 0, 1):
        facts, tables = build(tmp_path, seed=seed, holdout=0.2, out=f"out{len(chosen)}")
        train, validation = (tables[s]["example_id"].to_pylist() for s in ("train", "validation"))
        assert facts["rows"] == {"train": 80, "validation": 20}
        assert sorted(train + validation) == list(range(100))
        assert train == sorted(train) and validation == sorted(validation)
        assert all(r["text_a"] == f"row {r['example_id']}" for t in tables.values() for r in t.to_pylist())
        chosen.append(validation)
    assert chosen[0] == chosen[1] != chosen[2]


def test_holdout_leaves_an_existing_validation_split_alone(tmp_path):
    write(tmp_path, train_csv=numbered(10), validation_csv=numbered(4))
    assert build(tmp_path, holdout=0.5)[0]["rows"] == {"train": 10, "validation": 4}


def test_max_rows_is_seeded_and_in_order_after_the_holdout(tmp_path):
    write(tmp_path, train_csv=numbered(100), test_csv=numbered(100))
    chosen = []
    for seed in (0, 0, 1):
        facts, tables = build(
            tmp_path,
            seed=seed,
            holdout=0.2,
            max_rows={"train": 30, "test": 30, "validation": 500},
            out=f"o{len(chosen)}",
        )
        found = {s: t["example_id"].to_pylist() for s, t in tables.items()}
        assert facts["rows"] == {"train": 30, "validation": 20, "test": 30}
        assert all(ids == sorted(set(ids)) for ids in found.values())
        assert not set(found["train"]) & set(found["validation"])
        assert found["train"] != found["test"], "splits are drawn independently"
        chosen.append(found)
    assert chosen[0] == chosen[1] != chosen[2]


def test_texts_that_are_all_empty(tmp_path):
    write(tmp_path, train_csv='text,label\n"",0\n" ",1\n', validation_csv=GOOD)
    assert "train.csv: every text is empty (tasks.own); is text the right column?" in refused(tmp_path)


def test_the_floor_of_a_large_task_whose_classes_alternate(monkeypatch):
    monkeypatch.setattr(baseline, "LARGEST", 50)
    rows = [{"text_a": f"{'good' if i % 2 else 'bad'} thing", "text_b": None, "label": i % 2} for i in range(100)]
    assert baseline.bag_of_words_accuracy(rows, rows[:10]) == 1.0


def test_what_a_model_has_to_beat_is_in_the_facts(tmp_path):
    rows = [{"text": f"{'good' if i % 3 else 'bad'} thing {i}", "label": "pos" if i % 3 else "neg"} for i in range(60)]
    write(tmp_path, train_csv=csv_text(rows), validation_csv=csv_text(rows[:30]))
    facts = build(tmp_path)[0]
    assert facts["majority_accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert facts["bag_of_words_accuracy"] == 1.0
