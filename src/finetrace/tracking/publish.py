"""Records into the store, by content: publishing twice changes nothing, and a lost store comes back."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from finetrace.errors import FinetraceError, hide_passwords
from finetrace.layout import Layout
from finetrace.store.files import file_lock, sha256_value, write_json
from finetrace.study import Study
from finetrace.tracking import logged_models
from finetrace.tracking.collect import collect
from finetrace.tracking.moved import SUPERSEDED_TAG, superseded_name
from finetrace.tracking.overview import links
from finetrace.tracking.points import Point
from finetrace.tracking.records import DataInput, RunContent, RunRecord
from finetrace.tracking.series import Series, not_finite
from finetrace.tracking.store import KnownRun, Refused, Store, explained, is_own, open_store, tracking_uri
from finetrace.tracking.turns import Turn, turn


@dataclasses.dataclass
class Published:
    """What `publish` did. Names of runs, except `problems`, which are messages."""

    uri: str
    experiment_id: str = ""
    new: list[str] = dataclasses.field(default_factory=list)
    completed: list[str] = dataclasses.field(default_factory=list)
    unchanged: list[str] = dataclasses.field(default_factory=list)
    superseded: list[str] = dataclasses.field(default_factory=list)
    deleted: list[str] = dataclasses.field(default_factory=list)
    absent: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def summary(self) -> str:
        """What happened and where to look: MLflow's start page shows chat applications, so the link names the view."""
        parts = [f"{len(self.new)} new", f"{len(self.completed)} completed", f"{len(self.unchanged)} unchanged"]
        for names, text in ((self.superseded, "superseded"), (self.deleted, "deleted in MLflow and left alone"),
                            (self.absent, "of the study not there yet (dvc repro makes them)")):
            if names:
                parts.append(f"{len(names)} {text}")
        uri = hide_passwords(self.uri)
        server = uri if uri.startswith("http") else "http://127.0.0.1:5000"
        start = "" if uri.startswith("http") else "mlflow ui, then "
        return (f"published: {', '.join(parts)}; store: {uri}\n"
                f"look: {start}{server}/#/experiments/{self.experiment_id}/runs?workflowType=machine_learning")


def publish(layout: Layout, study: Study, say: Callable[[str], None] = print) -> Published:
    """Turn everything that the study has made into MLflow runs, and write the list of it to `layout.published`.

    say: receives one line per new run and a summary. Raises FinetraceError after the last run when an output was
    damaged, and when the store cannot be reached; publishing again goes on where it stopped.
    """
    found = collect(layout, study)
    done = Published(tracking_uri(study.tracking, layout.home), absent=found.absent, problems=found.problems)
    lock = layout.home / ".finetrace" / "publish.lock"
    with file_lock(lock, waiting="another `finetrace publish` is at work; waiting for it"):
        store = open_store(done.uri, layout.home, study.study.name)
        from mlflow.exceptions import MlflowException  # after the store, which sets its environment up

        done.experiment_id = store.experiment_id
        with _alone(store, study, layout.home) as alone:
            writer = _Writer(store, study, layout.home)
            for record in found.records:
                alone.check()
                try:
                    writer.put(record, done, say)
                except (FinetraceError, MlflowException) as error:
                    problem = writer.explained(error, f"run {record.name}")
                    if isinstance(problem, Refused):
                        raise problem from error
                    done.problems.append(str(problem))
    say(done.summary())
    write_json(layout.published, sorted(({"kind": r.kind, "name": r.name, "key": r.key} for r in found.records),
                                        key=lambda r: (r["kind"], r["name"], r["key"])))
    if done.problems:
        raise FinetraceError("published everything but:\n" + "\n".join(done.problems))
    return done


def _alone(store: Store, study: Study, home: Path) -> contextlib.AbstractContextManager[Turn]:
    """Nobody else publishes the study meanwhile: of the project's own store the lock of the project sees to that."""
    return contextlib.nullcontext(Turn()) if is_own(store.uri, home) else turn(store.client, study.study.name)


class _Writer:
    """Puts records into one experiment; knows what was there at the start and what it has added."""

    def __init__(self, store: Store, study: Study, home: Path):
        self.store, self.study, self.home = store, study, home
        runs = store.runs()
        self.by_identity = {r.identity: r for r in sorted(runs, key=lambda r: r.complete) if r.identity}
        self.unfinished = [r for r in runs if not r.complete and not r.deleted]
        self.by_name: dict[tuple[str, str], list[KnownRun]] = {}
        for run in runs:
            self.by_name.setdefault((run.kind, run.name), []).append(run)
        self.run_ids: dict[str, str] = {}  # identity -> run id

    def put(self, record: RunRecord, done: Published, say: Callable[[str], None]) -> None:
        """Make the store hold this record exactly once, as the current run of its name."""
        known = self.by_identity.get(record.identity)
        if known and known.deleted:
            self._remove_checkpoints(known)
            done.deleted.append(record.name)
            return
        started = None
        if known and known.complete and not _artifacts_lost(known):
            self.run_ids[record.identity] = known.run_id
            done.unchanged.append(record.name)
            if record.accepted not in ("", known.accepted):
                self.store.client.set_tag(known.run_id, "accepted", record.accepted)
        else:
            started = known or self._live_run(record)
            self.run_ids[record.identity] = self._write(record, started)
            (done.completed if started else done.new).append(record.name)
            say(f"{'completed' if started else 'new':9}  {record.kind:10}  {record.name}")
        fresh = known is None and started is None
        self._put_headlines(record, known, fresh=fresh)
        self._put_checkpoints(record, known, fresh=fresh)
        if known and known.complete and known.shown != (record.shown or record.name):
            self.store.client.set_tag(known.run_id, "mlflow.runName", record.shown or record.name)
        before = known or started
        if before and before.superseded:  # its content is back
            self.store.client.delete_tag(before.run_id, SUPERSEDED_TAG)
        self._supersede(record, done)

    def _put_headlines(self, record: RunRecord, known: KnownRun | None, *, fresh: bool) -> None:
        """Headline metrics of lenses on the run of their training; they come and change after it. Those that the run
        has as courses over its checkpoints end with the last one."""
        courses = record.checkpoints.names if record.checkpoints else frozenset()
        headlines = {name: value for name, value in record.headlines.items() if name not in courses}
        content = sha256_value(headlines) if headlines else ""
        if content and (known is None or known.headlines != content):
            run_id = self.run_ids[record.identity]
            known_steps = {} if fresh else {name: steps for name, steps in self.store.steps(
                self.store.client.get_run(run_id)).items() if name in headlines}
            points = [Point(name, value, record.started_at_ms, max(known_steps.get(name, {-1})) + 1)
                      for name, value in headlines.items()]
            self.store.log_points(run_id, points, tags={"finetrace.headlines": content})

    def _put_checkpoints(self, record: RunRecord, known: KnownRun | None, *, fresh: bool) -> None:
        """The models of a training, whose numbers come and change after it, as its headline metrics do."""
        from mlflow.exceptions import MlflowException

        found, shown = record.checkpoints, record.shown or record.name.replace("_", " ")
        if found is None or (known is not None and known.checkpoints == found.told_as(shown)):
            return
        try:
            logged_models.put_checkpoints(self.store.client, self.store.experiment_id, self.run_ids[record.identity],
                                          shown, found, record.started_at_ms, fresh=fresh)
        except MlflowException as error:
            raise self.explained(error, f"checkpoints of {record.name}") from error

    def _remove_checkpoints(self, run: KnownRun) -> None:
        """The models of a run that is replaced or deleted."""
        if run.checkpoints:
            logged_models.remove_checkpoints(self.store.client, self.store.experiment_id, run.run_id)
            if not run.deleted:
                self.store.client.delete_tag(run.run_id, logged_models.TAG)

    def _live_run(self, record: RunRecord) -> KnownRun | None:
        """The run that was fed while this record's work was going on."""
        matching = [r for r in self.unfinished if r.key == record.key
                    and (r.name == record.name or record.kind == "trial")]
        return matching[0] if matching else None

    def _supersede(self, record: RunRecord, done: Published) -> None:
        """Earlier runs of the same name stay as history, which their shown name says; a live run that is still training
        is left alone."""
        for run in self.by_name.get((record.kind, record.name), []):
            old = run.run_id != self.run_ids[record.identity] and not run.deleted and not run.superseded
            if old and (run.complete or run.status != "RUNNING"):
                self._remove_checkpoints(run)
                self.store.client.set_tag(run.run_id, "mlflow.runName", superseded_name(run.shown))
                self.store.client.set_tag(run.run_id, SUPERSEDED_TAG, "true")
                done.superseded.append(run.name)

    def _write(self, record: RunRecord, started_run: KnownRun | None) -> str:
        """Create the run, or top up one that was interrupted, fed live or has lost its artifacts.

        The tag `finetrace.complete` comes last.
        """
        from mlflow.exceptions import MlflowException

        content = record.load()
        try:
            if started_run is not None and started_run.complete:
                _log_artifacts(self.store.client, started_run.run_id, content.artifacts)
                return started_run.run_id
            return self._write_content(record, content, started_run.run_id if started_run else None)
        except (MlflowException, OSError) as error:
            raise self.explained(error, f"run {record.name}") from error

    def explained(self, error: Exception, what: str) -> FinetraceError:
        """A store's error in a sentence; ours has one."""
        if isinstance(error, FinetraceError):
            return error
        return explained(error, self.store.uri, f"{what} in {self.store.uri}: {str(error).splitlines()[0]}; remove the "
                         "cause and run `finetrace publish` again: it goes on here")

    def _write_content(self, record: RunRecord, content: RunContent, run_id: str | None) -> str:
        from mlflow.entities import RunTag

        client = self.store.client
        tags = content.tags | not_finite(content.series) | self._tags(record)
        base, params, there = record.started_at_ms, dict(content.params), {}
        if run_id is not None:
            run = client.get_run(run_id)
            if any(params.get(k, v) != v for k, v in run.data.params.items()):
                client.delete_run(run_id)  # fed live with other params, which MLflow does not let anyone correct
                run_id = None
            else:
                base = run.info.start_time
                params = {k: v for k, v in params.items() if k not in run.data.params}
                there = self.store.steps(run)
                client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
                if "finetrace.live" in run.data.tags:
                    client.delete_tag(run_id, "finetrace.live")
                if run.info.run_name != (record.shown or record.name):
                    client.set_tag(run_id, "mlflow.runName", record.shown or record.name)
        if run_id is None:
            run_id = client.create_run(self.store.experiment_id, base, tags,
                                       record.shown or record.name).info.run_id
        self.store.log_points(run_id, list(_points(content, base, self.study.tracking.points, there)), params)
        if content.data:
            client.log_inputs(run_id, datasets=[_data_input(content.data)])
        if content.artifacts:
            _log_artifacts(client, run_id, content.artifacts)
        if record.state in ("RUNNING", "SCHEDULED"):
            client.update_run(run_id, status=record.state)
        else:
            client.set_terminated(run_id, record.state, record.ended_at_ms or record.started_at_ms)
        client.set_tag(run_id, "finetrace.complete", "true")
        return run_id

    def _tags(self, record: RunRecord) -> dict[str, str]:
        tags = {"finetrace.id": record.identity, "finetrace.key": record.key, "finetrace.kind": record.kind,
                "finetrace.name": record.name, "study": self.study.study.name} | git_tags(self.home)
        if record.members:
            tags |= links(self.run_ids, record.members, self.store.experiment_id)
        if record.accepted:
            tags["accepted"] = record.accepted
        if record.parent in self.run_ids:
            tags["mlflow.parentRunId"] = self.run_ids[record.parent]
        if os.environ.get("DVC_EXP_NAME"):
            tags["dvc.exp_name"] = os.environ["DVC_EXP_NAME"]
        return tags


def _points(content: RunContent, base_ms: int, points: int, known_steps: dict[str, set[int]]) -> Iterator[Point]:
    """Metric points with time stamps that depend on the outputs alone, so that MLflow drops repeated ones.

    known_steps: metric -> steps that the run has already.
    """
    finals = [Series(k, *_single(content.final_step, v)) for k, v in content.finals.items()]
    for series in [s.thinned(points) for s in content.series] + finals:
        skip = known_steps.get(series.name, set())
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            if step not in skip:
                yield Point(series.name, value, base_ms + step, step)


def _single(step: int, value: float) -> tuple[Any, Any]:
    import numpy as np

    return np.array([step]), np.array([value])


def _data_input(data: DataInput) -> Any:
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(data.name, data.digest, "local", json.dumps({"uri": data.source}),
                      profile=json.dumps(data.profile, default=str))
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


def _log_artifacts(client: Any, run_id: str, artifacts: dict[str, Path | str]) -> None:
    """All artifacts in one call, from a folder of plain copies: DVC's files may be read-only links into its cache."""
    with tempfile.TemporaryDirectory(prefix="finetrace-") as folder:
        for name, content in artifacts.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_text(content, "utf-8")
        client.log_artifacts(run_id, folder)


def _artifacts_lost(run: KnownRun) -> bool:
    """Whether a run of this machine's store has lost its artifact folder (trials and cells have none)."""
    uri = urlparse(run.artifact_uri)
    return run.kind not in ("trial", "cell") and uri.scheme in ("", "file") and not Path(
        unquote(uri.path) if uri.scheme else run.artifact_uri).is_dir()


@cache
def git_tags(home: Path) -> dict[str, str]:
    """The project's commit at the time of publishing, and whether files differ from it; empty outside git."""
    try:
        commit, changes = (subprocess.run(["git", "-C", str(home), *args], capture_output=True, text=True, timeout=30)
                           for args in (["rev-parse", "HEAD"], ["status", "--porcelain"]))
    except FileNotFoundError:
        return {}
    if commit.returncode or changes.returncode:
        return {}
    revision = commit.stdout.strip()
    return {"git.revision": revision, "git.dirty": str(bool(changes.stdout.strip())).lower(),
            "mlflow.source.git.commit": revision}
