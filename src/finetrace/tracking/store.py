"""The tracking store: created once and whole, and opened with clear errors; by MLflow's public client only."""

import contextlib
import dataclasses
import filecmp
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from finetrace.config.tracking import TrackingSettings
from finetrace.errors import FinetraceError, hide_passwords
from finetrace.layout import slug
from finetrace.store.files import file_lock
from finetrace.tracking import logged_models
from finetrace.tracking.moved import HOME_TAG, SUPERSEDED_SUFFIX, SUPERSEDED_TAG, has_moved, made_here_before, retire
from finetrace.tracking.points import Point, log_points

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

LOG = logging.getLogger("finetrace.tracking")
ANSWER_SECONDS = 5
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SQLITE_START = b"SQLite format 3\0"  # of every sqlite file
_CREATE = "import sys; from mlflow.tracking import MlflowClient; MlflowClient(sys.argv[1])"


class Refused(FinetraceError):
    """A server does not let this user in, or not write."""


@dataclasses.dataclass(frozen=True)
class KnownRun:
    """What the publisher needs to know about a run in the store."""

    run_id: str
    identity: str
    key: str
    kind: str
    name: str
    complete: bool
    superseded: bool
    deleted: bool
    status: str
    artifact_uri: str
    accepted: str
    shown: str
    headlines: str
    checkpoints: str


@dataclasses.dataclass(frozen=True)
class Store:
    """An opened store and the study's experiment in it."""

    client: "MlflowClient"
    experiment_id: str
    uri: str

    def runs(self, filter_string: str = "") -> list[KnownRun]:
        """All runs of the experiment that carry finetrace's tags, the deleted ones too."""
        from mlflow.entities import ViewType

        known_runs: list[KnownRun] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], filter_string, run_view_type=ViewType.ALL,
                                           max_results=1000, page_token=token)
            known_runs += [_known(run) for run in page if "finetrace.key" in run.data.tags]
            token = page.token
            if not token:
                return known_runs

    def log_points(self, run_id: str, points: Sequence[Point], params: dict[str, str] | None = None,
                   tags: dict[str, str] | None = None) -> None:
        """Add metric points, params and, last, tags to a run; points that it has already are dropped."""
        log_points(self.client, run_id, points, params, tags)

    def steps(self, run: Any) -> dict[str, set[int]]:
        """Which points a run has: metric -> steps."""
        history = self.client.get_metric_history
        return {name: {m.step for m in history(run.info.run_id, name)} for name in run.data.metrics}


def _known(run: Any) -> KnownRun:
    tags = run.data.tags
    name = tags.get("finetrace.name", run.info.run_name.removesuffix(SUPERSEDED_SUFFIX))  # live runs have no other yet
    return KnownRun(run.info.run_id, tags.get("finetrace.id", ""), tags["finetrace.key"],
                    tags.get("finetrace.kind", ""), name, tags.get("finetrace.complete") == "true",
                    tags.get(SUPERSEDED_TAG) == "true", run.info.lifecycle_stage == "deleted", run.info.status,
                    run.info.artifact_uri, tags.get("accepted", ""), run.info.run_name,
                    tags.get("finetrace.headlines", ""), tags.get(logged_models.TAG, ""))


def tracking_uri(settings: TrackingSettings, home: Path) -> str:
    """Where runs go: the study's `tracking.uri`, else MLFLOW_TRACKING_URI, else the project's own mlflow.db.

    A relative sqlite path is taken from the project folder, not from the folder in which a stage happens to run.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve() / 'mlflow.db'}"
    path = database_path(uri)
    if path is not None:
        return f"sqlite:///{(home.resolve() / path)}"
    if not re.match(r"(https?|databricks|postgresql|mysql|mssql)\b", uri):
        raise FinetraceError(f"tracking uri {uri!r}: MLflow no longer takes a folder as its store; remove tracking.uri "
                             "and MLFLOW_TRACKING_URI (the project then uses mlflow.db), or give sqlite:///<file> or a "
                             "server such as http://127.0.0.1:5000")
    return uri


def database_path(uri: str) -> Path | None:
    """The file behind a sqlite URI; None for servers and other databases."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_own(uri: str, home: Path) -> bool:
    """Whether a store is the project's own file; any other one may serve several projects and machines."""
    path = database_path(uri)
    return path is not None and path.resolve().parent == home.resolve()


def open_store(uri: str, home: Path, experiment: str) -> Store:
    """Open the store, and create it and the experiment where they are missing.

    An experiment of this project at an earlier place is replaced (`tracking.moved`): its runs are published anew.
    """
    with opened(uri, home) as client:
        return Store(client, _experiment(client, uri, home, experiment).experiment_id, uri)


@contextlib.contextmanager
def opened(uri: str, home: Path) -> Iterator["MlflowClient"]:
    """A client, under the lock that keeps others from creating the same store or experiment meanwhile."""
    prepare_environment()
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    path = database_path(uri)
    lock = path.with_name(path.name + ".lock") if path else home / ".finetrace" / "store.lock"
    with file_lock(lock):
        try:
            yield MlflowClient(uri) if path is None else _open_database(path, home, lock)
        except MlflowException as error:
            raise explained(error, uri, f"tracking store {uri}: {str(error).splitlines()[0]}; check that the server "
                            "runs (or that the file is writable), then run `finetrace publish` again; "
                            "`finetrace doctor` explains more") from error


def explained(error: Exception, uri: str, otherwise: str) -> FinetraceError:
    """A store's error in a sentence: what to do where it is about who asks (Refused), else the given sentence."""
    from mlflow.exceptions import MlflowException

    status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if status == 401:
        given = f"does not accept those of {user}" if user else "none are set"
        return Refused(f"tracking store {uri}: asks for a user and a password, and {given}; set "
                       "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment and run the same "
                       "command again")
    if status == 403:
        return Refused(f"tracking store {uri}: does not let {user or 'this user'} write here; let whoever made the "
                       "experiment, or an administrator, give you the permission EDIT, or publish as another user "
                       "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)")
    return FinetraceError(otherwise)


def why_silent(uri: str) -> str | None:
    """Why a server does not answer within some seconds; None when it does, and for files and services elsewhere.

    Nothing is changed: of a database only the connection is tried, as MLflow may bring the tables of what it opens up
    to date.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        prepare_environment()
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        with _environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT=str(ANSWER_SECONDS)):
            try:
                MlflowClient(uri).search_experiments(max_results=1)
            except MlflowException as error:
                return hide_passwords(str(error).splitlines()[0])
        return None
    port = PORTS.get(parts.scheme.partition("+")[0])
    if port is not None and parts.hostname:
        try:
            socket.create_connection((parts.hostname, parts.port or port), ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            return str(error)
    return None


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    earlier = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in earlier.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def prepare_environment() -> None:
    """Before mlflow is imported: no telemetry, no chatter, and a dead server is reported in seconds, not minutes."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    for name in ("mlflow.store.db.utils", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _open_database(path: Path, home: Path, lock: Path) -> "MlflowClient":
    """A client of the sqlite store, which is created when it is missing.

    Opening a store, MLflow may bring its tables up to date. The lock's text is the version of MLflow that opened the
    store last; when another one does, the store as it was stays beside it if anything changes.
    """
    if not path.exists() or not path.stat().st_size:
        _create_database(path, home)
    version = metadata.version("mlflow")
    if lock.read_text("utf-8") == version:
        return client_of(path)
    backup = path.with_name(f"{path.name}.before-mlflow-{version}")
    shutil.copyfile(path, backup)
    try:
        client = client_of(path)
    except FinetraceError:
        os.replace(backup, path)  # what MLflow began and could not finish is undone
        raise
    if filecmp.cmp(path, backup, shallow=False):
        backup.unlink()
    else:
        LOG.warning("MLflow %s has changed the tables of %s; the store as it was: %s", version, path, backup)
    lock.write_text(version, "utf-8")
    return client


def client_of(path: Path) -> "MlflowClient":
    """A client of a sqlite store that exists; FinetraceError when MLflow cannot use it."""
    from mlflow.tracking import MlflowClient

    advice = (f"move it away (mv {path.name} {path.name}.broken) and run `finetrace publish`: all runs come back from "
              "outputs/")
    with open(path, "rb") as stream:
        first_bytes = stream.read(len(_SQLITE_START))
    if first_bytes != _SQLITE_START[:len(first_bytes)]:
        raise FinetraceError(f"{path}: is not a readable sqlite database; {advice}")
    try:
        return MlflowClient(f"sqlite:///{path}")
    except Exception as error:  # of MLflow, alembic or sqlalchemy: whatever keeps MLflow from using its own store
        reason = str(error).splitlines()[0].split(". ")[0]
        raise FinetraceError(f"{path}: MLflow {metadata.version('mlflow')} cannot open it ({reason}); of an older "
                             f"MLflow: cp {path.name} {path.name}.backup && mlflow db upgrade sqlite:///{path}; of a "
                             f"newer one: install that; or its creation was interrupted: {advice}") from error


def _create_database(path: Path, home: Path) -> None:
    """Create the sqlite store beside its name and link it in when it is whole.

    Two processes that open the same new store at once can leave it broken for ever, and so can a kill in the middle of
    MLflow's migrations; here a half-made store never has the store's name. A process of its own makes it, in the
    project folder: MLflow takes the place of the experiment "Default" from there, and keeps files open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        process = subprocess.run([sys.executable, "-P", "-c", _CREATE, f"sqlite:///{temporary}"], cwd=home,
                                 capture_output=True, text=True)
        if process.returncode:
            raise FinetraceError(f"{path}: MLflow could not create its store "
                                 f"({(process.stderr.strip().splitlines() or ['no reason given'])[-1]}); remove the "
                                 "cause and run `finetrace publish` again")
        if path.exists():  # an empty file, e.g. of a program that was killed while it opened the store
            os.replace(temporary, path)
        else:
            _give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _give_name(temporary: Path, path: Path) -> None:
    """Give a whole store its name, unless `mlflow ui` has made one of this name meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: some network drives, exFAT
        if not path.exists():
            os.rename(temporary, path)


def _experiment(client: "MlflowClient", uri: str, home: Path, name: str) -> "Experiment":
    """The study's experiment; with a sqlite store its artifacts lie in the project's mlruns/<study>."""
    from mlflow.exceptions import MlflowException

    path = database_path(uri)
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise FinetraceError(f"experiment {name!r} in {uri}: was deleted; restore it (MLFLOW_TRACKING_URI={uri} mlflow "
                             f"experiments restore -x {found.experiment_id}), or change study.name in params.yaml")
    if found is not None and path is not None and found.artifact_location.startswith("mlflow-artifacts:"):
        raise FinetraceError(f"experiment {name!r} in {uri}: was created in the UI, so its artifacts need the server; "
                             "delete or rename it there, or change study.name in params.yaml")
    own = is_own(uri, home)
    if found is not None and own and has_moved(found, home):
        retire(client, found, home)
        found = None
    if found is None and own:
        found = made_here_before(client, name, home)
    if found is None:
        location = None if path is None else str(home.resolve() / "mlruns" / slug(name))
        tags = {"mlflow.experimentKind": "custom_model_development"}  # which views the UI offers
        if path is not None:
            tags[HOME_TAG] = str(home.resolve())
        try:
            return client.get_experiment(client.create_experiment(name, location, tags))
        except MlflowException as error:  # another publisher to the same server was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if path is not None and HOME_TAG not in found.tags:
        client.set_experiment_tag(found.experiment_id, HOME_TAG, str(home.resolve()))
    return found


def now_ms() -> int:
    """The clock, in the unit of MLflow."""
    return int(time.time() * 1000)
