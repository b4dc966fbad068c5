"""Figures of the lens similarity: heat maps over layers and checkpoints, measures side by side, change from look to
look.

Similarity is always drawn on the fixed scale 0 to 1, in which equal representations are 1 and brightest. Grey means
undefined: there a representation is the same for all examples.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.lenses.similarity import summary
from finetrace.longtable import LongTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"cka": "CKA (debiased)", "svcca": "SVCCA", "pwcca": "PWCCA", "procrustes": "Procrustes", "rsa": "RSA"}
MARKERS = {"cka": "o", "svcca": "s", "pwcca": "D", "procrustes": "^", "rsa": "v"}
UNDEFINED = "#BDBDBD"
UNDEFINED_NOTE = "grey: undefined, the representation is the same for all examples"
_CELLS = 120  # cells of a figure up to which values are written
_LINE = 125  # letters of a footnote's line
_LINES = 9  # layers up to which each has its entry in the legend
NOUNS = {"tokens": "tokens", "span": "marked words"}
BARS = "; bars: 95 % interval of CKA over sentences"
Curve = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage similarity measured, as name -> figure.

    record: name; steps; counts {representation: examples}; measures; table, the columns of table.parquet for rows that
    compare with the first checkpoint or the one before.
    """
    name, table, compared = record["name"], LongTable.of_columns(record["table"]), record["measures"]
    main, first, last = summary.main_measure(compared), record["steps"][0], record["steps"][-1]
    over_steps, over_layers, sides = [], [], {}
    for kind, label in named(record["counts"]).items():
        kind_table = table.select(representation=kind)
        over_steps.append(lattice(label, summary.at_layers(kind_table, other_step=first, statistic=main), "step"))
        ends = kind_table.select(step=last, other_step=first)
        over_layers.append(lattice(label, ends.select(statistic=main), "other_layer"))
        sides[label] = {measure: curve(summary.at_layers(ends, statistic=measure)) for measure in compared}
    bars = BARS if "cka" in compared else ""
    return {
        "steps": heat_maps([over_steps], main, "optimiser step of the checkpoint", "layer (0 = embeddings)",
                           title=f"Similarity to the first checkpoint: {name}"),
        "measures": measures(sides, note=f"checkpoint {last:,} against checkpoint {first:,}{bars}",
                             title=f"First and last checkpoint: {name}"),
        "layers": heat_maps([over_layers], main, f"layer of checkpoint {first:,}", f"layer of checkpoint {last:,}",
                            title=f"Layers of the first and last checkpoint: {name}"),
    } | _changes(record, table, main)


def _changes(record: Mapping[str, Any], table: LongTable, measure: str) -> dict[str, "Figure"]:
    """From checkpoint to checkpoint; nothing where there is one only."""
    steps, moved = record["steps"], {}
    if len(steps) < 2:
        return {}
    for kind, label in named(record["counts"]).items():
        pairs = [summary.at_layers(table, representation=kind, step=step, other_step=before, statistic=measure).frame
                 for before, step in itertools.pairwise(steps)]
        moved[label] = pairs[0]["layer"].to_numpy(), np.array(steps[1:]), np.array([pair["value"] for pair in pairs]).T
    return {"changes": changes(moved, measure, title=f"Change from checkpoint to checkpoint: {record['name']}",
                               note=f"the first point compares checkpoints {steps[0]:,} and {steps[1]:,}")}


def named(counts: Mapping[str, int]) -> dict[str, str]:
    """What figures call the kinds of examples."""
    return {kind: f"{kind} ({count:,} {NOUNS.get(kind, 'sentences')})" for kind, count in counts.items()}


def curve(part: LongTable) -> Curve:
    """Layers, values and intervals of rows, as the figures take them."""
    layers, values, low, high = (part.frame[name].to_numpy() for name in ("layer", "value", "low", "high"))
    return layers, values, low, high


@dataclass(frozen=True)
class Lattice:
    """A heat map. down, across: integer labels (row,), (column,), the first row at the bottom;  values: (row,
    column)."""

    title: str
    down: np.ndarray
    across: np.ndarray
    values: np.ndarray


def lattice(title: str, part: LongTable, across: str) -> Lattice:
    """The values of rows by layer and another column; NaN where there is no row."""
    cells = part.frame.drop_duplicates(["layer", across], keep="last")
    wide = cells.pivot(index="layer", columns=across, values="value")
    return Lattice(title, wide.index.to_numpy(), wide.columns.to_numpy(), wide.to_numpy())


@style.styled
def heat_maps(maps: Sequence[Sequence[Lattice]], measure: str, xlabel: str, ylabel: str, *, note: str = "",
              title: str | None = None) -> "Figure":
    """Lattices in rows and columns with one colour scale: layer x step or layer x layer.

    measure: one of `LABELS`;  xlabel, ylabel: with units;  note: what the reader must know.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    columns = max(len(row) for row in maps)
    figure, axes = style.new_figure(len(maps), columns, size=(9, 6 if len(maps) == 1 else 0.8 + 2.9 * len(maps)),
                                   title=title)
    colours = colormaps[style.SEQUENTIAL].with_extremes(bad=UNDEFINED)
    roomy = sum(grid.values.size for row in maps for grid in row) <= _CELLS
    for panels, row in zip(axes, maps, strict=True):
        for panel, grid in zip(panels, row, strict=True):
            panel.imshow(np.ma.masked_invalid(grid.values), cmap=colours, norm=Normalize(0, 1), origin="lower",
                         aspect="auto", interpolation="nearest")
            panel.set_title(grid.title)
            panel.grid(visible=False)
            for spine in panel.spines.values():
                spine.set_visible(False)
            _ticks(panel, grid)
            if roomy and grid.values.shape[1] * columns <= 20:
                _write_values(panel, grid.values, 8.5 if grid.values.shape[1] * columns <= 14 else 7)
        panels[0].set_ylabel(ylabel)
    for panel in axes[-1]:
        panel.set_xlabel(xlabel)
    values = [grid.values for row in maps for grid in row]
    below = any((value < 0).any() for value in values)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=axes, shrink=0.85, pad=0.015,
                          extend="min" if below else "neither")
    bar.set_label(f"{LABELS[measure]}, 1 = equal up to rotation and scale")
    grey = UNDEFINED_NOTE if any(np.isnan(value).any() for value in values) else ""
    _notes(figure, note, grey)
    return figure


@style.styled
def measures(panels: Mapping[str, Mapping[str, Curve]], *, columns: int = 2, note: str = "",
             title: str | None = None) -> "Figure":
    """Every measure over the layers, to see whether they agree.

    panels: title -> measure -> (layer,) layers, values, low, high; bars where low is not NaN. Undefined values are
    gaps.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = style.new_figure(rows, columns, size=(9, 6 if rows == 1 else 0.8 + 2.9 * rows), title=title,
                                   sharey=True)
    bottom, undefined = 0.0, False
    for number, (panel, (name, curves)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for measure, (layers, values, low, high) in curves.items():
            place = list(LABELS).index(measure)
            offset = (place - (len(LABELS) - 1) / 2) * 0.06  # so that bars and markers do not hide each other
            finite = np.isfinite(low)
            panel.vlines(layers[finite] + offset, low[finite], high[finite], color=style.colour(place), lw=1.6)
            panel.plot(layers + offset, values, color=style.colour(place), marker=MARKERS[measure], ms=5, lw=1.4,
                       label=LABELS[measure])
            bottom = min(bottom, *values[np.isfinite(values)], *low[finite], 0.0)
            undefined = undefined or not np.isfinite(values).all()
        panel.set_title(name)
        layers = np.concatenate([line[0] for line in curves.values()])
        panel.set_xlim(layers.min() - 0.4, layers.max() + 0.4)
        _layer_axis(panel, int(layers.max()))
        if number % columns == 0:
            panel.set_ylabel("similarity (1 = equal)")
        if number >= len(panels) - columns:
            panel.set_xlabel("layer (0 = embeddings)")
    for panel in axes.flat[len(panels):]:
        panel.remove()
    axes[0, 0].set_ylim(bottom - 0.04 if bottom < 0 else 0, 1.04)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    _notes(figure, note, "gaps: undefined, the representation is the same for all examples" if undefined else "")
    return figure


@style.styled
def changes(panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], measure: str, *, note: str = "",
            title: str | None = None) -> "Figure":
    """How much each layer changes from one checkpoint to the next: 1 - similarity over training.

    panels: title -> (layer,) layers, (checkpoint,) steps, (layer, checkpoint) similarity of a checkpoint to the one
    before.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = style.new_figure(1, len(panels), size=(9, 5), title=title, sharey=True)
    top = max(int(layers.max()) for layers, _, _ in panels.values())
    colours = colormaps[style.SEQUENTIAL].resampled(256)
    shade = Normalize(0, max(1, top) / 0.92)  # the palest end is too faint for lines
    left_out: dict[str, list[int]] = {}
    for panel, (name, (layers, steps, values)) in zip(axes[0], panels.items(), strict=True):
        for layer, row in zip(layers.tolist(), values, strict=True):
            if np.isfinite(row).any():
                panel.plot(np.arange(len(steps)), 1 - row, color=colours(shade(layer)),
                           marker="o" if top < _LINES else "", ms=4, lw=1.5, ls=style.DASHES[layer % 2],
                           label=f"layer {layer}")
            else:
                left_out.setdefault(name, []).append(layer)
        panel.set_title(name)
        panel.set_xticks(*style.thinned([f"{step:,}" for step in steps.tolist()], 6))
        panel.set_xlabel("optimiser step of the checkpoint")
    axes[0, 0].set_ylabel(f"change since the checkpoint before, 1 - {LABELS[measure].split(' ')[0]}")
    axes[0, 0].set_ylim(bottom=0)
    if top < _LINES:
        # the panel in which most layers are defined names them all
        fullest = max(axes[0], key=lambda panel: len(panel.get_legend_handles_labels()[0]))
        handles, names = fullest.get_legend_handles_labels()
        figure.legend(handles[::-1], names[::-1], loc="outside right center")
    else:
        figure.colorbar(ScalarMappable(shade, colours), ax=axes, label="layer (0 = embeddings)", shrink=0.85, pad=0.015,
                        boundaries=np.arange(-0.5, top + 1), ticks=np.arange(0, top + 1, 2))
    gaps = "; ".join(f"{name}: layer {', '.join(map(str, undefined))} undefined"
                     for name, undefined in left_out.items())
    _notes(figure, note, gaps)
    return figure


def _ticks(panel: "Axes", grid: Lattice) -> None:
    panel.set_xticks(*style.thinned([f"{label:,}" for label in grid.across.tolist()], 8))
    panel.set_yticks(*style.thinned([str(label) for label in grid.down.tolist()], 14))


def _write_values(panel: "Axes", values: np.ndarray, size: float) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no -0.00
            panel.text(j, i, text, ha="center", va="center", fontsize=size, color="black" if value > 0.6 else "white")


def _layer_axis(panel: "Axes", top: int) -> None:
    stride = 1 if top <= 8 else 2
    panel.set_xticks(range(0, top + 1, stride))


def _notes(figure: "Figure", *parts: str) -> None:
    texts = [part for part in parts if part]
    if texts:
        style.footnote(figure, ("; " if sum(map(len, texts)) < _LINE else "\n").join(texts))
