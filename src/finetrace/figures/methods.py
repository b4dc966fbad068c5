"""Training methods side by side on one task: accuracy in and out of distribution, calibration,
and what the head's size does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetrace.figures.style import colour, footnote, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Metrics = Mapping[str, float]
"""Metrics of the lenses calibration and features of one trajectory, by name."""


@styled
def methods(results: Mapping[str, Sequence[Metrics]], sets: Sequence[str], judged: str,
            title: str | None = None) -> "Figure":
    """Three panels: accuracy on every set; calibration error before and after temperature scaling; feature change
    against the norm of the head at the start (Tomihari and Sato 2024, tables 1, 3 and 10, figure 3).

    results: method -> one mapping per seed;  sets: evaluation sets in order;  judged: the set of the second and third
    panel. Small dots are seeds, large ones their means; where a method has one seed, `{set}/{accuracy,ece}/{low,high}`
    are its 95 % interval over examples.
    """
    names = list(results)
    figure, axes = new_figure(1, 3, size=(13.5, 1.9 + max(2.2, 0.16 * len(names) * len(sets))), title=title)
    first, second, third = axes[0]
    for number, (name, seeds) in enumerate(results.items()):
        shift = 0.7 * ((number + 0.5) / len(names) - 0.5)
        for place, which in enumerate(sets):
            _interval(first, seeds, f"{which}/accuracy", place + shift, number)
            _dots(first, [m[f"{which}/accuracy"] for m in seeds if f"{which}/accuracy" in m], place + shift, number,
                  short(name, 30) if place == 0 else None)
        before, after = ([m[f"{judged}/{key}"] for m in seeds if m.get(f"{judged}/{key}") is not None]
                         for key in ("ece", "ece_scaled"))
        if before and after:
            _interval(second, seeds, f"{judged}/ece", number - 0.12, number)
            second.plot([np.mean(before), np.mean(after)], [number, number], color=colour(number), lw=1.4)
            second.plot(np.mean(before), number, "o", ms=8, mfc="white", mec=colour(number), mew=1.6)
            _dots(second, after, number, number, None)
        moved = [(m["head_norm/first"], m[f"{judged}/diff"]) for m in seeds if f"{judged}/diff" in m
                 and "head_norm/first" in m]
        if moved:
            x, y = np.array(moved).T
            third.plot(x, y, "o", ms=4, color=colour(number), alpha=0.5)
            third.plot(np.exp(np.log(x).mean()), y.mean(), "o", ms=8, color=colour(number))
    first.set_yticks(range(len(sets)), [short(name, 30) for name in sets])
    first.set_ylim(len(sets) - 0.5, -0.5)
    first.set(xlabel="accuracy (share of examples)", title="Accuracy by evaluation set")
    second.set_yticks(range(len(names)), [short(name, 30) for name in names])
    second.set_ylim(len(names) - 0.5, -0.5)
    second.set_xlim(left=0)
    second.set(xlabel=f"expected calibration error on {short(judged, 30)}",
               title="Temperature scaling: before (open), after")
    _logarithmic(third)
    third.set_ylim(bottom=0)
    third.set(xlabel="norm of the head at the start", ylabel=f"mean change of a feature vector ({short(judged, 30)})",
              title="Feature change and head norm")
    longest = max(len(short(name, 30)) for name in names)
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper right",
                  ncols=min(6, len(names), int(12 / (0.5 + 0.075 * longest))))
    footnote(figure, "Small dots: seeds; large: their mean. Thin lines: 95 % intervals over examples, where there "
             "is one seed (of the error: before scaling).")
    return figure


def _logarithmic(panel: "Axes") -> None:
    """A logarithmic x axis with few, plain numbers: at least a factor of four wide, since one number alone has no
    scale, and beyond two decades with powers of ten only."""
    from matplotlib.ticker import LogLocator, NullFormatter

    drawn = np.concatenate([np.atleast_1d(line.get_xdata()) for line in panel.lines] or [np.ones(1)])
    drawn = drawn[drawn > 0] if (drawn > 0).any() else np.ones(1)
    panel.set_xscale("log")
    room = max(1.15, np.sqrt(4 / (drawn.max() / drawn.min())))
    panel.set_xlim(drawn.min() / room, drawn.max() * room)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if drawn.max() < 100 * drawn.min() else (1,)))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


def _dots(panel: "Axes", values: Sequence[float], y: float, number: int, label: str | None) -> None:
    if values:
        panel.plot(values, [y] * len(values), "o", ms=3.5, color=colour(number), alpha=0.5)
        panel.plot(np.mean(values), y, "o", ms=7, color=colour(number), label=label)


def _interval(panel: "Axes", seeds: Sequence[Metrics], name: str, y: float, number: int) -> None:
    if len(seeds) == 1 and f"{name}/low" in seeds[0]:
        panel.plot([seeds[0][f"{name}/low"], seeds[0][f"{name}/high"]], [y, y], color=colour(number), lw=1, alpha=0.6)
