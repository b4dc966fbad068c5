"""python pipelines/hidden.py TRAJECTORY -- hidden states of its checkpoints -> outputs/MODEL/TASK/METHOD/sSEED/hidden/

Killed at any moment, the same command continues after the last finished checkpoint.
"""

import shutil

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, run
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest


def main(stage: Stage) -> None:
    from finetrace.hidden.trajectory import extract_trajectory

    study, layout = stage.study, stage.layout
    item = stage.pick("trajectories", study.trajectories)
    folder = layout.run(item.model, item.task, item.method, item.seed)
    model, task = layout.model(item.model), layout.task(item.task)
    train = read_manifest(folder / "trajectory").settings["train"]
    max_length = study.hidden.max_length or train["max_length"]
    seed = seeds.derive(study.study.seed, "hidden", item.task)  # all trajectories of a task look at the same examples
    manifest = stage.manifest("hidden", as_dict(study.hidden), {folder / "trajectory": folder / "trajectory", task: task},
                              {"rows": seed}, rooms=("hidden", "models"))
    scratch = layout.scratch("hidden", manifest.key)
    with stage.output(folder / "hidden", manifest) as out:
        manifest.facts = extract_trajectory(folder / "trajectory", model, task, study.hidden, max_length, seed, scratch=scratch,
                                            out=out, name=stage.item, pieces=train["pieces"])
        facts = manifest.facts
        write_json(out / "metrics.json", {"checkpoints": len(facts["steps"]), "layers": facts["layers"], "dim": facts["dim"],
                                          "tokens": facts["tokens"], "truncated": facts["truncated"],
                                          **{f"rows/{split}": n for split, n in facts["rows"].items()}})
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    run("hidden", main)
