"""Figures of the lens edges: what they show of what they are given, many tasks, one checkpoint, missing values."""

import numpy as np
import pytest
from tests.pictures import assert_drawn

from finetrace.figures.style import to_png
from finetrace.lenses.edges import figures

STEPS = (0, 20_000, 60_000, 200_000, 1_500_000)

# what an earlier test left open may be collected while a figure is drawn
pytestmark = pytest.mark.filterwarnings("error", "ignore::ResourceWarning")


def scores(tasks: int, steps: int = len(STEPS), layers: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(tasks)
    values = {f"task-{n}": np.sort(random.random((steps, layers)), axis=0) * 0.8 for n in range(tasks)}
    return {name: np.stack([v, v - 0.02, v + 0.02], axis=2) for name, v in values.items()}


def texts(figure) -> str:
    return " ".join(one.get_text() for one in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_scores_have_a_line_per_layer_in_percent_and_the_full_mix():
    single = scores(3)
    figure = figures.scores(STEPS, single, full={name: v[:, 0] for name, v in single.items()},
                            majority={"task-0": 0.25},
                            axis="pre-training steps", title="Edge probes", note="recipe fast")
    panel = figure.axes[0]
    drawn = [line for line in panel.lines if len(line.get_ydata()) == len(STEPS)]
    assert len(drawn) == 5
    for layer in range(4):
        np.testing.assert_allclose(drawn[layer].get_ydata(), 100 * single["task-0"][:, layer, 0])
    np.testing.assert_allclose(np.diff(drawn[0].get_xdata())[0],
                               np.log10(2))  # step 0 stands beside the first one after it
    assert panel.get_title(loc="left") == "task-0" and panel.get_ylabel() == "micro F1 (%)"
    assert figure.axes[1].get_xlabel() == "pre-training steps"
    for word in ("mix of all layers", "most frequent class", "layer (0: embeddings)", "1.5M", "recipe fast"):
        assert word in texts(figure), word
    assert_drawn(to_png(figure))


def test_layers_without_a_probe_and_a_single_checkpoint():
    single = scores(1, steps=1)
    single["task-0"][:, [1, 2]] = np.nan
    figure = figures.scores((40,), single)
    assert len([line for line in figure.axes[0].lines if len(line.get_ydata()) == 1]) == 2
    for made in (figure, figures.lattices((40,), single), figures.strips((40,), {"a": np.full((1, 3), 1 / 3)}),
                 figures.centre((40,), {"a": np.array([1.0])}, {}, layers=3),
                 figures.cumulative((40,), scores(1, steps=1))):
        assert_drawn(to_png(made))


def test_at_most_eight_tasks_are_drawn_and_the_rest_counted():
    single = scores(10)
    made = {"scores": figures.scores(STEPS, single), "lattices": figures.lattices(STEPS, single),
            "cumulative": figures.cumulative(STEPS, single, {"task-0": np.array([1.0, np.nan, 1.5, 2.0, 2.5])}),
            "strips": figures.strips(STEPS, {name: v[..., 0] / v[..., 0].sum(1, keepdims=True) if name == "x" else
                                             np.full((5, 4), 0.25) for name, v in single.items()})}
    for name, figure in made.items():
        shown = texts(figure)
        assert "8 of 10 tasks are drawn" in shown and "task-7" in shown and "task-8" not in shown, name
        assert max(figure.get_size_inches()) <= 15, name


def test_heat_maps_have_layers_upwards_and_numbers_where_there_is_room():
    single = scores(1)
    figure = figures.lattices(STEPS, single, axis="steps")
    image = figure.axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), 100 * single["task-0"][..., 0].T)
    assert image.origin == "lower" and f"{100 * single['task-0'][4, 3, 0]:.0f}" in texts(figure)


def test_strips_show_the_weights_of_first_and_last_step():
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(4), 12)
    figure = figures.strips(range(12), {"pos": weights}, axis="fine-tuning steps")
    panels = [axes for axes in figure.axes if axes.patches]
    assert len(panels) == 7
    for panel, step in ((panels[0], 0), (panels[-1], 11)):
        assert [bar.get_height() for bar in panel.patches] == pytest.approx(weights[step])
        assert panel.lines[-1].get_xdata()[0] == pytest.approx(weights[step] @ np.arange(4))
        assert panel.lines[0].get_ydata()[0] == 0.25
    assert "fine-tuning steps" in texts(figure) and "centre of gravity" in texts(figure)


def test_the_centre_of_gravity_stands_beside_that_of_even_weights():
    figure = figures.centre(STEPS, {"pos": np.arange(5.0)}, {"dep": np.array([1, 2, np.nan, 3, 4])}, layers=13)
    first, second = figure.axes[:2]
    assert first.lines[-1].get_ydata()[0] == 6 and "even weights" in texts(figure)
    np.testing.assert_allclose(first.lines[0].get_ydata(), np.arange(5.0))
    np.testing.assert_allclose(second.lines[0].get_ydata(), [1, 2, np.nan, 3, 4])
    assert_drawn(to_png(figure))


def test_cumulative_scores_are_drawn_over_the_layers_of_the_mix():
    mixes = scores(1, layers=6)
    figure = figures.cumulative(STEPS, mixes, {"task-0": np.full(5, 2.5)}, axis="pre-training steps")
    lines = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 6]
    assert len(lines) == 5
    np.testing.assert_allclose(lines[-1].get_ydata(), 100 * mixes["task-0"][-1, :, 0])
    assert figure.axes[0].lines[-1].get_xdata()[0] == 2.5 and "layers 0 to k in the mix" in texts(figure)


@pytest.mark.parametrize(("step", "label"), [(0, "0"), (8, "8"), (1200, "1.2k"), (1250, "1,250"), (20_000, "20k"),
                                             (1_500_000, "1.5M"), (2_000_000, "2M"), (12_345, "12.3k")])
def test_short_labels_of_steps(step, label):
    panel = figures.scores((step,), scores(1, steps=1)).axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [label]


def record(mixes: str = "all", **splits: str) -> dict:
    """What the stage stores for its figures."""
    found = scores(1)["task-0"]
    nothing = np.full((5, 4), np.nan)
    some = {"layer": found, "mix": found, "full": found[:, -1], "weight": np.full((5, 4), 0.25), "cog": np.full(5, 1.5),
            "expected_layer": np.full(5, 2.0), "majority": 0.3}
    none = some | {"mix": np.full_like(found, np.nan), "full": np.full((5, 3), np.nan), "weight": nothing,
                   "cog": nothing[:, 0]}
    tasks = {task: (some if mixes == "all" else none) | {"split": split} for task, split in splits.items()}
    return {"place": "toy/pretrain", "steps": list(STEPS), "axis": "pre-training steps", "recipe": "fast",
            "changed": True, "mixes": mixes, "tasks": tasks}


def test_a_record_gives_the_figures_for_which_it_has_something():
    made = figures.draw(record(pos="test", dep="validation"))
    assert set(made) == {"scores", "lattice", "weights", "centre", "cumulative"}
    for figure in made.values():
        assert "recipe fast with changes, pos: test, dep: validation" in texts(figure)
    assert "Edge probes: toy/pretrain" in texts(made["scores"])
    single = figures.draw(record("none", pos="test"))
    assert set(single) == {"scores", "lattice"} and "recipe fast with changes, test split" in texts(single["scores"])
