"""python pipelines/series.py SERIES -- a published series of checkpoints, looked up -> outputs/SERIES/pretrain/trajectory/

Names, commits and digests only: each checkpoint is fetched when a lens first needs it.
"""

from finetrace.config import as_dict
from finetrace.stage import Stage, run
from finetrace.store.files import write_json


def main(stage: Stage) -> None:
    from finetrace.models.timeline import resolve_series

    entry = stage.pick("series", stage.study.series)
    manifest = stage.manifest("trajectory", {"model": stage.item, "series": as_dict(entry)}, {},
                              rooms=("models/timeline.py",))
    with stage.output(stage.layout.pretrain(stage.item), manifest) as out:
        manifest.facts = resolve_series(stage.item, entry, out)
        write_json(out / "metrics.json", {"checkpoints": manifest.facts["checkpoints"]})


if __name__ == "__main__":
    run("series", main)
