"""Figures of the lens hulls: clusters against labels, distances of labels over training and before | after, likeness
of spaces, and where the centroids went.

Tasks have up to fifty labels: single ones are drawn in grey unless the figure is about them. Distances are in the unit
of the vectors; they compare within a layer, not between layers, whose vectors differ in length.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 8  # labels up to which each has its own colour or number
NAMED = 3  # labels named at either end, when there are more


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """All figures of one trajectory.

    record: name, split, compare_split, points, steps, layers, label_names; labels: how many have points;  clusters,
    linear: first and last step -> (layer,);  outside_min: (step, label) and matrices: step -> (label, label) of the
    last layer;  to_first: (layer, step);  between: (step, layer);  paths, named, lengths: see `motion`.
    """
    item, steps, layers, names = record["name"], record["steps"], record["layers"], record["label_names"]
    ends = {f"step {step:,}": step for step in dict.fromkeys((steps[0], steps[-1]))}
    note = f"{record['points']:,} points of the split {record['split']}"
    matrices, last = record["matrices"], layers[-1]
    drawn = {
        "clusters": clusters(layers, {name: record["clusters"][step] for name, step in ends.items()},
                             {name: record["linear"][step] for name, step in ends.items()}, record["labels"],
                             title=f"Clusters: {item}", note=note),
        "tracks": tracks(steps, names, record["outside_min"], note=note,
                         title=f"Distance to the nearest label, layer {last}: {item}"),
        "labels": label_pairs(names, matrices[steps[0]], matrices[steps[-1]],
                              (f"step {steps[0]:,}", f"step {steps[-1]:,}"), note=note,
                              title=f"Distances of labels, layer {last}: {item}"),
    }
    to_first, between = record["to_first"], record["between"]
    if np.isfinite(to_first).any() or np.isfinite(between).any():  # two labels have one distance: nothing to correlate
        drawn["likeness"] = likeness(
            layers, steps, to_first, {name: between[steps.index(step)] for name, step in ends.items()},
            title=f"Likeness of label distances: {item}",
            note=f"{record['split']} against {record['compare_split']}; {note}")
    drawn["motion"] = motion(record["paths"], names, record["named"], layers, record["lengths"], note=note,
                             title=f"Motion of the classes: {item}")
    return drawn


@style.styled
def clusters(layers: Sequence[int], counts: Mapping[str, np.ndarray], linear: Mapping[str, np.ndarray], labels: int, *,
             title: str | None = None, note: str = "") -> "Figure":
    """Clusters per layer on a log axis, a line per checkpoint; the line of the labels is the least there can be.

    counts: {checkpoint: (layer,) clusters};  linear: {checkpoint: (layer,) bool}: filled where the layer is linear;
    labels: labels with points.
    """
    figure, axes = style.new_figure(size=(9, 4.8), title=title)
    panel = axes[0, 0]
    where = np.arange(len(layers))
    for number, (name, values) in enumerate(counts.items()):
        tint, shift = style.colour(number), 0.08 * (number - (len(counts) - 1) / 2)
        panel.plot(where + shift, values, color=tint, lw=1.6, ls=style.DASHES[number % 2], label=name, zorder=2)
        separable = np.asarray(linear[name], dtype=bool)
        panel.scatter((where + shift)[separable], values[separable], s=46, color=tint, zorder=3)
        panel.scatter((where + shift)[~separable], values[~separable], s=46, facecolor="white", edgecolor=tint, lw=1.6,
                      zorder=3)
    panel.axhline(labels, color=style.GREY, lw=1.2, ls=style.DASHES[2], label=f"number of labels ({labels})")
    all_counts = np.concatenate([np.asarray(values, dtype=float) for values in counts.values()])
    _log_counts(panel, labels, float(all_counts.max()))
    panel.set_xticks(where, [str(layer) for layer in layers])
    panel.set_xlabel("layer (0 = embeddings)")
    panel.set_ylabel("clusters of one label")
    panel.set_title("As many clusters as labels: planes separate all labels (filled); more: they do not (hollow)")
    panel.legend(loc="upper right")
    style.footnote(figure, "log axis" + (f"; {note}" if note else ""))
    return figure


@style.styled
def tracks(steps: Sequence[int], names: Sequence[str], values: np.ndarray, *, title: str | None = None,
           note: str = "") -> "Figure":
    """Distance of each label to its nearest other label over training.

    names: (label,);  values: (step, label), NaN where undefined. Of many labels the three that grew most and the three
    that grew least are named, the others are grey.
    """
    figure, axes = style.new_figure(size=(9, 5.2), title=title)
    panel = axes[0, 0]
    finite = np.flatnonzero(np.isfinite(values).any(axis=0))
    change = np.nan_to_num(values[-1] - values[0], nan=0.0)
    order = finite[np.argsort(-change[finite], kind="stable")]
    chosen = order.tolist() if len(order) <= FEW - 1 else [*order[:NAMED].tolist(), *order[-NAMED:].tolist()]
    x = np.arange(len(steps))
    for label in finite.tolist():
        if label not in chosen:
            panel.plot(x, values[:, label], color=style.LIGHT_GREY, lw=1, zorder=1)
    for number, label in enumerate(chosen):
        slow = len(chosen) < len(finite) and number >= NAMED
        panel.plot(x, values[:, label], color=style.colour(number), ls=style.DASHES[1] if slow else style.DASHES[0],
                   marker="os^Dv*P"[number % 7], ms=5, zorder=3,
                   label=f"{style.short(names[label])} ({change[label]:+.2g})")
    if len(finite) > 2:  # two labels have the same distance, to each other
        mean = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in values])
        panel.plot(x, mean, color=style.BLACK, lw=2.4, zorder=4, label=f"mean of {len(finite)} labels")
    _step_axis(panel, steps)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("distance to the nearest other label\n(unit of the vectors)")
    many = len(chosen) < len(finite)
    panel.set_title(f"The {NAMED} labels that gained most (solid) and least (dashed); others grey" if many
                    else "Every label")
    figure.legend(loc="outside right center", title="label (gain)")
    style.footnote(figure, "0: the label's hull overlaps another label's, or shares a point with it"
                           + (f"; {note}" if note else ""))
    return figure


@style.styled
def likeness(layers: Sequence[int], steps: Sequence[int], to_first: np.ndarray, splits: Mapping[str, np.ndarray], *,
             title: str | None = None, note: str = "") -> "Figure":
    """Pearson r of label distances: with the first checkpoint (heat map), and between two splits (lines).

    to_first: (layer, step);  splits: {checkpoint: (layer,)}; undefined ones are grey, or gaps.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    drawn = {name: values for name, values in splits.items() if np.isfinite(values).any()}
    figure, axes = style.new_figure(1, 2 if drawn else 1, size=(9, 4.6), title=title)
    panel = axes[0, 0]
    colours, shade = colormaps[style.SEQUENTIAL].with_extremes(bad="#BDBDBD"), Normalize(0, 1)
    panel.imshow(np.ma.masked_invalid(to_first), cmap=colours, norm=shade, origin="lower", aspect="auto",
                 interpolation="nearest")
    if to_first.size <= 80:
        for (i, j), value in np.ndenumerate(to_first):
            if np.isfinite(value):
                panel.text(j, i, f"{round(float(value), 2) + 0.0:.2f}", ha="center", va="center", fontsize=7.5,
                           color="black" if value > 0.6 else "white")
    panel.grid(False)
    panel.spines[:].set_visible(False)
    panel.set_yticks(*style.thinned([str(layer) for layer in layers], 14))
    _step_axis(panel, steps, thin=6)
    panel.set_ylabel("layer (0 = embeddings)")
    panel.set_title("To the same layer before training" if steps[0] == 0 < steps[-1] else
                    f"To the same layer at step {steps[0]:,}")
    least = np.nanmin(to_first) if np.isfinite(to_first).any() else 0.0
    bar = figure.colorbar(ScalarMappable(shade, colours), ax=panel, pad=0.02, extend="min" if least < 0 else "neither")
    bar.set_label("Pearson r of label distances")
    if drawn:
        side = axes[0, 1]
        for number, (name, values) in enumerate(drawn.items()):
            side.plot(np.arange(len(layers)), values, color=style.colour(number), ls=style.DASHES[number % 2],
                      marker="os"[number % 2], ms=5, label=name)
        low = min(0.0, *(float(np.nanmin(values)) for values in drawn.values()))
        side.set_ylim(1.1 * low, 1.04)
        side.set_xticks(*style.thinned([str(layer) for layer in layers], 14))
        side.set_xlabel("layer (0 = embeddings)")
        side.set_title("Between the two splits, in the same space")
        side.legend(loc="best")
        style.panel_letters(axes)
    style.footnote(figure, "1: the labels lie alike up to scale and rotation; undefined (grey, gaps) under three pairs "
                           "of labels, or if all distances are equal" + (f"\n{note}" if note else ""))
    return figure


@style.styled
def label_pairs(names: Sequence[str], before: np.ndarray, after: np.ndarray, when: tuple[str, str], *,
                title: str | None = None, note: str = "") -> "Figure":
    """Distances of all pairs of labels, before | after, on one scale. before, after: (label, label), NaN where
    undefined."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shown = np.flatnonzero(np.isfinite(before).any(axis=0) | np.isfinite(after).any(axis=0))
    if not len(shown):
        shown = np.arange(len(names))
    count = len(shown)
    figure, axes = style.new_figure(1, 2, size=(10.5, 6.0), title=title, sharey=True)
    parts = [np.asarray(part)[np.ix_(shown, shown)] for part in (before, after)]
    top = max([1e-12, *(float(np.nanmax(part)) for part in parts if np.isfinite(part).any())])
    colours, shade = colormaps[style.SEQUENTIAL].with_extremes(bad="#FFFFFF"), Normalize(0, top)
    size = 8.5 if count <= 20 else 6 if count <= 36 else 4.8
    short = [style.short(names[label], 18 if count <= 20 else 12) for label in shown.tolist()]
    for panel, part, name in zip(axes[0], parts, when, strict=True):
        panel.imshow(np.ma.masked_invalid(part), cmap=colours, norm=shade, interpolation="nearest")
        if count <= FEW:
            for (i, j), value in np.ndenumerate(part):
                if np.isfinite(value):
                    panel.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=8,
                               color="black" if value > 0.6 * top else "white")
        finite = part[np.triu_indices(count, 1)]
        finite = finite[np.isfinite(finite)]
        panel.set_title(f"{name}: "
                        + (f"mean {finite.mean():.3g}, least {finite.min():.3g}" if len(finite) else "none"))
        panel.grid(False)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_xticks(range(count), short, rotation=90, fontsize=size)
        panel.set_yticks(range(count), short, fontsize=size)
    figure.colorbar(ScalarMappable(shade, colours), ax=axes, shrink=0.8, pad=0.015,
                    label="distance of the convex hulls (unit of the vectors)")
    style.footnote(figure, "0: hulls overlap or share a point; white: no distance" + (f"; {note}" if note else ""))
    return figure


@style.styled
def motion(paths: Sequence[tuple[int, np.ndarray, np.ndarray]], names: Sequence[str],
           named: Mapping[int, Sequence[int]], layers: Sequence[int], lengths: np.ndarray, *, title: str | None = None,
           note: str = "") -> "Figure":
    """Paths of the centroids in two layers, and how far they moved in every layer.

    paths: (layer, (step, label, 2) coordinates, (2,) shares of the variance) of each drawn layer;  named: {layer:
    labels drawn in colour};  lengths: (layer, label) displacement from first to last checkpoint.
    """
    figure, axes = style.new_figure(1, len(paths) + 1, size=(11, 4.6), title=title)
    for panel, (layer, points, shares) in zip(axes[0], paths, strict=False):
        chosen = list(named[layer])
        for label in np.flatnonzero(np.isfinite(points[0]).all(axis=1) & np.isfinite(points[-1]).all(axis=1)).tolist():
            tint = style.colour(chosen.index(label)) if label in chosen else style.LIGHT_GREY
            z = 3 if label in chosen else 1
            panel.plot(*points[:, label].T, color=tint, lw=1.8 if label in chosen else 1, zorder=z)
            panel.scatter(*points[0, label], s=22, facecolor="white", edgecolor=tint, lw=1.2, zorder=z + 1)
            name = style.short(names[label]) if label in chosen else None
            panel.scatter(*points[-1, label], s=26, color=tint, zorder=z + 1, label=name)
        panel.set_title(f"Layer {layer}: paths of the centroids")
        panel.set_xlabel(f"first component ({100 * shares[0]:.0f} % of variance)")
        panel.set_ylabel(f"second component ({100 * shares[1]:.0f} %)")
        panel.set_aspect("equal", adjustable="datalim")
        panel.margins(0.12)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="best", fontsize=8)
    side = axes[0, -1]
    where = np.arange(len(layers))
    for values in lengths.T[: 200]:
        side.plot(where, values, color=style.LIGHT_GREY, lw=0.9, zorder=1)
    mean = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in lengths])
    side.plot(where, mean, color=style.BLACK, marker="o", ms=4.5, lw=2.2, zorder=3, label="mean")
    side.plot([], [], color=style.LIGHT_GREY, label="a label")
    side.set_xticks(*style.thinned([str(layer) for layer in layers], 13))
    side.set_ylim(bottom=0)
    side.set_xlabel("layer (0 = embeddings)")
    side.set_ylabel("distance moved (unit of the vectors)")
    side.set_title("How far centroids moved")
    side.legend(loc="upper left")
    style.panel_letters(axes)
    style.footnote(figure, "hollow: first, filled: last checkpoint; the components are those of all checkpoints' "
                           f"centroids of a layer together{'; ' + note if note else ''}")
    return figure


def _step_axis(panel: "Axes", steps: Sequence[int], thin: int = 10) -> None:
    """Checkpoints at equal distances: they lie on a log schedule."""
    panel.set_xticks(*style.thinned([f"{step:,}" for step in steps], thin))
    panel.set_xlabel("optimiser step of the checkpoint")


def _log_counts(panel: Any, low: float, high: float) -> None:
    """A log axis of counts from below `low` to above `high`, with plain numbers at 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    bottom, top = max(0.5, 0.7 * low), 1.6 * max(high, 1.5 * low)
    panel.set_yscale("log")
    panel.set_ylim(bottom, top)
    ticks = [base * 10**power for power in range(7) for base in (1, 2, 5) if bottom <= base * 10**power <= top]
    panel.yaxis.set_major_locator(FixedLocator(ticks))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
