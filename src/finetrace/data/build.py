"""From a task's definition to `data/<task>/{train,validation,test}.parquet` and its manifest facts."""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.config.data import SPANS, SPLITS, TaskSettings
from finetrace.data.annotated import FORMATS, kind_of, micro_kind, read_annotated, word_table
from finetrace.data.baseline import floors
from finetrace.data.examples import Annotated
from finetrace.data.readers import Rows, read_files, read_hub
from finetrace.data.splits import hold_out, limit_rows, units_of
from finetrace.errors import FinetraceError
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
METRICS = {"matthews": 2, "f1": 2}  # metric -> number of classes that it needs


def build_task(name: str, task: TaskSettings, out: Path, *, root: Path, seed: int, world: Any = None) -> dict[str, Any]:
    """Write the splits of a resolved task into the folder `out`; returns the facts for its manifest.

    Columns: example_id int64 (number of the example in the source split), source_id string or null, text_a string,
    text_b string or null, label int32. Tasks of words (kinds token, span and span-pair) have also sentence int64 (its number in
    the source split; examples of one sentence stand together and sentences ascend), words list<string>, and spans, a fixed-size
    list<int32> of 2 or 4: start and end (exclusive) word positions of the first, then of the second span. There `holdout` and
    `max_rows` count sentences that have examples, and no sentence is split. Raises FinetraceError naming data set, file, row or
    key.
    """
    left_out: dict[str, dict[str, int]] = {}
    origin: dict[str, Any]
    if task.format in FORMATS or (task.source == "micro" and micro_kind(task.config or name)):
        annotated = _annotated(name, task, root, seed, world)
        kind = kind_of(name, task, annotated)
        tables, label_names = _word_tables(name, task, annotated, left_out)
        origin = {split: part.origin for split, part in annotated.items()}
    else:
        splits = _rows(name, task, root, seed, world)
        label_names = _label_names(name, task, splits)
        tables = {split: _table(name, task, rows, label_names) for split, rows in splits.items()}
        kind = task.kind or ("pair" if tables_have_pairs(tables) else "sequence")
        origin = {split: rows.origin for split, rows in splits.items()}
    if task.holdout and "validation" not in tables and "train" in tables:
        tables |= hold_out(tables["train"], task.holdout, seed)
    for split, limit in (task.max_rows or {}).items():
        if split in tables:
            tables[split] = limit_rows(tables[split], limit, seed, split, task.choose)
    if "train" in tables and "validation" not in tables:
        raise FinetraceError(f"tasks.{name}: has no validation split; name one in `splits` or set `holdout`, e.g. 0.1")
    metric = task.metric or "accuracy"
    if METRICS.get(metric, len(label_names)) != len(label_names):
        raise FinetraceError(f"tasks.{name}: metric {metric!r} needs {METRICS[metric]} classes, but there are "
                             f"{len(label_names)}; use accuracy or macro_f1")
    for split in SPLITS:
        if split in tables:
            write_table(out / f"{split}.parquet", tables[split])
    return {
        **floors(tables),
        **_absent(name, tables, label_names),
        **({"left_out": left_out} if left_out else {}),
        "kind": kind,
        "spans": SPANS[kind],
        "label_names": list(label_names),
        "metric": metric,
        "rows": {split: table.num_rows for split, table in tables.items()},
        "sentences": {split: len(np.unique(units_of(table))) for split, table in tables.items()},
        "label_shares": {split: _shares(table, label_names) for split, table in tables.items()},
        "origin": origin,
    }


def _rows(name: str, task: TaskSettings, root: Path, seed: int, world: Any) -> dict[str, Rows]:
    if task.source == "micro":
        splits = _micro_rows(name, task, world, seed)
    else:
        splits = read_hub(name, task) if task.source == "hub" else read_files(name, task, root)
    for rows in splits.values():
        _check_columns(name, task, rows)
    return splits


def _annotated(name: str, task: TaskSettings, root: Path, seed: int, world: Any) -> dict[str, Annotated]:
    """The examples of every split of a task of words; a split without any is an error."""
    if task.source == "micro":
        from finetrace.data.world import word_examples

        which = task.config or name
        splits = {split: Annotated(examples, origin={"world": which})
                  for split, examples in word_examples(world, which, seed, order=task.pair_order, subtypes=task.subtypes).items()}
    else:
        splits = read_annotated(name, task, root)
    for split, part in splits.items():
        if not part.examples:
            raise FinetraceError(f"tasks.{name}: {part.origin.get('file', split)}: the split has no examples with a label; "
                                 "leave it out of `splits`, or choose another `label`")
    return splits


def _word_tables(name: str, task: TaskSettings, splits: dict[str, Annotated],
                 left_out: dict[str, dict[str, int]]) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Tables and class names (those of all splits, sorted, unless given); fills `left_out`: split -> reason -> count."""
    places: dict[str, str] = {}
    for example in (e for part in splits.values() for e in part.examples):
        places.setdefault(example.label, example.place)
    found = {_text(label, place) for label, place in places.items()}
    names = _two_or_more(name, task.label_names or _sorted({(task.label_values or {}).get(text, text) for text in found}))
    numbers = {text: i for i, text in enumerate(names)}
    number_of = {label: _label(label, task, numbers, place) for label, place in places.items()}
    tables = {}
    for split, part in splits.items():
        labels = [number_of[example.label] for example in part.examples]
        tables[split], long = word_table(part.examples, labels, task.max_words)
        if not tables[split].num_rows:
            raise FinetraceError(f"tasks.{name}: every sentence of {split} has more than {task.max_words} words; raise max_words")
        if counts := {**part.left_out, **({"sentences over max_words": long} if long else {})}:
            left_out[split] = counts
    return tables, names


def _absent(name: str, tables: dict[str, pa.Table], label_names: tuple[str, ...]) -> dict[str, Any]:
    """Classes without a training row; they are kept, so that evaluation counts their rows as wrong."""
    if "train" not in tables:
        return {}
    known = set(tables["train"]["label"].unique().to_pylist())
    absent = [text for i, text in enumerate(label_names) if i not in known]
    if absent:
        log.info(f"tasks.{name}: {len(absent)} of {len(label_names)} classes have no training example: {', '.join(absent)}")
    return {"absent_from_train": absent} if absent else {}


def tables_have_pairs(tables: dict[str, pa.Table]) -> bool:
    """Whether rows have a second text."""
    return any(table["text_b"].null_count < table.num_rows for table in tables.values())


def _micro_rows(name: str, task: TaskSettings, world: Any, seed: int) -> dict[str, Rows]:
    from finetrace.data.world import MICRO_TASKS, MICRO_WORD_TASKS, task_rows

    which = task.config or name
    if which not in MICRO_TASKS:
        raise FinetraceError(f"tasks.{name}: {which!r} is not a micro task; known: "
                             f"{', '.join([*MICRO_TASKS, *MICRO_WORD_TASKS])}")
    info = MICRO_TASKS[which]
    return {split: Rows(["text_a", "text_b", "label"], rows, [f"{which} {split} row {i}" for i in range(len(rows))],
                        {"world": which}, tuple(info.label_names))
            for split, rows in task_rows(world, which, seed).items()}


def _label_names(name: str, task: TaskSettings, splits: dict[str, Rows]) -> tuple[str, ...]:
    first = splits.get("train") or next(iter(splits.values()))
    names = task.label_names or first.label_names
    if task.label_names and first.label_names and set(task.label_names) == set(first.label_names) \
            and task.label_names != first.label_names:
        raise FinetraceError(f"tasks.{name}: label_names are {', '.join(task.label_names)}, but the data set numbers "
                             f"them {', '.join(first.label_names)}; take its order, or remove label_names")
    if names is None and task.label_values:
        names = tuple(dict.fromkeys(task.label_values.values()))
    if names is None:
        column = _label_column(task)
        sources = splits.values() if task.format == "trec" else [first]
        names = _sorted({_text(row.get(column), place) for rows in sources
                         for row, place in zip(rows.values, rows.places, strict=True)})
    return _two_or_more(name, tuple(str(n) for n in names))


def _sorted(found: set[str]) -> tuple[str, ...]:
    return tuple(sorted(found, key=int) if all(map(_is_number, found)) else sorted(found))


def _two_or_more(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2:
        raise FinetraceError(f"tasks.{name}: there is one class only ({', '.join(names)}); classification needs two "
                             "or more")
    return names


def _label_column(task: TaskSettings) -> str:
    return "label" if task.source == "micro" else str(task.label)


def _text_columns(task: TaskSettings) -> tuple[str, ...]:
    if task.format == "trec":
        return ("text",)
    return ("text_a", "text_b") if task.source == "micro" else task.text or ()


def _check_columns(name: str, task: TaskSettings, rows: Rows) -> None:
    if not rows.values:
        raise FinetraceError(f"tasks.{name}: {rows.origin.get('file') or rows.origin}: the split has no rows; leave "
                             "it out of `splits` or give it rows")
    for column in [*_text_columns(task), _label_column(task), *([task.id_column] if task.id_column else [])]:
        if column not in rows.columns:
            raise FinetraceError(f"{rows.places[0].rsplit(' ', 2)[0]}: has no column {column!r} (tasks.{name}); its "
                                 f"columns are {', '.join(rows.columns)}")


def _table(name: str, task: TaskSettings, rows: Rows, label_names: tuple[str, ...]) -> pa.Table:
    texts = _text_columns(task)
    label = _label_column(task)
    second = texts[1] if len(texts) > 1 else None
    numbers = {text: i for i, text in enumerate(label_names)}
    labels: list[int] = []
    ids: list[str | None] = []
    seen: dict[str, str] = {}
    for row, place in zip(rows.values, rows.places, strict=True):
        for column in texts:
            if not isinstance(row.get(column), str) and not (task.source == "micro" and column == "text_b"):
                raise FinetraceError(f"{place}: column {column!r} holds {row.get(column)!r}, not a text")
        labels.append(_label(row.get(label), task, numbers, place))
        if task.id_column:
            key = _text(row.get(task.id_column), place, "id")
            if key in seen:
                raise FinetraceError(f"{place}: id {key!r} stands already at {seen[key]}; ids must be unique "
                                     "(or remove `id_column`)")
            seen[key] = place
            ids.append(key)
    if not any(row[column].strip() for row in rows.values for column in texts if row.get(column)):
        raise FinetraceError(f"{rows.places[0].rsplit(' ', 2)[0]}: every text is empty (tasks.{name}); is "
                             f"{' or '.join(texts)} the right column?")
    return pa.table({
        "example_id": pa.array(range(len(labels)), pa.int64()),
        "source_id": pa.array(ids or [None] * len(labels), pa.string()),
        "text_a": pa.array([row[texts[0]] for row in rows.values], pa.string()),
        "text_b": pa.array([row.get(second) if second else None for row in rows.values], pa.string()),
        "label": pa.array(labels, pa.int32()),
    })


def _label(value: Any, task: TaskSettings, numbers: dict[str, int], place: str) -> int:
    text = _text(value, place)
    text = (task.label_values or {}).get(text, text)
    if text in numbers:
        return numbers[text]
    named = not any(map(_is_number, numbers))  # where names are numerals, 0 is not short for the first of them
    if named and text.isdecimal() and int(text) < len(numbers) and not task.label_values:
        return int(text)
    hint = "mend the row, or set label_names or label_values"
    if text == "-1":
        hint = "-1 says that the row carries no label; if the whole split is so, leave it out of `splits`"
    raise FinetraceError(f"{place}: unknown label {text!r}; known: {', '.join(numbers)}; {hint}")


def _text(value: Any, place: str, what: str = "label") -> str:
    """A label or id as text; 1, 1.0, "1" and "1.0" (which pandas writes for 1) are the same."""
    if value is None or value != value or not str(value).strip():
        raise FinetraceError(f"{place}: has no {what} ({value!r}); mend or remove the row")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.split(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-?[0-9]+", text))


def _shares(table: pa.Table, label_names: tuple[str, ...]) -> dict[str, float]:
    counts = Counter(table["label"].to_pylist())
    return {name: round(counts.get(i, 0) / table.num_rows, 6) for i, name in enumerate(label_names)}
