"""Publishing finished outputs: everything arrives once, survives every accident, and comes back."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store, make_project, make_training, weights_sha

from finetrace.config import Study
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.tracking.live import Follower
from finetrace.tracking.publish import Published, git_tags, publish
from finetrace.tracking.store import Store, open_store, tracking_uri

ROOT = Path(__file__).resolve().parents[2]
NAME = "micro-a_micro-sentiment_ft_s1"
RUNS = 12  # of the default synthetic project: pre-training, search with 5 trials, 2 x (trajectory, lens), atlas


@pytest.fixture(autouse=True)
def no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    git_tags.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    layout, study = make_project(tmp_path / "project", steps=60)
    empty_store(layout.home)
    return layout, study


def quiet(layout: Layout, study: Study) -> Published:
    return publish(layout, study, say=lambda line: None)


def opened(layout: Layout, study: Study) -> Store:
    return open_store(tracking_uri(study.tracking, layout.home), layout.home, study.study.name)


def files(store: Store, run_id: str, path: str | None = None) -> list[str]:
    found = []
    for item in store.client.list_artifacts(run_id, path):
        found += files(store, run_id, item.path) if item.is_dir else [item.path]
    return sorted(found)


def snapshot(layout: Layout, study: Study) -> dict[str, Any]:
    """Everything in the store, without what is drawn at random: run ids."""
    store = opened(layout, study)
    runs = {r.run_id: store.client.get_run(r.run_id) for r in store.runs() if not r.deleted}
    found = {}
    for run_id, run in runs.items():
        tags = dict(run.data.tags)
        if "mlflow.parentRunId" in tags:
            tags["mlflow.parentRunId"] = runs[tags["mlflow.parentRunId"]].info.run_name
        metrics = {name: [(m.step, m.timestamp, None if math.isnan(m.value) else m.value)
                          for m in store.client.get_metric_history(run_id, name)] for name in run.data.metrics}
        found[run.info.run_name] = {
            "tags": tags, "params": run.data.params, "metrics": metrics, "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time), "artifacts": files(store, run_id),
            "data": [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs]}
    assert len(found) == len(runs)
    return found


def test_what_arrives(project: tuple[Layout, Study]) -> None:
    layout, study = project
    lines: list[str] = []
    done = publish(layout, study, say=lines.append)
    assert len(done.new) == RUNS and len(lines) == RUNS + 1 and lines[-1].startswith(f"published: {RUNS} new")
    runs = snapshot(layout, study)
    run = runs[NAME]
    assert run["status"] == "FINISHED" and run["tags"]["finetrace.complete"] == "true"
    for tag, value in {"finetrace.kind": "trajectory", "model": "micro-a", "task": "micro-sentiment", "method": "ft",
                       "seed": "1", "study": "demo", "device": "cpu", "finetrace.version": "0.1.0",
                       "dvc.stage": "train@micro-a_micro-sentiment_ft_s1"}.items():
        assert run["tags"][tag] == value
    assert run["params"]["train.learning_rate"] == "5e-05"
    start = run["times"][0]
    assert run["metrics"]["train/loss"][0][:2] == (1, start + 1)
    assert run["metrics"]["test/accuracy"] == [(60, start + 60, 0.9)]
    assert run["data"] == [("micro-sentiment", run["data"][0][1])]
    assert {"checkpoints.json", "history.parquet", "manifest.json", "metrics.json"} <= set(run["artifacts"])
    assert not any("safetensors" in name for name in run["artifacts"])
    lens = runs["infodynamics@micro-a_micro-sentiment_ft_s1"]
    assert lens["tags"]["mlflow.parentRunId"] == "micro-a_micro-sentiment_ft_s1"
    assert "figures/main.png" in lens["artifacts"] and len(lens["metrics"]["infodynamics/novelty"]) <= 400
    assert "index.html" in runs["atlas"]["artifacts"]
    assert [runs[f"trial-{n:04d}@micro-a_micro-sentiment_ft"]["status"] for n in range(5)] == [
        "FINISHED", "KILLED", "FAILED", "RUNNING", "SCHEDULED"]
    trial = runs["trial-0000@micro-a_micro-sentiment_ft"]
    assert trial["tags"]["mlflow.parentRunId"] == "micro-a_micro-sentiment_ft_tune"
    assert len(trial["metrics"]["objective/intermediate"]) == 3 and trial["params"] == {"learning_rate": "0.0001"}
    published = json.loads(layout.published.read_text())
    assert len(published) == RUNS and published == sorted(published, key=lambda r: (r["kind"], r["name"], r["key"]))


def test_checkpoint_pointers_lead_to_the_weights(project: tuple[Layout, Study], tmp_path: Path) -> None:
    layout, study = project
    quiet(layout, study)
    store = opened(layout, study)
    run = next(r for r in store.runs() if r.name == NAME)
    pointers = json.loads(Path(store.client.download_artifacts(run.run_id, "checkpoints.json")).read_text())
    assert pointers[1]["sha256"] == weights_sha(layout, "micro-a", "micro-sentiment", "ft", 1, 60)
    assert (layout.home / pointers[1]["path"]).is_file()


def test_publishing_twice_changes_nothing(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    before, marker = snapshot(layout, study), layout.published.read_bytes()
    again = quiet(layout, study)
    assert not again.new and not again.completed and not again.superseded and len(again.unchanged) == RUNS
    assert snapshot(layout, study) == before and layout.published.read_bytes() == marker


def test_points_are_limited(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, steps=300, points=25, seeds=(1,))
    empty_store(layout.home)
    quiet(layout, study)
    for run in snapshot(layout, study).values():
        for name, points in run["metrics"].items():
            assert len(points) <= 25, name
    loss = snapshot(layout, study)[NAME]["metrics"]["train/loss"]
    assert loss[0][0] == 1 and loss[-1][0] == 300


def test_a_deleted_store_comes_back(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    before = snapshot(layout, study)
    (layout.home / "mlflow.db").unlink()
    shutil.rmtree(layout.home / "mlruns")
    # another process: MLflow keeps connections to the old file
    command = [sys.executable, str(ROOT / "pipelines" / "publish.py")]
    subprocess.run(command, cwd=layout.root, env=environment(), check=True)
    forget_engine(layout)
    assert snapshot(layout, study) == before


def test_lost_artifacts_come_back(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    before = snapshot(layout, study)
    shutil.rmtree(layout.home / "mlruns")
    done = quiet(layout, study)
    assert len(done.completed) == RUNS - 5 and not done.new
    assert snapshot(layout, study) == before


def test_new_content_supersedes_the_old_run(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    name = NAME
    folder = layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory"
    shutil.copytree(folder, layout.home / "old")
    make_training(folder, "train", name, 60, {}, version=2)
    done = quiet(layout, study)
    assert sorted(done.new) == [f"infodynamics@{name}", name] == sorted(done.superseded)
    runs = [r for r in opened(layout, study).runs() if r.name == name]
    assert sorted(r.superseded for r in runs) == [False, True]
    shutil.rmtree(folder)
    shutil.move(layout.home / "old", folder)  # e.g. dvc checkout of the earlier commit
    done = quiet(layout, study)
    assert not done.new and sorted(done.superseded) == [f"infodynamics@{name}", name]
    again = {r.run_id: r.superseded for r in opened(layout, study).runs() if r.name == name}
    assert again == {r.run_id: not r.superseded for r in runs}


def test_a_run_deleted_in_the_ui_stays_deleted(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    store = opened(layout, study)
    store.client.delete_run(next(r.run_id for r in store.runs() if r.kind == "atlas"))
    done = quiet(layout, study)
    assert done.deleted == ["atlas"] and not done.new and "deleted in MLflow" in done.summary()


def test_damage_is_reported_and_the_rest_is_published(project: tuple[Layout, Study]) -> None:
    layout, study = project
    bad = layout.run("micro-a", "micro-sentiment", "ft", 1) / "infodynamics" / "curves.csv"
    text = bad.read_text()
    bad.write_text("label" + text[5:].replace("\n0,", "\nx,", 1))  # the same size
    with pytest.raises(FinetraceError, match=r"curves\.csv.*no x axis"):
        quiet(layout, study)
    assert len([r for r in opened(layout, study).runs() if r.complete]) == RUNS - 1


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | more


def forget_engine(layout: Layout) -> None:
    """Let this process open the store anew: MLflow caches stores and engines by address."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    engine = SqlAlchemyStore._engine_map.pop(f"sqlite:///{layout.home}/mlflow.db", None)
    if engine is not None:
        engine.dispose()
    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()


@pytest.mark.parametrize("calls", [1, 2, 6, 9, 20, 31])
def test_killed_publisher_is_completed_by_the_next(tmp_path: Path, calls: int) -> None:
    """kill -9 at the n-th call that writes."""
    layout, study = make_project(tmp_path / "project", steps=60)
    empty_store(layout.home)
    code = f"""
import os, signal
from pathlib import Path
from finetrace.config import load_study
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


def test_four_publishers_on_no_store_at_all(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, steps=60)
    command = [sys.executable, "-m", "finetrace.cli", "publish"]
    running = [subprocess.Popen(command, cwd=layout.root, env=environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(4)]
    results = [(p.communicate(timeout=180), p.returncode) for p in running]
    assert [code for _, code in results] == [0] * 4, results
    assert sum(f"published: {RUNS} new" in out for (out, _), _ in results) == 1
    store = opened(layout, study)
    runs = store.runs()
    assert len(runs) == RUNS == len({r.name for r in runs}) and all(r.complete for r in runs)
    with contextlib.closing(sqlite3.connect(layout.home / "mlflow.db")) as database:
        assert not [n for n, in database.execute("SELECT name FROM sqlite_master") if n.startswith("_alembic_tmp_")]


def test_moved_project_opens_its_artifacts(project: tuple[Layout, Study], tmp_path: Path) -> None:
    layout, study = project
    quiet(layout, study)
    moved = tmp_path / "else where" / "project"
    moved.parent.mkdir()
    shutil.move(layout.home, moved)
    new = Layout(moved, moved)
    done = quiet(new, study)
    assert len(done.unchanged) == RUNS and not done.new and not done.completed
    assert not layout.home.exists()
    store = opened(new, study)
    for run in store.runs():
        if run.kind != "trial":
            assert run.artifact_uri == f"{moved}/mlruns/demo/{run.run_id}/artifacts"
            assert json.loads(Path(store.client.download_artifacts(run.run_id, "manifest.json")).read_text())["files"]
    run = next(r for r in store.runs() if r.kind == "atlas")
    subprocess.run([sys.executable, "-c", "import sys; from mlflow.tracking import MlflowClient;"
                    "MlflowClient(sys.argv[1]).log_text(sys.argv[2], 'x', 'new.txt')", store.uri, run.run_id],
                   check=True, env=environment())
    assert (moved / "mlruns" / "demo" / run.run_id / "artifacts" / "new.txt").is_file() and not layout.home.exists()
    assert (moved / "mlflow.db.before-move").is_file()


def test_live_run_is_topped_up(project: tuple[Layout, Study]) -> None:
    layout, study = project
    store = opened(layout, study)
    manifest = _manifest(layout)
    history = [r for r in _rows(layout) if r["kind"] == "train"]
    follower = Follower(store, study.tracking.points)
    follower.take([{"event": "start", "id": manifest["key"], "name": NAME, "kind": "trajectory", "parent": None,
                    "started_at_ms": manifest["started_at_ms"], "params": {}, "tags": {}, "total_steps": 60}])
    follower.take([{"event": "metrics", "id": manifest["key"], "step": r["step"], "values": {"train/loss": r["loss"]}}
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
    key = _manifest(layout)["key"]
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
    key = _manifest(layout)["key"]
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


def test_temporary_workspace_of_an_experiment_publishes_into_the_real_project(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    empty_store(home)
    root = home / ".dvc" / "tmp" / "exps" / "standalone" / "tmp123"
    make_project(root, steps=60)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(home))
    monkeypatch.setenv("DVC_EXP_NAME", "brave-exp")
    layout = Layout.here()
    done = quiet(layout, _study(root))
    assert len(done.new) == RUNS and done.uri == f"sqlite:///{home}/mlflow.db"
    assert not (root / "mlflow.db").exists() and [p.name for p in (root / "mlruns").iterdir()] == ["published.json"]
    shutil.rmtree(root)
    store = opened(layout, _study_named("demo"))
    for run in store.runs():
        assert store.client.get_run(run.run_id).data.tags["dvc.exp_name"] == "brave-exp"
    atlas = next(r for r in store.runs() if r.kind == "atlas")
    assert Path(store.client.download_artifacts(atlas.run_id, "index.html")).is_file()


def test_git_revision_is_a_tag(project: tuple[Layout, Study]) -> None:
    layout, study = project
    git = ["git", "-C", str(layout.home), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "Start"]):
        subprocess.run([*git, *arguments], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    quiet(layout, study)
    tags = snapshot(layout, study)["atlas"]["tags"]
    assert tags["git.revision"] == revision and tags["git.dirty"] == "true"


def test_read_only_outputs_are_published(project: tuple[Layout, Study]) -> None:
    layout, study = project
    for path in (layout.root / "outputs").rglob("*"):
        if path.is_file():
            path.chmod(0o444)  # as DVC leaves them when its cache is linked
    quiet(layout, study)
    assert all(p.stat().st_mode & 0o200 for p in (layout.home / "mlruns").rglob("*.json"))


def test_nothing_there_yet(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, outputs=False)
    empty_store(layout.home)
    done = quiet(layout, study)
    assert not done.new and len(done.absent) == 4 and "4 of the study not there yet" in done.summary()
    assert json.loads(layout.published.read_text()) == []


def test_a_server_gets_the_same_runs(project: tuple[Layout, Study], tmp_path: Path) -> None:
    """Through HTTP with the server's own artifact store."""
    layout, study = project
    server = tmp_path / "server"
    server.mkdir()
    empty_store(server)
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--host", "127.0.0.1", "--workers", "1",
         "--backend-store-uri", f"sqlite:///{server}/mlflow.db", "--artifacts-destination", str(server / "artifacts")],
        env=environment(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true"), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health")
        uri = f"http://127.0.0.1:{port}"
        remote = dataclasses.replace(study, tracking=dataclasses.replace(study.tracking, uri=uri))
        assert len(quiet(layout, remote).new) == RUNS and len(quiet(layout, remote).unchanged) == RUNS
        quiet(layout, study)
        assert snapshot(layout, remote) == snapshot(layout, study)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _manifest(layout: Layout) -> Any:
    path = layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory" / "manifest.json"
    return json.loads(path.read_text())


def _rows(layout: Layout) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory" / "history.parquet"
    return list(pq.read_table(path).to_pylist())


def _study(root: Path) -> Study:
    from finetrace.config import load_study

    return load_study(root / "params.yaml")


def _study_named(name: str) -> Study:
    from finetrace.config import parse_study

    return parse_study({"study": {"name": name}}, "params.yaml")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> None:
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < deadline, f"{url} did not come up"
            time.sleep(0.5)
