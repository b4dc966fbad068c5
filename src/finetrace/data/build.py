"""From a task's definition to `data/<task>/{train,validation,test}.parquet` and its manifest facts."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrace.config.data import METRICS, SPANS, SPLITS, TaskSettings, target_of
from finetrace.data.baseline import floors
from finetrace.data.splits import hold_out, limit_rows, require_apart, units_of
from finetrace.data.tables import Tables, read_tables
from finetrace.data.targets import score_facts
from finetrace.errors import FinetraceError, blame
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
CLASSES = {"matthews": 2, "f1": 2}  # metric -> number of classes that it needs


def build_task(name: str, task: TaskSettings, out: Path, *, root: Path, seed: int, world: Any = None,
               section: str = "tasks") -> dict[str, Any]:
    """Write the splits of a resolved task into the folder `out`; returns the facts for its manifest.

    section: where params.yaml defines it, tasks or task_files, for messages.

    Columns: example_id int64 (number of the example in the source split), source_id string or null, text_a string,
    text_b string or null, label int32. Tasks of words (kinds token, span and span-pair) have also sentence int64
    (its number in the source split; examples of one sentence stand together and sentences ascend), words list<string>,
    and spans, a fixed-size list<int32> of 2 or 4: start and end (exclusive) word positions of the first, then of the
    second span. Where examples can have several labels (fact `multi_label`), `labels` list<int32> has their class
    numbers, ascending, and `label` is -1. Where a number is predicted (fact `target`: regression), `label` is float64.
    There `holdout` and `max_rows` count sentences that have examples, and no
    sentence is split; where `prepare` makes several examples of a row, they count the source's rows. Raises
    FinetraceError naming data set, file, row or key.
    """
    if task.source == "micro" and not task.config:
        task = replace(task, config=name)
    name = f"{section}.{name}"
    read = read_tables(name, task, root, seed, world)
    tables, label_names = read.splits, read.label_names
    if task.group:
        require_apart(name, tables, task.group)
    if task.holdout and "validation" not in tables and "train" in tables:
        tables |= hold_out(tables["train"], task.holdout, seed, task.holdout_rows or "random")
    for split, limit in (task.max_rows or {}).items():
        if split in tables:
            tables[split] = limit_rows(tables[split], limit, seed, split, task.choose)
    if "train" in tables and "validation" not in tables:
        raise FinetraceError(f"{name}: has no validation split; name one in `splits` or set `holdout`, e.g. 0.1")
    metric = _metric(name, task, read)
    label_facts = _about_labels(name, task, tables, read) | ({"tags": "bio"} if _has_entity_tags(task, read) else {})
    if task.group:
        label_facts["groups"] = {split: len(table["group"].unique()) for split, table in tables.items()}
    write_splits(tables, out)
    return {
        **label_facts,
        **({"left_out": read.left_out} if read.left_out else {}),
        "kind": read.kind,
        "spans": SPANS[read.kind],
        "label_names": list(label_names),
        "metric": metric,
        "rows": {split: table.num_rows for split, table in tables.items()},
        "sentences": {split: len(np.unique(units_of(table))) for split, table in tables.items()},
        "origin": read.origin,
    }


def _metric(name: str, task: TaskSettings, read: Tables) -> str:
    """The metric by which runs are compared. Raises FinetraceError for one that the task cannot have."""
    has_tags = _has_entity_tags(task, read)
    metric = task.metric or ("entity_f1" if has_tags else METRICS[read.target][0])
    if metric not in METRICS[read.target] or (metric == "entity_f1" and not has_tags):
        usual = [possible for possible in METRICS[read.target] if possible != "entity_f1" or has_tags]
        raise FinetraceError(f"{name}: metric {metric!r} is none of this task's; use {' or '.join(usual)}")
    if read.target == "class" and CLASSES.get(metric, len(read.label_names)) != len(read.label_names):
        raise FinetraceError(f"{name}: metric {metric!r} needs {CLASSES[metric]} classes, but there are "
                             f"{len(read.label_names)}; use accuracy or macro_f1")
    return metric


def _has_entity_tags(task: TaskSettings, read: Tables) -> bool:
    """Whether the classes are tags of words that mark entities."""
    return task.format == "bio" and read.kind == "token"


def _about_labels(name: str, task: TaskSettings, tables: dict[str, pa.Table], read: Tables) -> dict[str, Any]:
    """Facts of the labels: shares of the classes and the floors, or what the numbers are."""
    if read.target == "regression":
        with blame(name):
            return {"target": read.target, "scores": score_facts(tables)}
    return {**({"multi_label": True} if read.multi_label else floors(tables)),
            **({"target": target} if (target := target_of(task)) != "class" else {}),
            **_absent_classes(name, tables, read.label_names),
            "label_shares": {split: shares(table, read.label_names) for split, table in tables.items()}}


def write_splits(tables: dict[str, pa.Table], out: Path) -> None:
    """Write `out/NAME.parquet` of each table; `unit` and `group`, of use while rows are chosen, are not kept."""
    for split in [*(s for s in SPLITS if s in tables), *(s for s in tables if s not in SPLITS)]:
        table = tables[split]
        drop = [column for column in ("unit", "group") if column in table.column_names]
        write_table(out / f"{split}.parquet", table.drop_columns(drop) if drop else table)


def shares(table: pa.Table, label_names: tuple[str, ...]) -> dict[str, float]:
    """Label name -> share of the rows, 0 to 1; where rows can have several labels, the shares need not add up to 1."""
    counts = Counter(_labels(table).to_pylist())
    return {name: round(counts.get(i, 0) / table.num_rows, 6) for i, name in enumerate(label_names)}


def _labels(table: pa.Table) -> pa.ChunkedArray:
    """Class numbers of all rows, one after the other."""
    return pc.list_flatten(table["labels"]) if "labels" in table.column_names else table["label"]


def _absent_classes(name: str, tables: dict[str, pa.Table], label_names: tuple[str, ...]) -> dict[str, Any]:
    """Classes without a training row; they are kept, so that evaluation counts their rows as wrong."""
    if "train" not in tables:
        return {}
    present = set(_labels(tables["train"]).unique().to_pylist())
    absent = [text for i, text in enumerate(label_names) if i not in present]
    if absent:
        log.info(f"{name}: {len(absent)} of {len(label_names)} classes have no training example: {', '.join(absent)}")
    return {"absent_from_train": absent} if absent else {}
