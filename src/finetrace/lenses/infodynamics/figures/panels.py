"""Figures of the information-dynamics lens: signals, smoothing, slope, learning curves, comparison, probe set.

Novelty, transience and resonance are drawn in the unit they were computed in (nats unless told), never stretched to a
common range: a curve that looks small is small. Where a trend would vanish beside its raw points, the panel says that
it shows the trend alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetrace.figures import style
from finetrace.lenses.infodynamics.figures.probe_set import NOVELTY, RESONANCE, TRANSIENCE, probe_set
from finetrace.lenses.infodynamics.measures import Dynamics, ResonanceNoveltySlope, regression_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DynamicsCurve", "comparison", "learning", "probe_set", "signals", "slope", "smoothing"]

TRAIN, EVALUATION = style.BLUE, style.VERMILION
_MANY_POINTS = 4000  # from here on single points hide each other and their density is drawn instead


@dataclass(frozen=True)
class DynamicsCurve:
    """One trajectory of `comparison`.

    label: what it stands for (model, task, method); curves with equal labels are seeds of one thing and share a colour.
    examples: (example,) training examples seen. novelty, resonance: (example,) float, smoothed, NaN allowed.
    slope: of the raw series with its null, or None.
    """

    label: str
    examples: np.ndarray
    novelty: np.ndarray
    resonance: np.ndarray
    slope: ResonanceNoveltySlope | None = None


@style.styled
def signals(
    examples: np.ndarray,
    dynamics: Dynamics,
    trend: Dynamics,
    *,
    window: int,
    examples_per_epoch: float | None = None,
    plateau: float | None = None,
    changes: Sequence[float] = (),
    unit: str = "nats",
    title: str | None = None,
) -> "Figure":
    """Raw and smoothed novelty, transience and resonance against training examples, epochs on top.

    examples: (example,) ascending count of training examples. dynamics, trend: full length, NaN at the ends; trend from
    `measures.smooth`. window: in examples. plateau: `label_balance_plateau`, drawn as a reference.
    changes: change points in examples, drawn as vertical lines.
    """
    figure, axes = style.new_figure(4, 1, size=(9, 8.2), title=title, sharex=True)
    panels = axes[:, 0]
    parts = (("novelty", NOVELTY), ("transience", TRANSIENCE), ("resonance", RESONANCE))
    for panel, (name, tint) in zip(panels, parts, strict=False):
        _raw(panel, examples, getattr(dynamics, name), tint)
        panel.plot(examples, getattr(trend, name), color="white", lw=3.6)
        panel.plot(examples, getattr(trend, name), color=tint, label="trend")
        panel.set_ylabel(unit)
        panel.set_title(name.capitalize())
    top = max(panels[0].get_ylim()[1], panels[1].get_ylim()[1])  # the same scale, so that the two can be compared
    for panel in panels[:2]:
        panel.set_ylim(0, top)
        if plateau is not None:
            panel.axhline(plateau, color=style.GREY, lw=1.2, ls=style.DASHES[1], label="plateau of label balance")
    panels[1].legend(loc="upper right", ncols=3, bbox_to_anchor=(1, 1.22), borderaxespad=0)
    x, _ = style.quantile_bins(examples, dynamics.resonance, 60)
    means = _bin_means(dynamics.resonance, len(x))
    panels[3].plot(x, means, "o", ms=3.2, color=style.GREY, alpha=0.7, label="mean of consecutive examples", zorder=1)
    panels[3].plot(examples, trend.resonance, color=RESONANCE, label="trend")
    panels[3].set_title("Resonance, trend alone (its own scale)")
    panels[3].set_ylabel(unit)
    panels[3].legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.22), borderaxespad=0)
    for panel in panels[2:]:
        panel.axhline(0, color=style.BLACK, lw=0.8)
        _symmetric(panel)
    for panel in panels:
        for change in changes:
            panel.axvline(change, color=style.BLACK, lw=1, ls=style.DASHES[2])
    _time_axis(panels, examples, examples_per_epoch)
    style.panel_letters(panels)
    style.footnote(figure, f"window {window:,} examples; shaded: middle 80 % of raw values" + _dotted(changes))
    return figure


@style.styled
def smoothing(
    examples: np.ndarray,
    dynamics: Dynamics,
    trends: Mapping[int, Dynamics],
    *,
    examples_per_epoch: float | None = None,
    unit: str = "nats",
    title: str | None = None,
) -> "Figure":
    """What the adaptive filter keeps at several spans: novelty left, resonance right, one row per span.

    examples, dynamics: as in `signals`. trends: {span: smoothed Dynamics}, drawn from the finest (largest span) down.
    """
    spans = sorted(trends, reverse=True)
    figure, axes = style.new_figure(len(spans), 2, title=title, sharex=True, sharey="col")
    for row, span in zip(axes, spans, strict=True):
        for panel, name, tint in zip(row, ("novelty", "resonance"), (NOVELTY, RESONANCE), strict=True):
            raw = getattr(dynamics, name)
            x, _ = style.quantile_bins(examples, raw)
            panel.plot(x, _bin_means(raw, len(x)), "o", ms=2.4, color=style.GREY, alpha=0.6, label="raw, bin means")
            panel.plot(examples, getattr(trends[span], name), color=tint, label="trend")
            panel.set_title(f"{name.capitalize()}, span {span}")
            panel.set_ylabel(unit)
    for panel in axes[:, 1]:
        panel.axhline(0, color=style.BLACK, lw=0.8, zorder=1)
    _symmetric(axes[0, 1])
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend(loc="lower right")
    for column in axes.T:
        _time_axis(column, examples, examples_per_epoch)
    style.panel_letters(axes)
    count = int(np.isfinite(dynamics.resonance).sum())
    widths = ", ".join(f"{4 * max(count // span, 1) + 1:,}" for span in spans)
    style.footnote(figure, f"adaptive filter with straight lines on windows of {widths} examples, from top to bottom")
    return figure


@style.styled
def slope(
    novelty: np.ndarray,
    resonance: np.ndarray,
    fitted: ResonanceNoveltySlope,
    *,
    level: float = 0.95,
    title: str | None = None,
) -> "Figure":
    """Resonance against novelty as z-scores with line and prediction interval; beside it the shuffled-order null.

    novelty, resonance: (example,) raw, curbed or with NaN ends. fitted: from `resonance_novelty_slope` on the same
    data. level: of the prediction interval.
    """
    keep = np.isfinite(novelty) & np.isfinite(resonance)
    x, y = np.asarray(novelty)[keep], np.asarray(resonance)[keep]
    figure, axes = style.new_figure(1, 2, size=(9, 4.6), title=title, width_ratios=[1.35, 1])
    points, null = axes[0]
    points.set_xlabel("novelty (z-score)")
    points.set_ylabel("resonance (z-score)")
    points.set_title("Every example")
    if np.isnan(fitted.slope):
        points.text(0.5, 0.5, "novelty or resonance is constant:\nno slope", ha="center", transform=points.transAxes)
    else:
        x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        _cloud(figure, points, x, y)
        band = regression_band(x, y, level=level)
        points.plot(band.x, band.fit, color=style.VERMILION, label=f"slope {fitted.slope:.3f}, R² {fitted.r2:.3f}")
        for edge, label in ((band.lower, None), (band.upper, f"{level:.0%} prediction interval")):
            points.plot(band.x, edge, color=style.VERMILION, lw=1.2, ls=style.DASHES[1], label=label)
        points.set_xlim(x.min() - 0.25, x.max() + 0.25)
        low, high = points.get_ylim()
        points.set_ylim(low, high + 0.22 * (high - low))
        points.legend(loc="upper left")
    _null(null, fitted)
    style.panel_letters(axes)
    style.footnote(
        figure,
        f"{fitted.count:,} examples; null: slopes of the same rows in random order (light grey: its central interval)",
    )
    return figure


@style.styled
def learning(
    examples: np.ndarray,
    novelty: np.ndarray,
    *,
    train_loss: tuple[np.ndarray, np.ndarray] | None = None,
    eval_loss: tuple[np.ndarray, np.ndarray] | None = None,
    train_accuracy: tuple[np.ndarray, np.ndarray] | None = None,
    eval_accuracy: tuple[np.ndarray, np.ndarray] | None = None,
    confidence: np.ndarray | None = None,
    plateau: float | None = None,
    chance: float | None = None,
    changes: Sequence[float] = (),
    examples_per_epoch: float | None = None,
    unit: str = "nats",
    title: str | None = None,
) -> "Figure":
    """Accuracy, loss and novelty on one time axis, to see what performance hides.

    examples, novelty: (example,) with novelty smoothed. The four curves: (training examples seen, value); accuracy as a
    share from 0 to 1, loss in nats. confidence: (example,) `mean_confidence`, drawn beside accuracy.
    plateau: `label_balance_plateau`. chance: accuracy of guessing. changes: change points in examples.
    """
    figure, axes = style.new_figure(3, 1, size=(9, 7), title=title, sharex=True)
    accuracy, loss, bottom = axes[:, 0]
    for panel, train, evaluation in ((accuracy, train_accuracy, eval_accuracy), (loss, train_loss, eval_loss)):
        if train is not None:
            panel.plot(*train, color=TRAIN, lw=1.3, label="train")
        if evaluation is not None:
            panel.plot(*evaluation, color=EVALUATION, marker="o", ms=3.5, label="evaluation")
    if confidence is not None:
        accuracy.plot(
            examples, confidence, color=style.GREY, ls=style.DASHES[1], lw=1.4, label="mean confidence (train)"
        )
    if chance is not None:
        accuracy.axhline(chance, color=style.BLACK, lw=1, ls=style.DASHES[2], label="chance")
    accuracy.set_ylim(top=1.02)
    accuracy.set_title("Accuracy")
    accuracy.set_ylabel("share correct")
    loss.set_ylim(bottom=0)
    loss.set_title("Loss")
    loss.set_ylabel("nats")
    bottom.plot(examples, novelty, color=NOVELTY, label="novelty (trend)")
    if plateau is not None:
        bottom.axhline(plateau, color=style.GREY, lw=1.2, ls=style.DASHES[1], label="plateau of label balance")
    bottom.set_ylim(0, 1.1 * max(bottom.get_ylim()[1], 1e-12))
    bottom.set_title("Novelty")
    bottom.set_ylabel(unit)
    for panel in axes[:, 0]:
        for change in changes:
            panel.axvline(change, color=style.BLACK, lw=1, ls=style.DASHES[2])
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _time_axis(axes[:, 0], examples, examples_per_epoch)
    style.panel_letters(axes)
    if len(changes):
        style.footnote(figure, _dotted(changes).lstrip("; "))
    return figure


@style.styled
def comparison(
    curves: Sequence[DynamicsCurve], *, relative: bool = False, unit: str = "nats", title: str | None = None
) -> "Figure":
    """Smoothed novelty and resonance of several trajectories, and their slopes beside their nulls.

    Seeds (equal labels) are thin lines around their mean. relative: time as a share of each trajectory, for runs of
    different length; otherwise in training examples.
    """
    if not curves:
        raise ValueError("there is nothing to compare: pass at least one curve")
    labels = list(dict.fromkeys(curve.label for curve in curves))
    height = max(6.0, 2.4 + 0.3 * len(labels))
    with_slopes = any(curve.slope is not None for curve in curves)
    figure, axes = style.two_and_one((9.5, height), title, right=with_slopes)
    for panel, name in zip(axes[:2], ("novelty", "resonance"), strict=True):
        for number, label in enumerate(labels):
            seeds = [curve for curve in curves if curve.label == label]
            _seed_lines(panel, seeds, name, number, relative)
        panel.set_title(f"{name.capitalize()} (trend)")
        panel.set_ylabel(unit)
    axes[0].set_ylim(bottom=0)
    axes[1].axhline(0, color=style.BLACK, lw=0.8, zorder=1)
    if relative:
        from matplotlib.ticker import PercentFormatter

        axes[1].xaxis.set_major_formatter(PercentFormatter(1.0))
        axes[1].set_xlabel("share of training")
        axes[1].set_xlim(0, 1)
    else:
        style.count_axis(axes[1].xaxis)
        axes[1].set_xlabel("training examples")
    if with_slopes:
        _slope_dots(axes[2], curves, labels)
    else:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    style.panel_letters(axes)
    if len(curves) > len(labels):
        style.footnote(figure, "thin lines: single seeds; thick line: their mean")
    return figure


def _raw(panel: "Axes", examples: np.ndarray, values: np.ndarray, tint: str) -> None:
    """The raw signal as faint points under the range of its middle 80 %."""
    panel.plot(examples, values, ",", color=tint, alpha=0.12, rasterized=True, zorder=1)
    x, (low, high) = style.quantile_bins(examples, values)
    panel.fill_between(x, low, high, color=tint, alpha=0.25, lw=0, label="raw, middle 80 %", zorder=1)


def _bin_means(values: np.ndarray, bins: int) -> np.ndarray:
    finite = values[np.isfinite(values)]
    return np.array([part.mean() for part in np.array_split(finite, max(bins, 1))])


def _time_axis(panels: Sequence["Axes"] | np.ndarray, examples: np.ndarray, examples_per_epoch: float | None) -> None:
    panels[-1].set_xlabel("training examples")
    if examples[0] < examples[-1]:
        panels[-1].set_xlim(examples[0], examples[-1])
    style.count_axis(panels[-1].xaxis)
    if examples_per_epoch:
        style.scaled_top_axis(panels[0], examples_per_epoch, "epochs")


def _symmetric(panel: "Axes") -> None:
    reach = max(abs(edge) for edge in panel.get_ylim())
    panel.set_ylim(-reach, reach)


def _dotted(changes: Sequence[float]) -> str:
    return "; dotted lines: change points" if len(changes) else ""


def _cloud(figure: "Figure", panel: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    if len(x) < _MANY_POINTS:
        panel.plot(x, y, "o", ms=3, color=style.BLUE, alpha=0.35, mew=0)
        return
    cells = panel.hexbin(x, y, gridsize=55, bins="log", mincnt=1, cmap="Blues", linewidths=0.1)
    figure.colorbar(cells, ax=panel, label="examples per cell", shrink=0.85, pad=0.01)


def _null(panel: "Axes", fitted: ResonanceNoveltySlope) -> None:
    finite = fitted.null[np.isfinite(fitted.null)]
    top = 0.74  # share of the height that is drawn on; the legend sits above
    panel.set_title("Slope and its null")
    panel.set_xlabel("slope of resonance on novelty")
    panel.set_ylabel("permutations")
    if finite.size:
        panel.axvspan(fitted.null_low, fitted.null_high, color=style.LIGHT_GREY, alpha=0.5, lw=0, ymax=top)
        panel.hist(
            finite, bins=max(5, min(30, finite.size // 4)), color=style.GREY, label=f"shuffled order, {finite.size}"
        )
    else:
        panel.text(0.5, 0.3, "no null was computed", ha="center", color=style.GREY, transform=panel.transAxes)
        panel.set_yticks([])
    if np.isfinite(fitted.slope):
        panel.axvspan(
            fitted.ci_low,
            fitted.ci_high,
            color=style.VERMILION,
            alpha=0.2,
            lw=0,
            ymax=top,
            label="confidence interval of the slope",
        )
        p_value = f", p = {fitted.p_value:.3f}" if np.isfinite(fitted.p_value) else ""
        panel.axvline(fitted.slope, ymax=top, color=style.VERMILION, label=f"observed {fitted.slope:.3f}{p_value}")
    panel.set_ylim(0, panel.get_ylim()[1] / top)
    handles, texts = panel.get_legend_handles_labels()
    if handles:
        panel.legend(handles, texts, loc="upper left", fontsize=8.5)


def _seed_lines(panel: "Axes", seeds: Sequence[DynamicsCurve], name: str, number: int, relative: bool) -> None:
    tint, dash = style.colour(number), style.dashes(number)
    times = [seed.examples / seed.examples[-1] if relative else seed.examples for seed in seeds]
    values = [np.asarray(getattr(seed, name), dtype=np.float64) for seed in seeds]
    if len(seeds) == 1:
        panel.plot(times[0], values[0], color=tint, ls=dash, label=seeds[0].label)
        return
    for time, value in zip(times, values, strict=True):
        panel.plot(time, value, color=tint, lw=0.7, alpha=0.5)
    grid = np.linspace(max(time[0] for time in times), min(time[-1] for time in times), 400)
    mean_line = np.mean(
        [np.interp(grid, t, v, left=np.nan, right=np.nan) for t, v in zip(times, values, strict=True)], axis=0
    )
    panel.plot(grid, mean_line, color=tint, ls=dash, lw=2.4, label=seeds[0].label)


def _slope_dots(panel: "Axes", curves: Sequence[DynamicsCurve], labels: Sequence[str]) -> None:
    for number, label in enumerate(labels):
        slopes = [curve.slope for curve in curves if curve.label == label and curve.slope is not None]
        offsets = np.linspace(-0.25, 0.25, len(slopes)) if len(slopes) > 1 else np.zeros(1)
        height = 0.5 / max(len(slopes), 2)
        for offset, fitted in zip(offsets, slopes, strict=False):
            at = number + offset
            if np.isfinite(fitted.null_low):
                panel.barh(at, fitted.null_high - fitted.null_low, left=fitted.null_low, height=height,
                           color=style.LIGHT_GREY)
            panel.plot([fitted.ci_low, fitted.ci_high], [at, at], color=style.colour(number), lw=1.6)
            panel.plot(fitted.slope, at, "o", ms=5, color=style.colour(number))
    panel.yaxis.tick_right()
    panel.set_yticks(range(len(labels)), labels)
    for number, tick in enumerate(panel.get_yticklabels()):
        tick.set_color(style.colour(number))
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.grid(visible=False, axis="y")
    panel.axvline(0, color=style.BLACK, lw=0.8, zorder=0)
    panel.set_title("Slope (grey: its null)")
    panel.set_xlabel("slope of resonance on novelty")
