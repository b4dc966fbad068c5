"""Reading params.yaml: from a file or plain values to a checked study."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetrace.config.base import parse
from finetrace.config.training import TrainSettings, require_value
from finetrace.config.yamlfile import read_yaml
from finetrace.errors import FinetraceError
from finetrace.study.checks import check, check_training
from finetrace.study.study import NAMED, Study

GONE = {
    "cells": "runs",
    "trajectories": "runs",
    "inspected": "look",
    "predicted": "look",
    "kernels": "look",
    "edge_probes": "look.edges",
    "cloze_probes": "look.cloze",
}
"""Sections of an earlier form -> where that is said now."""


def load_study(path: Path) -> Study:
    """Read params.yaml. Raises FinetraceError naming file, line or key, and fix."""
    return parse_study(read_yaml(path), path.name)


def parse_study(content: Any, where: str) -> Study:
    """Check a study given as plain values; `where` is named in messages."""
    if not isinstance(content, dict):
        raise FinetraceError(f"{where}: is empty or not a mapping; start from studies/")
    for key in (k for k in content if k in GONE):
        raise FinetraceError(f"{where}: {key}: is no longer a section; say it in `{GONE[key]}` (docs/use.md)")
    study = parse(Study, {k: _named(v) if k in NAMED else v for k, v in content.items() if v is not None}, where)
    try:
        check(study)
    except ValueError as error:
        raise FinetraceError(f"{where}: {error}") from None
    train_keys = TrainSettings.__dataclass_fields__
    for place, changes in _changes(study):
        if unknown := {k: v for k, v in changes.items() if k not in train_keys}:  # also where no cell uses them
            parse(TrainSettings, unknown, f"{where}: {place}")
        for key, value in changes.items():
            try:
                require_value(key, value)
            except ValueError as error:
                raise FinetraceError(f"{where}: {place}: {error}") from None
    for key, cell in study.cells.items():
        try:
            check_training(study, cell, study.train_settings(cell, where), where)
        except FinetraceError as error:
            raise FinetraceError(f"{error} (for cell {key})") from None
    return study


def _changes(study: Study) -> Iterable[tuple[str, dict[str, Any]]]:
    """Every place that changes `train`, and the changes."""
    yield from ((f"by_model.{m}", c) for m, c in study.by_model.items())
    yield from ((f"by_task.{t}", c) for t, c in study.by_task.items())
    for name, method in study.methods.items():
        yield f"methods.{name}.train", method.train or {}
        yield from ((f"methods.{name}.by_task.{t}", c) for t, c in (method.by_task or {}).items())


def _named(section: Any) -> Any:
    """`sst2:` with nothing after it is an entry without changes; a number that stands for a name is a text."""
    if isinstance(section, dict):
        return {
            str(k) if isinstance(k, int) and not isinstance(k, bool) else k: {} if v is None else v
            for k, v in section.items()
        }
    return section
