"""python pipelines/tune.py CELL -- search a cell's settings with Optuna -> outputs/MODEL/TASK/METHOD/tune/best.yaml

Killed at any moment, the same command continues the search; more trials continue the finished ones.
"""

import shutil

from finetrace.config.training import MethodSettings, TrainSettings, TuneSettings
from finetrace.pipeline.lens import write_drawn
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json, write_yaml
from finetrace.store.manifest import make_key, read_manifest
from finetrace.store.tables import write_table


def main(stage: Stage) -> None:
    from finetrace.figures import tuning as figures
    from finetrace.tracking.live import live_follower
    from finetrace.training import tuning
    from finetrace.training.watch import LiveLog

    layout, tune = stage.layout, stage.settings("tune", TuneSettings)
    model, task, folder = layout.model(stage.asked["model"]), layout.task(stage.asked["task"]), stage.folder / "tune"
    metric = read_manifest(task).facts["metric"]
    manifest = stage.manifest("settings", {model: model, task: task}, outs=[folder])
    # What a trial gives does not depend on how many follow, or who shares them
    alike = {k: v for k, v in stage.asked["tune"].items() if k not in ("trials", "workers")}
    search = layout.results("tune", make_key(f"tune@{stage.item}", stage.asked | {"tune": alike}, manifest.inputs,
                                             manifest.code))
    manifest.started_at_ms = stage.started_at_ms(search)
    live = LiveLog(search / "live.jsonl")
    live.start(manifest.key, f"{stage.item}_tune", "tune", started_at_ms=manifest.started_at_ms,
               total_steps=tune.trials)
    with live_follower(search, layout), stage.output(folder, manifest) as out:
        best, found = tuning.search(tuning.Search(model, task, stage.settings("train", TrainSettings), tune, stage.seed,
                                                  search,
                                                  manifest.key, stage.item, stage.settings("method", MethodSettings)))
        why = tuning.undecided(found)
        write_yaml(out / "best.yaml", tuning.settings_yaml("tuned", best, tuning.best_trial(found), why))
        table, importances = tuning.trials_table(found), tuning.importances(found)
        write_table(out / "trials.parquet", table)
        write_table(out / "timing.parquet", tuning.timing_table(found))
        states = table["state"].to_pylist()
        write_json(out / "metrics.json", {"trials": len(states),
                                          **({"undecided": 1} if why
                                             else {"best_value": tuning.best_trial(found).value}),
                                          **{f"trials_{s.lower()}": states.count(s)
                                             for s in ("COMPLETE", "PRUNED", "FAIL")},
                                          **{f"importance/{k}": v for k, v in importances.items()}})
        shutil.copyfile(search / "journal.log", out / "journal.log")
        write_drawn(stage, out, manifest, figures.all_figures(table, importances, metric))
        live.end(manifest.key, "FINISHED")
    for name in ("live.jsonl", "started.json"):  # the journal stays: more trials continue it
        (search / name).unlink(missing_ok=True)


if __name__ == "__main__":
    run("tune", main)
