"""Tasks from local files: what is read, what is refused and how the error helps."""


import pyarrow as pa
import pytest
from tests.row_files import FORMATS, GOOD, ROWS, build, csv_text, jsonl_text, parquet_bytes, refused, tsv_text, write

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
