"""Figures of the lens calibration: reliability diagrams with their counts, and the course over the checkpoints."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.figures.checkpoints import MARKS, checkpoint_axis, plain_log_axis
from finetrace.lenses.calibration.measures import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 4
MOST_BARS = 3  # sets whose intervals are drawn at every checkpoint
TYPES = (Calibration,)
"""The classes that stand in the record."""


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; steps; kept, the checkpoint of the reliability diagrams; fit and fit_examples, the set that chose the
    temperatures; sets; temperatures (checkpoint,); bound, "" or why the kept one is a bound of its range; bins {set:
    (before, after)} at the kept checkpoint; courses {set: {statistic: (checkpoint, 3) value, low, high}}.
    """
    name, steps, kept_step = record["name"], record["steps"], record["kept"]
    temperatures, (drawn, notes) = record["temperatures"], _drawn_sets(record)
    return {
        "reliability": reliability({drawn_set: record["bins"][drawn_set] for drawn_set in drawn},
                                   temperatures[steps.index(kept_step)],
                                   fitted_on=record["fit"], title=f"Reliability at step {kept_step:,}: {name}",
                                   note="; ".join(notes)),
        "course": course(steps, kept_step, record["courses"], np.array(temperatures), note=notes[0],
                         title=f"Calibration over training: {name}"),
    }


def _drawn_sets(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The sets that have a reliability diagram, in distribution first, and what must be said of them."""
    fit, sets = record["fit"], record["sets"]
    judged = [name for name in sets if name != fit] or sets
    foremost = ["test"] if "test" in judged else [fit] if fit in sets else []
    drawn = [*foremost, *(name for name in judged if name not in foremost)][:MOST_PANELS]
    notes = [f"temperature fitted on {record['fit_examples']:,} examples of {fit}"]
    if "test" not in sets:
        notes.append(f"no test set: {fit} is also what is shown, so its scaled errors are too small")
    if len(drawn) < len(judged):
        notes.append(f"{len(drawn)} of {len(judged)} sets are drawn")
    if record["bound"]:
        notes.append("the temperature is a bound of its range")
    return drawn, notes


@style.styled
def reliability(sets: Mapping[str, tuple[Calibration, Calibration]], temperature: float, *, fitted_on: str,
                title: str | None = None, note: str = "") -> "Figure":
    """Reliability diagrams: a column per set, the accuracy of each confidence bin before and after temperature scaling
    with the gap to the diagonal, and below how many examples each bin holds.

    sets: {name: (before, after)}, at most four.  fitted_on: the set that chose the temperature.
    """
    if not 0 < len(sets) <= MOST_PANELS:
        raise ValueError(f"sets: {len(sets)} cannot be drawn; give 1 to {MOST_PANELS}")
    from finetrace.lenses.intervals import wilson_interval

    figure, axes = style.new_figure(3, len(sets), size=(max(5.5, 0.8 + 2.2 * len(sets)), 6.2), title=title, sharex=True,
                                    height_ratios=[1.5, 1.5, 1])
    for column, (name, pair) in zip(axes.T, sets.items(), strict=True):
        for panel, measured, tint, when in zip(column, pair, (style.BLUE, style.VERMILION), ("before", "after"),
                                               strict=False):
            filled = measured.counts > 0
            left, width = measured.edges[:-1][filled], np.diff(measured.edges)[filled]
            confidence, accuracy = measured.bin_confidence[filled], measured.bin_accuracy[filled]
            panel.bar(left, accuracy, width, align="edge", color=tint, alpha=0.25, edgecolor=tint, linewidth=0.8)
            ends = np.array([wilson_interval(a * n, n) for a, n in zip(accuracy, measured.counts[filled], strict=True)])
            panel.vlines(confidence, ends[:, 0], ends[:, 1], color=tint, lw=1.2)
            panel.plot(confidence, accuracy, ls="", marker="o", ms=4.5, color=tint, clip_on=False)
            panel.axline((1, 1), slope=1, color=style.GREY, lw=1.2, ls=style.DASHES[1], zorder=1)
            hint = ", fitted here" if name == fitted_on and when == "after" else ""
            heading = (f"{style.short(name)}: as it is" if when == "before"
                       else f"divided by T = {temperature:.3g}{hint}")
            panel.set_title(f"{heading}\nECE {100 * measured.ece:.1f} %, MCE {100 * measured.mce:.1f} %", fontsize=9.5)
            panel.set(xlim=(_left_end(sets), 1.0), ylim=(0, 1.0), yticks=[0, 0.5, 1.0])
            panel.tick_params(labelleft=panel in axes[:, 0])
        for measured, tint, line in zip(pair, (style.BLUE, style.VERMILION), style.DASHES, strict=False):
            column[2].stairs(measured.counts, measured.edges, color=tint, lw=1.6, ls=line)
        column[2].set_title(f"accuracy {100 * pair[0].accuracy:.1f} %,\nconfidence {100 * pair[0].confidence:.1f} → "
                            f"{100 * pair[1].confidence:.1f} %", fontsize=9)
        column[2].set_xlabel("confidence")
        column[2].set_ylim(bottom=0)
        style.count_axis(column[2].yaxis)
        column[2].locator_params(axis="y", nbins=3)
    axes[0, 0].set_ylabel("accuracy, before scaling")
    axes[1, 0].set_ylabel("accuracy, after scaling")
    axes[2, 0].set_ylabel("examples per bin")
    bins = len(next(iter(sets.values()))[0].counts)
    caption = (f"{bins} bins; dots: mean confidence and accuracy of a bin, with 95 % intervals; dashed diagonal: "
               f"calibrated; counts: solid before, dashed after scaling{'; ' + note if note else ''}")
    style.footnote(figure, textwrap.fill(caption, int(15.5 * figure.get_figwidth())))
    return figure


@style.styled
def course(steps: Sequence[int], kept_step: int, curves: Mapping[str, Mapping[str, np.ndarray]],
           temperatures: np.ndarray, *, title: str | None = None, note: str = "") -> "Figure":
    """Accuracy, expected calibration error and log-likelihood of every set over the checkpoints, and the temperature.

    curves: {set: {"accuracy": (checkpoint, 3) value, low, high, and so "ece", "ece_scaled", "nll", "nll_scaled"}}.
    temperatures: (checkpoint,).
    """
    figure, axes = style.new_figure(2, 2, size=(7.8, 4.8), title=title, sharex=True)
    where = np.arange(len(steps))
    barred = where if len(curves) <= MOST_BARS else where[[list(steps).index(kept_step)]]
    shown = ((axes[0, 0], "accuracy", "Accuracy", "accuracy (%)", 100),
             (axes[0, 1], "ece", "Expected calibration error", "ECE (%)", 100),
             (axes[1, 0], "nll", "Negative log-likelihood", "nats per example", 1))
    for panel, key, heading, unit, factor in shown:
        for number, (name, courses) in enumerate(curves.items()):
            values = factor * np.asarray(courses[key], dtype=np.float64)
            line = {"color": style.colour(number), "marker": MARKS[number % len(MARKS)], "ms": 4.5}
            beside = 0.06 * (number - (len(curves) - 1) / 2)  # so that intervals do not hide each other
            panel.vlines(where[barred] + beside, values[barred, 1], values[barred, 2], color=line["color"], lw=1.2)
            panel.plot(where, values[:, 0], label=style.short(name), **line)
            if f"{key}_scaled" in courses:
                scaled = factor * np.asarray(courses[f"{key}_scaled"], dtype=np.float64)[:, 0]
                panel.plot(where, scaled, ls=style.DASHES[1], lw=1.3, color=line["color"])
        panel.set_title(heading)
        panel.set_ylabel(unit)
    axes[0, 0].set_ylim(top=101)
    for panel in (axes[0, 1], axes[1, 0]):
        panel.set_ylim(bottom=0)
    for panel, *_ in shown:
        panel.locator_params(axis="y", nbins=4)
    tall = axes[1, 1]
    tall.plot(where, temperatures, color=style.BLACK, marker="o", ms=4.5)
    tall.axhline(1, color=style.GREY, lw=1.2, ls=style.DASHES[2])
    finite = temperatures[np.isfinite(temperatures)]
    tall.set_ylim(finite.min(initial=0.7 * 1.15) / 1.15, finite.max(initial=1.4 / 1.15) * 1.15)
    plain_log_axis(tall)
    tall.set_title("Temperature (1: as it is)")
    tall.set_ylabel("temperature")
    for panel in axes.ravel():
        checkpoint_axis(panel, steps, kept_step, label=panel in axes[1])
    axes[0, 0].legend(loc="best", ncols=2 if len(curves) > 3 else 1)
    style.panel_letters(axes)
    where_barred = "" if len(curves) <= MOST_BARS else " at the kept checkpoint"
    style.footnote(figure, f"bars: 95 % interval{where_barred}; grey: the kept checkpoint; dashed: after temperature "
                           "scaling"
                           f"{chr(10) + note if note else ''}")
    return figure


def _left_end(sets: Mapping[str, tuple[Calibration, Calibration]]) -> float:
    """The left end of the axes: the lowest edge of a bin that holds an example."""
    lowest = [measured.edges[:-1][measured.counts > 0].min() for pair in sets.values() for measured in pair]
    return float(min(lowest))
