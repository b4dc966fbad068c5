"""Figures of the cross-task effect: every class before and after at one layer, and the effect over layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """Both figures of one entry.

    record: name, task, tuned, steps: first and last, layers, train_split, test_split, train_rows, test_rows;
    label_names, before, after: see `classes`, of the last layer;  grown, shrunk, growth, accuracies, floor: see
    `layers`.
    """
    name, numbers = record["name"], record["layers"]
    note = ("{task} in {tuned} at steps {steps[0]:,} and {steps[1]:,}; {train_rows:,} {train_split} "
            "examples").format(**record)
    if record["accuracies"]:
        note += f", {record['test_rows']:,} {record['test_split']} examples scored"
    return {
        "classes": classes(record["label_names"], record["before"], record["after"], note=note,
                           title=f"Classes before and after, layer {numbers[-1]}: {name}"),
        "layers": layers(numbers, record["grown"], record["shrunk"], record["growth"], record["accuracies"],
                         floor=record["floor"], title=f"Effect of one task on another by layer: {name}", note=note),
    }


@style.styled
def classes(names: Sequence[str], before: np.ndarray, after: np.ndarray, *, title: str | None = None, note: str = ""
            ) -> "Figure":
    """Minimum distance of each class before (hollow) and after (full), ordered by the change: blue grew, orange shrank.

    names: (label,);  before, after: (label,) in the unit of the vectors; a change below a millionth is none (grey),
    classes without both are named in the footnote. ValueError without any class.
    """
    if not len(names):
        raise ValueError("names: is empty; give at least one class")
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    change = after - before
    change[np.abs(change) <= 1e-6 * np.maximum(before, after)] = 0.0
    order = [int(k) for k in np.argsort(change, kind="stable") if np.isfinite(change[k])]
    undefined = [names[k] for k in range(len(names)) if not np.isfinite(change[k])]
    size = 9.0 if len(order) <= 24 else 7.0
    figure, axes = style.new_figure(size=(9, max(3.4, min(11.5, 1.9 + 0.2 * len(order)))), title=title)
    panel = axes[0, 0]
    for place, k in enumerate(order):
        tint = style.BLUE if change[k] > 0 else style.VERMILION if change[k] < 0 else style.GREY
        panel.plot([before[k], after[k]], [place, place], color=tint, lw=2.2, alpha=0.75, zorder=2)
        panel.plot(before[k], place, "o", ms=5.5, mfc="white", mec=tint, zorder=3)
        panel.plot(after[k], place, "o", ms=5.5, color=tint, zorder=3)
    panel.set_yticks(range(len(order)), [style.short(names[k], 40) for k in order], fontsize=size)
    panel.set_ylim(-0.7, max(len(order), 1) - 0.3)
    panel.set_xlim(left=0)
    panel.set_xlabel("distance to the nearest other class (unit of the vectors)")
    up, down = int((change > 0).sum()), int((change < 0).sum())
    panel.set_title(f"hollow: before, full: after; {up} grew (blue), {down} shrank (orange)")
    omitted = f" and {len(undefined) - 8} more" if len(undefined) > 8 else ""
    without = f"no distance: {', '.join(style.short(name) for name in undefined[:8])}{omitted}" if undefined else ""
    if text := "; ".join(part for part in (note, without) if part):
        style.footnote(figure, text)
    return figure


@style.styled
def layers(numbers: Sequence[int], up: Sequence[int], down: Sequence[int], change: np.ndarray,
           accuracies: Mapping[str, np.ndarray], *, floor: float | None = None, title: str | None = None,
           note: str = "") -> "Figure":
    """The effect over layers: classes that moved away (up) or closer (down), their mean change, accuracy before and
    after.

    numbers: (layer,);  up, down: (layer,) counts;  change: (layer, 3) mean with its interval;  accuracies: name ->
    (layer, 3) shares, e.g. before and after;  floor: accuracy of the most frequent class.
    """
    figure, axes = style.new_figure(1, 3 if accuracies else 2, size=(12 if accuracies else 9, 4.3), title=title)
    counts, means = axes[0, :2]
    where = np.arange(len(numbers))
    counts.bar(where, up, color=style.BLUE, label="grew")
    counts.bar(where, -np.asarray(down), color=style.VERMILION, label="shrank")
    counts.axhline(0, color=style.BLACK, lw=0.8)
    largest = max([1, *up, *down])
    counts.set_ylim(-1.15 * largest, 1.45 * largest)
    counts.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    counts.set_ylabel("number of classes")
    counts.set_title("Minimum distance of classes")
    counts.legend(loc="upper left", ncols=2)
    change = np.asarray(change, np.float64)
    means.axhline(0, color=style.BLACK, lw=0.8)
    ends = np.abs(change[:, 1:] - change[:, :1]).T
    means.errorbar(where, change[:, 0], yerr=ends, color=style.BLUE, marker="o", ms=5, capsize=3, elinewidth=1.2)
    means.set_ylabel("mean change (unit of the vectors)")
    means.set_title("Mean change, 95 % over classes")
    if accuracies:
        panel, shift = axes[0, 2], 0.12 / max(1, len(accuracies) - 1)
        for number, (name, values) in enumerate(accuracies.items()):
            values = 100 * np.asarray(values, np.float64)
            x = where + shift * (number - (len(accuracies) - 1) / 2)
            panel.errorbar(x, values[:, 0], yerr=np.abs(values[:, 1:] - values[:, :1]).T, color=style.colour(number),
                           marker="os^D"[number % 4], ms=5, capsize=3, elinewidth=1.2, label=style.short(name))
        if floor is not None:
            panel.axhline(100 * floor, color=style.GREY, lw=1.2, ls=style.DASHES[2], label="majority class")
        panel.set_ylim(top=min(100.5, panel.get_ylim()[1]))
        panel.set_ylabel("accuracy (%)")
        panel.set_title("Classifier, 95 % over examples")
        panel.legend(loc="best", fontsize=8)
    for panel in axes[0]:
        stride = 1 if len(numbers) <= 8 else 2
        panel.set_xticks(where[::stride], [str(n) for n in numbers][::stride])
        panel.set_xlabel("layer (0: embeddings)")
    if note:
        style.footnote(figure, note)
    return figure
