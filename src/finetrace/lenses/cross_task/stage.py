"""What training on one task did to the classes of another -> cross-tasks/NAME/

The other task's examples go through the model as it was before the training and after it; their hidden states are
removed at the end.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.hidden import HiddenSettings
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.cross_task import transfer as lens
from finetrace.lenses.cross_task.settings import CrossTaskSettings
from finetrace.lenses.probes.settings import MlpSettings, ProbesSettings
from finetrace.longtable import LongTable
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress
from finetrace.store.files import atomic_folder, write_json
from finetrace.store.hidden import HiddenStates, finite, fit_threads, read_hidden
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
PREFIX = {"logistic": "", "mlp": "mlp_"}


@dataclass(frozen=True)
class Work:
    """What is looked at, and how. train, test: row numbers."""

    stage: Stage
    entry: CrossTaskSettings
    probes: ProbesSettings
    hidden: HiddenStates
    layers: list[int]
    train: np.ndarray
    test: np.ndarray
    seed: int

    @property
    def ends(self) -> tuple[int, int]:
        """Steps of the first and the last checkpoint."""
        return self.hidden.steps[0], self.hidden.steps[-1]


def main(stage: Stage) -> None:
    from finetrace.lenses.cross_task.figures import draw

    entry, probes = stage.settings("cross_task", CrossTaskSettings), stage.settings("probes", ProbesSettings)
    trajectory, task = stage.folder / "trajectory", stage.layout.task(entry.task)
    folder = stage.layout.cross_task(stage.item)
    states = replace(stage.settings("hidden", HiddenSettings), checkpoints="ends", token_rows={},
                     vectors=[probes.vectors])
    rows_seed = seeds.derive(stage.seed, "hidden", entry.task)  # the examples that other stages look at
    seed = seeds.derive(stage.seed, "cross-task", entry.task)
    manifest = stage.manifest("lens", {trajectory: trajectory, task: task}, {"rows": rows_seed, "probes": seed},
                              outs=(folder,))
    scratch = stage.layout.scratch("cross-task", manifest.key)

    def measure(out: Path) -> Record:
        hidden = _hidden_states(stage, trajectory, task, states, rows_seed, scratch)
        fit_threads(hidden)
        layers = hidden.chosen_layers(entry.layers, f"cross_tasks.{stage.item}.layers")
        work = Work(stage, entry, probes, hidden, _informative(stage, hidden, layers),
                    hidden.rows(entry.train_split), hidden.rows(entry.test_split), seed)
        manifest.facts = {"model": stage.asked["model"], "tuned_on": stage.asked["task"], "task": entry.task,
                          "steps": list(work.ends), "layers": work.layers, "labels": len(hidden.label_names),
                          "train_rows": len(work.train), "test_rows": len(work.test)}
        return _measure(work, out)

    write_lens(stage, folder, manifest, measure, draw)
    shutil.rmtree(scratch, ignore_errors=True)


def _measure(work: Work, out: Path) -> Record:
    """Distances and accuracies before and after; writes table, metrics and curves."""
    entry, layers, (first, last) = work.entry, work.layers, work.ends
    rows = _distances(work)
    floor = None
    if entry.probe != "none":
        rows += _accuracies(work)
        from finetrace.lenses.probes.linear import majority_floor

        floor = majority_floor(work.hidden.labels[work.train], work.hidden.labels[work.test])
    table = lens.table(rows)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", _metrics(table, work, floor))
    write_curves(out / "curves.csv", _curves(table, work))
    before, after = (table.select(statistic="outside_min", step=step, layer=layers[-1]).frame.query("label != ''")
                     for step in (first, last))
    ends = (("before", first), ("after", last)) if entry.probe != "none" else ()
    return {
        "name": work.stage.item, "task": entry.task, "tuned": entry.tuned, "steps": [first, last], "layers": layers,
        "train_split": entry.train_split, "test_split": entry.test_split, "train_rows": len(work.train),
        "test_rows": len(work.test), "label_names": before["label"].tolist(),
        "before": before["value"].to_numpy(), "after": after["value"].to_numpy(),
        "grown": _numbers(table, "labels_grown", last, layers)[:, 0].astype(int).tolist(),
        "shrunk": _numbers(table, "labels_shrunk", last, layers)[:, 0].astype(int).tolist(),
        "growth": _numbers(table, "mean_growth", last, layers), "floor": floor,
        "accuracies": {when: _numbers(table, f"{PREFIX[entry.probe]}accuracy", step, layers) for when, step in ends},
    }


def _hidden_states(stage: Stage, trajectory: Path, task: Path, states: HiddenSettings, seed: int,
                   scratch: Path) -> HiddenStates:
    """The task's examples through the first and last checkpoint, in a scratch folder; a killed run continues there."""
    folder = scratch / "hidden"
    if not (folder / "manifest.json").is_file():
        from finetrace.inference.trajectory import extract_trajectory
        from finetrace.models.given import model_folder

        train = read_manifest(trajectory).facts["train"]
        manifest = stage.manifest("hidden", {trajectory: trajectory, task: task}, {"rows": seed})
        with atomic_folder(folder) as out:
            model = model_folder(trajectory, stage.layout.model(stage.asked["model"]))
            manifest.facts = extract_trajectory(trajectory, model, task, states,
                                                states.max_length or train["max_length"], seed,
                                                scratch=scratch / "steps", out=out, name=stage.label,
                                                pieces=train.get("pieces", "mean"))
            complete(out, manifest, started=time.time())
    return read_hidden(folder)


def _informative(stage: Stage, hidden: HiddenStates, layers: list[int]) -> list[int]:
    """The layers in which examples differ: the embedding of [CLS] is the same vector for every text."""
    def constant(layer: int) -> bool:
        ends = hidden.steps[0], hidden.steps[-1]
        return all(np.ptp(_vectors(hidden, step, layer), axis=0).max() <= 1e-6 for step in ends)

    informative = [layer for layer in layers if not constant(layer)]
    if not informative:
        raise FinetraceError(f"params.yaml: cross_tasks.{stage.item}.layers: all examples have the same vector in "
                             f"layer {', '.join(map(str, layers))}; name another layer")
    if len(informative) < len(layers):
        log.info("%s: left out, all examples have the same vector: layer %s", stage.label,
                 ", ".join(str(layer) for layer in layers if layer not in informative))
    return informative


def _chosen(hidden: HiddenStates, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows, the classes in their own shares."""
    if not count or count >= len(rows):
        return rows
    from finetrace.inference.choose import choose_rows

    return rows[choose_rows(hidden.labels[rows], count, "stratified", seeds.derive(seed, "points"))]


def _vectors(hidden: HiddenStates, step: int, layer: int) -> np.ndarray:
    kind = hidden.kind("cls" if (hidden.folder / f"step-{step:08d}" / "cls.npy").is_file() else "mean")
    return finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, kind, layer).astype(np.float64)


def _distances(work: Work) -> list[lens.Row]:
    """Clusters and minimum distances of the classes before and after, and what changed, layer by layer."""
    from finetrace.lenses.hulls.distances import label_distances
    from finetrace.lenses.hulls.partition import estimate, probe

    stage, entry, hidden, layers, ends = work.stage, work.entry, work.hidden, work.layers, work.ends
    rows = _chosen(hidden, work.train, entry.max_points, work.seed)
    labels, names = hidden.labels[rows], hidden.label_names
    present = np.unique(labels, return_counts=True)[1]
    cost = estimate(len(rows), hidden.width, len(present), int(present.max()))
    log.info("%s: %d classes of %s in %s before and after, %d layers, %s examples: about %.0f s if classes are "
             "separable, %.0f s if they overlap", stage.label, len(present), entry.task, entry.tuned, len(layers),
             f"{len(rows):,}", 2 * len(layers) * cost.linear_seconds, 2 * len(layers) * cost.overlapping_seconds)
    table_rows: list[lens.Row] = []
    progress = Progress(len(layers), f"{stage.label}: hulls", unit="layer")
    for layer in layers:
        distances = []
        for step in dict.fromkeys(ends):
            clusters = probe(_vectors(hidden, step, layer)[rows], labels, classes=np.arange(len(names)))
            between = label_distances(clusters, min_size=entry.min_size, reduce="min")
            table_rows += lens.space_rows(step, layer, clusters, between, names, entry.train_split)
            distances.append(between)
        change = lens.effect(distances[0].outside_min, distances[-1].outside_min)
        table_rows += lens.change_rows(ends[1], layer, change, distances[0].classes, names, entry.train_split)
        progress.advance()
    progress.close()
    return table_rows


def _accuracies(work: Work) -> list[lens.Row]:
    """Accuracy of the classifiers before and after, layer by layer; examples of classes that training lacks count as
    errors."""
    stage, entry, hidden, layers, ends = work.stage, work.entry, work.hidden, work.layers, work.ends
    train, test, prefix = work.train, work.test, PREFIX[entry.probe]
    units = hidden.sentence_codes(test)
    rows: list[lens.Row] = []
    device = _device(2 * len(layers) * (len(train) + len(test)) * hidden.width)
    for layer in layers:
        right: list[np.ndarray] = []
        for step in dict.fromkeys(ends):
            values = _vectors(hidden, step, layer)
            with blame(f"params.yaml: cross_tasks.{stage.item}: {entry.task}, step {step}, layer {layer}"):
                right.append(_right(work, values[train], hidden.labels[train], values[test], hidden.labels[test],
                                    device))
            rows += lens.accuracy_rows(step, layer, right[-1], units, entry.test_split, prefix)
        rows.append(lens.accuracy_change(ends[1], layer, right[0], right[-1], units, entry.test_split,
                                         prefix))
    return rows


def _right(work: Work, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray, device: str) -> np.ndarray:
    """(seed, row) bool: which test examples the classifier gets right; logistic regression has one seed."""
    settings, holdout = work.probes, seeds.derive(work.seed, "holdout")
    if work.entry.probe == "logistic":
        from finetrace.lenses.probes.linear import logistic_probe, logits

        probe = logistic_probe(X[None], y, l2=settings.l2, holdout=settings.holdout, seed=holdout,
                               tolerance=settings.tolerance, max_iterations=settings.max_iterations, device=device)
        return lens.hits(logits(probe, X_test[None]), probe.classes, y_test)
    from finetrace.lenses.probes.mlp import mlp_grid, mlp_logits

    mlp = settings.mlp or MlpSettings()
    grid = mlp_grid(X[None], y, hidden=mlp.hidden, l2=mlp.l2,
                    seeds=[seeds.derive(work.seed, "mlp", k) for k in range(mlp.seeds)], search=mlp.search,
                    folds=mlp.folds, holdout=mlp.holdout, seed=holdout, max_epochs=mlp.max_epochs,
                    standardise=mlp.standardise, memory_mib=settings.memory_mib, device=device)
    return lens.hits(mlp_logits(grid, 0, X_test), grid.classes, y_test)


def _device(numbers: int) -> str:
    import torch

    if numbers >= 50_000_000 and torch.cuda.is_available():  # below, starting the GPU takes longer than it saves
        return "cuda"
    return "cpu"


def _numbers(table: LongTable, statistic: str, step: int, layers: list[int]) -> np.ndarray:
    """(layer, 3) value and interval of one statistic."""
    return table.grid([step], layers, statistic=statistic, label="")[0]


def _metrics(table: LongTable, work: Work, floor: float | None) -> dict[str, float]:
    """What a person compares between runs: counts of classes, mean change, accuracy and clusters of every layer."""
    entry, layers = work.entry, work.layers
    metrics: dict[str, float] = {} if floor is None else {f"majority_floor/{entry.test_split}": floor}
    changed = ["labels_grown", "labels_shrunk", "mean_growth"]
    states = ["clusters", "linear"]
    if entry.probe != "none":
        changed.append(f"{PREFIX[entry.probe]}accuracy_change")
        states.append(f"{PREFIX[entry.probe]}accuracy")
    metrics |= {f"{name}/layer-{layer:02d}": value for name in changed
                for layer, value in zip(layers, _numbers(table, name, work.ends[1], layers)[:, 0], strict=True)}
    return metrics | table.headlines({name: {"statistic": name, "label": ""} for name in states}, work.ends, layers)


def _curves(table: LongTable, work: Work) -> Mapping[str, Any]:
    """Over layers: what changed, and accuracy before and after."""
    entry, layers, (first, last) = work.entry, work.layers, work.ends
    curves = {"layer": layers} | {name: _numbers(table, name, last, layers)[:, 0]
                                  for name in ("labels_grown", "labels_shrunk", "mean_growth")}
    if entry.probe != "none":
        name = f"{PREFIX[entry.probe]}accuracy"
        curves |= {f"{name}_{when}": _numbers(table, name, step, layers)[:, 0]
                   for when, step in (("before", first), ("after", last))}
    return curves
