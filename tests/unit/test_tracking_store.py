"""The store: which one, made whole, refused when broken, replaced when the project has moved."""

import logging
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.outputs import empty_store

from finetrace.config.tracking import TrackingSettings
from finetrace.errors import FinetraceError
from finetrace.tracking.moved import SUPERSEDED_TAG, experiments, has_moved, made_here_before, retire
from finetrace.tracking.store import Store, open_store, tracking_uri


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


def test_creation_leaves_one_whole_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()  # what a program leaves that was killed while it opened the store
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo")
    assert store.runs() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    assert store.client.get_experiment("0").artifact_location == f"{tmp_path}/mlruns/0", "MLflow's own experiment"
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.artifact_location == f"{tmp_path}/mlruns/demo"
    assert open_store(store.uri, tmp_path, "demo").experiment_id == store.experiment_id


def damage(path: Path, statements: str) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(statements)
    database.close()


HALF_MADE = """DROP TABLE experiment_tags; CREATE TABLE _alembic_tmp_experiments (x);
UPDATE alembic_version SET version_num = '90e64c465722';"""  # an early step of MLflow's migrations


@pytest.mark.parametrize(("statements", "said"), [
    (HALF_MADE, "its creation was interrupted"),
    ("UPDATE alembic_version SET version_num = 'abc'", "found version abc"),
    ("DROP TABLE alembic_version", "found version None")])
def test_a_store_that_mlflow_cannot_open_is_left_as_it_was(tmp_path: Path, statements: str, said: str) -> None:
    path = empty_store(tmp_path)
    damage(path, statements)
    before = path.read_bytes()
    with pytest.raises(FinetraceError, match=said) as refused:
        open_store(f"sqlite:///{path}", tmp_path, "demo")
    assert "mv mlflow.db mlflow.db.broken" in str(refused.value)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello " * 500)
    with pytest.raises(FinetraceError, match="not a readable sqlite database"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo")


def test_what_another_mlflow_changes_at_opening_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    path = empty_store(tmp_path)
    damage(path, "DROP TABLE params")  # MLflow makes tables that are missing
    before = path.read_bytes()
    monkeypatch.setattr(logging.getLogger("finetrace"), "propagate", True)
    with caplog.at_level(logging.WARNING, "finetrace.tracking"):
        open_store(f"sqlite:///{path}", tmp_path, "demo")
    kept, = tmp_path.glob("mlflow.db.before-mlflow-*")
    assert kept.read_bytes() == before and f"the store as it was: {kept}" in caplog.text


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


def moved_store(tmp_path: Path) -> tuple[Store, Path, Path]:
    """A store with one run and its copy in another folder; the store of the old place, both folders."""
    old, new = tmp_path / "old place", tmp_path / "new"
    old.mkdir()
    empty_store(old)
    store = open_store(f"sqlite:///{old}/mlflow.db", old, "demo")
    store.client.create_run(store.experiment_id, tags={"finetrace.key": "k"}, run_name="first")
    shutil.copytree(old, new)
    return store, old, new


def test_a_moved_project_gets_a_new_experiment_and_keeps_the_rest(tmp_path: Path) -> None:
    store, old, new = moved_store(tmp_path)
    elsewhere = store.client.create_experiment("elsewhere", f"{old}/mlruns2/x")
    shutil.copyfile(old / "mlflow.db", new / "mlflow.db")
    moved = open_store(f"sqlite:///{new}/mlflow.db", new, "demo")
    experiment = moved.client.get_experiment(moved.experiment_id)
    assert experiment.artifact_location == f"{new}/mlruns/demo" and not has_moved(experiment, new)
    assert moved.runs() == [] and moved.experiment_id != store.experiment_id
    replaced = moved.client.get_experiment(store.experiment_id)
    assert replaced.name == f"demo ({store.experiment_id}, at {old})" and not has_moved(replaced, new)
    run, = moved.client.search_runs([replaced.experiment_id])
    assert run.info.run_name == "first" and run.data.tags[SUPERSEDED_TAG] == "true"
    assert moved.client.get_experiment(elsewhere).artifact_location == f"{old}/mlruns2/x"
    assert open_store(moved.uri, new, "demo").experiment_id == moved.experiment_id
    assert not store.runs()[0].superseded, "the copied project stays as it was"


def test_a_project_that_moves_back_finds_its_runs_again(tmp_path: Path) -> None:
    store, old, new = moved_store(tmp_path)
    uri = f"sqlite:///{new}/mlflow.db"
    there = open_store(uri, new, "demo")
    retire(there.client, there.client.get_experiment(there.experiment_id), old)
    again = made_here_before(there.client, "demo", old)
    assert again is not None and again.experiment_id == store.experiment_id and again.name == "demo"
    names = {e.experiment_id: e.name for e in experiments(there.client)}
    assert names[there.experiment_id] == f"demo ({there.experiment_id}, at {new})"


def test_a_retirement_that_was_interrupted_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    _, _, new = moved_store(tmp_path)
    uri = f"sqlite:///{new}/mlflow.db"

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "rename_experiment", killed)
        open_store(uri, new, "demo")
    moved = open_store(uri, new, "demo")
    assert moved.runs() == []
    assert len([e for e in experiments(moved.client) if e.name.startswith("demo")]) == 2


def test_a_store_of_several_projects_is_not_replaced(tmp_path: Path) -> None:
    shared, one, other = (tmp_path / name for name in ("shared", "one", "other"))
    for folder in (shared, one, other):
        folder.mkdir()
    empty_store(shared)
    uri = f"sqlite:///{shared}/mlflow.db"
    assert open_store(uri, one, "demo").experiment_id == open_store(uri, other, "demo").experiment_id


def test_telemetry_is_off_before_mlflow_is_imported() -> None:
    from finetrace.tracking.store import prepare_environment

    prepare_environment()
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] and is_telemetry_disabled()
