"""Trainings in processes of their own that die at a chosen moment; `tests/integration/test_resume.py` runs them.

The processes are forked from a server that has imported torch and transformers already, which makes a drill cheap.
"""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOAD = ["sklearn.metrics", "transformers.models.bert.modeling_bert", "optuna", "finetrace.training.finetune",
           "finetrace.training.trainer", "finetrace.training.pretrain", "finetrace.training.adapt",
           "finetrace.training.tuning", "tests.training_drills"]


def run(job: Callable[..., None], *args: Any, kill_after: float | None = None, sign: int = signal.SIGKILL) -> int:
    """Run a job in its own process, killed after some seconds if asked; its exit code, negative for a signal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=job, args=args)
    process.start()
    if kill_after is not None:
        deadline = time.monotonic() + 60
        begun = args[0] / "begun"
        while not begun.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            assert process.pid is not None
            os.kill(process.pid, sign)
    process.join(120)
    if process.is_alive():
        process.kill()
        raise AssertionError("the training hangs")
    assert process.exitcode is not None
    return process.exitcode


def run_together(job: Callable[..., None], *args: Any, processes: int = 2) -> list[int]:
    """Run a job in several processes that know of each other as torchrun tells them; their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with socket.create_server(("127.0.0.1", 0)) as free:
        told = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": free.getsockname()[1], "OMP_NUM_THREADS": 1}
    group = [context.Process(target=_as_rank, args=(told | {"RANK": rank, "LOCAL_RANK": rank}, job, *args))
             for rank in range(processes)]
    for process in group:
        process.start()
    for process in group:
        process.join(120)
        if process.is_alive():
            process.kill()
    return [-1 if process.exitcode is None else process.exitcode for process in group]


def _as_rank(told: dict[str, Any], job: Callable[..., None], *args: Any) -> None:
    os.environ.update({name: str(value) for name, value in told.items()})
    job(*args)


def finetune_job(where: Path, settings: Any, record: Any, fault: tuple[str, int] | None = None) -> None:
    """Fine-tune models/ on task/ below the parent of `where`; what the stage does, without its manifest."""
    import torch

    from finetrace.store.files import atomic_folder
    from finetrace.training.finetune import finetune
    from tests.training_fixtures import SEEDS

    torch.set_num_threads(1)
    arm(fault)
    where.mkdir(exist_ok=True)
    (where / "begun").touch()
    with atomic_folder(where / "trajectory") as out:
        finetune(where.parent / "model", where.parent / "task", settings, record, SEEDS, scratch=where / "scratch",
                 out=out, name="drill")


def pretrain_job(where: Path, settings: Any, resume_seconds: float, fault: tuple[str, int] | None = None,
                 corpus: str = "world") -> None:
    """Pre-train on world/, or another folder, below the parent of `where`."""
    import torch

    from finetrace.store.files import atomic_folder
    from finetrace.training.pretrain import pretrain

    torch.set_num_threads(1)
    arm(fault)
    where.mkdir(exist_ok=True)
    (where / "begun").touch()
    with atomic_folder(where / "model") as model_out, atomic_folder(where / "trajectory") as out:
        pretrain(settings, where.parent / corpus, 7, scratch=where / "scratch", out=out, model_out=model_out,
                 name="drill", resume_seconds=resume_seconds)


def adapt_job(where: Path, settings: Any, texts: list[str], resume_seconds: float,
              fault: tuple[str, int] | None = None) -> None:
    """Adapt the start below the parent of `where`."""
    import torch

    from finetrace.models.timeline import open_timeline
    from finetrace.store.files import atomic_folder
    from finetrace.training.adapt import adapt

    torch.set_num_threads(1)
    arm(fault)
    where.mkdir(exist_ok=True)
    (where / "begun").touch()
    wanted = "ends" if settings.from_steps == "last" else settings.from_steps
    timeline = open_timeline(where.parent / "outputs" / settings.start / "trajectory", where.parent / "models", wanted)
    with atomic_folder(where / "model") as model_out, atomic_folder(where / "trajectory") as out:
        adapt(settings, timeline, texts, 7, scratch=where / "scratch", out=out, model_out=model_out, name="drill",
              resume_seconds=resume_seconds)


def tune_job(where: Path, search: Any, fault: tuple[str, int] | None = None) -> None:
    """Run a search and write what the stage writes."""
    import torch

    from finetrace.store.files import write_yaml
    from finetrace.store.tables import write_table
    from finetrace.training import tuning

    torch.set_num_threads(1)
    arm(fault)
    where.mkdir(exist_ok=True)
    (where / "begun").touch()
    best, study = tuning.search(search)
    write_yaml(where / "best.yaml", tuning.settings_yaml("tuned", best, tuning.best_trial(study)))
    write_table(where / "trials.parquet", tuning.trials_table(study))


def work_job(search: Any, fault: tuple[str, int] | None = None) -> None:
    """One worker of a search that others share."""
    import torch

    from finetrace.training import tuning

    torch.set_num_threads(1)
    arm(fault)
    tuning.work(search)


def arm(fault: tuple[str, int] | None) -> None:
    """Make this process kill itself at the n-th occurrence of an event (counted from 1)."""
    if fault is None:
        return
    import shutil

    import pyarrow.parquet as pq
    import transformers

    from finetrace.inference.targets import Target
    from finetrace.store import tables
    from finetrace.training import checkpoints, finetune, recorder, trainer, tuning

    name, count = fault
    seen = 0

    def due() -> bool:
        nonlocal seen
        seen += 1
        return seen == count

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(owner: Any, attribute: str, partial: Callable[..., None] | None = None) -> None:
        original = getattr(owner, attribute)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            if due():
                if partial:
                    partial(*args, **kwargs)
                die()
            return original(*args, **kwargs)
        setattr(owner, attribute, replacement)

    def half_table(_: Any, path: Any, **__: Any) -> None:
        Path(path).write_bytes(b"PAR1 and then the power went")

    def half_removed(path: Any, *_: Any, **__: Any) -> None:
        sorted(p for p in Path(path).iterdir() if p.is_file())[-1].unlink()

    def half_copied(source: Any, target: Any, *_: Any, **__: Any) -> None:
        Path(target).mkdir(parents=True)
        (Path(target) / "config.json").write_text("{")

    points: dict[str, Callable[[], None]] = {
        "look": lambda: before(finetune, "predict"),  # step 0 has looks at two probe sets and an evaluation
        "step": lambda: before(recorder.Recorder, "train_step"),
        "weights being written": lambda: before(checkpoints, "mark"),
        "weights about to appear": lambda: before(os, "replace"),
        "table being written": lambda: before(pq, "write_table", half_table),
        "state, tables flushed": lambda: before(transformers.Trainer, "_save_checkpoint"),
        "state, half written": lambda: before(transformers.Trainer, "_save_optimizer_and_scheduler"),
        "state, without marker": lambda: before(trainer, "mark"),
        "older state being removed": lambda: before(shutil, "rmtree", half_removed),
        "tables being merged": lambda: before(tables.pq.ParquetWriter, "write_table"),
        "checkpoints being copied": lambda: before(shutil, "copytree", half_copied),
        "final metrics": lambda: before(Target, "evaluate"),
        "trial about to be told": lambda: before(tuning.optuna.Study, "tell"),
    }
    points[name]()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that has to be equal, by its relative name; timing is different each time."""
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in ("timing.parquet", "training_args.bin")}
