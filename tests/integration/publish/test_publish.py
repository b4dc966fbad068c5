"""Publishing finished outputs: everything arrives once, survives every accident, and comes back."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.outputs import empty_store, make_project, make_training, manifest, weights_sha
from tests.publishing import NAME, ROOT, RUNS, environment, opened, otherwise_addressed, quiet, snapshot

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.files import write_yaml
from finetrace.store.manifest import complete
from finetrace.study import Study
from finetrace.tracking.publish import publish
from finetrace.tracking.store import KnownRun, Refused


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
    assert {"checkpoints.json", "history.parquet", "manifest.json", "metrics.json",
            "provenance.json"} <= set(run["artifacts"])
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
    empty_store(layout.home)  # as it is made anew
    study = otherwise_addressed(layout, study)
    assert len(quiet(layout, study).new) == RUNS
    assert snapshot(layout, study) == before


def test_lost_artifacts_come_back(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    before = snapshot(layout, study)
    shutil.rmtree(layout.home / "mlruns")
    done = quiet(layout, study)
    assert len(done.completed) == RUNS - 6 and not done.new
    assert snapshot(layout, study) == before


def test_new_content_supersedes_the_old_run(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    name = NAME
    folder = layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory"
    shutil.copytree(folder, layout.home / "old")
    make_training(folder, "train", name, 60, {}, version=2)
    done = quiet(layout, study)
    cell = "micro-a_micro-sentiment_ft_cell"
    assert sorted(done.new) == [f"infodynamics@{name}", cell, name] == sorted(done.superseded)
    runs = [r for r in opened(layout, study).runs() if r.name == name]
    assert sorted(r.superseded for r in runs) == [False, True]
    everything = opened(layout, study).runs()
    assert all(r.shown.endswith(" (superseded)") == r.superseded for r in everything)
    assert {r.run_id for r in unreplaced(layout, study)} == {r.run_id for r in everything if not r.superseded}
    shutil.rmtree(folder)
    shutil.move(layout.home / "old", folder)  # e.g. dvc checkout of the earlier commit
    done = quiet(layout, study)
    assert not done.new and sorted(done.superseded) == [f"infodynamics@{name}", cell, name]
    again = {r.run_id: r.superseded for r in opened(layout, study).runs() if r.name == name}
    assert again == {r.run_id: not r.superseded for r in runs}
    assert all(r.shown.endswith(" (superseded)") == r.superseded for r in opened(layout, study).runs())


def test_a_right_that_is_missing_after_the_run_is_one_sentence(project: tuple[Layout, Study],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.tracking import MlflowClient

    layout, study = project
    quiet(layout, study)
    make_training(layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory", "train", NAME, 60, {}, version=2)
    set_tag = MlflowClient.set_tag

    def refuse(client: MlflowClient, run_id: str, key: str, value: object) -> None:
        if "superseded" in f"{key} {value}":
            raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)
        set_tag(client, run_id, key, value)

    monkeypatch.setattr(MlflowClient, "set_tag", refuse)
    with pytest.raises(Refused, match=r"does not let .* write here"):
        quiet(layout, study)


def unreplaced(layout: Layout, study: Study) -> list[KnownRun]:
    """What the filter of docs/mlflow.md leaves."""
    text = (ROOT / "docs" / "mlflow.md").read_text("utf-8")
    (said,) = [line for line in text.splitlines() if line.startswith("tags.`finetrace.superseded`")]
    return opened(layout, study).runs(said)


def test_a_figure_drawn_anew_is_shown(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    figures = layout.run("micro-a", "micro-sentiment", "ft", 1) / "infodynamics" / "figures"
    drawn = (figures / "main.png").read_bytes() + b"in red"
    (figures / "main.png").write_bytes(drawn)
    complete(figures, manifest("figures", "infodynamics", NAME))
    name = f"infodynamics@{NAME}"
    done = quiet(layout, study)
    assert done.new == done.superseded == [name] and len(done.unchanged) == RUNS - 1
    store = opened(layout, study)
    run = next(r for r in store.runs() if r.name == name and not r.superseded)
    assert Path(store.client.download_artifacts(run.run_id, "figures/main.png")).read_bytes() == drawn


def test_results_that_stand_over_other_code_say_why(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    code = {"measure": "c" * 64, "draw": "d" * 64}  # of what make_project writes
    entry = {"because": "a rename", "content": code} | dict.fromkeys(code, "e" * 64)
    write_yaml(layout.root / "accepted.yaml", {"infodynamics": entry})
    done = quiet(layout, study)
    assert len(done.unchanged) == RUNS
    told = {name: run["tags"]["accepted"] for name, run in snapshot(layout, study).items() if "accepted" in run["tags"]}
    lens = "infodynamics@micro-a_micro-sentiment_ft"
    assert told == {f"{lens}_s1": "a rename", f"{lens}_s2": "a rename"}


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
    with pytest.raises(FinetraceError, match=r"curves\.csv: its content is not what its stage wrote"):
        quiet(layout, study)
    assert len([r for r in opened(layout, study).runs() if r.complete]) == RUNS - 1


def test_moved_project_opens_its_artifacts(project: tuple[Layout, Study], tmp_path: Path) -> None:
    layout, study = project
    quiet(layout, study)
    before = snapshot(layout, study)
    moved = tmp_path / "else where" / "project"
    moved.parent.mkdir()
    shutil.move(layout.home, moved)
    new = Layout(moved, moved)
    done = quiet(new, study)
    assert len(done.new) == RUNS and not done.completed and not layout.home.exists()
    assert len(quiet(new, study).unchanged) == RUNS
    assert snapshot(new, study) == before
    store = opened(new, study)
    for run in store.runs():
        if run.kind not in ("trial", "cell"):
            assert run.artifact_uri == f"{moved}/mlruns/demo/{run.run_id}/artifacts"
            assert json.loads(Path(store.client.download_artifacts(run.run_id, "manifest.json")).read_text())["files"]
    run = next(r for r in store.runs() if r.kind == "atlas")
    subprocess.run([sys.executable, "-c", "import sys; from mlflow.tracking import MlflowClient;"
                    "MlflowClient(sys.argv[1]).log_text(sys.argv[2], 'x', 'new.txt')", store.uri, run.run_id],
                   check=True, env=environment())
    assert (moved / "mlruns" / "demo" / run.run_id / "artifacts" / "new.txt").is_file() and not layout.home.exists()


def test_a_project_that_moves_back_publishes_nothing_anew(project: tuple[Layout, Study], tmp_path: Path) -> None:
    layout, study = project
    quiet(layout, study)
    before = snapshot(layout, study)
    moved = shutil.move(layout.home, tmp_path / "moved")
    assert len(quiet(Layout(moved, moved), study).new) == RUNS
    shutil.move(moved, layout.home)
    study = otherwise_addressed(layout, study)
    done = quiet(layout, study)
    assert not done.new and not done.completed and len(done.unchanged) == RUNS
    assert snapshot(layout, study) == before


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
    copies = list((layout.home / "mlruns").rglob("*.json"))
    assert copies and all(p.stat().st_mode & 0o200 for p in copies)


def test_nothing_there_yet(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, outputs=False)
    empty_store(layout.home)
    done = quiet(layout, study)
    assert not done.new and len(done.absent) == 4 and "4 of the study not there yet" in done.summary()
    assert json.loads(layout.published.read_text()) == []


def test_a_server_gets_the_same_runs(tmp_path: Path) -> None:
    """Through HTTP with the server's own artifact store."""
    layout, study = make_project(tmp_path / "project", seeds=(1,), steps=20, examples=200)
    empty_store(layout.home)
    server = tmp_path / "server"
    server.mkdir()
    empty_store(server)
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--host", "127.0.0.1", "--workers", "1",
         "--backend-store-uri", f"sqlite:///{server}/mlflow.db", "--artifacts-destination", str(server / "artifacts")],
        env=environment(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true",
                        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        uri = f"http://127.0.0.1:{port}"
        remote = dataclasses.replace(study, tracking=dataclasses.replace(study.tracking, uri=uri))
        new = quiet(layout, remote).new
        assert len(new) > 8 and sorted(quiet(layout, remote).unchanged) == sorted(new)
        assert sorted(quiet(layout, study).new) == sorted(new)
        assert snapshot(layout, remote) == snapshot(layout, study)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _study(root: Path) -> Study:
    from finetrace.study import load_study

    return load_study(root / "params.yaml")


def _study_named(name: str) -> Study:
    from finetrace.study import parse_study

    return parse_study({"study": {"name": name}}, "params.yaml")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + 300  # a busy machine imports MLflow slowly
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert server.poll() is None, f"the server ended with {server.returncode}"
            assert time.monotonic() < deadline, f"{url} did not come up"
            time.sleep(0.5)
