"""From the rows of a source to one table per split with numbered labels."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrace.config.data import RowsSettings, Target, target_of
from finetrace.data.annotated import FORMATS, kind_of, micro_kind, read_annotated, several_labels, word_table
from finetrace.data.examples import HEAD_FIRST, Annotated, Example
from finetrace.data.labels import (
    Classes,
    as_text,
    classes,
    found_names,
    is_number,
    label_number,
    left_out,
    sorted_names,
)
from finetrace.data.parallel import read_parallel
from finetrace.data.prepare import PREPARE
from finetrace.data.readers import Rows, read_files, read_hub
from finetrace.data.targets import SCORE, class_numbers, score_of, several_classes
from finetrace.data.texts import look_alike, row_texts, text_columns
from finetrace.errors import FinetraceError

Label = int | float | list[int] | None
"""Of one example: the number of its class, its score, the numbers of its classes; None: the row is left out."""


@dataclass
class Tables:
    """What a source gives: split -> table (columns: see `build_task`), the classes, the kind and what was read."""

    splits: dict[str, pa.Table]
    label_names: tuple[str, ...]
    kind: str
    origin: dict[str, Any]
    left_out: dict[str, dict[str, int]]
    """Split -> reason -> number of rows; splits without any are absent."""
    multi_label: bool = False
    """Whether an example can have several labels, or none."""
    target: Target = "class"
    """What is predicted of an example."""


def read_tables(name: str, task: RowsSettings, root: Path, seed: int, world: Any = None,
                only: str | None = None) -> Tables:
    """All splits of a resolved definition.

    name: its key in params.yaml, as tasks.cola, for messages;  only: the one split that is wanted; one class will do
    then. Raises FinetraceError naming data set, file, row or key.
    """
    dropped: dict[str, dict[str, int]] = {}
    if task.format in FORMATS or (task.source == "micro" and micro_kind(task.config or name)):
        annotated = _annotated(name, task, root, seed, world, only)
        splits, names = _word_tables(name, task, annotated, dropped, few=only is not None)
        origin = {split: part.origin for split, part in annotated.items()}
        multi = any("labels" in table.column_names for table in splits.values())
        if task.target and (task.target == "multi-label") != multi:
            raise FinetraceError(f"{name}: its examples have {'lists of labels' if multi else 'one label'} each, which "
                                 f"is not target: {task.target}; remove target")
        return Tables(splits, names, kind_of(name, task, annotated), origin, dropped, multi,
                      "multi-label" if multi else "class")
    rows = _rows(name, task, root, seed, world, only)
    first = rows.get("train") or next(iter(rows.values()))
    sources = rows.values() if task.format == "trec" else [first]
    column, target = _label_column(task), target_of(task)
    row_labels = ((row.get(column), place) for part in sources
                  for row, place in zip(part.values, part.places, strict=True))
    if target == "regression":
        known = Classes((SCORE,), ())
    elif target == "multi-label":
        known = several_classes(name, task, row_labels, first.label_names)
    else:
        known = classes(name, task, row_labels, first.label_names, few=only is not None)
    splits = {split: _table(name, task, part, known, dropped.setdefault(split, {})) for split, part in rows.items()}
    kind = task.kind or ("pair" if _have_pairs(splits) else "sequence")
    return Tables(splits, known.names, kind, {split: part.origin for split, part in rows.items()},
                  {split: counts for split, counts in dropped.items() if counts}, target == "multi-label", target)


def _rows(name: str, task: RowsSettings, root: Path, seed: int, world: Any, only: str | None) -> dict[str, Rows]:
    if task.source == "micro":
        splits = _micro_rows(name, task, world, seed, only)
    else:
        read = read_parallel if task.files else read_files
        splits = read_hub(name, task, only) if task.source == "hub" else read(name, task, root, only)
    for split, rows in splits.items():
        if task.prepare and rows.values:
            splits[split] = PREPARE[task.prepare](rows)
        _check_columns(name, task, splits[split])
    return splits


def _annotated(name: str, task: RowsSettings, root: Path, seed: int, world: Any,
               only: str | None) -> dict[str, Annotated]:
    """The examples of every split of a task of words; a split without any is an error."""
    if task.source == "micro":
        from finetrace.data.world import word_examples

        which = task.config or name
        splits = {split: Annotated(examples, origin={"world": which})
                  for split, examples in word_examples(world, which, seed, order=task.pair_order or HEAD_FIRST,
                                                       subtypes=task.subtypes, roots=bool(task.roots)).items()}
        splits = {only: splits[only]} if only else splits
    else:
        splits = read_annotated(name, task, root, only)
    for split, part in splits.items():
        if not part.examples:
            raise FinetraceError(f"{name}: {part.origin.get('file', split)}: the split has no examples with a label; "
                                 "leave it out of `splits`, or choose another `label`")
    return splits


def _word_tables(name: str, task: RowsSettings, splits: dict[str, Annotated], dropped: dict[str, dict[str, int]], *,
                 few: bool) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Tables and class names (those of all splits, sorted, unless given); fills `dropped`: split -> reason -> count."""
    multi_label = several_labels(name, splits)
    if multi_label and few:
        raise FinetraceError(f"{name}: its examples can have several labels, and no classifier is evaluated on such a "
                             "set; remove it from ood")
    places: dict[str, str] = {}
    for example in (e for part in splits.values() for e in part.examples):
        for label in (example.label,) if example.labels is None else example.labels:
            places.setdefault(label, example.place)
    values = task.label_values or {}
    labels = {values.get(text, text) for text in (as_text(label, place) for label, place in places.items())}
    if not task.label_names:
        found_names(places.items(), values)
        if not values:
            _one_way(splits)
    names = task.label_names or sorted_names(text for text in labels if text is not None)
    known = classes(name, task, (), names, few=few)
    number_of = {label: label_number(label, task, known, place) for label, place in places.items()}
    tables = {}
    for split, part in splits.items():
        numbers = [-1 if multi_label else number_of[example.label] for example in part.examples]
        lists = [_class_numbers(example, number_of) for example in part.examples] if multi_label else None
        table, long = word_table(part.examples, [-1 if n is None else n for n in numbers], task.max_words, lists)
        if not table.num_rows:
            raise FinetraceError(f"{name}: every sentence of {split} has more than {task.max_words} words; raise "
                                 "max_words")
        tables[split] = table.filter(pc.greater_equal(table["label"], 0)) if None in numbers else table
        counts = {**part.left_out, **({"sentences over max_words": long} if long else {})}
        for example in part.examples:
            for label in (example.label,) if example.labels is None else example.labels:
                if number_of[label] is None:
                    reason = left_out(label, task, known, example.place)
                    reason = reason.replace("rows", "labels", 1) if multi_label else reason
                    counts[reason] = counts.get(reason, 0) + 1
        _some_left(name, split, tables[split])
        if counts:
            dropped[split] = counts
    return tables, known.names


def _one_way(splits: dict[str, Annotated]) -> None:
    """Raises FinetraceError where train names its classes and another split numbers them."""
    labels = {split: {label: e.place for e in part.examples for label in ((e.label,) if e.labels is None else e.labels)}
              for split, part in splits.items()}
    named = labels.get("train", {})
    for split, others in labels.items():
        if others and all(map(is_number, others)) and named and not any(map(is_number, named)):
            label, place = next(iter(others.items()))
            raise FinetraceError(f"{place}: label {label} is a number, but train names its classes "
                                 f"({', '.join(sorted(named)[:5])}); mend {split}, or say with label_names which class "
                                 "is 0, which is 1, and so on")


def _class_numbers(example: Example, number_of: dict[str, int | None]) -> list[int]:
    """Class numbers of an example with several labels, ascending; those that the settings leave out are no labels."""
    return sorted({number for label in example.labels or () if (number := number_of[label]) is not None})


def _some_left(name: str, split: str, table: pa.Table) -> None:
    if not table.num_rows:
        raise FinetraceError(f"{name}: label_values or label_ranges leave out every row of {split}; mend them")


def _have_pairs(tables: dict[str, pa.Table]) -> bool:
    """Whether rows have a second text."""
    return any(table["text_b"].null_count < table.num_rows for table in tables.values())


def _micro_rows(name: str, task: RowsSettings, world: Any, seed: int, only: str | None) -> dict[str, Rows]:
    from finetrace.data.world import MICRO_TASKS, MICRO_WORD_TASKS, task_rows

    which = task.config or name
    if which not in MICRO_TASKS:
        raise FinetraceError(f"{name}: {which!r} is not a micro task; known: "
                             f"{', '.join([*MICRO_TASKS, *MICRO_WORD_TASKS])}")
    info = MICRO_TASKS[which]
    if only and only not in info.splits:
        raise FinetraceError(f"{name}: {which} has no split {only}; choose another with `split`: "
                             f"{', '.join(info.splits)}")
    return {split: Rows(["text_a", "text_b", "label"], rows, [f"{which} {split} row {i}" for i in range(len(rows))],
                        {"world": which}, tuple(info.label_names))
            for split, rows in task_rows(world, which, seed).items() if only in (None, split)}


def _label_column(task: RowsSettings) -> str:
    return "label" if task.source == "micro" or task.format == "pubmed" else str(task.label)


def _check_columns(name: str, task: RowsSettings, rows: Rows) -> None:
    if not rows.values:
        raise FinetraceError(f"{name}: {rows.origin.get('file') or rows.origin}: the split has no rows; leave "
                             "it out of `splits` or give it rows")
    extra_columns = [column for column in (task.id_column, task.group) if column]
    for column in [*text_columns(task), *(task.labels or [_label_column(task)]), *extra_columns]:
        if column not in rows.columns:
            hint = f"; is it {twin}?" if (twin := look_alike(column, rows.columns)) else ""
            if not hint and task.columns is None and rows.headed:
                hint = "; if the file has no header line, name its columns with `columns`"
            raise FinetraceError(f"{rows.places[0].rsplit(' ', 2)[0]}: has no column {column!r} ({name}); its "
                                 f"columns are {', '.join(rows.columns)}{hint}")


def _table(name: str, task: RowsSettings, rows: Rows, known: Classes, dropped: dict[str, int]) -> pa.Table:
    """The table of one split; `unit`, the source's row, is a column where one row was made into several."""
    label_of = _label_reader(task, known)
    row_numbers: list[int] = []
    labels: list[Any] = []
    texts: list[tuple[str, str | None]] = []
    ids: list[str | None] = []
    first_places: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for i, (row, place) in enumerate(zip(rows.values, rows.places, strict=True)):
        pair = row_texts(row, task, place)
        label = label_of(row, place)
        if label is None:
            counts[left_out(row.get(_label_column(task)), task, known, place)] += 1
            continue
        row_numbers.append(i)
        texts.append(pair)
        labels.append(label)
        if task.id_column:
            key = as_text(row.get(task.id_column), place, "id")
            if key in first_places:
                raise FinetraceError(f"{place}: id {key!r} stands already at {first_places[key]}; ids must be unique "
                                     "(or remove `id_column`)")
            first_places[key] = place
            ids.append(key)
    if texts and not any(text.strip() for pair in texts for text in pair if text):
        raise FinetraceError(f"{rows.places[0].rsplit(' ', 2)[0]}: every text is empty ({name}); is "
                             f"{' or '.join(text_columns(task))} the right column?")
    dropped |= counts
    table = pa.table({
        "example_id": pa.array(row_numbers, pa.int64()),
        "source_id": pa.array(ids or [None] * len(row_numbers), pa.string()),
        "text_a": pa.array([first for first, _ in texts], pa.string()),
        "text_b": pa.array([second for _, second in texts], pa.string()),
        **_label_columns(labels, target_of(task)),
        **({} if task.group is None else {"group": pa.array(_groups(rows, task.group, row_numbers), pa.string())}),
        **({} if rows.units is None else {"unit": pa.array(np.array(rows.units, np.int64)[row_numbers])}),
    })
    _some_left(name, rows.origin.get("file") or str(rows.origin), table)
    return table


def _label_reader(task: RowsSettings, known: Classes) -> Callable[[Mapping[str, Any], str], Label]:
    """A function from a row and its place to its label."""
    target, column = target_of(task), _label_column(task)
    if target == "regression":
        return lambda row, place: score_of(row.get(column), place)
    if target == "multi-label":
        return lambda row, place: class_numbers(row, task, known, place)
    return lambda row, place: label_number(row.get(column), task, known, place)


def _label_columns(labels: list[Any], target: Target) -> dict[str, pa.Array]:
    """The columns of the labels: `label` int32 (regression: float64), and where examples have several, `labels`."""
    if target == "regression":
        return {"label": pa.array(labels, pa.float64())}
    if target == "multi-label":
        return {"label": pa.array([-1] * len(labels), pa.int32()), "labels": pa.array(labels, pa.list_(pa.int32()))}
    return {"label": pa.array(labels, pa.int32())}


def _groups(rows: Rows, column: str, row_numbers: list[int]) -> list[str]:
    """The group of every kept row."""
    return [as_text(rows.values[i].get(column), rows.places[i], f"value of {column}") for i in row_numbers]
