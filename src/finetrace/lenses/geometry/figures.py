"""Figures of the geometry lens: within-sentence cosines, spread and rank by layer, trajectories, class cones.

Cosines are drawn on [-1, 1] throughout, so that a small change looks small. "Raw" is the first checkpoint, "tuned" the
last; checkpoints that do not begin at step 0 are called first and last. Error bars and bands are 95 % intervals over
sentences.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.figures.checkpoints import ends_named
from finetrace.lenses.geometry.cones import ConeStatistics
from finetrace.lenses.geometry.summary import BOX, Bands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

RAW, TUNED = style.BLUE, style.VERMILION
COSINE_TICKS = (-1, -0.5, 0, 0.5, 1)
_MANY_POINTS = 1500  # from here on single points hide each other: smaller and fainter
TYPES = (Bands, ConeStatistics)
"""The classes that stand in the record."""
LABELS = {  # statistic -> heading and unit
    "covariance_trace": ("Covariance trace (depends on scale)", "squared units of the states"),
    "scaled_trace": ("Trace / mean squared norm", "share of the squared norm"),
    "effective_rank": ("Effective rank of stacked tokens", "directions"),
    "effective_rank_centred": ("Effective rank, mean token removed", "directions"),
    "cosine_mean": ("Cosine within sentences", "cosine, mean over sentences"),
    "anisotropy": ("Anisotropy", "cosine across sentences"),
}
SPREAD = ("covariance_trace", "scaled_trace", "effective_rank", "effective_rank_centred")
COURSES = ("cosine_mean", "effective_rank", "anisotropy")


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; steps; sentences, split, special_tokens, what is measured; bands {statistic: Bands (step, layer)};
    cones, None or {vectors, splits, layer; names (class,); labels (row,); of the first and the last checkpoint cosines
    (for two classes, else empty), to_first and statistics, as `class_cones` takes them}.
    """
    name, bands = record["name"], record["bands"]
    steps = (record["steps"][0], record["steps"][-1])
    special = "special tokens included" if record["special_tokens"] else "without special tokens"
    note = f"{record['sentences']:,} sentences of {record['split']}, {special}"
    boxes = np.stack([bands[f"cosine_pooled_{part}"].value for part in BOX], axis=-1)
    drawn = {
        "cosines": cosine_boxes(boxes[0], boxes[-1], *_ends(bands["cosine_median"]), steps=steps, note=note,
                                title=f"Tokens of a sentence: {name}"),
        "spread": layer_profiles({statistic: _ends(bands[statistic]) for statistic in SPREAD}, LABELS, steps=steps,
                                 note=note, title=f"Spread of the tokens: {name}"),
        "trajectories": trajectories(np.array(record["steps"]), {statistic: bands[statistic] for statistic in COURSES},
                                     LABELS, note=note, title=f"Tokens over training: {name}"),
    }
    if record["cones"]:
        drawn["cones"] = _cones(record["cones"], steps, name)
    return drawn


def _cones(cones: Mapping[str, Any], steps: tuple[int, int], name: str) -> "Figure":
    note = f"{cones['vectors']} vectors of {' then '.join(cones['splits'])}; each example is part of its class mean"
    return class_cones(cones["cosines"], cones["to_first"], cones["labels"], cones["names"], steps=steps, note=note,
                       statistics=cones["statistics"], layer=cones["layer"], title=f"Class cones: {name}")


def _ends(values: Bands) -> tuple[Bands, Bands]:
    """The first and the last checkpoint: fields (layer,)."""
    first, last = (Bands(values.value[i], values.low[i], values.high[i]) for i in (0, -1))
    return first, last


@style.styled
def cosine_boxes(
    raw: np.ndarray, tuned: np.ndarray, raw_medians: Bands, tuned_medians: Bands, *, steps: tuple[int, int],
    note: str = "", title: str | None = None
) -> "Figure":
    """Box plot per layer of the cosines between tokens of a sentence, raw beside tuned.

    raw, tuned: (layer, 5) low whisker, Q1, median, Q3, high whisker of all pairs pooled. raw_medians, tuned_medians:
    mean over sentences of each sentence's own median, fields (layer,). steps: of the two checkpoints.
    """
    figure, axes = style.new_figure(1, 1, title=title)
    panel = axes[0, 0]
    layers, named = np.arange(len(raw)), ends_named(steps)
    for boxes, medians, shift, tint, name, marker in (
            (raw, raw_medians, -0.2, RAW, named[0], "o"), (tuned, tuned_medians, 0.2, TUNED, named[1], "D")):
        finite = ~np.isnan(boxes).any(axis=1)
        stats = [dict(zip(("whislo", "q1", "med", "q3", "whishi"), box, strict=True)) for box in boxes[finite]]
        drawn = panel.bxp(stats, positions=layers[finite] + shift, widths=0.32, showfliers=False, patch_artist=True,
                          manage_ticks=False, medianprops={"color": style.BLACK, "lw": 1.6},
                          **{f"{part}props": {"color": tint, "lw": 1.2} for part in ("whisker", "cap")})
        for patch in drawn["boxes"]:
            patch.set(facecolor=tint, edgecolor=tint, alpha=0.45)
        if drawn["boxes"]:
            drawn["boxes"][0].set_label(name)
        panel.errorbar(layers + shift, medians.value, _errors(medians), fmt=marker, ms=4.5, color=tint, mec="white",
                       mew=0.8, elinewidth=1.4, label=f"mean of the sentences' medians, {name.split()[0]}", zorder=5)
    panel.axhline(0, color=style.BLACK, lw=0.8, zorder=1)
    panel.set(xlabel="layer (0 = embeddings)", ylabel="cosine of two tokens of a sentence", ylim=(-1, 1),
              xlim=(-0.6, len(raw) - 0.4), xticks=layers)
    panel.set_title("All token pairs pooled: quartiles, whiskers to 1.5 times their distance (long sentences weigh "
                    "more)")
    panel.legend(loc="lower center", ncols=2)
    style.footnote(figure, _joined("error bars: 95 % interval over sentences", note))
    return figure


@style.styled
def layer_profiles(
    profiles: Mapping[str, tuple[Bands, Bands]], labels: Mapping[str, tuple[str, str]], *, steps: tuple[int, int],
    note: str = "", title: str | None = None
) -> "Figure":
    """One panel per statistic against the layer: raw and tuned with intervals.

    profiles: {statistic: (raw, tuned)}, fields (layer,). labels: {statistic: (panel title, y label with unit)}. A y
    label that begins with "cosine" gets the axis -1 .. 1; every other axis starts at 0.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = style.new_figure(-(-len(profiles) // 2), 2, title=title, sharex=True)
    panels, named = axes.reshape(-1), ends_named(steps)
    for panel, (statistic, pair) in zip(panels, profiles.items(), strict=False):
        heading, unit = labels[statistic]
        for values, tint, name, marker, dash in ((pair[0], RAW, named[0], "o", "-"),
                                                 (pair[1], TUNED, named[1], "D", style.DASHES[1])):
            layers = np.arange(len(values.value))
            panel.fill_between(layers, values.low, values.high, color=tint, alpha=0.18, lw=0)
            panel.plot(layers, values.value, color=tint, marker=marker, ms=4, ls=dash, label=name)
        panel.set_title(heading)
        panel.set_ylabel(unit)
        panel.set_xticks(layers)
        if unit.startswith("cosine"):
            panel.set(ylim=(-1, 1), yticks=COSINE_TICKS)
            panel.axhline(0, color=style.BLACK, lw=0.8, zorder=1)
        else:
            panel.set_ylim(bottom=0)
            panel.yaxis.set_major_locator(MaxNLocator(5))
    for panel in panels[len(profiles):]:
        panel.remove()
    for panel in axes[-1]:
        panel.set_xlabel("layer (0 = embeddings)")
    panels[0].legend(loc="best")
    style.panel_letters(panels[:len(profiles)])
    style.footnote(figure, _joined("bands: 95 % interval over sentences", note))
    return figure


@style.styled
def trajectories(
    steps: np.ndarray, curves: Mapping[str, Bands], labels: Mapping[str, tuple[str, str]], *, note: str = "",
    title: str | None = None
) -> "Figure":
    """Statistics over training, one line per layer from dark (embeddings) to light (last), with intervals.

    steps: (step,) optimiser steps. curves: {statistic: Bands (step, layer)}. labels: as in `layer_profiles`.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = next(iter(curves.values())).value.shape[1]
    tints = [colormaps[style.SEQUENTIAL](x) for x in np.linspace(0, 0.92, count)]
    figure, axes = style.new_figure(1, len(curves), title=title)
    for panel, (statistic, values) in zip(axes[0], curves.items(), strict=True):
        heading, unit = labels[statistic]
        for layer, tint in enumerate(tints):
            panel.fill_between(steps, values.low[:, layer], values.high[:, layer], color=tint, alpha=0.15, lw=0)
            panel.plot(steps, values.value[:, layer], color=tint, marker="o", ms=3, lw=1.6)
        panel.set_title(heading)
        panel.set_ylabel(unit)
        panel.set_xlabel("optimiser step")
        _step_axis(panel, steps)
        if unit.startswith("cosine"):
            panel.set(ylim=(-1, 1), yticks=COSINE_TICKS)
            panel.axhline(0, color=style.BLACK, lw=0.8, zorder=1)
        else:
            panel.set_ylim(bottom=0)
    scale = ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), ListedColormap(tints))
    bar = figure.colorbar(scale, ax=list(axes[0]), location="bottom", shrink=0.6, aspect=40, pad=0.03)
    bar.set_label("layer (0 = embeddings)")
    bar.set_ticks(list(range(count)))
    style.panel_letters(axes)
    raw = "step 0 is the raw model" if steps[0] == 0 < steps[-1] else ""
    style.footnote(figure, _joined("bands: 95 % interval over sentences", raw, note))
    return figure


@style.styled
def class_cones(
    cosines: Sequence[np.ndarray], to_first: Sequence[np.ndarray], labels: np.ndarray, names: Sequence[str],
    *, statistics: tuple[ConeStatistics, ConeStatistics], steps: tuple[int, int], layer: int, note: str = "",
    title: str | None = None
) -> "Figure":
    """Sentence vectors of one layer by direction, raw left and tuned right: against the class means, against one
    sentence.

    cosines: two of (row, class), cosine with each class mean, drawn for two classes only. to_first: two of (row,),
    cosine with the first row. labels: (row,) 0 .. class-1. names: (class,). statistics: of each state; their similarity
    is drawn for three classes and more.
    """
    figure, axes = style.new_figure(2, 2, title=title, height_ratios=[1.15, 1], sharex="row", sharey="row")
    states = tuple(map(str.capitalize, ends_named(steps)))
    many = len(labels) > _MANY_POINTS
    points = {"s": 5 if many else 13, "alpha": 0.35 if many else 0.6, "linewidths": 0}
    image, first_class = None, labels == labels[0]
    first, names = names[labels[0]], [style.short(name) for name in names]
    groups = [(labels == c, style.colour(c), name) for c, name in enumerate(names)]
    if len(names) > len(style.PALETTE):  # more classes than colours
        groups = [(~first_class, style.GREY, "other classes"), (first_class, style.VERMILION, names[labels[0]])]
    for i, state in enumerate(states):
        if len(names) == 2:
            _plane(axes[0, i], cosines[i], labels, names, points)
            axes[0, i].set_title(f"{state}: means {statistics[i].angle:.0f}° apart")
        else:
            image = _matrix(axes[0, i], statistics[i].similarity, names)
            axes[0, i].set_title(f"{state}: mean cosine of pairs")
        for group, colour, name in groups:
            rows = np.flatnonzero(group)
            axes[1, i].scatter(rows, to_first[i][rows], color=colour, label=name, **points)
        axes[1, i].set(xlabel="example (row)", ylabel="cosine with the first", ylim=(-1.04, 1.04),
                       yticks=COSINE_TICKS)
        axes[1, i].axhline(0, color=style.BLACK, lw=0.8, zorder=1)
        axes[1, i].set_title(f"{state}: against the first example")
        style.count_axis(axes[1, i].xaxis)
    if image is not None:
        figure.colorbar(image, ax=list(axes[0]), label="cosine", shrink=0.9)
    # the raw cosines of real models are seldom negative: there is room below them
    legend = axes[1, 0].legend(loc="lower left", ncols=3, markerscale=1.6, fontsize=8, columnspacing=1.2,
                               handletextpad=0.3)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    for panel in axes[:, 1]:
        panel.set_ylabel("")  # that of the left one
    style.panel_letters(axes)
    caption = f"layer {layer}, {len(labels):,} examples, the first one of class {first}"
    style.footnote(figure, _joined(caption, note))
    return figure


def _plane(panel: "Axes", cosines: np.ndarray, labels: np.ndarray, names: Sequence[str], points: dict) -> None:
    """Two classes: one axis per class mean; a row on the diagonal is as close to one as to the other."""
    panel.plot([-1, 1], [-1, 1], color=style.GREY, lw=1, ls=style.DASHES[1], zorder=1)
    for c in range(2):
        rows = labels == c
        panel.scatter(cosines[rows, 0], cosines[rows, 1], color=style.colour(c), **points)
    panel.set(xlim=(-1.04, 1.04), ylim=(-1.04, 1.04), xlabel=f"cosine with {names[0]}",
              ylabel=f"cosine with {names[1]}", xticks=COSINE_TICKS, yticks=COSINE_TICKS)


def _matrix(panel: "Axes", similarity: np.ndarray, names: Sequence[str]) -> "AxesImage":
    """Class x class, with names and numbers as long as they fit."""
    image = panel.imshow(similarity, cmap=style.DIVERGING, vmin=-1, vmax=1)
    panel.grid(False)
    ticks = np.arange(len(names))
    if len(names) > 25:
        panel.set(xlabel="class (number)", ylabel="class (number)")
        return image
    roomy = len(names) <= 7
    size = 9 if roomy else 6.5
    panel.set_xticks(ticks, names, rotation=30 if roomy else 90, ha="right" if roomy else "center", fontsize=size)
    panel.set_yticks(ticks, names, fontsize=size)
    if roomy:
        for a in range(len(names)):
            for b in range(len(names)):
                if np.isfinite(similarity[a, b]):
                    panel.text(b, a, f"{round(similarity[a, b], 2) + 0:.2f}", ha="center", va="center", fontsize=8,
                               color="white" if abs(similarity[a, b]) > 0.65 else style.BLACK)
    return image


def _step_axis(panel: "Axes", steps: np.ndarray) -> None:
    """Steps on a log scale with step 0 at its left end."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    positive = steps[steps > 0]
    panel.set_xscale("symlog", base=2, linthresh=max(1.0, float(min(positive, default=1.0))), linscale=0.6)
    shown = [int(steps[-1])]
    for step in reversed(positive.tolist()):  # labels that lie a factor of five apart do not touch
        if 5 * step <= shown[-1]:
            shown.append(step)
    shown += [0] * (0 in steps and shown != [0])
    panel.set_xticks(shown)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _errors(values: Bands) -> np.ndarray:
    return np.maximum(0, np.stack([values.value - values.low, values.high - values.value]))


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
