"""What the lens hulls says about one trajectory: rows of a table, headline numbers, curves. Pure.

A `Space` is one layer of one checkpoint, probed; a `Track` holds the spaces of one split over layers and checkpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.lenses.hulls.centroids import displacements, plane
from finetrace.lenses.hulls.distances import LabelDistances, similarity
from finetrace.lenses.intervals import wilson_interval

COLUMNS = ("step", "layer", "statistic", "value", "low", "high", "n", "split", "label", "other")
TYPES = {"step": np.int64, "layer": np.int32, "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}
Row = dict[str, Any]
Key = tuple[int, int]
"""Step and layer."""


@dataclass(frozen=True)
class Space:
    """One layer of one checkpoint, probed on one split."""

    distances: LabelDistances
    """Over all labels of the task, also those without points here."""
    sizes: np.ndarray
    """(label,) int64: points of each label."""
    clusters: int
    """Number of clusters; as many as labels present where the space is linear."""
    conflicts: int
    """Points that coincide with a point of another label: no partition can separate them."""
    undecided: int
    """Pairs of clusters without a proof either way; they counted as overlap."""
    centroids: np.ndarray
    """(label, dim) float64; NaN for labels without points."""
    right: int = 0
    """New points whose nearest cluster has their label."""
    predicted: int = 0
    """New points that were looked up; 0: none were."""


Track = Mapping[Key, Space]


def rows(track: Track, split: str, names: Sequence[str], *, distances: bool = True) -> Iterator[Row]:
    """Everything about one split but the comparison with another: counts, distances, spread, change since the first checkpoint.

    names: (label,);  distances: with a row per pair of labels.
    """
    steps, layers = axes(track)
    for (step, layer), space in sorted(track.items()):
        for statistic, value, low, high, n, label, other in _of_space(space, names, distances):
            yield _row(step, layer, statistic, value, n, split, label, other, low, high)
        known = [(steps[0], layer, "similarity_to_first")]
        place = layers.index(layer)
        if place:
            known.append((step, layers[place - 1], "similarity_to_previous_layer"))
        for other_step, other_layer, statistic in known:
            found = similarity(track[other_step, other_layer].distances, space.distances)
            yield _row(step, layer, statistic, found.r, found.pairs, split)
        yield from _growth(track[steps[0], layer], space, step, layer, split)
    for layer in layers:
        yield from _motion([track[step, layer] for step in steps], steps, layer, split, names)


def between(track: Track, other: Track, split: str) -> Iterator[Row]:
    """Similarity of the label distances of two splits in the same space; n counts the pairs of labels that both have."""
    for (step, layer), space in sorted(track.items()):
        found = similarity(space.distances, other[step, layer].distances)
        yield _row(step, layer, "similarity_between_splits", found.r, found.pairs, split)


def axes(track: Track) -> tuple[list[int], list[int]]:
    """Steps and layers, ascending."""
    return sorted({step for step, _ in track}), sorted({layer for _, layer in track})


def table(found: Sequence[Row]) -> dict[str, Any]:
    """Rows as columns of one table, sorted: equal results are equal bytes."""
    ordered = sorted(found, key=lambda r: (r["step"], r["layer"], r["split"]))
    return {name: np.array([r[name] for r in ordered], dtype=TYPES[name]) if name in TYPES else [r[name] for r in ordered]
            for name in COLUMNS}


def metrics(found: Sequence[Row], track: Track, split: str) -> dict[str, float]:
    """What a person compares between runs: first and last checkpoint of every layer; undefined numbers are left out."""
    steps, layers = axes(track)
    whole = {(r["step"], r["layer"], r["statistic"]): r["value"] for r in found
             if r["split"] == split and not r["label"]}
    result: dict[str, float] = {}
    for layer in layers:
        for when, step in (("first", steps[0]), ("last", steps[-1])):
            for name, statistic in (("clusters", "clusters"), ("linear", "linear"), ("mean_outside_min", "outside_min"),
                                    ("similarity_between_splits",) * 2, ("intra_accuracy",) * 2):
                result[f"{name}/layer-{layer:02d}/{when}"] = whole.get((step, layer, statistic), np.nan)
        result[f"similarity_to_first/layer-{layer:02d}/last"] = whole.get((steps[-1], layer, "similarity_to_first"), np.nan)
        result[f"labels_grown/layer-{layer:02d}"] = whole.get((steps[-1], layer, "labels_grown"), np.nan)
    result["labels"] = max(int((space.sizes > 0).sum()) for space in track.values())
    result["undecided"] = sum(space.undecided for space in track.values())
    return {name: float(value) for name, value in result.items() if np.isfinite(value)}


def curves(track: Track) -> dict[str, np.ndarray]:
    """Columns of curves.csv: step, then clusters and mean least distance of each layer; layers never defined are left out."""
    steps, layers = axes(track)
    found = {"step": np.array(steps, np.int64)}
    for layer in layers:
        found[f"clusters_layer_{layer:02d}"] = np.array([track[step, layer].clusters for step in steps])
    for layer in layers:
        values = np.array([mean_interval(track[step, layer].distances.outside_min)[0] for step in steps])
        if np.isfinite(values).any():
            found[f"mean_outside_min_layer_{layer:02d}"] = values
    return found


def mean_interval(values: np.ndarray) -> tuple[float, float, float, int]:
    """Mean of the finite values, its 95 % interval by Student's t (NaN below two values), and their number.

    Over labels: it says how much labels differ, not how much other sentences would change the number.
    """
    from scipy.special import stdtrit

    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan"), float("nan"), 0
    mean = float(known.mean())
    if len(known) < 2:
        return mean, float("nan"), float("nan"), 1
    half = float(stdtrit(len(known) - 1, 0.975) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, mean - half, mean + half, len(known)


def values_of(found: Sequence[Row], statistic: str, steps: Sequence[int], layers: Sequence[int], split: str) -> np.ndarray:
    """(step, layer, 3) value, low, high of a statistic without a label; NaN where there is no row."""
    cells = {(r["step"], r["layer"]): (r["value"], r["low"], r["high"]) for r in found
             if r["statistic"] == statistic and r["split"] == split and not r["label"]}
    return np.array([[cells.get((step, layer), (np.nan,) * 3) for layer in layers] for step in steps], dtype=np.float64)


def _of_space(space: Space, names: Sequence[str], every_pair: bool) -> Iterator[tuple]:
    """(statistic, value, low, high, n, label, other)."""
    nan, found = float("nan"), space.distances
    points, present = int(space.sizes.sum()), int((space.sizes > 0).sum())
    for statistic, value in (("clusters", space.clusters), ("labels", present), ("linear", int(found.linear)),
                             ("conflicts", space.conflicts), ("undecided", space.undecided)):
        yield statistic, value, nan, nan, points, "", ""
    for statistic, values in (("outside_min", found.outside_min), ("inside_max", found.inside_max),
                              ("inside_mean", found.inside_mean), ("inside_mean_weighted", found.inside_mean_weighted)):
        yield statistic, *mean_interval(values), "", ""
        for label in np.flatnonzero(np.isfinite(values)).tolist():
            yield statistic, float(values[label]), nan, nan, int(space.sizes[label]), names[label], ""
    for statistic, ratio in (("max_ratio", found.ratio_max), ("mean_ratio", found.ratio_mean)):
        yield statistic, ratio, nan, nan, present, "", ""
    if every_pair:
        first, second = np.triu_indices(len(names), 1)
        for a, b, value in zip(first.tolist(), second.tolist(), found.vector.tolist(), strict=True):
            if np.isfinite(value):
                yield "distance", value, nan, nan, int(space.sizes[a] + space.sizes[b]), names[a], names[b]
    if space.predicted:
        low, high = wilson_interval(space.right, space.predicted)
        yield "intra_accuracy", space.right / space.predicted, low, high, space.predicted, "", ""


def _growth(first: Space, space: Space, step: int, layer: int, split: str) -> Iterator[Row]:
    """Labels whose least distance to another label grew or shrank since the first checkpoint, beyond what is certain (1e-6)."""
    before, now = first.distances.outside_min, space.distances.outside_min
    change = now - before
    both = np.isfinite(change)
    certain = 1e-6 * np.maximum(np.abs(before), np.abs(now))
    for statistic, count in (("labels_grown", change[both] > certain[both]), ("labels_shrunk", change[both] < -certain[both])):
        yield _row(step, layer, statistic, int(count.sum()), int(both.sum()), split)
    mean, low, high, n = mean_interval(change)
    yield _row(step, layer, "mean_growth", mean, n, split, low=low, high=high)


def _motion(spaces: Sequence[Space], steps: Sequence[int], layer: int, split: str, names: Sequence[str]) -> Iterator[Row]:
    """Paths of the centroids in one plane for all checkpoints; lengths and directions of the motion since the first one."""
    means = np.stack([space.centroids for space in spaces])  # (step, label, dim)
    path = plane(means).points
    moved = plane(means - means[0], centred=False).points
    for s, (step, space) in enumerate(zip(steps, spaces, strict=True)):
        lengths = displacements(means[0], means[s])
        mean, low, high, n = mean_interval(lengths)
        yield _row(step, layer, "centroid_displacement", mean, n, split, low=low, high=high)
        for label in np.flatnonzero(np.isfinite(lengths)).tolist():
            place = (int(space.sizes[label]), split, names[label])
            yield _row(step, layer, "centroid_displacement", lengths[label], *place)
            for statistic, value in (("centroid_path_x", path[s, label, 0]), ("centroid_path_y", path[s, label, 1]),
                                     ("displacement_x", moved[s, label, 0]), ("displacement_y", moved[s, label, 1])):
                yield _row(step, layer, statistic, value, *place)


def _row(step: int, layer: int, statistic: str, value: float, n: int, split: str, label: str = "", other: str = "",
         low: float = np.nan, high: float = np.nan) -> Row:
    return {"step": step, "layer": layer, "statistic": statistic, "value": float(value), "low": low, "high": high, "n": n,
            "split": split, "label": label, "other": other}
