"""Columns of numbers as text that a page carries, or a file beside it: compressed, and read back by a few lines of
JavaScript (templates/core.js)."""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.atlas.growing import renumbered

KINDS = ("float32", "int32", "uint16")
"""Types of columns; their names in JavaScript are Float32Array, Int32Array and Uint16Array."""
_ALIGNED = 4  # bytes: typed arrays begin at multiples of their size


def pack(columns: Mapping[str, np.ndarray], **about: Any) -> str:
    """Equally long columns and what is said about them, as base64 of gzip of

        number of bytes of the head (uint32, little-endian), head (JSON, padded by spaces), column after column

    columns: name -> (row,) float32, int32 or uint16;  about: plain values for the head, besides `rows` and `columns`
    (name, kind and offset of each). Equal input gives equal text. Raises ValueError for other types and lengths.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of unequal lengths: {sorted(lengths)}")
    listed, blocks, offset = [], [], 0
    for name, values in columns.items():
        if values.dtype.name not in KINDS:
            raise ValueError(f"{name}: {values.dtype} is none of {', '.join(KINDS)}")
        block = values.astype(values.dtype.newbyteorder("<")).tobytes()
        block += b"\0" * (-len(block) % _ALIGNED)
        listed.append({"name": name, "kind": values.dtype.name, "offset": offset})
        blocks.append(block)
        offset += len(block)
    rows = lengths.pop() if lengths else 0
    head = json.dumps({**about, "rows": rows, "columns": listed}, ensure_ascii=False, allow_nan=False).encode()
    head += b" " * (-len(head) % _ALIGNED)
    content = b"".join([len(head).to_bytes(4, "little"), head, *blocks])
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def pack_table(table: pa.Table, rows: np.ndarray | None = None, **about: Any) -> str:
    """A table, or some of its rows, packed: texts and truth values as numbers of the texts that the head has under
    `texts`, column -> texts; whole numbers as int32, others as float32.

    rows: (row,) positions. Raises ValueError where a whole number is too large.
    """
    columns: dict[str, np.ndarray] = {}
    texts: dict[str, list[str]] = {}
    for name in table.column_names:
        column = table.column(name)
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
        if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
            column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            codes = column.indices.to_numpy(zero_copy_only=False)
            used, codes = renumbered(codes if rows is None else codes[rows], len(column.dictionary))
            texts[name] = [str(column.dictionary[int(code)].as_py()) for code in used]
            columns[name] = codes.astype(np.uint16 if len(used) < 2**16 else np.int32)
        else:
            values = column.to_numpy(zero_copy_only=False)
            values = values if rows is None else values[rows]
            if pa.types.is_integer(column.type) and len(values) and np.abs(values).max() >= 2**31:
                raise ValueError(f"{name}: {np.abs(values).max()} is too large for the page")
            columns[name] = values.astype(np.int32 if pa.types.is_integer(column.type) else np.float32)
    return pack(columns, texts=texts, **about)
