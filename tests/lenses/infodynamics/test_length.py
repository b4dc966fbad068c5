"""Series that are too short for a window: one proposal that works, and what cannot be had is absent with its reason."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.lenses.infodynamics.test_stage import BATCH, run

from finetrace.atlas.collect import Entry
from finetrace.atlas.comparisons import _dynamics_curve
from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.infodynamics.length import absent, best_window, require_window
from finetrace.lenses.infodynamics.settings import InfodynamicsSettings
from finetrace.lenses.infodynamics.summary import training_dynamics
from finetrace.store.manifest import read_manifest
from finetrace.training.ahead import recorded_examples, require_signals
from finetrace.training.trainer import Plan

SLOPE = {"slope", "slope_r2", "slope_null_mean", "slope_null_low", "slope_null_high", "slope_p"}
INTERVAL = {"slope_ci_low", "slope_ci_high"}


def dynamics(examples: int, window: int, windows: tuple[int, ...] = ()) -> Any:
    random = np.random.default_rng(examples)
    labels = random.integers(0, 2, examples)
    return training_dynamics(random.normal(size=(examples, 2)), labels, np.arange(examples), np.arange(examples) / 50,
                             np.arange(examples), window=window, windows=windows, permutations=20)


@pytest.mark.parametrize("examples", [3, 7, 9, 10, 23, 60, 100, 299, 320])
def test_the_proposed_window_works(examples: int) -> None:
    with pytest.raises(ValueError, match=rf"window: {best_window(examples)} "):
        require_window(examples, 160)
    found = dynamics(examples, best_window(examples))
    if examples >= 10:
        assert set(found.absent) <= {"hurst_novelty"} and SLOPE | INTERVAL | {"change_points"} <= set(found.metrics)
    assert not set(found.metrics) & set(found.absent)


@pytest.mark.parametrize("examples", range(3, 105))
def test_nothing_fails_between_what_fits_and_what_does_not(examples: int) -> None:
    for window in {1, examples // 10, examples // 6, examples // 4, (examples - 1) // 2} - {0}:
        found = dynamics(examples, window, (2, examples))
        assert ("slope" in found.absent) is (found.slope is None)
        assert ("change_points" in found.absent) is (found.changes is None)
        assert (f"window {examples}" in found.absent) is (window != examples)


def test_too_few_for_any_window() -> None:
    with pytest.raises(ValueError, match=r"there are 2 training examples, and the smallest window takes 3"):
        require_window(2, 160)


def test_reasons_name_window_need_and_what_is_there() -> None:
    assert absent(1_600, 160, (320,)) == {}
    assert absent(500, 160, (320, 40, 160)) == {
        "slope_ci": "window 160 takes 1,600 training examples for it, and there are 500",
        "change_points": "window 160 takes 960 training examples for it, and there are 500",
        "window 320": "window 320 takes 641 training examples for it, and there are 500"}


@pytest.mark.parametrize(("steps", "window", "gone"), [
    (10, 20, {"slope_ci", "change_points", "hurst_novelty"}), (16, 20, {"slope_ci", "hurst_novelty"}),
    (6, 23, {"slope", "slope_ci", "change_points", "hurst_novelty"}), (26, 20, set())])
def test_what_cannot_be_had_is_absent_and_the_rest_is_written(tmp_path: Path, steps: int, window: int,
                                                              gone: set[str]) -> None:
    out = run(tmp_path, {"window": window, "windows": [5]}, figures=True, steps=steps)
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(read_manifest(out).facts.get("absent", {})) == gone
    assert (gone & {"slope"} != set()) is (not SLOPE & set(metrics))
    assert ("slope_ci" in gone) is (not INTERVAL & set(metrics)) and not gone & set(metrics)
    assert metrics["novelty_mean"] > 0
    figures = {path.stem for path in (out / "figures").glob("*.png")}
    assert {"signals", "smoothing", "learning"} <= figures and ("slope" in figures) is ("slope" not in gone)
    entry: Any = SimpleNamespace(folder=out.parent, label="x", metrics={"infodynamics": metrics}, spec=Entry)
    curve = _dynamics_curve(entry)
    assert (curve.slope is None) is ("slope" in gone) and len(curve.novelty) == steps * BATCH - 2 * window


def test_a_frozen_model_has_a_curve_without_slope(tmp_path: Path) -> None:
    out = run(tmp_path, steps=26)
    metrics = json.loads((out / "metrics.json").read_text()) | dict.fromkeys(SLOPE | INTERVAL)
    entry: Any = SimpleNamespace(folder=out.parent, label="x", metrics={"infodynamics": metrics})
    assert _dynamics_curve(entry).slope is None


def test_a_training_asks_before_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    sizes = np.ones(25, dtype=np.int64)
    plan = Plan.of([np.arange(25)[i:i + 8] for i in range(0, 25, 8)] * 2, 4, 3, sizes)
    assert recorded_examples(plan, 0) == 50 and recorded_examples(plan, 3) == 24
    with pytest.raises(FinetraceError, match=r"params.yaml: infodynamics, for m_t_ft_s1: window 160 takes at least 321 "
                                             r"training examples and there are 50; write window: 5 .*; or leave it"):
        require_signals(plan, 160, (), 0, "m_t_ft_s1")
    require_signals(plan, 8, (40,), 0, "m_t_ft_s1")
    assert "are too few for slope_ci, hurst_novelty, window 40, which will be absent; window: 5" in caplog.text
    probe = Plan([], 9, 1, 1, sizes)  # records steps 0, 1, 2, 4, 8, 9
    assert recorded_examples(probe, 0) == 6 * 25 and recorded_examples(probe, 4) == 3 * 25


@pytest.mark.parametrize("wrong", [{"span": 0}, {"spans": [8, 0]}, {"max_steps": -1}, {"probe_window": 0}])
def test_settings_that_would_fail_after_the_training(wrong: dict[str, Any]) -> None:
    with pytest.raises(FinetraceError, match=next(iter(wrong)).rstrip("s")):
        parse(InfodynamicsSettings, wrong, "params.yaml: infodynamics")
