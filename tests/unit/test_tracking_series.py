"""Thinning keeps what a curve is about, and the publisher and the live follower agree on it."""

import numpy as np
import pytest

from finetrace.tracking.live import _LiveRun
from finetrace.tracking.series import Series, metric_name, not_finite, stride, thin


@pytest.mark.parametrize("points", [2, 3, 4, 5, 10, 399, 400, 2500])
@pytest.mark.parametrize("count", [1, 2, 5, 399, 400, 401, 5001])
@pytest.mark.parametrize("gap", [1, 16])
def test_thin_keeps_the_ends_and_at_most_points(count: int, points: int, gap: int) -> None:
    steps = gap * np.arange(1, count + 1)
    kept = thin(steps, np.random.default_rng(count).normal(size=count), points)
    assert len(kept) <= points
    assert kept[0] == 0 and kept[-1] == count - 1
    assert (np.diff(kept) > 0).all()
    if count <= points:
        assert len(kept) == count


def test_thin_keeps_lowest_and_highest() -> None:
    values = np.zeros(1000)
    values[123], values[777] = -5, 5
    kept = thin(np.arange(1000), values, 20)
    assert {123, 777} <= set(kept.tolist())


def test_thin_spreads_evenly_and_does_not_depend_on_the_values() -> None:
    steps = np.arange(1, 5002)
    one, two = (set(thin(steps, np.random.default_rng(s).normal(size=5001), 400).tolist()) for s in (1, 2))
    assert len(one & two) >= 380
    assert np.diff(sorted(one)).max() <= stride(5001, 400)


def test_thin_accepts_nan() -> None:
    assert len(thin(np.arange(50), np.full(50, np.nan), 10)) <= 10
    values = np.arange(50.0)
    values[3] = np.nan
    assert 49 in thin(np.arange(50), values, 10)


NAN = float("nan")


@pytest.mark.parametrize(("values", "kept"), [
    ([1.0, NAN, 3.0], [1, 2, 3]), ([1.0, 2.0, NAN, NAN], [1, 2]), ([NAN, 2.0, NAN], [1, 2]), ([NAN, NAN], [1, 2]),
    ([1.0], [1]), ([], [])])
def test_no_point_follows_the_last_finite_one(values: list[float], kept: list[int]) -> None:
    """MLflow shows the latest value in its lists: there NaN would hide the number that it follows."""
    series = Series("train/loss", np.arange(1, len(values) + 1), np.array(values))
    assert series.thinned(10).steps.tolist() == kept
    assert not_finite([series]) == (
        {"not_finite": f"train/loss after step {kept[-1]}"} if len(kept) < len(values) else {})


def test_the_last_finite_point_is_kept_when_points_are_few() -> None:
    values = np.arange(1000.0)
    values[777:] = NAN
    thinned = Series("x", np.arange(1000), values).thinned(20)
    assert (thinned.steps[-1], thinned.values[-1]) == (776, 776) and len(thinned.steps) <= 20


def test_live_points_are_a_subset_of_the_published_ones() -> None:
    total, points = 5001, 400
    values = np.random.default_rng(0).normal(size=total)
    run = _LiveRun("id", 0, total, {})
    for step, value in zip(range(1, total + 1), values.tolist(), strict=True):
        run.add(step, {"train/loss": value}, points)
    published = Series("train/loss", np.arange(1, total + 1), values).thinned(points)
    live = {step for _, step, _ in run.buffer}
    assert live <= set(published.steps.tolist())
    assert len(live) > 350


def test_live_keeps_all_evaluations() -> None:
    run = _LiveRun("id", 0, 100_000, {})
    for step in (0, 1, 2, 4, 8, 99_999):
        run.add(step, {"validation/accuracy": 0.5}, 400)
    assert [step for _, step, _ in run.buffer] == [0, 1, 2, 4, 8, 99_999]


@pytest.mark.parametrize(("name", "good"), [
    ("train/loss", "train/loss"), ("a b-c.d:e_f", "a b-c.d:e_f"), ("p@1", "p_1"), ("f(x)=[1]", "f_x_1_"),
    ("/a//b/", "a/b"), ("../../x", "x"), ("", "_"), ("é", "_"), ("x" * 300, "x" * 250)])
def test_metric_name(name: str, good: str) -> None:
    assert metric_name(name) == good
