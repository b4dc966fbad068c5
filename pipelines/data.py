"""python pipelines/data.py TASK -- one task as Parquet: data/TASK/{train,validation,test}.parquet, data/TASK/ood/SET.parquet"""

from pathlib import Path
from typing import Any

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, log, run
from finetrace.store.files import sha256_file, sha256_folder


def main(stage: Stage) -> None:
    from finetrace.data.build import build_task
    from finetrace.data.ood import build_ood
    from finetrace.data.registry import resolve, resolve_ood

    study, folder, root = stage.study, stage.layout.task(stage.item), stage.layout.root
    task = resolve(stage.item, stage.pick("tasks", {**study.tasks, **study.task_files}))
    sets = resolve_ood(stage.item, task)
    seed = seeds.derive(study.study.seed, "data")
    world, of_world = None, {}
    if "micro" in (task.source, *(one.source for one in sets.values())):
        from finetrace.data.world import build_world

        of_world = {"world": as_dict(study.world)}
        world = build_world(study.world, seeds.derive(study.study.seed, "world"))
    for name, one in sets.items():
        if one.source == "files" and task.source != "files":
            log.info("%s: changes of %s are not noticed; after one, run dvc repro -f %s", name, one.path, stage.label)

    settings = {"task": {k: v for k, v in as_dict(task).items() if k != "ood"}, "seed": seed, **of_world}
    manifest = stage.manifest("data", settings, _inputs(root, task), {"data": seed}, rooms=("data",))
    with stage.output(folder, manifest) as out:
        manifest.facts = build_task(stage.item, task, out, root=root, seed=seed, world=world)

    # A folder with a content.json of its own, written second: trainings depend on the one above, and another set re-runs none.
    inputs = {path: value for one in sets.values() for path, value in _inputs(root, one).items()}
    settings = {"sets": {name: as_dict(one) for name, one in sets.items()}, "seed": seed, **of_world}
    of_sets = stage.manifest("data", settings, inputs, {"data": seed}, rooms=("data",))
    with stage.output(folder / "ood", of_sets) as out:
        of_sets.facts = build_ood(stage.item, sets, out, kind=manifest.facts["kind"], root=root, seed=seed, world=world,
                                  label_names=tuple(manifest.facts["label_names"]))


def _inputs(root: Path, rows: Any) -> dict[Path, Path | str]:
    """Path -> hash of the local files of a definition."""
    if rows.source != "files" or not rows.path or not (path := (root / rows.path).resolve()).exists():
        return {}
    return {path: sha256_folder(path) if path.is_dir() else sha256_file(path)}


if __name__ == "__main__":
    run("data", main)
