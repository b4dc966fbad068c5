"""Figures of learning dynamics: scores over the steps of a training, what adaptation changed, when gains were made.

The time axis is log10(1 + step / unit), so that step 0 has a place on it; its ticks are recorded checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from finetrace.figures import style
from finetrace.figures.checkpoints import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
DIFFERENCE_NAMES = {"difference": "adapted - original", "control-difference": "control - original",
                    "net-difference": "adapted - control"}


@dataclass(frozen=True)
class Line:
    """A statistic over steps with its interval; arrays are (step,), NaN allowed."""

    label: str
    """Lines of one label look alike in all panels."""
    steps: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    factor: float = 100.0
    """100 shows a share in percent, 1 the number itself."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a figure of courses."""

    title: str
    lines: Sequence[Line]
    ylabel: str = "%"
    floor: tuple[str, float] | None = None
    """Name and height of a baseline, in the unit of the axis."""
    mark: float | None = None
    """A step with a vertical line, e.g. where 90 % of the gain was made."""


@dataclass(frozen=True)
class Dot:
    """One step of a gain with its interval; NaN where nothing was gained."""

    layer: int | None
    """None: the mix of all layers, or whatever stands for the whole."""
    step: float
    low: float = np.nan
    high: float = np.nan


@dataclass
class _Look:
    """Colour, dashes and marker by label, the same in every panel."""

    known: dict[str, int] = field(default_factory=dict)

    def of(self, label: str) -> dict:
        number = self.known.setdefault(label, len(self.known))
        return {"color": style.colour(number), "ls": style.dashes(number), "marker": MARKS[number % len(MARKS)]}


@style.styled
def courses(panels: Sequence[Panel], *, axis: str, unit: float, title: str | None = None, note: str = "",
            columns: int = 3, mark: str = "") -> "Figure":
    """Small multiples of scores over steps with bands of their 95 % intervals.

    axis: what the steps count;  unit: of the logarithmic axis, in steps;  mark: what the vertical lines are.  Of more
    than twelve panels twelve are drawn, and the note says so.
    """
    from matplotlib.lines import Line2D

    if not panels:
        raise ValueError("panels: there are none")
    if len(panels) > MOST_PANELS:
        note += f"{'; ' if note else ''}{MOST_PANELS} of {len(panels)} panels are drawn"
        panels = panels[:MOST_PANELS]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = style.new_figure(rows, columns, size=(1.8 + max(5.4, 4.0 * columns), 1.2 + 2.4 * rows), title=title)
    look = _Look()
    for place, panel in zip(axes.flat, panels, strict=False):
        _draw_panel(place, panel, unit, look, wide=columns == 1)
    for place in axes.flat[len(panels):]:
        place.set_visible(False)
    for column in range(columns):
        lowest = max(r for r in range(rows) if r * columns + column < len(panels))
        axes[lowest, column].set_xlabel(axis)
    handles = [Line2D([], [], ms=4.5, label=label, **look.of(label)) for label in look.known]
    floors = {panel.floor[0] for panel in panels if panel.floor}
    handles += [Line2D([], [], color=style.GREY, lw=1.1, ls=style.DASHES[2], label=name) for name in sorted(floors)]
    if mark and any(panel.mark is not None for panel in panels):
        handles.append(Line2D([], [], color="#C9C9C9", lw=4, label=mark))
    figure.legend(handles=handles, loc="outside right upper")
    bands = any(np.isfinite(line.low).any() for panel in panels for line in panel.lines)
    style.footnote(figure, "; ".join(part for part in ("bands: 95 % intervals" if bands else "", note) if part))
    return figure


@style.styled
def differences(rows: Mapping[str, Mapping[str, tuple[float, float, float]]], *, title: str | None = None,
                note: str = "") -> "Figure":
    """What adaptation did, in points: a row per task or corpus, a dot with its 95 % interval per difference, zero as a
    line.

    rows: label -> difference (`difference`, `control-difference`, `net-difference`) -> value, low, high as shares.
    """
    if not rows:
        raise ValueError("rows: there are none")
    names = [name for name in DIFFERENCE_NAMES if any(name in row for row in rows.values())]
    figure, axes = style.new_figure(size=(10, 1.5 + 0.45 * max(3, len(rows))), title=title)
    panel = axes[0, 0]
    panel.axvline(0, color=style.GREY, lw=1.2)
    for number, name in enumerate(names):
        shift = 0.22 * (number - (len(names) - 1) / 2)
        label = DIFFERENCE_NAMES[name]
        for place, row in enumerate(rows.values()):
            if name in row:
                value, low, high = 100 * np.array(row[name], dtype=np.float64)
                if np.isfinite([low, high]).all():
                    panel.plot([low, high], [place + shift] * 2, color=style.colour(number), lw=1.6)
                panel.plot(value, place + shift, marker=MARKS[number], ls="", ms=6.5, color=style.colour(number),
                           label=label)
                label = ""
    panel.set_yticks(range(len(rows)), [style.short(name, 40) for name in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlabel("difference in points (percent)")
    panel.grid(axis="y", visible=False)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper")
    style.footnote(figure, f"bars: 95 % intervals{'; ' + note if note else ''}")
    return figure


@style.styled
def gains(rows: Mapping[str, Sequence[Dot]], *, steps: Sequence[int], axis: str, unit: float, title: str | None = None,
          note: str = "") -> "Figure":
    """The step at which 90 % of the gain was made: a row per task or corpus, a dot per layer, a diamond for the whole.

    rows: label -> dots;  steps: the checkpoints, drawn as ticks.  Rows without any gain say so.
    """
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    if not rows:
        raise ValueError("rows: there are none")
    layers = sorted({dot.layer for dots in rows.values() for dot in dots if dot.layer is not None})
    tints = dict(zip(layers, colormaps[style.SEQUENTIAL](np.linspace(0, 0.92, max(1, len(layers)))), strict=False))
    figure, axes = style.new_figure(size=(10, 1.6 + 0.5 * max(3, len(rows))), title=title)
    panel = axes[0, 0]
    for place, dots in enumerate(rows.values()):
        finite = [dot for dot in dots if np.isfinite(dot.step)]
        if not finite:
            panel.text(_positions(steps[0], unit), place, "no gain beyond its error", va="center", fontsize=8.5,
                       color=style.GREY)
        for dot in finite:
            if dot.layer is not None:
                spread = 0.5 * (layers.index(dot.layer) / max(1, len(layers) - 1) - 0.5)
                panel.plot(_positions(dot.step, unit), place + spread, "o", ms=5, color=tints[dot.layer])
            else:
                if np.isfinite([dot.low, dot.high]).all():
                    panel.plot(_positions(np.array([dot.low, dot.high]), unit), [place] * 2, color=style.BLACK, lw=1.4)
                panel.plot(_positions(dot.step, unit), place, "D", ms=7, color=style.BLACK, zorder=3)
    panel.set_yticks(range(len(rows)), [style.short(name, 40) for name in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    step_ticks(panel, steps, unit, room=0.06)
    panel.set_xlabel(f"{axis} at which 90 % of the gain was made")
    handles = [Line2D([], [], ls="", marker="D", ms=7, color=style.BLACK, label="all layers, or the last")]
    shown = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), 6)).round().astype(int))
    handles += [Line2D([], [], ls="", marker="o", ms=5, color=tints[layers[i]], label=f"layer {layers[i]}")
                for i in shown]
    figure.legend(handles=handles, loc="outside right upper")
    style.footnote(figure, f"bar: 95 % interval; higher dots are lower layers{'; ' + note if note else ''}")
    return figure


def step_ticks(panel: "Axes", steps: Sequence[int], unit: float, room: float = 0.13) -> None:
    """Ticks of the time axis at recorded steps, with labels where they have room (a share of the axis' length)."""
    steps = sorted(set(int(s) for s in steps))
    places = _positions(np.array(steps), unit)
    length = max(places[-1] - places[0], 1e-9)
    ticks = [0]
    for i in range(1, len(steps) - 1):
        if places[i] - places[ticks[-1]] >= room * length and places[-1] - places[i] >= room * length:
            ticks.append(i)
    if len(steps) > 1:
        ticks.append(len(steps) - 1)
    panel.set_xticks(places[ticks], [step_label(steps[i]) for i in ticks])
    panel.set_xticks(places, minor=True)
    panel.set_xlim(places[0] - 0.03 * length, places[-1] + 0.03 * length)


def step_label(step: int) -> str:
    """A step as a tick label: 0, 64, 1,500, 20k, 1.5M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if step >= 10 * size or (step >= size and (size > 1000 or step % size == 0)):
            return f"{step / size:.3g}{letter}"
    return f"{step:,}"


def _draw_panel(place: "Axes", panel: Panel, unit: float, look: _Look, wide: bool) -> None:
    if panel.mark is not None and np.isfinite(panel.mark):
        place.axvline(float(_positions(panel.mark, unit)), color="#E3E3E3", lw=4, zorder=0)
    if panel.floor and np.isfinite(panel.floor[1]):
        place.axhline(panel.floor[1], color=style.GREY, lw=1.1, ls=style.DASHES[2])
    for line in panel.lines:
        x = _positions(line.steps, unit)
        mine = look.of(line.label)
        place.plot(x, line.factor * line.value, ms=4, **mine)
        place.fill_between(x, line.factor * line.low, line.factor * line.high, color=mine["color"], alpha=0.15, lw=0)
    place.set_title(style.short(panel.title, 36))
    place.set_ylabel(panel.ylabel)
    if panel.lines:
        step_ticks(place, [int(s) for line in panel.lines for s in line.steps], unit, room=0.08 if wide else 0.15)


def _positions(steps: np.ndarray | float, unit: float) -> np.ndarray:
    """Places of steps on the axis."""
    return np.log10(1 + np.asarray(steps, dtype=np.float64) / unit)
