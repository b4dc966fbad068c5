"""Parquet tables: atomic writes, streaming segments that survive a crash, equal content in equal bytes.

Every page carries a checksum, so that a damaged one is an error to whoever reads it, here or with other programs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetrace.errors import FinetraceError
from finetrace.store.files import atomic_file

if TYPE_CHECKING:
    from finetrace.longtable import LongTable

ROW_GROUP = 65_536  # rows; fixed, so that a file's bytes do not depend on how its rows arrived


def write_table(path: Path, columns: Mapping[str, Any] | pa.Table) -> None:
    """Write one Parquet file atomically. `columns`: name -> sequence of equal length, or an Arrow table."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, write_page_checksum=True)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file; a damaged or missing file is an error that names it."""
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise FinetraceError(f"{path}: no such table; run the stage that writes it (dvc repro)") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise FinetraceError(f"{path}: not a readable Parquet table ({error}); delete it and run its stage "
                             "again") from error


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file; errors as those of `read_table`."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError):
        return read_table(path).column_names  # which says what is wrong


def read_long_table(path: Path) -> "LongTable":
    """The long table of a lens; null is read as NaN. Raises FinetraceError as `read_table` does."""
    from finetrace.longtable import LongTable

    table = read_table(path)
    return LongTable.of_columns({name: table[name].to_numpy() for name in table.column_names})


def fixed_lists(values: Any) -> pa.Array:
    """A (row, width) float32 array as an Arrow column of fixed-size lists."""
    import numpy as np

    values = np.ascontiguousarray(values, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def matrix(table: pa.Table, column: str) -> Any:
    """The inverse of `fixed_lists`: a column of fixed-size lists as a (row, width) array."""
    chunked = table[column].combine_chunks()
    width = chunked.type.list_size
    return chunked.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


class SegmentedTable:
    """A growing table kept as immutable Parquet segments, each named by the steps that it covers.

    Rows are buffered with `append` and become durable with `flush`. After a crash, `truncate(step)` drops every
    segment that goes past `step`; `merge` writes one Parquet file whose bytes do not depend on the segments.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows: list[pa.Table] = []
        self._first: int | None = None
        self._last = -1

    def append(self, step: int, table: pa.Table) -> None:
        """Add rows that belong to `step`; steps must not decrease."""
        if step < self._last:
            raise ValueError(f"{self.name}: step {step} after step {self._last}")
        self._first = step if self._first is None else self._first
        self._last = step
        self._rows.append(table)

    def flush(self) -> None:
        """Make all buffered rows durable."""
        if self._rows:
            path = self.folder / f"{self.name}-{self._first:010d}-{self._last:010d}.parquet"
            if path.is_file():  # rows of a step that was made durable before: they follow those
                self._rows.insert(0, read_table(path))
            write_table(path, pa.concat_tables(self._rows))
        self._rows, self._first = [], None

    def segments(self) -> list[Path]:
        """The durable segments in step order."""
        return sorted(self.folder.glob(f"{self.name}-*.parquet"))

    def truncate(self, step: int) -> None:
        """Forget every segment that covers a step after `step`."""
        self._rows, self._first, self._last = [], None, step
        for path in self.segments():
            if int(path.stem.rsplit("-", 1)[1]) > step:
                path.unlink()

    def merge(self, path: Path) -> int:
        """Write all segments into one Parquet file, streaming; returns the number of rows."""
        self.flush()
        return merge_tables(path, (read_table(p) for p in self.segments()))


def merge_tables(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables of one schema into one Parquet file with row groups of `ROW_GROUP` rows; returns the row count."""
    writer, pending, rows = None, None, 0
    with atomic_file(path) as temporary:
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(temporary, table.schema, write_page_checksum=True)
                pending = table if pending is None else pa.concat_tables([pending, table])
                while pending.num_rows >= ROW_GROUP:
                    writer.write_table(pending.slice(0, ROW_GROUP).combine_chunks(), ROW_GROUP)
                    pending, rows = pending.slice(ROW_GROUP), rows + ROW_GROUP
            if writer is None:
                raise ValueError(f"{path}: no rows to write")
            if pending is not None and pending.num_rows:
                writer.write_table(pending.combine_chunks(), ROW_GROUP)
                rows += pending.num_rows
        finally:
            if writer is not None:
                writer.close()
    return rows
