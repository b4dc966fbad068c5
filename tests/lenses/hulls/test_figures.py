"""Figures of the lens hulls: from one label to fifty, with gaps; what they draw is what they were given."""

import numpy as np
import pytest
from tests.pictures import assert_drawn

from finetrace.figures.style import to_png
from finetrace.lenses.hulls import figures


def names(count: int) -> list[str]:
    return [f"label-with-a-long-name-{i}" if i % 5 == 0 else f"L{i}" for i in range(count)]


def square(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((count, count))
    values = values + values.T
    np.fill_diagonal(values, np.nan)
    return values


def test_clusters_are_filled_where_planes_separate_the_labels() -> None:
    figure = figures.clusters([0, 1, 2], {"step 0": np.array([600, 9, 4]), "step 8": np.array([600, 4, 4])},
                              {"step 0": np.array([False, False, True]), "step 8": np.array([False, True, True])}, 4)
    panel = figure.axes[0]
    drawn = [len(points.get_offsets()) for points in panel.collections]
    assert drawn == [1, 2, 2, 1] and panel.get_yscale() == "log"
    assert panel.get_ylim()[0] < 4 and panel.get_ylim()[1] > 600
    ticks = [label.get_text() for label in panel.get_yticklabels()]
    assert ticks and all(tick.replace(",", "").isdigit() for tick in ticks), "plain numbers, not powers of ten"
    assert_drawn(to_png(figure))


@pytest.mark.parametrize(("count", "lines"), [(2, 2), (5, 6), (17, 18), (50, 51)])
def test_all_labels_are_drawn_and_few_of_many_are_named(count: int, lines: int) -> None:
    values = np.random.default_rng(0).random((6, count)).cumsum(axis=0)
    figure = figures.tracks([0, 1, 2, 4, 8, 16], names(count), values)
    assert len(figure.axes[0].lines) == lines
    assert len(figure.legends[0].get_texts()) == (count if count <= 7 else 6) + (count > 2)
    assert_drawn(to_png(figure))


def test_the_labels_that_gain_most_and_least_are_named() -> None:
    values = np.vstack([np.zeros(10), np.arange(10.0)])
    values[1, 9] = np.nan
    texts = [text.get_text() for text in figures.tracks([0, 8], [f"x{i}" for i in range(10)],
                                                        values).legends[0].get_texts()]
    assert texts[:3] == ["x8 (+8)", "x7 (+7)", "x6 (+6)"] and texts[-1] == "mean of 10 labels"


def test_similarity_is_drawn_with_gaps_and_without_a_second_split() -> None:
    grid = np.array([[np.nan, np.nan], [1.0, -0.4]])
    both = figures.likeness([0, 1], [0, 8], grid, {"step 0": np.array([np.nan, 0.5]), "step 8": np.array([0.2, -0.3])})
    assert [text.get_text() for text in both.axes[0].texts] == ["1.00", "-0.40"]
    assert both.axes[0].get_title("left").endswith("To the same layer before training")
    assert figures.likeness([0, 1], [4, 8], grid, {}).axes[0].get_title("left") == "To the same layer at step 4"
    assert both.axes[1].get_ylim()[0] < -0.3 or both.axes[2].get_ylim()[0] < -0.3
    alone = figures.likeness([0, 1], [0, 8], grid, {"step 0": np.full(2, np.nan)})
    assert len(alone.axes) == 2  # the heat map and its colour bar
    for figure in (both, alone):
        assert_drawn(to_png(figure))


@pytest.mark.parametrize("count", [1, 2, 6, 17, 50])
def test_label_pairs_stay_readable(count: int) -> None:
    before, after = square(count), 3 * square(count, 1)
    if count > 2:
        before[1] = before[:, 1] = after[1] = after[:, 1] = np.nan  # a label without points is left out
    figure = figures.label_pairs(names(count), before, after, ("step 0", "step 8"))
    panel = figure.axes[0]
    assert len(panel.get_xticks()) == (count - 1 if count > 2 else count)
    assert_drawn(to_png(figure))
    assert figure.axes[0].images[0].norm.vmax == figure.axes[1].images[0].norm.vmax


def test_motion_names_the_chosen_labels_only() -> None:
    paths = np.random.default_rng(0).normal(size=(4, 20, 2)).cumsum(axis=0)
    paths[:, 3] = np.nan
    figure = figures.motion([(1, paths, np.array([0.6, 0.2])), (12, 3 * paths, np.array([0.5, 0.3]))], names(20),
                            {1: [0, 1, 2], 12: [4, 5]}, list(range(13)), np.random.default_rng(1).random((13, 20)))
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["L4", "label-with-a-long…"]
    assert len(figure.axes[0].lines) == 19 and len(figure.axes[2].lines) == 22
    assert_drawn(to_png(figure))


def test_motion_of_one_checkpoint_in_one_layer() -> None:
    figure = figures.motion([(0, np.zeros((1, 2, 2)), np.zeros(2))], names(2), {0: [0, 1]}, [0], np.zeros((1, 2)))
    assert len(figure.axes) == 2
    assert_drawn(to_png(figure))
