"""Where a search keeps its trials: a journal file in its scratch folder, or a PostgreSQL database for workers on
several machines (`tune.storage`).

In a database a worker is known to live by Optuna's heartbeat. The trial of one that is lost fails after three missed
beats and is tried again, by Optuna's own means.
"""

import contextlib
import fcntl
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages._heartbeat import get_heartbeat_thread  # Study.optimize has it; ask and tell have to begin it
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from finetrace.config.training import TuneSettings
from finetrace.errors import FinetraceError

DIVERGED = "diverged"  # a failed trial with this attribute failed by its settings, not because it was killed
ANSWER = 10  # seconds in which a database has to answer
MISSED = 3  # beats after which a worker counts as lost


@dataclass(frozen=True)
class SearchStorage:
    """The place of one search. scratch: folder of the journal;  name: of the search, among those of a database."""

    scratch: Path
    tune: TuneSettings
    name: str

    @property
    def shared(self) -> bool:
        """Whether it is a database, where workers of other machines may be at work."""
        return self.tune.storage is not None

    def open(self) -> optuna.Study:
        """The search with its trials, a new one where there is none. Raises FinetraceError when a database cannot be
        used."""
        pruner = (optuna.pruners.MedianPruner(n_startup_trials=self.tune.startup_trials)
                  if self.tune.pruner == "median" else optuna.pruners.NopPruner())
        if not self.shared:
            backend = JournalFileBackend(str(self.scratch / "journal.log"))
            return optuna.create_study(study_name="search", storage=optuna.storages.JournalStorage(backend),
                                       direction="maximize", pruner=pruner, load_if_exists=True)
        with self.alone(), self._clear_errors():  # of several that open an empty database one makes its tables
            return optuna.create_study(study_name=self.name, storage=self._database(), direction="maximize",
                                       pruner=pruner, load_if_exists=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One worker at a time counts the trials and takes the next; the lock of a killed worker is free at once."""
        if not self.shared:
            with open(self.scratch / "ask.lock", "w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield
            return
        import sqlalchemy

        lock_number = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], signed=True)
        with contextlib.ExitStack() as stack:
            with self._clear_errors():
                engine = sqlalchemy.create_engine(self._address(), poolclass=sqlalchemy.pool.NullPool,
                                                  connect_args={"connect_timeout": ANSWER})
                connection = stack.enter_context(engine.connect())
                connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:number)"), {"number": lock_number})
            yield  # the lock ends with the connection

    def give_up_lost(self, study: optuna.Study, names: set[str]) -> None:
        """Trials of lost workers of a database fail, and are queued again; call it while `alone`.

        names: of what a trial draws. A worker draws all of them while it is alone: where some are absent, it was lost
        meanwhile, and may not have begun to beat.
        """
        if not self.shared:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(study)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not names <= set(trial.params):
                study.tell(trial.number, state=TrialState.FAIL)

    @contextlib.contextmanager
    def beating(self, study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
        """While the block runs, a database is told that this worker lives."""
        with get_heartbeat_thread(trial._trial_id, study._storage):
            yield

    def ask(self, study: optuna.Study) -> optuna.Trial:
        """The next trial; a database knows at once that its worker lives."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that ask does not begin the heartbeat: `beating` does
            trial = study.ask()
        if self.shared:
            study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        return trial

    def _address(self) -> str:
        """The address with its driver: which one is usual differs between versions of SQLAlchemy."""
        return f"postgresql+psycopg2://{str(self.tune.storage).partition('://')[2]}"

    def _database(self) -> RDBStorage:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(self._address(), engine_kwargs={"connect_args": {"connect_timeout": ANSWER}},
                              heartbeat_interval=self.tune.heartbeat, grace_period=MISSED * self.tune.heartbeat,
                              heartbeat_stale_trial_callback=_retry)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn what goes wrong with a database into a FinetraceError."""
        import sqlalchemy

        try:
            yield
        except ImportError as error:
            raise FinetraceError("params.yaml: tune.storage: needs a driver for PostgreSQL; pip install "
                                 "'finetrace[postgres]'") from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = " ".join(str(error.__cause__ or error).split("\n(Background")[0].split())
            raise FinetraceError(f"params.yaml: tune.storage: {self.tune.storage}: {reason}; start the server, or "
                                 "correct the address; the password belongs into PGPASSWORD or ~/.pgpass") from error


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the trial of a lost worker again, unless it had failed by its settings."""
    if DIVERGED not in trial.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            RetryHeartbeatStaleTrialCallback()(study, trial)
