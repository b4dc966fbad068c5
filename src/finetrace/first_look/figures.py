"""Figures of a first look: layers from left to right, a colour per model; as SVG that follows the page's colours."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from finetrace.figures import style
from finetrace.lenses.similarity.summary import at_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from finetrace.first_look.run import Look

INKS = {"#000000": "ink", "#404040": "axis", "#6b6b6b": "soft", "#e6e6e6": "grid", "#ffffff": "paper",
        **{colour.lower(): f"c{number}" for number, colour in enumerate(style.PALETTE[:6])}}
"""Colours of the house style -> variables of the page, which has them for light and dark."""
GROUPS = "figure|axes|patch|line2d|text|legend|matplotlib|xtick|ytick|QuadMesh|FillBetween|PathCollection|LineColl"
MOST_PAIRS = 6
"""Pairs of models whose heat map is drawn."""


class Drawn(NamedTuple):
    """A figure on the page. text: what it shows."""

    lens: str
    svg: str
    text: str


def draw_all(result: "Look") -> list[Drawn]:
    """The figures of all lenses that found something."""
    drawn = []
    for lens, draw in DRAW.items():
        if lens in result.lenses:
            texts: list[str] = []
            drawn.append(Drawn(lens, to_svg(_styled(draw, result, texts), f"finetrace-{lens}"), texts[0]))
    return drawn


@style.styled
def _styled(draw: Callable[["Look"], tuple["Figure", str]], result: "Look", texts: list[str]) -> "Figure":
    """The figure in the house style; its text is appended to `texts`."""
    figure, text = draw(result)
    texts.append(text)
    return figure


def to_svg(figure: "Figure", salt: str) -> str:
    """The figure as an SVG element without a fixed size; equal figures give equal text. salt: of its ids."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None,
                                                            "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(rf' id="(?:{GROUPS})\w*"', "", text)  # of groups that nothing refers to, the same in each figure
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    width = figure.get_figwidth()  # on a narrow page the figure is scrolled, not shrunk until nobody can read it
    text = text.replace("<svg", f'<svg style="min-width: {60 * width:.0f}px; max-width: {96 * width:.0f}px"', 1)
    return re.sub("|".join(INKS), lambda match: f"var(--{INKS[match[0].lower()]})", text, flags=re.IGNORECASE)


def _geometry(result: "Look") -> tuple["Figure", str]:
    panels = {"cosine_mean": "mean cosine within sentences", "effective_rank": "effective rank (dimensions)",
              "anisotropy": "anisotropy (cosine)"}
    figure, axes = style.new_figure(1, len(panels), size=(12, 3.6))
    for panel, (statistic, title) in zip(axes[0], panels.items(), strict=True):
        _courses(panel, result, "geometry", title, statistic=statistic)
    _legend(figure, result)
    facts = next(iter(result.of_model.values()))["geometry"].facts
    return figure, (f"All tokens of {facts['sentences']} validation rows. Cosine near 1: the tokens of a sentence say "
                    "one thing. Effective rank: how many directions they use. Anisotropy: the cosine of tokens of "
                    "different sentences, so what any two have in common. Bands: 95 % intervals over sentences.")


def _similarity(result: "Look") -> tuple["Figure", str]:
    from finetrace.lenses.similarity.summary import main_measure

    parts = result.of_pair or {(name, name): lenses["similarity"] for name, lenses in result.of_model.items()}
    shown = dict(list(parts.items())[:MOST_PAIRS])
    lines = 1 if result.of_pair else 0
    figure, axes = style.new_figure(1, lines + len(shown), size=(4.2 * (lines + len(shown)) + 0.6, 4.0))
    measure = main_measure(["cka"])
    if lines:
        panel = axes[0, 0]
        for number, ((first, second), part) in enumerate(parts.items()):
            kind = part.facts["kinds"][0]
            rows = at_layers(part.table, statistic=measure, representation=kind).frame
            _line(panel, rows["layer"], rows["value"], rows["low"], rows["high"], number,
                  f"{style.short(first)} ~ {style.short(second)}")
        last = max(part.table.frame["layer"].max() for part in parts.values())
        panel.set(title="CKA of layers at equal depth", xlabel="layer (0: embeddings)", ylim=(-0.05, 1.05),
                  xlim=(-0.3, last + 0.3))
        panel.legend(loc="lower left")
    for panel, ((first, second), part) in zip(axes[0, lines:], shown.items(), strict=True):
        rows = part.table.select(statistic=measure, representation=part.facts["kinds"][0]).frame
        cells = rows.pivot(index="other_layer", columns="layer", values="value").to_numpy(np.float64)
        mesh = panel.pcolormesh(cells, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
        panel.set(xlabel=f"layer of {style.short(second, 24)}", ylabel=f"layer of {style.short(first, 24)}",
                  title="CKA of each layer with each")
        panel.set_xticks(np.arange(cells.shape[1]) + 0.5, range(cells.shape[1]))
        panel.set_yticks(np.arange(cells.shape[0]) + 0.5, range(cells.shape[0]))
        panel.grid(False)
    figure.colorbar(mesh, ax=axes[0, -1], label="CKA")
    omitted = f" {len(parts) - len(shown)} further pairs are in table.parquet." if len(parts) > len(shown) else ""
    return figure, ("How like the same sentences lie to each other: debiased linear CKA of sentence vectors, 1: the "
                    "same but for rotation and scale, 0: nothing in common. Empty where all vectors are equal, as "
                    f"[CLS] among the embeddings. Bands: 95 % intervals.{omitted}")


def _hulls(result: "Look") -> tuple["Figure", str]:
    facts = next(iter(result.of_model.values()))["hulls"].facts
    figure, axes = style.new_figure(1, 3, size=(12, 3.6))
    for panel, statistic, title in zip(axes[0], ("clusters", "outside_min", "intra_accuracy"), (
            "clusters", "distance of a class to its nearest", "new rows that fall to their class (share)"),
            strict=True):
        _courses(panel, result, "hulls", title, statistic=statistic, split=facts["split"], label="",
                 band=statistic == "intra_accuracy")
    axes[0, 0].axhline(facts["classes"], color=style.BLACK, ls=":", lw=1.2)
    axes[0, 0].set_yscale("log")  # where rows coincide, there are as many clusters as rows
    _legend(figure, result)
    return figure, (f"Clusters of one class whose convex hulls stay clear of all other classes', {facts['points']} "
                    f"training rows. As many clusters as classes ({facts['classes']}, dotted): planes separate them. "
                    "Right: validation rows whose nearest cluster is of their class.")


def _probes(result: "Look") -> tuple["Figure", str]:
    facts = next(iter(result.of_model.values()))["probes"].facts
    figure, axes = style.new_figure(1, 1, size=(8, 4.0))
    _courses(axes[0, 0], result, "probes", f"accuracy of a probe, {facts['split']}", statistic="accuracy",
             split=facts["split"])
    axes[0, 0].axhline(facts["floor"], color=style.BLACK, ls=":", lw=1.2)
    _legend(figure, result)
    return figure, (f"Logistic regression on the frozen sentence vectors of each layer: fitted on {facts['trained']} "
                    f"rows, scored on {facts['scored']} others. Dotted: always the most frequent class. Bands: 95 % "
                    "intervals of a share of so many rows.")


def _convergence(result: "Look") -> tuple["Figure", str]:
    figure, axes = style.new_figure(1, 1, size=(7, 4.2))
    panel = axes[0, 0]
    for number, (name, lenses) in enumerate(result.of_model.items()):
        part = lenses["convergence"]
        value = part.metrics.get("spearman/level/last")
        correlation = "" if value is None else f", Spearman {value:.2f}"
        panel.plot(part.facts["cosine"], part.facts["accuracy"], "o-", ms=5, lw=0.8, color=style.colour(number),
                   label=f"{style.short(name, 24)}{correlation}")
        for layer, (x, y) in enumerate(zip(part.facts["cosine"], part.facts["accuracy"], strict=True)):
            panel.annotate(str(layer), (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8,
                           color=style.GREY)
    panel.set(xlabel="mean cosine within sentences", ylabel="probe accuracy")
    panel.legend()
    return figure, "Do layers whose tokens converge also probe better? A point is a layer, with its number."


def _calibration(result: "Look") -> tuple["Figure", str]:
    figure, axes = style.new_figure(1, 1, size=(5.2, 4.4))
    panel = axes[0, 0]
    panel.plot([0, 1], [0, 1], color=style.GREY, ls=":", lw=1.2)
    names = list(result.of_model)
    for name, lenses in result.of_model.items():
        if "calibration" in lenses:
            bins = lenses["calibration"].facts["bins"]
            filled = bins.counts > 0
            panel.plot(bins.bin_confidence[filled], bins.bin_accuracy[filled], "o-", ms=5,
                       color=style.colour(names.index(name)), label=style.short(name, 24))
    panel.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    panel.legend(loc="upper left")
    return figure, ("What the model's own head says of the validation rows: on the dotted line, probabilities mean "
                    "what they say; below it, the head is too sure.")


DRAW: Mapping[str, Callable[["Look"], tuple["Figure", str]]] = {
    "geometry": _geometry, "similarity": _similarity, "hulls": _hulls, "probes": _probes,
    "convergence": _convergence, "calibration": _calibration}


def _courses(panel: "Axes", result: "Look", lens: str, title: str, *, band: bool = True, **where: Any) -> None:
    """One number of a lens by layer, a line per model."""
    from matplotlib.ticker import MaxNLocator

    for number, (name, lenses) in enumerate(result.of_model.items()):
        if lens in lenses:
            table = lenses[lens].table.select(**where).sorted("layer").frame
            low, high = (table["low"], table["high"]) if band else (None, None)
            _line(panel, table["layer"], table["value"], low, high, number, style.short(name, 24))
    panel.set(title=title, xlabel="layer (0: embeddings)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _line(panel: "Axes", x: Sequence[float], y: Sequence[float], low: Any, high: Any, number: int, label: str) -> None:
    colour = style.colour(number)
    panel.plot(x, y, marker="o", ms=4, color=colour, ls=style.dashes(number), label=label)
    if low is not None and np.isfinite(np.asarray(low, dtype=np.float64)).any():
        panel.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def _legend(figure: "Figure", result: "Look") -> None:
    """One legend for all panels, above them."""
    if len(result.of_model) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left",
                      ncols=min(4, len(result.of_model)), frameon=False)
