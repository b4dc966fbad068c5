"""Figures of the lens edges: what probes of single layers and mixes of layers score over the steps of a training, and
where in the layers tasks lie.

The time axis is log10(1 + step / first step after 0), so that step 0 has a place on it; ticks are recorded
checkpoints. Scores are in percent. Tasks are panels, at most eight; more are left out and counted in the footnote.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.figures.checkpoints import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TASKS = 8
MOST_STRIPS = 7  # steps whose mixing weights are drawn
MOST_MIXES = 5  # steps whose cumulative scores are drawn
GAP = 0.13  # of the axis, between two tick labels


def draw(record: Mapping[str, Any]) -> "dict[str, Figure]":
    """Name -> figure, those for which there is something to draw.

    record: place, steps, axis (what they count), recipe, changed (whether settings of it were), mixes (all, full, none)
    and tasks: task -> split, and what `finetrace.lenses.edges.summary.drawn` gives.
    """
    steps, axis, place, tasks = record["steps"], record["axis"], record["place"], record["tasks"]
    note = f"recipe {record['recipe']}{' with changes' if record['changed'] else ''}, {_splits(tasks)}"
    single, weights, mixes = (_known_results(tasks, "layer"), _known_results(tasks, "weight"),
                              _known_results(tasks, "mix"))
    expected = _known_results(tasks, "expected_layer")
    drawn: dict[str, Figure] = {}
    if single:
        drawn["scores"] = scores(steps, single, full=_known_results(tasks, "full"), axis=axis,
                                 title=f"Edge probes: {place}",
                                 majority={task: result["majority"] for task, result in tasks.items()}, note=note)
        drawn["lattice"] = lattices(steps, single, axis=axis, title=f"Edge probes by layer and step: {place}",
                                    note=note)
    if weights:
        layers = max(result["layer"].shape[1] for result in tasks.values())
        drawn["weights"] = strips(steps, weights, axis=axis, title=f"Mixing weights: {place}", note=note)
        drawn["centre"] = centre(steps, _known_results(tasks, "cog"), expected, layers=layers, axis=axis,
                                 title=f"Depth of tasks: {place}", note=note)
    if record["mixes"] == "all":
        drawn["cumulative"] = cumulative(steps, mixes, expected, axis=axis,
                                         title=f"Mixes of the layers 0 to k: {place}", note=note)
    return drawn


def _known_results(tasks: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, np.ndarray]:
    """One result of the tasks that have it at some step."""
    intervals = name in ("layer", "mix", "full")  # value, low, high
    return {task: result[name] for task, result in tasks.items()
            if np.isfinite(result[name][..., 0] if intervals else result[name]).any()}


def _splits(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """On which splits the probes are scored."""
    splits = {task: result["split"] for task, result in tasks.items()}
    if len(set(splits.values())) > 1:
        return ", ".join(f"{task}: {split}" for task, split in splits.items())
    return f"{next(iter(splits.values()))} split"


@style.styled
def scores(steps: Sequence[int], single: Mapping[str, np.ndarray], *, full: Mapping[str, np.ndarray] | None = None,
           majority: Mapping[str, float] | None = None, axis: str = "steps", title: str | None = None,
           note: str = "") -> "Figure":
    """Micro F1 against step, a line per layer coloured by depth, with the 95 % band of the last layer; a panel per
    task.

    single: task -> (step, layer, 3) value, low, high in [0, 1], NaN for layers without a probe;  full: task -> (step,
    3) of the mix of all layers, a black line with its band;  majority: task -> F1 of the most frequent class;  axis:
    what steps count.
    """
    from matplotlib import colormaps

    full, majority = full or {}, majority or {}
    figure, panels, note = _panels(list(single), title, note)
    x, colours = _places(steps), colormaps[style.SEQUENTIAL]
    deepest = max(values.shape[1] for values in single.values())
    for panel, (task, values) in zip(panels, single.items(), strict=False):
        values = 100 * values
        scored = np.flatnonzero(np.isfinite(values[..., 0]).any(axis=0))
        for layer in scored:
            tint = colours(0.93 * layer / max(1, deepest - 1))
            panel.plot(x, values[:, layer, 0], color=tint, lw=1.3, marker="o", ms=2.5)
            if layer == scored[-1]:
                panel.fill_between(x, values[:, layer, 1], values[:, layer, 2], color=tint, alpha=0.25, lw=0)
        if task in full:
            mixed = 100 * full[task]
            panel.plot(x, mixed[:, 0], color=style.BLACK, lw=1.6, ls=style.DASHES[1])
            panel.fill_between(x, mixed[:, 1], mixed[:, 2], color=style.GREY, alpha=0.25, lw=0)
        if np.isfinite(majority.get(task, np.nan)):
            panel.axhline(100 * majority[task], color=style.GREY, lw=1.2, ls=style.DASHES[2])
        panel.set_title(style.short(task, 26))
        _step_axis(panel, steps)
    _labels(panels, "micro F1 (%)", axis)
    _legend(figure, bool(full), bool(majority))
    _layer_bar(figure, panels, deepest)
    style.footnote(figure, f"bands: 95 % intervals over sentences; {note}")
    return figure


@style.styled
def lattices(steps: Sequence[int], single: Mapping[str, np.ndarray], *, axis: str = "steps", title: str | None = None,
             note: str = "") -> "Figure":
    """Micro F1 as a heat map of layer (rows, 0 below) and step (columns), a panel and a colour scale per task.

    single: as in `scores`. A number stands in the cells where there is room for it.
    """
    figure, panels, note = _panels(list(single), title, note)
    for panel, (task, values) in zip(panels, single.items(), strict=False):
        grid = 100 * values[..., 0].T
        image = panel.imshow(grid, origin="lower", aspect="auto", cmap="Blues", interpolation="nearest")
        panel.grid(False)
        ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 6)).round().astype(int))
        panel.set_xticks(ticks, [_short(steps[i]) for i in ticks])
        rows = np.arange(len(grid)) if len(grid) <= 8 else np.arange(0, len(grid), 2)
        panel.set_yticks(rows, [str(row) for row in rows])
        if grid.size <= (60 if len(single) <= 4 else 30):
            middle = np.nanmean([np.nanmin(grid), np.nanmax(grid)])
            for row, column in np.argwhere(np.isfinite(grid)):
                value = grid[row, column]
                panel.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8,
                           color="white" if value > middle else style.BLACK)
        bar = figure.colorbar(image, ax=panel, pad=0.02, fraction=0.06)
        bar.ax.tick_params(labelsize=8)
        bar.ax.spines[:].set_visible(False)
        panel.set_title(style.short(task, 26))
    _labels(panels, "layer (0: embeddings)", axis)
    style.footnote(figure, f"colour: micro F1 in %, a scale per task from its lowest to its highest value; {note}")
    return figure


@style.styled
def strips(steps: Sequence[int], weights: Mapping[str, np.ndarray], *, axis: str = "steps", title: str | None = None,
           note: str = "") -> "Figure":
    """Mixing weights as strips of bars, one per layer: a row per step (earliest above), a column per task.

    weights: task -> (step, layer) shares that sum to 1. The dashed line is the even weight; a triangle marks the
    centre of gravity. All strips have one scale.
    """
    tasks, note = list(weights)[:MOST_TASKS], _left_out(weights, note)
    drawn = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_STRIPS)).round().astype(int))
    size = max(7.5, min(13.0, 1.4 + 2.1 * len(tasks))), 1.6 + 0.85 * len(drawn)
    figure, axes = style.new_figure(len(drawn), len(tasks), size=size, title=title, sharey=True, sharex="col")
    top = max(float(np.nanmax(values[drawn])) for task, values in weights.items() if task in tasks)
    for column, task in enumerate(tasks):
        values = weights[task]
        layers = np.arange(values.shape[1])
        for row, step in enumerate(drawn):
            panel = axes[row, column]
            panel.bar(layers, values[step], width=0.85, color=style.SKY)
            panel.axhline(1 / len(layers), color=style.GREY, lw=0.9, ls=style.DASHES[1])
            if np.isfinite(values[step]).all():
                panel.plot(values[step] @ layers, 0.93 * 1.15 * top, "v", color=style.VERMILION, ms=5)
            panel.set_ylim(0, 1.15 * top)
            panel.grid(False)
            panel.tick_params(labelsize=7.5)
            if column == 0:
                panel.set_ylabel(_short(steps[step]), rotation=0, ha="right", va="center", fontsize=9)
        axes[0, column].set_title(style.short(task, max(8, int(9 * size[0] / len(tasks)))))
        shown = layers if len(layers) <= 8 else layers[::3]
        axes[-1, column].set_xticks(shown, [str(layer) for layer in shown])
    figure.supylabel(axis, fontsize=10)
    axes[-1, len(tasks) // 2].set_xlabel("layer (0: embeddings)")
    style.footnote(figure, "bars: weights of the mix of all layers; dashed: even ones; triangle: centre of gravity; "
                           f"{note}")
    return figure


@style.styled
def centre(steps: Sequence[int], gravity: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], *, layers: int,
           axis: str = "steps", title: str | None = None, note: str = "") -> "Figure":
    """Centre of gravity of the mixing weights and expected layer of the cumulative scores, against step, a line per
    task.

    gravity, expected: task -> (step,) in layers, NaN allowed;  layers: hidden states, the embedding output among them.
    """
    figure, axes = style.new_figure(1, 2 if expected else 1, size=(10.5 if expected else 7.0, 4.6), title=title)
    x, names = _places(steps), list(dict.fromkeys([*gravity, *expected]))
    parts = [(gravity, "Centre of gravity of the mixing weights", "layer")]
    parts += [(expected, "Expected layer of the cumulative mixes", "layer")] if expected else []
    for panel, (values, heading, unit) in zip(axes[0], parts, strict=True):
        for number, name in enumerate(names):
            if name in values:
                panel.plot(x, values[name], color=style.colour(number), ls=style.dashes(number),
                           marker=MARKS[number % len(MARKS)], ms=4.5, label=style.short(name))
        panel.set_title(heading)
        panel.set_ylabel(unit)
        _step_axis(panel, steps)
        panel.set_xlabel(axis)
    axes[0, 0].axhline((layers - 1) / 2, color=style.GREY, lw=1.2, ls=style.DASHES[2], label="even weights")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=min(5, len(labels)), fontsize=8.5)
    style.footnote(figure, f"no expected layer where the mixes gain less than two points over layer 0; {note}")
    return figure


@style.styled
def cumulative(steps: Sequence[int], mixes: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray] | None = None,
               *, axis: str = "steps", title: str | None = None, note: str = "") -> "Figure":
    """Micro F1 of the mixes of layers 0 to k against k, a line per step coloured by time, with 95 % bands of the first
    and the last; a panel per task.

    mixes: task -> (step, layer, 3);  expected: task -> (step,) in layers, a vertical line for the last step.
    """
    from matplotlib import colormaps

    figure, panels, note = _panels(list(mixes), title, note)
    drawn = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_MIXES)).round().astype(int))
    colours = colormaps["plasma"]
    for panel, (task, values) in zip(panels, mixes.items(), strict=False):
        k = np.arange(values.shape[1])
        for place, step in enumerate(drawn):
            tint, curve = colours(0.85 * place / max(1, len(drawn) - 1)), 100 * values[step]
            panel.plot(k, curve[:, 0], color=tint, lw=1.5, marker=MARKS[place % len(MARKS)], ms=3.5,
                       label=_short(steps[step]))
            if place in (0, len(drawn) - 1):
                panel.fill_between(k, curve[:, 1], curve[:, 2], color=tint, alpha=0.2, lw=0)
        mark = (expected or {}).get(task, np.array([np.nan]))[-1]
        if np.isfinite(mark):
            panel.axvline(mark, color=style.GREY, lw=1.2, ls=style.DASHES[2])
        shown = k if len(k) <= 8 else k[::2]
        panel.set_xticks(shown, [str(layer) for layer in shown])
        panel.set_title(style.short(task, 26))
    _labels(panels, "micro F1 (%)", "layers 0 to k in the mix")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, title=axis, loc="outside upper right", ncols=len(labels), fontsize=8.5,
                  title_fontsize=8.5)
    style.footnote(figure, "bands: 95 % intervals over sentences; dotted line: expected layer at the last step; "
                           f"{note}")
    return figure


def _panels(tasks: Sequence[str], title: str | None, note: str) -> "tuple[Figure, list[Axes], str]":
    """A figure with a panel per task, and the note with what was left out."""
    count = min(len(tasks), MOST_TASKS)
    columns = min(count, 2 if count == 4 else 3 if count <= 6 else 4)
    rows = -(-count // columns)
    size = {1: (7.5, 5.2), 2: (10.5, 4.6)}.get(count, (3.4 * columns + 0.8, 3.0 * rows + 1.2))
    figure, axes = style.new_figure(rows, columns, size=size, title=title)
    panels = list(axes.ravel())
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count], _left_out(tasks, note)


def _left_out(tasks: Any, note: str) -> str:
    return f"{MOST_TASKS} of {len(tasks)} tasks are drawn; {note}" if len(tasks) > MOST_TASKS else note


def _places(steps: Sequence[int]) -> np.ndarray:
    """Where steps lie on the time axis: (step,) float."""
    unit = min((step for step in steps if step > 0), default=1)
    return np.log10(1 + np.asarray(steps, dtype=np.float64) / unit)


def _step_axis(panel: "Axes", steps: Sequence[int]) -> None:
    """Ticks at checkpoints, first and last among them, as close as their labels allow."""
    x = _places(steps)
    span, shown = max(float(x[-1] - x[0]), 1e-9), [0]
    for i in range(1, len(steps) - 1):
        if x[i] - x[shown[-1]] >= GAP * span and x[-1] - x[i] >= GAP * span:
            shown.append(i)
    shown += [len(steps) - 1] if len(steps) > 1 else []
    panel.set_xticks(x[shown], [_short(steps[i]) for i in shown])
    panel.set_xlim(x[0] - 0.03 * span, x[-1] + 0.03 * span)


def _short(step: int) -> str:
    """A step as a short label: 1,250 or 200k or 1.5M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if step >= size and (step % (size // 10) == 0 or step >= 10 * size):
            return f"{round(step / size, 1):g}{letter}"
    return f"{step:,}"


def _labels(panels: "list[Axes]", ylabel: str, xlabel: str) -> None:
    """Axis labels at the left and lower edge only."""
    last_row = max(panel.get_subplotspec().rowspan.start for panel in panels)  # type: ignore[union-attr]
    columns = {panel.get_subplotspec().colspan.start for panel in panels}  # type: ignore[union-attr]
    lowest = {c: max(p.get_subplotspec().rowspan.start for p in panels  # type: ignore[union-attr]
                     if p.get_subplotspec().colspan.start == c) for c in columns}  # type: ignore[union-attr]
    for panel in panels:
        place = panel.get_subplotspec()
        if place.colspan.start == 0:  # type: ignore[union-attr]
            panel.set_ylabel(ylabel)
        if place.rowspan.start in (last_row, lowest[place.colspan.start]):  # type: ignore[union-attr]
            panel.set_xlabel(xlabel)


def _legend(figure: "Figure", full: bool, majority: bool) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=style.BLACK, lw=1.6, ls=style.DASHES[1], label="mix of all layers")] if full else []
    if majority:
        lines.append(Line2D([], [], color=style.GREY, lw=1.2, ls=style.DASHES[2], label="most frequent class"))
    if lines:
        figure.legend(handles=lines, loc="outside upper right", ncols=2, fontsize=8.5)


def _layer_bar(figure: "Figure", panels: "list[Axes]", layers: int) -> None:
    """The colours of the layers."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ListedColormap([colormaps[style.SEQUENTIAL](0.93 * layer / max(1, layers - 1))
                              for layer in range(layers)])
    shown = range(layers) if layers <= 13 else range(0, layers, 4)
    bar = figure.colorbar(ScalarMappable(Normalize(-0.5, layers - 0.5), colours), ax=panels, pad=0.01, fraction=0.03,
                          aspect=35)
    bar.set_ticks(list(shown), labels=[str(layer) for layer in shown])
    bar.set_label("layer (0: embeddings)")
    bar.ax.spines[:].set_visible(False)
