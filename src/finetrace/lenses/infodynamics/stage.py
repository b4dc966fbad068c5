"""Novelty, transience, resonance -> .../sSEED/infodynamics/"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.infodynamics.length import told
from finetrace.lenses.infodynamics.settings import InfodynamicsSettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import matrix, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

    from finetrace.lenses.infodynamics.summary import ProbeDynamics, TrainingDynamics

SPLITS = ("train", "validation")
log = logging.getLogger(__name__)


@dataclass
class Signals:
    """What was recorded of the training examples, in time order: each (example,), logits (example, class)."""

    steps: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    losses: np.ndarray


def main(stage: Stage) -> None:
    from finetrace.lenses.infodynamics.figures import TYPES, draw

    settings = stage.settings("infodynamics", InfodynamicsSettings)
    source, folder = stage.folder / "trajectory", stage.folder / "infodynamics"
    seed = seeds.derive(stage.seed, "infodynamics", stage.asked["seed"])
    manifest = stage.manifest("lens", {source: source}, {"null": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, source, settings, seed, manifest, out), draw, TYPES)


def _measure(stage: Stage, source: Path, settings: InfodynamicsSettings, seed: int, manifest: Manifest,
             out: Path) -> Record:
    from finetrace.lenses.infodynamics import summary

    signals = _signals(source, settings)
    with blame(f"params.yaml: infodynamics, for {stage.item}"):
        training = summary.training_dynamics(
            signals.logits, signals.labels, signals.ids, signals.steps / read_manifest(source).facts["steps_per_epoch"],
            signals.steps, window=settings.window, windows=settings.windows or (), measure=settings.measure,
            span=settings.span, permutations=settings.permutations, seed=seed)
    probe = read_table(source / "probe.parquet")
    probes = {split: _probe(probe, split, settings) for split in SPLITS if probe.num_rows}
    write_table(out / "table.parquet", summary.table(training, probes))
    metrics = dict(training.metrics)
    for split, dynamics in probes.items():
        metrics |= {f"probe/{split}/{name}": value for name, value in dynamics.metrics.items()}
    write_json(out / "metrics.json", metrics)
    (out / "results.json").write_text(json.dumps(summary.curbed_lists(training)))
    curves = summary.curves(training, signals.losses)
    write_curves(out / "curves.csv", curves)
    manifest.facts = {"rows": len(signals.steps), "classes": int(signals.logits.shape[1])}
    if training.absent:
        manifest.facts["absent"] = training.absent
        log.warning("%s: %s", stage.label, told(len(signals.steps), training.absent))
    evaluated = _evaluated(source, len(signals.steps))
    return {"name": stage.item, "evaluated": evaluated} | _record(settings, training, probes, curves)


def _signals(source: Path, settings: InfodynamicsSettings) -> Signals:
    """The recorded signals of the first `max_steps` steps. Raises FinetraceError for none, or logits not finite."""
    table = read_table(source / "signals.parquet")
    if table.num_rows == 0:
        raise FinetraceError(f"{source}: no signals were recorded; set record.signals: true and train again")
    steps = table["step"].to_numpy()
    keep = slice(0, int(np.searchsorted(steps, settings.max_steps)) if settings.max_steps else len(steps))
    steps, logits = steps[keep], matrix(table, "logits")[keep]
    if not np.isfinite(logits).all():
        first = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise FinetraceError(f"{source / 'signals.parquet'} row {first}: logits are not finite (step {steps[first]}); "
                             "the training diverged; lower train.learning_rate")
    return Signals(steps, logits, *(table[column].to_numpy()[keep] for column in ("label", "example_id", "loss")))


def _probe(table: "pa.Table", split: str, settings: InfodynamicsSettings) -> "ProbeDynamics":
    from finetrace.lenses.infodynamics.summary import probe_dynamics

    rows = table.filter(np.equal(table["split"].to_numpy(zero_copy_only=False), split))
    steps = np.unique(rows["step"].to_numpy())
    logits = matrix(rows, "logits").reshape(len(steps), -1, matrix(rows, "logits").shape[1])
    return probe_dynamics(logits, rows["label"].to_numpy()[:logits.shape[1]].astype(int), steps,
                          window=settings.probe_window, measure=settings.measure)


def _evaluated(source: Path, examples: int) -> dict[str, np.ndarray]:
    """Loss and accuracy of the evaluations while these training examples were seen."""
    rows = [row for row in read_table(source / "history.parquet").to_pylist()
            if row["kind"] == "eval" and row["examples"] <= examples]
    return {key: np.array([row[key] for row in rows], dtype=kind)
            for key, kind in (("examples", np.int64), ("loss", np.float64), ("accuracy", np.float64))}


def _record(settings: InfodynamicsSettings, training: "TrainingDynamics", probes: dict[str, "ProbeDynamics"],
            curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the figures need."""
    return {
        "measure": settings.measure, "span": settings.span, "spans": settings.spans, "window": training.window,
        "examples_per_epoch": training.examples_per_epoch,
        "plateau": training.plateau if settings.measure == "jsd" else None,  # known in nats of this divergence only
        "changes": (training.changes.positions + training.window).tolist() if training.changes else [],
        "dynamics": {key: getattr(training.dynamics, key) for key in ("novelty", "transience", "resonance")},
        "confidence": training.confidence, "slope": training.slope,
        "train": {"examples": curves["example"], "loss": curves["train_loss"], "accuracy": curves["train_accuracy"]},
        "probes": {split: {"steps": probe.steps, "window": probe.window, "dynamics": probe.dynamics, "map": probe.map}
                   for split, probe in probes.items() if probe.dynamics is not None}}
