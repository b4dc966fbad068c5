"""python pipelines/adapt.py NAME -- masked-word training that goes on -> models/NAME/ and
outputs/NAME/adapt/trajectory/

Killed at any moment, the same command continues and ends with the same bytes.
"""

import copy
import shutil

from finetrace.config.models import AdaptSettings
from finetrace.pipeline.stage import Stage
from finetrace.pipeline.together import run


def main(stage: Stage) -> None:
    from finetrace.data.corpus import corpus_texts
    from finetrace.group import here
    from finetrace.models.fetch import describe
    from finetrace.models.timeline import open_timeline
    from finetrace.tracking.live import live_follower
    from finetrace.training.adapt import adapt
    from finetrace.training.watch import LiveLog

    layout, entry = stage.layout, stage.settings("adapt", AdaptSettings)
    start, corpus = layout.place(entry.start) / "trajectory", layout.task(entry.corpus)
    model, folder = layout.model(stage.item), layout.adapt(stage.item)
    timeline = open_timeline(start, layout.root / "models", "ends" if entry.from_steps == "last" else entry.from_steps)
    inputs = {path: path for path in (start, corpus, timeline.head) if path is not None}
    manifest = stage.manifest("trajectory", inputs, outs=[model, folder])
    scratch = layout.scratch("adapt", manifest.key)
    if not here().leads:
        adapt(entry, timeline, corpus_texts(corpus), stage.seed, scratch=scratch, out=scratch, model_out=scratch,
              name=stage.item)
        return
    manifest.started_at_ms = stage.started_at_ms(scratch)
    model_manifest = copy.deepcopy(manifest)
    model_manifest.kind = "model"
    live = LiveLog(scratch / "live.jsonl")
    with (live_follower(scratch, layout), stage.output(model, model_manifest) as model_out,
          stage.output(folder, manifest) as out):
        facts = adapt(
            entry, timeline, corpus_texts(corpus), stage.seed, scratch=scratch, out=out, model_out=model_out,
            name=stage.item, watch=lambda rows: live.rows(manifest.key, rows),
            on_plan=lambda plan: live.start(manifest.key, f"{stage.item}_adapt", "trajectory",
                                            started_at_ms=manifest.started_at_ms, total_steps=plan.total_steps))
        manifest.seeds = model_manifest.seeds = facts.pop("seeds")
        manifest.facts, model_manifest.facts = facts | {"model": stage.item}, {**facts, **describe(model_out)}
        live.end(manifest.key, "FINISHED")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    run("adapt", main)
