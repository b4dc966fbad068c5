"""Figure of the lens convergence: cosine change against probe accuracy, and the correlations beside it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.lenses.convergence.correlation import Correlation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TYPES = (Correlation,)
"""The classes that stand in the record."""
WHEN = {"last": "last checkpoint", "all": "all checkpoints"}


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; split; layers; cosine and accuracy (checkpoint, layer); rows {(level or change, last or all): {kind:
    correlation}}.
    """
    rows = {f"{of.capitalize()}s, {WHEN[when]}": kinds for (of, when), kinds in record["rows"].items()}
    return {"convergence": convergence(record["layers"], record["cosine"], record["accuracy"], rows,
                                       split=record["split"], title=f"Convergence and performance: {record['name']}")}


@style.styled
def convergence(layers: Sequence[int], cosine: np.ndarray, accuracy: np.ndarray,
                rows: Mapping[str, Mapping[str, Correlation]], *, split: str, title: str | None = None,
                note: str = "") -> "Figure":
    """Left: each layer's way from the first (hollow) to the last checkpoint (filled), one colour per layer. Right:
    correlations with their 95 % intervals, numbers written out.

    cosine, accuracy: (checkpoint, layer) mean within-sentence cosine in [-1, 1], and accuracy as a share.
    rows: {description: {kind: correlation}}, from top to bottom; the first kind is drawn filled, the second hollow.
    """
    from matplotlib import colormaps

    figure, axes = style.new_figure(1, 2, title=title, width_ratios=[1.15, 1])
    ways, forest = axes[0]
    change, percent = cosine - cosine[0], 100 * np.asarray(accuracy)
    tints = colormaps[style.SEQUENTIAL](np.linspace(0.0, 0.9, len(layers)))
    ways.axvline(0, color=style.GREY, lw=0.8)
    named = {layers[i] for i in style.thinned([str(layer) for layer in layers], 28)[0]}
    for i, (layer, tint) in enumerate(zip(layers, tints, strict=True)):
        ways.plot(change[:, i], percent[:, i], color=tint, lw=1.4, marker=".", ms=4,
                  label=f"{layer}" if layer in named else None)
        ways.plot(change[:1, i], percent[:1, i], "o", ms=7, mfc="white", mec=tint, mew=1.6)
        ways.plot(change[-1:, i], percent[-1:, i], "o", ms=7, color=tint)
    ways.margins(x=0.08, y=0.08)
    ways.legend(loc="best" if len(layers) <= 13 else "upper left",  # the best place among many lines takes seconds
                title="layer", ncols=1 + (len(named) - 1) // 7, fontsize=8)
    ways.set_xlabel("change of the mean within-sentence cosine since the first checkpoint")
    ways.set_ylabel(f"probe accuracy (%), split {split!r}")
    ways.set_title("Layers from first (hollow) to last checkpoint")
    for place, (name, kinds) in enumerate(rows.items()):
        tint = style.colour(place // 2)
        forest.text(-1, place - 0.36, style.short(name, 60), fontsize=9.5, va="center", fontweight="bold", color=tint)
        for number, (kind, result) in enumerate(kinds.items()):
            if np.isfinite(result.value):
                y = place - 0.2 + 0.13 * number
                forest.plot([result.low, result.high], [y, y], color=tint, lw=2.2)
                forest.plot([result.value], [y], "os"[number % 2], color=tint, mfc=tint if number == 0 else "white",
                            ms=6)
            forest.text(-1, place + 0.13 + 0.18 * number, _numbers(kind, result, ("filled", "hollow")[number]),
                        fontsize=8, va="center")
        forest.axhline(place + 0.5, color=style.LIGHT_GREY, lw=0.8)
    forest.axvline(0, color=style.GREY, lw=0.8)
    forest.grid(False, axis="y")
    forest.set_xlim(-1.04, 1.04)
    forest.set_ylim(len(rows) - 0.5, -0.6)
    forest.set_xticks([-1, -0.5, 0, 0.5, 1])
    forest.set_yticks([])
    forest.spines["left"].set_visible(False)
    forest.set_xlabel("correlation of cosine with accuracy")
    forest.set_title("Correlations, 95 % intervals")
    style.panel_letters(axes)
    style.footnote(figure, "intervals resample whole layers, p values permute them; with so few layers, both are coarse"
                   + (f"; {note}" if note else ""))
    return figure


def _numbers(kind: str, result: Correlation, mark: str) -> str:
    count = f"{result.clusters} layers" + (f" × {result.n // result.clusters}" if result.n > result.clusters else "")
    if not np.isfinite(result.value):
        return f"{kind}: none, {count} (too few, or one side is constant)"
    p = "< 0.001" if result.p < 0.001 else f"{result.p:.3f}"
    return f"{kind} ({mark}) {result.value:+.2f} [{result.low:+.2f}, {result.high:+.2f}]  p {p}  {count}"
