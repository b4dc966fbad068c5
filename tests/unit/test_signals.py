"""The signals of a study: which rows of the one table a metric's name means, and the one axis of a cell."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetrace.atlas import signals
from finetrace.atlas.signals import LEAST_TIMES, Cell, Signal, cell_of, cells_of, courses_by_metric, signals_by_metric

SAMPLE = Path(__file__).parents[1] / "data/micro-a-pretrain-curves.parquet"
TEXTS = ("place", "model", "task", "method", "lens", "quantity", "split", "label", "keys")
BEFORE = (0, 10, 20, 40, 80)


def row(quantity: str, step: int, value: float, **other: Any) -> dict[str, Any]:
    place = {"place": "m/t/ft/s1", "model": "m", "task": "t", "method": "ft", "seed": 1}
    rest = {"lens": "geometry", "layer": -1, "split": "", "label": "", "keys": ""}
    return {**place, **rest, "quantity": quantity, "step": step, "value": float(value), **other}


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype(dict.fromkeys(TEXTS, "category"))


def course(quantity: str, values: Any, steps: Any = BEFORE, **other: Any) -> list[dict[str, Any]]:
    return [row(quantity, step, value, **other) for step, value in zip(steps, values, strict=True)]


def values_of(rows: list[dict[str, Any]], name: str) -> list[float]:
    frame = table(rows)
    found = {signal.name: courses for pairs in courses_by_metric(frame).values() for signal, courses in pairs}
    return found[name]["m/t/ft/s1"][1].tolist()


def test_of_layers_the_last_or_the_best() -> None:
    rows = [*course("effective_rank", range(5), layer=2), *course("effective_rank", range(10, 15), layer=12),
            *course("effective_rank", range(5, 10), layer=3)]
    assert values_of(rows, "geometry/effective_rank") == [10, 11, 12, 13, 14]
    best = [*course("accuracy", [0.1, 0.9, 0.2, 0.2, 0.2], layer=0, split="validation", lens="probes"),
            *course("accuracy", [0.3, 0.3, 0.3, 0.3, 0.3], layer=1, split="validation", lens="probes"),
            *course("accuracy", [1, 1, 1, 1, 1], layer=1, split="train", lens="probes")]
    assert values_of(best, "probes/accuracy") == [0.3, 0.9, 0.3, 0.3, 0.3]


def test_words_are_splits_or_values_of_keys_and_flags_are_keys() -> None:
    rows = [*course("ece", range(5), lens="calibration", keys="set=validation scaled=False"),
            *course("ece", range(5, 10), lens="calibration", keys="set=test scaled=False"),
            *course("ece", range(10, 15), lens="calibration", keys="set=test scaled=True")]
    assert values_of(rows, "calibration/test/ece") == [5, 6, 7, 8, 9]
    assert values_of(rows, "calibration/test/ece_scaled") == [10, 11, 12, 13, 14]
    similar = [*course("cka", range(5), lens="similarity", layer=4,
                       keys="other_step=0 other_layer=4 representation=cls"),
               *course("cka", range(5, 10), lens="similarity", layer=4,
                       keys="other_step=0 other_layer=2 representation=cls")]
    assert values_of(similar, "similarity/cls/cka") == [0, 1, 2, 3, 4]  # the table's first


def test_of_alternatives_a_place_has_the_first_that_is_there() -> None:
    """A task without a test split is judged on validation; one with both is not judged twice."""
    without = {"place": "m/u/ft/s1", "task": "u"}
    rows = [*course("ece", range(5), lens="calibration", keys="set=validation scaled=False"),
            *course("ece", range(5, 10), lens="calibration", keys="set=test scaled=False"),
            *course("ece", range(10, 15), lens="calibration", keys="set=validation scaled=False", **without),
            *course("cosine_mean", range(5)), *course("cosine_mean", range(5), **without)]
    names = {cell.name: [signal.name for signal in cell.signals] for cell in cells_of(table(rows))}
    assert names == {"m/t/ft": ["geometry/cosine_mean", "calibration/test/ece"],
                     "m/u/ft": ["geometry/cosine_mean", "calibration/validation/ece"]}


def test_means_over_tasks_and_corpora() -> None:
    rows = [*course("f1", range(5), lens="edges", split="test", keys="task=pos readout=full"),
            *course("f1", range(2, 7), lens="edges", split="test", keys="task=dep readout=full"),
            *course("f1", range(50, 55), lens="edges", split="test", keys="task=dep readout=mix"),
            *course("f1", range(60, 65), lens="edges", split="validation", keys="task=dep readout=full")]
    assert values_of(rows, "edges/full/f1") == [1, 2, 3, 4, 5]
    facts = [*course("p_at_1", [1] * 5, lens="cloze", keys="corpus=a readout=own held_out=False"),
             *course("p_at_1", [0] * 5, lens="cloze", keys="corpus=b readout=own held_out=False"),
             *course("p_at_1", [7] * 5, lens="cloze", keys="corpus=a readout=tuned held_out=False"),
             *course("p_at_1", [3] * 5, lens="cloze", keys="corpus=a readout=own held_out=True")]
    assert values_of(facts, "cloze/p_at_1") == [0.5] * 5 and values_of(facts, "cloze/p_at_1_held_out") == [3] * 5


def test_only_overall_rows_over_steps() -> None:
    rows = [*course("cosine_mean", range(5)), *course("cosine_mean", range(5, 10), label="noun"),
            row("cosine_mean", -1, 9), row("cosine_mean", 160, np.nan), *course("effective_rank", [3, 1, 4, 1, 5]),
            *course("cka", range(5), place="comparisons/a", model="")]
    (cell,) = cells_of(table(rows))
    assert [signal.name for signal in cell.signals] == ["geometry/cosine_mean", "geometry/effective_rank"]
    assert cell.steps.tolist() == list(BEFORE) and cell.values[0, 0].tolist() == [0, 1, 2, 3, 4]
    assert cell.signals[1].unit == "dimensions" and cell.signals[1].heading == "effective rank"


def test_a_quantity_is_not_mistaken_for_another() -> None:
    rows = [*course("f1", range(5), lens="trajectory", split="validation"),
            *course("accuracy", range(5), lens="trajectory", split="validation")]
    names = {signal.name for signals in signals_by_metric(table(rows)).values() for signal in signals}
    assert names == {"trajectory/validation/accuracy"}  # micro_f1 is none that is there, and no mean of f1


def test_cells_are_fine_tunings_with_their_seeds_and_masked_word_trainings() -> None:
    place = {"place": "m/pretrain", "task": "", "method": "pretrain", "seed": -1}
    rows = []
    for of in ({}, {"place": "m/t/ft/s2", "seed": 2}, {"place": "m/t/lp/s1", "method": "lp"}, place):
        rows += [*course("cosine_mean", range(5), **of), *course("effective_rank", [3, 1, 4, 1, 5], **of)]
    cells = cells_of(table(rows))
    assert [(cell.name, cell.seeds) for cell in cells] == [("m/t/ft", (1, 2)), ("m/t/lp", (1,)), ("m/pretrain", (-1,))]
    assert cells[0].places == ("m/t/ft/s1", "m/t/ft/s2") and cells[0].values.shape == (2, 2, 5)


def signal(name: str) -> Signal:
    return Signal(name, name.partition("/")[0], "q", (), (), False, False, "", "")


def cell(**courses: tuple[Any, Any]) -> Cell:
    """One run; names with _ for /."""
    found = [(signal(name.replace("_", "/", 2)), [(np.array(steps), np.array(values, dtype=float))])
             for name, (steps, values) in courses.items()]
    made = cell_of("m/t/ft", [("m/t/ft/s1", 1)], found)
    assert made is not None
    return made


def test_the_axis_on_which_most_can_be_compared() -> None:
    coarse, fine = np.arange(0, 60, 10), np.arange(0, 51, 2)
    made = cell(a_x=(coarse, coarse), b_x=(coarse, -coarse), c_x=(fine, fine**2), c_y=(fine, np.sin(fine)))
    assert made.steps.tolist() == coarse.tolist() and len(made.signals) == 4 and not made.left_out
    np.testing.assert_array_equal(made.values[0, 2], coarse**2)
    made = cell(a_x=(coarse[:5], coarse[:5]), c_x=(fine, fine**2), d_x=(fine, np.sin(fine)), e_x=(fine, np.cos(fine)))
    assert made.steps.tolist() == fine.tolist()
    assert made.left_out == {"a/x": "not at the 26 steps that most signals share"}


def test_between_checkpoints_on_a_line_and_dense_signals_by_their_means() -> None:
    axis, other, every = np.array([0, 10, 20, 40, 80]), np.arange(0, 100, 20), np.arange(5, 80)
    made = cell(a_x=(axis, axis), b_x=(axis, axis + np.array([0, 1, 0, 1, 0])), c_x=(other, 3 * other),
                infodynamics_novelty=(every, every))
    assert made.steps.tolist() == axis.tolist()
    np.testing.assert_allclose(made.values[0, 2], 3 * axis)
    means = [every[:1].mean(), np.arange(6, 16).mean(), np.arange(16, 31).mean(), np.arange(31, 61).mean(),
             np.arange(61, 80).mean()]
    np.testing.assert_allclose(made.values[0, 3], means, atol=0.6)  # a step in the middle is either's


def test_what_is_left_out_says_why() -> None:
    steps, short = np.arange(6), np.arange(LEAST_TIMES - 1)
    runs = [("m/t/ft/s1", 1), ("m/t/ft/s2", 2)]
    both = (steps, np.array([3.0, 1, 4, 1, 5, 9]))
    made = cell_of("m/t/ft", runs, [
        (signal("a/x"), [both, both]), (signal("a/y"), [both, both]), (signal("b/x"), [both, None]),
        (signal("c/x"), [(short, short * 1.0)] * 2), (signal("d/x"), [(steps, np.full(6, 0.1))] * 2),
        (signal("e/x"), [None, None])])
    assert made is not None and [each.name for each in made.signals] == ["a/x", "a/y"]
    assert made.left_out == {"b/x": "looked at in 1 of 2 runs", "c/x": "fewer than 5 steps", "d/x": "does not move"}
    assert cell_of("m/t/ft", runs, [(signal("a/x"), [both, both])]) is None
    assert cell_of("m/t/ft", runs, []) is None


def test_axes_and_signals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "MOST_SIGNALS", 2)
    steps = np.arange(500)
    made = cell(a_x=(steps, steps), b_x=(steps, -steps), c_x=(steps, steps))
    assert len(made.steps) == signals.MOST_TIMES and made.steps[[0, -1]].tolist() == [0, 499]
    assert len(made.signals) == 2 and made.left_out == {"c/x": "the cell has 2 signals before it"}


def test_an_empty_study_has_no_cells() -> None:
    assert cells_of(table([row("cosine_mean", -1, 1)])) == [] and cells_of(table([row("x", 1, 1)])) == []


def test_the_curves_of_the_micro_world() -> None:
    (found,) = cells_of(pd.read_parquet(SAMPLE))
    assert [each.name for each in found.signals] == [
        "trajectory/validation/accuracy", "trajectory/train/loss", "trajectory/validation/loss", "cloze/p_at_1",
        "cloze/p_at_10", "cloze/p_at_1_held_out", "cloze/p_at_10_held_out", "pairs/accuracy"]
    known = dict(zip(found.steps.tolist(), found.values[0, 3].tolist(), strict=True))
    assert known[1200] == pytest.approx(0.295, abs=1e-3) and known[2000] == pytest.approx(0.98, abs=1e-2)
    assert "edges/full/f1" in found.left_out  # at 5 of the 10 steps
