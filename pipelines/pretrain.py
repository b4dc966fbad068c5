"""python pipelines/pretrain.py MODEL -- a small BERT, pre-trained -> models/MODEL/ and
outputs/MODEL/pretrain/trajectory/

Killed at any moment, the same command continues and ends with the same bytes.
"""

import copy
import shutil

from finetrace.config.models import PretrainSettings
from finetrace.pipeline.stage import Stage
from finetrace.pipeline.together import run


def main(stage: Stage) -> None:
    from finetrace.group import here
    from finetrace.models.fetch import describe
    from finetrace.tracking.live import live_follower
    from finetrace.training.pretrain import pretrain
    from finetrace.training.watch import LiveLog

    layout, entry = stage.layout, stage.settings("pretrain", PretrainSettings)
    corpus, model, folder = layout.task(entry.corpus), layout.model(stage.item), layout.pretrain(stage.item)
    manifest = stage.manifest("trajectory", {corpus: corpus}, outs=[model, folder])
    scratch = layout.scratch("pretrain", manifest.key)
    if not here().leads:
        pretrain(entry, corpus, stage.seed, scratch=scratch, out=scratch, model_out=scratch, name=stage.item)
        return
    manifest.started_at_ms = stage.started_at_ms(scratch)
    model_manifest = copy.deepcopy(manifest)
    model_manifest.kind = "model"
    live = LiveLog(scratch / "live.jsonl")
    with (live_follower(scratch, layout), stage.output(model, model_manifest) as model_out,
          stage.output(folder, manifest) as out):
        facts = pretrain(
            entry, corpus, stage.seed, scratch=scratch, out=out, model_out=model_out, name=stage.item,
            watch=lambda rows: live.rows(manifest.key, rows),
            on_plan=lambda plan: live.start(manifest.key, f"{stage.item}_pretrain", "trajectory",
                                            started_at_ms=manifest.started_at_ms, total_steps=plan.total_steps))
        manifest.seeds = model_manifest.seeds = facts.pop("seeds")
        texts = facts.pop("texts", None)
        manifest.facts = facts | {"model": stage.item} | ({"texts": texts} if texts else {})
        model_manifest.facts = {**facts, **describe(model_out)}
        live.end(manifest.key, "FINISHED")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    run("pretrain", main)
