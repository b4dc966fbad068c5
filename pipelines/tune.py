"""python pipelines/tune.py CELL -- search a cell's settings with Optuna -> outputs/MODEL/TASK/METHOD/tune/best.yaml

Killed at any moment, the same command continues the search; more trials continue the finished ones. Where the search
is in a database (tune.storage), `python pipelines/tune.py CELL join` on another machine adds workers to it.
"""

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from finetrace.config.training import MethodSettings, TrainSettings, TuneSettings
from finetrace.errors import FinetraceError
from finetrace.pipeline.lens import write_drawn
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json, write_yaml
from finetrace.store.manifest import Manifest, make_key, read_manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.training.tuning import Search


def main(stage: Stage) -> None:
    from finetrace.figures import tuning as figures
    from finetrace.tracking.live import live_follower
    from finetrace.training import tuning
    from finetrace.training.watch import LiveLog

    layout, folder = stage.layout, stage.folder / "tune"
    metric = read_manifest(layout.task(stage.asked["task"])).facts["metric"]
    manifest = _manifest(stage, [folder])
    spec = _search_spec(stage, manifest)
    scratch, tune = spec.scratch, spec.tune
    manifest.started_at_ms = stage.started_at_ms(scratch)
    live = LiveLog(scratch / "live.jsonl")
    live.start(manifest.key, f"{stage.item}_tune", "tune", started_at_ms=manifest.started_at_ms,
               total_steps=tune.trials)
    with live_follower(scratch, layout), stage.output(folder, manifest) as out:
        best, study = tuning.search(spec)
        reason = tuning.undecided(study)
        write_yaml(out / "best.yaml", tuning.settings_yaml("tuned", best, tuning.best_trial(study), reason))
        table, importances = tuning.trials_table(study), tuning.importances(study)
        write_table(out / "trials.parquet", table)
        write_table(out / "timing.parquet", tuning.timing_table(study))
        states = table["state"].to_pylist()
        write_json(out / "metrics.json", {"trials": len(states),
                                          **({"undecided": 1} if reason
                                             else {"best_value": tuning.best_trial(study).value}),
                                          **{f"trials_{s.lower()}": states.count(s)
                                             for s in ("COMPLETE", "PRUNED", "FAIL")},
                                          **{f"importance/{k}": v for k, v in importances.items()}})
        if not spec.storage.shared:
            shutil.copyfile(scratch / "journal.log", out / "journal.log")
        write_drawn(stage, out, manifest, figures.all_figures(table, importances, metric))
        live.end(manifest.key, "FINISHED")
    for name in ("live.jsonl", "started.json"):  # the journal stays: more trials continue it
        (scratch / name).unlink(missing_ok=True)


def join(stage: Stage) -> None:
    """Work at a search whose item runs elsewhere, until its last trial has ended; only trials are written."""
    from finetrace.training import tuning

    spec = _search_spec(stage, _manifest(stage, []))
    if not spec.storage.shared:
        raise FinetraceError("params.yaml: tune.storage: is not set, and a journal file serves the processes "
                             "of one item; give postgresql://USER@HOST/DATABASE")
    spec.scratch.mkdir(parents=True, exist_ok=True)
    tuning.work_together(spec)


def _manifest(stage: Stage, outs: list[Path]) -> Manifest:
    model, task = stage.layout.model(stage.asked["model"]), stage.layout.task(stage.asked["task"])
    return stage.manifest("settings", {model: model, task: task}, outs=outs)


def _search_spec(stage: Stage, manifest: Manifest) -> "Search":
    from finetrace.training.tuning import Search

    layout = stage.layout
    # What a trial gives does not depend on how many follow, who shares them, or where they are kept
    deciding = {k: v for k, v in stage.asked["tune"].items() if k not in ("trials", "workers", "storage", "heartbeat")}
    scratch = layout.results("tune", make_key(f"tune@{stage.item}", stage.asked | {"tune": deciding}, manifest.inputs,
                                              manifest.code))
    return Search(layout.model(stage.asked["model"]), layout.task(stage.asked["task"]),
                  stage.settings("train", TrainSettings), stage.settings("tune", TuneSettings), stage.seed, scratch,
                  manifest.key, stage.item, stage.settings("method", MethodSettings))


if __name__ == "__main__":
    if sys.argv[2:] == ["join"]:  # a log and a lock of its own: the item's are another process's
        os.environ["DVC_STAGE"] = f"tune@{sys.argv[1]}-{socket.gethostname()}-{os.getpid()}"
    run("tune", join if sys.argv[2:] == ["join"] else main)
