"""Run commands on a Ray cluster whose machines share the project folder: `finetrace repro --engine ray[:ADDRESS]`.

Ray chooses the machine, by what an item needs, and starts an item again whose machine or worker is lost; the item then
goes on from what it has left in the shared folder. On its machine a command runs as on one's own: a Ray worker keeps a
`LocalExecutor`, so the item is forked, interrupted and ended in the same way, and ends with its worker. What it prints
comes to the front by Ray's own log.
"""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from finetrace.errors import FinetraceError
from finetrace.pipeline.executor import Finished, LocalExecutor
from finetrace.pipeline.needs import FILE, GIB, Needs
from finetrace.store import threads

RETRIES = 3
"""How often an item is started again when its machine or its Ray worker is lost."""
ANSWER = 10.0  # seconds in which a cluster has to answer
POLL = 0.5  # seconds: an interrupt of Ray reaches Python between two waits, not within one
LOCAL = "local"
"""Address of a cluster of this machine alone, which is there for one run."""
DEVICES = "CUDA_VISIBLE_DEVICES"
PACKAGE_DATA = ()  # __file__ tells the workers where the source lies; nothing beside it is read
_here: dict[str, LocalExecutor] = {}  # of a Ray worker: project folder -> what runs its commands


class RayExecutor:
    """Runs commands in the folder `root`, which every machine of the cluster sees under this path.

    address: HOST:PORT of the cluster, "auto" for the one that this machine belongs to, or "local";  grace: seconds
    that an interrupted command has to end at a whole state;  retries: of items whose machine is lost.
    """

    def __init__(self, root: Path, address: str = "auto", grace: float = 60.0, retries: int = RETRIES):
        self._root, self._address, self._grace, self._retries = root.resolve(), address, grace, retries
        self._ray: Any = None
        self._running: dict[Any, str] = {}
        self._began: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Connect to the cluster. Raises FinetraceError when Ray is not installed or no cluster answers."""
        if self._ray is not None:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing reports home
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # items may say the same
        try:
            import ray
        except ImportError as error:
            raise FinetraceError("--engine ray: Ray is not installed here; pip install 'finetrace[ray]', on every "
                                 "machine of the cluster") from error
        source = Path(__file__).resolve().parents[2]
        paths = [str(source) if source.is_relative_to(self._root) else "", os.environ.get("PYTHONPATH", "")]
        shared = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        options: dict[str, Any] = {"include_dashboard": False} if self._address == LOCAL else {}
        try:
            _require_answer(self._address)
            ray.init(address=self._address, log_to_driver=True, logging_level=logging.ERROR,
                     runtime_env={"env_vars": shared if shared["PYTHONPATH"] else {}}, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise FinetraceError(
                f"--engine ray: no Ray cluster answers at {self._address} ({str(error).splitlines()[0]}); start one "
                "(ray start --head, and ray start --address=HOST:6379 on the others), name it (--engine "
                "ray:HOST:6379), or take this machine alone (--engine ray:local)") from error
        self._ray = ray

    def room(self) -> int:
        """How many items can run at a time: the cluster's cores."""
        self.prepare()
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, name: str, command: str, environment: Mapping[str, str], needs: Needs) -> None:
        """Hand a command to the cluster; it waits there until a machine has room for it.

        Raises FinetraceError when no machine of the cluster has what it needs.
        """
        self.prepare()
        gpus = self._require_room(name, needs)
        task = self._ray.remote(_carry_out).options(
            name=name, num_cpus=needs.cpus, num_gpus=gpus, memory=needs.memory, max_retries=self._retries)
        own = dict(environment) | {threads.NAME: str(needs.cpus)} | ({} if gpus else {DEVICES: ""})
        self._running[task.remote(str(self._root), name, command, own, self._grace)] = name
        self._began[name] = time.monotonic()

    def next(self, timeout: float | None = None) -> Finished | None:
        """The next command that ended; None after `timeout` seconds, or when nothing runs."""
        if not self._running:
            return None
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        if not ended:
            return None
        name = self._running.pop(ended[0])
        seconds = time.monotonic() - self._began.pop(name)
        try:
            code, output, seconds = self._ray.get(ended[0])
        except self._ray.exceptions.TaskCancelledError:
            return Finished(name, -signal.SIGINT, "interrupted", seconds)
        except self._ray.exceptions.RayError as error:  # its machine was lost more than `retries` times, and the like
            return Finished(name, 1, f"Ray gave it up: {str(error).strip()}", seconds)
        return Finished(name, code, output, seconds)

    def close(self) -> None:
        """Interrupt what still runs, wait for it, and leave the cluster."""
        if self._ray is None:
            return
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=self._grace + 10)
        self._ray.shutdown()
        self._ray = None

    def _require_room(self, name: str, needs: Needs) -> float:
        """GPUs to ask for: none where the cluster has none. Raises FinetraceError when no machine is large enough."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = needs.gpus if any(one.get("GPU", 0) > 0 for one in machines) else 0.0
        wanted = {"CPU": needs.cpus, "GPU": gpus, "memory": needs.memory}
        if any(all(one.get(kind, 0) >= amount for kind, amount in wanted.items()) for one in machines):
            return gpus
        largest = {kind: max((one.get(kind, 0) for one in machines), default=0) for kind in wanted}
        raise FinetraceError(
            f"{name} asks for {needs.cpus} cpus, {gpus:g} gpus and {needs.memory / GIB:.1f} GiB, and no machine of the "
            f"cluster has them together (at most {largest['CPU']:g}, {largest['GPU']:g} and "
            f"{largest['memory'] / GIB:.1f} GiB); say less in {FILE}: needs, or add a machine")


def _require_answer(address: str) -> None:
    """Raises OSError when nobody listens at HOST:PORT; Ray itself would try it again for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()


def _carry_out(root: str, name: str, command: str, environment: Mapping[str, str],
               grace: float) -> tuple[int, str, float]:
    """On a machine of the cluster: run one command to its end; exit code, last lines and seconds."""
    chosen = {DEVICES: os.environ[DEVICES]} if DEVICES in os.environ else {}  # by Ray, for every task anew
    own = chosen | dict(environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, and what a worker starts inherits that
    if root not in _here:
        _here[root] = LocalExecutor(Path(root), show=_show, grace=grace)
    try:
        _here[root].submit(name, command, own)
        while (ended := _here[root].next(timeout=POLL)) is None:
            pass
    except BaseException:  # an interrupt: the command ends at a whole state, and the nursery with it
        with contextlib.suppress(KeyError):
            _here.pop(root).close()
        raise
    return ended.code, ended.output, ended.seconds


def _show(name: str, line: str) -> None:
    print(line, flush=True)
