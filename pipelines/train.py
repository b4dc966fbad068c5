"""python pipelines/train.py TRAJECTORY -- one fine-tuning -> outputs/MODEL/TASK/METHOD/sSEED/trajectory/

Killed at any moment, the same command continues and ends with the same bytes.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import yaml

from finetrace.config.base import parse
from finetrace.config.training import MethodSettings, RecordSettings, TrainSettings
from finetrace.config.written import written
from finetrace.lenses.infodynamics.settings import InfodynamicsSettings
from finetrace.pipeline.stage import Stage
from finetrace.pipeline.together import run
from finetrace.store.manifest import read_key


def main(stage: Stage) -> None:
    from finetrace.group import here
    from finetrace.tracking.live import live_follower
    from finetrace.training.ahead import require_signals
    from finetrace.training.finetune import RunSeeds, finetune
    from finetrace.training.trainer import Plan
    from finetrace.training.watch import LiveLog

    layout, record, asked = stage.layout, stage.settings("record", RecordSettings), stage.asked
    model, task, folder = layout.model(asked["model"]), layout.task(asked["task"]), stage.folder / "trajectory"
    inputs = {model: model, task: task}
    if tune := asked["tune"]:
        inputs[layout.root / tune] = layout.root / tune
    seeds = RunSeeds.of(stage.seed, asked["seed"])
    manifest = stage.manifest("trajectory", inputs, dataclasses.asdict(seeds), outs=[folder])
    train = _tuned_settings(layout.root / tune / "best.yaml") if tune else stage.settings("train", TrainSettings)
    scratch, method = layout.scratch("train", manifest.key), stage.settings("kind", MethodSettings)
    if not here().leads:
        finetune(model, task, train, record, seeds, scratch=scratch, out=scratch, name=stage.item, method=method)
        return
    manifest.started_at_ms = stage.started_at_ms(scratch)
    manifest.settings = asked | {"train": written(train)}
    live, lens = LiveLog(scratch / "live.jsonl"), _infodynamics(stage)

    def on_plan(plan: Plan) -> None:
        if lens:
            require_signals(plan, lens.window, lens.windows or (), lens.max_steps, stage.item)
        live.start(manifest.key, stage.item, "trajectory", started_at_ms=manifest.started_at_ms,
                   total_steps=plan.total_steps)

    with live_follower(scratch, layout), stage.output(folder, manifest) as out:
        facts = finetune(
            model, task, train, record, seeds, scratch=scratch, out=out, name=stage.item,
            method=method, watch=lambda rows: live.rows(manifest.key, rows), on_plan=on_plan)
        # What its readers need of its settings; adapters count only with the model that they change
        manifest.facts = facts | {"model": asked["model"], "base": read_key(model), "train": written(train)}
        live.end(manifest.key, "FINISHED")
    shutil.rmtree(scratch)


def _infodynamics(stage: Stage) -> InfodynamicsSettings | None:
    """The settings of the lens that will read the signals, where one looks. They decide nothing of the training, which
    does not depend on them: a training that is there needs no other window."""
    path = stage.layout.settings / "infodynamics" / f"{stage.item}.json"
    if not path.is_file():
        return None
    return parse(InfodynamicsSettings, json.loads(path.read_text("utf-8"))["infodynamics"], str(path))


def _tuned_settings(path: Path) -> TrainSettings:
    return parse(TrainSettings, yaml.safe_load(path.read_text("utf-8"))["train"], str(path))


if __name__ == "__main__":
    run("train", main)
