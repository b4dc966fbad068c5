"""Probes of words and word pairs, layers, mixes, checkpoints -> outputs/PLACE/edges/

ITEM is the place with _ for /. Results are kept per checkpoint, task and part: a killed stage continues after the last
one, and a further checkpoint or task costs only itself.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.edges.settings import EdgesSettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.arrays import read_array
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import read_table, write_table

if TYPE_CHECKING:
    from finetrace.lenses.edges.recipe import Recipe
    from finetrace.lenses.edges.summary import Readout, TaskResult
    from finetrace.lenses.edges.work import Plan, Tasks
    from finetrace.longtable import LongTable

log = logging.getLogger("finetrace")
KINDS = ("token", "span", "span-pair")


def main(stage: Stage) -> None:
    from finetrace.lenses.edges import recipe as recipes
    from finetrace.lenses.edges.figures import draw
    from finetrace.lenses.edges.work import Plan
    from finetrace.models.timeline import open_timeline

    settings, folder = stage.settings("edges", EdgesSettings), stage.folder / "edges"
    with blame("params.yaml: edges"):
        recipe = recipes.recipe_of(settings.recipe, settings.changes)
    tasks = _tasks(stage, settings, recipe)
    timeline = open_timeline(stage.folder / "trajectory", stage.layout.root / "models", settings.checkpoints)
    read = [timeline.trajectory, *(task for task, _ in tasks.values())]
    if not timeline.tokenizer.is_relative_to(timeline.trajectory):  # the model: its tokenizer, and base of adapters
        read.append(timeline.tokenizer)
    task_seeds = {name: seeds.derive(stage.seed, "edges", name) for name in tasks}
    manifest = stage.manifest("lens", {path: path for path in read}, task_seeds, outs=(folder,))
    plan = Plan(stage, settings, recipe, timeline, tasks, task_seeds)
    write_lens(stage, folder, manifest, lambda out: _measure(plan, manifest, out), draw)


def _tasks(stage: Stage, settings: EdgesSettings, recipe: "Recipe") -> "Tasks":
    """name -> folder, facts; an error for one that cannot be probed."""
    tasks = {}
    for name in settings.tasks:
        folder = stage.layout.task(name)
        facts = read_manifest(folder).facts
        if facts.get("kind") not in KINDS:
            raise FinetraceError(f"params.yaml: edges.tasks: {name} is of kind {facts.get('kind')}, but edge probes "
                                 f"are about words; name tasks of kind {', '.join(KINDS)}")
        if facts.get("multi_label") and recipe.loss == "softmax":
            raise FinetraceError(f"params.yaml: edges.changes.loss: softmax decides for one class, but {name} has "
                                 "targets with any number of labels; use loss: sigmoid, or leave the task out")
        if facts.get("multi_label") and settings.mdl:
            raise FinetraceError(f"params.yaml: edges.mdl: {name} has targets with any number of labels, which "
                                 "description length does not know; leave the task or mdl out")
        if not (folder / "validation.parquet").is_file():
            raise FinetraceError(f"{folder}: has no validation split, by which probes are chosen; give the task one "
                                 "(its settings `splits`)")
        tasks[name] = folder, facts
    return tasks


def _measure(plan: "Plan", manifest: Manifest, out: Path) -> Record:
    """Compute the results that are missing; write table, metrics, curves and hits of all."""
    from finetrace.lenses.edges import summary
    from finetrace.lenses.edges.work import Work
    from finetrace.longtable import LongTable

    stage, steps, missing = plan.stage, plan.timeline.steps, plan.missing()
    log.info("%s: %d checkpoints x %s; %d of %d results are there", stage.label, len(steps), ", ".join(plan.tasks),
             len(plan.keys) - len(missing), len(plan.keys))
    if missing:
        Work(plan, missing, stage.layout.scratch("edges", manifest.key)).run()
    rows: list[dict[str, Any]] = []
    reported, facts_of, readouts = {}, {}, list["Readout"]()
    (out / "hits").mkdir()
    for task in plan.tasks:
        facts = read_manifest(plan.result(steps[0], task, "probes")).facts
        readouts = _readouts(plan, facts)
        reported[task] = summary.report_split(facts["targets"])
        rows += _task(plan, task, readouts, reported[task], out / "hits")
        facts_of[task] = {"reported": reported[task], "classes": len(plan.tasks[task][1]["label_names"])}
        facts_of[task] |= {name: facts[name] for name in
                           ("targets", "sentences", "dropped", "tokens", "clean", "layers")}
    table, control = LongTable.of_rows(rows, summary.COLUMNS), plan.settings.control
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.headlines(table, steps, reported))
    write_curves(out / "curves.csv", summary.curves(table, steps, reported))
    manifest.facts = {"steps": steps, "axis": plan.timeline.axis, "readouts": [list(readout) for readout in readouts],
                      "tasks": facts_of, "control": control and f"labels {control.labels} by {control.key}",
                      "device": read_manifest(plan.result(steps[-1], next(iter(plan.tasks)), "probes")).device}
    return _drawn(plan, table, reported)


def _drawn(plan: "Plan", table: "LongTable", reported: dict[str, str]) -> Record:
    """What the figures show, see `finetrace.lenses.edges.figures.draw`."""
    from finetrace.lenses.edges.summary import drawn

    settings, steps = plan.settings, plan.timeline.steps
    return {"place": plan.stage.place, "steps": steps, "axis": plan.timeline.axis, "recipe": settings.recipe,
            "changed": bool(settings.changes), "mixes": settings.mixes,
            "tasks": {task: {"split": split, **drawn(table, task, split, steps)} for task, split in reported.items()}}


def _readouts(plan: "Plan", facts: dict[str, Any]) -> "list[Readout]":
    """What the rows of hits are: layers and mixes as they were trained, the mix of all layers also as `full`."""
    readouts = [(str(name), int(layer)) for name, layer in facts["readouts"]]
    last = facts["layers"] - 1
    full = [i for i, readout in enumerate(readouts) if readout == ("mix", last)]
    if plan.settings.mixes == "full":
        readouts[full[0]] = ("full", last)
    elif full:
        readouts.append(("full", last))
    return readouts


def _task(plan: "Plan", task: str, readouts: "list[Readout]", reported: str, out: Path) -> list[dict[str, Any]]:
    """Rows of the table for one task; its hits on the reported split -> out/TASK.npy and out/TASK.parquet."""
    from finetrace.lenses.edges import summary

    rows: list[dict[str, Any]] = []
    steps, hits = plan.timeline.steps, None
    for number, step in enumerate(steps):
        result = _result(plan, step, task, readouts)
        with blame(str(plan.result(step, task, "probes")), "delete it and run the stage again"):
            rows += summary.task_rows(task, step, result)
        step_hits = result.splits[reported].hits
        if hits is None:
            hits = np.lib.format.open_memmap(out / f"{task}.npy", mode="w+", dtype=step_hits.dtype,
                                             shape=(len(steps), *step_hits.shape))
        hits[number] = step_hits
    if hits is not None:
        hits.flush()
    targets = plan.result(steps[0], task, "probes") / f"{reported}-targets.parquet"
    write_table(out / f"{task}.parquet", read_table(targets))
    return rows


def _result(plan: "Plan", step: int, task: str, readouts: "list[Readout]") -> "TaskResult":
    """What is kept of one task at one checkpoint, as the summary takes it."""
    from finetrace.lenses.edges.summary import SplitHits, TaskResult

    folder = plan.result(step, task, "probes")
    facts = read_manifest(folder).facts
    order = list(range(len(facts["readouts"])))
    order += [facts["readouts"].index(["mix", facts["layers"] - 1])] if len(readouts) > len(order) else []
    hits_of, repeats = {}, plan.settings.seeds
    splits = [split for split in ("validation", "test") if split in facts["targets"]]
    for split in splits:
        arrays = {name: np.array(read_array(path)) for name in ("hits", "clean", "right")
                  if (path := folder / f"{split}-{name}.npy").is_file()}
        sentences = read_table(folder / f"{split}-targets.parquet", ["sentence"])["sentence"].to_numpy()
        multi_label = plan.tasks[task][1].get("multi_label")
        clean = arrays["clean"][order] if "clean" in arrays else None
        right = None if multi_label else arrays["right"][order] / repeats
        hits_of[split] = SplitHits(arrays["hits"][order], sentences, clean, right, facts["majority"][split])
    control, ceiling, mdl = {}, {}, {}
    if (step, task, "control") in plan.keys:
        control_folder = plan.result(step, task, "control")
        control = {split: np.array(read_array(control_folder / f"{split}-hits.npy")) for split in splits}
        ceiling = read_manifest(control_folder).facts["ceiling"]
    if (step, task, "mdl") in plan.keys:
        mdl = {int(layer): (bits, compression) for layer, bits, compression in
               read_manifest(plan.result(step, task, "mdl")).facts["mdl"]}
    weights = None if facts["weights"] is None else np.array(facts["weights"])
    gamma = float("nan") if facts["gamma"] is None else facts["gamma"]
    return TaskResult(readouts, hits_of, weights, gamma, control, ceiling, mdl, facts["targets"]["train"])
