"""The original hull-probe programs, DirectProbe (2021) and its sequel on fine-tuning (2022), on their own inputs: from
an INI file to their output files, in their layout, and the same numbers as one table.

    probing         clusters of the labelled vectors, then all that prediction does
    prediction      clusters are given (probing_cluster_path): label distances, nearest clusters of the test vectors
    batch_probing   the given clusters in every checkpoint and layer of a folder

Text files hold 0 where a number is undefined, as the originals wrote; the table holds NaN.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError, blame
from finetrace.lenses.hulls import partition as hulls
from finetrace.lenses.hulls.telling import Tell, teller
from finetrace.lenses.intervals import wilson_interval
from finetrace.longtable import LongTable
from finetrace.originals import directprobe_files as files
from finetrace.originals import directprobe_inputs as inputs
from finetrace.progress import Progress

log = logging.getLogger("finetrace")
COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64,
    "n": np.int64, "iteration": str, "label": str, "other": str}
UNKNOWN = -1  # layer of a single space, whose file does not say
NUMBERS = ("outside_min", "inside_max", "inside_mean")  # per label, each a file of the 2022 program
Row = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """One set of vectors with its clusters. distances: None where hulls of different labels overlap (batch mode
    only)."""

    iteration: str
    step: int
    layer: int
    clusters: hulls.Clusters
    distances: hulls.LabelDistances | None


@dataclass(frozen=True)
class Result:
    """table: see COLUMNS;  metrics: flat numbers;  spaces: for figures, in order of iteration and layer."""

    table: LongTable
    metrics: dict[str, float]
    spaces: list[Space]


def analyse(settings: inputs.Settings, out: Path, *, mode: str | None = None, min_size: int = 6,
            numbering: str = "creation") -> Result:
    """Do what the INI asks for and write the original's files into the folder `out`.

    mode: instead of the INI's;  min_size: smallest cluster in label distances;  numbering: creation | row (see
    `DirectprobeSettings`). Clusters that were made at equal distances have no defined order in the original, so their
    numbers may differ from its. Raises FinetraceError naming file and line of what cannot be used.
    """
    mode = mode or settings.mode
    classes = inputs.read_labels(settings.label_set_path)
    if mode == "batch_probing":
        return _batch(settings, out, classes, min_size)
    vectors = _needed_path(settings.embeddings_path, "embeddings_path", "data", mode)
    examples = inputs.read_examples(settings.entities_path, vectors, classes)
    if not examples.labels:
        raise FinetraceError(f"{settings.entities_path}: has no examples")
    points, labels = examples.points.astype(np.float64), np.array(examples.labels)
    progress = Progress(1, "directprobe", unit="space")
    tell = teller(progress)
    if mode == "probing":
        (count, dim), sizes = points.shape, np.unique(labels, return_counts=True)[1]
        cost = hulls.estimate(count, dim, len(sizes), int(sizes.max()))
        log.info("directprobe: %d vectors of %d numbers, %d labels; about %.0f s if labels are separable, %.0f s if "
                 "they overlap", count, dim, len(sizes), cost.linear_seconds, cost.overlapping_seconds)
        clusters = hulls.probe(points, labels, classes=classes, progress=tell)
        if numbering == "creation":
            clusters = hulls.renumbered(clusters, hulls.creation_order(clusters))
    else:
        clusters = _given_clusters(settings, points, labels, classes, mode)
    files.write_clusters(out / "clusters.txt", clusters.assignment)
    all_distances = hulls.cluster_distances(clusters, progress=tell)
    files.write_distances(out / "dis.txt", clusters.cluster_labels, all_distances)
    between = hulls.label_distances(clusters, min_size=min_size, reduce="mean", distances=all_distances)
    _write_labels(out, between)
    space = Space("", 0, UNKNOWN, clusters, between)
    rows = _rows(space, min_size)
    finite = all_distances[np.triu_indices(clusters.count, 1)]
    finite = finite[np.isfinite(finite)]
    rows += [_row(space, f"cluster_distance_{name}", reduce(finite) if len(finite) else np.nan, n=len(finite))
             for name, reduce in (("min", np.min), ("max", np.max), ("mean", np.mean))]
    if settings.test_entities_path:
        rows += _predict(settings, settings.test_entities_path, out, classes, space, tell)
    progress.close()
    return Result(LongTable.of_rows(rows, COLUMNS),
                  {row["statistic"]: row["value"] for row in rows if not row["label"]}, [space])


def write_into(folder: Path, settings: inputs.Settings, **choices: Any) -> Result:
    """`analyse` into a folder that must be absent or empty; it appears when everything is there, with table and
    metrics."""
    from finetrace.store.files import atomic_folder, write_json
    from finetrace.store.tables import write_table

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FinetraceError(f"{folder}: is not empty, and nothing is overwritten; empty it or name another folder "
                             "(output_path in [run], or --out)")
    with atomic_folder(folder) as out:
        result = analyse(settings, out, **choices)
        write_table(out / "table.parquet", result.table.columns())
        write_json(out / "metrics.json", result.metrics)
    return result


def _batch(settings: inputs.Settings, out: Path, classes: list[str], min_size: int) -> Result:
    """The given clusters in every checkpoint and layer; a space whose clusters overlap has no distances."""
    _, gold = inputs.read_entities(settings.entities_path, classes)
    labels = np.array(gold)
    if not gold:
        raise FinetraceError(f"{settings.entities_path}: has no examples")
    path = _needed_path(settings.probing_cluster_path, "probing_cluster_path", "clustering", "batch_probing")
    assignment = files.read_clusters(path, len(gold))
    batch = inputs.batch_files(_needed_path(settings.batch_embeddings_path, "batch_embeddings_path", "data",
                                            "batch_probing"))
    total = sum(map(len, batch.values()))
    log.info("directprobe: %d clusters of %d vectors in %d checkpoints, %d files", len(set(assignment.tolist())),
             len(gold), len(batch), total)
    progress = Progress(total, "directprobe", unit="file")
    pairs, spaces, width = files.pair_names(classes), [], 0
    for number, (iteration, layers) in enumerate(batch.items()):
        step = int(iteration) if iteration.isdigit() else number
        step_spaces = []
        for layer, file in layers.items():
            points = inputs.read_embeddings(file, len(gold)).astype(np.float64)
            width = width or points.shape[1]
            if points.shape[1] != width:
                raise FinetraceError(f"{file}: has vectors of {points.shape[1]} numbers, the files before have {width}")
            clusters = _assigned_clusters(path, points, labels, assignment, classes)
            clean = not hulls.overlaps(clusters, min_size=min_size)
            between = hulls.label_distances(clusters, min_size=min_size, reduce="mean") if clean else None
            step_spaces.append(Space(iteration, step, layer, clusters, between))
            progress.advance(f"({file.name})")
        none = {"vec": np.zeros(len(pairs)), **{name: np.zeros(len(classes)) for name in NUMBERS}}
        columns = [none if s.distances is None else
                   {"vec": s.distances.vector, **{name: getattr(s.distances, name) for name in NUMBERS}}
                   for s in step_spaces]
        for name, names in (("vec", pairs), *((n, classes) for n in NUMBERS)):
            table = np.nan_to_num(np.stack([column[name] for column in columns], axis=1))
            folder = out / ("batch_vec" if name == "vec" else name)
            files.write_batch_table(folder / f"{iteration}.txt", names, table, list(layers))
        spaces += step_spaces
    progress.close()
    table = LongTable.of_rows((row for space in spaces for row in _rows(space, min_size)), COLUMNS)
    last = table.select(iteration=spaces[-1].iteration, statistic=["disjoint", "outside_min_least", "outside_min_mean"])
    metrics: dict[str, float] = {f"{name}/layer-{layer:02d}/last": value for name, layer, value in zip(
        last.frame["statistic"], last.frame["layer"], last.frame["value"], strict=True)}
    metrics |= {"spaces": len(spaces), "spaces_disjoint": sum(s.distances is not None for s in spaces)}
    return Result(table, metrics, spaces)


def _rows(space: Space, min_size: int) -> list[Row]:
    """What one space says: counts, whether its clusters are disjoint, and numbers per label and pair of labels."""
    clusters, between = space.clusters, space.distances
    sizes, count = np.bincount(clusters.assignment, minlength=clusters.count), len(clusters.assignment)
    rows = [_row(space, name, value, n=count) for name, value in (
        ("clusters", clusters.count), ("clusters_kept", int((sizes >= min_size).sum())),
        ("labels", len(set(clusters.cluster_labels.tolist()))), ("linear", int(clusters.linear)),
        ("disjoint", int(between is not None)), ("conflicts", len(clusters.conflicts)))]
    per_label = {name: np.full(len(clusters.classes), np.nan) if between is None else getattr(between, name)
                 for name in (*NUMBERS, "inside_mean_weighted")}
    finite = per_label["outside_min"][np.isfinite(per_label["outside_min"])]
    rows += [_row(space, f"outside_min_{name}", reduce(finite) if len(finite) else np.nan, n=len(finite))
             for name, reduce in (("least", np.min), ("mean", np.mean))]
    rows += [_row(space, name, np.nan if between is None else getattr(between, name), n=count)
             for name in ("ratio_max", "ratio_mean")]
    label_counts = {str(label): int((clusters.cluster_labels[clusters.assignment] == label).sum())
                    for label in clusters.classes}
    for name, values in per_label.items():
        rows += [_row(space, name, value, label, n=label_counts[str(label)])
                 for label, value in zip(clusters.classes, values, strict=True)]
    if between is not None:
        rows += [_row(space, "distance", value, a, b, n=label_counts[str(a)] + label_counts[str(b)])
                 for (a, b), value in zip(between.pairs(), between.vector, strict=True)]
    return rows


def _predict(settings: inputs.Settings, entities: Path, out: Path, classes: list[str], space: Space, tell: Tell
             ) -> list[Row]:
    """prediction.txt and the accuracy of the nearest cluster."""
    where = _needed_path(settings.test_embeddings_path, "test_embeddings_path", "data", "test_entities_path")
    test = inputs.read_examples(entities, where, classes)
    width = space.clusters.points.shape[1]
    if not test.labels or test.points.shape[1] != width:
        raise FinetraceError(f"{where}: has {len(test.labels)} vectors of {test.points.shape[1]} numbers; those of "
                             f"training have {width}")
    ranked = hulls.predict(space.clusters, test.points, test.labels, progress=tell)
    files.write_prediction(out / "prediction.txt", test.labels, ranked.order, ranked.distances,
                           space.clusters.cluster_labels)
    low, high = wilson_interval(round(ranked.accuracy * len(test.labels)), len(test.labels))
    return [_row(space, "intra_accuracy", ranked.accuracy, n=len(test.labels)) | {"low": low, "high": high}]


def _write_labels(out: Path, between: hulls.LabelDistances) -> None:
    files.write_label_pairs(out / "vec.txt", between.classes, np.nan_to_num(between.vector))
    for name in NUMBERS:
        files.write_label_values(out / f"{name}.txt", between.classes, np.nan_to_num(getattr(between, name)))


def _given_clusters(settings: inputs.Settings, points: np.ndarray, labels: np.ndarray, classes: list[str], mode: str
                    ) -> hulls.Clusters:
    path = _needed_path(settings.probing_cluster_path, "probing_cluster_path", "clustering", mode)
    return _assigned_clusters(path, points, labels, files.read_clusters(path, len(labels)), classes)


def _assigned_clusters(path: Path, points: np.ndarray, labels: np.ndarray, assignment: np.ndarray, classes: list[str]
                       ) -> hulls.Clusters:
    with blame(str(path), "it belongs to other data"):
        return hulls.given(points, labels, assignment, classes=classes)


def _needed_path(path: Path | None, key: str, section: str, purpose: str) -> Path:
    if path is None:
        raise FinetraceError(f"{purpose} needs {key}; add it to [{section}] of the INI file")
    return path


def _row(space: Space, statistic: str, value: float, label: Any = "", other: Any = "", *, n: int) -> Row:
    return {"step": space.step, "layer": space.layer, "statistic": statistic, "value": float(value), "low": np.nan,
            "high": np.nan, "n": n, "iteration": space.iteration, "label": str(label), "other": str(other)}
