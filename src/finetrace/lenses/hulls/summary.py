"""What the lens hulls says about one trajectory: rows of a table, headline numbers, curves. Pure.

A `Space` is one layer of one checkpoint, probed; a `Track` holds the spaces of one split over layers and checkpoints.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetrace.lenses.hulls.centroids import displacements, plane
from finetrace.lenses.hulls.distances import LabelDistances, similarity
from finetrace.lenses.intervals import share_interval
from finetrace.longtable import LongTable, known

COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64,
    "n": np.int64, "split": str, "label": str, "other": str}
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
    right: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """(new point,) whether its nearest cluster has its label; empty: none were looked up."""
    units: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(new point,) int: the sentence of each; words of one depend on each other."""


Track = Mapping[Key, Space]


def rows(track: Track, split: str, names: Sequence[str], *, distances: bool = True) -> Iterator[Row]:
    """Everything about one split but the comparison with another: counts, distances, spread, change since the first
    checkpoint.

    names: (label,);  distances: with a row per pair of labels.
    """
    steps, layers = axes(track)
    for (step, layer), space in sorted(track.items()):
        place = {"step": step, "layer": layer, "split": split}
        yield from _space_rows(place, space, names, distances)
        before = [(steps[0], layer, "similarity_to_first")]
        if layer != layers[0]:
            before.append((step, layers[layers.index(layer) - 1], "similarity_to_previous_layer"))
        for other_step, other_layer, statistic in before:
            yield _likeness_row(place, statistic, track[other_step, other_layer], space)
        yield from _growth(place, track[steps[0], layer], space)
    for layer in layers:
        places = [{"step": step, "layer": layer, "split": split} for step in steps]
        yield from _motion(places, [track[step, layer] for step in steps], names)


def between(track: Track, other: Track, split: str) -> Iterator[Row]:
    """Similarity of the label distances of two splits in the same space; n counts the pairs of labels that both
    have."""
    for (step, layer), space in sorted(track.items()):
        place = {"step": step, "layer": layer, "split": split}
        yield _likeness_row(place, "similarity_between_splits", space, other[step, layer])


def axes(track: Track) -> tuple[list[int], list[int]]:
    """Steps and layers, ascending."""
    return sorted({step for step, _ in track}), sorted({layer for _, layer in track})


def table(listed: Iterable[Row]) -> LongTable:
    """Rows as one table, sorted: equal results are equal bytes."""
    return LongTable.of_rows(listed, COLUMNS).sorted("step", "layer", "split")


def metrics(long_table: LongTable, split: str) -> dict[str, float]:
    """What a person compares between runs: first and last checkpoint of every layer; undefined numbers are left out."""
    part = long_table.select(split=split, label="")
    steps, layers = part.distinct("step"), part.distinct("layer")
    ends = {"mean_outside_min": "outside_min"} | {name: name for name in (
        "clusters", "linear", "similarity_between_splits", "intra_accuracy")}
    numbers = part.headlines({name: {"statistic": statistic} for name, statistic in ends.items()}, steps, layers)
    for statistic, when in (("similarity_to_first", "/last"), ("labels_grown", "")):
        for layer, value in zip(layers, part.grid(steps[-1:], statistic=statistic)[0, :, 0], strict=True):
            numbers[f"{statistic}/layer-{layer:02d}{when}"] = value
    return known(numbers | {"labels": part.select(statistic="labels").frame["value"].max()})


def curves(long_table: LongTable, split: str) -> dict[str, np.ndarray]:
    """Columns of curves.csv: step, then clusters and mean least distance of each layer; layers never defined are left
    out."""
    part = long_table.select(split=split, label="")
    layers = part.distinct("layer")
    clusters, distances = (part.grid(statistic=name)[..., 0].T for name in ("clusters", "outside_min"))
    columns = {"step": np.array(part.distinct("step"), np.int64)}
    columns |= {f"clusters_layer_{layer:02d}": counts.astype(np.int64)
                for layer, counts in zip(layers, clusters, strict=True)}
    return columns | {f"mean_outside_min_layer_{layer:02d}": means
                      for layer, means in zip(layers, distances, strict=True) if np.isfinite(means).any()}


def mean_interval(values: np.ndarray) -> tuple[float, float, float, int]:
    """Mean of the finite values, its 95 % interval by Student's t (NaN below two values), and their number.

    Over labels: it says how much labels differ, not how much other sentences would change the number.
    """
    from scipy.special import stdtrit

    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan"), float("nan"), 0
    mean = float(finite.mean())
    if len(finite) < 2:
        return mean, float("nan"), float("nan"), 1
    half = float(stdtrit(len(finite) - 1, 0.975) * finite.std(ddof=1) / np.sqrt(len(finite)))
    return mean, mean - half, mean + half, len(finite)


def _space_rows(place: Row, space: Space, names: Sequence[str], every_pair: bool) -> Iterator[Row]:
    """Counts, distances and spread of one space, and how many new points it tells rightly."""
    between = space.distances
    points, present = int(space.sizes.sum()), int((space.sizes > 0).sum())
    for statistic, value in (("clusters", space.clusters), ("labels", present), ("linear", int(between.linear)),
                             ("conflicts", space.conflicts), ("undecided", space.undecided)):
        yield _row(place, statistic, value, points)
    for statistic, values in (("outside_min", between.outside_min), ("inside_max", between.inside_max),
                              ("inside_mean", between.inside_mean),
                              ("inside_mean_weighted", between.inside_mean_weighted)):
        yield _mean_row(place, statistic, values)
        for label in np.flatnonzero(np.isfinite(values)).tolist():
            yield _row(place, statistic, values[label], int(space.sizes[label]), names[label])
    for statistic, ratio in (("max_ratio", between.ratio_max), ("mean_ratio", between.ratio_mean)):
        yield _row(place, statistic, ratio, present)
    if every_pair:
        first, second = np.triu_indices(len(names), 1)
        for a, b, value in zip(first.tolist(), second.tolist(), between.vector.tolist(), strict=True):
            if np.isfinite(value):
                yield _row(place, "distance", value, int(space.sizes[a] + space.sizes[b]), names[a], names[b])
    if count := len(space.right):
        low, high = map(float, share_interval(space.right, space.units))
        yield _row(place, "intra_accuracy", int(space.right.sum()) / count, count, low=low, high=high)


def _growth(place: Row, first: Space, space: Space) -> Iterator[Row]:
    """Labels whose least distance to another label grew or shrank since the first checkpoint, beyond what is certain
    (1e-6)."""
    before, current = first.distances.outside_min, space.distances.outside_min
    change = current - before
    defined = np.isfinite(change)
    certain = 1e-6 * np.maximum(np.abs(before), np.abs(current))
    for statistic, moved in (("labels_grown", change[defined] > certain[defined]),
                             ("labels_shrunk", change[defined] < -certain[defined])):
        yield _row(place, statistic, int(moved.sum()), int(defined.sum()))
    yield _mean_row(place, "mean_growth", change)


def _motion(places: Sequence[Row], spaces: Sequence[Space], names: Sequence[str]) -> Iterator[Row]:
    """Paths of the centroids in one plane for all checkpoints; lengths and directions of the motion since the first
    one."""
    means = np.stack([space.centroids for space in spaces])  # (step, label, dim)
    path = plane(means).points
    moved = plane(means - means[0], centred=False).points
    for s, (place, space) in enumerate(zip(places, spaces, strict=True)):
        lengths = displacements(means[0], means[s])
        yield _mean_row(place, "centroid_displacement", lengths)
        for label in np.flatnonzero(np.isfinite(lengths)).tolist():
            for statistic, value in (("centroid_displacement", lengths[label]),
                                     ("centroid_path_x", path[s, label, 0]), ("centroid_path_y", path[s, label, 1]),
                                     ("displacement_x", moved[s, label, 0]), ("displacement_y", moved[s, label, 1])):
                yield _row(place, statistic, value, int(space.sizes[label]), names[label])


def _likeness_row(place: Row, statistic: str, first: Space, second: Space) -> Row:
    alike = similarity(first.distances, second.distances)
    return _row(place, statistic, alike.r, alike.pairs)


def _mean_row(place: Row, statistic: str, values: np.ndarray) -> Row:
    mean, low, high, n = mean_interval(values)
    return _row(place, statistic, mean, n, low=low, high=high)


def _row(place: Row, statistic: str, value: float, n: int, label: str = "", other: str = "", *, low: float = np.nan,
         high: float = np.nan) -> Row:
    """place: step, layer and split."""
    return place | {"statistic": statistic, "value": float(value), "low": low, "high": high, "n": n, "label": label,
                    "other": other}
