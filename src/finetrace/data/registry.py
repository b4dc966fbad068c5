"""The registry of built-in tasks: YAML entries beside this module, one per task."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from finetrace.config.base import as_dict, parse
from finetrace.config.data import ANNOTATED, TaskSettings
from finetrace.errors import FinetraceError

FOLDER = Path(__file__).parent / "tasks"


@lru_cache
def entries() -> dict[str, dict[str, Any]]:
    """Task name -> its definition."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for name, entry in yaml.safe_load(path.read_text("utf-8")).items():
            if name in found:
                raise FinetraceError(f"{path}: task {name!r} is defined twice")
            found[name] = entry
    return found


def resolve(name: str, settings: TaskSettings) -> TaskSettings:
    """A complete definition: the registry's entry with the study's changes, or the study's own definition.

    Raises FinetraceError when the name is unknown or the definition lacks a part.
    """
    if settings.source == "registry" or settings.like:
        entry = settings.like or name
        if entry not in entries():
            raise FinetraceError(f"params.yaml: tasks.{name}: {entry!r} is not a built-in task "
                                 f"({', '.join(sorted(entries()))}); define it with source, id or path, text and label")
        changes = {k: v for k, v in as_dict(settings).items()
                   if v != TaskSettings.__dataclass_fields__[k].default and k != "like"}
        if settings.source == "registry":
            changes.pop("source", None)
        settings = parse(TaskSettings, {**entries()[entry], **changes}, f"params.yaml: tasks.{name}")
    needed: tuple[str, ...] = {"hub": ("id", "text", "label"), "files": ("path", "text", "label")}.get(settings.source, ())
    if settings.format in ANNOTATED:
        needed = ("path",) if settings.format == "spans" else ("path", "label")
    for key in needed:
        if not getattr(settings, key):
            hint = " (or format: conllu, streusle, trec or spans)" if (settings.source, key) == ("files", "text") else ""
            hint = f", or like: {name} for the built-in task" if name in entries() and key != "path" else hint
            raise FinetraceError(f"params.yaml: tasks.{name}: key {key!r} is missing; add it{hint}")
    return settings
