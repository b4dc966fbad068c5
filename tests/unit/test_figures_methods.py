"""The figure of training methods: what it says, with seeds, with lacking sets, and with unusual values."""

import numpy as np
import pytest
from tests.pictures import assert_drawn

from finetrace.figures.methods import methods
from finetrace.figures.style import to_png

SETS = ["validation", "test", "food"]


def metrics(shift, **changes):
    usual = {"accuracy": 0.7, "ece": 0.2, "ece_scaled": 0.05, "diff": 3.0}
    found = {f"{s}/{k}": v + shift for s in SETS for k, v in usual.items()}
    return {**found, "head_norm/first": 1.0 + 10 * shift, **changes}


def test_methods_show_seeds_means_and_named_axes():
    figure = methods({"ft": [metrics(0.0), metrics(0.02)], "lp-ft": [metrics(0.1)]}, SETS, "test", title="Methods")
    first, second, third = figure.axes
    assert [t.get_text() for t in first.get_yticklabels()] == SETS and "accuracy" in first.get_xlabel()
    assert [t.get_text() for t in second.get_yticklabels()] == ["ft", "lp-ft"]
    assert "calibration error on test" in second.get_xlabel()
    assert third.get_xscale() == "log" and third.get_ylabel() and third.get_xlabel()
    means = [line for line in third.lines if line.get_markersize() == 8]
    np.testing.assert_allclose(means[0].get_xdata(), [np.sqrt(1.0 * 1.2)])
    np.testing.assert_allclose(means[0].get_ydata(), [3.01])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ft", "lp-ft"]
    assert_drawn(to_png(figure))


def test_one_seed_shows_its_interval_over_examples():
    one = metrics(0.0, **{"test/accuracy/low": 0.6, "test/accuracy/high": 0.8})
    thin = [line for line in methods({"ft": [one], "lp": [one, one]}, SETS, "test").axes[0].lines
            if line.get_linewidth() == 1]
    assert len(thin) == 1 and list(thin[0].get_xdata()) == [0.6, 0.8]


def test_what_a_method_lacks_is_left_out():
    lacking = {k: v for k, v in metrics(0.0).items() if not k.startswith("food")} | {"test/ece": None}
    del lacking["test/diff"]
    figure = methods({"ft": [metrics(0.0)], "lp": [lacking]}, SETS, "test")
    first, second, third = figure.axes
    assert sum(line.get_markersize() == 7 for line in first.lines) == 5
    assert sum(line.get_markersize() == 8 for line in second.lines) == 1
    assert sum(line.get_markersize() == 8 for line in third.lines) == 1


@pytest.mark.parametrize("norms", [(0.1728274, 0.1728274), (0.19, 425.0), (1.0, 3.0)])
def test_the_axis_of_head_norms_is_readable(norms):
    """One number, that of all methods, has no scale of its own; many decades have few numbers."""
    results = {name: [metrics(0.0, **{"head_norm/first": norm})] for name, norm in zip("ab", norms, strict=True)}
    figure = methods(results, SETS, "test", title="Methods")
    figure.canvas.draw()
    low, high = (third := figure.axes[2]).get_xlim()
    assert low < max(norms) < high and high / low >= 4
    seen = [text.get_text() for text in third.get_xticklabels() if low <= text.get_position()[0] <= high]
    assert 1 <= len(seen) <= 6 and all(len(text) <= 6 for text in seen), seen
