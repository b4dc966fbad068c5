"""What keeps the atlas of many runs small and readable: the growing table, keys, the figures' caps."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.outputs import fresh, manifest

from finetrace.atlas import table
from finetrace.atlas.collect import Entry, by_layer, lenses_at
from finetrace.atlas.comparisons import MOST, _calibration_intervals, _of, readable
from finetrace.atlas.growing import GrowingTable, Texts, texts_of
from finetrace.errors import FinetraceError
from finetrace.store.tables import write_table

TEXT = pa.dictionary(pa.int32(), pa.string())


def entries(*names: tuple[str, str, int]) -> list[Entry]:
    return [Entry("key", model, "t", method, seed, Path(), manifest("trajectory", "train", "x"))
            for model, method, seed in names]


def test_rows_of_many_sources_become_one_table() -> None:
    grown = GrowingTable({"place": TEXT, "what": TEXT, "step": pa.int64(), "value": pa.float64()})
    grown.append({"place": "b", "what": Texts(np.array([1, 0, 1]), ["z", "y"]), "step": -1,
                  "value": np.array([1.0, np.nan, 3])})
    grown.append({"place": "a", "what": "z", "step": np.array([5, 6]), "value": np.float32([4, 5])})
    made = grown.table({"version": "1"})
    assert made.schema.metadata == {b"version": b"1"} and made.column("place").num_chunks == 1
    assert made.column("what").chunk(0).dictionary.to_pylist() == ["y", "z"]
    assert made.to_pydict() == {"place": ["b", "b", "b", "a", "a"], "what": ["y", "z", "y", "z", "z"],
                                "step": [-1, -1, -1, 5, 6], "value": [1, pytest.approx(np.nan, nan_ok=True), 3, 4, 5]}
    assert made.column("value").null_count == 0  # unknown is NaN


def test_texts_are_those_that_rows_have() -> None:
    chunks = [pa.array(["b", None]), pa.array(["a", "b"])]
    unused = pa.DictionaryArray.from_arrays(pa.array([2, 0]), pa.array(["x", "unused", "y"]))
    for column, rows in ((pa.chunked_array(chunks), ["b", "", "a", "b"]),
                         (pa.chunked_array([chunk.dictionary_encode() for chunk in chunks]), ["b", "", "a", "b"]),
                         (pa.chunked_array([unused]), ["y", "x"]), (pa.chunked_array([pa.nulls(2)]), ["", ""])):
        found = texts_of(column)
        assert [found.texts[code] for code in found.codes] == rows and set(found.texts) == set(rows)


def test_keys_are_what_tells_rows_apart() -> None:
    rows = list(product(["mlp", "", "linear"], [-1, 0, 7], [True, False], [0.5]))
    own = dict(zip(("head", "seed", "scaled", "rate"), (np.array(column) for column in zip(*rows, strict=True)),
                   strict=True))
    columns = {name: table._column(pa.chunked_array([pa.array(values)])) for name, values in own.items()}
    found = table._keys(columns)
    assert isinstance(found, Texts)
    for code, (head, seed, scaled, _) in zip(found.codes, rows, strict=True):
        kept = [f"head={head}"] * (head != "") + [f"seed={seed}"] * (seed != -1) + [f"scaled={scaled}"]
        assert found.texts[code] == " ".join(kept)
    assert table._keys({}) == "" and table._keys({"rate": columns["rate"]}) == ""


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(FinetraceError, match=r"table\.parquet: not a readable Parquet table"):
        table._read(tmp_path / "table.parquet")


def test_figures_show_every_model_and_method_before_further_seeds() -> None:
    few = entries(("a", "ft", 1), ("a", "ft", 2), ("b", "ft", 1))
    assert readable(few) == few
    many = entries(*((model, "ft", seed) for model in "abcdefgh" for seed in (1, 2, 3)))
    shown = readable(many)
    assert len(shown) == MOST and shown == [entry for entry in many if entry in shown]
    assert {entry.model for entry in shown} == set("abcdefgh") and {entry.seed for entry in shown} == {1, 2}
    assert _of(12, 24) == " 12 of 24 trajectories; the page's other views have them all." and _of(3, 3) == ""


def test_a_figure_reads_only_its_rows(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "calibration")
    columns = {"step": [0, 9, 9, 9], "set": ["test"] * 4, "scaled": [False, False, True, False],
               "statistic": ["ece", "ece", "ece", "mce"], "layer": [0, 0, 1, 0], "value": [1.0, 2, 3, 4],
               "low": [0.5, 1.5, 2.5, 3.5], "high": [1.5, 2.5, 3.5, 4.5]}
    write_table(folder / "table.parquet", columns)
    (entry,) = entries(("a", "ft", 1))
    entry.folder = tmp_path
    entry.manifest.facts["kept_step"] = 9
    assert _calibration_intervals(entry) == {"test/ece/low": 1.5, "test/ece/high": 2.5}
    found = by_layer(tmp_path, "calibration", "ece", set="test")
    assert {layer: course.tolist() for layer, course in found.items()} == {
        0: [[1, 0.5, 1.5], [2, 1.5, 2.5]], 1: [[3, 2.5, 3.5]]}
    assert by_layer(tmp_path, "calibration", "absent") == {} and by_layer(tmp_path, "geometry", "ece") == {}


def test_places_know_their_lenses() -> None:
    assert lenses_at({"probes": ["a", "b"], "geometry": ["b", "b"]}) == {"a": ["probes"], "b": ["geometry", "probes"]}
