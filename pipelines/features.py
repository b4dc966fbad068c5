"""python pipelines/features.py TRAJECTORY -- how far features move and how the head grows -> .../sSEED/features/"""

import logging
import time

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.predictions import read_predictions
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/features.py", "lenses/features_summary.py", "lenses/intervals.py")


def main(stage: Stage) -> None:
    from finetrace.lenses import features_summary as summary
    from finetrace.lenses.features import Units

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings, predictions = stage.study.features, read_predictions(folder / "predictions")
    seed = seeds.derive(stage.study.study.seed, "features", item.task)
    inputs = {predictions.folder: predictions.folder}
    manifest = stage.manifest("lens", as_dict(settings), inputs, {"features": seed}, rooms=ROOMS)
    first, kept, names = predictions.steps[0], predictions.kept_step, predictions.label_names
    rows_of = {name: predictions.with_features(name) for name in predictions.names}
    log.info("%s: %d checkpoints, %d dimensions, features of %s", stage.label, len(predictions.steps),
             predictions.manifest.facts["dim"], ", ".join(f"{len(rows):,} {name}" for name, rows in rows_of.items()))
    units = {name: Units(predictions.sentences[rows], settings.groups, seed) for name, rows in rows_of.items()}
    before = {name: _finite(predictions, first, name) for name in rows_of}
    rows, told = [], time.monotonic()
    for number, step in enumerate(predictions.steps):
        weight = np.asarray(predictions.weight(step), dtype=np.float64)
        rows += summary.head_rows(step, weight, names)
        for name, of in rows_of.items():
            rows += summary.set_rows(step, name, before[name], _finite(predictions, step, name), weight, predictions.labels[of],
                                     names, units[name], settings.rcond, settings.ridge)
        if time.monotonic() - told > 20:
            log.info("%s: checkpoint %d of %d", stage.label, number + 1, len(predictions.steps))
            told = time.monotonic()
    table = summary.table(rows)
    singular = sorted(set(table["set"][(table["statistic"] == "fdr_singular") & (table["value"] == 1)].tolist()))
    if singular:
        log.info("%s: too few examples for so many dimensions in %s: compare fdr_ridge there, not fdr", stage.label,
                 ", ".join(singular))
    with stage.output(folder / "features", manifest) as out:
        write_table(out / "table.parquet", table)
        write_json(out / "metrics.json", summary.metrics(table, list(rows_of), predictions.steps, kept))
        write_curves(out / "curves.csv", summary.curves(table, list(rows_of), predictions.steps))
        write_figures(out / "figures", _figures(stage.item, predictions, table, before, settings, seed, singular))
        manifest.facts = {"checkpoints": len(predictions.steps), "first_step": first, "kept_step": kept, "singular": singular,
                          "dim": predictions.manifest.facts["dim"], "rows": {name: len(of) for name, of in rows_of.items()}}


def _finite(predictions, step, name):
    values = predictions.features(step, name)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise FinetraceError(f"{predictions.folder}: features of {name} at checkpoint {step} hold NaN or infinity in row {row}; "
                             "the training diverged (lower train.learning_rate)")
    return values


def _figures(name, predictions, table, before, settings, seed, singular):
    from finetrace.figures import features as figures
    from finetrace.lenses import features as lens
    from finetrace.lenses.features_summary import course

    steps, kept, names = predictions.steps, predictions.kept_step, predictions.label_names
    curves = {one: {key: course(table, key, one) for key in ("cosine", "diff", "fdr_ridge")} for one in predictions.names}
    of_rows = {label: table["value"][(table["statistic"] == "head_row_norm") & (table["label"] == label)] for label in names}
    note = "features: input of the head's last linear layer"
    if singular:
        note += f"\ntoo few examples for so many dimensions in {', '.join(singular)}: without its ridge the ratio means little"
    made = {"course": figures.course(steps, kept, curves, course(table, "head_norm")[:, 0], of_rows, note=note,
                                     title=f"Features and head over training: {name}")}
    shown = settings.figure_set if settings.figure_set in predictions.names else predictions.names[0]
    labels = predictions.labels[predictions.with_features(shown)][:settings.figure_rows]
    states = {f"before (step {steps[0]:,})": (before[shown], steps[0])}
    if kept != steps[0]:
        states[f"after (step {kept:,})"] = predictions.features(kept, shown), kept
    points = {state: np.asarray(values[:settings.figure_rows], dtype=np.float64) for state, (values, _) in states.items()}
    heads = {state: np.asarray(predictions.weight(step), dtype=np.float64) for state, (_, step) in states.items()}
    if len(labels) < 5 or min(next(iter(points.values())).shape) < 2:
        log.warning("%s: %d examples of %s are too few for pictures", name, len(labels), shown)
        return made
    note = f"{len(labels):,} examples of {shown}"
    made["pca"] = figures.planes(points, heads, labels, names, lens.plane(np.concatenate(list(points.values()))), note=note,
                                 title=f"Features in their principal plane: {name}")
    if settings.tsne:
        maps = {state: lens.tsne(np.concatenate([values, heads[state]]), seeds.derive(seed, "tsne") % 2**31)
                for state, values in points.items()}
        made["tsne"] = figures.neighbours({state: values[:len(labels)] for state, values in maps.items()},
                                          {state: values[len(labels):] for state, values in maps.items()}, labels, names,
                                          note=f"t-SNE of directions, each state for itself; {note}",
                                          title=f"Features and head rows by neighbourhood: {name}")
    return made


if __name__ == "__main__":
    run("features", main)
