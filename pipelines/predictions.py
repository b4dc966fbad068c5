"""python pipelines/predictions.py TRAJECTORY -- logits, features and head of its checkpoints -> .../sSEED/predictions/

Killed at any moment, the same command continues after the last finished checkpoint.
"""

import shutil

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, run
from finetrace.store.files import sha256_file, write_json

ROOMS = ("predictions.py", "training/evaluate.py", "hidden/choose.py", "models")


def main(stage: Stage) -> None:
    from finetrace.predictions import predict_trajectory

    study, layout = stage.study, stage.layout
    item = stage.pick("trajectories", study.trajectories)
    folder = layout.run(item.model, item.task, item.method, item.seed)
    model, task = layout.model(item.model), layout.task(item.task)
    seed = seeds.derive(study.study.seed, "predictions", item.task)  # all trajectories of a task look at the same examples
    inputs = {folder / "trajectory": folder / "trajectory", task: task}
    if (shifted := task / "ood" / "content.json").is_file():
        inputs[shifted] = sha256_file(shifted)
    manifest = stage.manifest("predictions", as_dict(study.predictions), inputs, {"rows": seed}, rooms=ROOMS)
    scratch = layout.scratch("predictions", manifest.key)
    with stage.output(folder / "predictions", manifest) as out:
        manifest.facts, metrics = predict_trajectory(folder / "trajectory", model, task, study.predictions, seed, scratch=scratch,
                                                     out=out, name=stage.item)
        write_json(out / "metrics.json", metrics)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    run("predictions", main)
