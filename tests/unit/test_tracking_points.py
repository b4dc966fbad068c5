"""Points arrive by MLflow's client: each once, in calls that MLflow takes."""

import math
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store

from finetrace.tracking.points import ENTRIES_PER_CALL, PARAMS_PER_CALL, Point, log_points
from finetrace.tracking.series import metric_name
from finetrace.tracking.store import Store, open_store

BATCHES = [
    [Point("a", 0.5, 1001, 1), Point("a", 0.25, 1002, 2), Point("b", float("nan"), 1001, 1), Point("a", 0.5, 1001, 1)],
    [Point("a", 0.25, 1002, 2), Point("a", 9.0, 1000, 0), Point("b", float("nan"), 1001, 1), Point("b", 1.0, 1001, 1)],
    [Point("c", -1.0, 5, 0), Point("c", 1.0, 5, 0), Point("c", 0.0, 4, 0), Point("d", 1e-320, 5, -3)],
    [Point("e", s / 7, 1000 + s, s) for s in range(2100)],
    [],
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    empty_store(tmp_path)
    return open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo")


def history(store: Store, run_id: str, name: str) -> list[tuple[int, int, str]]:
    """The points of a metric: step, time, value as text (NaN equals itself)."""
    return sorted((m.step, m.timestamp, str(m.value)) for m in store.client.get_metric_history(run_id, name))


def test_every_point_arrives_once(store: Store) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    for batch in [*BATCHES, *BATCHES]:
        store.log_points(run_id, batch)
    for name in "abcde":
        asked = {(p.step, p.timestamp_ms, str(p.value)) for batch in BATCHES for p in batch if p.name == name}
        assert history(store, run_id, name) == sorted(asked)
    latest = store.client.get_run(run_id).data.metrics
    assert latest["a"] == 0.25 and latest["c"] == 1.0 and latest["e"] == 2099 / 7 and not math.isnan(latest["b"])


def test_infinities_arrive_as_nan(store: Store) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.log_points(run_id, [Point("a", float("inf"), 1, 1), Point("b", float("-inf"), 1, 1)])
    assert all(math.isnan(value) for value in store.client.get_run(run_id).data.metrics.values())


def test_calls_hold_what_mlflow_takes() -> None:
    from mlflow.utils.validation import MAX_ENTITIES_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH

    calls: list[tuple[int, int, int]] = []

    class Client:
        def log_batch(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
            calls.append((len(metrics), len(params), len(tags)))

    params = {f"p{n}": "x" for n in range(130)}
    for points, settings in ((BATCHES[3], {}), ([], {}), (BATCHES[3], params), ([], params)):
        log_points(Client(), "r", points, settings)  # type: ignore[arg-type]
    assert calls == [(1000, 0, 0), (1000, 0, 0), (100, 0, 0), (900, 100, 0), (970, 30, 0), (230, 0, 0), (0, 100, 0),
                     (0, 30, 0)]
    calls.clear()
    for points in ([], BATCHES[3][:999], BATCHES[3][:1000]):
        log_points(Client(), "r", points, tags={"last": "x"})  # type: ignore[arg-type]
    assert calls == [(0, 0, 1), (999, 0, 1), (999, 0, 0), (1, 0, 1)]
    assert (ENTRIES_PER_CALL, PARAMS_PER_CALL) == (MAX_ENTITIES_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH)


def test_points_of_an_unknown_run_are_refused(store: Store) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="not found"):
        store.log_points("0" * 32, BATCHES[0])


def test_mlflow_accepts_our_metric_names(store: Store) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    names = {metric_name(name) for name in ("p@1", "/a//b/", "..", "é(1)", "x" * 300, "c/./d", "e/../f")}
    store.log_points(run_id, [Point(name, 0.5, 1, 1) for name in names])
    assert len(names) == 7 and store.client.get_run(run_id).data.metrics.keys() == names
