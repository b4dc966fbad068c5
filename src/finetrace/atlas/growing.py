"""A table that grows by the rows of many sources: arrays until all are there, and texts as numbers of texts from the
start, so that millions of rows need little more memory than the table that they become."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa


class Texts(NamedTuple):
    """A column of texts. codes: (row,) integers, places in `texts`."""

    codes: np.ndarray
    texts: Sequence[str]


Rows = dict[str, Any]
"""Column -> Texts, (row,) numbers, or the one text or number that all rows have. At least one is no single value."""


def texts_of(column: pa.ChunkedArray) -> Texts:
    """A column of a table; null is the empty text, and a text that no row has is not among the texts."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).fill_null("").dictionary_encode()
    array = column.unify_dictionaries().combine_chunks()
    if array.null_count:
        array = array.cast(pa.string()).fill_null("").dictionary_encode()
    used, codes = renumbered(array.indices.to_numpy(), len(array.dictionary))
    return Texts(codes, array.dictionary.take(pa.array(used)).to_pylist())


def renumbered(codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes that occur, ascending, and (row,) int64 places among them: as `np.unique` gives them, without sorting
    the rows.

    codes: (row,) whole numbers in 0 .. count - 1.
    """
    used = np.flatnonzero(np.bincount(codes, minlength=count))
    numbers = np.zeros(count, np.int64)
    numbers[used] = np.arange(len(used))
    return used, numbers[codes]


class GrowingTable:
    """See above. types: column -> type; dictionaries hold texts."""

    def __init__(self, types: Mapping[str, pa.DataType]):
        self._types = dict(types)
        self._known: dict[str, dict[str, int]] = {
            name: {} for name, kind in types.items() if pa.types.is_dictionary(kind)}
        self._parts: dict[str, list[Any]] = {name: [] for name in types}
        self._counts: list[int] = []

    def append(self, rows: Rows) -> None:
        """Add rows, which have every column. New texts are known in their alphabetical order."""
        for name, parts in self._parts.items():
            parts.append(self._codes(name, rows[name]) if name in self._known else rows[name])
        self._counts.append(next(len(parts[-1]) for parts in self._parts.values() if np.ndim(parts[-1])))

    def table(self, metadata: Mapping[str, str]) -> pa.Table:
        """All rows in the order in which they came, one chunk per column; what was kept of them is let go."""
        ends = np.cumsum([0, *self._counts])
        arrays = []
        for name, kind in self._types.items():
            texts = self._known.get(name)
            stored = (pa.int32() if texts is not None else kind).to_pandas_dtype()
            values = np.empty(ends[-1], stored)
            for first, end, part in zip(ends[:-1], ends[1:], self._parts.pop(name), strict=True):
                values[first:end] = part
            array = pa.array(values)
            arrays.append(array if texts is None else pa.DictionaryArray.from_arrays(
                array, pa.array(list(texts), pa.string())))
        return pa.table(arrays, schema=pa.schema(list(self._types.items()), metadata=dict(metadata)))

    def _codes(self, name: str, given: Any) -> Any:
        known = self._known[name]
        if isinstance(given, str):
            return known.setdefault(given, len(known))
        for text in sorted(set(given.texts)):
            known.setdefault(text, len(known))
        return np.array([known[text] for text in given.texts], np.int32)[given.codes]
