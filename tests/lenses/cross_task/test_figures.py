"""Figures of the cross-task effect: what is drawn, in which order, and with 50 labels."""

import numpy as np
import pytest
from tests.pictures import assert_drawn

from finetrace.figures.style import to_png
from finetrace.lenses.cross_task import figures


def texts(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_classes_are_ordered_by_their_change_and_counted_as_in_the_table():
    before, after = np.array([1.0, 2.0, 3.0, np.nan, 5.0]), np.array([4.0, 1.0, 3.0 + 1e-9, 2.0, 6.0])
    figure = figures.classes(list("abcde"), before, after, note="n")
    panel = figure.axes[0]
    assert texts(panel.yaxis) == ["b", "c", "e", "a"]  # from below: -1, 0, +1, +3
    assert panel.get_title(loc="left") == "hollow: before, full: after; 2 grew (blue), 1 shrank (orange)"
    assert figure._supxlabel.get_text() == "n; no distance: d"
    ends = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 2]
    assert [list(pair) for pair in ends] == [[2, 1], [3, 3 + 1e-9], [5, 6], [1, 4]]


def test_layers_show_counts_both_ways_change_and_accuracy():
    change = np.array([[0.0, -1, 1], [2, 1.5, 2.5]])
    accuracies = {"before": np.array([[0.5, 0.4, 0.6]] * 2), "after": np.array([[0.7, 0.6, 0.8]] * 2)}
    figure = figures.layers([0, 4], [1, 6], [5, 0], change, accuracies, floor=0.2)
    counts, means, panel = figure.axes
    assert [bar.get_height() for bar in counts.patches] == [1, 6, -5, 0]
    assert texts(counts.xaxis) == ["0", "4"] and means.get_title(loc="left").startswith("Mean change")
    assert sorted(text.get_text() for text in panel.get_legend().get_texts()) == ["after", "before", "majority class"]
    assert len(figures.layers([0], [1], [0], change[:1], {}).axes) == 2


def test_fifty_labels_are_drawn_without_warnings():
    random = np.random.default_rng(0)
    names = [f"p.VeryLongLabelName{i}" for i in range(50)]
    assert_drawn(to_png(figures.classes(names, random.random(50), random.random(50))))


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="empty"):
        figures.classes([], np.zeros(0), np.zeros(0))
