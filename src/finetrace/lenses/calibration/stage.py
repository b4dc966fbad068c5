"""Do its probabilities mean what they say -> .../sSEED/calibration/"""

import logging
from pathlib import Path

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.calibration.settings import CalibrationSettings
from finetrace.longtable import LongTable
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest
from finetrace.store.predictions import Predictions, read_predictions
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
BOUNDS = {"low": "its examples are all classified rightly, so any sharper one would do",
          "high": "the logits tell nothing about its labels", "flat": "all logits of an example are equal"}


def main(stage: Stage) -> None:
    from finetrace.lenses.calibration.figures import TYPES, draw

    settings, folder = stage.settings("calibration", CalibrationSettings), stage.folder / "calibration"
    predictions = read_predictions(stage.folder / "predictions")
    seed = seeds.derive(stage.seed, "calibration", stage.asked["task"])
    manifest = stage.manifest("lens", {predictions.folder: predictions.folder}, {"groups": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, predictions, settings, seed, manifest, out), draw,
               TYPES)


def _measure(stage: Stage, predictions: Predictions, settings: CalibrationSettings, seed: int, manifest: Manifest,
             out: Path) -> Record:
    from finetrace.lenses.calibration import summary
    from finetrace.lenses.calibration.measures import temperature

    if settings.fit not in predictions.names:
        raise FinetraceError(f"params.yaml: calibration.fit: {predictions.folder} has no set {settings.fit!r} to fit "
                             f"the temperature on; name one of {', '.join(predictions.names)}, or add it to "
                             "predictions.sets")
    sets = [name for name in predictions.names if name != "train"] or predictions.names
    log.info("%s: %d checkpoints, temperature from %s, %s", stage.label, len(predictions.steps), settings.fit,
             ", ".join(f"{len(predictions.rows(name)):,} {name}" for name in sets))
    fitted, bins, rows, bin_rows = {}, {}, [], []
    fit_rows = predictions.rows(settings.fit)
    for step in predictions.steps:
        logits = _finite(predictions, step)
        fitted[step] = temperature(logits[fit_rows], predictions.labels[fit_rows])
        rows += summary.temperature_rows(step, settings.fit, fitted[step], len(fit_rows))
        for name in sets:
            set_rows = predictions.rows(name)
            for scaled in (False, True):
                key = step, name, scaled
                bins[key], ends = summary.measure(
                    logits[set_rows], predictions.labels[set_rows], predictions.sentences[set_rows],
                    fitted[step].value if scaled else 1.0, bins=settings.bins, groups=settings.groups, seed=seed)
                rows += summary.rows(key, bins[key], ends)
                bin_rows += summary.bin_rows(key, bins[key])
    kept_step = predictions.kept_step
    if fitted[kept_step].bound:
        log.warning("%s: the temperature of the kept checkpoint is a bound of its range (%.3g): %s (%s)", stage.label,
                    fitted[kept_step].value, BOUNDS[fitted[kept_step].bound], settings.fit)
    table = LongTable.of_rows(rows, summary.COLUMNS)
    write_table(out / "table.parquet", table.columns())
    write_table(out / "bins.parquet", LongTable.of_rows(bin_rows, summary.BIN_COLUMNS).columns())
    write_json(out / "metrics.json", summary.metrics(table, sets, kept_step))
    write_curves(out / "curves.csv", summary.curves(table, sets))
    manifest.facts = {"checkpoints": len(predictions.steps), "kept_step": kept_step, "fit": settings.fit,
                      "sets": sets, "temperature_bound": fitted[kept_step].bound,
                      "examples": {name: len(predictions.rows(name)) for name in sets}}
    return {"name": stage.item, "steps": predictions.steps, "kept": kept_step, "fit": settings.fit,
            "fit_examples": len(fit_rows), "sets": sets, "bound": fitted[kept_step].bound,
            "temperatures": [fitted[step].value for step in predictions.steps],
            "bins": {name: (bins[kept_step, name, False], bins[kept_step, name, True]) for name in sets},
            "courses": summary.courses(table, sets)}


def _finite(predictions: Predictions, step: int) -> np.ndarray:
    logits = np.asarray(predictions.logits(step))
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise FinetraceError(f"{predictions.folder}: logits of checkpoint {step} hold NaN or infinity in row {row}; "
                             "delete the folder and run the stage predictions again")
    return logits
