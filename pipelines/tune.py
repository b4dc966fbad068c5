"""python pipelines/tune.py CELL -- settle a cell's settings -> outputs/MODEL/TASK/METHOD/tune/best.yaml

`settings: fixed` writes the study's own numbers at once; `settings: tuned` searches with Optuna. Killed at any moment,
the same command continues the search.
"""

import shutil

from finetrace.config import as_dict
from finetrace.stage import TRAINING_ROOMS, Stage, run
from finetrace.store.files import write_json, write_yaml


def main(stage: Stage) -> None:
    study, layout = stage.study, stage.layout
    cell = stage.pick("cells", study.cells)
    method, train = study.methods[cell.method], study.train_settings(cell)
    folder = layout.tune(cell.model, cell.task, cell.method)
    settings = {"model": cell.model, "task": cell.task, "method": cell.method, "settings": method.settings,
                "train": as_dict(train), "study_seed": study.study.seed}
    if method.settings == "fixed":
        manifest = stage.manifest("settings", settings, {})
        with stage.output(folder, manifest) as out:
            write_yaml(out / "best.yaml", {"settings": "fixed", "train": as_dict(train)})
            write_json(out / "metrics.json", {"trials": 0})
        return
    _search(stage, cell, train, settings | {"tune": as_dict(study.tune)}, folder)


def _search(stage, cell, train, settings, folder) -> None:
    from finetrace.figures import tuning as figures
    from finetrace.figures.style import to_png
    from finetrace.store.manifest import read_manifest
    from finetrace.store.tables import write_table
    from finetrace.tracking.live import live_follower
    from finetrace.training import tuning
    from finetrace.training.watch import LiveLog

    study, layout = stage.study, stage.layout
    model, task = layout.model(cell.model), layout.task(cell.task)
    metric = read_manifest(task).facts["metric"]
    manifest = stage.manifest("settings", settings, {model: model, task: task}, rooms=TRAINING_ROOMS)
    scratch = layout.scratch("tune", manifest.key)
    manifest.started_at_ms = stage.started_at_ms(scratch)
    live = LiveLog(scratch / "live.jsonl")
    live.start(manifest.key, f"{stage.item}_tune", "tune", started_at_ms=manifest.started_at_ms,
               total_steps=study.tune.trials)
    with live_follower(scratch, study, layout), stage.output(folder, manifest) as out:
        best, found = tuning.search(tuning.Search(model, task, train, study.tune, study.study.seed, scratch, manifest.key,
                                                  stage.item, study.methods[cell.method]))
        write_yaml(out / "best.yaml", tuning.settings_yaml("tuned", best, tuning.best_trial(found)))
        table, importances = tuning.trials_table(found), tuning.importances(found)
        write_table(out / "trials.parquet", table)
        states = table["state"].to_pylist()
        write_json(out / "metrics.json", {"trials": len(states), "best_value": tuning.best_trial(found).value,
                                          **{f"trials_{s.lower()}": states.count(s) for s in ("COMPLETE", "PRUNED", "FAIL")},
                                          **{f"importance/{k}": v for k, v in importances.items()}})
        shutil.copyfile(scratch / "journal.log", out / "journal.log")
        for name, figure in figures.all_figures(table, importances, metric).items():
            (out / "figures").mkdir(exist_ok=True)
            (out / "figures" / f"{name}.png").write_bytes(to_png(figure))
        live.end(manifest.key, "FINISHED")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    run("tune", main)
