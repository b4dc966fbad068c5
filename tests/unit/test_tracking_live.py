"""The follower: torn and rewritten files, runs that resume, failures that hurt nobody."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store, make_project

from finetrace.layout import Layout
from finetrace.store.files import write_yaml
from finetrace.study import Study
from finetrace.tracking import live
from finetrace.tracking.live import Follower, Tail, live_follower
from finetrace.tracking.store import Store, open_store, tracking_uri


def line(event: str, key: str = "k", **rest: Any) -> str:
    return json.dumps({"event": event, "id": key, **rest}) + "\n"


def start(key: str = "k", name: str = "run", kind: str = "trajectory", **rest: Any) -> dict[str, Any]:
    return {"event": "start", "id": key, "name": name, "kind": kind, "parent": None, "started_at_ms": 1000,
            "params": {}, "tags": {}, "total_steps": 10} | rest


def metrics(step: int, value: float, key: str = "k", name: str = "train/loss") -> dict[str, Any]:
    return {"event": "metrics", "id": key, "step": step, "values": {name: value}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    empty_store(tmp_path)
    return open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo")


def points(store: Store, run_id: str, name: str = "train/loss") -> list[tuple[int, float, int]]:
    return [(m.step, m.value, m.timestamp) for m in store.client.get_metric_history(run_id, name)]


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    whole, torn = line("start"), line("end")
    path.write_text(whole + torn[:7])
    assert [e["event"] for e in tail.read()] == ["start"] and tail.read() == []
    path.write_text(whole + torn)
    assert [e["event"] for e in tail.read()] == ["end"]


def test_a_line_torn_by_a_crash_is_skipped_after_one_new_look(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_text(line("start") + '{"event": "met' + line("metrics", step=1) + line("end"))
    tail = Tail(path)
    assert [e["event"] for e in tail.read()] == ["start", "start", "end"]
    assert tail.read() == []


@pytest.mark.parametrize("grown", [False, True])
def test_a_rewritten_file_is_read_from_the_start(tmp_path: Path, grown: bool) -> None:
    path = tmp_path / "live.jsonl"
    path.write_text(line("start") + line("metrics", step=1))
    tail = Tail(path)
    assert len(tail.read()) == 2
    path.write_text(line("start", note="x" * 90 if grown else ""))  # the same file, truncated and written again
    assert [e["event"] for e in tail.read()] == ["start"]


def test_lines_that_are_no_events_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_text('[1]\n"x"\n{"a": 1}\n\xff\n' + line("end"))
    assert [e["event"] for e in Tail(path).read()] == ["end"]


# --- feeding ------------------------------------------------------------------------------------------------------


def test_points_arrive_once_with_times_from_the_start(store: Store) -> None:
    follower = Follower(store, 400)
    follower.take([start(tags={"a": "b"}, params={"x": {"y": 1}}), metrics(1, 0.5), metrics(2, float("nan"))])
    follower.flush()
    follower.take([start(), metrics(1, 0.5), metrics(2, float("nan")), metrics(3, 0.25)])  # the file was read again
    follower.flush()
    run, = store.runs()
    assert (run.key, run.kind, run.name, run.status, run.complete) == ("k", "trajectory", "run", "RUNNING", False)
    found = sorted(points(store, run.run_id))
    assert [(s, t) for s, _, t in found] == [(1, 1001), (2, 1002), (3, 1003)]
    data = store.client.get_run(run.run_id).data
    assert data.tags["a"] == "b" and data.params == {"x.y": "1"}


def test_nan_is_never_the_latest_value_where_there_is_a_finite_one(store: Store) -> None:
    nan, follower = float("nan"), Follower(store, 400)

    def latest(*events: dict[str, Any]) -> float:
        follower.take(list(events))
        follower.flush()
        return float(store.client.get_run(store.runs()[0].run_id).data.metrics["train/loss"])

    assert math.isnan(latest(start(), metrics(1, nan)))
    assert latest(metrics(2, 0.5), metrics(3, float("inf"))) == 0.5
    assert latest(metrics(4, 0.25)) == 0.25
    assert latest(metrics(5, nan), {"event": "end", "id": "k", "state": "FAILED"}) == 0.25
    assert sorted(s for s, _, _ in points(store, store.runs()[0].run_id)) == [1, 2, 3, 4]


def test_the_end_closes_the_run_and_sends_the_last_point(store: Store) -> None:
    follower = Follower(store, 10)
    follower.take([start(total_steps=1000), *(metrics(s, s / 7) for s in range(1, 998)),
                   {"event": "end", "id": "k", "state": "FINISHED"}])
    follower.flush()
    run, = store.runs()
    steps = [s for s, _, _ in points(store, run.run_id)]
    assert follower.over and run.status == "FINISHED"
    assert steps[0] == 1 and steps[-1] == 997 and len(steps) <= 10


def test_a_follower_that_is_started_again_goes_on_with_the_run(store: Store) -> None:
    events = [start(), metrics(1, 0.5)]
    first = Follower(store, 400)
    first.take(events)
    first.close()
    assert store.runs()[0].status == "KILLED"
    second = Follower(store, 400)
    second.take([*events, start(started_at_ms=9999), metrics(2, 0.4)])  # another clock: the run keeps its own start
    second.flush()
    run, = store.runs()
    assert run.status == "RUNNING" and [p[2] for p in points(store, run.run_id)] == [1001, 1002]


def test_a_failed_training_that_goes_on_is_followed_on(store: Store) -> None:
    follower = Follower(store, 400)
    follower.take([start(), metrics(1, 0.5), {"event": "end", "id": "k", "state": "FAILED"}])
    follower.flush()
    assert follower.over and store.runs()[0].status == "FAILED"
    follower = Follower(store, 400)
    follower.take([start(), metrics(1, 0.5), {"event": "end", "id": "k", "state": "FAILED"}, start(), metrics(2, 0.4)])
    assert not follower.over
    follower.flush()
    assert store.runs()[0].status == "RUNNING"


def test_a_published_run_is_not_fed_again(store: Store) -> None:
    tags = {"finetrace.key": "k", "finetrace.complete": "true"}
    done = store.client.create_run(store.experiment_id, 1000, tags, "run").info.run_id
    follower = Follower(store, 400)
    follower.take([start(), metrics(1, 0.5), {"event": "end", "id": "k", "state": "FINISHED"}])
    follower.close()
    assert follower.over and len(store.runs()) == 1 and points(store, done) == []


def test_trials_are_nested_and_end_in_their_states(store: Store) -> None:
    follower = Follower(store, 400)
    follower.take([start("t", "cell_tune", "tune"), start("t:0", "trial 0", "trial", parent="t"),
                   start("t:1", "trial 1", "trial", parent="t"), metrics(10, 0.5, "t:0", "objective/intermediate"),
                   {"event": "end", "id": "t:0", "state": "KILLED"}])
    follower.flush()
    assert not follower.over
    runs = {r.key: r for r in store.runs()}
    assert [runs[k].status for k in ("t", "t:0", "t:1")] == ["RUNNING", "KILLED", "RUNNING"]
    assert store.client.get_run(runs["t:1"].run_id).data.tags["mlflow.parentRunId"] == runs["t"].run_id
    follower.close()
    assert {r.key: r.status for r in store.runs()} == {"t": "KILLED", "t:0": "KILLED", "t:1": "KILLED"}


# --- the process --------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    layout, study = make_project(tmp_path / "project", outputs=False)
    empty_store(layout.home)
    return layout, study


def test_follower_process_feeds_while_the_block_runs(project: tuple[Layout, Study]) -> None:
    layout, study = project
    scratch = layout.scratch("train", "k" * 64)
    scratch.mkdir(parents=True)
    store = open_store(tracking_uri(study.tracking, layout.home), layout.home, study.study.name)
    live_file = scratch / "live.jsonl"
    with live_follower(scratch, layout, after_seconds=0.0), open(live_file, "a", buffering=1) as out:
        out.write(json.dumps(start()) + "\n" + json.dumps(metrics(1, 0.5)) + "\n")
        deadline = time.monotonic() + 60
        while not (store.runs() and points(store, store.runs()[0].run_id)):
            assert time.monotonic() < deadline, (layout.logs / "live.log").read_text()
            time.sleep(0.2)
        out.write(json.dumps(metrics(2, 0.4)) + "\n" + line("end", state="FINISHED"))
    run, = store.runs()
    assert run.status == "FINISHED" and [p[0] for p in points(store, run.run_id)] == [1, 2]


def test_short_work_starts_no_follower(project: tuple[Layout, Study]) -> None:
    layout, _ = project
    with live_follower(layout.scratch("train", "k"), layout):
        pass
    assert not layout.logs.exists()


def test_live_can_be_switched_off(project: tuple[Layout, Study]) -> None:
    layout, study = project
    write_yaml(layout.params, {"study": {"name": study.study.name}, "tracking": {"live": False}})
    with live_follower(layout.scratch("train", "k"), layout, after_seconds=0.0):
        time.sleep(0.05)
    assert not layout.logs.exists()


@pytest.mark.parametrize("text", [None, "study: {name: x, sed: 1}", "[]"])
def test_params_that_cannot_be_read_are_a_warning(project: tuple[Layout, Study], caplog: pytest.LogCaptureFixture,
                                                  monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    """A stage that trains reads its own settings; the study only says where curves go."""
    layout, _ = project
    if text is None:
        layout.params.unlink()
    else:
        layout.params.write_text(text)
    monkeypatch.setattr(logging.getLogger("finetrace"), "propagate", True)
    trained = False
    with caplog.at_level(logging.WARNING, "finetrace.tracking"):
        with live_follower(layout.scratch("train", "k"), layout, after_seconds=0.0):
            trained = True
            time.sleep(0.05)
    assert trained and "no live curves: params.yaml: " in caplog.text and not layout.logs.exists()


def test_a_broken_store_is_a_warning_with_its_reason(project: tuple[Layout, Study],
                                                     caplog: pytest.LogCaptureFixture,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    layout, _ = project
    (layout.home / "mlflow.db").write_text("broken " * 500)
    monkeypatch.setattr(logging.getLogger("finetrace"), "propagate", True)
    with caplog.at_level(logging.WARNING, "finetrace.tracking"):
        manager = live_follower(layout.scratch("train", "k"), layout, after_seconds=0.0)
        with manager:
            deadline = time.monotonic() + 60
            log = layout.logs / "live.log"
            while not (log.exists() and "FinetraceError:" in log.read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(0.5)
    assert "live curves stopped early" in caplog.text and "not a readable sqlite database" in caplog.text


def test_a_follower_that_cannot_start_is_a_warning(project: tuple[Layout, Study], caplog: pytest.LogCaptureFixture,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    layout, _ = project
    monkeypatch.setattr(live.sys, "executable", "/no/such/python")
    monkeypatch.setattr(logging.getLogger("finetrace"), "propagate", True)
    with caplog.at_level(logging.WARNING, "finetrace.tracking"):
        with live_follower(layout.scratch("train", "k"), layout, after_seconds=0.0):
            time.sleep(0.3)
    assert "no live curves" in caplog.text


def test_an_error_of_the_training_passes_through(project: tuple[Layout, Study]) -> None:
    layout, _ = project
    with pytest.raises(KeyError, match="training"), live_follower(layout.scratch("t", "k"), layout):
        raise KeyError("training")
