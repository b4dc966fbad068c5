"""Who taught what: of the examples that the lens influence evaluated, the most helpful and most harmful training
examples, and those whose gradients are most alike and most opposed, for the page."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from finetrace.atlas.answers import shortened
from finetrace.atlas.collect import Entry
from finetrace.atlas.packing import pack_table
from finetrace.store.tables import read_table

LENS, PAIRS = "influence", "pairs.parquet"
_SHOWN = ["eval_example_id", "eval_text", "eval_label", "kind", "rank", "train_example_id", "train_text", "train_label",
          "influence", "cosine"]
_PROFILE = "step_"


def packed_influence(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Every training that the lens has looked at, and its packed pairs.parquet: the columns of `_SHOWN` and, of each
    checkpoint, `step_STEP`. Texts are cut after `LONGEST` characters."""
    for entry in entries:
        path = entry.folder / LENS / PAIRS
        if LENS in entry.metrics and path.is_file():
            table = read_table(path)
            profile = [name for name in table.column_names if name.startswith(_PROFILE)]
            yield entry, pack_table(_cut(table.select([*_SHOWN, *profile])))


def _cut(table: pa.Table) -> pa.Table:
    for name in ("eval_text", "train_text"):
        texts = table[name].cast(pa.string()).fill_null("").dictionary_encode().combine_chunks()
        short = pa.array([shortened(text) for text in texts.dictionary.to_pylist()], pa.string())
        table = table.set_column(table.column_names.index(name), name,
                                 pc.take(short, texts.indices).dictionary_encode())
    return table
