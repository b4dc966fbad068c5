"""Sets out of distribution of a task: `data/<task>/ood/<name>.parquet`, with the task's own class numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.config.data import OodSettings
from finetrace.data.build import shares, write_splits
from finetrace.data.splits import limit_rows
from finetrace.data.tables import Tables, read_tables
from finetrace.errors import FinetraceError


def build_ood(name: str, sets: dict[str, OodSettings], out: Path, *, kind: str, label_names: tuple[str, ...],
              root: Path, seed: int, world: Any = None, section: str = "tasks") -> dict[str, Any]:
    """Write the resolved sets of a task into the folder `out`; returns the facts for its manifest.

    kind, label_names: of the task. Columns are those of the task (see `build_task`); labels are matched by name.
    Facts: kind, label_names and `sets`: name -> rows, label_shares, left_out (reason -> count, if any), origin. Raises
    FinetraceError when kinds differ or a class is not one of the task's.
    """
    tables, facts = {}, {}
    for key, settings in sets.items():
        where = f"{section}.{name}.ood.{key}"
        read = read_tables(where, settings, root, seed, world, only=settings.split)
        if read.kind != kind:
            raise FinetraceError(f"{where}: is of kind {read.kind}, but the task is of kind {kind}; both must be of "
                                 "one")
        table = _renumbered(where, read, settings.split, label_names)
        if limit := (settings.max_rows or {}).get(settings.split):
            table = limit_rows(table, limit, seed, key, settings.choose)
        tables[key] = table
        facts[key] = {"rows": table.num_rows, "label_shares": shares(table, label_names),
                      "origin": read.origin[settings.split], **({"left_out": read.left_out[settings.split]}
                                                                if settings.split in read.left_out else {})}
    write_splits(tables, out)
    return {"kind": kind, "label_names": list(label_names), "sets": facts}


def _renumbered(where: str, read: Tables, split: str, label_names: tuple[str, ...]) -> pa.Table:
    """The set's rows with the task's class numbers."""
    strange = [name for name in read.label_names if name not in label_names]
    if strange:
        example = ", ".join(f"{name}: null" for name in strange)
        raise FinetraceError(f"{where}: {', '.join(strange)}: no such class in the task, which has "
                             f"{', '.join(label_names)}; map them to its classes with label_values, or leave their "
                             f"rows out with label_values: {{{example}}}")
    table = read.splits[split]
    numbers = np.array([label_names.index(name) for name in read.label_names], np.int32)
    column = pa.array(numbers[table["label"].to_numpy()], pa.int32())
    return table.set_column(table.column_names.index("label"), "label", column)
