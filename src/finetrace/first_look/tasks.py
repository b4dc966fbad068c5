"""The rows of a first look: a built-in task, a finished `data/TASK`, or files of one's own, as Parquet of a stage."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings, RowsSettings, TaskSettings
from finetrace.errors import FinetraceError
from finetrace.layout import slug
from finetrace.store.manifest import NAME, Manifest, complete, read_manifest

LABELS = ("label", "labels", "class", "category", "sentiment", "target", "stars", "rating", "y")
TEXTS: tuple[tuple[str, ...], ...] = (
    ("text_a", "text_b"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("text",), ("sentence",), ("review",), ("content",), ("question",), ("text_a",))
"""Columns with the text, or with both texts of a pair, in the order in which they are looked for."""
HOLDOUT = 0.5
"""Share of the rows of one file that is validation: here as many rows are scored as are learned from."""
KEYS = tuple(field.name for field in dataclasses.fields(RowsSettings))
READING = ("format", "quoting", "columns", "encoding", "splits", "files")
"""Keys of a task that say how its files are read."""
FEWEST = 2
"""Rows of a class that counts as one."""


@dataclass(frozen=True)
class Task:
    """Rows with labels.

    name: as in data/NAME of a study;  folder: train.parquet, validation.parquet and a manifest;  label_names: classes
    in order;  kind: sequence, pair, or one of marked words;  settings: what a study's file would say, None for a
    finished folder;  section: where it would say so, `tasks` or `task_files`.
    """

    name: str
    folder: Path
    label_names: list[str]
    kind: str
    settings: dict[str, Any] | None
    section: str = "tasks"


def find_task(named: str, text: Sequence[str], label: str | None, seed: int, scratch: Path,
              keys: Mapping[str, Any] | None = None) -> Task:
    """The task that a name or a path means.

    text, label: columns of files of one's own, guessed where not given;  seed: the study's, from which the choice of
    held out rows derives;  scratch: where the rows are written, as the stage data would;  keys: further ones of a task
    in a study. Raises FinetraceError naming the task and the nearest names, or file, row and column.
    """
    path = Path(named)
    if not path.exists():
        return _built_in(named, seed, scratch, dict(keys or {}))
    if (path / NAME).is_file():
        if keys:
            raise FinetraceError(f"--set: {named} is finished; name the file that it was made of")
        manifest = read_manifest(path)
        if manifest.kind != "data":
            raise FinetraceError(f"{named}: is no folder of a task, but of the stage {manifest.stage}; name data/TASK")
        facts = manifest.facts
        if facts.get("multi_label"):
            raise FinetraceError(f"{named}: its examples can have several labels, and a first look wants one")
        return Task(path.resolve().name, path, list(facts["label_names"]), facts["kind"], None)
    try:
        return _of_files(path, tuple(text), label, seed, scratch, dict(keys or {}))
    except FinetraceError as error:
        key = next((name for name in KEYS if re.search(rf"`{name}\b|\b{name}: [{{\[]", str(error))), None)
        raise FinetraceError(f"{error}; here with --set {key}=..." if key else str(error)) from error


def _of_files(path: Path, text: tuple[str, ...], label: str | None, seed: int, scratch: Path, keys: dict[str, Any]
              ) -> Task:
    from finetrace.data.readers import FORMATS
    from finetrace.data.registry import resolve

    name, given = slug(path.resolve().stem, "rows"), {"path": str(path)} | keys
    parse(FilesTaskSettings, given, "--set")  # what is wrong with the keys, before files are read
    given |= ({} if not text else {"text": list(text)}) | ({} if label is None else {"label": label})
    if "like" not in keys and keys.get("format") in (None, *FORMATS.values()):
        given |= _columns(path, text, label, keys)
    task: TaskSettings = parse(FilesTaskSettings, given, "--task")
    return _written(name, resolve(name, task) if "like" in keys else task, given, "task_files", seed, scratch)


def _built_in(named: str, seed: int, scratch: Path, keys: dict[str, Any]) -> Task:
    from finetrace.data.registry import entries, resolve
    from finetrace.data.world import MICRO_TASKS

    micro = named in MICRO_TASKS
    if not micro and named not in entries():
        known = [*entries(), *MICRO_TASKS]
        near = difflib.get_close_matches(named, known, 3, 0.4) or ["sst2", "mrpc", "mnli"]
        file = "no such file, and " if "/" in named or Path(named).suffix else ""
        raise FinetraceError(f"--task {named}: {file}no built-in task; the nearest are {', '.join(near)}; or name a "
                             "csv, tsv, jsonl or Parquet file with texts and labels")
    given: dict[str, Any] = keys | ({"source": "micro"} if micro else {})
    if "path" in keys or "like" in keys:
        raise FinetraceError(f"--set: {named} is a built-in task; name the file or folder itself with --task, and say "
                             f"--set like={named}")
    try:
        return _written(named, resolve(named, parse(TaskSettings, given, "--set")), given, "tasks", seed, scratch)
    except FinetraceError as error:
        where = f"params.yaml: tasks.{named}: "
        if not str(error).startswith(where):
            raise
        raise FinetraceError(f"--task {named}: {str(error).removeprefix(where)}; its files are yours: name the file "
                             f"or folder itself, with --set like={named}") from error


def _written(name: str, task: TaskSettings, given: dict[str, Any], section: str, seed: int, scratch: Path) -> Task:
    """Read and write the splits, as the stage data does, but for the floors that a training has to beat."""
    from finetrace.data.build import write_splits
    from finetrace.data.splits import hold_out
    from finetrace.data.tables import read_tables

    read = read_tables(name, task, Path.cwd(), seeds.derive(seed, "data"), _world(task, seed))
    if read.multi_label:
        raise FinetraceError(f"--task {name}: its examples can have several labels, and a first look wants one")
    tables = read.splits
    if "train" not in tables:
        raise FinetraceError(f"--task {name}: has no training rows, from which classifier probes learn; name another "
                             "task")
    if "validation" not in tables:
        share = task.holdout or HOLDOUT
        tables |= hold_out(tables["train"], share, seeds.derive(seed, "data"), task.holdout_rows or "random")
        given = given | {"holdout": share}
    folder = scratch / "data" / name
    write_splits({split: tables[split] for split in ("train", "validation")}, folder)
    facts = {"label_names": list(read.label_names), "kind": read.kind}
    complete(folder, Manifest("data", "data", name, "", {}, {}, {}, facts, versions={"finetrace": "look"}))
    return Task(name, folder, list(read.label_names), read.kind, given, section)


def _world(task: TaskSettings, seed: int) -> Any:
    if task.source != "micro":
        return None
    from finetrace.config.world import WorldSettings
    from finetrace.data.world import build_world

    return build_world(WorldSettings(), seeds.derive(seed, "world"))


def _columns(path: Path, text: tuple[str, ...], label: str | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys `text` and `label`: as given, else by the usual names of columns."""
    from finetrace.data.readers import read_files

    files = read_files("--task", parse(RowsSettings, {"source": "files", "path": str(path)} | {
        key: value for key, value in keys.items() if key in READING}, "--set"), Path.cwd())
    columns = (files.get("train") or next(iter(files.values()))).columns
    shown = f"its columns are {', '.join(columns)}"
    label = label or keys.get("label") or next((name for name in LABELS if name in columns), None)
    text = text or tuple(keys.get("text") or ())
    if label is None and "labels" not in keys:
        raise FinetraceError(f"{path}: has no column that is called a label; {shown}: say which it is with --label")
    if not text and "template" not in keys:
        others = [name for name in columns if name != label]
        guesses = [names for names in TEXTS if set(names) <= set(others)]
        text = guesses[0] if guesses else tuple(others) if len(others) == 1 else ()
    if not text and "template" not in keys:
        raise FinetraceError(f"{path}: has no column that is called a text; {shown}: say which it is, or which two are "
                             "a pair, with --text")
    given = ({"text": list(text)} if text else {}) | ({"label": label} if label else {})
    for name in (*text, *([label] if label else [])):
        if name not in columns:
            raise FinetraceError(f"{path}: has no column {name!r}; {shown}")
    return given


def require_rows(task: Task, splits: np.ndarray, labels: np.ndarray, rows: int) -> None:
    """Raises FinetraceError unless two classes at least have two rows in both splits.

    splits, labels: (row,) of the chosen rows;  rows: how many were asked for.
    """
    for split in ("train", "validation"):
        counts = np.bincount(labels[splits == split], minlength=len(task.label_names))
        if (counts >= FEWEST).sum() < 2:
            shown = ", ".join(f"{count} of {name!r}" for name, count in zip(task.label_names, counts, strict=True))
            advice = "raise --rows" if rows and counts.sum() >= rows else "give it more rows"
            raise FinetraceError(f"--task {task.name}: the {counts.sum()} rows of {split} are {shown}; two classes "
                                 f"need at least {FEWEST} rows each: {advice}")
