"""python pipelines/train.py TRAJECTORY -- one fine-tuning -> outputs/MODEL/TASK/METHOD/sSEED/trajectory/

Killed at any moment, the same command continues and ends with the same bytes.
"""

import dataclasses
import shutil

import yaml

from finetrace.config import as_dict
from finetrace.config.base import parse
from finetrace.config.training import TrainSettings
from finetrace.stage import TRAINING_ROOMS, Stage, run


def main(stage: Stage) -> None:
    from finetrace.tracking.live import live_follower
    from finetrace.training.finetune import RunSeeds, finetune
    from finetrace.training.watch import LiveLog

    study, layout = stage.study, stage.layout
    item = stage.pick("trajectories", study.trajectories)
    model, task = layout.model(item.model), layout.task(item.task)
    best = layout.tune(item.model, item.task, item.method) / "best.yaml"
    train = parse(TrainSettings, yaml.safe_load(best.read_text("utf-8"))["train"], str(best))
    seeds = RunSeeds.of(study.study.seed, item.seed)
    method = study.methods[item.method]
    settings = {"model": item.model, "task": item.task, "method": item.method, "method_kind": method.kind, "seed": item.seed,
                "study_seed": study.study.seed, "train": as_dict(train), "record": as_dict(study.record)}
    manifest = stage.manifest("trajectory", settings, {model: model, task: task}, dataclasses.asdict(seeds),
                              rooms=TRAINING_ROOMS)
    scratch = layout.scratch("train", manifest.key)
    manifest.started_at_ms = stage.started_at_ms(scratch)
    live = LiveLog(scratch / "live.jsonl")
    with live_follower(scratch, study, layout), stage.output(
            layout.run(item.model, item.task, item.method, item.seed) / "trajectory", manifest) as out:
        manifest.facts = finetune(
            model, task, train, study.record, seeds, scratch=scratch, out=out, name=stage.item, method=method,
            watch=lambda rows: live.rows(manifest.key, rows),
            on_plan=lambda plan: live.start(manifest.key, stage.item, "trajectory", started_at_ms=manifest.started_at_ms,
                                            total_steps=plan.total_steps))
        live.end(manifest.key, "FINISHED")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    run("train", main)
