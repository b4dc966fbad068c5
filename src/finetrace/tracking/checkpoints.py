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
    """The checkpoints of a trajectory. digest: changes with what MLflow gets of them, known without reading it."""

    digest: str
    load: Callable[[], list[Checkpoint]]
    place: dict[str, str] = field(default_factory=dict)
    """Model, task, method and seed, as far as there are such."""
    names: frozenset[str] = frozenset()
    """LENS/NAME of the lenses' numbers, which are courses of the training's run."""

    def told_as(self, shown: str) -> str:
        """The digest of the models that MLflow gets where it shows the training's run as `shown`."""
        return sha256_value([self.digest, shown])


def checkpoints_of(layout: Layout, folder: Path, manifest: Manifest, lenses: Mapping[str, Manifest],
                   place: dict[str, str]) -> Checkpoints | None:
    """The checkpoints that the finished trajectory in `folder` has kept; None where it has none.

    lenses: lens -> manifest of its finished folder beside the trajectory.
    """
    if SERIES not in manifest.files and not any(name.startswith("checkpoints/") for name in manifest.files):
        return None
    declared = {lens: at_checkpoints_of(lens) for lens, lens_manifest in lenses.items()
                if CURVES in lens_manifest.files}
    measured = [[lens, lenses[lens].files[CURVES]["sha256"], [repr(declaration) for declaration in lens_numbers]]
                for lens, lens_numbers in declared.items() if lens_numbers]
    digest = sha256_value([FORMAT, {name: facts["sha256"] for name, facts in manifest.files.items()}, measured, place])

    def load() -> list[Checkpoint]:
        numbers = evaluations(folder)
        for lens, lens_numbers in declared.items():
            for step, step_numbers in numbers_at(folder.parent / lens / CURVES, lens, lens_numbers).items():
                numbers.setdefault(step, {}).update(step_numbers)
        weights_by_step = (_series_weights(folder) if SERIES in manifest.files
                           else _folder_weights(layout, folder, manifest))
        return [Checkpoint(step, weights, hashes, numbers.get(step, {}))
                for step, (weights, hashes) in weights_by_step.items()]

    return Checkpoints(digest, load, place, frozenset(
        metric_name(f"{lens}/{number.name}") for lens, lens_numbers in declared.items() for number in lens_numbers))


def numbers_at(curves: Path, lens: str, lens_numbers: Sequence[AtCheckpoint]) -> dict[int, dict[str, float]]:
    """Step -> LENS/NAME -> value, of a curves.csv over steps; what is unknown at a step is left out."""
    axis, series = read_curves(curves)
    if axis != "step":
        return {}
    courses = {curve.name: {step: value for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True)
                            if math.isfinite(value)} for curve in series}
    steps = sorted({step for values in courses.values() for step in values})
    numbers: dict[int, dict[str, float]] = {}
    for number in lens_numbers:
        groups = columns_of(number.columns, courses)
        for step in steps:
            group_values = [_over_layers([courses[name].get(step) for name in group], number) for group in groups]
            known_values = [value for value in group_values if value is not None]
            if known_values:
                numbers.setdefault(step, {})[metric_name(f"{lens}/{number.name}")] = (
                    sum(known_values) / len(known_values))
    return numbers


def evaluations(trajectory: Path) -> dict[int, dict[str, float]]:
    """Step -> validation/METRIC -> value, of the training's own evaluations."""
    path = trajectory / "history.parquet"
    metrics: dict[int, dict[str, float]] = {}
    for series in history_series(path) if path.is_file() else ():
        if series.name.startswith("validation/"):
            _add_course(metrics, series)
    return metrics


def _add_course(metrics: dict[int, dict[str, float]], series: Series) -> None:
    for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
        if math.isfinite(value):
            metrics.setdefault(step, {})[series.name] = value


def _over_layers(values: Sequence[float | None], number: AtCheckpoint) -> float | None:
    known_values = [value for value in values if value is not None]
    return (max(known_values) if known_values else None) if number.largest else values[-1]


def _folder_weights(layout: Layout, folder: Path, manifest: Manifest) -> dict[int, tuple[str, dict[str, str]]]:
    """Step -> folder and hashes of what decides a checkpoint."""
    weights: dict[int, tuple[str, dict[str, str]]] = {}
    for name, facts in sorted(manifest.files.items()):
        parts = name.split("/")
        digits = parts[1].rpartition("-")[2] if parts[0] == "checkpoints" and len(parts) > 2 else ""
        if digits.isdigit() and parts[-1] != "complete.json":
            checkpoint_folder = f"{layout.relative(folder)}/{parts[0]}/{parts[1]}"
            weights.setdefault(int(digits), (checkpoint_folder, {}))[1]["/".join(parts[2:])] = facts["sha256"]
    return weights


def _series_weights(folder: Path) -> dict[int, tuple[str, dict[str, str]]]:
    """Step -> place of the weights and hashes, of checkpoints that were made elsewhere."""
    try:
        content: dict[str, dict[str, Any]] = json.loads((folder / SERIES).read_text("utf-8"))["checkpoints"]
        return {int(step): (str(checkpoint["path"] if "path" in checkpoint
                                else f"{checkpoint['id']}@{checkpoint['revision']}"), checkpoint["sha256"])
                for step, checkpoint in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FinetraceError(f"{folder / SERIES}: cannot be read ({error}); run the stage series again") from error
