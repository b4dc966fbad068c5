"""Figures of the atlas: trajectories side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetrace.figures.style import BLACK, GREY, colour, count_axis, footnote, new_figure, short, styled
from finetrace.lenses.intervals import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Score:
    """One trajectory's score on a task. label: model and method; equal labels are seeds. rows: evaluated examples."""

    task: str
    label: str
    score: float
    rows: int


@styled
def scores(every: Sequence[Score], floors: Mapping[str, Mapping[str, float]], metric: str = "accuracy") -> "Figure":
    """Validation accuracy per task: one dot per trajectory with its 95 % interval, floors as lines.

    floors: task -> name -> accuracy, e.g. bag of words and most frequent class. Intervals are Wilson's for a share of
    `rows` examples: they speak of the evaluated examples only, not of other seeds.
    """
    tasks = list(dict.fromkeys(s.task for s in every))
    labels = list(dict.fromkeys(s.label for s in every))
    heights = [max(1, sum(s.task == task for s in every)) for task in tasks]
    figure, axes = new_figure(len(tasks), 1, size=(9, 1.3 + 0.34 * sum(heights) + 0.75 * len(tasks)),
                              title=f"Validation {metric} of every trajectory", sharex=True, height_ratios=heights)
    for panel, task in zip(axes[:, 0], tasks, strict=True):
        ours = [s for s in every if s.task == task]
        for y, score in enumerate(ours):
            low, high = wilson_interval(round(score.score * score.rows), score.rows)
            panel.plot([low, high], [y, y], color=colour(labels.index(score.label)), lw=1.6)
            panel.plot(score.score, y, "o", color=colour(labels.index(score.label)), ms=7)
        for i, (name, value) in enumerate(floors.get(task, {}).items()):
            panel.axvline(value, color=(BLACK, GREY)[i % 2], ls=("--", ":")[i % 2], lw=1.2, label=name)
        panel.set_yticks(range(len(ours)), [s.label for s in ours])
        panel.set_ylim(len(ours) - 0.5, -0.5)
        panel.set_title(task)
    handles, names = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="upper right", ncols=2, fontsize=9)
    axes[-1, 0].set_xlabel(f"validation {metric} (share of examples)")
    footnote(figure, "Bars: 95 % Wilson intervals over the validation examples.")
    return figure


@styled
def before_and_after(panels: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]],
                     states: tuple[str, str] = ("before training", "after"), title: str | None = None) -> "Figure":
    """Statistics by layer at the first checkpoint (dashed) and at the last (solid, with its 95 % interval).

    panels: statistic -> trajectory -> layer -> (checkpoint, 3) value, low, high. A colour is a trajectory, in all
    panels.  states: what the two are called.
    """
    labels = list(dict.fromkeys(label for by_label in panels.values() for label in by_label))
    figure, axes = new_figure(1, len(panels), size=(max(6.0, 4.2 * len(panels)), 4.6), title=title)
    for panel, (name, by_label) in zip(axes[0], panels.items(), strict=True):
        for label, layers in by_label.items():
            number, x = labels.index(label), list(layers)
            first, last = (np.array([layers[layer][i] for layer in x]) for i in (0, -1))
            panel.plot(x, first[:, 0], color=colour(number), ls="--", lw=1.2, alpha=0.8)
            panel.plot(x, last[:, 0], color=colour(number), ls="-", marker="o", ms=4, label=short(label, 30))
            panel.fill_between(x, last[:, 1], last[:, 2], color=colour(number), alpha=0.15, lw=0)
        panel.set(xlabel="layer (0: embeddings)", title=name)
        panel.xaxis.get_major_locator().set_params(integer=True)
    room = int(100 * figure.get_figwidth() // (45 + 7 * max(len(short(label, 30)) for label in labels)))  # columns
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right",
                  ncols=max(1, min(len(labels), 4, room)))
    footnote(figure, f"Dashed: {states[0]}; solid: {states[1]}, with 95 % intervals over sentences.")
    return figure


@styled
def pretraining(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "Figure":
    """Masked-word loss and accuracy on held-out sentences against pre-training steps.

    curves: model -> (step, loss in nats, accuracy), each (evaluation,).
    """
    figure, axes = new_figure(1, 2, size=(9, 4), title="Pre-training: held-out masked words")
    for number, (model, (steps, loss, accuracy)) in enumerate(curves.items()):
        for panel, values in zip(axes[0], (loss, accuracy), strict=True):
            panel.plot(steps, values, marker="o", ms=4, color=colour(number), label=short(model, 30))
    for panel, label in zip(axes[0], ("loss (nats per masked word)", "accuracy (share of masked words)"), strict=True):
        panel.set(xlabel="optimiser steps", ylabel=label)
        count_axis(panel.xaxis)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].set_ylim(0, 1)
    axes[0, 1].legend(loc="lower right")
    return figure
