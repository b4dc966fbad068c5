"""One look for all figures: palette, sizes, axes. matplotlib is imported when a figure is made, never pyplot.

A figure function is decorated with `styled`, starts from `new_figure` and returns the Figure; the caller saves it.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart; draw order and line style carry the
difference a second time wherever lines meet.
"""

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (9.0, 6.0)
DPI = 100  # readable at this resolution: 900 x 600 pixels
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY, LIGHT_GREY = "#6B6B6B", "#D0D0D0"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # for categories; yellow is too faint for lines
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
SEQUENTIAL = "viridis"  # for ordered quantities (layer, step): perceptually even, colour-blind safe
DIVERGING = "RdBu_r"  # for quantities with a meaningful zero; centre it there

_RC = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#404040",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}

P = ParamSpec("P")


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Decorator of a figure function: draws under the house style and leaves matplotlib's global settings alone.

    Infinite numbers are drawn as NaN are, as gaps; titles and notes that are longer than the figure is wide are broken
    into lines.
    """

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        from matplotlib import rc_context

        with rc_context(_RC):  # type: ignore[arg-type]
            figure = draw(*_finite(args), **_finite(kwargs))
        for text in (figure._suptitle, figure._supxlabel,  # type: ignore[attr-defined]
                     *(panel._left_title for panel in figure.axes)):  # type: ignore[attr-defined]
            if text is not None:
                text.set_wrap(True)
        return figure

    return inside


def _finite(values: Any) -> Any:
    """The same with NaN for infinite numbers; what holds none is given back as it is."""
    if isinstance(values, np.ndarray):
        return np.where(np.isinf(values), np.nan, values) if values.dtype.kind == "f" and np.isinf(values).any() \
            else values
    if isinstance(values, float):
        return np.nan if np.isinf(values) else values
    if isinstance(values, dict):
        drawn = {key: _finite(value) for key, value in values.items()}
        return drawn if any(drawn[key] is not value for key, value in values.items()) else values
    if isinstance(values, list | tuple) and not hasattr(values, "_fields"):
        listed = type(values)(map(_finite, values))
        return listed if any(new is not old for new, old in zip(listed, values, strict=True)) else values
    if is_dataclass(values) and not isinstance(values, type):
        changed = {field.name: new for field in fields(values)
                   if (new := _finite(old := getattr(values, field.name))) is not old and field.init}
        return replace(values, **changed) if changed else values
    return values


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = SIZE_INCHES, title: str | None = None, **layout: Any
) -> tuple["Figure", np.ndarray]:
    """A Figure without pyplot, and its axes as an array (row, column). layout: passed to `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False, **layout)


def two_and_one(size: tuple[float, float], title: str | None, right: bool = True) -> tuple["Figure", np.ndarray]:
    """Two panels with one time axis on the left and, unless told otherwise, a tall one on the right."""
    if not right:
        figure, axes = new_figure(2, 1, size=size, title=title, sharex=True)
        return figure, axes[:, 0]
    figure, axes = new_figure(2, 2, size=size, title=title, width_ratios=[1.5, 1])
    tall = axes[0, 1].get_gridspec()[:, 1]
    for panel in axes[:, 1]:
        panel.remove()
    axes[0, 0].sharex(axes[1, 0])
    axes[0, 0].tick_params(labelbottom=False)
    return figure, np.array([*axes[:, 0], figure.add_subplot(tall)])


def colour(index: int) -> str:
    """Colour of category number `index`; repeats after seven, when `dashes` must tell them apart."""
    return PALETTE[index % len(PALETTE)]


def dashes(index: int) -> Any:
    """Line style of category number `index`: changes each time the colours repeat."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def count_axis(axis: Any) -> None:
    """Tick labels of an x or y axis as counts: 10,000 instead of 1e4."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def scaled_top_axis(axes: "Axes", per_unit: float, label: str) -> None:
    """A second x axis on top that counts the first one in units of `per_unit`, e.g. examples per epoch."""
    top = axes.secondary_xaxis("top", functions=(lambda x: np.asarray(x) / per_unit,
                                                 lambda x: np.asarray(x) * per_unit))
    top.set_xlabel(label)
    top.spines["top"].set_visible(True)


def panel_letters(axes: np.ndarray) -> None:
    """a, b, c ... before the titles, so that a caption can name the panels. Call it after the titles are set."""
    for number, panel in enumerate(np.ravel(axes)):
        panel.set_title(f"{chr(97 + number)}   {panel.get_title(loc='left')}", loc="left")
    np.ravel(axes)[0].figure.align_ylabels()


def short(name: str, letters: int = 18) -> str:
    """A name of at most `letters` letters, cut where it is longer."""
    return name if len(name) <= letters else f"{name[:letters - 1]}…"


def thinned(texts: Sequence[str], limit: int) -> tuple[list[int], list[str]]:
    """Positions and labels of at most `limit` ticks, the last one always among them."""
    stride = max(1, -(-len(texts) // limit))
    positions = [i for i in range(len(texts)) if (len(texts) - 1 - i) % stride == 0]
    return positions, [texts[i] for i in positions]


def footnote(figure: "Figure", text: str) -> None:
    """A grey line under the figure: what the reader must know to read it (window, permutations, seeds)."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8.5, color=GREY)


def quantile_bins(
    x: np.ndarray, y: np.ndarray, bins: int = 120, quantiles: tuple[float, ...] = (0.1, 0.9)
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of y in consecutive bins of equally many points: the honest picture of 40,000 overlapping points.

    x: (point,) ascending. y: (point,) float; NaN points are dropped.
    Returns (bin,) mean x and (quantile, bin) values; fewer bins when a bin would hold fewer than 10 points.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    count = max(1, min(bins, len(x) // 10))
    parts = np.array_split(np.arange(len(x)), count)
    if not len(x):
        return np.empty(0), np.empty((len(quantiles), 0))
    centres = np.array([x[part].mean() for part in parts])
    return centres, np.stack([np.quantile(y[part], quantiles) for part in parts], axis=1)


def to_png(figure: "Figure", dpi: int = DPI) -> bytes:
    """The figure as the bytes of a PNG file; equal figures give equal bytes (no date, no version inside)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    # laid out once and drawn once; savefig would draw three times
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
