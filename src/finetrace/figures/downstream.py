"""The score on a task, learned from each checkpoint of a masked-word training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures.style import BLUE, GREY, footnote, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(record: Mapping[str, Any]) -> "dict[str, Figure]":
    """Name -> figure. record: name, and the arguments of `downstream`."""
    names = ("steps", "scores", "majority", "metric", "split", "axis")
    return {"downstream": downstream(**{name: record[name] for name in names}, title=f"Downstream: {record['name']}")}


@styled
def downstream(steps: Sequence[int], scores: np.ndarray, majority: float, *, metric: str, split: str, axis: str,
               title: str | None = None) -> "Figure":
    """Score against the step of the checkpoint: the mean over seeds, every seed, and the majority baseline.

    steps: (checkpoint,) ascending;  scores: (checkpoint, seed) float, of `metric` on `split`, higher is better;
    majority: what always naming the most frequent class gives;  axis: what the steps count.
    """
    values, place = np.asarray(scores, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    figure, axes = new_figure(1, 1, size=(8.0, 4.6), title=title)
    panel = axes[0, 0]
    panel.axhline(majority, color=GREY, lw=1.4, ls=(0, (5, 2)), label="majority class")
    if values.shape[1] > 1:
        panel.fill_between(place, values.min(axis=1), values.max(axis=1), color=BLUE, alpha=0.15, lw=0)
        for column in values.T:
            panel.plot(place, column, "o", ms=3.5, color=BLUE, alpha=0.45)
    panel.plot(place, values.mean(axis=1), "-o", ms=6, color=BLUE, label="mean of the seeds" if values.shape[1] > 1
               else metric)
    positive = place[place > 0]
    if len(positive) > 1 and positive[-1] / positive[0] > 20:
        panel.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        panel.set_xlim(-0.2 * positive[0] if place[0] == 0 else place[0] / 1.15, place[-1] * 1.15)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set(xlabel=axis, ylabel=f"{metric.replace('_', ' ')} on {split}")
    panel.legend(loc="upper left")
    footnote(figure, f"{values.shape[1]} training{'s' * (values.shape[1] > 1)} per checkpoint"
                     f"{'; band: lowest to highest seed' * (values.shape[1] > 1)}.")
    return figure
