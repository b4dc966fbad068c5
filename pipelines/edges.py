"""python pipelines/edges.py NAME -- probes of words and word pairs on every layer, mix and checkpoint -> outputs/PLACE/edges/"""

import logging
from pathlib import Path

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.arrays import read_array
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table, write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/edges", "lenses/intervals.py", "hidden", "models", "config/edges.py")
KINDS = ("token", "span", "span-pair")


def main(stage: Stage) -> None:
    from finetrace.hidden.edge_work import Plan, Work
    from finetrace.lenses.edges import recipe as recipes
    from finetrace.models.timeline import open_timeline

    item = stage.pick("edge_probes", stage.study.edge_probes)
    settings, place = stage.study.edges, stage.layout.place(item.trajectory)
    try:
        recipe = recipes.recipe_of(settings.recipe, settings.changes)
    except ValueError as error:
        raise FinetraceError(f"params.yaml: edges: {error}") from error
    tasks = _tasks(stage, settings, recipe)
    timeline = open_timeline(place / "trajectory", stage.layout.root / "models",
                             item.checkpoints or settings.checkpoints)
    inputs = {place / "trajectory": place / "trajectory", **{folder: folder for folder, _ in tasks.values()}}
    own = {name: seeds.derive(stage.study.study.seed, "edges", name) for name in tasks}
    resolved = {**as_dict(settings), "recipe_resolved": recipes.as_dict(recipe)}
    manifest = stage.manifest("lens", resolved, inputs, own, rooms=ROOMS)
    plan = Plan(stage, settings, recipe, timeline, tasks, own)
    missing = plan.missing()
    log.info("%s: %d checkpoints x %s; %d of %d results are there", stage.label, len(timeline.steps), ", ".join(tasks),
             len(plan.keys) - len(missing), len(plan.keys))
    device = "cpu"
    if missing:
        device = Work(plan, missing, stage.layout.scratch("edges", manifest.key)).run()
    with stage.output(place / "edges", manifest) as out:
        manifest.facts = _write(stage, out, plan) | {"device": device}


def _tasks(stage, settings, recipe):
    """name -> folder, facts; an error for one that cannot be probed."""
    if not settings.tasks:
        raise FinetraceError("params.yaml: edges.tasks: names no task; write e.g. [micro-pos, micro-dep]")
    found = {}
    for name in settings.tasks:
        if name not in stage.study.tasks and name not in stage.study.task_files:
            raise FinetraceError(f"params.yaml: edges.tasks: {name!r} is not defined; known: "
                                 f"{', '.join([*stage.study.tasks, *stage.study.task_files])}")
        folder = stage.layout.task(name)
        facts = read_manifest(folder).facts
        if facts.get("kind") not in KINDS:
            raise FinetraceError(f"params.yaml: edges.tasks: {name} is of kind {facts.get('kind')}, but edge probes are about "
                                 f"words; name tasks of kind {', '.join(KINDS)}")
        if facts.get("multi_label") and recipe.loss == "softmax":
            raise FinetraceError(f"params.yaml: edges.changes.loss: softmax decides for one class, but {name} has targets "
                                 "with any number of labels; use loss: sigmoid, or leave the task out")
        if facts.get("multi_label") and settings.mdl:
            raise FinetraceError(f"params.yaml: edges.mdl: {name} has targets with any number of labels, which description "
                                 "length does not know; leave the task or mdl out")
        if not (folder / "validation.parquet").is_file():
            raise FinetraceError(f"{folder}: has no validation split, by which probes are chosen; give the task one "
                                 "(its settings `splits`)")
        found[name] = folder, facts
    return found


def _write(stage, out: Path, plan) -> dict:
    """Table, metrics, curves, hits and figures from the results; facts for the manifest."""
    from finetrace.lenses.edges import summary

    rows, reported, facts_of = [], {}, {}
    steps = plan.timeline.steps
    (out / "hits").mkdir()
    for task in plan.tasks:
        facts = read_manifest(plan.result(steps[0], task, "probes")).facts
        readouts = [(str(name), int(layer)) for name, layer in facts["readouts"]]
        last = facts["layers"] - 1
        full = [i for i, one in enumerate(readouts) if one == ("mix", last)]
        if plan.settings.mixes == "full":
            readouts[full[0]] = ("full", last)
        elif full:
            readouts.append(("full", last))
        splits = [split for split in ("validation", "test") if split in facts["targets"]]
        reported[task] = summary.report_split({split: None for split in splits})
        hits = None
        for number, step in enumerate(steps):
            found = _result(plan, step, task, readouts, splits)
            try:
                rows += summary.task_rows(task, step, found)
            except ValueError as error:
                raise FinetraceError(f"{plan.result(step, task, 'probes')}: {error}; delete it and run the stage "
                                     "again") from error
            own = found.splits[reported[task]].hits
            if hits is None:
                hits = np.lib.format.open_memmap(out / "hits" / f"{task}.npy", mode="w+", dtype=own.dtype,
                                                 shape=(len(steps), *own.shape))
            hits[number] = own
        hits.flush()
        write_table(out / "hits" / f"{task}.parquet", read_table(plan.result(steps[0], task, "probes") /
                                                                 f"{reported[task]}-targets.parquet"))
        facts_of[task] = {name: facts[name] for name in ("targets", "sentences", "dropped", "tokens", "clean", "layers")}
        facts_of[task] |= {"reported": reported[task], "classes": len(plan.tasks[task][1]["label_names"])}
    index = summary.indexed(rows)
    write_table(out / "table.parquet", summary.table(rows))
    write_json(out / "metrics.json", summary.headlines(index, steps, reported))
    write_curves(out / "curves.csv", summary.curves(index, steps, reported))
    write_figures(out / "figures", _figures(stage, plan, index, reported))
    settings = plan.settings
    return {"steps": steps, "axis": plan.timeline.axis, "readouts": [list(one) for one in readouts], "tasks": facts_of,
            "control": settings.control and f"labels {settings.control.labels} by {settings.control.key}"}


def _result(plan, step, task, readouts, splits):
    """What is kept of one task at one checkpoint, as the summary takes it."""
    from finetrace.lenses.edges.summary import SplitHits, TaskResult

    folder = plan.result(step, task, "probes")
    facts = read_manifest(folder).facts
    order = list(range(len(facts["readouts"])))
    order += [facts["readouts"].index(["mix", facts["layers"] - 1])] if len(readouts) > len(order) else []
    found, repeats = {}, plan.settings.seeds
    for split in splits:
        arrays = {name: np.array(read_array(path)) for name in ("hits", "clean", "right")
                  if (path := folder / f"{split}-{name}.npy").is_file()}
        sentences = read_table(folder / f"{split}-targets.parquet", ["sentence"])["sentence"].to_numpy()
        several = plan.tasks[task][1].get("multi_label")
        found[split] = SplitHits(arrays["hits"][order], sentences, arrays["clean"][order] if "clean" in arrays else None,
                                 None if several else arrays["right"][order] / repeats, facts["majority"][split])
    control, ceiling, mdl = {}, {}, {}
    if (step, task, "control") in plan.keys:
        kept = plan.result(step, task, "control")
        control = {split: np.array(read_array(kept / f"{split}-hits.npy")) for split in splits}
        ceiling = read_manifest(kept).facts["ceiling"]
    if (step, task, "mdl") in plan.keys:
        mdl = {int(layer): (bits, compression) for layer, bits, compression in
               read_manifest(plan.result(step, task, "mdl")).facts["mdl"]}
    weights = None if facts["weights"] is None else np.array(facts["weights"])
    return TaskResult(readouts, found, weights, float("nan") if facts["gamma"] is None else facts["gamma"], control, ceiling, mdl,
                      facts["targets"]["train"])


def _figures(stage, plan, index, reported):
    from finetrace.figures import edges as figures
    from finetrace.lenses.edges.summary import layers_of, series

    steps, axis, name = plan.timeline.steps, plan.timeline.axis, stage.item
    layers = {task: layers_of(index, task) for task in reported}

    def of(statistic: str, readout: str, last: bool = False, first: int = 0):
        found = {}
        for task, split in reported.items():
            values = series(index, task, statistic, split, readout, steps, layers[task][-1:] if last else layers[task][first:])
            if np.isfinite(values[..., 0]).any():
                found[task] = values
        return found

    majority = {task: series(index, task, "majority", split, "", steps[:1], [-1])[0, 0, 0] for task, split in reported.items()}
    splits = ", ".join(f"{task}: {split}" for task, split in reported.items()) if len(set(reported.values())) > 1 \
        else f"{next(iter(reported.values()))} split"
    note = f"recipe {plan.settings.recipe}{' with changes' if plan.settings.changes else ''}, {splits}"
    made = {}
    if single := of("f1", "layer"):
        made["scores"] = figures.scores(steps, single, full={task: v[:, 0] for task, v in of("f1", "full", last=True).items()},
                                        majority=majority, axis=axis, title=f"Edge probes: {name}", note=note)
        made["lattice"] = figures.lattices(steps, single, axis=axis, title=f"Edge probes by layer and step: {name}", note=note)
    if weights := of("weight", "full"):
        made["weights"] = figures.strips(steps, {task: v[..., 0] for task, v in weights.items()}, axis=axis,
                                         title=f"Mixing weights: {name}", note=note)
        made["centre"] = figures.centre(steps, {task: v[:, 0, 0] for task, v in of("cog", "full", last=True).items()},
                                        {task: v[:, 0, 0] for task, v in of("expected_layer", "mix", last=True).items()},
                                        layers=max(map(len, layers.values())), axis=axis, title=f"Depth of tasks: {name}",
                                        note=note)
    if plan.settings.mixes == "all":
        expected = {task: v[:, 0, 0] for task, v in of("expected_layer", "mix", last=True).items()}
        made["cumulative"] = figures.cumulative(steps, of("f1", "mix"), expected, axis=axis,
                                                title=f"Mixes of the layers 0 to k: {name}", note=note)
    return made


if __name__ == "__main__":
    run("edges", main)
