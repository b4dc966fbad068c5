"""python pipelines/calibration.py TRAJECTORY -- do its probabilities mean what they say -> .../sSEED/calibration/"""

import logging

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.predictions import read_predictions
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/calibration.py", "lenses/calibration_summary.py", "lenses/intervals.py")
BOUNDS = {"low": "its examples are all classified rightly, so any sharper one would do", "high": "the logits tell nothing about "
          "its labels", "flat": "all logits of an example are equal"}


def main(stage: Stage) -> None:
    from finetrace.lenses import calibration_summary as summary
    from finetrace.lenses.calibration import temperature

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings, predictions = stage.study.calibration, read_predictions(folder / "predictions")
    if settings.fit not in predictions.names:
        raise FinetraceError(f"params.yaml: calibration.fit: {predictions.folder} has no set {settings.fit!r} to fit the "
                             f"temperature on; name one of {', '.join(predictions.names)}, or add it to predictions.sets")
    seed = seeds.derive(stage.study.study.seed, "calibration", item.task)
    manifest = stage.manifest("lens", as_dict(settings), {predictions.folder: predictions.folder}, {"groups": seed}, rooms=ROOMS)
    sets = [name for name in predictions.names if name != "train"] or predictions.names
    log.info("%s: %d checkpoints, temperature from %s, %s", stage.label, len(predictions.steps), settings.fit,
             ", ".join(f"{len(predictions.rows(name)):,} {name}" for name in sets))
    found, fitted, rows = {}, {}, []
    fit_rows = predictions.rows(settings.fit)
    for step in predictions.steps:
        logits = _finite(predictions, step)
        fitted[step] = temperature(logits[fit_rows], predictions.labels[fit_rows])
        rows += summary.temperature_rows(step, settings.fit, fitted[step], len(fit_rows))
        for name in sets:
            here = predictions.rows(name)
            for scaled in (False, True):
                key = step, name, scaled
                found[key], ends = summary.measure(
                    logits[here], predictions.labels[here], predictions.sentences[here], fitted[step].value if scaled else 1.0,
                    bins=settings.bins, groups=settings.groups, seed=seed)
                rows += summary.rows(key, found[key], ends)
    kept = predictions.kept_step
    if fitted[kept].bound:
        log.warning("%s: the temperature of the kept checkpoint is a bound of its range (%.3g): %s (%s)", stage.label,
                    fitted[kept].value, BOUNDS[fitted[kept].bound], settings.fit)
    table = summary.table(rows)
    with stage.output(folder / "calibration", manifest) as out:
        write_table(out / "table.parquet", table)
        write_table(out / "bins.parquet", summary.bin_table(found))
        write_json(out / "metrics.json", summary.metrics(found, kept, fitted[kept]))
        write_curves(out / "curves.csv", summary.curves(found, fitted, sets))
        write_figures(out / "figures", _figures(stage.item, predictions, sets, found, fitted, table, settings))
        manifest.facts = {"checkpoints": len(predictions.steps), "kept_step": kept, "fit": settings.fit,
                          "sets": sets, "temperature_bound": fitted[kept].bound,
                          "examples": {name: len(predictions.rows(name)) for name in sets}}


def _finite(predictions, step):
    logits = np.asarray(predictions.logits(step))
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise FinetraceError(f"{predictions.folder}: logits of checkpoint {step} hold NaN or infinity in row {row}; delete the "
                             "folder and run the stage predictions again")
    return logits


def _figures(name, predictions, sets, found, fitted, table, settings):
    from finetrace.figures import calibration as figures

    kept, steps = predictions.kept_step, predictions.steps
    judged = [one for one in sets if one != settings.fit] or sets
    own = ["test"] if "test" in judged else [settings.fit] if settings.fit in sets else []  # in distribution, then shifted
    drawn = [*own, *(one for one in judged if one not in own)][:figures.MOST_PANELS]
    notes = [f"temperature fitted on {len(predictions.rows(settings.fit)):,} examples of {settings.fit}"]
    if "test" not in sets:
        notes.append(f"no test set: {settings.fit} is also what is shown, so its scaled errors are too small")
    if len(drawn) < len(judged):
        notes.append(f"{len(drawn)} of {len(judged)} sets are drawn")
    if fitted[kept].bound:
        notes.append("the temperature is a bound of its range")

    def line(one, statistic, scaled):
        keep = (table["set"] == one) & (table["statistic"] == statistic) & (table["scaled"] == scaled)
        return np.stack([table[key][keep] for key in ("value", "low", "high")], axis=1)  # rows are in the order of the steps

    curves = {one: {"accuracy": line(one, "accuracy", False)} | {
        f"{key}{'_scaled' if scaled else ''}": line(one, key, scaled) for key in ("ece", "nll") for scaled in (False, True)}
        for one in sets}
    return {
        "reliability": figures.reliability(
            {one: (found[kept, one, False], found[kept, one, True]) for one in drawn}, fitted[kept].value,
            fitted_on=settings.fit, title=f"Reliability at step {kept:,}: {name}", note="; ".join(notes)),
        "course": figures.course(steps, kept, curves, np.array([fitted[step].value for step in steps]),
                                 title=f"Calibration over training: {name}", note=notes[0]),
    }


if __name__ == "__main__":
    run("calibration", main)
