"""Figures of learning dynamics: what is drawn is what was given, on an axis that shows step 0."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from finetrace.lenses.dynamics.figures import figures_of
from finetrace.lenses.dynamics.figures import panels as figures
from finetrace.lenses.dynamics.table import Key, Table

STEPS = np.array([0, 20_000, 60_000, 100_000, 2_000_000])


def line(label: str = "a", value: float = 0.5, **more) -> figures.Line:
    values = value + 0.1 * np.arange(5)
    return figures.Line(label, STEPS, values, values - 0.05, values + 0.05, **more)


def labels(axis) -> list[str]:
    return [t.get_text() for t in axis.get_ticklabels() if t.get_text()]


def drawn(figure) -> None:
    FigureCanvasAgg(figure).draw()


def test_courses_draw_lines_bands_floors_and_marks_on_a_logarithmic_axis_with_zero():
    panels = [figures.Panel("pos", [line(), line("b", 0.3)], floor=("majority class", 25.0), mark=60_000),
              figures.Panel("cog", [line("a", 2.0, factor=1.0)], ylabel="layer")]
    figure = figures.courses(panels, axis="pre-training steps", unit=20_000, title="x", note="two seeds",
                             mark="90 % of the gain")
    one, other = figure.axes
    lines = [part for part in one.lines if len(part.get_xdata()) == 5]
    np.testing.assert_allclose(lines[0].get_xdata(), np.log10(1 + STEPS / 20_000))
    np.testing.assert_allclose(lines[0].get_ydata(), [50, 60, 70, 80, 90])
    np.testing.assert_allclose(other.lines[0].get_ydata(), 2 + 0.1 * np.arange(5))
    assert len(one.collections) == 2 and one.lines[0].get_xdata()[0] == pytest.approx(np.log10(4))
    assert lines[0].get_color() == other.lines[0].get_color() != lines[1].get_color()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b", "majority class", "90 % of the gain"]
    assert one.get_xlabel() == "pre-training steps" and one.get_ylabel() == "%" and other.get_ylabel() == "layer"
    assert "95 % intervals" in figure.get_supxlabel() and "two seeds" in figure.get_supxlabel()
    drawn(figure)


def test_ticks_are_recorded_steps_with_zero_and_the_last_and_do_not_overlap():
    steps = [0, *range(20_000, 200_001, 20_000), *range(300_000, 2_000_001, 100_000)]
    values = np.linspace(0.2, 0.9, len(steps))
    many = figures.Line("a", np.array(steps), values, values, values)
    figure = figures.courses([figures.Panel(str(i), [many]) for i in range(3)], axis="steps", unit=20_000)
    drawn(figure)
    for panel in figure.axes:
        ticks = [t for t in panel.xaxis.get_ticklabels() if t.get_text()]
        assert ticks[0].get_text() == "0" and ticks[-1].get_text() == "2M" and len(ticks) >= 4
        places = {round(float(np.log10(1 + s / 20_000)), 9) for s in steps}
        assert {round(float(t.get_position()[0]), 9) for t in ticks} <= places
        boxes = [t.get_window_extent() for t in ticks]
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    named = {0: "0", 64: "64", 1500: "1,500", 20_000: "20k", 140_000: "140k", 1_500_000: "1.5M"}
    assert {step: figures.step_label(step) for step in named} == named


def test_of_many_panels_twelve_are_drawn_and_the_rest_is_told():
    figure = figures.courses([figures.Panel(str(i), [line()]) for i in range(14)], axis="steps", unit=1)
    assert len(figure.axes) == 12 and "12 of 14 panels are drawn" in figure.get_supxlabel()
    one = figures.courses([figures.Panel("alone", [line()])], axis="steps", unit=1)
    assert len(one.axes) == 1
    four = figures.courses([figures.Panel(str(i), [line()]) for i in range(4)], axis="steps", unit=1)
    assert [panel.get_xlabel() for panel in four.axes] == ["", "steps", "steps", "steps", "", ""]


def test_differences_have_a_row_per_task_zero_and_intervals():
    rows = {"pos": {"difference": (-0.02, -0.03, -0.01), "control-difference": (0.0, np.nan, np.nan)},
            "facts": {"difference": (-0.5, -0.6, -0.4), "net-difference": (-0.4, -0.5, -0.3)}}
    figure = figures.differences(rows, title="x", note="y")
    panel = figure.axes[0]
    assert labels(panel.yaxis) == ["pos", "facts"] and panel.get_ylim()[0] > panel.get_ylim()[1]
    dots = [(float(d.get_xdata()[0]), round(float(d.get_ydata()[0]))) for d in panel.lines if d.get_marker() != "None"]
    assert sorted(dots) == [(-50, 1), (-40, 1), (-2, 0), (0, 0)]
    bars = [part.get_xdata() for part in panel.lines if len(part.get_xdata()) == 2
            and part.get_xdata()[0] != part.get_xdata()[1]]
    assert len(bars) == 3 and any(np.allclose(bar, [-3, -1]) for bar in bars)
    assert list(panel.lines[0].get_xdata()) == [0, 0]
    assert {t.get_text() for t in figure.legends[0].get_texts()} == set(figures.DIFFERENCE_NAMES.values())


def test_gains_have_a_dot_per_layer_a_diamond_and_say_where_nothing_was_gained():
    rows = {"pos": [figures.Dot(0, 60_000), figures.Dot(1, 20_000), figures.Dot(None, 40_000, 20_000, 60_000)],
            "facts": [figures.Dot(None, np.nan)], "none": []}
    figure = figures.gains(rows, steps=STEPS.tolist(), axis="steps", unit=20_000, title="x")
    panel = figure.axes[0]
    diamonds = [part for part in panel.lines if part.get_marker() == "D"]
    assert len(diamonds) == 1 and float(diamonds[0].get_xdata()[0]) == pytest.approx(np.log10(3))
    assert sum(part.get_marker() == "o" for part in panel.lines) == 2
    assert [t.get_text() for t in panel.texts] == ["no gain beyond its error"] * 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["all layers, or the last", "layer 0", "layer 1"]
    assert labels(panel.xaxis)[0] == "0" and labels(panel.xaxis)[-1] == "2M"
    drawn(figure)


def table(arms=("original",), steps=(0, 10, 40)) -> Table:
    found = Table()
    for number, arm in enumerate(arms):
        for key in (Key("edges", "pos", arm, "f1", "full", 2), Key("edges", "pos", arm, "f1", "layer", 2),
                    Key("cloze", "world", arm, "p_at_1", "own", 2)):
            values = np.array([0.2, 0.5, 0.8]) - 0.1 * number
            found.add(key, steps, values, values - 0.1, values + 0.1, n=9, seeds=1)
        found.add(Key("edges", "pos", arm, "cog", "full", 2), steps, [1, 1.2, 1.4], n=9, seeds=1)
    return found


def test_figures_are_those_of_what_the_table_has():
    axes, units = {"original": "pre-training steps"}, {"original": 10.0}
    assert set(figures_of("x", table(), axes, units, "note")) == {"overview", "step_90", "centre_of_gravity"}
    both = table(("original", "adapted"))
    both.add(Key("edges", "pos", "difference", "f1", "full", 2), [40], [-0.1], [-0.2], [0.0], n=9, seeds=1)
    made = figures_of("x", both, axes | {"adapted": "pre-training steps"}, units | {"adapted": 10.0}, "note")
    assert {"arms", "differences"} <= set(made)
    words, facts = made["arms"].axes[:2]
    assert words.get_ylabel() == "F1 (%)" and facts.get_ylabel() == "P@1 (%)"
    np.testing.assert_allclose(words.lines[0].get_ydata(), [20, 50, 80])


def test_adaptation_with_its_own_axis_is_drawn_beside_a_level_original():
    axes = {"original": "pre-training steps", "adapted": "adaptation steps"}
    found = table(("original", "adapted"))
    made = figures_of("x", found, axes, {"original": 10.0, "adapted": 5.0}, "note")["arms"]
    panel = made.axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [80, 80, 80])
    np.testing.assert_allclose(panel.lines[1].get_xdata(), np.log10(1 + np.array([0, 10, 40]) / 5))
    assert panel.get_xlabel() == "adaptation steps" and "original: its last checkpoint" in made.get_supxlabel()


@pytest.mark.parametrize("make", [lambda: figures.courses([], axis="a", unit=1), lambda: figures.differences({}),
                                  lambda: figures.gains({}, steps=[0], axis="a", unit=1)])
def test_nothing_to_draw_is_refused(make):
    with pytest.raises(ValueError, match="there are none"):
        make()
