"""Figures of the lens influence: when and where examples taught, whose texts they are, and which look wrong."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = 114  # of a text in a figure
LINE = 0.235  # inches that a line of text takes


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """All figures of one trajectory.

    record: name, steps, split;  rows: [training examples looked at, all];  parameters, weights: of the settings;
    courses, losses, groups: statistic, split, group -> its course;  predicted, seen, agreement;  examples: of each its
    label, text, seen, and helpful and harmful [influence, label, text];  own, noisy: [self-influence, label, text];
    recorded: split -> starts, ends, visits, watched, value.
    """
    name, looked = record["name"], record["rows"]
    note = (f"{looked[0]:,} of {looked[1]:,} training examples, {len(record['seen']):,} of {record['split']}; "
            f"gradients: {record['parameters']}; weights: {record['weights']}")
    made = {"course": course(record, title=f"What training examples did, and when: {name}", note=note),
            "agreement": agreement(record["predicted"], record["seen"], record["agreement"], note=note,
                                   title=f"The drop of the loss, foretold and seen: {name}"),
            "noise": noise(record["own"], record["noisy"], note=note,
                           title=f"Training examples that no other teaches: {name}")}
    if record["examples"]:
        made["examples"] = examples(record["examples"], note=note, title=f"Who taught these predictions: {name}")
    if record["recorded"]:
        made["recorded"] = recorded(record["recorded"], title=f"What steps did to the watched examples: {name}")
    return made


@style.styled
def course(record: Mapping[str, Any], *, note: str = "", title: str | None = None) -> "Figure":
    """Influence by group of parameters, cosines of gradients, and losses, over the checkpoints."""
    steps = record["steps"]
    figure, axes = style.new_figure(1, 3, size=(11, 4.2), title=title)
    where, panels = np.arange(len(steps)), axes[0]
    for number, (group, values) in enumerate(record["groups"].items()):
        panels[0].plot(where, values, color=style.colour(number), ls=style.dashes(number), marker="o", ms=3.5, lw=1.3,
                       label=group)
    panels[0].plot(where, record["courses"]["influence"][:, 0], color=style.GREY, lw=3, alpha=0.5, label="all")
    panels[0].set(title="Drop of the loss by training around it",
                  ylabel=f"influence on {record['split']} (unit of the loss)")
    names = {"cosine": "all pairs", "cosine_same_class": "of one class", "cosine_other_class": "of two classes"}
    for number, (name, label) in enumerate(names.items()):
        _line(panels[1], where, record["courses"][name], number, label)
    panels[1].set(title="Do gradients agree?", ylabel="mean cosine of two examples")
    for number, (split, values) in enumerate(record["losses"].items()):
        _line(panels[2], where, values, number, split)
    panels[2].set(title="Loss", ylabel="mean loss")
    panels[2].set_ylim(bottom=0)
    for panel in panels:
        panel.set_xticks(*style.thinned([f"{step:,}" for step in steps], 7))
        panel.set_xlabel("optimiser step of the checkpoint")
        panel.axhline(0, color=style.GREY, lw=0.8)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8, loc="lower left" if panel is panels[2] else "best")  # whiskers hang from above
    style.footnote(figure, note)
    return figure


@style.styled
def agreement(predicted: np.ndarray, seen: np.ndarray, value: np.ndarray, *, note: str = "",
              title: str | None = None) -> "Figure":
    """A point per evaluation example: (example,) drops of its loss, foretold and seen;  value: Spearman's correlation,
    low, high."""
    figure, axes = style.new_figure(size=(7, 5), title=title)
    panel = axes[0, 0]
    panel.scatter(predicted, seen, s=18, color=style.BLUE, alpha=0.7, linewidths=0)
    panel.axhline(0, color=style.GREY, lw=0.8)
    panel.axvline(0, color=style.GREY, lw=0.8)
    said = "not defined" if np.isnan(value[0]) else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
    panel.set(xlabel="foretold by the gradients of training examples (first order, plain gradient descent)",
              ylabel="seen, from the first checkpoint to the last", title=f"rank correlation {said}")
    style.footnote(figure, note)
    return figure


@style.styled
def examples(shown: Sequence[Mapping[str, Any]], *, note: str = "", title: str | None = None) -> "Figure":
    """Texts: evaluation examples, and below each the training examples that helped and harmed it most."""
    lines: list[tuple[str, str, str]] = []
    for one in shown:
        lines.append((f"loss {-one['seen']:+.2f}", f"{one['label']}: {one['text']}", style.BLACK))
        lines += [(f"{value:+.2g}", f"{label}: {text}", style.BLUE) for value, label, text in one["helpful"]]
        lines += [(f"{value:+.2g}", f"{label}: {text}", style.VERMILION) for value, label, text in one["harmful"]]
        lines.append(("", "", style.BLACK))
    return _texts(lines[:-1], f"blue: lowered its loss most, red: raised it most (above 0: lowered it least); {note}",
                  title)


@style.styled
def noise(own: np.ndarray, noisy: Sequence[Sequence[Any]], *, note: str = "", title: str | None = None) -> "Figure":
    """Self-influence by rank, and the texts of the largest: wrong labels are found among them.

    own: (train example,) descending;  noisy: [self-influence, label, text] of the first ones.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2 + LINE * len(noisy)), dpi=style.DPI, layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    top, below = figure.subplots(2, 1, height_ratios=[2.2, LINE * (len(noisy) + 1)])
    top.plot(np.arange(1, len(own) + 1), own, color=style.BLUE)
    top.set(xlabel="rank of the training example", ylabel="self-influence")
    top.set_ylim(bottom=0)
    style.count_axis(top.xaxis)
    _write(below, [(f"{value:.2g}", f"{label}: {text}", style.BLACK) for value, label, text in noisy])
    style.footnote(figure, note)
    return figure


@style.styled
def recorded(found: Mapping[str, Mapping[str, Any]], *, title: str | None = None) -> "Figure":
    """How the loss of the watched examples fell between looks, a line per split, with its interval."""
    figure, axes = style.new_figure(size=(8, 4.2), title=title)
    panel = axes[0, 0]
    for number, (split, of) in enumerate(found.items()):
        middle = (of["starts"] + of["ends"]) / 2
        panel.fill_between(middle, of["value"][:, 1], of["value"][:, 2], color=style.colour(number), alpha=0.2, lw=0)
        panel.plot(middle, of["value"][:, 0], color=style.colour(number), ls=style.DASHES[number % 4],
                   label=f"{split} ({of['watched']} watched)")
    panel.axhline(0, color=style.GREY, lw=0.8)
    panel.set(xlabel="optimiser step", ylabel="drop of the mean loss from look to look")
    style.count_axis(panel.xaxis)
    panel.legend()
    rows = np.concatenate([of["visits"] for of in found.values()])
    style.footnote(figure, f"recorded, not predicted; {np.median(rows):,.0f} training rows between two looks, which "
                           "share the credit")
    return figure


def _line(panel: Any, where: np.ndarray, values: np.ndarray, number: int, label: str) -> None:
    """value, low, high (step, 3) as a line with whiskers; nothing where all is NaN."""
    if not np.isfinite(values[:, 0]).any():
        return
    shift = 0.08 * (number - 1)
    known = np.isfinite(values[:, 1])
    tint = style.colour(number)
    panel.vlines((where + shift)[known], values[known, 1], values[known, 2], color=tint, lw=1.2, alpha=0.7)
    panel.plot(where + shift, values[:, 0], color=tint, ls=style.DASHES[number % 4], marker="o", ms=3.5, label=label)


def _texts(lines: Sequence[tuple[str, str, str]], note: str, title: str | None) -> "Figure":
    figure, axes = style.new_figure(size=(11, 1.0 + LINE * len(lines)), title=title)
    _write(axes[0, 0], lines)
    style.footnote(figure, note)
    return figure


def _write(panel: Any, lines: Sequence[tuple[str, str, str]]) -> None:
    """Lines of number, text and colour into a panel; texts are shown as they are, cut where they are long."""
    panel.set_axis_off()
    panel.set(xlim=(0, 1), ylim=(len(lines), 0))
    for row, (number, text, colour) in enumerate(lines):
        plain = " ".join(text.split())
        panel.text(0.085, row + 0.5, number, ha="right", va="center", fontsize=9, color=colour, parse_math=False)
        panel.text(0.1, row + 0.5, style.short(plain, LETTERS), ha="left", va="center", fontsize=9, color=colour,
                   parse_math=False)
