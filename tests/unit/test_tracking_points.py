"""Plain inserts leave a run exactly as MLflow's client does."""

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store

from finetrace.tracking import points as module
from finetrace.tracking.points import Point, log_points
from finetrace.tracking.store import Store, database_path, open_store

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


def tables(store: Store, run_id: str) -> dict[str, list[Any]]:
    path = database_path(store.uri)
    assert path is not None
    with sqlite3.connect(path) as database:
        found = {t: sorted(database.execute(f"SELECT key, value, typeof(value), timestamp, step, is_nan FROM {t} "
                                            "WHERE run_uuid = ?", (run_id,)))
                 for t in ("metrics", "latest_metrics")}
    database.close()
    return found


def test_inserts_equal_the_client(store: Store) -> None:
    plain, client = (store.client.create_run(store.experiment_id).info.run_id for _ in range(2))
    for batch in BATCHES:
        log_points(store.client, database_path(store.uri), plain, batch)
        log_points(store.client, None, client, batch)
        assert tables(store, plain) == tables(store, client)
    latest = store.client.get_run(plain).data.metrics
    assert latest["a"] == 0.25 and latest["c"] == 1.0 and latest["e"] == 2099 / 7 and not math.isnan(latest["b"])


def test_another_layout_of_the_tables_gets_the_client(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = database_path(store.uri)
    assert path is not None and module._known_tables(path)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE metrics ADD COLUMN unit TEXT")
    database.close()
    assert not module._known_tables(path)
    monkeypatch.setattr(module, "_insert", None)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.log_points(run_id, BATCHES[0])
    assert store.client.get_run(run_id).data.metrics["a"] == 0.25


def test_points_of_an_unknown_run_are_refused(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.log_points("nobody", BATCHES[0])
