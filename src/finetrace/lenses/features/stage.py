"""How far features move and how the head grows -> .../sSEED/features/"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.features.settings import FeaturesSettings
from finetrace.longtable import LongTable
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest
from finetrace.store.predictions import Predictions, read_predictions
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")


def main(stage: Stage) -> None:
    from finetrace.lenses.features.figures import draw

    settings, folder = stage.settings("features", FeaturesSettings), stage.folder / "features"
    predictions = read_predictions(stage.folder / "predictions")
    seed = seeds.derive(stage.seed, "features", stage.asked["task"])
    manifest = stage.manifest("lens", {predictions.folder: predictions.folder}, {"features": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, predictions, settings, seed, manifest, out), draw)


def _measure(stage: Stage, predictions: Predictions, settings: FeaturesSettings, seed: int, manifest: Manifest,
             out: Path) -> Record:
    from finetrace.lenses.features import summary

    steps, kept_step = predictions.steps, predictions.kept_step
    rows_of = {name: predictions.with_features(name) for name in predictions.names}
    log.info("%s: %d checkpoints, %d dimensions, features of %s", stage.label, len(steps),
             predictions.manifest.facts["dim"], ", ".join(f"{len(rows):,} {name}" for name, rows in rows_of.items()))
    table = _table(stage, predictions, rows_of, settings, seed)
    singular = sorted(table.select(statistic="fdr_singular", value=1).distinct("set"))
    if singular:
        log.info("%s: too few examples for so many dimensions in %s: compare fdr_ridge there, not fdr", stage.label,
                 ", ".join(singular))
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.metrics(table, list(rows_of), steps[0], kept_step))
    write_curves(out / "curves.csv", summary.curves(table, list(rows_of)))
    manifest.facts = {"checkpoints": len(steps), "first_step": steps[0], "kept_step": kept_step, "singular": singular,
                      "dim": predictions.manifest.facts["dim"],
                      "rows": {name: len(positions) for name, positions in rows_of.items()}}
    return {"name": stage.item, "steps": steps, "kept": kept_step, "singular": singular,
            "courses": summary.courses(table, list(rows_of)), "head": table.course(statistic="head_norm")[:, 0],
            "head_rows": {label: table.course(statistic="head_row_norm", label=label)[:, 0]
                          for label in predictions.label_names},
            "pictures": _pictures(stage.item, predictions, settings, seed)}


def _table(stage: Stage, predictions: Predictions, rows_of: dict[str, np.ndarray], settings: FeaturesSettings, seed: int
           ) -> LongTable:
    """All statistics of all sets at all checkpoints."""
    from finetrace.lenses.features import summary
    from finetrace.lenses.features.change import Units

    names = predictions.label_names
    units = {name: Units(predictions.sentences[rows], settings.groups, seed) for name, rows in rows_of.items()}
    before = {name: _finite(predictions, predictions.steps[0], name) for name in rows_of}
    rows: list[summary.Row] = []
    progress = Progress(len(predictions.steps), stage.label, unit="checkpoint")
    for step in predictions.steps:
        weight = np.asarray(predictions.weight(step), dtype=np.float64)
        rows += summary.head_rows(step, weight, names)
        for name, positions in rows_of.items():
            rows += summary.set_rows(step, name, before[name], _finite(predictions, step, name), weight,
                                     predictions.labels[positions], names, units[name], settings.rcond, settings.ridge)
        progress.advance()
    progress.close()
    return LongTable.of_rows(rows, summary.COLUMNS)


def _finite(predictions: Predictions, step: int, name: str) -> np.ndarray:
    values = predictions.features(step, name)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise FinetraceError(f"{predictions.folder}: features of {name} at checkpoint {step} hold NaN or infinity in "
                             f"row {row}; the training diverged (lower train.learning_rate)")
    return values


def _pictures(name: str, predictions: Predictions, settings: FeaturesSettings, seed: int) -> dict[str, Any] | None:
    """Some features and the head before and after, and their t-SNE maps; None where there are too few to be shown."""
    from finetrace.lenses.features import change as lens

    shown = settings.figure_set if settings.figure_set in predictions.names else predictions.names[0]
    labels = predictions.labels[predictions.with_features(shown)][:settings.figure_rows]
    states = list(dict.fromkeys((predictions.steps[0], predictions.kept_step)))
    points = {step: np.asarray(predictions.features(step, shown)[:settings.figure_rows]) for step in states}
    heads = {step: np.asarray(predictions.weight(step)) for step in states}
    if len(labels) < 5 or min(points[states[0]].shape) < 2:
        log.warning("%s: %d examples of %s are too few for pictures", name, len(labels), shown)
        return None
    start = seeds.derive(seed, "tsne") % 2**31
    maps = {step: lens.tsne(np.concatenate([values, heads[step]]).astype(np.float64), start)
            for step, values in points.items()} if settings.tsne else None
    return {"set": shown, "labels": labels, "names": predictions.label_names, "points": points, "heads": heads,
            "tsne": maps}
