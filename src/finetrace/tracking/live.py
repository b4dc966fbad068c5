"""Curves while a training runs: a process of its own follows a file of events and feeds the run.

The training only appends JSON lines to `<scratch>/live.jsonl`; whatever happens to tracking, it does not notice:
    {"event": "start", "id": key, "name": ..., "kind": "trajectory" | "trial" | "tune", "parent": key | null,
     "started_at_ms": ..., "params": {}, "tags": {}, "total_steps": ...}
    {"event": "metrics", "id": key, "step": ..., "values": {"train/loss": ...}}
    {"event": "end", "id": key, "state": "FINISHED" | "KILLED" | "FAILED"}
The id is the key of the manifest to come (a trial's: `<key of the search>:<number>`), by which `publish` finds the run,
completes it and adds what only the finished outputs hold.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError, hide_passwords
from finetrace.layout import Layout
from finetrace.study import Study, load_study
from finetrace.tracking.points import Point
from finetrace.tracking.series import metric_name, stride
from finetrace.tracking.store import Store, now_ms, open_store, prepare_environment, tracking_uri

LOG = logging.getLogger("finetrace.tracking")
FLUSH_SECONDS = 1.0
STOP_SECONDS = 15.0  # how long the end of a training waits for its follower


@contextlib.contextmanager
def live_follower(scratch: Path, layout: Layout, after_seconds: float | None = None) -> Iterator[None]:
    """While the block runs, feed MLflow from `<scratch>/live.jsonl`; a failure of tracking is a warning, never more.

    after_seconds: shorter work gets no follower, only the final publication; by default the study's
    `tracking.live_after_seconds`. With `tracking.live: false` nothing happens.
    """
    try:
        study = load_study(layout.params)
    except FinetraceError as error:
        LOG.warning("no live curves: %s", error)
        yield
        return
    if not study.tracking.live:
        yield
        return
    delay = study.tracking.live_after_seconds if after_seconds is None else after_seconds
    follower = _FollowerProcess(scratch / "live.jsonl", study, layout)
    timer = threading.Timer(delay, follower.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        follower.stop()


class _FollowerProcess:
    """Starts and stops `python -m finetrace.tracking.live`; says why when it fails."""

    def __init__(self, path: Path, study: Study, layout: Layout):
        self.path, self.study, self.layout = path, study, layout
        self.log = layout.logs / "live.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()
        self.over = False

    def start(self) -> None:
        with self.lock:
            if self.over:
                return
            command = [sys.executable, "-m", "finetrace.tracking.live", str(self.path.resolve()),
                       "--study", self.study.study.name, "--home", str(self.layout.home.resolve()),
                       "--points", str(self.study.tracking.points)]
            # not as an argument, which others see
            uri = {"MLFLOW_TRACKING_URI": self.study.tracking.uri} if self.study.tracking.uri else {}
            source = str(Path(__file__).resolve().parents[2])
            paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            try:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                with open(self.log, "ab") as log:
                    self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                    env=os.environ | uri | {"PYTHONPATH": os.pathsep.join(paths)})
            except OSError as error:
                LOG.warning("no live curves: the follower could not be started (%s); `finetrace publish` shows the run "
                            "when it is done", error)

    def stop(self) -> None:
        with self.lock:
            self.over = True
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            LOG.warning("live curves: the follower did not stop within %.0f s and was ended; nothing is lost, "
                        "`finetrace publish` completes the run", STOP_SECONDS)
            return
        if code:
            lines = self.log.read_text("utf-8", "replace").strip().splitlines()
            LOG.warning("live curves stopped early (%s); nothing is lost, `finetrace publish` completes the run; "
                        "log: %s", lines[-1] if lines else f"exit code {code}", self.log)


def follow(path: Path, study_name: str, uri: str, home: Path, points: int, parent_pid: int | None = None) -> None:
    """Feed runs from the events in `path` until the first id ends, the process `parent_pid` is gone, or SIGTERM."""
    stopping = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training's; its end is seen by its process id
    follower = Follower(open_store(uri, home, study_name), points)
    tail = Tail(path)
    while not follower.over:
        last_look = stopping.is_set() or (parent_pid is not None and os.getppid() != parent_pid)
        follower.take(tail.read())
        follower.flush()
        if last_look:
            break
        stopping.wait(FLUSH_SECONDS)
    follower.close()


class Tail:
    """Reads the complete lines that a growing JSON-lines file has gained; starts over when the file was replaced."""

    def __init__(self, path: Path):
        self.path = path
        self.offset, self.file = 0, -1
        self.bad: set[tuple[int, bytes]] = set()

    def read(self) -> list[dict[str, Any]]:
        """New events in order. A line without its end is left for later; a broken line (a crash tore it, or the file
        was rewritten under our feet) makes us read the file from the start once, and is then skipped."""
        try:
            with open(self.path, "rb") as stream:
                facts = os.fstat(stream.fileno())
                if facts.st_ino != self.file or facts.st_size < self.offset:
                    self.offset, self.file = 0, facts.st_ino
                stream.seek(self.offset)
                return self._parse(stream.read())
        except FileNotFoundError:
            return []

    def _parse(self, content: bytes) -> list[dict[str, Any]]:
        events = []
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            position = (self.offset, line)
            self.offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict) and "event" in event and "id" in event:
                events.append(event)
            elif position not in self.bad:
                self.bad.add(position)
                self.offset = 0
                return events + self.read()
        return events


class Follower:
    """Events into runs: thinned as the publisher thins, buffered, each point once."""

    def __init__(self, store: Store, points: int):
        self.store, self.points = store, points
        self.runs: dict[str, _LiveRun | None] = {}  # None: finished and published before, so there is nothing to add
        self.first: str | None = None
        self.over = False

    def take(self, events: list[dict[str, Any]]) -> None:
        """Buffer events; `start` opens or finds the run at once."""
        for event in events:
            key = event["id"]
            if event["event"] == "start":
                self.first = self.first or key
                if key not in self.runs:
                    self.runs[key] = self._open(event)
                elif (live_run := self.runs[key]) is not None:
                    live_run.state, live_run.closed = None, False  # a killed or failed training goes on
                self.over = self.over and key != self.first
            run = self.runs.get(key)
            if run is not None and event["event"] == "metrics":
                run.add(int(event["step"]), event["values"], self.points)
            elif event["event"] == "end":
                if run is not None:
                    run.state = event["state"]
                self.over = self.over or key == self.first

    def flush(self) -> None:
        """Send what is buffered, and close runs that have ended."""
        for run in self.runs.values():
            if run is not None and not run.closed:
                run.flush(self.store)

    def close(self) -> None:
        """The end, asked for or not: runs that have not ended by themselves were stopped."""
        for run in self.runs.values():
            if run is not None and not run.closed:
                run.state = run.state or "KILLED"
                run.flush(self.store)

    def _open(self, event: dict[str, Any]) -> "_LiveRun | None":
        key, client = event["id"], self.store.client
        known_runs = [r for r in self.store.runs(f"tags.`finetrace.key` = '{key}'") if not r.deleted]
        if any(r.complete for r in known_runs):
            return None
        total = int(event.get("total_steps") or 0)
        if known_runs:
            run = client.get_run(known_runs[0].run_id)
            client.update_run(known_runs[0].run_id, status="RUNNING")
            return _LiveRun(known_runs[0].run_id, run.info.start_time, total, self.store.steps(run))
        tags = {str(k): str(v) for k, v in (event.get("tags") or {}).items()}
        tags |= {"finetrace.key": key, "finetrace.kind": event["kind"], "finetrace.live": "true"}
        parent = self.runs.get(event.get("parent") or "")
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.run_id
        started = int(event.get("started_at_ms") or now_ms())
        run_id = client.create_run(self.store.experiment_id, started, tags, event["name"]).info.run_id
        if event.get("params"):
            from mlflow.entities import Param

            from finetrace.tracking.collect import flat_params

            client.log_batch(run_id, params=[Param(k, v) for k, v in list(flat_params(event["params"]).items())[:100]])
        return _LiveRun(run_id, started, total, {})


class _LiveRun:
    """One run that is being fed."""

    def __init__(self, run_id: str, base_ms: int, total_steps: int, known_steps: dict[str, set[int]]):
        self.run_id, self.base_ms, self.total_steps = run_id, base_ms, total_steps
        self.known_steps = known_steps  # metric -> steps that the run has
        self.last: dict[str, tuple[int, float]] = {}  # the newest point of each metric, sent at the end
        self.finite = set(known_steps)  # metrics of which a finite value has been sent
        self.waiting: dict[str, list[tuple[str, int, float]]] = {}  # NaN after it: never MLflow's latest value
        self.buffer: list[tuple[str, int, float]] = []
        self.state: str | None = None
        self.closed = False

    def add(self, step: int, values: dict[str, float | None], points: int) -> None:
        """Buffer the values that the final publication will keep: training curves by stride, the rest all."""
        on_stride = step % stride(self.total_steps, points) == 0
        for name, value in values.items():
            name = metric_name(name)
            steps = self.known_steps.setdefault(name, set())
            if step in steps or value is None:
                continue
            value = float(value) if math.isfinite(value) else math.nan
            after_finite = math.isnan(value) and name in self.finite
            if not math.isnan(value):
                self.finite.add(name)
                self.buffer += self.waiting.pop(name, [])
            if not after_finite:
                self.last[name] = (step, value)
            if on_stride or not steps or (not name.startswith("train/") and len(steps) < points):
                steps.add(step)
                (self.waiting.setdefault(name, []) if after_finite else self.buffer).append((name, step, value))

    def flush(self, store: Store) -> None:
        if self.state is not None:
            self.buffer += [(n, s, v) for n, (s, v) in self.last.items() if s not in self.known_steps[n]]
        store.log_points(self.run_id, [Point(n, v, self.base_ms + s, s) for n, s, v in self.buffer])
        self.buffer.clear()
        if self.state is not None:
            store.client.set_terminated(self.run_id, self.state)
            self.closed = True


def main(arguments: list[str] | None = None) -> int:
    """`python -m finetrace.tracking.live FILE --study NAME --home FOLDER`; exit code 1: the last line says why."""
    parser = argparse.ArgumentParser(description="feed MLflow from the events of a running training")
    parser.add_argument("file", type=Path)
    parser.add_argument("--study", required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--points", type=int, default=400)
    options = parser.parse_args(arguments)
    parent = os.getppid()
    os.nice(5)  # the training comes first
    prepare_environment()
    from finetrace.config.tracking import TrackingSettings

    try:
        uri = tracking_uri(TrackingSettings(), options.home)
        follow(options.file, options.study, uri, options.home, options.points, parent)
    except Exception as error:  # the last line of the log becomes the training's warning
        print(hide_passwords(traceback.format_exc()), file=sys.stderr)
        print(hide_passwords(f"{type(error).__name__}: {error}".replace("\n", " ")), file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
