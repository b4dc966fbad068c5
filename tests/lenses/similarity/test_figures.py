"""Figures of similarity: what is drawn is what was given, on one honest scale, undefined values in grey or as gaps."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finetrace.figures import style
from finetrace.lenses.similarity import figures
from finetrace.lenses.similarity.measures import MEASURES

STEPS, LAYERS = np.array([0, 4, 16, 1000]), np.arange(3)
VALUES = np.array([[np.nan, np.nan, np.nan, np.nan], [1, 0.9, 0.5, 0.2], [1, 0.7, 0.1, -0.004]])


def drawn(figure: Figure) -> np.ndarray:
    """(height, width, 4) pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def heat_map(values: np.ndarray = VALUES, panels: int = 2, **options: object) -> Figure:
    maps = [[figures.Lattice(f"panel {i}", np.arange(values.shape[0]), STEPS[:values.shape[1]] if values.shape[1] <= 4
                             else np.arange(values.shape[1]), values) for i in range(panels)]]
    return figures.heat_maps(maps, "cka", "optimiser step", "layer", title="Similarity",
                             **options)  # type: ignore[arg-type]


def texts(panel) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_a_heat_map_shows_its_values_on_the_fixed_scale_0_to_1() -> None:
    figure = heat_map()
    left, right, bar = figure.axes
    for panel in (left, right):
        image = panel.images[0]
        np.testing.assert_array_equal(image.get_array().filled(np.nan), VALUES)
        assert image.norm.vmin == 0 and image.norm.vmax == 1
        assert image.origin == "lower"  # layer 0 at the bottom
        assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "4", "16", "1,000"]
        assert panel.get_xlabel() == "optimiser step"
    assert left.get_ylabel() == "layer" and left.get_title(loc="left") == "panel 0"
    assert "CKA" in bar.get_ylabel() and "1 = equal" in bar.get_ylabel()
    assert texts(left) == ["1.00", "0.90", "0.50", "0.20", "1.00", "0.70", "0.10", "0.00"]


def test_undefined_cells_are_grey_and_explained() -> None:
    figure = heat_map(np.where(np.isnan(VALUES), np.nan, 0.5))
    assert figures.UNDEFINED_NOTE in figure.get_supxlabel()
    panel = figure.axes[0]
    pixels = drawn(figure)
    x, y = panel.transData.transform((0.3, 0.3))
    grey = pixels[int(pixels.shape[0] - y), int(x), :3]
    np.testing.assert_array_equal(grey, [0xBD] * 3)
    assert figures.UNDEFINED_NOTE not in heat_map(np.abs(VALUES[1:]), note="all there").get_supxlabel()


def test_large_heat_maps_keep_readable_ticks_and_leave_values_out() -> None:
    figure = heat_map(np.random.default_rng(0).random((25, 30)))
    panel = figure.axes[0]
    assert not texts(panel)
    labels = [int(label.get_text()) for label in panel.get_xticklabels()]
    assert len(labels) <= 8 and labels[-1] == 29
    assert [int(label.get_text()) for label in panel.get_yticklabels()][-1] == 24


def test_rows_of_heat_maps_share_one_colour_bar() -> None:
    one = figures.Lattice("x", LAYERS, LAYERS, np.eye(3))
    figure = figures.heat_maps([[one, one], [one, one]], "rsa", "layer of the first", "layer of the second")
    assert len(figure.axes) == 5 and figure.axes[4].get_ylabel().startswith("RSA")
    assert [panel.get_xlabel() for panel in figure.axes[:4]] == ["", "", "layer of the first", "layer of the first"]


def curves(low: float = 0.02) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    gone = np.full(3, np.nan)
    found = {measure: (LAYERS, np.array([np.nan, 0.9, 0.8]) - 0.1 * i, gone, gone)
             for i, measure in enumerate(MEASURES)}
    found["cka"] = (LAYERS, np.array([np.nan, 0.9, low]), np.array([np.nan, 0.85, low - 0.05]),
                    np.array([np.nan, 0.93, 0.1]))
    return found


def test_measures_stand_side_by_side_with_intervals_of_cka() -> None:
    figure = figures.measures({"cls": curves(), "tokens": curves()}, note="last against first")
    left = figure.axes[0]
    assert [line.get_label() for line in left.lines] == list(figures.LABELS.values())
    for line, (_, values, _, _) in zip(left.lines, curves().values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
    bars = [segment[:, 1].tolist() for collection in left.collections for segment in collection.get_segments()]
    assert bars == [[0.85, 0.93], [pytest.approx(-0.03), 0.1]]
    assert left.get_ylim()[0] < -0.03 and left.get_ylim()[1] == pytest.approx(1.04)
    assert len({line.get_color() for line in left.lines}) == len({line.get_marker() for line in left.lines}) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(figures.LABELS.values())
    assert "gaps: undefined" in figure.get_supxlabel() and "last against first" in figure.get_supxlabel()


def test_measures_start_at_0_where_nothing_is_below() -> None:
    known = {"cka": (LAYERS, np.array([1, 0.9, 0.8]), np.array([1, 0.85, 0.7]), np.array([1, 0.93, 0.9]))}
    figure = figures.measures({"a": known, "b": known, "c": known})
    assert figure.axes[0].get_ylim()[0] == 0 and len(figure.axes) == 3
    assert "undefined" not in figure.get_supxlabel()
    assert [panel.get_xlabel() != "" for panel in figure.axes] == [False, True, True]


def test_measures_without_any_value_can_be_drawn() -> None:
    gone = np.full(3, np.nan)
    assert drawn(figures.measures({"cls": {"cka": (LAYERS, gone, gone, gone)}})).std() > 0


@pytest.mark.parametrize("layers", [3, 13])
def test_changes_are_1_minus_the_similarity_to_the_checkpoint_before(layers: int) -> None:
    values = np.vstack([np.full(4, np.nan), np.random.default_rng(0).random((layers - 1, 4))])
    figure = figures.changes({"cls": (np.arange(layers), STEPS, values), "mean": (np.arange(layers), STEPS, values)},
                             "cka")
    left = figure.axes[0]
    assert len(left.lines) == layers - 1
    for line, row in zip(left.lines, values[1:], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), 1 - row)
    assert len({line.get_color() for line in left.lines}) == layers - 1
    assert left.get_ylim()[0] == 0 and "1 - CKA" in left.get_ylabel()
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "4", "16", "1,000"]
    assert "cls: layer 0 undefined" in figure.get_supxlabel()
    if layers == 3:
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["layer 2", "layer 1"]
    else:
        assert not figure.legends and figure.axes[2].get_ylabel() == "layer (0 = embeddings)"
        drawn(figure)


def test_equal_figures_are_equal_bytes_of_the_house_size() -> None:
    first, second = (style.to_png(heat_map()) for _ in range(2))
    assert first == second
    assert drawn(heat_map()).shape == (600, 900, 4)
