"""The tracking store: created once and whole, opened with clear errors, repaired after the project has moved."""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrace.config.tracking import TrackingSettings
from finetrace.errors import FinetraceError
from finetrace.layout import slug
from finetrace.store.files import file_lock
from finetrace.tracking.points import Point, log_points

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOG = logging.getLogger("finetrace.tracking")
HOME_TAG = "finetrace.home"
# Columns that hold absolute paths of artifacts; MLflow stores them even when it is given relative ones.
_PATH_COLUMNS = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
                 ("model_versions", "storage_location"))


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


@dataclasses.dataclass(frozen=True)
class Store:
    """An opened store and the study's experiment in it."""

    client: "MlflowClient"
    experiment_id: str
    uri: str

    def runs(self, filter_string: str = "") -> list[KnownRun]:
        """All runs of the experiment that carry finetrace's tags, the deleted ones too."""
        from mlflow.entities import ViewType

        found: list[KnownRun] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], filter_string, run_view_type=ViewType.ALL,
                                           max_results=1000, page_token=token)
            found += [_known(run) for run in page if "finetrace.key" in run.data.tags]
            token = page.token
            if not token:
                return found

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Add metric points to a run; those that it has already are dropped."""
        log_points(self.client, database_path(self.uri), run_id, points)

    def steps(self, run: Any) -> dict[str, set[int]]:
        """Which points a run has: metric -> steps."""
        history = self.client.get_metric_history
        return {name: {m.step for m in history(run.info.run_id, name)} for name in run.data.metrics}


def _known(run: Any) -> KnownRun:
    tags = run.data.tags
    return KnownRun(run.info.run_id, tags.get("finetrace.id", ""), tags["finetrace.key"],
                    tags.get("finetrace.kind", ""), run.info.run_name, tags.get("finetrace.complete") == "true",
                    tags.get("finetrace.superseded") == "true", run.info.lifecycle_stage == "deleted", run.info.status,
                    run.info.artifact_uri)


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


def open_store(uri: str, home: Path, experiment: str) -> Store:
    """Open the store, create it and the experiment where they are missing, and repair paths of a moved project."""
    with opened(uri, home) as client:
        return Store(client, _experiment(client, uri, home, experiment), uri)


@contextlib.contextmanager
def opened(uri: str, home: Path) -> Iterator["MlflowClient"]:
    """A client, under the lock that keeps others from creating or repairing the same store meanwhile."""
    prepare_environment()
    from mlflow.exceptions import MlflowException

    path = database_path(uri)
    lock = path.with_name(path.name + ".lock") if path else home / ".finetrace" / "store.lock"
    with file_lock(lock):
        if path is not None:
            if path.exists():
                require_schema(path)
            _create_database(path, home)
            if moved_from(path, home):
                repair_moved(path, home)
        try:
            from mlflow.tracking import MlflowClient

            yield MlflowClient(uri)
        except MlflowException as error:
            raise FinetraceError(f"tracking store {uri}: {str(error).splitlines()[0]}; check that the server runs "
                                 "(or that the file is writable), then run `finetrace publish` again; "
                                 "`finetrace doctor` explains more") from error


def prepare_environment() -> None:
    """Before mlflow is imported: no telemetry, no chatter, and a dead server is reported in seconds, not minutes."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    for name in ("mlflow.store.db.utils", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _create_database(path: Path, home: Path) -> None:
    """Create the sqlite store beside its name and link it in when it is whole.

    Two processes that open the same new store at once can leave it broken for ever, and so can a kill in the middle of
    MLflow's migrations; here a half-made store never has the store's name.
    """
    if path.exists() and _tables(path):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        store = SqlAlchemyStore(f"sqlite:///{temporary}", str(home.resolve() / "mlruns"))
        store.engine.dispose()
        if path.exists():  # an empty file, e.g. of a program that was killed while it opened the store
            os.replace(temporary, path)
        else:
            with contextlib.suppress(FileExistsError):  # then `mlflow ui` has made the store meanwhile
                os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _experiment(client: "MlflowClient", uri: str, home: Path, name: str) -> str:
    """The id of the study's experiment; with a sqlite store its artifacts lie in the project's mlruns/<study>."""
    from mlflow.exceptions import MlflowException

    local = database_path(uri) is not None
    found = client.get_experiment_by_name(name)
    if found is None:
        location = str(home.resolve() / "mlruns" / slug(name)) if local else None
        tags = {"mlflow.experimentKind": "custom_model_development"}  # which views the UI offers
        try:
            return client.create_experiment(name, location, tags | ({HOME_TAG: str(home.resolve())} if local else {}))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        raise FinetraceError(f"experiment {name!r} in {uri}: was deleted; restore it (MLFLOW_TRACKING_URI={uri} mlflow "
                             f"experiments restore -x {found.experiment_id}), or change study.name in params.yaml")
    if local and found.artifact_location.startswith("mlflow-artifacts:"):
        raise FinetraceError(f"experiment {name!r} in {uri}: was created in the UI, so its artifacts need the server; "
                             "delete or rename it there, or change study.name in params.yaml")
    if local and HOME_TAG not in found.tags:
        client.set_experiment_tag(found.experiment_id, HOME_TAG, str(home.resolve()))
    return found.experiment_id


def schema_head() -> str:
    """The database revision that the installed MLflow expects, from its migration scripts (no import of mlflow)."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise FinetraceError("mlflow is not installed; install the project with its dependencies: pip install -e .")
    made: dict[str, str] = {}
    for script in (Path(spec.origin).parent / "store" / "db_migrations" / "versions").glob("*.py"):
        text = script.read_text("utf-8")
        revision = re.search(r"^revision\s*=\s*[\"'](\w+)", text, re.M)
        before = re.search(r"^down_revision\s*=\s*[\"'](\w+)", text, re.M)
        if revision:
            made[revision[1]] = before[1] if before else ""
    heads = set(made) - set(made.values())
    return heads.pop() if len(heads) == 1 else ""


def schema_problem(path: Path) -> str | None:
    """What is wrong with the sqlite store, with its fix; None when the installed MLflow can use it."""
    aside = (f"move it away (mv {path.name} {path.name}.broken) and run `finetrace publish`: all runs come back from "
             "outputs/")
    try:
        tables = _tables(path)
        with contextlib.closing(_connect(path)) as database:
            versions = [row[0] for row in database.execute("SELECT version_num FROM alembic_version")] \
                if "alembic_version" in tables else []
    except sqlite3.DatabaseError as error:
        return f"{path}: is not a readable sqlite database ({error}); {aside}"
    if not tables:
        return None
    if any(name.startswith("_alembic_tmp_") for name in tables):
        return f"{path}: its creation was interrupted or done by two programs at once (_alembic_tmp_ tables); {aside}"
    if not versions:
        return f"{path}: is not an MLflow store (it has no alembic_version); {aside}"
    head = schema_head()
    if head and versions != [head]:
        return (f"{path}: has the schema {versions[0]} of another MLflow, the installed one expects {head}; "
                f"for an older store: cp {path.name} {path.name}.backup && mlflow db upgrade sqlite:///{path}; "
                f"for a newer one install that MLflow; or {aside}")
    return None


def require_schema(path: Path) -> None:
    """Refuse a store that MLflow would break or silently migrate."""
    problem = schema_problem(path)
    if problem:
        raise FinetraceError(problem)


def moved_from(path: Path, home: Path) -> list[str]:
    """Earlier homes of the project whose artifact paths are still in the store; empty when nothing has moved."""
    with contextlib.closing(_connect(path)) as database:
        rows = database.execute("SELECT DISTINCT value FROM experiment_tags WHERE key = ? AND value != ?",
                                (HOME_TAG, str(home.resolve()))).fetchall()
    return [row[0] for row in rows] if path.resolve().parent == home.resolve() else []


def repair_moved(path: Path, home: Path) -> int:
    """Let the artifact paths in the project's own store point to where the project is now; returns the rows changed.

    MLflow keeps absolute paths and would list nothing, and write to the old place. Runs without outputs keep their
    artifacts too, which a rebuilt store would not. The store as it was stays beside it as <name>.before-move.
    """
    changed = 0
    with contextlib.closing(_connect(path, write=True)) as database:
        with contextlib.closing(sqlite3.connect(path.with_name(path.name + ".before-move"))) as backup:
            database.backup(backup)
        tables = _tables(path)
        database.execute("BEGIN IMMEDIATE")
        try:
            for old in moved_from(path, home):
                forms = [(f"{old}/mlruns", f"{home.resolve()}/mlruns"),
                         (f"{Path(old).as_uri()}/mlruns", f"{home.resolve().as_uri()}/mlruns")]
                for table, column in _PATH_COLUMNS:
                    for before, after in forms if table in tables else []:
                        changed += database.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (after, len(before) + 1, before, len(before) + 1, before + "/")).rowcount
                database.execute("UPDATE experiment_tags SET value = ? WHERE key = ? AND value = ?",
                                 (str(home.resolve()), HOME_TAG, old))
                LOG.warning("the project has moved from %s: artifact paths now point to %s", old, home.resolve())
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
    return changed


def _connect(path: Path, *, write: bool = False) -> sqlite3.Connection:
    mode = "rw" if write else "ro"
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=20, isolation_level=None)


def _tables(path: Path) -> set[str]:
    with contextlib.closing(_connect(path)) as database:
        return {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def now_ms() -> int:
    """The clock, in the unit of MLflow."""
    return int(time.time() * 1000)
