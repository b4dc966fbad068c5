"""Figures of the lens pairs: accuracy by phenomenon over checkpoints, when each is acquired, and every paradigm."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.figures.checkpoints import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAID = {"word_l2r": "pseudo-log-likelihood, rest of the word masked", "original": "pseudo-log-likelihood"}
_NAMED = 8  # checkpoints with a label
_LINES = 14  # phenomena in one panel
_ROWS = 80  # paradigms in the map


def draw(record: Mapping[str, Any]) -> "dict[str, Figure]":
    """Name -> figure. record: place, set, pairs (how many), steps, axis (what they count), head (whose), scoring;
    courses, ages, reasons, paradigms of `finetrace.lenses.pairs.summary.drawn`."""
    steps, title = record["steps"], f"{record['set']}: {record['place']}"
    note = f"{record['pairs']:,} pairs; {SAID[record['scoring']]}; masked-word head: {record['head']}"
    common = {"axis": record["axis"], "title": title, "note": note}
    drawn = {"accuracy": by_step(steps, record["courses"], **common),
             "paradigms": by_paradigm(steps, record["paradigms"], **common)}
    if len(steps) > 1:
        drawn["acquisition"] = acquisition(steps, record["ages"], record["reasons"], **common)
    return drawn


@style.styled
def by_step(steps: Sequence[int], courses: Mapping[str, np.ndarray], *, axis: str, title: str | None = None,
            note: str = "") -> "Figure":
    """Accuracy against checkpoint, a line per phenomenon, with its 95 % interval. courses: {phenomenon: (step, 3)
    value, low, high}, of which the first `_LINES` are drawn."""
    figure, axes = style.new_figure(title=title, size=(9.0, 5.4))
    panel, where = axes[0, 0], np.arange(len(steps))
    for number, (name, values) in enumerate(list(courses.items())[:_LINES]):
        value, low, high = 100 * np.asarray(values).T
        tint = style.colour(number)
        panel.plot(where, value, color=tint, ls=style.dashes(number), marker=MARKS[number % 7], ms=4,
                   label=style.short(name, 30))
        panel.fill_between(where, low, high, color=tint, alpha=0.12, lw=0)
    panel.axhline(50, color=style.GREY, ls=style.DASHES[2], label="chance")
    panel.set_ylabel("pairs whose good sentence is more probable (%)")
    panel.set_ylim(0, 102)
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    _checkpoints(panel, steps, axis)
    omitted = f"{len(courses) - _LINES} more phenomena are in table.parquet; " if len(courses) > _LINES else ""
    style.footnote(figure, f"checkpoints are evenly spaced; bands: 95 % interval; {omitted}{note}")
    return figure


@style.styled
def acquisition(steps: Sequence[int], ages: Mapping[str, np.ndarray], reasons: Mapping[str, str], *, axis: str,
                title: str | None = None, note: str = "") -> "Figure":
    """Age of acquisition of each phenomenon, the earliest on top; below them those that have none, with the reason.

    ages: {phenomenon: (3,) step, low, high}, NaN without one; an end that is NaN is open;  reasons: {phenomenon: why}.
    """
    order = sorted(ages, key=lambda name: (np.isnan(ages[name][0]), ages[name][0]))
    figure, axes = style.new_figure(title=title, size=(9.0, 1.8 + 0.34 * len(order)))
    panel = axes[0, 0]
    first, last = min(step for step in steps if step > 0), steps[-1]
    left_edge = min([first, *(end for age in ages.values() for end in age[:2] if end > 0)]) / 1.3  # NaN > 0 is false
    for row, name in enumerate(order):
        value, low, high = ages[name]
        if np.isnan(value):
            panel.text(left_edge * 1.3, row, reasons[name], color=style.GREY, va="center", fontsize=8.5,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
            continue
        panel.plot([max(left_edge, low) if np.isfinite(low) else left_edge, high if np.isfinite(high) else last],
                   [row, row], color=style.BLUE, lw=2.4, alpha=0.4)
        panel.plot(value, row, "o", color=style.BLUE, ms=7)
    panel.set_xscale("log")
    panel.set_xlim(left_edge, last * 1.3)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set_yticks(range(len(order)), [style.short(name, 40) for name in order])
    panel.set_ylim(len(order) - 0.5, -0.5)
    panel.set_xlabel(axis)
    panel.set_title("Step at which accuracy passes the middle between chance and its last value")
    style.footnote(figure, f"lines: 95 % interval over pairs; {note}")
    return figure


@style.styled
def by_paradigm(steps: Sequence[int], accuracies: Mapping[str, np.ndarray], *, axis: str, title: str | None = None,
                note: str = "") -> "Figure":
    """Accuracy of every paradigm (down) at every checkpoint (right), red above chance, blue below. accuracies:
    {paradigm: (step,)}, of which the first `_ROWS` are drawn."""
    names = list(accuracies)[:_ROWS]
    figure, axes = style.new_figure(title=title, size=(9.0, 1.9 + 0.24 * len(names)))
    panel = axes[0, 0]
    image = panel.imshow(100 * np.array([accuracies[name] for name in names]), aspect="auto", cmap=style.DIVERGING,
                         vmin=0, vmax=100)
    panel.set_yticks(range(len(names)), [style.short(name, 48) for name in names], fontsize=8)
    panel.grid(False)
    _checkpoints(panel, steps, axis, line=False)
    bar = figure.colorbar(image, ax=panel, pad=0.01, fraction=0.03)
    bar.set_label("accuracy (%)")
    bar.ax.spines[:].set_visible(False)
    style.footnote(figure, f"checkpoints are evenly spaced; white: chance; {note}")
    return figure


def _checkpoints(panel: "Axes", steps: Sequence[int], label: str, line: bool = True) -> None:
    """Evenly spaced checkpoints on the x axis, some of them named."""
    ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _NAMED)).round().astype(int))
    panel.set_xticks(ticks, [f"{steps[i]:,}" for i in ticks], fontsize=8)
    if line:
        panel.set_xlim(-0.3, len(steps) - 0.7)
    panel.set_xlabel(label)
