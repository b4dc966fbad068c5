"""Figures of information dynamics: what is drawn is what was given, with units, and nothing global changes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finetrace.figures import style
from finetrace.lenses.infodynamics import measures as lens
from finetrace.lenses.infodynamics.figures import panels as figures

M, W = 900, 20
EXAMPLES = np.arange(1, M + 1)


def growing_confidence(m: int = M, seed: int = 0) -> np.ndarray:
    scores = np.linspace(0, 5, m) * np.random.default_rng(seed).choice([-1, 1], m) / 2
    return lens.softmax(np.stack([scores, -scores], axis=1))


P = growing_confidence()
RAW = lens.resonance(P, W)
TREND = lens.smooth(RAW, W)
NULL = lens.shuffled_order_null(P, W, permutations=12)
SLOPE = lens.resonance_novelty_slope(RAW.novelty, RAW.resonance, NULL)


def line(panel, label: str):
    return next(one for one in panel.lines if one.get_label() == label)


def legend_texts(figure: Figure) -> list[str]:
    legends = [panel.get_legend() for panel in figure.axes] + figure.legends
    return [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]


def drawn(figure: Figure) -> np.ndarray:
    """(height, width, 4) pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_signals_shows_the_data_with_units_epochs_and_plateau() -> None:
    figure = figures.signals(EXAMPLES, RAW, TREND, window=W, examples_per_epoch=300, plateau=0.3466, changes=[400.0])
    novelty, transience, resonance, alone = figure.axes
    np.testing.assert_array_equal(alone.lines[1].get_ydata(), TREND.resonance)
    np.testing.assert_array_equal(line(novelty, "trend").get_ydata(), TREND.novelty)
    assert {panel.get_ylabel() for panel in figure.axes} == {"nats"}
    assert alone.get_xlabel() == "training examples"
    assert novelty.get_ylim() == transience.get_ylim() and novelty.get_ylim()[0] == 0
    assert resonance.get_ylim()[0] == -resonance.get_ylim()[1]
    assert line(novelty, "plateau of label balance").get_ydata()[0] == 0.3466
    assert all(any(list(one.get_xdata()) == [400.0, 400.0] for one in panel.lines) for panel in figure.axes)
    (epochs,) = novelty.child_axes
    drawn(figure)
    assert epochs.get_xlabel() == "epochs" and epochs.get_xlim()[1] == pytest.approx(3)
    assert "window 20 examples" in figure.get_supxlabel() and "change points" in figure.get_supxlabel()


def test_signals_can_do_without_the_options() -> None:
    figure = figures.signals(EXAMPLES, RAW, TREND, window=W, unit="bits")
    assert figure.axes[0].get_ylabel() == "bits" and not figure.axes[0].child_axes
    assert "plateau of label balance" not in legend_texts(figure) and "change points" not in figure.get_supxlabel()


def test_smoothing_has_a_row_per_span() -> None:
    trends = {span: lens.smooth(RAW, W, span) for span in (32, 128, 56)}
    figure = figures.smoothing(EXAMPLES, RAW, trends)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert [t.split(", ")[1] for t in titles[::2]] == ["span 128", "span 56", "span 32"]
    np.testing.assert_array_equal(line(figure.axes[4], "trend").get_ydata(), trends[32].novelty)
    np.testing.assert_array_equal(line(figure.axes[1], "trend").get_ydata(), trends[128].resonance)
    assert "25, 61, 105 examples" in figure.get_supxlabel()  # 4 * floor(860 / span) + 1


def test_slope_draws_line_interval_and_null() -> None:
    figure = figures.slope(RAW.novelty, RAW.resonance, SLOPE)
    points, null = figure.axes
    x, y = line(points, f"slope {SLOPE.slope:.3f}, R² {SLOPE.r2:.3f}").get_data()
    assert (y[-1] - y[0]) / (x[-1] - x[0]) == pytest.approx(SLOPE.slope, abs=1e-10)
    assert "95% prediction interval" in legend_texts(figure)
    assert sum(bar.get_height() for bar in null.containers[0]) == 12
    assert f"observed {SLOPE.slope:.3f}, p = {SLOPE.p_value:.3f}" in legend_texts(figure)
    assert "z-score" in points.get_xlabel() and "z-score" in points.get_ylabel()


def test_slope_of_many_points_becomes_a_density() -> None:
    p = growing_confidence(5000)
    raw = lens.resonance(p, W)
    found = lens.resonance_novelty_slope(raw.novelty, raw.resonance)
    figure = figures.slope(raw.novelty, raw.resonance, found)
    assert figure.axes[2].get_ylabel() == "examples per cell"
    assert any("no null" in text.get_text() for text in figure.axes[1].texts)


def test_slope_of_a_frozen_model_says_so() -> None:
    raw = lens.resonance(np.tile([0.5, 0.5], (60, 1)), 5)
    figure = figures.slope(raw.novelty, raw.resonance, lens.resonance_novelty_slope(raw.novelty, raw.resonance))
    assert "no slope" in figure.axes[0].texts[0].get_text()
    drawn(figure)


def test_learning_puts_all_curves_on_one_time_axis() -> None:
    steps = np.arange(0, M, 90)
    curves = {name: (steps, np.linspace(0.9, 0.1, len(steps)) + k / 50) for k, name in enumerate(("train", "eval"))}
    figure = figures.learning(
        EXAMPLES,
        TREND.novelty,
        train_loss=curves["train"],
        eval_loss=curves["eval"],
        train_accuracy=curves["train"],
        eval_accuracy=curves["eval"],
        confidence=lens.mean_confidence(P, W),
        plateau=0.3466,
        chance=0.5,
        examples_per_epoch=300,
        changes=[200.0, 500.0],
    )
    accuracy, loss, novelty = figure.axes
    for panel in (accuracy, loss):
        np.testing.assert_array_equal(line(panel, "train").get_ydata(), curves["train"][1])
        np.testing.assert_array_equal(line(panel, "evaluation").get_ydata(), curves["eval"][1])
        assert panel.get_xlim() == novelty.get_xlim()
    np.testing.assert_array_equal(line(novelty, "novelty (trend)").get_ydata(), TREND.novelty)
    assert loss.get_ylim()[0] == 0 and novelty.get_ylim()[0] == 0 and loss.get_ylabel() == "nats"
    assert {"mean confidence (train)", "chance", "plateau of label balance"} <= set(legend_texts(figure))
    drawn(figures.learning(EXAMPLES, TREND.novelty))  # nothing but novelty is known


def curve(label: str, seed: int, slope: lens.ResonanceNoveltySlope | None = SLOPE, m: int = M) -> figures.DynamicsCurve:
    trend = lens.smooth(lens.resonance(growing_confidence(m, seed), W), W)
    return figures.DynamicsCurve(label, np.arange(1, m + 1), trend.novelty, trend.resonance, slope)


def test_comparison_gives_each_label_one_colour_and_a_mean_over_seeds() -> None:
    curves = [curve("ft", 0), curve("ft", 1), curve("lora", 2)]
    figure = figures.comparison(curves)
    novelty, _resonance, dots = figure.axes
    colours = [one.get_color() for one in novelty.lines]
    assert colours == [style.colour(0)] * 3 + [style.colour(1)]  # two seeds and their mean, one single run
    mean = line(novelty, "ft")
    at = np.asarray(mean.get_xdata())
    expected = np.mean([np.interp(at, c.examples, c.novelty) for c in curves[:2]], axis=0)
    np.testing.assert_allclose(mean.get_ydata(), expected, rtol=0, atol=1e-12)
    assert [tick.get_text() for tick in dots.get_yticklabels()] == ["ft", "lora"]
    assert [tick.get_color() for tick in dots.get_yticklabels()] == [style.colour(0), style.colour(1)]
    values = [one.get_xdata()[0] for one in dots.lines if one.get_marker() == "o"]
    assert values == pytest.approx([SLOPE.slope] * 3)
    grey = [bar for bar in dots.patches if bar.get_width() == pytest.approx(SLOPE.null_high - SLOPE.null_low)]
    assert len(grey) == 3


def test_comparison_without_slopes_and_with_different_lengths() -> None:
    figure = figures.comparison([curve("short", 0, None, 600), curve("long", 1, None)], relative=True)
    assert len(figure.axes) == 2 and legend_texts(figure) == ["short", "long"]
    assert figure.axes[1].get_xlabel() == "share of training" and figure.axes[1].get_xlim() == (0, 1)
    assert all(one.get_xdata()[-1] == 1 for one in figure.axes[0].lines)
    with pytest.raises(ValueError, match="nothing to compare"):
        figures.comparison([])
    drawn(figures.comparison([curve("frozen", 0, replace(SLOPE, slope=np.nan, ci_low=np.nan, ci_high=np.nan))]))


@pytest.mark.parametrize("log_steps", [False, True])
def test_probe_set_shows_movement_and_the_data_map(log_steps: bool) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(2), (12, 30))
    labels = np.arange(30) % 2
    dynamics, data_map = lens.probe_resonance(p, 2), lens.cartography(p, labels)
    single = lens.probe_resonance(p, 2, per_example=True).novelty
    steps = np.concatenate([[0], 2 ** np.arange(11)])
    spread = (single.min(axis=1), single.max(axis=1))
    figure = figures.probe_set(steps, dynamics, data_map, window=2, spread=spread, log_steps=log_steps)
    upper, lower, right = figure.axes[:3]
    np.testing.assert_array_equal(line(upper, "novelty").get_ydata(), dynamics.novelty)
    np.testing.assert_array_equal(line(upper, "transience").get_ydata(), dynamics.transience)
    np.testing.assert_array_equal(lower.lines[1].get_ydata(), dynamics.resonance)
    assert lower.get_xlabel() == "optimizer step" and upper.get_ylabel() == "nats"
    assert lower.get_xscale() == ("symlog" if log_steps else "linear")
    dots = right.collections[0]
    together = np.column_stack([np.asarray(dots.get_offsets()), np.asarray(dots.get_array())])
    expected = np.column_stack([data_map.variability, data_map.confidence, data_map.correctness])
    np.testing.assert_array_equal(together[np.lexsort(together.T)], expected[np.lexsort(expected.T)])
    drawn(figure)


def test_figures_are_readable_in_size_and_equal_data_give_equal_files() -> None:
    first, second = (figures.smoothing(EXAMPLES, RAW, {56: TREND}, title="a run") for _ in range(2))
    assert drawn(first).shape[:2] == (600, 900)
    assert style.to_png(first) == style.to_png(second)
    assert b"matplotlib" not in style.to_png(first).lower()


def test_house_style_stays_inside() -> None:
    before = dict(rcParams)
    figures.signals(EXAMPLES, RAW, TREND, window=W)
    assert dict(rcParams) == before


def test_nothing_imports_pyplot_and_matplotlib_comes_late() -> None:
    code = (
        "import sys, numpy as np; from finetrace.lenses.infodynamics.figures import panels as f; "
        "late = 'matplotlib' not in sys.modules; "
        "f.learning(np.arange(50), np.linspace(0, 1, 50)); print(late, 'matplotlib.pyplot' in sys.modules)"
    )
    source = str(Path(lens.__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env(source))
    assert done.stdout.split() == ["True", "False"]


def _env(source: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": source}


def test_quantile_bins() -> None:
    x, y = np.arange(1000.0), np.tile(np.arange(10.0), 100)
    y[:100] = np.nan
    centres, (low, high) = style.quantile_bins(x, y, bins=9, quantiles=(0.0, 1.0))
    np.testing.assert_allclose(centres, 149.5 + 100 * np.arange(9))
    assert (low == 0).all() and (high == 9).all()
    assert style.quantile_bins(x[:25], np.ones(25))[0].shape == (2,)
    assert style.quantile_bins(x[:5], np.full(5, np.nan))[1].shape == (2, 0)
