"""The registry of built-in tasks: YAML entries beside this module, one per task."""

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from finetrace.config.base import as_dict, parse
from finetrace.config.data import (
    ANNOTATED,
    LABELS,
    FilesTaskSettings,
    OodSettings,
    RowsSettings,
    TaskSettings,
    ood_keys,
)
from finetrace.errors import FinetraceError

PACKAGE_DATA = ("tasks",)  # the files beside this module that decide results: part of a script's fingerprint
FOLDER = Path(__file__).parent / "tasks"
OF_SOURCE = ("source", "like", "id", "config", "path", "splits", "split")
"""Keys of a set out of distribution of which one must be given: else it would be the task itself."""
OF_PLACE = ("id", "config", "revision", "path", "format", "splits", "files")
"""Keys that say where a source's rows lie."""
OF_TASK = ("ood", "metric", "holdout", "holdout_rows", "max_rows", "group")
"""Keys of a task that say nothing about the rows of another set."""


@lru_cache
def entries() -> dict[str, dict[str, Any]]:
    """Task name -> its definition."""
    definitions: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for name, entry in yaml.safe_load(path.read_text("utf-8")).items():
            if name in definitions:
                raise FinetraceError(f"{path}: task {name!r} is defined twice")
            definitions[name] = entry
    return definitions


def resolve(name: str, settings: TaskSettings) -> TaskSettings:
    """A complete definition: the registry's entry with the study's changes, or the study's own definition.

    Raises FinetraceError when the name is unknown or the definition lacks a part.
    """
    where = f"params.yaml: {section_of(settings)}.{name}"
    if settings.source == "registry" or settings.like:
        given = {k: v for k, v in as_dict(settings).items() if v != TaskSettings.__dataclass_fields__[k].default}
        settings = parse(TaskSettings, _with_changes(_entry(settings.like or name, where), given), where)
    _check_complete(settings, name, where)
    return settings


def section_of(settings: TaskSettings) -> str:
    """The section of params.yaml that defines a task, for messages."""
    return "task_files" if isinstance(settings, FilesTaskSettings) else "tasks"


def resolve_ood(name: str, task: TaskSettings, section: str = "tasks") -> dict[str, OodSettings]:
    """Name -> complete definition of each set out of distribution of a resolved task; section: of params.yaml, for
    messages.

    A set with `like` starts from that built-in or micro task, one with `source` from nothing, any other from the task's
    own definition (without its label names, where it is another data set of the hub). Keys that are given win, also
    where they are a key's default.
    """
    if not task.ood:
        return {}
    from finetrace.data.world import MICRO_TASKS, MICRO_WORD_TASKS

    micro = (*MICRO_TASKS, *MICRO_WORD_TASKS)
    resolved = {}
    for key, entry in task.ood.items():
        where, given = f"params.yaml: {section}.{name}.ood.{key}", dict(ood_keys(entry) or {})
        if not any(part in given for part in OF_SOURCE):
            raise FinetraceError(f"{where}: is the task itself; say what it is with splits, path, config, "
                                 "id, like or source")
        if like := given.get("like"):
            base = {"source": "micro", "config": like} if like in micro else _entry(like, where, micro)
        elif given.get("source", "registry") == "registry":
            base = as_dict(task)
            if task.source == "micro":
                base["config"] = task.config or name
            if "id" in given or "config" in given:  # another data set numbers its classes in its own way
                base |= {"label_names": None, "label_values": None}
        else:
            base = {}
        known = {field.name for field in fields(OodSettings)}
        base = {k: v for k, v in base.items() if k in known and k not in OF_TASK}
        values = _with_changes(base, given)
        if values.get("source") == "files":
            values["path"] = values.get("path") or task.path
        resolved[key] = parse(OodSettings, values, where)
        _check_complete(resolved[key], name, where)
    return resolved


def _entry(name: str, where: str, other_tasks: tuple[str, ...] = ()) -> dict[str, Any]:
    if name not in entries():
        raise FinetraceError(f"{where}: {name!r} is not a built-in task "
                             f"({', '.join([*sorted(entries()), *other_tasks])}); define it with source, id or "
                             "path, text and label")
    return entries()[name]


def _with_changes(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A definition with changes; `text` and `template` replace each other, as do `label_values` and `label_ranges`,
    `label` and `labels`, `splits` and `files`. Another target has metrics of its own; `label_ranges` makes classes."""
    changes = {k: v for k, v in given.items() if k != "like" and (k, v) != ("source", "registry")}
    # what lies elsewhere has files and splits of its own
    if changes.get("source", base.get("source")) != base.get("source"):
        base = {k: v for k, v in base.items() if k not in OF_PLACE}
    merged = {**base, **changes}
    if changes.get("label_ranges") and "target" not in changes:
        merged.pop("target", None)
    if merged.get("target") != base.get("target") and "metric" not in changes:
        merged.pop("metric", None)
    for first, second in (("text", "template"), ("label_values", "label_ranges"), ("label", "labels"),
                          ("splits", "files")):
        for key, rival in ((first, second), (second, first)):
            if changes.get(key) is not None and changes.get(rival) is None:
                merged.pop(rival, None)
    return merged


def _check_complete(settings: RowsSettings, name: str, where: str) -> None:
    """Raises FinetraceError naming the key that a definition lacks."""
    needed: tuple[str, ...] = {"hub": ("id", "text", "label"),
                               "files": ("path", "text", "label")}.get(settings.source, ())
    if settings.format in ANNOTATED:
        needed = ("path", "label") if settings.format in LABELS else ("path",)
    for key in needed:
        if not getattr(settings, key) and not ((key == "text" and settings.template) or
                                               (key == "label" and settings.labels)):
            hint = " (or a `format`, as conllu or edges)" if (settings.source, key) == ("files", "text") else ""
            hint = f", or like: {name} for the built-in task" if name in entries() and key != "path" else hint
            raise FinetraceError(f"{where}: key {key!r} is missing; add it{hint}")
