"""python pipelines/data.py TASK -- one task as Parquet: data/TASK/{train,validation,test}.parquet"""

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, run


def main(stage: Stage) -> None:
    from finetrace.data.build import build_task
    from finetrace.data.registry import resolve

    study = stage.study
    task = resolve(stage.item, stage.pick("tasks", {**study.tasks, **study.task_files}))
    settings, seed, world = {"task": as_dict(task), "seed": study.study.seed}, seeds.derive(study.study.seed, "data"), None
    if task.source == "micro":
        from finetrace.data.world import build_world

        settings["world"] = as_dict(study.world)
        world = build_world(study.world, seeds.derive(study.study.seed, "world"))
    manifest = stage.manifest("data", settings, {}, {"data": seed}, rooms=("data",))
    with stage.output(stage.layout.task(stage.item), manifest) as out:
        manifest.facts = build_task(stage.item, task, out, root=stage.layout.root, seed=seed, world=world)


if __name__ == "__main__":
    run("data", main)
