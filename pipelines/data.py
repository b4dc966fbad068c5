"""python pipelines/data.py TASK -- one task as Parquet: data/TASK/{train,validation,test}.parquet,
data/TASK/ood/SET.parquet"""

from pathlib import Path

from finetrace import seeds
from finetrace.config.base import parse
from finetrace.config.data import OodSettings, RowsSettings, TaskSettings
from finetrace.config.world import WorldSettings
from finetrace.pipeline.stage import AlreadyThere, Stage, log, run
from finetrace.store.files import sha256_path


def main(stage: Stage) -> None:
    from finetrace.data.build import build_task
    from finetrace.data.lengths import require_short, shortest_input
    from finetrace.data.ood import build_ood

    folder, root = stage.layout.task(stage.item), stage.layout.root
    task = stage.settings("task", TaskSettings)
    sets = {name: parse(OodSettings, ood, f"{stage.label}: ood.{name}") for name, ood in stage.asked["ood"].items()}
    seed = seeds.derive(stage.seed, "data")
    for name, ood in sets.items():
        if ood.source == "files" and task.source != "files":
            log.info("%s: changes of %s are not noticed; after one, run dvc repro -f %s", name, ood.path, stage.label)
    section = "task_files" if stage.label.startswith("data-files@") else "tasks"

    # The sets out of distribution have a manifest of their own: trainings depend on the task's,
    # and another set re-runs none.
    manifest = stage.manifest("data", _inputs(root, task), {"data": seed})
    file_hashes = {path: value for ood in sets.values() for path, value in _inputs(root, ood).items()}
    ood_manifest = stage.manifest("data", file_hashes, {"data": seed})
    if stage.is_there(folder, manifest) and stage.is_there(folder / "ood", ood_manifest):
        raise AlreadyThere
    world = None
    if "world" in stage.asked:
        from finetrace.data.world import build_world

        world = build_world(stage.settings("world", WorldSettings), seeds.derive(stage.seed, "world"))
    with stage.output(folder, manifest) as out:
        manifest.facts = build_task(stage.item, task, out, root=root, seed=seed, world=world, section=section)
        # these settings decide nothing of the data, which does not depend on them
        trainings = [stage.layout.settings / name for name in ("tune", "train", "downstream")]
        require_short(f"{section}.{stage.item}", out, shortest_input(stage.item, trainings))
        with stage.output(out / "ood", ood_manifest) as ood_out:
            ood_manifest.facts = build_ood(stage.item, sets, ood_out, kind=manifest.facts["kind"], root=root, seed=seed,
                                           world=world, label_names=tuple(manifest.facts["label_names"]),
                                           section=section)


def _inputs(root: Path, rows: RowsSettings) -> dict[Path, Path | str]:
    """Path -> hash of the local files of a definition."""
    if rows.source != "files" or not rows.path or not (path := (root / rows.path).resolve()).exists():
        return {}
    return {path: sha256_path(path)}


if __name__ == "__main__":
    run("data", main)
