"""The figure of convergence: what is drawn is what was given, on stated scales."""

import numpy as np
from tests.lenses.probes.test_figures import overlapping, texts

from finetrace.lenses.convergence.correlation import Correlation
from finetrace.lenses.convergence.figures import convergence


def test_convergence_shows_the_way_of_each_layer_and_the_correlations() -> None:
    cosine = np.array([[0.1, 0.2], [0.1, 0.5], [0.15, 0.8]])
    accuracy = np.array([[0.5, 0.6], [0.5, 0.8], [0.6, 0.9]])
    one, none = Correlation(0.9, 0.5, 1.0, 0.0001, 12, 6), Correlation(*[np.nan] * 4, 4, 2)
    rows = {"Levels, last checkpoint": {"spearman": one, "pearson": one},
            "Changes, last checkpoint": {"spearman": none, "pearson": one}}
    figure = convergence([0, 4], cosine, accuracy, rows, split="validation", title="x")
    ways, forest = figure.axes
    lines = [line for line in ways.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(lines[1].get_xdata(), [0, 0.3, 0.6])
    np.testing.assert_allclose(lines[1].get_ydata(), [60, 80, 90])
    assert [t.get_text() for t in ways.get_legend().get_texts()] == ["0", "4"]
    assert "spearman (filled) +0.90 [+0.50, +1.00]  p < 0.001  6 layers × 2" in texts(forest)
    assert any(t.startswith("spearman: none, 2 layers × 2") for t in texts(forest))
    assert forest.get_xlim()[0] <= -1 and forest.get_xlim()[1] >= 1
    assert not overlapping(figure)
    figure.draw_without_rendering()
    title, other = (max((panel.title, panel._left_title), key=lambda t: len(t.get_text())) for panel in (ways, forest))
    assert title.get_window_extent().x1 < other.get_window_extent().x0, "titles meet"
