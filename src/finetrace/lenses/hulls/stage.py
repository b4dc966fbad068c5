"""Are the classes separable, and how far apart, in every layer -> .../hulls/"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.inference.choose import choose_rows
from finetrace.lenses.hulls import files as hull_files
from finetrace.lenses.hulls.settings import HullsSettings
from finetrace.lenses.hulls.telling import Tell, teller
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress, duration
from finetrace.store.files import write_json
from finetrace.store.hidden import HiddenStates, finite, fit_threads, read_hidden
from finetrace.store.manifest import Manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.lenses.hulls.clusters import Clusters
    from finetrace.lenses.hulls.distances import Prediction
    from finetrace.lenses.hulls.summary import Space
    from finetrace.longtable import LongTable

log = logging.getLogger("finetrace")
Key = tuple[int, int]
"""Step and layer."""
Rows = dict[str, np.ndarray]
"""Split -> row numbers, the probed split first."""
Tracks = dict[str, dict[Key, "Space"]]
"""Split -> its spaces."""


@dataclass(frozen=True)
class Work:
    """What is probed, and how."""

    stage: Stage
    hidden: HiddenStates
    keys: list[Key]
    rows_of: Rows
    settings: HullsSettings
    seed: int


def main(stage: Stage) -> None:
    from finetrace.lenses.hulls.figures import draw

    settings, folder = stage.settings("hulls", HullsSettings), stage.folder
    hidden = read_hidden(folder / "hidden")
    fit_threads(hidden)
    steps = chosen_steps(settings, hidden)
    keys = [(step, layer) for layer in hidden.chosen_layers(settings.layers, "hulls.layers") for step in steps]
    seed = seeds.derive(stage.seed, "hulls", stage.asked["task"])  # one model before training: one result
    manifest = stage.manifest("lens", {folder / "hidden": folder / "hidden"}, {"hulls": seed}, outs=(folder / "hulls",))
    splits: tuple[str, ...] = (settings.split, settings.compare_split)
    rows_of = {split: chosen_rows(stage, hidden, split, settings.max_points, seed) for split in splits
               if split != "none"}
    work = Work(stage, hidden, keys, rows_of, settings, seed)
    write_lens(stage, folder / "hulls", manifest, lambda out: _measure(work, manifest, out), draw)


def _measure(work: Work, manifest: Manifest, out: Path) -> Record:
    """Probe all spaces; writes table, metrics, curves, and the files of the original programs."""
    from finetrace.lenses.hulls import summary

    settings, names, rows_of = work.settings, work.hidden.label_names, work.rows_of
    announce(work.stage, work.hidden, work.keys, rows_of)
    tracks, decisions = _probe_all(work, out)
    first = tracks[settings.split]
    rows = [row for split, track in tracks.items()
            for row in summary.rows(track, split, names, distances=split == settings.split)]
    if settings.compare_split in tracks:
        rows += summary.between(first, tracks[settings.compare_split], settings.split)
    table = summary.table(rows)
    write_table(out / "table.parquet", table.columns())
    undecided = sum(space.undecided for track in tracks.values() for space in track.values())
    write_json(out / "metrics.json", summary.metrics(table, settings.split) | {"undecided": float(undecided)})
    write_curves(out / "curves.csv", summary.curves(table, settings.split))
    steps, layers = summary.axes(first)
    manifest.facts = {"checkpoints": len(steps), "layers": len(layers),
                      **{f"points_{split}": len(rows) for split, rows in rows_of.items()},
                      "max_points": settings.max_points, "undecided": undecided,
                      **{f"decided_{name.replace(' ', '_')}": n for name, n in sorted(decisions.items())}}
    if undecided:
        log.warning("%s: %d pairs of clusters could be proved neither disjoint nor overlapping; they count as "
                    "overlapping", work.stage.label, undecided)
    return _drawn(work, first, table)


def _drawn(work: Work, track: dict[Key, "Space"], table: "LongTable") -> Record:
    """What the figures show."""
    from finetrace.lenses.hulls import summary
    from finetrace.lenses.hulls.centroids import closest, displacements, plane

    split = work.settings.split
    steps, layers = summary.axes(track)
    ends, last_layer = list(dict.fromkeys((steps[0], steps[-1]))), layers[-1]
    drawn = dict.fromkeys((layers[min(1, len(layers) - 1)], last_layer))
    means = {layer: np.stack([track[step, layer].centroids for step in steps]) for layer in drawn}
    planes = {layer: plane(part) for layer, part in means.items()}
    first, last = ({layer: track[step, layer].centroids for layer in layers} for step in (steps[0], steps[-1]))
    to_first, between = (table.grid(steps, layers, statistic=name, split=split, label="")[..., 0]
                         for name in ("similarity_to_first", "similarity_between_splits"))
    return {
        "name": work.stage.item, "split": split, "compare_split": work.settings.compare_split,
        "points": len(work.rows_of[split]), "steps": steps, "layers": layers, "label_names": work.hidden.label_names,
        "labels": int((track[steps[0], layers[0]].sizes > 0).sum()),
        "clusters": {step: np.array([track[step, layer].clusters for layer in layers]) for step in ends},
        "linear": {step: np.array([track[step, layer].distances.linear for layer in layers]) for step in ends},
        "outside_min": np.array([track[step, last_layer].distances.outside_min for step in steps]),
        "matrices": {step: track[step, last_layer].distances.matrix for step in ends},
        "to_first": to_first.T, "between": between,
        "paths": [(layer, layer_plane.points, layer_plane.shares) for layer, layer_plane in planes.items()],
        "named": {layer: closest(part[0]) for layer, part in means.items()},
        "lengths": np.array([displacements(first[layer], last[layer]) for layer in layers]),
    }


def chosen_steps(settings: HullsSettings, hidden: HiddenStates) -> list[int]:
    ends = {hidden.steps[0], hidden.steps[-1]}
    if settings.checkpoints == "all":
        return hidden.steps
    listed = settings.checkpoints if isinstance(settings.checkpoints, list) else []
    between = {step for step in listed if step < max(ends)}  # a short run ends before
    if unknown := sorted(between - set(hidden.steps)):
        raise FinetraceError(f"params.yaml: hulls.checkpoints: {unknown[0]} is not in {hidden.folder}, which has "
                             f"{', '.join(map(str, hidden.steps))}")
    return sorted(ends | between)


def chosen_rows(stage: Stage, hidden: HiddenStates, split: str, limit: int, seed: int) -> np.ndarray:
    """Rows of a split that are probed, ascending; all, or a choice that is said in the log."""
    rows = hidden.rows(split)
    chosen = rows[choose_rows(hidden.labels[rows], limit, "stratified", seeds.derive(seed, "points", split))]
    if len(chosen) < len(rows):
        log.info("%s: %s: %s of %s examples, the classes in their own shares (hulls.max_points)", stage.label, split,
                 f"{len(chosen):,}", f"{len(rows):,}")
    return chosen


def announce(stage: Stage, hidden: HiddenStates, keys: list[Key], rows_of: Rows) -> None:
    """What is about to be computed, and roughly what it costs."""
    from finetrace.lenses.hulls.partition import estimate

    least = most = 0.0
    for rows in rows_of.values():
        sizes = np.bincount(hidden.labels[rows])
        cost = estimate(len(rows), hidden.width, int((sizes > 0).sum()), int(sizes.max()))
        least, most = least + len(keys) * cost.linear_seconds, most + len(keys) * cost.overlapping_seconds
    log.info("%s: %d checkpoints x %d layers x %s points of %d dimensions; roughly %s if planes separate all labels, "
             "up to %s if they do not", stage.label, len({step for step, _ in keys}), len({layer for _, layer in keys}),
             " + ".join(f"{len(rows):,} {split}" for split, rows in rows_of.items()), hidden.width, duration(least),
             duration(most))


def _probe_all(work: Work, out: Path) -> tuple[Tracks, Counter[str]]:
    """Every space of every split (one layer of one checkpoint in memory at a time), and the files of the original
    programs."""
    from finetrace.lenses.hulls.partition import creation_order

    hidden, rows_of, settings = work.hidden, work.rows_of, work.settings
    tracks: Tracks = {split: {} for split in rows_of}
    decisions: Counter[str] = Counter()
    new_rows = _new_rows(hidden, rows_of, settings, work.seed)
    writer = hull_files.Writer(out / "files", hidden.label_names, settings.missing) if settings.files else None
    hull_files.describe(out / "files", settings.files)
    if writer:
        rows = rows_of[settings.split]
        writer.examples(settings.split, hidden.example_ids[rows], hidden.labels[rows])
    progress = Progress(len(work.keys) * len(rows_of), work.stage.label, unit="space")
    for step, layer in work.keys:
        kind = hidden.kind(settings.vectors)
        values = finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, kind, layer)
        for split, rows in rows_of.items():
            where = f"(step {step}, layer {layer}, {split}) "
            query = new_rows if split == settings.split else None
            space, clusters, all_distances, ranked = _space(values, rows, hidden, settings, query,
                                                            teller(progress, where))
            progress.advance(where)
            tracks[split][step, layer] = space
            decisions.update(clusters.decisions)
            if writer and all_distances is not None and split == settings.split:
                gold = None if new_rows is None else hidden.labels[new_rows]
                writer.space(step, layer, clusters, creation_order(clusters), all_distances, space.distances, ranked,
                             gold)
    progress.close()
    if writer:
        writer.batch_tables()
    return tracks, decisions


def _new_rows(hidden: HiddenStates, rows_of: Rows, settings: HullsSettings, seed: int) -> np.ndarray | None:
    """Rows of the second split whose nearest cluster is looked up; None if there are none."""
    if settings.compare_split == "none" or not settings.predict_rows:
        return None
    rows = rows_of[settings.compare_split]
    chosen = choose_rows(hidden.labels[rows], settings.predict_rows, "stratified", seeds.derive(seed, "predict"))
    return rows[chosen]


def _space(values: np.ndarray, rows: np.ndarray, hidden: HiddenStates, settings: HullsSettings,
           new_rows: np.ndarray | None, tell: Tell
           ) -> tuple["Space", "Clusters", np.ndarray | None, "Prediction | None"]:
    """One space and what the files need besides: clusters, all their distances, the ranked clusters of new points."""
    from finetrace.lenses.hulls import partition as hulls
    from finetrace.lenses.hulls.centroids import centroids
    from finetrace.lenses.hulls.summary import Space

    names = np.arange(len(hidden.label_names))
    points, labels = values[rows].astype(np.float64), hidden.labels[rows]
    clusters = hulls.probe(points, labels, classes=names, progress=tell)
    rank_all = settings.files and new_rows is not None
    all_distances = hulls.cluster_distances(clusters, progress=tell) if settings.files else None
    distances = hulls.label_distances(clusters, min_size=settings.min_size, reduce=settings.reduce,
                                      missing=settings.missing, distances=all_distances, progress=tell)
    ranked, right = None, np.zeros(0, dtype=bool)
    if new_rows is not None:
        new = values[new_rows].astype(np.float64)
        ranked = hulls.predict(clusters, new, nearest=None if rank_all else 1, progress=tell)
        right = ranked.labels == hidden.labels[new_rows]
    space = Space(distances, np.bincount(labels, minlength=len(names)), clusters.count,
                  sum(map(len, clusters.conflicts)), clusters.decisions.get("undecided", 0),
                  centroids(points, labels, len(names)), right,
                  hidden.sentence_codes(new_rows) if new_rows is not None and len(new_rows)
                  else np.zeros(0, dtype=np.int64))
    return space, clusters, all_distances, ranked
