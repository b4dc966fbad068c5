"""python pipelines/data.py TASK -- one task as Parquet: data/TASK/{train,validation,test}.parquet"""

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, run
from finetrace.store.files import sha256_file, sha256_folder


def main(stage: Stage) -> None:
    from finetrace.data.build import build_task
    from finetrace.data.registry import resolve

    study = stage.study
    task = resolve(stage.item, stage.pick("tasks", {**study.tasks, **study.task_files}))
    settings, seed = {"task": as_dict(task), "seed": study.study.seed}, seeds.derive(study.study.seed, "data")
    world = None
    if task.source == "micro":
        from finetrace.data.world import build_world

        settings["world"] = as_dict(study.world)
        world = build_world(study.world, seeds.derive(study.study.seed, "world"))
    inputs = {}
    if task.source == "files" and task.path and (path := (stage.layout.root / task.path).resolve()).exists():
        inputs = {path: sha256_folder(path) if path.is_dir() else sha256_file(path)}
    manifest = stage.manifest("data", settings, inputs, {"data": seed}, rooms=("data",))
    with stage.output(stage.layout.task(stage.item), manifest) as out:
        manifest.facts = build_task(stage.item, task, out, root=stage.layout.root, seed=seed, world=world)


if __name__ == "__main__":
    run("data", main)
