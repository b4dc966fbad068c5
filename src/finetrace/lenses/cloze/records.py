"""Ranks of one checkpoint as a table with one row per fact, layer and read-out, and back."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from finetrace.lenses.cloze.ranking import Ranks

_NUMBERS = {"rank": pa.int32(), "rank_full": pa.int32(), "rank_candidates": pa.int32(), "log_prob": pa.float32()}


def to_table(ranks_of: Mapping[str, Ranks]) -> pa.Table:
    """Columns fact int32, layer int8, readout string, rank, rank_full, rank_candidates int32 (0 without candidates),
    log_prob float32 (nats), top list<int32>; read-out after read-out, layer after layer, fact after fact."""
    parts = []
    for readout, ranks in ranks_of.items():
        layers, facts = ranks.rank.shape
        top = ranks.top.reshape(layers * facts, -1)
        offsets = np.arange(layers * facts + 1, dtype=np.int32) * np.int32(top.shape[1])
        parts.append(pa.table({
            "fact": pa.array(np.tile(np.arange(facts, dtype=np.int32), layers)),
            "layer": pa.array(np.repeat(np.arange(layers, dtype=np.int8), facts)),
            "readout": pa.array([readout] * (layers * facts)),
            **{name: pa.array(getattr(ranks, name).reshape(-1), kind) for name, kind in _NUMBERS.items()},
            "top": pa.ListArray.from_arrays(pa.array(offsets), pa.array(top.reshape(-1), pa.int32()))}))
    return pa.concat_tables(parts)


def from_table(table: pa.Table) -> dict[str, Ranks]:
    """The inverse of `to_table`; the column `top` may be missing, then top has no entries. Raises ValueError for a
    table that is not whole."""
    readouts = table["readout"].to_numpy(zero_copy_only=False)
    result = {}
    for readout in dict.fromkeys(readouts.tolist()):
        part = table.filter(pa.array(readouts == readout))
        layers, facts = int(part["layer"].to_numpy().max()) + 1, int(part["fact"].to_numpy().max()) + 1
        if part.num_rows != layers * facts:
            raise ValueError(f"read-out {readout}: {part.num_rows} rows are not {layers} layers x {facts} facts")
        values = {name: part[name].to_numpy().reshape(layers, facts) for name in _NUMBERS}
        top = np.empty((layers, facts, 0), dtype=np.int32)
        if "top" in part.column_names:
            top = part["top"].combine_chunks().flatten().to_numpy().reshape(layers, facts, -1)
        result[readout] = Ranks(values["rank"], values["rank_full"], values["log_prob"], top, values["rank_candidates"])
    return result
