"""Figures of probes: what is drawn is what was given, on stated scales."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from finetrace.figures import style
from finetrace.lenses.probes import figures

ROWS = {"0": {5: (0.5, 0.4, 0.6), 7: (0.625, 0.55, 0.7)}, "64": {5: (0.9, 0.85, 0.95), 7: (1.0, 0.97, 1.0)}}


def texts(panel) -> list[str]:
    return [t.get_text() for t in panel.texts]


def overlapping(figure) -> list[tuple[str, str]]:
    """Pairs of texts inside the panels whose boxes cross."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [t for panel in figure.axes for t in panel.texts]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer()).shrunk(0.98, 0.9)) for t in shown]
    return [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1:] if x.overlaps(y)]


def test_lattice_has_variants_down_layers_across_and_numbers_in_every_cell() -> None:
    figure = figures.lattice(ROWS, split="validation", floor=0.5, row_label="step", title="x")
    panel, bar = figure.axes
    np.testing.assert_array_equal(panel.images[0].get_array(), [[0.5, 0.625], [0.9, 1.0]])
    assert panel.images[0].get_clim() == (0.5, 1.0)
    assert [t.get_text() for t in panel.get_xticklabels()] == ["5", "7"]
    assert [t.get_text() for t in panel.get_yticklabels()] == ["0", "64"]
    assert texts(panel) == ["50.0", "40.0–60.0", "62.5", "55.0–70.0", "90.0", "85.0–95.0", "100.0", "97.0–100.0"]
    assert "validation" in panel.get_title(loc="left") and bar.get_ylabel() == "accuracy (%)"
    assert "majority class (50.0 %) to 100 %" in figure.get_supxlabel()
    assert not overlapping(figure)


def test_lattice_without_floor_starts_at_zero_and_leaves_missing_layers_blank() -> None:
    figure = figures.lattice({"a": {0: (0.2, np.nan, np.nan)}, "b": {1: (0.8, np.nan, np.nan)}}, split="test")
    panel = figure.axes[0]
    assert panel.images[0].get_clim() == (0, 1)
    assert texts(panel) == ["20.0", "80.0"]
    with pytest.raises(ValueError, match="hold no layer"):
        figures.lattice({"a": {}}, split="test")


def test_large_lattices_show_numbers_alone_without_overlap() -> None:
    rows = {str(s): {layer: (0.5 + layer / 30, 0.4, 0.6) for layer in range(13)} for s in range(12)}
    figure = figures.lattice(rows, split="validation", floor=0.5)
    assert len(texts(figure.axes[0])) == 156 and not overlapping(figure)


def test_dark_cells_have_white_numbers() -> None:
    panel = figures.lattice(ROWS, split="validation", floor=0.5).axes[0]
    colours = {t.get_text(): t.get_color() for t in panel.texts}
    assert colours["100.0"] == "white" and colours["50.0"] == "#000000"


def test_layers_shows_intervals_floor_and_the_models_own_accuracy() -> None:
    states = {"step 0": np.array([[0.5, 0.4, 0.6], [0.6, 0.5, 0.7]]),
              "step 64": np.array([[0.7, 0.6, 0.8], [0.95, 0.9, 0.98]])}
    figure = figures.by_layer([0, 4], states, split="validation", floor=0.55, own={"step 64": 0.97}, title="x")
    panel = figure.axes[0]
    for container, values in zip(panel.containers, states.values(), strict=True):
        np.testing.assert_allclose(container.lines[0].get_ydata(), 100 * values[:, 0])
        segments = container.lines[2][0].get_segments()
        np.testing.assert_allclose([s[:, 1] for s in segments], 100 * values[:, 1:])
    labels = [t.get_text() for t in panel.get_legend().get_texts()]
    assert {"step 0", "step 64", "majority class", "the model's own classifier, step 64"} == set(labels)
    heights = {round(float(line.get_ydata()[0]), 6) for line in panel.lines if len(set(line.get_ydata())) == 1}
    assert {55, 97} <= heights
    assert panel.get_ylim()[0] <= 40 and panel.get_ylim()[1] <= 101
    assert "the axis starts at" in figure.get_supxlabel()


def test_training_draws_train_dashed_and_test_solid_for_at_most_six_layers() -> None:
    rng = np.random.default_rng(0)
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    states = {s: {n: rng.random((13, 7)) for n in names} for s in ("step 0", "step 64")}
    figure = figures.training(range(13), states, split="validation")
    panels = figure.axes
    assert len(panels) == 4 and all(len(p.lines) == 12 for p in panels)
    dashed = [line for line in panels[0].lines if line.is_dashed()]
    np.testing.assert_array_equal(dashed[-1].get_ydata(), states["step 0"]["train_loss"][12])
    np.testing.assert_array_equal(panels[3].lines[6].get_ydata(), 100 * states["step 64"]["test_accuracy"][0])
    assert panels[0].get_ylim()[0] == 0 and "6 of 13 layers are drawn" in figure.get_supxlabel()
    assert panels[0].get_ylabel() == "loss (nats per example)"


def test_compare_draws_a_panel_per_checkpoint_and_the_control_task_in_grey() -> None:
    one = np.array([[0.6, 0.5, 0.7], [0.9, 0.85, 0.95]])
    control = np.array([[0.5, 0.5, 0.5], [0.45, 0.45, 0.45]])
    states = {"step 0": {"logistic regression": one},
              "step 64": {"logistic regression": one, "best network": one + 0.02,
                                                                  "control task": control}}
    figure = figures.compare([0, 4], states, split="validation", floor=0.5, title="x", note="on span")
    before, after = figure.axes
    assert "step 0" in before.get_title(loc="left") and [len(panel.containers) for panel in figure.axes] == [1, 2]
    np.testing.assert_allclose(after.containers[1].lines[0].get_ydata(), [62, 92])
    grey = [line for line in after.lines if line.get_label() == "control task"]
    np.testing.assert_allclose(grey[0].get_ydata(), [50, 45])
    assert grey[0].is_dashed() and grey[0].get_color() == style.GREY
    assert before.get_ylim() == after.get_ylim() == (40, 101)
    assert "selectivity" in figure.get_supxlabel() and before.get_ylabel() == "accuracy on validation (%)"
    assert "selectivity" not in figures.compare([0, 4], {"a": {"logistic regression": one}},
                                                split="test").get_supxlabel()


def test_compression_starts_at_zero_and_marks_the_uniform_code() -> None:
    figure = figures.compression([0, 4], {"step 0": np.array([0.9, 1.2]), "step 64": np.array([1.1, np.nan])},
                                 title="x")
    panel, = figure.axes
    assert panel.get_ylim()[0] == 0 and [t.get_text() for t in panel.get_xticklabels()] == ["0", "4"]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [0.9, 1.2])
    assert {t.get_text() for t in panel.get_legend().get_texts()} == {"step 0", "step 64", "uniform code"}


def test_learning_has_a_line_per_split_with_its_band_for_at_most_four_layers() -> None:
    rng = np.random.default_rng(0)
    middle = rng.uniform(0.5, 0.9, size=(7, 6))
    splits = {name: np.stack([middle, middle - 0.1, middle + 0.1], axis=2)
              for name in ("subtrain", "subtest", "validation")}
    figure = figures.learning([0, 1, 2, 4, 8, 16, 32], range(6), splits, floor=0.4)
    assert len(figure.axes) == 4 and "4 of 6 layers are drawn" in figure.get_supxlabel()
    assert "layer 5" in figure.axes[3].get_title(loc="left")
    for panel, layer in zip(figure.axes, (0, 2, 3, 5), strict=True):
        lines = [line for line in panel.lines if len(line.get_xdata()) == 7]
        assert [line.get_label() for line in lines] == list(splits)
        np.testing.assert_allclose(lines[1].get_ydata(), 100 * middle[:, layer])
        assert len(panel.collections) == 3
    assert figure.axes[0].get_ylabel() == "accuracy (%)" and len(figures.learning([0], [0], {
        "subtrain": splits["subtrain"][:1, :1]}).axes) == 1
