"""The entry point of scripts whose training several processes can do together (`compute.processes`).

`python pipelines/train.py ITEM` starts them as torchrun does, where the item asks for them, and each of them comes here
again. Process 0 is the stage as always; the others do their part of the training and write nothing. When one of them
ends, however it ends, all do, and the same command goes on from the last state.
"""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from finetrace import group
from finetrace.errors import FinetraceError, hide_passwords
from finetrace.layout import Layout
from finetrace.pipeline import stage as alone
from finetrace.pipeline.names import label_of
from finetrace.pipeline.nursery import die_with
from finetrace.pipeline.stage import AlreadyThere, Stage, open_stage
from finetrace.store import threads
from finetrace.store.verified import remember_in

Main = Callable[[Stage], None]
HEARING = 5.0
"""Seconds that a process waits before it says that it failed: what process 0 says comes first, and others that failed
for the same reason, or because that one ended, are ended then without a word."""
ENDING = 45.0
"""Seconds that interrupted processes have to end."""


def run(stage: str, main: Main) -> None:
    """Entry point of a pipeline script, as `pipeline.stage.run`: alone, as one of several, or to start several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        item = sys.argv[1] if len(sys.argv) > 1 else ""
        processes = _processes_of(stage, item)
        if processes == 1:
            alone.run(stage, main)
        else:
            sys.exit(_start(label_of(stage, item, Layout.here()), processes))
        return
    with contextlib.suppress(OSError):
        die_with(os.getppid())  # they are in no session with who started them
    signal.signal(signal.SIGINT, _interrupted)
    if os.environ["RANK"] == "0":
        alone.run(stage, partial(_run_in_group, main))
    else:
        sys.exit(_run_follower(stage, main))


def _processes_of(stage: str, item: str) -> int:
    """The processes that an item asks for; 1 where its settings cannot be read, which the stage will say."""
    try:
        return int(open_stage(stage, item, Layout.here()).asked.get("processes", 1))
    except (FinetraceError, OSError):
        return 1


def _start(label: str, processes: int) -> int:
    """Start the processes and wait for them; the exit code."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what happened is said below
    share = max(1, (threads.share() or os.cpu_count() or 1) // processes)
    os.environ |= {threads.NAME: str(share), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(1, 1, processes, DefaultLogsSpecs(log_dir=folder), f"finetrace-{os.getpid()}",
                              rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=0,
                              shutdown_timeout=int(ENDING))
        try:
            elastic_launch(config, sys.executable)(*sys.argv)
        except (SignalException, KeyboardInterrupt) as stop:
            return 128 + int(getattr(stop, "sigval", signal.SIGINT))
        except ChildFailedError as failed:
            return _report_failure(label, processes,
                                   {rank: failure.exitcode for rank, failure in failed.failures.items()})
    return 0


def _report_failure(label: str, processes: int, codes: dict[int, int]) -> int:
    """Say which process was ended from outside; those that failed by themselves have said why. The exit code.

    codes: exit codes by process, -N for signal N; those that were ended because of another have SIGTERM.
    """
    own_codes = {rank: code for rank, code in sorted(codes.items()) if code != -signal.SIGTERM} or codes
    for rank, code in own_codes.items():
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; where nobody did that, memory was short" if name == "SIGKILL" else ""
            print(f"finetrace: stage {label} failed: its process {rank} (of 0 to {processes - 1}) was ended by {name}"
                  f"{hint}; all have ended, and the same command goes on from the last state", file=sys.stderr)
            return 1
    return next(iter(own_codes.values()), 1)


def _run_in_group(main: Main, stage: Stage) -> None:
    """The stage as one of several processes. Raises FinetraceError when they are not as many as it asks for."""
    size, processes = int(os.environ["WORLD_SIZE"]), int(stage.asked.get("processes", 1))
    if size != processes:
        raise FinetraceError(f"{size} processes were started, and the study asks for {processes}; set "
                             "compute.processes in params.yaml, and start the stage without torchrun")
    try:
        with group.opened():
            main(stage)
    except RuntimeError as error:
        if not group.lost(error):
            raise
        time.sleep(HEARING)
        raise FinetraceError(f"another of its {size} processes has ended; the same command goes on from the last "
                             "state") from error


def _run_follower(stage: str, main: Main) -> int:
    """Do the part of a process other than 0; the exit code."""
    layout, item = Layout.here(), sys.argv[1] if len(sys.argv) > 1 else ""
    logging.getLogger("finetrace").setLevel(logging.ERROR)  # process 0 says the rest
    remember_in(layout.verified)
    try:
        _run_in_group(main, open_stage(stage, item, layout))
    except AlreadyThere:
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        text = str(error) if isinstance(error, FinetraceError) else hide_passwords(traceback.format_exc())
        time.sleep(HEARING)
        print(f"finetrace: stage {label_of(stage, item, layout)} failed: process {os.environ['RANK']}: {text}",
              file=sys.stderr)
        return 1
    return 0


def _interrupted(*_: Any) -> None:
    """An interrupt can come from who started the process and from the terminal: one is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
