"""Figures of features: what is drawn is what was given, also with many classes and one state."""

import numpy as np
import pytest
from matplotlib.quiver import Quiver
from tests.pictures import assert_drawn

from finetrace.figures import style
from finetrace.lenses.features import figures
from finetrace.lenses.features.change import plane

STATES = ("before (step 0)", "after (step 64)")


def cloud(classes: int = 3, rows: int = 60, dim: int = 8, seed: int = 0):
    """Labels, features of two states and their heads."""
    random = np.random.default_rng(seed)
    labels = np.minimum(random.geometric(0.3, rows) - 1, classes - 1)
    directions = random.normal(size=(classes, dim))
    before = random.normal(size=(rows, dim))
    return labels, dict(zip(STATES, (before, before + 5 * directions[labels]), strict=True)), dict(
        zip(STATES, (0.01 * directions, 3 * directions), strict=True))


def curves(steps: int, low: float = 0.5) -> dict[str, np.ndarray]:
    value = low + np.arange(steps) / 10
    whole = np.stack([value, value - 0.1, value + 0.1], axis=1)
    bare = np.stack([value, np.full(steps, np.nan), np.full(steps, np.nan)], axis=1)
    return {"cosine": whole / 2, "diff": whole, "fdr_ridge": bare}


def test_course_draws_every_set_and_the_head_with_its_rows() -> None:
    sets = {"train": curves(4), "test": curves(4, 0.3)}
    rows = {"yes": np.arange(4.0), "no": np.arange(4.0) / 2}
    figure = figures.course([0, 8, 64, 70], 64, sets, np.arange(4.0) + 1, rows, title="x", note="n = 3")
    cosine, diff, ratio, head = figure.axes
    np.testing.assert_allclose(cosine.lines[1].get_ydata(), sets["test"]["cosine"][:, 0])
    np.testing.assert_allclose([s[:, 1] for s in diff.collections[0].get_segments()], sets["train"]["diff"][:, 1:])
    assert ratio.get_yscale() == "linear" and ratio.get_ylim()[0] == 0 == diff.get_ylim()[0]
    assert [t.get_text() for t in head.get_legend().get_texts()] == ["whole weight", "yes", "no"]
    np.testing.assert_allclose(head.lines[0].get_ydata(), [1, 2, 3, 4])
    assert figure.get_supxlabel().endswith("n = 3")
    assert_drawn(style.to_png(figure))


def test_ratios_that_are_far_apart_stand_on_a_logarithmic_axis_with_plain_numbers() -> None:
    far = curves(3) | {"fdr_ridge": np.array([[0.5, np.nan, np.nan], [0.0, np.nan, np.nan], [700.0, np.nan, np.nan]])}
    panel = figures.course([0, 1, 2], 2, {"a": far}, np.ones(3), {}).axes[2]
    assert panel.get_yscale() == "log" and panel.get_ylim()[0] < 0.5 and panel.get_ylim()[1] > 700
    panel.figure.draw_without_rendering()
    ticks = [t.get_text() for t in panel.get_yticklabels() if t.get_text()]
    assert len(ticks) > 1 and all(float(tick.replace(",", "")) > 0 for tick in ticks)


def test_course_of_many_classes_shows_the_whole_head_only_and_of_undefined_ratios_none() -> None:
    sets = {"test": curves(2) | {"fdr_ridge": np.full((2, 3), np.nan)}}
    figure = figures.course([0, 1], 1, sets, np.ones(2), {str(k): np.ones(2) for k in range(17)})
    assert figure.axes[3].get_legend() is None and figure.axes[3].get_title(loc="left") == "d   Norm of the head"
    assert figure.axes[2].get_yscale() == "linear"
    assert_drawn(style.to_png(figure))


def test_planes_project_features_and_head_rows_alike() -> None:
    labels, points, heads = cloud()
    of = plane(np.concatenate(list(points.values())))
    figure = figures.planes(points, heads, labels, ["a", "b", "c"], of, title="x", note="60 examples")
    for panel, state in zip(figure.axes, STATES, strict=True):
        expected = (points[state] - of.centre) @ of.axes.T
        np.testing.assert_allclose(panel.collections[0].get_offsets(), expected[labels == 0])
        arrows = [one for one in panel.collections if isinstance(one, Quiver)]
        rows = heads[state] - heads[state].mean(axis=0)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ of.axes.T
        found = np.array([[one.U[0], one.V[0]] for one in arrows])
        np.testing.assert_allclose(found / found[0, 0], rows / rows[0, 0])
        np.testing.assert_allclose(arrows[0].get_offsets()[0], expected.mean(axis=0))
        assert panel.get_xlim()[0] <= expected[:, 0].min() and panel.get_ylim()[1] >= expected[:, 1].max()
    np.testing.assert_allclose(figure.axes[0].get_xlim(), figure.axes[1].get_xlim())
    assert "% of the variance" in figure.axes[0].get_xlabel() and "60 examples" in figure.get_supxlabel()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b", "c"]


def test_of_many_classes_the_most_frequent_ones_have_colours() -> None:
    labels, points, heads = cloud(classes=17)
    figure = figures.planes(points, heads, labels, [f"a very long name of class {k}" for k in range(17)],
                            plane(points[STATES[1]]))
    shown = [t.get_text() for t in figure.legends[0].get_texts()]
    assert shown[0] == "11 other classes" and len(shown) == 7 and all(len(name) <= 18 for name in shown)
    arrows = [one for one in figure.axes[0].collections if isinstance(one, Quiver)]
    assert len(arrows) == 6
    assert_drawn(style.to_png(figure))


@pytest.mark.parametrize("classes", [2, 17])
def test_neighbours_show_features_and_stars_of_the_head(classes: int) -> None:
    labels, points, heads = cloud(classes)
    flat, stars = ({state: values[:, :2] for state, values in both.items()} for both in (points, heads))
    figure = figures.neighbours(flat, stars, labels, [f"class-{k}" for k in range(classes)], note="t-SNE")
    counts = [sum(len(one.get_offsets()) for one in panel.collections) for panel in figure.axes]
    assert counts == [60 + min(classes, 6)] * 2
    assert "t-SNE" in figure.get_supxlabel()
    assert_drawn(style.to_png(figure))


def test_one_state_equal_features_and_a_head_of_zeros_are_drawn() -> None:
    labels = np.array([0, 1, 0])
    points, heads = {"before": np.ones((3, 4))}, {"before": np.zeros((2, 4))}
    assert_drawn(style.to_png(figures.planes(points, heads, labels, ["a", "b"], plane(points["before"]))))
