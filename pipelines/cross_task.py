"""python pipelines/cross_task.py NAME -- what training on one task did to the classes of another -> cross-tasks/NAME/

The other task's examples go through the model as it was before the training and after it; their hidden states are removed at
the end.
"""

import logging
import shutil
import time
from dataclasses import replace

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import atomic_folder, write_json
from finetrace.store.hidden import finite, fit_threads, read_hidden
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
ROOMS = ("hidden", "models", "lenses/cross_task.py", "lenses/hulls", "lenses/probes", "lenses/intervals.py")
PREFIX = {"logistic": "", "mlp": "mlp_"}


def main(stage: Stage) -> None:
    from finetrace.lenses import cross_task as lens

    entry = stage.pick("cross_tasks", stage.study.cross_tasks)
    item = stage.study.trajectories[entry.trajectory]
    settings = stage.study.probes.for_model(item.model)
    trajectory = stage.layout.run(item.model, item.task, item.method, item.seed) / "trajectory"
    task = stage.layout.task(entry.task)
    states = replace(stage.study.hidden, checkpoints="ends", token_rows={}, vectors=[settings.vectors])
    rows_seed = seeds.derive(stage.study.study.seed, "hidden", entry.task)  # the examples that other stages look at
    seed = seeds.derive(stage.study.study.seed, "cross-task", entry.task)
    manifest = stage.manifest("lens", {**as_dict(entry), "hidden": as_dict(states), "probes": as_dict(settings)},
                              {trajectory: trajectory, task: task}, {"rows": rows_seed, "probes": seed},
                              rooms=ROOMS)
    scratch = stage.layout.scratch("cross-task", manifest.key)
    hidden = _hidden_states(stage, item, trajectory, task, states, rows_seed, scratch)
    fit_threads(hidden)
    layers = _informative(stage, hidden, _layers(entry.layers, hidden))
    first, last = hidden.steps[0], hidden.steps[-1]
    train, test = hidden.rows(entry.train_split), hidden.rows(entry.test_split)
    rows = _distances(stage, hidden, layers, _chosen(hidden, train, entry.max_points, seed), entry, lens)
    floor = None
    if entry.probe != "none":
        rows += _accuracies(stage, hidden, layers, train, test, entry, settings, lens, seed)
        from finetrace.lenses.probes import majority_floor

        floor = majority_floor(hidden.labels[train], hidden.labels[test])
    with stage.output(stage.layout.cross_task(stage.item), manifest) as out:
        write_table(out / "table.parquet", lens.table(rows))
        write_json(out / "metrics.json", _metrics(rows, layers, first, last, entry, floor, lens))
        write_curves(out / "curves.csv", _curves(rows, layers, first, last, entry, lens))
        counts = len(train), len(test)
        write_figures(out / "figures", _figures(stage.item, rows, layers, first, last, entry, floor, lens, counts))
        manifest.facts = {"model": item.model, "tuned_on": item.task, "task": entry.task, "steps": [first, last],
                          "layers": layers, "labels": len(hidden.label_names), "train_rows": len(train), "test_rows": len(test)}
    shutil.rmtree(scratch, ignore_errors=True)


def _hidden_states(stage, item, trajectory, task, states, seed, scratch):
    """The task's examples through the first and last checkpoint, in a scratch folder; a killed run continues there."""
    folder = scratch / "hidden"
    if not (folder / "manifest.json").is_file():
        from finetrace.hidden.trajectory import extract_trajectory

        train = read_manifest(trajectory).settings["train"]
        manifest = stage.manifest("hidden", as_dict(states), {trajectory: trajectory, task: task}, {"rows": seed})
        with atomic_folder(folder) as out:
            manifest.facts = extract_trajectory(trajectory, stage.layout.model(item.model), task, states,
                                                states.max_length or train["max_length"], seed, scratch=scratch / "steps",
                                                out=out, name=stage.label, pieces=train.get("pieces", "mean"))
            complete(out, manifest, started=time.time())
    return read_hidden(folder)


def _layers(wanted, hidden) -> list[int]:
    count = hidden.manifest.facts["layers"]
    if wanted == "all":
        return list(range(count))
    for layer in wanted:
        if not -count <= layer < count:
            raise FinetraceError(f"params.yaml: cross_tasks: layers: {layer} does not exist; there are layers 0 (embeddings) to "
                                 f"{count - 1}")
    return sorted({layer % count for layer in wanted})


def _informative(stage, hidden, layers) -> list[int]:
    """The layers in which examples differ: the embedding of [CLS] is the same vector for every text."""
    def constant(layer):
        return all(np.ptp(_vectors(hidden, step, layer), axis=0).max() <= 1e-6 for step in (hidden.steps[0], hidden.steps[-1]))

    kept = [layer for layer in layers if not constant(layer)]
    if not kept:
        raise FinetraceError(f"params.yaml: cross_tasks.{stage.item}.layers: all examples have the same vector in layer "
                             f"{', '.join(map(str, layers))}; name another layer")
    if len(kept) < len(layers):
        log.info("%s: left out, all examples have the same vector: layer %s", stage.label,
                 ", ".join(str(layer) for layer in layers if layer not in kept))
    return kept


def _chosen(hidden, rows, count, seed):
    """At most `count` of the rows, the classes in their own shares."""
    if not count or count >= len(rows):
        return rows
    from finetrace.hidden.choose import choose_rows

    return rows[choose_rows(hidden.labels[rows], count, "stratified", seeds.derive(seed, "points"))]


def _vectors(hidden, step, layer):
    kind = hidden.kind("cls" if (hidden.folder / f"step-{step:08d}" / "cls.npy").is_file() else "mean")
    return finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, kind, layer).astype(np.float64)


def _distances(stage, hidden, layers, rows, entry, lens):
    """Clusters and minimum distances of the classes before and after, and what changed, layer by layer."""
    from finetrace.lenses.hulls import estimate, label_distances, probe

    labels, names, ends = hidden.labels[rows], hidden.label_names, (hidden.steps[0], hidden.steps[-1])
    present = np.unique(labels, return_counts=True)[1]
    cost = estimate(len(rows), hidden.width, len(present), int(present.max()))
    log.info("%s: %d classes of %s in %s before and after, %d layers, %s examples: about %.0f s if classes are separable, "
             "%.0f s if they overlap", stage.label, len(present), entry.task, entry.tuned, len(layers), f"{len(rows):,}",
             2 * len(layers) * cost.linear_seconds, 2 * len(layers) * cost.overlapping_seconds)
    found, told = [], time.monotonic()
    for number, layer in enumerate(layers):
        apart = []
        for step in dict.fromkeys(ends):
            clusters = probe(_vectors(hidden, step, layer)[rows], labels, classes=np.arange(len(names)))
            between = label_distances(clusters, min_size=entry.min_size, reduce="min")
            found += lens.space_rows(step, layer, clusters, between, names, entry.train_split)
            apart.append(between)
        change = lens.effect(apart[0].outside_min, apart[-1].outside_min)
        found += lens.change_rows(ends[1], layer, change, apart[0].classes, names, entry.train_split)
        if time.monotonic() - told > 20:
            told = time.monotonic()
            log.info("%s: hulls of %d of %d layers", stage.label, number + 1, len(layers))
    return found


def _accuracies(stage, hidden, layers, train, test, entry, settings, lens, seed):
    """Accuracy of the classifiers before and after, layer by layer; examples of classes that training lacks count as errors."""
    ends, prefix, found = (hidden.steps[0], hidden.steps[-1]), PREFIX[entry.probe], []
    device = _device(2 * len(layers) * (len(train) + len(test)) * hidden.width)
    for layer in layers:
        right = []
        for step in dict.fromkeys(ends):
            values = _vectors(hidden, step, layer)
            try:
                right.append(_right(entry.probe, values[train], hidden.labels[train], values[test], hidden.labels[test], settings,
                                    seed, device, lens))
            except ValueError as error:
                raise FinetraceError(f"params.yaml: cross_tasks.{stage.item}: {entry.task}, step {step}, layer {layer}: "
                                     f"{error}") from error
            found += lens.accuracy_rows(step, layer, right[-1], entry.test_split, prefix)
        found.append(lens.accuracy_change(ends[1], layer, right[0], right[-1], entry.test_split, prefix, seed=seed))
    return found


def _right(kind, X, y, X_test, y_test, settings, seed, device, lens):
    """(seed, row) bool: which test examples the classifier gets right; logistic regression has one seed."""
    if kind == "logistic":
        from finetrace.lenses.probes import logistic_probe, logits

        probe = logistic_probe(X[None], y, l2=settings.l2, holdout=settings.holdout, seed=seeds.derive(seed, "holdout"),
                               tolerance=settings.tolerance, max_iterations=settings.max_iterations, device=device)
        return lens.hits(logits(probe, X_test[None]), probe.classes, y_test)
    from finetrace.config.probes import MlpSettings
    from finetrace.lenses.probes.mlp import mlp_grid, mlp_logits

    mlp = settings.mlp or MlpSettings()
    probe = mlp_grid(X[None], y, hidden=mlp.hidden, l2=mlp.l2, seeds=[seeds.derive(seed, "mlp", k) for k in range(mlp.seeds)],
                     search=mlp.search, folds=mlp.folds, holdout=mlp.holdout, seed=seeds.derive(seed, "holdout"),
                     max_epochs=mlp.max_epochs, standardise=mlp.standardise, memory_mib=settings.memory_mib, device=device)
    return lens.hits(mlp_logits(probe, 0, X_test), probe.classes, y_test)


def _device(numbers: int) -> str:
    import torch

    if numbers >= 50_000_000 and torch.cuda.is_available():  # below, starting the GPU takes longer than it saves
        return "cuda"
    return "cpu"


def _numbers(rows, lens, statistic, step, layers):
    """(layer, 3) value and interval of one statistic."""
    found = [lens.select(rows, statistic, step=step, layer=layer, label="")[0] for layer in layers]
    return np.array([[row["value"], row["low"], row["high"]] for row in found])


def _metrics(rows, layers, first, last, entry, floor, lens) -> dict[str, float]:
    """What a person compares between runs: counts of classes, mean change, accuracy and clusters of every layer."""
    metrics: dict[str, float] = {} if floor is None else {f"majority_floor/{entry.test_split}": floor}
    changed = ["labels_grown", "labels_shrunk", "mean_growth"]
    states = ["clusters", "linear"]
    if entry.probe != "none":
        changed.append(f"{PREFIX[entry.probe]}accuracy_change")
        states.append(f"{PREFIX[entry.probe]}accuracy")
    for name in changed:
        for layer, value in zip(layers, _numbers(rows, lens, name, last, layers)[:, 0], strict=True):
            metrics[f"{name}/layer-{layer:02d}"] = float(value)
    for name in states:
        for when, step in (("first", first), ("last", last)):
            for layer, value in zip(layers, _numbers(rows, lens, name, step, layers)[:, 0], strict=True):
                metrics[f"{name}/layer-{layer:02d}/{when}"] = float(value)
    return metrics


def _curves(rows, layers, first, last, entry, lens):
    """Over layers: what changed, and accuracy before and after."""
    curves = {"layer": layers} | {name: _numbers(rows, lens, name, last, layers)[:, 0]
                                  for name in ("labels_grown", "labels_shrunk", "mean_growth")}
    if entry.probe != "none":
        name = f"{PREFIX[entry.probe]}accuracy"
        curves |= {f"{name}_{when}": _numbers(rows, lens, name, step, layers)[:, 0]
                   for when, step in (("before", first), ("after", last))}
    return curves


def _figures(name, rows, layers, first, last, entry, floor, lens, counts):
    from finetrace.figures import cross_task as figures

    note = f"{entry.task} in {entry.tuned} at steps {first:,} and {last:,}; {counts[0]:,} {entry.train_split} examples"
    of = {step: [row for row in lens.select(rows, "outside_min", step=step, layer=layers[-1]) if row["label"]]
          for step in (first, last)}
    accuracies = {}
    if entry.probe != "none":
        note += f", {counts[1]:,} {entry.test_split} examples scored"
        accuracies = {when: _numbers(rows, lens, f"{PREFIX[entry.probe]}accuracy", step, layers)
                      for when, step in (("before", first), ("after", last))}
    up, down = (_numbers(rows, lens, key, last, layers)[:, 0].astype(int).tolist() for key in ("labels_grown", "labels_shrunk"))
    return {
        "classes": figures.classes([row["label"] for row in of[first]], np.array([row["value"] for row in of[first]]),
                                   np.array([row["value"] for row in of[last]]), note=note,
                                   title=f"Classes before and after, layer {layers[-1]}: {name}"),
        "layers": figures.layers(layers, up, down, _numbers(rows, lens, "mean_growth", last, layers), accuracies,
                                 floor=floor, title=f"Effect of one task on another by layer: {name}", note=note),
    }


if __name__ == "__main__":
    run("cross-task", main)
