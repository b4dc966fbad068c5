"""Figures of the geometry lens: what is drawn is what was given, cosines on [-1, 1], legible at the house size."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finetrace.figures import style
from finetrace.lenses.geometry import figures
from finetrace.lenses.geometry.cones import cone, cone_statistics
from finetrace.lenses.geometry.summary import Bands

LAYERS = 4
LABELS = {"cosine_mean": ("Cosine", "cosine, mean"), "rank": ("Rank", "directions"),
          "trace": ("Trace", "squared units")}


def bands(*shape: int, level: float = 0.3) -> Bands:
    value = level + 0.1 * np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)
    return Bands(value, value - 0.02, value + 0.03)


def boxes(level: float) -> np.ndarray:
    return np.array([[level - 0.4, level - 0.1, level, level + 0.1, level + 0.4]] * LAYERS)


def drawn(figure: Figure) -> np.ndarray:
    """(height, width, 4) pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_box_plots_stand_side_by_side_on_the_whole_range_of_cosines() -> None:
    raw, tuned = boxes(0.1), boxes(0.5)
    figure = figures.cosine_boxes(raw, tuned, bands(LAYERS), bands(LAYERS, level=0.6), steps=(0, 1200),
                                  note="64 sentences")
    (panel,) = figure.axes
    assert panel.get_ylim() == (-1, 1)
    medians = [one.get_ydata()[0] for one in panel.lines if one.get_color() == style.BLACK and len(one.get_ydata()) == 2
               and one.get_linewidth() == 1.6]
    assert medians == [0.1] * LAYERS + [0.5] * LAYERS
    whiskers = {round(float(y), 6) for one in panel.lines for y in np.ravel(one.get_ydata())}
    assert {-0.3, 0.1, 0.5, 0.9} <= whiskers  # ends of both boxes' whiskers
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "raw (step 0)", "tuned (step 1,200)", "mean of the sentences' medians, raw",
        "mean of the sentences' medians, tuned"]
    assert "64 sentences" in figure.get_supxlabel() and drawn(figure).shape == (600, 900, 4)


@pytest.mark.parametrize(("steps", "names"), [((4, 20), ["first (step 4)", "last (step 20)"]),
                                              ((0, 0), ["first (step 0)", "last (step 0)"])])
def test_checkpoints_that_begin_later_are_not_called_raw(steps: tuple[int, int], names: list[str]) -> None:
    first, last = bands(LAYERS), bands(LAYERS, level=0.6)
    figure = figures.cosine_boxes(boxes(0.1), boxes(0.5), first, last, steps=steps)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()][:2] == names
    figure = figures.layer_profiles({"effective_rank": (first, last)}, figures.LABELS, steps=steps)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == names


def test_a_layer_without_cosines_is_left_empty() -> None:
    raw = boxes(0.1)
    raw[1] = np.nan
    gone = np.full(LAYERS, np.nan)
    figure = figures.cosine_boxes(raw, np.full((LAYERS, 5), np.nan), bands(LAYERS), Bands(gone, gone, gone),
                                  steps=(0, 0))
    assert len(figure.axes[0].patches) == LAYERS - 1
    drawn(figure)


def test_profiles_draw_both_ends_with_intervals_and_honest_axes() -> None:
    profiles = {name: (bands(LAYERS), bands(LAYERS, level=0.5)) for name in LABELS}
    figure = figures.layer_profiles(profiles, LABELS, steps=(0, 64))
    assert [panel.get_title(loc="left")[4:] for panel in figure.axes] == ["Cosine", "Rank",
                                                                          "Trace"]  # the fourth place is empty
    for panel, (name, (_, unit)) in zip(figure.axes, LABELS.items(), strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), profiles[name][0].value)
        np.testing.assert_array_equal(panel.lines[1].get_ydata(), profiles[name][1].value)
        assert panel.get_ylabel() == unit and len(panel.collections) == 2
        assert panel.get_ylim() == (-1, 1) if unit.startswith("cosine") else panel.get_ylim()[0] == 0
    drawn(figure)


def test_trajectories_have_a_line_per_layer_and_show_step_0() -> None:
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64, 400])
    curves = {"cosine_mean": bands(len(steps), LAYERS), "rank": bands(len(steps), LAYERS)}
    figure = figures.trajectories(steps, curves, LABELS)
    panel = figure.axes[0]
    assert panel.get_xscale() == "symlog" and {0, 400} <= set(panel.get_xticks())
    for layer in range(LAYERS):
        np.testing.assert_array_equal(panel.lines[layer].get_ydata(), curves["cosine_mean"].value[:, layer])
    assert len({one.get_color() for one in panel.lines[:LAYERS]}) == LAYERS and panel.get_ylim() == (-1, 1)
    assert figure.axes[1].get_ylim()[0] == 0 and figure.axes[2].get_xlabel() == "layer (0 = embeddings)"
    drawn(figure)


@pytest.mark.parametrize("steps", [[0], [0, 5], [100, 200, 300]])
def test_trajectories_of_few_checkpoints_can_be_drawn(steps: list[int]) -> None:
    assert drawn(figures.trajectories(np.array(steps), {"rank": bands(len(steps), 1)}, LABELS)).std() > 0


def classes(count: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, count, rows)
    return random.normal(size=(rows, 8)) + 3 * random.normal(size=(count, 8))[labels], labels


def cone_figure(count: int, rows: int = 60) -> tuple[Figure, np.ndarray, np.ndarray]:
    vectors, labels = classes(count, rows)
    raw = np.random.default_rng(1).normal(size=vectors.shape)
    both = (raw, vectors)
    return figures.class_cones(
        tuple(cone(v, labels) for v in both), tuple(cone(v, labels, "first") for v in both), labels,
        [f"class {c}" for c in range(count)], statistics=tuple(cone_statistics(v, labels) for v in both), steps=(0, 64),
        layer=3, note="cls vectors"), vectors, labels


def test_two_classes_are_drawn_against_both_means_and_against_the_first_sentence() -> None:
    figure, vectors, labels = cone_figure(2)
    _, tuned, _, first = figure.axes[:4]
    cosines = cone(vectors, labels)
    np.testing.assert_allclose(np.ma.getdata(tuned.collections[1].get_offsets()), cosines[labels == 1])
    points = np.ma.getdata(first.collections[0].get_offsets())
    np.testing.assert_array_equal(points[:, 0], np.flatnonzero(labels == 0))
    np.testing.assert_allclose(points[:, 1], cone(vectors, labels, "first")[labels == 0])
    assert tuned.get_xlim() == tuned.get_ylim() == first.get_ylim() == (-1.04, 1.04)
    assert f"{cone_statistics(vectors, labels).angle:.0f}° apart" in tuned.get_title(loc="left")
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == ["class 0", "class 1"]
    drawn(figure)


@pytest.mark.parametrize("count", [3, 14])
def test_more_classes_are_a_matrix_of_mean_cosines(count: int) -> None:
    figure, vectors, labels = cone_figure(count, 120)
    (image,) = figure.axes[1].images
    np.testing.assert_allclose(image.get_array(), cone_statistics(vectors, labels).similarity)
    assert image.get_clim() == (-1, 1)
    assert len(figure.axes[1].texts) == (count * count if count <= 12 else 0)
    drawn(figure)


def test_equal_figures_are_equal_bytes() -> None:
    assert style.to_png(cone_figure(2)[0]) == style.to_png(cone_figure(2)[0])
