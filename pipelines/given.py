"""python pipelines/given.py TRAJECTORY -- checkpoints that were made elsewhere, for one task ->
outputs/NAME/TASK/given/s1/trajectory/

Names and digests only: a checkpoint is opened when a lens reads it.
"""

from pathlib import Path

from finetrace.config.series import GivenSettings
from finetrace.pipeline.stage import Stage, run


def main(stage: Stage) -> None:
    from finetrace.training.given import write_given

    layout, entry = stage.layout, stage.settings("given", GivenSettings)
    name, task = stage.asked["model"], layout.task(stage.asked["task"])
    series, folder = layout.pretrain(name), stage.folder / "trajectory"
    manifest = stage.manifest("trajectory", {series: series, task: task}, outs=[folder])
    with stage.output(folder, manifest) as out:
        manifest.facts = write_given(
            f"series.{name}", series, task, out, head=entry.head, labels=list(entry.labels),
            recorded=Path(entry.recorded) if entry.recorded else None,
            train={"max_length": entry.max_length, "pieces": entry.pieces}) | {"model": name}


if __name__ == "__main__":
    run("given", main)
