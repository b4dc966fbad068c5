"""Publishing beside others: publishers that are killed or run at once, and trainings that MLflow follows live."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store, make_project
from tests.publishing import NAME, RUNS, environment, opened, quiet, snapshot

from finetrace.layout import Layout
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.study import Study
from finetrace.tracking.live import Follower


@pytest.mark.parametrize("calls", [2, 20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6, 9, 31))])
def test_killed_publisher_is_completed_by_the_next(tmp_path: Path, calls: int) -> None:
    """kill -9 at the n-th call that writes."""
    layout, study = make_project(tmp_path / "project", steps=60)
    empty_store(layout.home)
    code = f"""
import os, signal
from pathlib import Path
from finetrace.study import load_study
from finetrace.layout import Layout
from finetrace.tracking.publish import publish
from mlflow.tracking import MlflowClient
count = 0
def killing(method):
    def call(self, *args, **kwargs):
        global count
        count += 1
        if count == {calls}:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *args, **kwargs)
    return call
for name in ("create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated", "set_tag"):
    setattr(MlflowClient, name, killing(getattr(MlflowClient, name)))
publish(Layout.here(), load_study(Path("params.yaml")))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=layout.root, env=environment(), capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    quiet(layout, study)
    broken = snapshot(layout, study)
    whole_layout, whole_study = make_project(tmp_path / "whole", steps=60)
    empty_store(whole_layout.home)
    quiet(whole_layout, whole_study)
    assert broken == snapshot(whole_layout, whole_study)


@pytest.mark.parametrize("publishers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_publishers_at_once_on_no_store_at_all(tmp_path: Path, publishers: int) -> None:
    layout, study = make_project(tmp_path, steps=60)
    command = [sys.executable, "-m", "finetrace.cli", "publish"]
    running = [subprocess.Popen(command, cwd=layout.root, env=environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(publishers)]
    results = [(p.communicate(timeout=180), p.returncode) for p in running]
    assert [code for _, code in results] == [0] * publishers, results
    assert sum(f"published: {RUNS} new" in out for (out, _), _ in results) == 1
    store = opened(layout, study)
    runs = store.runs()
    assert len(runs) == RUNS == len({r.name for r in runs}) and all(r.complete for r in runs)
    with contextlib.closing(sqlite3.connect(layout.home / "mlflow.db")) as database:
        assert not [n for n, in database.execute("SELECT name FROM sqlite_master") if n.startswith("_alembic_tmp_")]


def test_live_run_is_topped_up(project: tuple[Layout, Study]) -> None:
    layout, study = project
    store = opened(layout, study)
    manifest = _manifest(layout)
    history = [r for r in _rows(layout) if r["kind"] == "train"]
    follower = Follower(store, study.tracking.points)
    follower.take([{"event": "start", "id": manifest.key, "name": NAME, "kind": "trajectory", "parent": None,
                    "started_at_ms": manifest.started_at_ms, "params": {}, "tags": {}, "total_steps": 60}])
    follower.take([{"event": "metrics", "id": manifest.key, "step": r["step"], "values": {"train/loss": r["loss"]}}
                   for r in history[:40]])
    follower.close()
    live, = store.runs()
    assert live.status == "KILLED" and not live.complete
    done = quiet(layout, study)
    assert done.completed == [NAME] and len(done.new) == RUNS - 1
    finished = next(r for r in store.runs() if r.name == NAME)
    assert finished.run_id == live.run_id and finished.complete and finished.status == "FINISHED"
    after = snapshot(layout, study)
    other, _ = make_project(layout.home.parent / "never-live", steps=60)
    empty_store(other.home)
    quiet(other, study)
    assert after == snapshot(other, study)


def test_live_points_under_another_clock_are_not_doubled(project: tuple[Layout, Study]) -> None:
    layout, study = project
    store = opened(layout, study)
    key = _manifest(layout).key
    follower = Follower(store, 400)
    follower.take([{"event": "start", "id": key, "name": NAME, "kind": "trajectory",
                    "started_at_ms": 77, "total_steps": 60},
                   {"event": "metrics", "id": key, "step": 1, "values": {"train/loss": 0.123}}])
    follower.flush()
    quiet(layout, study)
    steps = [p[0] for p in snapshot(layout, study)[NAME]["metrics"]["train/loss"]]
    assert steps == list(range(1, 61))


def test_live_run_with_other_params_is_replaced(project: tuple[Layout, Study]) -> None:
    layout, study = project
    store = opened(layout, study)
    name = NAME
    key = _manifest(layout).key
    follower = Follower(store, 400)
    follower.take([{"event": "start", "id": key, "name": name, "kind": "trajectory", "params": {"seed": 9}}])
    quiet(layout, study)
    runs = [r for r in store.runs() if r.name == name]
    assert sorted((r.deleted, r.complete) for r in runs) == [(False, True), (True, False)]
    assert snapshot(layout, study)[name]["params"]["seed"] == "1"
    assert not quiet(layout, study).new


def test_a_training_under_way_is_left_alone(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    store = opened(layout, study)
    follower = Follower(store, 400)
    follower.take([{"event": "start", "id": "new-key", "name": NAME, "kind": "trajectory"}])
    assert not quiet(layout, study).superseded
    follower.close()  # killed: now it is history
    assert quiet(layout, study).superseded == [NAME]
    (killed,) = [run for run in store.runs() if run.key == "new-key"]
    assert killed.name == NAME and killed.shown == f"{NAME} (superseded)"


def _manifest(layout: Layout) -> Manifest:
    return read_manifest(layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory")


def _rows(layout: Layout) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory" / "history.parquet"
    return list(pq.read_table(path).to_pylist())
