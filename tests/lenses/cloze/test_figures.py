"""Figures of the lens cloze: what they draw, with few and many relations and checkpoints, with and without a
control."""

import numpy as np
import pytest

from finetrace.figures.style import to_png
from finetrace.lenses.cloze import figures

STEPS = [0, 20_000, 60_000, 100_000, 200_000, 400_000, 700_000, 1_000_000, 1_500_000, 2_000_000]
COMMON = {"readout": "own", "axis": "pre-training steps", "title": "TREx: bert/pretrain",
          "note": "ranked among 21,000 words"}


def with_interval(values):
    values = np.asarray(values, dtype=float)
    return np.stack([values, np.clip(values - 0.03, 0, 1), np.clip(values + 0.03, 0, 1)], axis=-1)


def learned(layer, count, top=0.6, layers=13):
    """P@1 over checkpoints: later layers know more, from some checkpoint on."""
    return top * (max(layer, 0) / (layers - 1)) ** 3 / (1 + np.exp(3 - np.arange(count)))


def layers_of(count, layers=13):
    return {statistic: {layer: with_interval(learned(layers - 1 if layer < 0 else layer, count, top, layers))
                        for layer in (*range(layers), -1)} for statistic, top in (("p_at_1", 0.3), ("p_at_10", 0.6))}


def size(figure):
    return to_png(figure)[16:24]


def test_by_step():
    control = {"known": with_interval(learned(12, 10)), "held_out": with_interval(np.full(10, 0.05)), "chance": 0.06}
    figure = figures.by_step(STEPS, layers_of(10), control, **COMMON)
    assert len(figure.axes) == 3 and len(figure.axes[0].lines) == 14 and len(figure.axes[2].lines) == 3
    assert figure.axes[2].lines[2].get_ydata()[0] == pytest.approx(6)
    assert np.allclose(figure.axes[1].lines[12].get_ydata(), 100 * learned(12, 10, 0.6))
    assert figure.axes[0].get_ylim()[1] < 60 and figure.axes[1].get_ylim() == (0, 100)
    assert len(figures.by_step(STEPS, layers_of(10), None, **COMMON).axes) == 2
    without = figures.by_step(STEPS, layers_of(10), control | {"chance": np.nan}, **COMMON)
    assert len(without.axes[2].lines) == 2 and "own head" in without.axes[2].get_title(loc="left")
    assert size(figures.by_step([0], layers_of(1, 5), None, **COMMON))


def test_by_readout():
    lines = {name: with_interval(np.linspace(0, 0.5, 13) ** (number + 1)) for number, name in enumerate(figures.NAMES)}
    figure = figures.by_readout({"p_at_1": lines, "p_at_10": lines}, title="t")
    assert [line.get_label() for line in figure.axes[0].lines] == ["own head", "trained head", "tuned map"]
    assert len(figures.by_readout({"p_at_1": {"own": lines["own"]},
                                   "p_at_10": {"own": lines["own"]}}).axes[1].lines) == 1


@pytest.mark.parametrize("count", [1, 4, 5, 12])
def test_relations(count):
    random = np.random.default_rng(0)
    maps = {f"P{i} ({900 - i})": np.clip(np.stack([learned(layer, 10)
                                                   for layer in range(13)]) * random.uniform(0.3, 1.5), 0, 1)
            for i in range(count)}
    figure = figures.relations(STEPS, maps, **COMMON)
    drawn = [a for a in figure.axes if a.get_visible() and a.images]
    assert len(drawn) == count and all(a.images[0].get_clim() == (0, 100) for a in drawn)
    assert size(figure)


@pytest.mark.parametrize("count", [2, 10])
def test_changes(count):
    steps = STEPS[:count]
    found = {"learned": np.linspace(0.1, 0, count), "kept": np.linspace(0, 0.4, count),
             "lost": np.linspace(0.02, 0.01, count)}
    figure = figures.changes(steps, found, **COMMON)
    assert [len(bars) for bars in figure.axes[0].containers] == [count] * 3
    assert [round(bar.get_height(), 6) for bar in figure.axes[0].containers[2]] == (-100 * found["lost"]).round(
        6
    ).tolist()
    assert size(figure)


@pytest.mark.parametrize("corpora", [["world"], ["TREx", "Google_RE"]])
def test_a_record_gives_figures_of_each_corpus(corpora):
    view = {"layers": layers_of(2), "control": None,
            "readouts": {"p_at_1": {"own": with_interval(np.linspace(0, 0.5, 13))}},
            "relations": {"P1 (9)": np.zeros((13, 2))},
            "changes": {name: np.full(2, 0.1) for name in ("learned", "kept", "lost")}}
    record = {"place": "bert/pretrain", "steps": [0, 100], "axis": "pre-training steps", "words": 21_000, "head": "own",
              "readout": "own", "corpora": dict.fromkeys(corpora, view)}
    endings = [""] if len(corpora) == 1 else ["-trex", "-google-re"]
    made = figures.draw(record)
    assert list(made) == [f"{name}{end}" for end in endings
                          for name in ("precision", "readouts", "relations", "changes")]
    said = made[f"relations{endings[0]}"].get_supxlabel()
    assert "mean over relations; ranked among 21,000 words; masked-word head: own" in said
    at_once = {corpus: view | {"changes": None} for corpus in corpora}
    assert not any("changes" in name for name in figures.draw(record | {"corpora": at_once}))
