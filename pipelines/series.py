"""python pipelines/series.py SERIES -- a published series of checkpoints, looked up ->
outputs/SERIES/pretrain/trajectory/

Names, commits and digests only: each checkpoint is fetched when a lens first needs it.
"""

from finetrace.config.models import SeriesSettings
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json


def main(stage: Stage) -> None:
    from finetrace.models.timeline import resolve_series

    folder = stage.layout.pretrain(stage.item)
    manifest = stage.manifest("trajectory", {}, outs=[folder])
    with stage.output(folder, manifest) as out:
        manifest.facts = resolve_series(stage.item, stage.settings("series", SeriesSettings),
                                        out) | {"model": stage.item}
        write_json(out / "metrics.json", {"checkpoints": manifest.facts["checkpoints"]})


if __name__ == "__main__":
    run("series", main)
