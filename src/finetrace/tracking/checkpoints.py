"""The kept checkpoints of a trajectory, each with what the lenses measured at it: reads files only."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.headline import AtCheckpoint, columns_of
from finetrace.store.files import sha256_value
from finetrace.store.manifest import Manifest
from finetrace.tracking.curves import history_series, read_curves
from finetrace.tracking.described import at_checkpoints_of
from finetrace.tracking.series import Series, metric_name

FORMAT = 1  # raise it when the same files shall be told otherwise
CURVES = "curves.csv"
SERIES = "series.json"
"""Of a series of checkpoints that were made elsewhere: where they lie."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint. weights: its folder, or where the hub has it;  sha256: file -> hash;  numbers: LENS/NAME ->
    value, all finite."""

    step: int
    weights: str
    sha256: dict[str, str]
    numbers: dict[str, float]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a trajectory. digest: changes with what would be told of them, known without reading it."""

    digest: str
    load: Callable[[], list[Checkpoint]]
    place: dict[str, str] = field(default_factory=dict)
    """Model, task, method and seed, as far as there are such."""
    names: frozenset[str] = frozenset()
    """LENS/NAME of the lenses' numbers, which are courses of the training's run."""

    def told_as(self, shown: str) -> str:
        """The digest of what is told under the name `shown` of the training's run."""
        return sha256_value([self.digest, shown])


def checkpoints_of(layout: Layout, folder: Path, manifest: Manifest, lenses: Mapping[str, Manifest],
                   place: dict[str, str]) -> Checkpoints | None:
    """The checkpoints that the finished trajectory in `folder` has kept; None where it has none.

    lenses: lens -> manifest of its finished folder beside the trajectory.
    """
    if SERIES not in manifest.files and not any(name.startswith("checkpoints/") for name in manifest.files):
        return None
    declared = {lens: at_checkpoints_of(lens) for lens, made in lenses.items() if CURVES in made.files}
    measured = [[lens, lenses[lens].files[CURVES]["sha256"], [repr(one) for one in asked]]
                for lens, asked in declared.items() if asked]
    digest = sha256_value([FORMAT, {name: facts["sha256"] for name, facts in manifest.files.items()}, measured, place])

    def load() -> list[Checkpoint]:
        numbers = evaluations(folder)
        for lens, asked in declared.items():
            for step, found in numbers_at(folder.parent / lens / CURVES, lens, asked).items():
                numbers.setdefault(step, {}).update(found)
        kept = _of_series(folder) if SERIES in manifest.files else _of_folder(layout, folder, manifest)
        return [Checkpoint(step, weights, hashes, numbers.get(step, {})) for step, (weights, hashes) in kept.items()]

    return Checkpoints(digest, load, place, frozenset(
        metric_name(f"{lens}/{number.name}") for lens, asked in declared.items() for number in asked))


def numbers_at(curves: Path, lens: str, asked: Sequence[AtCheckpoint]) -> dict[int, dict[str, float]]:
    """Step -> LENS/NAME -> value, of a curves.csv over steps; what is unknown at a step is left out."""
    axis, series = read_curves(curves)
    if axis != "step":
        return {}
    known = {each.name: {step: value for step, value in zip(each.steps.tolist(), each.values.tolist(), strict=True)
                         if math.isfinite(value)} for each in series}
    steps = sorted({step for values in known.values() for step in values})
    found: dict[int, dict[str, float]] = {}
    for number in asked:
        groups = columns_of(number.columns, known)
        for step in steps:
            of_groups = [_of_layers([known[name].get(step) for name in group], number) for group in groups]
            picked = [value for value in of_groups if value is not None]
            if picked:
                found.setdefault(step, {})[metric_name(f"{lens}/{number.name}")] = sum(picked) / len(picked)
    return found


def evaluations(trajectory: Path) -> dict[int, dict[str, float]]:
    """Step -> validation/METRIC -> value, of the training's own evaluations."""
    path = trajectory / "history.parquet"
    found: dict[int, dict[str, float]] = {}
    for series in history_series(path) if path.is_file() else ():
        if series.name.startswith("validation/"):
            _add(found, series)
    return found


def _add(found: dict[int, dict[str, float]], series: Series) -> None:
    for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
        if math.isfinite(value):
            found.setdefault(step, {})[series.name] = value


def _of_layers(values: Sequence[float | None], one: AtCheckpoint) -> float | None:
    known = [value for value in values if value is not None]
    return (max(known) if known else None) if one.largest else values[-1]


def _of_folder(layout: Layout, folder: Path, manifest: Manifest) -> dict[int, tuple[str, dict[str, str]]]:
    """Step -> folder and hashes of what decides a checkpoint."""
    found: dict[int, tuple[str, dict[str, str]]] = {}
    for name, facts in sorted(manifest.files.items()):
        parts = name.split("/")
        digits = parts[1].rpartition("-")[2] if parts[0] == "checkpoints" and len(parts) > 2 else ""
        if digits.isdigit() and parts[-1] != "complete.json":
            where = f"{layout.relative(folder)}/{parts[0]}/{parts[1]}"
            found.setdefault(int(digits), (where, {}))[1]["/".join(parts[2:])] = facts["sha256"]
    return found


def _of_series(folder: Path) -> dict[int, tuple[str, dict[str, str]]]:
    """The same of checkpoints that were made elsewhere."""
    try:
        content: dict[str, dict[str, Any]] = json.loads((folder / SERIES).read_text("utf-8"))["checkpoints"]
        return {int(step): (str(one["path"] if "path" in one else f"{one['id']}@{one['revision']}"), one["sha256"])
                for step, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FinetraceError(f"{folder / SERIES}: cannot be read ({error}); run the stage series again") from error
