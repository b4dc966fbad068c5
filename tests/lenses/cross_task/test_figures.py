"""Figures of the cross-task effect and of the stage directprobe: what is drawn, in which order, and with 50 labels."""

import numpy as np
import pytest

from finetrace.figures.style import to_png
from finetrace.lenses.cross_task import figures as cross_task
from finetrace.lenses.directprobe import figures as directprobe


def texts(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_classes_are_ordered_by_their_change_and_counted_as_in_the_table():
    before, after = np.array([1.0, 2.0, 3.0, np.nan, 5.0]), np.array([4.0, 1.0, 3.0 + 1e-9, 2.0, 6.0])
    figure = cross_task.classes(list("abcde"), before, after, note="n")
    panel = figure.axes[0]
    assert texts(panel.yaxis) == ["b", "c", "e", "a"]  # from below: -1, 0, +1, +3
    assert panel.get_title(loc="left") == "hollow: before, full: after; 2 grew (blue), 1 shrank (orange)"
    assert figure._supxlabel.get_text() == "n; no distance: d"
    ends = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 2]
    assert [list(pair) for pair in ends] == [[2, 1], [3, 3 + 1e-9], [5, 6], [1, 4]]


def test_layers_show_counts_both_ways_change_and_accuracy():
    change = np.array([[0.0, -1, 1], [2, 1.5, 2.5]])
    accuracies = {"before": np.array([[0.5, 0.4, 0.6]] * 2), "after": np.array([[0.7, 0.6, 0.8]] * 2)}
    figure = cross_task.layers([0, 4], [1, 6], [5, 0], change, accuracies, floor=0.2)
    counts, means, panel = figure.axes
    assert [bar.get_height() for bar in counts.patches] == [1, 6, -5, 0]
    assert texts(counts.xaxis) == ["0", "4"] and means.get_title(loc="left").startswith("Mean change")
    assert sorted(text.get_text() for text in panel.get_legend().get_texts()) == ["after", "before", "majority class"]
    assert len(cross_task.layers([0], [1], [0], change[:1], {}).axes) == 2


def test_labels_of_one_space_with_clusters_and_pairs():
    matrix = np.array([[np.nan, 3, np.nan], [3, np.nan, np.nan], [np.nan] * 3])
    figure = directprobe.labels(["a", "b", "c"], [1, 12, 2], np.array([3.0, 2.0, np.nan]), matrix)
    bars, picture = figure.axes[:2]
    assert texts(bars.yaxis) == ["c", "b", "a"]
    assert [text.get_text() for text in bars.texts] == ["2  (no distance)", "12", "1"]
    np.testing.assert_array_equal(picture.images[0].get_array().filled(-1)[1], [-1, -1, 3])


def test_layers_of_checkpoints_have_gaps_where_clusters_overlap():
    found = {"5": {1: np.array([1.0, 3.0]), 2: None}, "10": {1: np.array([2.0, np.nan]), 2: np.array([4.0, 6.0])}}
    figure = directprobe.layers(found)
    least, mean = figure.axes[:2]
    assert [list(line.get_ydata()) for line in least.lines[1:]] == [[2, 4]] and least.lines[0].get_ydata()[0] == 1
    assert np.isnan(least.lines[0].get_ydata()[1]) and [line.get_ydata()[0] for line in mean.lines] == [2, 2]
    assert "1 of 4 spaces have overlapping clusters" in figure._supxlabel.get_text()


def test_fifty_labels_and_many_checkpoints_are_drawn_without_warnings():
    random = np.random.default_rng(0)
    names, matrix = [f"p.VeryLongLabelName{i}" for i in range(50)], random.random((50, 50))
    many = {str(step): {layer: random.random(50) for layer in range(25)} for step in range(0, 60, 5)}
    for figure in (directprobe.labels(names, [1] * 50, matrix.min(axis=1), matrix), directprobe.layers(many),
                   cross_task.classes(names, random.random(50), random.random(50))):
        assert to_png(figure).startswith(b"\x89PNG")


def test_nothing_to_draw_is_refused():
    for call in (lambda: directprobe.labels([], [], np.zeros(0), np.zeros((0, 0))), lambda: directprobe.layers({}),
                 lambda: cross_task.classes([], np.zeros(0), np.zeros(0))):
        with pytest.raises(ValueError, match="empty"):
            call()
