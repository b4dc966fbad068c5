"""Run commands side by side, each in a fresh process that need not import the large libraries again.

One process, the nursery, imports them once and is forked for each command; a script finds things as if started by
`python script.py ...`. The front (LocalExecutor) and the nursery speak in lines of JSON over two pipes. finetrace
itself is imported anew by every command. What libraries read while they are imported (OMP_NUM_THREADS, HF_HUB_OFFLINE)
and what the interpreter reads (PYTHONPATH) counts as it stood when the nursery started, not as in a command's own
environment.
"""

import contextlib
import itertools
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from finetrace.pipeline.needs import Needs

# Packages of transformers are lazy: what scripts will ask them for is named. No pyplot: it would choose a backend
PRELOAD = (
    "numpy", "scipy.linalg", "pyarrow", "pyarrow.parquet", "yaml", "pydantic", "torch", "transformers",
    "transformers.models.bert.modeling_bert", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "transformers.trainer", "accelerate", "safetensors.torch",
    "sklearn.linear_model", "matplotlib.figure", "matplotlib.backends.backend_agg", "datasets",
)
GRACE = 10.0  # seconds from SIGINT to SIGKILL
TAIL = 20  # lines of output that a Finished keeps


@dataclass(frozen=True)
class Finished:
    """A command that ended. code: -N when signal N killed it;  output: the last lines that it wrote."""

    name: str
    code: int
    output: str
    seconds: float


class Executor(Protocol):
    """Runs commands somewhere. How many run at a time is the caller's business."""

    def prepare(self) -> None:
        """Commands are likely to come soon; returns at once."""

    def room(self) -> int | None:
        """How many commands can run at a time; None where this machine and the study decide that."""

    def submit(self, name: str, command: str, environment: Mapping[str, str], needs: Needs) -> None:
        """Start a command as soon as there is room for it, with these variables added to the environment."""

    def next(self, timeout: float | None = None) -> Finished | None:
        """The next command that ended; None after `timeout` seconds, or when no timeout is set and nothing runs."""

    def close(self) -> None:
        """End what still runs: SIGINT, so that a training ends at a whole state, and SIGKILL some seconds later."""


@dataclass
class _Running:
    name: str
    began: float = field(default_factory=time.monotonic)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))

    def end(self, code: int, seconds: float) -> Finished:
        return Finished(self.name, code, "\n".join(self.tail), seconds)


class _Link:
    """The front's end of one nursery."""

    def __init__(self, root: Path, settings: Mapping[str, Any]):
        words = [sys.executable, "-m", "finetrace.pipeline.nursery", json.dumps(settings)]
        self.process = subprocess.Popen(words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.running: dict[int, _Running] = {}
        self.requests = queue.SimpleQueue[bytes | None]()
        self.ready = self.gone = False
        threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        """Pass requests on until None; a thread, as a nursery that imports does not read, and a pipe holds little."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:  # it died: who listens to it says so
            while (line := self.requests.get()) is not None:
                pipe.write(line)
                pipe.flush()


class LocalExecutor:
    """Runs commands on this machine, in the folder `root`.

    preload: modules to import once, those that are missing left out;  show: is called with (name, line) for every line
    of output, in a thread of its own;  grace: seconds that close() leaves commands to end by themselves.
    """

    def __init__(self, root: Path, preload: Sequence[str] = PRELOAD, show: Callable[[str, str], None] | None = None,
                 grace: float = GRACE):
        self._root, self._show, self._grace = root, show, grace
        self._settings = {"preload": list(preload), "grace": grace}
        self._ended = queue.SimpleQueue[Finished | Exception]()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._link: _Link | None = None
        self._listener = threading.Thread()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, name: str, command: str, environment: Mapping[str, str], needs: Needs | None = None) -> None:
        """Start a command now, whatever it needs. `python FILE.py ...` is forked, anything else goes to the shell.

        Raises ValueError when a command of this name runs, RuntimeError after close(), OSError when no process starts.
        """
        with self._lock:
            link = self._open()
            if any(one.name == name for one in link.running.values()):
                raise ValueError(f"{name} runs already")
            number = next(self._numbers)
            request = {"number": number, "name": name, "command": command, "env": dict(environment)}
            link.requests.put(json.dumps(request).encode() + b"\n")
            link.running[number] = _Running(name)

    def room(self) -> None:
        """This machine's cores and the study's models decide how many run at a time."""

    def prepare(self) -> None:
        """Commands are likely to come soon: begin to import what they need; returns at once."""
        with self._lock:
            self._open()

    def _open(self) -> _Link:
        """The nursery, a new one where there is none or it has died; the caller holds the lock."""
        if self._closed:
            raise RuntimeError("the executor is closed")
        if self._link is None or self._link.gone:
            self._link = _Link(self._root, self._settings)
            self._listener = threading.Thread(target=self._listen, args=(self._link,), daemon=True)
            self._listener.start()
        return self._link

    def next(self, timeout: float | None = None) -> Finished | None:
        """The next command that ended; None after `timeout` seconds, or when no timeout is set and nothing runs.

        When the nursery died, all that ran in it ended with code -9. Raises what `show` raised; it is not called again.
        """
        with self._lock:
            idle = self._link is None or not self._link.running
        try:
            found = self._ended.get(block=timeout is not None or not idle, timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End what still runs and wait for it: SIGINT, and SIGKILL `grace` seconds later. next() still tells of it.

        Commands that a Ctrl-C in the terminal has reached already get no second SIGINT.
        """
        with self._lock:
            self._closed = True
        if self._link is not None:
            if not self._link.ready:
                self._link.process.kill()  # it still imports and has started nothing
            self._link.requests.put(None)
            try:
                self._link.process.wait(self._grace + 10)
            except subprocess.TimeoutExpired:
                self._link.process.kill()
            self._listener.join()

    def _listen(self, link: _Link) -> None:
        """Take what a nursery tells, until it ends."""
        assert link.process.stdout is not None
        with link.process.stdout as stream:
            for line in stream:
                if line.endswith(b"\n"):  # else it died while it wrote this
                    self._take(link, json.loads(line))
        code = link.process.wait()  # from here on the kernel has sent SIGKILL to its children
        with self._lock:
            link.gone = True
            link.requests.put(None)
            for one in link.running.values():
                one.tail.append(f"The process that starts commands ended with code {code}, and this command with it.")
                self._ended.put(one.end(-signal.SIGKILL, time.monotonic() - one.began))
            link.running.clear()

    def _take(self, link: _Link, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            link.ready = True
        elif event["event"] == "end":
            with self._lock:  # next() must not find a moment at which the command neither runs nor has ended
                self._ended.put(link.running.pop(event["number"]).end(event["code"], event["seconds"]))
        else:
            if one := link.running.get(event["number"]):  # its own children may still write when it has ended
                one.tail.append(event["text"])
            try:
                if self._show is not None:
                    self._show(event["name"], event["text"])
            except Exception as error:  # a fault of the caller's: next() raises it in the caller's thread
                self._show = None
                self._ended.put(error)
