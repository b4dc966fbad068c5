"""Figures of the lens kernel: its course over training, singular values, norms between examples, and who makes it.

The three parts of a kernel keep their colours: the head's (P), that of all other parameters (F), and their sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetrace.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"pretrain_effective": "pre-train-effective P (head)", "ft_effective": "FT-effective F (all else)",
          "full": "P + F"}
SHORT = {"pretrain_effective": "P: head", "ft_effective": "F: all else", "full": "P + F"}
TINTS = {"pretrain_effective": style.BLUE, "ft_effective": style.VERMILION, "full": "#9A9A9A"}
MARKERS = {"pretrain_effective": "o", "ft_effective": "s", "full": "D"}
KINDS = {"embeddings": style.ORANGE, "attention": style.BLUE, "ffn": style.VERMILION, "norms": style.GREEN,
         "biases": style.PURPLE, "rest": style.GREY}
CELLS = 40  # of a heat map, each way: more are averaged
MANY = 12  # classes above which a heat map has one cell for each
_ROOM = 0.055  # of a heat map's side that a class's name takes
_LETTERS = 14
_DYNAMIC = 1000.0  # largest to smallest value of a heat map's logarithmic scale
_EVEN = 8.0  # ratio of the largest to the smallest value up to which a heat map's scale is linear


@dataclass(frozen=True)
class Panel:
    """One number over the checkpoints. curves: part -> (step, 3) value, low, high;  scale: logarithmic, from 0, or from
    0 to 1;
    floor: a level to compare with, drawn dotted."""

    title: str
    label: str
    scale: Literal["log", "zero", "share"]
    curves: Mapping[str, np.ndarray]
    floor: float | None = None


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """All figures of one trajectory.

    record: name, steps, formula, parameters, solver, label_names, labels: of the training examples;  courses: statistic
    -> part -> (step, 3);  split: on which the kernel models are scored;  floor: accuracy of the largest class on it;
    spectra, tolerance, blocks, groups: what the functions of these names take, by step instead of the name of a
    checkpoint.
    """
    name, steps, labels, names = record["name"], record["steps"], record["labels"], record["label_names"]
    ends = {f"step {step:,}": step for step in dict.fromkeys((steps[0], steps[-1]))}
    note = (f"{len(labels):,} training examples, {len(names)} classes, {record['formula']}, "
            f"gradients: {record['parameters']}")
    course_note = note if record["solver"] == "none" else f"{note}; dotted: always the largest class"
    lines = {part: {when: values[step] for when, step in ends.items()} for part, values in record["spectra"].items()}
    figures = {"course": course(steps, _panels(record), title=f"Kernel over training: {name}", note=course_note),
               "spectra": spectra(
                   lines, record["tolerance"], title=f"Singular values of the kernel: {name}", note=note),
               "blocks": blocks({when: record["blocks"][step] for when, step in ends.items()}, labels, names, note=note,
                                title=f"Kernel between examples: {name}")}
    shares = {when: record["groups"][step] for when, step in ends.items()}
    if any(np.isfinite(share) for group_shares in shares.values() for share in group_shares.values()):
        figures["groups"] = groups(shares, note=note, title=f"Whose gradients make the FT-effective kernel: {name}")
    return figures


def _panels(record: Mapping[str, Any]) -> list[Panel]:
    """The panels of the figure `course` of one trajectory."""
    courses = record["courses"]
    panels = [Panel("Size", "Frobenius norm", "log", courses["frobenius_norm"]),
              Panel("Share of the encoder in a first step", "FT Ratio", "zero", {"full": courses["ft_ratio"]["full"]}),
              Panel("Alignment with the classes", "centred alignment", "share", courses["alignment"])]
    if len(record["steps"]) > 1:
        panels += [Panel("How far the kernel has turned", "distance from the first", "zero", courses["distance"]),
                   Panel("How fast it turns", "distance per step", "log", courses["velocity"])]
    if record["solver"] != "none":
        split = record["split"]
        panels.append(Panel(f"What it predicts ({record['solver']})", f"accuracy on {split} examples", "share",
                            courses[f"accuracy_{split}"], record["floor"]))
    return panels


@style.styled
def course(steps: Sequence[int], panels: Sequence[Panel], *, note: str = "", title: str | None = None) -> "Figure":
    """Numbers over the checkpoints, a panel each. A part that is NaN everywhere is left out; intervals where low is not
    NaN."""
    columns = min(3, len(panels))
    row_count = -(-len(panels) // columns)
    figure, axes = style.new_figure(row_count, columns, size=(10.4, 0.8 + 2.4 * row_count), title=title)
    positions = np.arange(len(steps))
    lines: dict[str, Any] = {}
    for number, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        logarithmic = panel.scale == "log" and any(
            (np.asarray(curve)[:, 0] > 0).any() for curve in panel.curves.values())
        # the sum lies beneath, broad: it often hides a part
        for part in sorted(panel.curves, key=lambda part: part != "full"):
            value, low, high = np.asarray(panel.curves[part], dtype=np.float64).T
            if logarithmic:
                value = np.where(value > 0, value, np.nan)
                low = np.where(low <= 0, 0.5 * np.nanmin(value, initial=np.inf), low)  # zero lies infinitely far below
            if not np.isfinite(value).any():
                continue
            has_interval = np.isfinite(low)
            shift = 0.06 * (list(LABELS).index(part) - 1) if has_interval.any() and len(panel.curves) > 1 else 0.0
            axis.vlines((positions + shift)[has_interval], low[has_interval], high[has_interval], color=TINTS[part],
                        lw=1.4, alpha=0.7)
            lines[part], = axis.plot(positions + shift, value, color=TINTS[part], marker=MARKERS[part],
                                     ms=8 if part == "full" else 4.5, lw=4 if part == "full" else 1.5)
        if panel.floor is not None:
            axis.axhline(panel.floor, color=style.GREY, lw=1.2, ls=style.DASHES[2])
        axis.set_title(panel.title)
        axis.set_ylabel(panel.label)
        if logarithmic:
            axis.set_yscale("log")
        elif panel.scale != "log":
            bottom, top = min(0.0, axis.get_ylim()[0]), axis.get_ylim()[1]
            axis.set_ylim(bottom, max(1.03, top) if panel.scale == "share" else top + 0.05 * (top - bottom))
        axis.set_xlim(-0.4, len(steps) - 0.6)
        axis.set_xticks(*style.thinned([f"{step:,}" for step in steps], 7))
        if number >= len(panels) - columns:
            axis.set_xlabel("optimiser step of the checkpoint")
    for axis in axes.flat[len(panels):]:
        axis.remove()
    order = [part for part in LABELS if part in lines]
    figure.legend([lines[part] for part in order], [SHORT[part] for part in order], loc="outside right upper")
    if note:
        style.footnote(figure, note)
    return figure


@style.styled
def spectra(panels: Mapping[str, Mapping[str, tuple[np.ndarray, int]]], tolerance: float, *, note: str = "",
            title: str | None = None) -> "Figure":
    """Normalised singular values by rank, a panel per part and a line per checkpoint.

    panels: part -> checkpoint -> ((row,) singular values divided by the largest, descending; rank);  tolerance: below
    it they count as zero.
    """
    figure, axes = style.new_figure(1, len(panels), size=(10, 4.2), title=title, sharey=True)
    bottom = tolerance / 30 if tolerance else 1e-12
    for panel, (part, lines) in zip(axes[0], panels.items(), strict=True):
        panel.set_yscale("log")
        panel.set_ylim(bottom, 2)
        empty = True
        for number, (checkpoint, (values, rank)) in enumerate(lines.items()):
            if not np.isfinite(values).any():
                continue
            empty = False
            panel.plot(np.arange(1, len(values) + 1), np.maximum(values, bottom), color=TINTS[part], lw=1.8,
                       ls=style.DASHES[(number + 1) % 2], alpha=0.6 if number < len(lines) - 1 else 1,
                       label=f"{checkpoint}: rank {rank:,} of {len(values):,}")
        if tolerance:
            panel.axhline(tolerance, color=style.GREY, lw=1, ls=style.DASHES[2])
        panel.set_title(LABELS[part])
        panel.set_xlabel("number of the singular value")
        if empty:
            panel.text(0.5, 0.5, "zero", transform=panel.transAxes, ha="center", color=style.GREY, fontsize=12)
        else:
            panel.legend(loc="upper right")
    axes[0, 0].set_ylabel("singular value / largest")
    style.footnote(figure, f"dotted: tolerance of the rank, {tolerance:.2g}" + (f"; {note}" if note else ""))
    return figure


@style.styled
def blocks(norms: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, names: Sequence[str], *, note: str = "",
           title: str | None = None) -> "Figure":
    """Nuclear norm of the class x class block of each pair of examples, sorted by class: a row per checkpoint, a column
    per part, one colour scale per column.

    norms: checkpoint -> part -> (example, example);  labels: (example,);  names: (class,). Above `CELLS` examples a
    cell is the mean over pairs of neighbours of one class, an example's pair with itself left out; above `MANY` classes
    over whole classes.
    """
    from matplotlib.cm import ScalarMappable

    parts = list(next(iter(norms.values())))
    figure, axes = style.new_figure(len(norms), len(parts), size=(0.8 + 3.7 * len(parts), 0.8 + 3.0 * len(norms)),
                                    title=title)
    figure.get_layout_engine().set(w_pad=0.12)  # type: ignore[call-arg, union-attr]  # names of classes reach the edge
    many_classes = len(np.unique(labels)) > MANY
    bins, bin_classes = sorted_bins(labels, 0 if many_classes else CELLS)
    averaged = len(bin_classes) < len(labels)
    cells = {name: {part: averages(values, bins, len(bin_classes)) for part, values in part_values.items()}
             for name, part_values in norms.items()}
    edges = np.empty(0) if many_classes else np.flatnonzero(np.diff(bin_classes)) + 0.5
    for column, part in enumerate(parts):
        values = np.stack([part_values[part] for part_values in cells.values()])
        color_scale, label = _color_scale(values)
        for panel, (name, part_values) in zip(axes[:, column], cells.items(), strict=True):
            panel.imshow(np.clip(part_values[part], color_scale.vmin, None), cmap=style.SEQUENTIAL, norm=color_scale,
                         interpolation="nearest")
            panel.set_title(f"{SHORT[part]}, {name}")
            panel.grid(visible=False)
            panel.hlines(edges, -0.5, len(bin_classes) - 0.5, color="white", lw=0.9)
            panel.vlines(edges, -0.5, len(bin_classes) - 0.5, color="white", lw=0.9)
            _class_ticks(panel, bin_classes, names, left=column == 0, bottom=panel is axes[-1, column])
        bar = figure.colorbar(ScalarMappable(color_scale, style.SEQUENTIAL), ax=axes[:, column], shrink=0.8, pad=0.02,
                              extend="min" if values.min() < color_scale.vmin else "neither")
        bar.set_label(f"nuclear norm of two examples' block{label}")
    text = "examples sorted by class" + ("; a cell is a mean over pairs of different examples" if averaged else "")
    style.footnote(figure, text + (f"\n{note}" if note else ""))
    return figure


@style.styled
def groups(shares: Mapping[str, Mapping[str, float]], *, note: str = "", title: str | None = None) -> "Figure":
    """Each group's share of the trace of F: stacked bars, one per layer, a panel per checkpoint.

    shares: checkpoint -> group ("embeddings", "layer-00/attention", ..., "rest") -> share; they sum to 1.
    """
    all_groups = list(dict.fromkeys(group for group_shares in shares.values() for group in group_shares))
    layers = sorted({group.split("/")[0] for group in all_groups if group.startswith("layer-")})
    bars = [*(["embeddings"] if "embeddings" in all_groups else []), *layers,
            *(["rest"] if "rest" in all_groups else [])]
    kinds = [kind for kind in KINDS if any(group.split("/")[-1] == kind for group in all_groups)]
    figure, axes = style.new_figure(1, len(shares), size=(10, 4.2), title=title, sharey=True)
    for panel, (name, group_shares) in zip(axes[0], shares.items(), strict=True):
        base = np.zeros(len(bars))
        for kind in kinds:
            heights = np.array([group_shares.get(bar if bar == kind else f"{bar}/{kind}", 0.0) for bar in bars])
            heights = np.nan_to_num(heights)
            panel.bar(range(len(bars)), heights, bottom=base, color=KINDS[kind], width=0.75,
                      label={"ffn": "FFN", "rest": "rest (pooler, dense head)"}.get(kind, kind))
            base += heights
        if not base.any():
            panel.text(0.5, 0.5, "zero", transform=panel.transAxes, ha="center", color=style.GREY, fontsize=12)
        panel.set_title(name)
        ticks = ["emb." if bar == "embeddings" else bar if bar == "rest" else str(int(bar[6:])) for bar in bars]
        stride = 1 if len(bars) <= 14 else 2
        panel.set_xticks(range(0, len(bars), stride), ticks[::stride])
        panel.set_xlabel("transformer block, from 0 (emb.: embeddings)")
        panel.grid(visible=False, axis="x")
    axes[0, 0].set_ylabel("share of the trace of F")
    axes[0, 0].set_ylim(0, 1.05 * axes[0, 0].get_ylim()[1])
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside right center")
    if note:
        style.footnote(figure, note)
    return figure


def sorted_bins(labels: np.ndarray, max_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a heat map whose examples are sorted by class: (example,) int64 cell of each, and (cell,) its class. No
    cell holds two classes. Cells are equally large within a class, and about so between classes, so that there are at
    most `max_bins` of them, but one of each class at least; 0: just one."""
    labels = np.asarray(labels)
    bins = np.empty(len(labels), dtype=np.int64)
    size = -(-len(labels) // max_bins) if max_bins else len(labels)
    bin_classes: list[Any] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, len(members) // size)
        bins[members] = len(bin_classes) + np.arange(len(members)) * count // len(members)
        bin_classes += [label] * count
    return bins, np.array(bin_classes)


def averages(values: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
    """Mean over the pairs of each two cells: (cell, cell). An example's pair with itself counts where a cell has no
    other."""
    member = (bins[:, None] == np.arange(count)).astype(np.float64)
    sizes = member.sum(axis=0)
    sums, pairs = member.T @ values @ member, np.outer(sizes, sizes)
    shared = np.flatnonzero(sizes > 1)
    sums[shared, shared] -= (member.T @ np.diag(values))[shared]
    pairs[shared, shared] -= sizes[shared]
    return sums / pairs


def _color_scale(values: np.ndarray) -> tuple[Any, str]:
    """Colour scale for all panels of one part: linear from 0 where values are close, else logarithmic, three decades at
    most."""
    from matplotlib.colors import LogNorm, Normalize

    largest = float(np.nanmax(values, initial=0.0))
    smallest = float(np.nanmin(values, initial=largest))
    if largest <= 0 or smallest * _EVEN >= largest:
        return Normalize(0, largest or 1.0), ""
    return LogNorm(max(smallest, largest / _DYNAMIC), largest), " (log scale)"


def _class_ticks(panel: "Axes", bin_classes: np.ndarray, names: Sequence[str], left: bool, bottom: bool) -> None:
    """Names of the classes, larger ones first, as many as have room."""
    classes, widths = np.unique(bin_classes, return_counts=True)
    middles = np.cumsum(widths) - widths / 2 - 0.5
    shown: list[int] = []
    for i in np.argsort(-widths, kind="stable"):
        if all(abs(middles[i] - middles[j]) > _ROOM * len(bin_classes) for j in shown):
            shown.append(int(i))
    texts = [style.short(names[classes[i]], _LETTERS) for i in shown]
    rotated = len(texts) > 3 or sum(map(len, texts)) > 36
    panel.set_yticks(middles[shown], texts if left else [""] * len(shown), fontsize=8)
    panel.set_xticks(middles[shown], texts if bottom else [""] * len(shown), fontsize=8, rotation=90 if rotated else 0)
    panel.tick_params(length=2 if rotated else 0)
