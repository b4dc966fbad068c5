"""Figures of calibration: what is drawn is what was given, and nothing overlaps."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tests.pictures import assert_drawn

from finetrace.figures import style
from finetrace.lenses.calibration import figures
from finetrace.lenses.calibration.measures import calibration, probabilities_of


def pair(seed: int = 0, rows: int = 200, classes: int = 3, temperature: float = 3.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    logits = 4 * (random.normal(size=(rows, classes)) + np.eye(classes)[labels])
    return tuple(calibration(probabilities_of(logits, t), labels) for t in (1.0, temperature))


def curve(level: float, steps: int = 4) -> np.ndarray:
    value = level * (1 - np.arange(steps) / (2 * steps))
    return np.stack([value, value - 0.02, value + 0.03], axis=1)


def titles(figure) -> list[str]:
    """The titles of the panels, after drawing: none may reach into the next panel."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [panel._left_title.get_window_extent() for panel in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1:])
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    return [panel.get_title(loc="left") for panel in figure.axes]


def test_reliability_shows_bins_gaps_and_counts_of_every_set() -> None:
    sets = {"test": pair(), "kitchen": pair(1), "electronics": pair(2), "twitter": pair(3)}
    figure = figures.reliability(sets, 3.0, fitted_on="validation", title="x", note="temperature of 30 examples")
    axes = np.array(figure.axes).reshape(3, 4)
    for column, (before, after) in zip(axes.T, sets.values(), strict=True):
        for panel, one in zip(column, (before, after), strict=False):
            known = one.counts > 0
            np.testing.assert_allclose([bar.get_height() for bar in panel.patches], one.bin_accuracy[known])
            np.testing.assert_allclose([bar.get_x() for bar in panel.patches], one.edges[:-1][known])
            np.testing.assert_allclose(panel.lines[0].get_xdata(), one.bin_confidence[known])
            assert panel.get_xlim()[0] <= one.edges[:-1][known].min() and panel.get_ylim() == (0, 1)
        np.testing.assert_array_equal(column[2].patches[0].get_data().values, before.counts)
        assert column[2].get_ylim()[1] >= max(before.counts.max(), after.counts.max())
    drawn = titles(figure)
    assert drawn[0].startswith("test: as it is\nECE ") and "T = 3" in drawn[4] and "fitted here" not in "".join(drawn)
    assert f"ECE {100 * sets['twitter'][0].ece:.1f} %" in drawn[3]
    assert "15 bins" in figure.get_supxlabel() and "temperature of 30 examples" in figure.get_supxlabel().replace("\n",
                                                                                                                  " ")


def test_the_fitting_set_is_named_as_such() -> None:
    figure = figures.reliability({"validation": pair()}, 0.1234, fitted_on="validation")
    assert "divided by T = 0.123, fitted here" in titles(figure)[1]
    for sets in ({}, {str(k): pair() for k in range(5)}):
        with pytest.raises(ValueError, match=f"sets: {len(sets)} cannot be drawn"):
            figures.reliability(sets, 1.0, fitted_on="a")


def test_course_draws_every_set_before_and_after_with_intervals() -> None:
    curves = {name: {key: curve(0.8 - 0.1 * n) for key in ("accuracy", "ece", "ece_scaled", "nll", "nll_scaled")}
              for n, name in enumerate(("validation", "test"))}
    figure = figures.course([0, 10, 100, 1200], 100, curves, np.array([40.0, 2.0, 1.5, 3.0]), title="x",
                            note="of 30 examples")
    accuracy, ece, nll, temperature = figure.axes
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), 100 * curves["validation"]["accuracy"][:, 0])
    assert [line.get_linestyle() for line in ece.lines[:2]] == ["-", "--"] and len(nll.lines) == len(ece.lines) == 5
    np.testing.assert_allclose([s[:, 1] for s in ece.collections[1].get_segments()], 100 * curves["test"]["ece"][:, 1:])
    np.testing.assert_allclose(temperature.lines[0].get_ydata(), [40, 2, 1.5, 3])
    low, high = temperature.get_ylim()
    assert low < 1 and high > 40 and temperature.get_yscale() == "log"
    assert [t.get_text() for t in nll.get_xticklabels()] == ["0", "10", "100", "1,200"]
    assert [t.get_text() for t in accuracy.get_legend().get_texts()] == ["validation", "test"]
    assert titles(figure)[0] == "a   Accuracy" and ece.get_ylim()[0] == 0


def test_many_sets_have_intervals_at_the_kept_checkpoint_only() -> None:
    curves = {f"set-{n}": {key: curve(0.5) for key in ("accuracy", "ece", "ece_scaled", "nll", "nll_scaled")}
              for n in range(6)}
    figure = figures.course([0, 1, 2, 4], 2, curves, np.ones(4))
    assert [len(one.get_segments()) for one in figure.axes[0].collections] == [1] * 6
    assert "at the kept checkpoint" in figure.get_supxlabel()


def test_one_checkpoint_is_drawn_and_many_are_named_sparsely() -> None:
    of = {key: curve(0.5, 1) for key in ("accuracy", "ece", "ece_scaled", "nll", "nll_scaled")}
    assert_drawn(style.to_png(figures.course([7], 7, {"test": of}, np.array([1.0]))))
    of = {key: curve(0.5, 30) for key in of}
    figure = figures.course(list(range(0, 3000, 100)), 2900, {"test": of}, np.ones(30))
    assert [t.get_text() for t in figure.axes[3].get_xticklabels()][0::7] == ["0", "2,900"]
