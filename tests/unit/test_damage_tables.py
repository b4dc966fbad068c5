"""A flipped byte in a table is an error that names the file, not another value."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrace.errors import FinetraceError
from finetrace.store.tables import SegmentedTable, fixed_lists, merge_tables, read_table, write_table

ROWS = 300


def some_table() -> pa.Table:
    """Pages of every kind: plain values, a dictionary, lists, nulls."""
    draw = np.random.default_rng(0)
    return pa.table({
        "step": np.arange(ROWS), "loss": draw.normal(size=ROWS), "split": ["train", "test", None] * (ROWS // 3),
        "logits": fixed_lists(draw.normal(size=(ROWS, 3)))})


def ways(folder: Path) -> dict[str, Path]:
    """The same table as each writer of the store writes it."""
    table = some_table()
    write_table(folder / "one.parquet", table)
    merge_tables(folder / "merged.parquet", [table.slice(0, 100), table.slice(100)])
    segments = SegmentedTable(folder / "segments", "signals")
    segments.append(1, table)
    segments.flush()
    return {"one": folder / "one.parquet", "merged": folder / "merged.parquet", "segment": segments.segments()[0]}


@pytest.mark.parametrize("way", ["one", "merged", "segment"])
def test_a_flipped_byte_in_a_page_is_found(tmp_path: Path, way: str) -> None:
    path = ways(tmp_path)[way]
    whole, table = path.read_bytes(), some_table()
    meta = pq.read_metadata(path)
    columns = [meta.row_group(g).column(c) for g in range(meta.num_row_groups) for c in range(meta.num_columns)]
    first = min(c.dictionary_page_offset or c.data_page_offset for c in columns)
    end = max((c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in columns)
    found, other = 0, 0
    for place in np.random.default_rng(1).integers(first, end, 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        try:
            other += not read_table(path).equals(table)
        except FinetraceError as error:
            assert f"{path}: not a readable Parquet table" in str(error) and "run its stage again" in str(error)
            found += 1
    assert other == 0, "another value was read as a right one"
    assert found > 50, "what is left are bytes that stand for no value, such as statistics of a page"


def test_equal_tables_are_equal_bytes_with_checksums_too(tmp_path: Path) -> None:
    first, second = ways(tmp_path / "a"), ways(tmp_path / "b")
    for way, path in first.items():
        assert path.read_bytes() == second[way].read_bytes()
        assert read_table(path).equals(some_table())


def test_tables_of_others_without_checksums_are_read(tmp_path: Path) -> None:
    pq.write_table(some_table(), tmp_path / "theirs.parquet")
    assert read_table(tmp_path / "theirs.parquet").equals(some_table())
