"""python pipelines/hulls.py TRAJECTORY -- are the classes separable, and how far apart, in every layer -> .../sSEED/hulls/"""

import logging
import time
from collections import Counter

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.hidden.choose import choose_rows
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store import hull_files
from finetrace.store.files import write_json
from finetrace.store.hidden import finite, fit_threads, read_hidden
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/hulls", "lenses/intervals.py", "hidden/choose.py", "store/hull_files.py", "store/directprobe_files.py")


def main(stage: Stage) -> None:
    from finetrace.lenses.hulls import summary

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings, hidden = stage.study.hulls, read_hidden(folder / "hidden")
    fit_threads(hidden)
    keys = [(step, layer) for layer in chosen_layers(settings.layers, hidden) for step in chosen_steps(settings, hidden)]
    seed = seeds.derive(stage.study.study.seed, "hulls", item.task)  # one model before training: one result
    manifest = stage.manifest("lens", as_dict(settings), {folder / "hidden": folder / "hidden"}, {"hulls": seed}, rooms=ROOMS)
    rows_of = {split: chosen_rows(stage, hidden, split, settings.max_points, seed)
               for split in (settings.split, settings.compare_split) if split != "none"}
    announce(stage, hidden, keys, rows_of)
    with stage.output(folder / "hulls", manifest) as out:
        tracks, decisions = _probe_all(stage, hidden, keys, rows_of, settings, seed, out)
        first = tracks[settings.split]
        found = [row for split, track in tracks.items()
                 for row in summary.rows(track, split, hidden.label_names, distances=split == settings.split)]
        if settings.compare_split in tracks:
            found += summary.between(first, tracks[settings.compare_split], settings.split)
        write_table(out / "table.parquet", summary.table(found))
        metrics = summary.metrics(found, first, settings.split)
        metrics["undecided"] = float(sum(space.undecided for track in tracks.values() for space in track.values()))
        write_json(out / "metrics.json", metrics)
        write_curves(out / "curves.csv", summary.curves(first))
        write_figures(out / "figures", _figures(stage, hidden, found, tracks, settings, rows_of))
        manifest.facts = {"checkpoints": len({step for step, _ in keys}), "layers": len({layer for _, layer in keys}),
                          **{f"points_{split}": len(rows) for split, rows in rows_of.items()}, "max_points": settings.max_points,
                          "undecided": int(metrics["undecided"]),
                          **{f"decided_{name.replace(' ', '_')}": n for name, n in sorted(decisions.items())}}
    if metrics["undecided"]:
        log.warning("%s: %d pairs of clusters could be proved neither disjoint nor overlapping; they count as overlapping",
                    stage.label, metrics["undecided"])


def chosen_layers(wanted, hidden) -> list[int]:
    count = hidden.manifest.facts["layers"]
    if wanted == "all":
        return list(range(count))
    for layer in wanted:
        if not -count <= layer < count:
            raise FinetraceError(f"params.yaml: hulls.layers: {layer} does not exist; {hidden.folder} has layers 0 (embeddings) "
                                 f"to {count - 1}")
    return sorted({layer % count for layer in wanted})


def chosen_steps(settings, hidden) -> list[int]:
    ends = {hidden.steps[0], hidden.steps[-1]}
    if settings.checkpoints == "all":
        return hidden.steps
    listed = [] if settings.checkpoints == "ends" else settings.checkpoints
    wanted = {step for step in listed if step < max(ends)}  # a short run ends before
    if unknown := sorted(wanted - set(hidden.steps)):
        raise FinetraceError(f"params.yaml: hulls.checkpoints: {unknown[0]} is not in {hidden.folder}, which has "
                             f"{', '.join(map(str, hidden.steps))}")
    return sorted(ends | wanted)


def chosen_rows(stage, hidden, split, most, seed):
    """Rows of a split that are probed, ascending; all, or a choice that is said in the log."""
    rows = hidden.rows(split)
    chosen = rows[choose_rows(hidden.labels[rows], most, "stratified", seeds.derive(seed, "points", split))]
    if len(chosen) < len(rows):
        log.info("%s: %s: %s of %s examples, the classes in their own shares (hulls.max_points)", stage.label, split,
                 f"{len(chosen):,}", f"{len(rows):,}")
    return chosen


def announce(stage, hidden, keys, rows_of) -> None:
    """What is about to be computed, and roughly what it costs."""
    from finetrace.lenses.hulls import estimate

    least = most = 0.0
    for rows in rows_of.values():
        sizes = np.bincount(hidden.labels[rows])
        cost = estimate(len(rows), hidden.width, int((sizes > 0).sum()), int(sizes.max()))
        least, most = least + len(keys) * cost.linear_seconds, most + len(keys) * cost.overlapping_seconds
    log.info("%s: %d checkpoints x %d layers x %s points of %d dimensions; roughly %s if planes separate all labels, up to %s if "
             "they do not", stage.label, len({step for step, _ in keys}), len({layer for _, layer in keys}),
             " + ".join(f"{len(rows):,} {split}" for split, rows in rows_of.items()), hidden.width, _time(least), _time(most))


def _probe_all(stage, hidden, keys, rows_of, settings, seed, out):
    """Every space of every split (one layer of one checkpoint in memory at a time), and the files of the original programs."""
    from finetrace.lenses.hulls import creation_order
    from finetrace.lenses.hulls.summary import Space

    tracks: dict[str, dict[tuple[int, int], Space]] = {split: {} for split in rows_of}
    decisions: Counter = Counter()
    asked = _asked(hidden, rows_of, settings, seed)
    writer = hull_files.Writer(out / "files", hidden.label_names, settings.missing) if settings.files else None
    hull_files.describe(out / "files", settings.files)
    if writer:
        writer.examples(settings.split, hidden.example_ids[rows_of[settings.split]], hidden.labels[rows_of[settings.split]])
    tell = _teller(stage, len(keys) * len(rows_of))
    for step, layer in keys:
        kind = hidden.kind(settings.vectors)
        values = finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, kind, layer)
        for split, rows in rows_of.items():
            tell.now(step, layer, split)
            query = asked if split == settings.split else None
            space, clusters, every, ranked = _space(values, rows, hidden, settings, query, tell)
            tracks[split][step, layer] = space
            decisions.update(clusters.decisions)
            if writer and split == settings.split:
                gold = None if asked is None else hidden.labels[asked]
                writer.space(step, layer, clusters, creation_order(clusters), every, space.distances, ranked, gold)
    if writer:
        writer.batch_tables()
    return tracks, decisions


def _asked(hidden, rows_of, settings, seed):
    """Rows of the second split whose nearest cluster is looked up; None if there are none."""
    if settings.compare_split == "none" or not settings.predict_rows:
        return None
    rows = rows_of[settings.compare_split]
    return rows[choose_rows(hidden.labels[rows], settings.predict_rows, "stratified", seeds.derive(seed, "predict"))]


def _space(values, rows, hidden, settings, asked, tell):
    """One space and what the files need besides: the clusters, all their distances, the ranked clusters of new points."""
    from finetrace.lenses import hulls
    from finetrace.lenses.hulls.centroids import centroids
    from finetrace.lenses.hulls.summary import Space

    names = np.arange(len(hidden.label_names))
    points, labels = values[rows].astype(np.float64), hidden.labels[rows]
    clusters = hulls.probe(points, labels, classes=names, progress=tell)
    wanted = settings.files and asked is not None
    every = hulls.cluster_distances(clusters, progress=tell) if settings.files else None
    distances = hulls.label_distances(clusters, min_size=settings.min_size, reduce=settings.reduce, missing=settings.missing,
                                      distances=every, progress=tell)
    ranked, right = None, 0
    if asked is not None:
        ranked = hulls.predict(clusters, values[asked].astype(np.float64), nearest=None if wanted else 1, progress=tell)
        right = int((ranked.labels == hidden.labels[asked]).sum())
    space = Space(distances, np.bincount(labels, minlength=len(names)), clusters.count, sum(map(len, clusters.conflicts)),
                  clusters.decisions.get("undecided", 0), centroids(points, labels, len(names)), right,
                  0 if asked is None else len(asked))
    return space, clusters, every, ranked


class _teller:
    """Called as progress(phase, done, total): a line every half minute."""

    def __init__(self, stage, total):
        self.stage, self.total, self.done, self.where, self.last = stage, total, 0, "", time.monotonic()

    def now(self, step, layer, split) -> None:
        self.where, self.done = f"step {step}, layer {layer}, {split}", self.done + 1

    def __call__(self, phase, done, total) -> None:
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            of = f" of {total:,}" if total else ""
            log.info("%s: %d of %d (%s): %s %s%s", self.stage.label, self.done, self.total, self.where, phase, f"{done:,}", of)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _figures(stage, hidden, found, tracks, settings, rows_of):
    from finetrace.figures import hulls as figures
    from finetrace.lenses.hulls import summary
    from finetrace.lenses.hulls.centroids import closest, displacements, plane

    split, track, names, item = settings.split, tracks[settings.split], hidden.label_names, stage.item
    steps, layers = summary.axes(track)
    ends = {f"step {step:,}": step for step in ((steps[0], steps[-1]) if len(steps) > 1 else steps)}
    note = f"{len(rows_of[split]):,} points of the split {split}"
    last_layer, low_layer = layers[-1], layers[min(1, len(layers) - 1)]
    made = {
        "clusters": figures.clusters(
            layers, {name: np.array([track[step, layer].clusters for layer in layers]) for name, step in ends.items()},
            {name: np.array([track[step, layer].distances.linear for layer in layers]) for name, step in ends.items()},
            int((track[steps[0], layers[0]].sizes > 0).sum()), title=f"Clusters: {item}", note=note),
        "tracks": figures.tracks(
            steps, names, np.array([track[step, last_layer].distances.outside_min for step in steps]),
            title=f"Distance to the nearest label, layer {last_layer}: {item}", note=note),
        "labels": figures.label_pairs(
            names, track[steps[0], last_layer].distances.matrix, track[steps[-1], last_layer].distances.matrix,
            (f"step {steps[0]:,}", f"step {steps[-1]:,}"), title=f"Distances of labels, layer {last_layer}: {item}", note=note),
    }
    to_first = summary.values_of(found, "similarity_to_first", steps, layers, split)[..., 0].T
    between = summary.values_of(found, "similarity_between_splits", steps, layers, split)[..., 0]
    if np.isfinite(to_first).any() or np.isfinite(between).any():  # two labels have one distance: nothing to correlate
        made["likeness"] = figures.likeness(
            layers, steps, to_first, {name: between[steps.index(step)] for name, step in ends.items()},
            title=f"Likeness of label distances: {item}", note=f"{split} against {settings.compare_split}; {note}")
    drawn = dict.fromkeys((low_layer, last_layer))
    means = {layer: np.stack([track[step, layer].centroids for step in steps]) for layer in drawn}
    paths = [(layer, *_picture(plane(part))) for layer, part in means.items()]
    lengths = np.array([displacements(track[steps[0], layer].centroids, track[steps[-1], layer].centroids) for layer in layers])
    made["motion"] = figures.motion(paths, names, {layer: closest(part[0]) for layer, part in means.items()}, layers, lengths,
                                    title=f"Motion of the classes: {item}", note=note)
    return made


def _picture(found):
    return found.points, found.shares


if __name__ == "__main__":
    run("hulls", main)
