"""Figures of the lens features: how features and head change over the checkpoints, and pictures of them before and
after."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.figures.checkpoints import MARKS, checkpoint_axis, plain_log_axis
from finetrace.lenses.features.change import Plane, plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLOURS = 6  # classes that are told apart in a picture; the others are grey
FAR_APART = 10  # ratio of the ends from which on an axis is logarithmic
MOST_ROWS = 8  # head rows whose norms are drawn one by one


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; steps; kept; singular, sets with too few examples; courses {set: {statistic: (checkpoint, 3)}}; head
    (checkpoint,) and head_rows {class: (checkpoint,)}, norms; pictures, None or {set; labels (example,); names
    (class,); by step points (example, dim) and heads (class, dim); tsne, None or by step (example + class, 2)}.
    """
    name, steps, kept_step, pictures = record["name"], record["steps"], record["kept"], record["pictures"]
    note = "features: input of the head's last linear layer"
    if record["singular"]:
        note += (f"\ntoo few examples for so many dimensions in {', '.join(record['singular'])}: without its ridge the "
                 "ratio means little")
    drawn = {"course": course(steps, kept_step, record["courses"], record["head"], record["head_rows"], note=note,
                              title=f"Features and head over training: {name}")}
    if pictures is None:
        return drawn
    labels, names, count = pictures["labels"], pictures["names"], len(pictures["labels"])
    points, heads = ({_state(step, steps[0]): values.astype(np.float64) for step, values in pictures[key].items()}
                     for key in ("points", "heads"))
    note = f"{count:,} examples of {pictures['set']}"
    drawn["pca"] = planes(points, heads, labels, names, plane(np.concatenate(list(points.values()))), note=note,
                          title=f"Features in their principal plane: {name}")
    if pictures["tsne"]:
        maps = {_state(step, steps[0]): values for step, values in pictures["tsne"].items()}
        drawn["tsne"] = neighbours({state: values[:count] for state, values in maps.items()},
                                   {state: values[count:] for state, values in maps.items()}, labels, names,
                                   note=f"t-SNE of directions, each state for itself; {note}",
                                   title=f"Features and head rows by neighbourhood: {name}")
    return drawn


def _state(step: int, first: int) -> str:
    before, after = ("before", "after") if first == 0 else ("first", "later")  # made elsewhere: begins later
    return f"{before if step == first else after} (step {step:,})"


@style.styled
def course(steps: Sequence[int], kept_step: int, curves: Mapping[str, Mapping[str, np.ndarray]], head: np.ndarray,
           rows: Mapping[str, np.ndarray], *, title: str | None = None, note: str = "") -> "Figure":
    """Cosine, change, Fisher ratio and head norm over the checkpoints, a line per set.

    curves: {set: {"cosine", "diff", "fdr", "fdr_ridge": (checkpoint, 3) value, low, high}}.  head: (checkpoint,) norm
    of the weight.  rows: {class: (checkpoint,)} norms of its rows, drawn for up to eight classes.
    """
    figure, axes = style.new_figure(2, 2, size=(8.2, 5.0), title=title, sharex=True)
    where = np.arange(len(steps))
    shown = ((axes[0, 0], "cosine", "Mean cosine of two examples (CS)", "cosine"),
             (axes[0, 1], "diff", "Change since the first checkpoint (Diff)", "Euclidean distance"),
             (axes[1, 0], "fdr_ridge", "Fisher ratio (FDR), with a ridge", "between / within classes"))
    ratios = np.concatenate([courses["fdr_ridge"] for courses in curves.values()])
    positive = ratios[ratios > 0]
    far = len(positive) > 0 and positive.max() > FAR_APART * np.min(ratios[ratios[:, 0] > 0, 0], initial=np.inf)
    floor = positive.min() / 1.3 if far else -np.inf  # of the log axis, below which ends of intervals may lie
    for panel, key, heading, unit in shown:
        for number, (name, courses) in enumerate(curves.items()):
            values = np.asarray(courses[key], dtype=np.float64)
            line = {"color": style.colour(number), "marker": MARKS[number % len(MARKS)], "ms": 4.5}
            panel.plot(where, values[:, 0], label=style.short(name), **line)
            beside = 0.06 * (number - (len(curves) - 1) / 2)
            low = np.maximum(values[:, 1], floor) if key == "fdr_ridge" else values[:, 1]
            panel.vlines(where + beside, low, values[:, 2], color=line["color"], lw=1.2)
        panel.set_title(heading)
        panel.set_ylabel(unit)
    axes[0, 0].set_ylim(top=1.02)
    axes[0, 1].set_ylim(bottom=0)
    if far:
        axes[1, 0].set_ylim(floor, positive.max() * 1.3)
        plain_log_axis(axes[1, 0])
    else:
        axes[1, 0].set_ylim(bottom=0)
    _head_panel(axes[1, 1], where, head, rows)
    for panel in axes.ravel():
        checkpoint_axis(panel, steps, kept_step, label=panel in axes[1])
    axes[0, 1].legend(loc="best", ncols=2 if len(curves) > 3 else 1)
    style.panel_letters(axes)
    style.footnote(figure, f"bars: 95 % interval; grey: the kept checkpoint{'; ' + note if note else ''}")
    return figure


def _head_panel(panel: "Axes", where: np.ndarray, head: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
    panel.plot(where, head, color=style.BLACK, marker="o", ms=4.5, label="whole weight")
    if len(rows) <= MOST_ROWS:
        for number, (name, values) in enumerate(rows.items()):
            panel.plot(where, values, color=style.colour(number), lw=1.2, ls=style.DASHES[1 + number % 3],
                       label=style.short(name))
        panel.legend(loc="best", fontsize=8, ncols=1 + len(rows) // 4)
    panel.set_title("Norm of the head" + (" and of its rows" if len(rows) <= MOST_ROWS else ""))
    panel.set_ylabel("Frobenius norm")
    panel.set_ylim(0, 1.08 * float(np.nanmax([head, *rows.values()], initial=0.0)) or 1.0)


@style.styled
def planes(points: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str],
           flat: Plane, *, title: str | None = None, note: str = "") -> "Figure":
    """Features in one plane of principal components, a panel per state, with the directions of the head's rows.

    points: {state: (example, dim) features};  heads: {state: (class, dim) weight};  labels: (example,) int;  flat: of
    all.
    """
    figure, axes = style.new_figure(1, len(points), size=(9, 4.7), title=title, sharex=True, sharey=True)
    groups = _groups(labels, names)
    places = {state: (values - flat.centre) @ flat.axes.T for state, values in points.items()}
    everything = np.concatenate(list(places.values()))
    reach = 0.5 * np.ptp(everything, axis=0).max() or 1.0
    middle = (everything.max(axis=0) + everything.min(axis=0)) / 2
    for panel, (state, values) in zip(axes[0], places.items(), strict=True):
        _scatter(panel, values, labels, groups)
        rows = np.asarray(heads[state], dtype=np.float64)
        rows = rows - rows.mean(axis=0)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        directions = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0) @ flat.axes.T
        start = values.mean(axis=0)
        for members, colour, name, _ in groups:
            if name:
                ends = 0.8 * reach * directions[members].T
                panel.quiver(*start, *ends, angles="xy", scale_units="xy", scale=1, width=0.011, color=colour,
                             edgecolor=style.BLACK, linewidth=0.9, zorder=3)
        panel.set_title(state)
        panel.set_xlabel(f"component 1 ({100 * flat.shares[0]:.0f} % of the variance)")
        panel.set(xlim=middle[0] + 1.1 * reach * np.array([-1, 1]), ylim=middle[1] + 1.1 * reach * np.array([-1, 1]))
        panel.set_aspect("equal", adjustable="box")
    axes[0, 0].set_ylabel(f"component 2 ({100 * flat.shares[1]:.0f} %)")
    _legend(figure, axes[0, -1])
    style.panel_letters(axes)
    style.footnote(figure, "arrows: direction of the head's rows (less their mean), as long as they lie in the plane"
                           f"{chr(10) + note if note else ''}")
    return figure


@style.styled
def neighbours(points: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray], labels: np.ndarray,
               names: Sequence[str], *, title: str | None = None, note: str = "") -> "Figure":
    """t-SNE maps of features together with the head's rows, a panel per state.

    points: {state: (example, 2)};  heads: {state: (class, 2)};  labels: (example,) int.
    """
    figure, axes = style.new_figure(1, len(points), size=(9, 4.7), title=title)
    groups = _groups(labels, names)
    for panel, (state, values) in zip(axes[0], points.items(), strict=True):
        _scatter(panel, values, labels, groups)
        for members, colour, name, _ in groups:
            if name:
                panel.scatter(*heads[state][members].T, color=colour, marker="*", s=190, edgecolors=style.BLACK,
                              linewidths=1.1, zorder=4)
        panel.set_title(state)
        panel.set(xticks=[], yticks=[])
        panel.set_aspect("equal", adjustable="datalim")
    _legend(figure, axes[0, -1])
    style.panel_letters(axes)
    style.footnote(figure, "stars: the head's rows; neighbours mean something here, distances do not"
                           f"{chr(10) + note if note else ''}")
    return figure


def _groups(labels: np.ndarray, names: Sequence[str]) -> list[tuple[list[int], str, str, str]]:
    """Classes to tell apart: members, colour, name, marker. Of many the most frequent ones; the rest comes first, grey
    and without a name of its own."""
    counts = np.bincount(labels, minlength=len(names))
    if len(names) <= MOST_COLOURS + 1:
        chosen = list(range(len(names)))
    else:
        chosen = sorted(np.argsort(-counts, kind="stable")[:MOST_COLOURS].tolist())
    groups = [([k], style.colour(i), names[k], MARKS[i % len(MARKS)]) for i, k in enumerate(chosen)]
    others = [k for k in range(len(names)) if k not in chosen]
    return [(others, style.LIGHT_GREY, "", "o"), *groups] if others else groups


def _scatter(panel: "Axes", values: np.ndarray, labels: np.ndarray,
             groups: list[tuple[list[int], str, str, str]]) -> None:
    for members, colour, name, marker in groups:
        rows = np.isin(labels, members)
        panel.scatter(values[rows, 0], values[rows, 1], color=colour, marker=marker, s=14, alpha=0.75, linewidths=0,
                      label=style.short(name) if name else f"{len(members)} other classes")


def _legend(figure: "Figure", panel: "Axes") -> None:
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", markerscale=1.5, fontsize=8.5)
