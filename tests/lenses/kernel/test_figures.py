"""Figures of the lens kernel: what they show of what they are given, empty parts, many classes, size."""

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import LogNorm, Normalize
from tests.pictures import assert_drawn

from finetrace.figures.style import to_png
from finetrace.lenses.kernel import figures
from finetrace.lenses.kernel.summary import PARTS

STEPS = (0, 1, 16, 250)
RANDOM = np.random.default_rng(3)

# what an earlier test left open may be collected while a figure is drawn
pytestmark = pytest.mark.filterwarnings("error", "ignore::ResourceWarning")


def texts(figure: Any) -> str:
    return " ".join(one.get_text() for one in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def curve(values: list[float], low: float = np.nan) -> np.ndarray:
    return np.array([[v, v - low if np.isfinite(low) else np.nan, v + low if np.isfinite(low) else np.nan]
                     for v in values])


# --- course -------------------------------------------------------------------------------------------------------


def panels(count: int = 6) -> list[figures.Panel]:
    three = {part: curve([1.0 + k, 2, 3, 4]) for k, part in enumerate(PARTS)}
    every = [figures.Panel("Size", "Frobenius norm", "log", three),
             figures.Panel("FT Ratio", "FT Ratio", "zero", {"full": curve([0.2, 0.4, 0.3, 0.3], 0.05)}),
             figures.Panel("Alignment", "alignment", "share", {part: curve([0.1, 0.1, 0.2, 0.3]) for part in PARTS},
                           floor=0.05),
             figures.Panel("Distance", "distance", "zero", three), figures.Panel("Velocity", "velocity", "log", three),
             figures.Panel("Accuracy", "accuracy", "share", {part: curve([0.5, 0.6, 0.6, 0.7], 0.1) for part in PARTS})]
    return every[:count]


def test_a_panel_shows_its_curves_intervals_and_floor() -> None:
    figure = figures.course(STEPS, panels())
    size, ratio, alignment = figure.axes[:3]
    assert [list(line.get_ydata()) for line in size.lines] == [[3, 2, 3, 4], [1, 2, 3, 4], [2, 2, 3, 4]]
    assert size.get_yscale() == "log" and ratio.get_yscale() == alignment.get_yscale() == "linear"
    assert len(ratio.collections[0].get_segments()) == 4 and not size.collections[0].get_segments()
    assert list(alignment.lines[-1].get_ydata()) == [0.05, 0.05]
    assert alignment.get_ylim()[0] == 0 and alignment.get_ylim()[1] >= 1 and ratio.get_ylim()[0] == 0
    assert [tick.get_text() for tick in figure.axes[3].get_xticklabels()] == ["0", "1", "16", "250"]
    assert "F: all else" in texts(figure)


def test_a_part_that_is_zero_or_unknown_leaves_the_panel_readable() -> None:
    zero = {"pretrain_effective": curve([5, 6, 7, 8]), "ft_effective": curve([0, 0, 0, 0]), "full": curve([np.nan] * 4)}
    figure = figures.course(STEPS, [figures.Panel("Size", "norm", "log", zero)])
    assert figure.axes[0].get_ylim()[0] > 1 and len(figure.axes[0].lines) == 1
    begins = figures.course(STEPS, [figures.Panel("Velocity", "v", "log", {"full": curve([np.nan, 0, 1e-4, 1e-5])})])
    np.testing.assert_array_equal(begins.axes[0].lines[0].get_ydata(), [np.nan, np.nan, 1e-4, 1e-5])
    nothing = figures.Panel("Velocity", "velocity", "log", {part: curve([0.0, 0, 0, 0]) for part in PARTS})
    assert_drawn(to_png(figures.course(STEPS, [nothing])))
    assert_drawn(to_png(figures.course([0], [figures.Panel("Size", "norm", "log", {"full": curve([3.0])})])))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6])
def test_any_number_of_panels_has_room(count: int) -> None:
    figure = figures.course(STEPS, panels(count), title="Kernel over training: x", note="60 training examples")
    assert len(figure.axes) == count
    assert_drawn(to_png(figure))


# --- spectra ------------------------------------------------------------------------------------------------------


def test_spectra_are_drawn_as_given_down_to_a_little_below_the_tolerance() -> None:
    values = np.logspace(0, -12, 40)
    lines = {"step 0": (values, 20), "step 250": (values**2, 10)}
    figure = figures.spectra({part: lines for part in PARTS}, 1e-5)
    panel = figure.axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata()[:17], values[:17])
    np.testing.assert_array_equal(panel.lines[0].get_xdata(), np.arange(1, 41))
    assert panel.get_yscale() == "log" and 1e-7 < panel.get_ylim()[0] < 1e-5
    assert "rank 20 of 40" in texts(figure) and "1e-05" in texts(figure)
    assert_drawn(to_png(figure))


def test_a_part_that_is_zero_says_so_and_a_tolerance_of_zero_can_be_drawn() -> None:
    lines = {"step 0": (np.full(5, np.nan), 0)}
    figure = figures.spectra({"ft_effective": lines, "full": {"step 0": (np.ones(5), 5)}}, 0.0)
    assert "zero" in [text.get_text() for text in figure.axes[0].texts] and not figure.axes[1].texts
    assert_drawn(to_png(figure))


# --- heat maps ----------------------------------------------------------------------------------------------------


def test_cells_hold_one_class_and_all_classes_have_one() -> None:
    labels = RANDOM.permutation(np.array([0] * 150 + [3] * 40 + [7]))
    bins, of_bin = figures.sorted_bins(labels, 64)
    assert 40 <= len(of_bin) <= 64 and list(np.unique(of_bin)) == [0, 3, 7] and (np.diff(of_bin) >= 0).all()
    np.testing.assert_array_equal(of_bin[bins], labels)
    assert (
        np.bincount(bins)[of_bin == 0].tolist() == [3] * 50
    )  # of one size, so that no diagonal cell is only pairs of itself
    assert len(np.unique(bins)) == len(of_bin)
    few = figures.sorted_bins(np.array([1, 0, 1]), 64)
    np.testing.assert_array_equal(few[0], [1, 0, 2])


def test_a_cell_is_the_mean_over_pairs_of_different_examples() -> None:
    labels = np.array([0, 0, 1, 0, 1, 2])
    bins, of_bin = figures.sorted_bins(labels, 3)
    values = RANDOM.random((6, 6))
    found = figures.averages(values, bins, len(of_bin))
    assert found.shape == (3, 3)
    for i in range(len(of_bin)):
        for j in range(len(of_bin)):
            a, b = np.flatnonzero(bins == i), np.flatnonzero(bins == j)
            pairs = [values[n, m] for n in a for m in b if n != m or len(a) == 1]
            assert found[i, j] == pytest.approx(np.mean(pairs))


def test_heat_maps_of_one_part_share_a_scale_that_starts_at_zero_or_is_logarithmic() -> None:
    labels = np.arange(30) % 3
    near, far = 5 + RANDOM.random((30, 30)), np.exp(RANDOM.normal(size=(30, 30)) * 2)
    figure = figures.blocks({"step 0": {"pretrain_effective": near, "ft_effective": far},
                             "step 9": {"pretrain_effective": 2 * near, "ft_effective": 50 * far}}, labels,
                            ["a", "b", "c"])
    norms = [panel.images[0].norm for panel in figure.axes if panel.images]
    assert [type(norm) for norm in norms] == [Normalize, LogNorm, Normalize, LogNorm]
    assert (norms[0].vmin, norms[0].vmax) == (norms[2].vmin, norms[2].vmax) == (0, (2 * near).max())
    assert norms[1].vmax == norms[3].vmax == (50 * far).max() and norms[1].vmin >= norms[1].vmax / 1000 * 0.999
    assert "log scale" in texts(figure)
    shown = figure.axes[0].images[0].get_array()
    order = np.argsort(labels, kind="stable")
    np.testing.assert_allclose(shown, near[order][:, order])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]
    assert [tick.get_text() for tick in figure.axes[2].get_xticklabels()] == ["a", "b", "c"]
    assert np.allclose(figure.axes[0].collections[0].get_segments()[0][0][1], 9.5)  # between the classes


def test_a_zero_part_and_many_unequal_classes_can_be_drawn() -> None:
    labels = np.concatenate([np.arange(50), np.zeros(150, dtype=int)])
    norms = {"step 0": {"pretrain_effective": RANDOM.random((200, 200)), "ft_effective": np.zeros((200, 200))}}
    figure = figures.blocks(norms, labels, [f"a-very-long-label-name-{k}" for k in range(50)], note="note")
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert 0 < len(ticks) <= 20 and max(map(len, ticks)) <= 14
    assert figure.axes[0].images[0].get_array().shape == (50, 50)
    assert_drawn(to_png(figure))  # noise is the worst case


# --- groups -------------------------------------------------------------------------------------------------------


def shares(layers: int) -> dict[str, float]:
    names = ["embeddings", "rest", *(f"layer-{k:02d}/{kind}" for k in range(layers)
                                     for kind in ("attention", "ffn", "norms", "biases"))]
    values = RANDOM.random(len(names))
    return dict(zip(names, values / values.sum(), strict=True))


@pytest.mark.parametrize("layers", [2, 24])
def test_bars_are_the_shares_stacked_by_layer(layers: int) -> None:
    found = shares(layers)
    figure = figures.groups({"step 0": found, "step 9": found}, title="t")
    panel = figure.axes[0]
    assert sum(bar.get_height() for bar in panel.patches) == pytest.approx(1)
    ticks = [tick.get_text() for tick in panel.get_xticklabels()]
    assert ticks == ["emb.", *map(str, range(layers)), "rest"][::2 if layers > 12 else 1]
    tops = [max(bar.get_y() + bar.get_height() for bar in panel.patches
                if round(bar.get_x() + bar.get_width() / 2) == k)
            for k in range(layers + 2)]
    assert tops[1] == pytest.approx(sum(v for name, v in found.items() if name.startswith("layer-00/")))
    assert tops[0] == pytest.approx(found["embeddings"]) and tops[-1] == pytest.approx(found["rest"])
    assert_drawn(to_png(figure))


def test_adapters_have_attention_only_and_a_part_of_zero_says_so() -> None:
    figure = figures.groups({"step 0": {"layer-00/attention": np.nan, "layer-01/attention": np.nan},
                             "step 9": {"layer-00/attention": 0.3, "layer-01/attention": 0.7}})
    assert [text.get_text() for text in figure.axes[0].texts] == ["zero"]
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0.3, 0.7]
    assert_drawn(to_png(figure))
