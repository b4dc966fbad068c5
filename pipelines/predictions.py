"""python pipelines/predictions.py TRAJECTORY -- logits, features and head of its checkpoints -> .../sSEED/predictions/

Killed at any moment, the same command continues after the last finished checkpoint.
"""

import shutil

from finetrace import seeds
from finetrace.config.predictions import PredictionsSettings
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json


def main(stage: Stage) -> None:
    from finetrace.inference.predictions import predict_trajectory
    from finetrace.models.given import model_folder

    layout, settings = stage.layout, stage.settings("predictions", PredictionsSettings)
    trajectory, folder = stage.folder / "trajectory", stage.folder / "predictions"
    model = model_folder(trajectory, layout.model(stage.asked["model"]))
    task = layout.task(stage.asked["task"])
    # all trajectories of a task look at the same examples
    seed = seeds.derive(stage.seed, "predictions", stage.asked["task"])
    inputs = {trajectory: trajectory, task: task, task / "ood": task / "ood"}
    manifest = stage.manifest("predictions", inputs, {"rows": seed}, outs=[folder])
    scratch = layout.scratch("predictions", manifest.key)
    with stage.output(folder, manifest) as out:
        manifest.facts, metrics = predict_trajectory(trajectory, model, task, settings, seed, scratch=scratch, out=out,
                                                     name=stage.item)
        write_json(out / "metrics.json", metrics)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    run("predictions", main)
