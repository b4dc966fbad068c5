"""Columns as text and back: nothing is lost, equal input gives equal text, what does not fit is refused."""

import base64
import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from tests.atlas_pages import unpack

from finetrace.atlas.packing import KINDS, pack, pack_table

TEXTS = ["négatif", "</script><script>alert(1)</script>", "好, „gut“", ""]


def table(**columns: object) -> pa.Table:
    return pa.table({name: values if isinstance(values, pa.Array) else pa.array(values)
                     for name, values in columns.items()})


@pytest.mark.parametrize("rows", [0, 1, 3, 1000])
def test_all_kinds_come_back(rows: int) -> None:
    random = np.random.default_rng(rows)
    columns = {kind: (1000 * random.random(rows)).astype(kind) for kind in KINDS}
    found, head = unpack(pack(columns, slices=[[0, 1]], texts=TEXTS))
    assert list(found) == list(columns) and head["rows"] == rows
    for name, values in columns.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    assert head["slices"] == [[0, 1]] and head["texts"] == TEXTS


def test_numbers_at_the_ends_of_their_kinds() -> None:
    columns = {"a": np.array([np.nan, np.inf, -np.inf, -0.0], np.float32),
               "b": np.array([-2**31, 2**31 - 1, -1, 0], np.int32), "c": np.array([0, 2**16 - 1, 1, 2], np.uint16)}
    found, _ = unpack(pack(columns))
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)


def test_columns_begin_where_typed_arrays_may() -> None:
    """A Float32Array of JavaScript begins at a multiple of four bytes, whatever stands before it."""
    for rows in range(1, 5):
        columns = {"u": np.zeros(rows, np.uint16), "f": np.zeros(rows, np.float32), "v": np.ones(rows, np.uint16)}
        for about in ({}, {"x": "é"}, {"x": "éa"}, {"x": "éab"}):
            text = pack(columns, **about)
            size = int.from_bytes(gzip.decompress(base64.b64decode(text))[:4], "little")
            assert (4 + size) % 4 == 0 and all(column["offset"] % 4 == 0 for column in unpack(text)[1]["columns"])


def test_no_columns_are_no_rows() -> None:
    assert unpack(pack({}, a=1)) == ({}, {"a": 1, "rows": 0, "columns": []})


def test_equal_input_gives_equal_text() -> None:
    columns = {"a": np.arange(500, dtype=np.int32), "b": np.linspace(0, 1, 500, dtype=np.float32)}
    assert pack(columns, x=TEXTS) == pack({name: values.copy() for name, values in columns.items()}, x=list(TEXTS))
    assert pack(columns) != pack(columns, x=TEXTS)
    swapped = {name: values.astype(values.dtype.newbyteorder(">")) for name, values in columns.items()}
    assert pack(swapped, x=TEXTS) == pack(columns, x=TEXTS), "bytes are little-endian, whatever they were"


def test_the_text_may_stand_in_a_page() -> None:
    text = pack({}, texts=TEXTS)
    assert text.isascii() and not set("<>&\"'") & set(text)


@pytest.mark.parametrize("kind", ["float64", "int64", "uint8", "bool", "<U1"])
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"a: .* is none of float32, int32, uint16"):
        pack({"a": np.zeros(2, kind)})


def test_unequal_lengths_and_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unequal lengths: \[2, 3\]"):
        pack({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})
    with pytest.raises(ValueError):
        pack({}, low=float("nan"))


def test_a_table_with_all_its_types() -> None:
    codes = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.int32()), pa.array(["never", TEXTS[1]]))
    made = table(of=codes, text=[TEXTS[0], TEXTS[2], TEXTS[0]], true=[True, False, True], step=[-1, 40, 2**31 - 1],
                 value=[0.5, float("nan"), 1e-3])
    columns, head = unpack(pack_table(made, slices=[]))
    said = {name: [head["texts"][name][code] for code in columns[name]] for name in ("of", "text", "true")}
    assert said == {"of": [TEXTS[1], "never", TEXTS[1]], "text": [TEXTS[0], TEXTS[2], TEXTS[0]],
                    "true": ["True", "False", "True"]}
    assert columns["step"].tolist() == [-1, 40, 2**31 - 1] and columns["step"].dtype == np.int32
    np.testing.assert_array_equal(columns["value"], np.float32([0.5, np.nan, 1e-3]))
    assert columns["of"].dtype == np.uint16 and head["slices"] == []


def test_some_rows_of_a_table_with_their_texts_only() -> None:
    made = table(text=["a", "b", "c", "b"], value=[0.0, 1.0, 2.0, 3.0])
    columns, head = unpack(pack_table(made, np.array([3, 2])))
    assert head["texts"] == {"text": ["b", "c"]} and columns["text"].tolist() == [0, 1]
    assert columns["value"].tolist() == [3.0, 2.0]
    none, head = unpack(pack_table(made, np.array([], int)))
    assert head["rows"] == 0 and head["texts"] == {"text": []} and len(none["value"]) == 0


def test_many_texts_need_wider_numbers() -> None:
    texts = [f"text {i}" for i in range(2**16 + 1)]
    columns, head = unpack(pack_table(table(text=texts)))
    assert columns["text"].dtype == np.int32
    assert [head["texts"]["text"][code] for code in columns["text"][[0, -1]]] == [texts[0], texts[-1]]


@pytest.mark.parametrize("number", [2**31, -2**31 - 1])
def test_numbers_that_are_too_large_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"step: {abs(number)} is too large"):
        pack_table(table(step=[0, number]))
    assert unpack(pack_table(table(step=[0, number]), np.array([0])))[0]["step"].tolist() == [0], "rows left out"


def test_the_head_is_json_that_a_browser_reads() -> None:
    content = gzip.decompress(base64.b64decode(pack({"a": np.zeros(1, np.float32)}, texts=TEXTS)))
    size = int.from_bytes(content[:4], "little")
    assert json.loads(content[4:4 + size].decode("utf-8"))["texts"] == TEXTS
