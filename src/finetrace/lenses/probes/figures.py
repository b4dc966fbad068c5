"""Figures of the lens probes: the accuracy lattice, accuracy by layer, and how the Adam heads learned.

Accuracies are in percent. The colour scale of a lattice runs from the majority floor, what a probe without information
reaches, to 100 %, whatever the data: pale everywhere means that nothing was learned anywhere.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.lenses.probes.report import HEADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Estimate = tuple[float, float, float]
"""A value with the ends of its interval; shares in [0, 1], NaN allowed."""
_COLOURS = "Blues"  # one hue, light to dark, so that numbers in the cells stay readable
_ROOM = 60  # cells up to which intervals fit below the numbers
_DRAWN = 6  # layers whose training curves can be told apart


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """All figures of one trajectory.

    record: name, head, parity, seeds, vectors, split, steps, layers, floor, trained_rows, scored_rows, unseen; own:
    step -> accuracy of the model's own classifier;  accuracies: (step, layer, 3);  and, empty where there are none:
    training, kinds, compression: step -> what `training`, `compare`, `compression` take;  learning: split -> (step,
    layer, 3).
    """
    name, split, floor = record["name"], record["split"], record["floor"]
    steps, layers, grid = record["steps"], record["layers"], record["accuracies"]
    probe = f"{HEADS[record['head']]}{' (parity)' if record['parity'] else ''} on {record['vectors']}"
    note = f"{probe}, trained on {record['trained_rows']:,} rows, {record['scored_rows']:,} scored"
    note += f", {record['unseen']:,} of classes unseen in training" if record["unseen"] else ""
    ends = {f"step {step:,}": step for step in dict.fromkeys((steps[0], steps[-1]))}
    classifier_accuracy = {label: record["own"][step] for label, step in list(ends.items())[1:]
                           if step in record["own"]}
    drawn = {
        "lattice": lattice(
            {f"{step:,}": dict(zip(layers, map(tuple, row), strict=True))
             for step, row in zip(steps, grid, strict=True)},
            split=split, floor=floor, row_label="checkpoint (optimiser steps)", title=f"Probe accuracy: {name}",
            note=note),
        "layers": by_layer(layers, {label: grid[steps.index(step)] for label, step in ends.items()}, split=split,
                           floor=floor, own=classifier_accuracy, note=note, title=f"Probes by layer: {name}"),
    }
    if record["training"]:
        drawn["training"] = training(layers, {label: record["training"][step] for label, step in ends.items()},
                                     split=split, title=f"Training of the probes: {name}",
                                     note=f"{probe}, mean over seeds" if record["seeds"] > 1 else probe)
    if record["kinds"]:
        drawn["probes"] = compare(layers, {label: record["kinds"][step] for label, step in ends.items()}, split=split,
                                  floor=floor, title=f"Kinds of probes: {name}", note=f"on {record['vectors']}")
    if record["compression"]:
        drawn["mdl"] = compression(layers, {label: record["compression"][step] for label, step in ends.items()},
                                   title=f"Description length: {name}",
                                   note=f"online code with {probe}, {record['trained_rows']:,} rows")
    if record["learning"]:
        drawn["learning"] = learning(steps, layers, record["learning"], title=f"Learning curves: {name}", floor=floor,
                                     note=probe)
    return drawn


@style.styled
def lattice(rows: Mapping[str, Mapping[int, Estimate]], *, split: str, floor: float | None = None,
            row_label: str | None = None, title: str | None = None, note: str = "") -> "Figure":
    """Heat map of probe accuracy with the number in every cell: variants from top to bottom, layers from left to right.

    rows: {variant: {layer: (accuracy, low, high)}}, e.g. a variant per checkpoint, or per model and state; a layer that
    a variant lacks stays blank.  split: on whose examples.  floor: majority floor, the pale end of the colour scale (0
    without).
    row_label: what the rows are.  note: added to the footnote.
    """
    layers = sorted({layer for row in rows.values() for layer in row})
    if not layers:
        raise ValueError("rows: hold no layer")
    values = np.array([[row.get(layer, (np.nan,) * 3) for layer in layers] for row in rows.values()])  # (row, layer, 3)
    height = max(3.2, min(9.0, 1.9 + 0.55 * len(rows)))
    figure, axes = style.new_figure(size=(9, height), title=title)
    panel = axes[0, 0]
    bottom = 0.0 if floor is None else floor
    from matplotlib import colormaps

    colours = colormaps[_COLOURS].with_extremes(bad="#FFFFFF")
    image = panel.imshow(values[..., 0], cmap=colours, vmin=bottom, vmax=1.0, aspect="auto")
    intervals = values[..., 0].size <= _ROOM and bool(np.isfinite(values[..., 1]).any())
    size = 10 if len(layers) <= 9 else 8.5
    for r, c in np.argwhere(np.isfinite(values[..., 0])):
        value, low, high = 100 * values[r, c]
        tint = "white" if (value / 100 - bottom) / max(1 - bottom, 1e-9) > 0.6 else style.BLACK
        panel.text(c, r - 0.16 * intervals, f"{value:.1f}", ha="center", va="center", color=tint, fontsize=size)
        if intervals and np.isfinite(low):
            panel.text(c, r + 0.24, f"{low:.1f}–{high:.1f}", ha="center", va="center", color=tint, fontsize=6.8)
    panel.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    panel.set_yticks(range(len(rows)), [style.short(name, 40) for name in rows])
    panel.grid(False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.set_xlabel("layer (0: embeddings)")
    if row_label:
        panel.set_ylabel(row_label)
    panel.set_title(f"Accuracy in % on the split {split!r}" + (", below it the 95 % interval" if intervals else ""))
    bar = figure.colorbar(image, ax=panel, pad=0.01, fraction=0.04)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
    bar.set_label("accuracy (%)")
    bar.ax.spines[:].set_visible(False)
    start = "0 %" if floor is None else f"the majority class ({100 * bottom:.1f} %)"
    style.footnote(figure, f"colour from {start} to 100 %{'; ' + note if note else ''}")
    return figure


@style.styled
def by_layer(layers: Sequence[int], states: Mapping[str, np.ndarray], *, split: str, floor: float | None = None,
             own: Mapping[str, float] | None = None, title: str | None = None, note: str = "") -> "Figure":
    """Accuracy against layer with 95 % intervals, one line per state (before and after fine-tuning).

    states: {name: (layer, 3) accuracy, low, high} shares.  floor: majority floor.  own: {state: accuracy of the model's
    own classifier}, drawn as a dashed line in the state's colour.
    """
    figure, axes = style.new_figure(title=title)
    panel = axes[0, 0]
    where = np.arange(len(layers))
    shift = 0.12 / max(1, len(states) - 1)
    for number, (name, values) in enumerate(states.items()):
        values = 100 * np.asarray(values, dtype=np.float64)
        x = where + shift * (number - (len(states) - 1) / 2)  # side by side, so that intervals do not hide each other
        ends = np.abs(values[:, 1:] - values[:, :1]).T
        panel.errorbar(x, values[:, 0], yerr=ends, color=style.colour(number), marker="os^Dv"[number % 5], ms=5.5,
                       capsize=3, elinewidth=1.2, ls=style.DASHES[0], label=style.short(name, 26))
        if own and np.isfinite(own.get(name, np.nan)):
            panel.axhline(100 * own[name], color=style.colour(number), lw=1.2, ls=style.DASHES[1],
                          label=f"the model's own classifier, {style.short(name, 26)}")
    if floor is not None:
        panel.axhline(100 * floor, color=style.GREY, lw=1.2, ls=style.DASHES[2], label="majority class")
    lowest = min([100 * (floor if floor is not None else 1), *(100 * np.nanmin(v) for v in states.values())])
    panel.set_ylim(max(0.0, 10 * np.floor((lowest - 2) / 10)), 100.5)
    panel.set_xticks(where, [str(layer) for layer in layers])
    panel.set_xlabel("layer (0: embeddings)")
    panel.set_ylabel("accuracy (%)")
    panel.set_title(f"Accuracy of the probes on the split {split!r}, with 95 % intervals")
    longest = max(map(len, panel.get_legend_handles_labels()[1]))
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.05), ncols=3 if longest <= 36 else 2, borderaxespad=0)
    style.footnote(figure, (f"{note}; " if note else "") + f"the axis starts at {panel.get_ylim()[0]:.0f} %")
    return figure


@style.styled
def training(layers: Sequence[int], states: Mapping[str, Mapping[str, np.ndarray]], *, split: str,
             title: str | None = None, note: str = "") -> "Figure":
    """Loss and accuracy per epoch of the Adam heads: a column per state, a colour per layer, train dashed, test solid.

    states: {name: {"train_loss", "test_loss", "train_accuracy", "test_accuracy": (layer, epoch), mean over seeds}};
    epochs that a layer did not train are NaN. Of more than six layers six are drawn, first and last among them: the
    table has all.
    """
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    drawn = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), _DRAWN)).round().astype(int))
    if len(drawn) < len(layers):
        note += f"{'; ' if note else ''}{len(drawn)} of {len(layers)} layers are drawn"
    layers = [layers[i] for i in drawn]
    figure, axes = style.new_figure(2, len(states), title=title, sharex=True, sharey="row")
    tints = colormaps[style.SEQUENTIAL](np.linspace(0.0, 0.9, len(layers)))
    for column, (name, curves) in zip(axes.T, states.items(), strict=True):
        for panel, measure, factor in zip(column, ("loss", "accuracy"), (1, 100), strict=True):
            for side, line in (("train", style.DASHES[1]), ("test", style.DASHES[0])):
                for values, tint in zip(factor * np.asarray(curves[f"{side}_{measure}"])[drawn], tints, strict=True):
                    panel.plot(np.arange(1, len(values) + 1), values, color=tint, ls=line, lw=1.5)
            panel.set_title(f"{name}: {measure}")
        column[1].set_xlabel("epoch")
        style.count_axis(column[1].xaxis)
    axes[0, 0].set_ylabel("loss (nats per example)")
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylabel("accuracy (%)")
    axes[1, 0].set_ylim(top=100.5)
    lines = [Line2D([], [], color=tint, label=str(layer)) for layer, tint in zip(layers, tints, strict=True)]
    axes[1, -1].legend(handles=lines, title="layer", ncols=2, fontsize=8)
    sides = [Line2D([], [], color=style.GREY, ls=style.DASHES[1], label="train"),
             Line2D([], [], color=style.GREY, label=split)]
    axes[0, -1].legend(handles=sides, loc="upper right")
    style.panel_letters(axes)
    style.footnote(figure, f"train: in evaluation mode after each epoch{'; ' + note if note else ''}")
    return figure


@style.styled
def compare(layers: Sequence[int], states: Mapping[str, Mapping[str, np.ndarray]], *, split: str,
            floor: float | None = None, title: str | None = None, note: str = "") -> "Figure":
    """Accuracy against layer of several kinds of probes, a panel per checkpoint: what a stronger probe finds, and what
    it could learn by heart.

    states: {checkpoint: {kind: (layer, 3) accuracy with its ends, shares}}; a kind whose name begins with "control" is
    grey and dashed: the gap above it is the selectivity.  floor: majority floor.
    """
    figure, axes = style.new_figure(1, len(states), size=(9, 5), title=title, sharey=True)
    kinds = list(dict.fromkeys(kind for state in states.values() for kind in state))
    coloured = [kind for kind in kinds if not kind.startswith("control")]
    where, lowest = np.arange(len(layers)), 100.0 * (1 if floor is None else floor)
    for panel, (state, accuracies) in zip(axes[0], states.items(), strict=True):
        for kind, values in accuracies.items():
            values = 100 * np.asarray(values, dtype=np.float64)
            lowest = min(lowest, float(np.nanmin(values)))
            if kind in coloured:
                number = coloured.index(kind)
                # side by side, so that intervals do not hide each other
                x = where + 0.14 * (number - (len(coloured) - 1) / 2)
                panel.errorbar(x, values[:, 0], yerr=np.abs(values[:, 1:] - values[:, :1]).T,
                               color=style.colour(number), marker="os^Dv"[number % 5], ms=5, capsize=2.5,
                               elinewidth=1.2, ls=style.DASHES[0], label=kind)
            else:
                panel.plot(where, values[:, 0], color=style.GREY, marker="x", ms=6, ls=style.DASHES[1], label=kind)
        if floor is not None:
            panel.axhline(100 * floor, color=style.GREY, lw=1.2, ls=style.DASHES[2], label="majority class")
        panel.set_title(state)
        panel.set_xticks(where, [str(layer) for layer in layers])
        panel.set_xlabel("layer (0: embeddings)")
    axes[0, 0].set_ylabel(f"accuracy on {split} (%)")
    axes[0, 0].set_ylim(max(0.0, 10 * np.floor((lowest - 2) / 10)), 101)
    axes[0, 0].legend(loc="best")
    style.panel_letters(axes)
    bars = "bars: 95 % interval; of networks one standard deviation over seeds"
    control = "; gap to the control task: selectivity" if len(coloured) < len(kinds) else ""
    style.footnote(figure, f"{bars}{control}{'; ' + note if note else ''}")
    return figure


@style.styled
def compression(layers: Sequence[int], states: Mapping[str, np.ndarray], *, title: str | None = None,
                note: str = "") -> "Figure":
    """Compression of the labels by the online code against layer, a line per checkpoint; 1 is the uniform code.

    states: {checkpoint: (layer,) compression}.
    """
    figure, axes = style.new_figure(title=title)
    panel = axes[0, 0]
    where = np.arange(len(layers))
    for number, (name, values) in enumerate(states.items()):
        panel.plot(where, values, color=style.colour(number), marker="os^Dv"[number % 5], ms=5.5,
                   label=style.short(name, 26))
    panel.axhline(1, color=style.GREY, lw=1.2, ls=style.DASHES[2], label="uniform code")
    panel.set_ylim(bottom=0)
    panel.set_xticks(where, [str(layer) for layer in layers])
    panel.set_xlabel("layer (0: embeddings)")
    panel.set_ylabel("compression (times shorter than the uniform code)")
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.05), ncols=3, borderaxespad=0)
    style.footnote(figure, note)
    return figure


@style.styled
def learning(steps: Sequence[int], layers: Sequence[int], splits: Mapping[str, np.ndarray], *,
             floor: float | None = None, title: str | None = None, note: str = "") -> "Figure":
    """Accuracy against checkpoint on rows that the probe saw (subtrain), that only the model was tuned on (subtest),
    and that neither saw; a panel per layer, of more than four the first, the last and two between.

    splits: {split: (step, layer, 3) accuracy with its interval, shares}.
    """
    drawn = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), 4)).round().astype(int))
    figure, axes = style.new_figure(1, len(drawn), size=(9, 4.2), title=title, sharey=True)
    where, lowest = np.arange(len(steps)), 100.0 * (1 if floor is None else floor)
    for panel, layer in zip(axes[0], drawn, strict=True):
        for number, (split, values) in enumerate(splits.items()):
            values = 100 * np.asarray(values, dtype=np.float64)[:, layer]
            lowest = min(lowest, float(np.nanmin(values)))
            panel.plot(where, values[:, 0], color=style.colour(number), marker="os^Dv"[number % 5], ms=4.5, label=split,
                       ls=style.DASHES[number % len(style.DASHES)])
            panel.fill_between(where, values[:, 1], values[:, 2], color=style.colour(number), alpha=0.15, lw=0)
        if floor is not None:
            panel.axhline(100 * floor, color=style.GREY, lw=1.2, ls=style.DASHES[2], label="majority class")
        panel.set_title(f"layer {layers[layer]}")
        ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 5)).round().astype(int))
        panel.set_xticks(where[ticks], [f"{steps[i]:,}" for i in ticks])
        panel.set_xlabel("optimiser steps")
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, 0].set_ylim(max(0.0, 10 * np.floor((lowest - 2) / 10)), 101)
    axes[0, -1].legend(loc="best")
    style.panel_letters(axes)
    left_out = f"{len(drawn)} of {len(layers)} layers are drawn; " if len(drawn) < len(layers) else ""
    style.footnote(figure,
                   f"{left_out}checkpoints are evenly spaced; bands: 95 % interval{'; ' + note if note else ''}")
    return figure
