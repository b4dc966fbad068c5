"""python pipelines/hidden.py TRAJECTORY -- hidden states of its checkpoints -> outputs/MODEL/TASK/METHOD/sSEED/hidden/

Killed at any moment, the same command continues after the last finished checkpoint.
"""

import shutil

from finetrace import seeds
from finetrace.config.hidden import HiddenSettings
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest


def main(stage: Stage) -> None:
    from finetrace.inference.trajectory import extract_trajectory
    from finetrace.models.given import model_folder

    layout, settings = stage.layout, stage.settings("hidden", HiddenSettings)
    trajectory, folder = stage.folder / "trajectory", stage.folder / "hidden"
    model = model_folder(trajectory, layout.model(stage.asked["model"]))
    task = layout.task(stage.asked["task"])
    # all trajectories of a task look at the same examples
    seed = seeds.derive(stage.seed, "hidden", stage.asked["task"])
    manifest = stage.manifest("hidden", {trajectory: trajectory, task: task}, {"rows": seed}, outs=[folder])
    train = read_manifest(trajectory).facts["train"]
    scratch = layout.scratch("hidden", manifest.key)
    with stage.output(folder, manifest) as out:
        manifest.facts = extract_trajectory(trajectory, model, task, settings,
                                            settings.max_length or train["max_length"], seed, scratch=scratch, out=out,
                                            name=stage.item, pieces=train["pieces"])
        facts = manifest.facts
        write_json(out / "metrics.json", {"checkpoints": len(facts["steps"]), "layers": facts["layers"],
                                          "dim": facts["dim"], "tokens": facts["tokens"],
                                          "truncated": facts["truncated"],
                                          **{f"rows/{split}": n for split, n in facts["rows"].items()}})
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    run("hidden", main)
