"""The store: which one, made whole, refused when broken, repaired when moved."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.outputs import empty_store

from finetrace.config.tracking import TrackingSettings
from finetrace.errors import FinetraceError
from finetrace.tracking.store import moved_from, open_store, repair_moved, schema_head, schema_problem, tracking_uri


def test_uri_order_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(TrackingSettings(), tmp_path) == default
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.chdir("/")
    assert tracking_uri(TrackingSettings(), tmp_path) == default
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri(TrackingSettings(), tmp_path) == "http://127.0.0.1:5000"
    assert tracking_uri(TrackingSettings(uri="sqlite:////a/b.db"), tmp_path) == "sqlite:////a/b.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "mlruns", "ftp://x"])
def test_a_folder_as_store_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(FinetraceError, match="no longer takes a folder"):
        tracking_uri(TrackingSettings(uri=uri), tmp_path)


def test_the_expected_schema_is_mlflows() -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert schema_head() == _get_latest_schema_revision()


def test_creation_leaves_one_whole_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()  # what a program leaves that was killed while it opened the store
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo")
    assert store.runs() == [] and schema_problem(tmp_path / "mlflow.db") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.artifact_location == f"{tmp_path}/mlruns/demo"
    assert open_store(store.uri, tmp_path, "demo").experiment_id == store.experiment_id


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize(("statement", "said"), [
    ("CREATE TABLE _alembic_tmp_metrics (x)", "interrupted or done by two programs"),
    ("UPDATE alembic_version SET version_num = 'abc'", "schema abc of another MLflow"),
    ("DROP TABLE alembic_version", "not an MLflow store")])
def test_a_store_that_mlflow_would_break_is_refused(tmp_path: Path, statement: str, said: str) -> None:
    path = empty_store(tmp_path)
    assert schema_problem(path) is None
    damage(path, statement)
    before = path.read_bytes()
    with pytest.raises(FinetraceError, match=said):
        open_store(f"sqlite:///{path}", tmp_path, "demo")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello " * 500)
    assert "not a readable sqlite database" in str(schema_problem(tmp_path / "mlflow.db"))


def test_deleted_experiment_is_explained(tmp_path: Path) -> None:
    empty_store(tmp_path)
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo")
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(FinetraceError, match="restore it"):
        open_store(store.uri, tmp_path, "demo")


def test_experiment_made_in_the_ui_is_explained(tmp_path: Path) -> None:
    empty_store(tmp_path)
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "other")
    store.client.create_experiment("demo", "mlflow-artifacts:/7")
    with pytest.raises(FinetraceError, match="created in the UI"):
        open_store(store.uri, tmp_path, "demo")


def test_unreachable_server_is_reported_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(FinetraceError, match="check that the server runs"):
        open_store("http://127.0.0.1:9", tmp_path, "demo")


def test_moved_store_points_to_the_new_place_and_keeps_the_rest(tmp_path: Path) -> None:
    old, new = tmp_path / "old place", tmp_path / "new"
    old.mkdir()
    empty_store(old)
    store = open_store(f"sqlite:///{old}/mlflow.db", old, "demo")
    run = store.client.create_run(store.experiment_id)
    elsewhere = store.client.create_experiment("elsewhere", f"{old}/mlruns2/x")
    shutil.copytree(old, new)
    path = new / "mlflow.db"
    assert moved_from(path, new) == [str(old)] and moved_from(old / "mlflow.db", old) == []
    assert repair_moved(path, new) == 2
    assert moved_from(path, new) == []
    moved = open_store(f"sqlite:///{path}", new, "demo").client
    assert moved.get_run(run.info.run_id).info.artifact_uri == f"{new}/mlruns/demo/{run.info.run_id}/artifacts"
    assert moved.get_experiment(elsewhere).artifact_location == f"{old}/mlruns2/x"  # only a like-named neighbour
    assert moved_from(new / "mlflow.db.before-move", new) == [str(old)]
    assert store.client.get_run(run.info.run_id).info.artifact_uri.startswith(str(old))


def test_telemetry_is_off_before_mlflow_is_imported() -> None:
    from finetrace.tracking.store import prepare_environment

    prepare_environment()
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] and is_telemetry_disabled()
