"""Figures of the stage directprobe: clusters and distances of labels in one space, and minimum distances over
layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 8  # checkpoints that a legend can name


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """The figure of one entry.

    record: name, min_size, and either checkpoints, as `layers` takes them, or clusters: label -> how many, with
    outside_min and matrix, see `labels`.
    """
    note = f"clusters of fewer than {record['min_size']} points left out" if record["min_size"] > 1 else ""
    if "checkpoints" in record:
        return {"layers": layers(record["checkpoints"], title=f"Distances between labels by layer: {record['name']}",
                                 note=note)}
    clusters = record["clusters"]
    return {"labels": labels(list(clusters), list(clusters.values()), record["outside_min"], record["matrix"],
                             note=note, title=f"Clusters and distances of labels: {record['name']}")}


@style.styled
def labels(names: Sequence[str], clusters: Sequence[int], outside_min: np.ndarray, matrix: np.ndarray, *,
           title: str | None = None, note: str = "") -> "Figure":
    """Distance of each label to its nearest other one, with its number of clusters, beside the distances of all pairs.

    names: (label,);  clusters: (label,) how many clusters each label has;  outside_min: (label,) and matrix: (label,
    label) in the unit of the vectors, NaN where undefined.
    """
    if not len(names):
        raise ValueError("names: is empty; give at least one label")
    order = np.argsort(np.where(np.isfinite(outside_min), outside_min, -1.0), kind="stable")
    size = 9.0 if len(names) <= 20 else 7.0
    height = max(4.5, min(11.0, 1.6 + 0.19 * len(names)))
    wide = len(names) > 12
    figure, axes = style.new_figure(1, 2, size=(13 if wide else 11, height), title=title,
                                   width_ratios=[1, 1.8 if wide else 1])
    bars, picture = axes[0]
    values = np.nan_to_num(np.asarray(outside_min, np.float64)[order])
    bars.barh(np.arange(len(order)), values, color=style.BLUE, height=0.72)
    right = max(float(values.max()), 1e-12)
    for place, k in enumerate(order):
        text = f"{clusters[k]:,}" if np.isfinite(outside_min[k]) else f"{clusters[k]:,}  (no distance)"
        bars.text(values[place] + 0.015 * right, place, text, va="center", fontsize=size - 1, color=style.GREY)
    bars.set_yticks(np.arange(len(order)), [style.short(names[k], 30) for k in order], fontsize=size)
    bars.set_ylim(-0.6, len(order) - 0.4)
    bars.set_xlim(0, 1.14 * right)
    bars.grid(axis="y", visible=False)
    bars.set_xlabel("distance to the nearest other label (unit of the vectors)")
    bars.set_title("Minimum distance; beside it the clusters of the label")
    from matplotlib import colormaps

    colours = colormaps[style.SEQUENTIAL].with_extremes(bad="#EEEEEE")
    image = picture.imshow(np.asarray(matrix, np.float64)[np.ix_(order, order)], cmap=colours, vmin=0, origin="lower")
    picture.set_xticks(np.arange(len(order)), [style.short(names[k]) for k in order], rotation=90, fontsize=size - 1)
    picture.set_yticks(np.arange(len(order)), [style.short(names[k]) for k in order], fontsize=size - 1)
    picture.grid(False)
    picture.set_title("Distances of all pairs; grey: none")
    figure.colorbar(image, ax=picture, shrink=0.6, pad=0.015, label="distance (unit of the vectors)")
    if note:
        style.footnote(figure, note)
    return figure


@style.styled
def layers(checkpoints: Mapping[str, Mapping[int, np.ndarray | None]], *, title: str | None = None, note: str = ""
           ) -> "Figure":
    """Minimum distances of labels over layers, a line per checkpoint: the smallest of all labels, and their mean.

    checkpoints: {name: {layer: (label,) distances, or None where clusters overlap}}; such layers are gaps in the
    line.
    """
    if not checkpoints:
        raise ValueError("checkpoints: is empty")
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = style.new_figure(1, 2, size=(11, 5), title=title)
    names, all_layers = list(checkpoints), sorted({layer for by_layer in checkpoints.values() for layer in by_layer})
    tints = colormaps[style.SEQUENTIAL](np.linspace(0.0, 0.92, len(names)))
    for panel, heading in zip(axes[0], ("Smallest of all labels", "Mean of the labels"), strict=True):
        for tint, (name, by_layer) in zip(tints, checkpoints.items(), strict=True):
            finite = [np.empty(0) if (v := by_layer.get(layer)) is None else v[np.isfinite(v)] for layer in all_layers]
            values = [np.nan if not len(v) else v.mean() if panel is axes[0, 1] else v.min() for v in finite]
            panel.plot(all_layers, values, "o-", ms=4, color=tint, label=style.short(name, 30))
        panel.set_ylim(bottom=0)
        panel.set_xticks(all_layers[:: max(1, len(all_layers) // 13)])
        panel.set_xlabel("layer")
        panel.set_title(heading)
    axes[0, 0].set_ylabel("distance to the nearest other label\n(unit of the vectors)")
    if len(names) <= _NAMED:
        axes[0, 1].legend(title="checkpoint")
    else:
        scale = ScalarMappable(Normalize(0, len(names) - 1), colormaps[style.SEQUENTIAL])
        bar = figure.colorbar(scale, ax=axes, pad=0.015)
        ticks = np.unique(np.linspace(0, len(names) - 1, 5).round().astype(int))
        bar.set_ticks(ticks.tolist(), labels=[style.short(names[k], 30) for k in ticks])
        bar.set_label("checkpoint")
    overlapping = sum(v is None for by_layer in checkpoints.values() for v in by_layer.values())
    spaces = sum(len(by_layer) for by_layer in checkpoints.values())
    state = "clusters are disjoint everywhere" if not overlapping else (
        f"{overlapping} of {spaces} spaces have overlapping clusters, so no point here")
    style.footnote(figure, f"{state}; {note}" if note else state)
    return figure
