"""A search in a PostgreSQL database, shared by workers of several machines, and a journal whose lock was left."""

import dataclasses
import importlib.util
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests import postgres
from tests.training_drills import digests, run, tune_job, work_job
from tests.training_fixtures import model_folder, settings, task_folder

from finetrace.config.training import Dimension, MethodSettings, TuneSettings
from finetrace.errors import FinetraceError
from finetrace.training import tuning

SPACE = {"learning_rate": Dimension(low=1e-4, high=1e-2, log=True), "batch_size": Dimension(low=4, high=12, type="int"),
         "order": Dimension(choices=["length", "random"])}
TUNE = TuneSettings(trials=8, space=SPACE, startup_trials=2, evaluations=2, max_rows=32)
PASSWORD = "open / sesame"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("searches")
    model_folder(root / "model")
    task_folder(root / "task", {"train": 64, "validation": 50})
    return root


def wanted(root: Path, scratch: Path, tune: TuneSettings = TUNE) -> tuning.Search:
    return tuning.Search(root / "model", root / "task", settings(epochs=1.0), tune, 3, scratch, "key" * 20, "cell",
                         MethodSettings())


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A server of its own on loopback; its address without the password."""
    if missing := postgres.absent():
        pytest.skip(f"PostgreSQL's {', '.join(missing)} not in PATH")
    with postgres.server(PASSWORD) as address:
        yield address


@pytest.mark.slow
def test_four_workers_on_two_machines_of_which_one_is_killed(root: Path, tmp_path: Path, database: str,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines share nothing but the database. All four open it while it is empty."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    tune = dataclasses.replace(TUNE, storage=database, heartbeat=1, pruner="none")
    machines = [wanted(root, tmp_path / name / "of-all-four", tune) for name in ("one", "two")]
    for machine in machines:
        machine.scratch.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work_job, args=(machines[number % 2], ("step", 5) if number == 3 else None))
               for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, -signal.SIGKILL]
    best, study = tuning.search(machines[0])
    trials = study.get_trials()
    assert sorted(trial.state.name for trial in trials) == ["COMPLETE"] * 8 + ["FAIL"], "every trial is accounted for"
    killed = next(trial for trial in trials if trial.state.name == "FAIL")
    again = [trial for trial in trials if trial.system_attrs.get("failed_trial") == killed.number]
    assert [trial.params for trial in again] == [killed.params], "what the killed one tried is tried again, once"
    rows = tuning.trials_table(study).to_pylist()
    assert len({row["params_json"] for row in rows}) == len(rows) == 8, "no setting is tried twice"
    assert best == tuning.apply(machines[0].train, json.loads(rows[[row["value"] for row in rows].index(
        max(row["value"] for row in rows))]["params_json"]))


@pytest.mark.slow
def test_one_worker_finds_in_a_database_what_it_finds_with_a_journal(root: Path, tmp_path: Path, database: str,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is killed in a trial, after its heartbeat is missed."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert run(tune_job, root / "calm", wanted(root, root / "calm" / "scratch")) == 0
    what = wanted(root, root / "shared" / "of-one", dataclasses.replace(TUNE, storage=database, heartbeat=1))
    assert run(tune_job, root / "shared", what, ("step", 11)) == -signal.SIGKILL
    assert run(tune_job, root / "shared", what) == 0
    after, calm = digests(root / "shared"), digests(root / "calm")
    assert {name: after[name] for name in ("best.yaml", "trials.parquet")} == {
        name: calm[name] for name in ("best.yaml", "trials.parquet")}


@pytest.mark.slow
def test_a_wrong_password_is_one_sentence(root: Path, tmp_path: Path, database: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "guessed")
    with pytest.raises(FinetraceError, match=r"tune\.storage: .*password authentication failed.*PGPASSWORD") as error:
        tuning.search(wanted(root, tmp_path / "a", dataclasses.replace(TUNE, storage=database)))
    assert "guessed" not in str(error.value) and "\n" not in str(error.value)


def test_a_server_or_a_driver_that_is_not_there_is_one_sentence(root: Path, tmp_path: Path) -> None:
    tune = dataclasses.replace(TUNE, storage="postgresql://me@127.0.0.1:1/searches")
    sentence = r"127\.0\.0\.1:1/searches: .*refused.*; start the server" if importlib.util.find_spec("psycopg2") else \
        r"tune\.storage: needs a driver for PostgreSQL; pip install 'finetrace\[postgres\]'"
    with pytest.raises(FinetraceError, match=sentence) as error:
        tuning.search(wanted(root, tmp_path / "a", tune))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_journal_whose_lock_a_killed_worker_holds_goes_on(root: Path, tmp_path: Path) -> None:
    """Optuna's journal takes a lock away that has not changed for 30 seconds."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    hold = ("import os, signal, sys\nfrom optuna.storages.journal import JournalFileSymlinkLock\n"
            "JournalFileSymlinkLock(sys.argv[1]).acquire()\nos.kill(os.getpid(), signal.SIGKILL)")
    (scratch / "journal.log").touch()
    done = subprocess.run([sys.executable, "-c", hold, str(scratch / "journal.log")])
    assert done.returncode == -signal.SIGKILL and (scratch / "journal.log.lock").is_symlink()
    began = time.monotonic()
    _, study = tuning.search(wanted(root, scratch, dataclasses.replace(TUNE, trials=2)))
    assert 25 < time.monotonic() - began < 120 and len(study.get_trials()) == 2
    assert not list(scratch.glob("*.lock*")) or list(scratch.glob("*.lock")) == [scratch / "ask.lock"]
