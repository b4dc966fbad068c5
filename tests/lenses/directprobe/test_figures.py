"""Figures of the stage directprobe: what is drawn, in which order, and with 50 labels."""

import numpy as np
import pytest
from tests.lenses.cross_task.test_figures import texts
from tests.pictures import assert_drawn

from finetrace.figures.style import to_png
from finetrace.lenses.directprobe import figures


def test_labels_of_one_space_with_clusters_and_pairs():
    matrix = np.array([[np.nan, 3, np.nan], [3, np.nan, np.nan], [np.nan] * 3])
    figure = figures.labels(["a", "b", "c"], [1, 12, 2], np.array([3.0, 2.0, np.nan]), matrix)
    bars, picture = figure.axes[:2]
    assert texts(bars.yaxis) == ["c", "b", "a"]
    assert [text.get_text() for text in bars.texts] == ["2  (no distance)", "12", "1"]
    np.testing.assert_array_equal(picture.images[0].get_array().filled(-1)[1], [-1, -1, 3])


def test_layers_of_checkpoints_have_gaps_where_clusters_overlap():
    found = {"5": {1: np.array([1.0, 3.0]), 2: None}, "10": {1: np.array([2.0, np.nan]), 2: np.array([4.0, 6.0])}}
    figure = figures.layers(found)
    least, mean = figure.axes[:2]
    assert [list(line.get_ydata()) for line in least.lines[1:]] == [[2, 4]] and least.lines[0].get_ydata()[0] == 1
    assert np.isnan(least.lines[0].get_ydata()[1]) and [line.get_ydata()[0] for line in mean.lines] == [2, 2]
    assert "1 of 4 spaces have overlapping clusters" in figure._supxlabel.get_text()


def test_fifty_labels_and_many_checkpoints_are_drawn_without_warnings():
    random = np.random.default_rng(0)
    names, matrix = [f"p.VeryLongLabelName{i}" for i in range(50)], random.random((50, 50))
    many = {str(step): {layer: random.random(50) for layer in range(25)} for step in range(0, 60, 5)}
    for figure in (figures.labels(names, [1] * 50, matrix.min(axis=1), matrix), figures.layers(many)):
        assert_drawn(to_png(figure))


def test_nothing_to_draw_is_refused():
    for call in (lambda: figures.labels([], [], np.zeros(0), np.zeros((0, 0))), lambda: figures.layers({})):
        with pytest.raises(ValueError, match="empty"):
            call()
