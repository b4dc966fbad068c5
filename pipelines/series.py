"""python pipelines/series.py SERIES -- checkpoints that were made elsewhere, looked up ->
outputs/SERIES/pretrain/trajectory/

Names, commits and digests only: each checkpoint is opened, or fetched, when a lens needs it.
"""

from pathlib import Path

from finetrace.config.series import SourceSettings
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json


def main(stage: Stage) -> None:
    from finetrace.models.series import resolve_series, state_of

    folder, entry = stage.layout.pretrain(stage.item), stage.settings("series", SourceSettings)
    inputs: dict[Path, Path | str] = {}
    if entry.model:
        model = stage.layout.model(entry.model)
        inputs[model] = model
    elif entry.path and (path := (stage.layout.root / entry.path).resolve()).is_dir():
        inputs[path] = state_of(path)
    manifest = stage.manifest("trajectory", inputs, outs=[folder])
    with stage.output(folder, manifest) as out:
        manifest.facts = resolve_series(stage.item, entry, out) | {"model": stage.item}
        write_json(out / "metrics.json", {"checkpoints": manifest.facts["checkpoints"]})


if __name__ == "__main__":
    run("series", main)
