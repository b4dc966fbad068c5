"""The nursery: a process that has imported the large libraries and is forked for each command (see executor)."""

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import re
import selectors
import shlex
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

CHUNK = 65536  # bytes: a read, which empties a pipe, and the longest line that is not cut
SPECIAL = frozenset("|&;<>()$`\\*?[]#~{}!\n")  # what a shell would not pass on as it stands
PR_SET_PDEATHSIG = 1


@dataclass
class _Child:
    """A command that the nursery started. rest: the beginning of a line;  open: whether more output can come."""

    number: int
    name: str
    began: float
    output: int
    rest: bytes = b""
    open: bool = True


class _Nursery:
    """The process that is forked. It has one thread of Python, and answers requests until the front goes away."""

    def __init__(self, requests: int, events: int, grace: float):
        self.requests, self.events, self.grace = requests, events, grace
        self.root = os.getcwd()
        self.children: dict[int, _Child] = {}
        self.interrupted: set[int] = set()
        self.unread = b""
        self.kill_at: float | None = None  # set as soon as the front is gone
        self.selector = selectors.DefaultSelector()
        self.alarm, self.bell = os.pipe()  # a signal writes a byte, so that select() returns
        for number in (requests, self.alarm, self.bell):
            os.set_blocking(number, False)
        self.selector.register(requests, selectors.EVENT_READ)
        self.selector.register(self.alarm, selectors.EVENT_READ)
        signal.set_wakeup_fd(self.bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Ctrl-C reaches the whole foreground group. This process stays, to tell how its children end; a shell would
        # inherit SIG_IGN, but not a handler
        signal.signal(signal.SIGINT, lambda *_: self.interrupted.update(self.children))

    def run(self) -> None:
        """Serve until the front is gone and all children have ended."""
        self.tell({"event": "ready"})
        while self.kill_at is None or self.children:
            for key, _ in self.selector.select(None if self.kill_at is None else 0.2):
                if key.data is not None:
                    self.forward(key.data)
                elif key.fd == self.alarm:
                    os.read(self.alarm, CHUNK)
                else:
                    self.listen()
            self.reap()
            if self.kill_at is not None and time.monotonic() > self.kill_at:
                _signal(_with_descendants(self.children), signal.SIGKILL)

    def listen(self) -> None:
        """Begin what the front asks for, unless it is gone already."""
        with contextlib.suppress(BlockingIOError):  # all is read
            while data := os.read(self.requests, CHUNK):
                self.unread += data
            self.front_gone()
            return
        *lines, self.unread = self.unread.split(b"\n")
        for line in lines:  # not in an `except`: a child's errors would be told as if they followed from that one
            if self.kill_at is None:
                self.begin(json.loads(line))

    def front_gone(self) -> None:
        """Ask all children to end, once."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.grace
            self.selector.unregister(self.requests)
            _signal(_with_descendants(set(self.children) - self.interrupted), signal.SIGINT)

    def tell(self, *events: Mapping[str, Any]) -> None:
        """Write to the front, as long as it is there."""
        data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        try:
            while data and self.events >= 0:
                data = data[os.write(self.events, data):]
        except BrokenPipeError:
            self.events = -1
            self.front_gone()

    def begin(self, request: Mapping[str, Any]) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        child, parent = _Child(request["number"], request["name"], time.monotonic(), reader), os.getpid()
        # a SIGINT that comes before the child can take it waits until it can
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            if (pid := os.fork()) == 0:
                _run_in_child(self, request, (reader, writer), mask, parent)
            self.children[pid] = child
            self.selector.register(reader, selectors.EVENT_READ, child)
        except OSError as error:  # too many processes, too little memory: the others can go on
            os.close(reader)
            self.lines(child, [f"cannot start: {error}".encode()])
            self.tell({"event": "end", "number": child.number, "code": 1, "seconds": 0.0})
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def forward(self, child: _Child) -> None:
        """Pass on what a child wrote. Lines end at \\n or \\r; empty ones are dropped."""
        try:
            data = os.read(child.output, CHUNK) if child.open else b""
        except BlockingIOError:
            return
        *lines, child.rest = re.split(rb"[\r\n]", child.rest + data)
        if not data or len(child.rest) > CHUNK:
            lines.append(child.rest)
            child.rest = b""
        if not data and child.open:
            child.open = False
            self.selector.unregister(child.output)
            os.close(child.output)
        self.lines(child, lines)

    def lines(self, child: _Child, lines: Iterable[bytes]) -> None:
        self.tell(*({"event": "line", "number": child.number, "name": child.name, "text": line.decode(errors="replace")}
                    for line in lines if line.strip()))

    def reap(self) -> None:
        """Tell which children have ended, after all that they wrote."""
        for pid, child in list(self.children.items()):
            ended_pid, status = os.waitpid(pid, os.WNOHANG)
            if ended_pid:
                del self.children[pid]
                self.interrupted.discard(pid)
                self.forward(child)  # once: what still holds the pipe, a child of its own, could write for ever
                self.lines(child, [child.rest])
                child.rest = b""
                self.tell({"event": "end", "number": child.number, "code": os.waitstatus_to_exitcode(status),
                           "seconds": time.monotonic() - child.began})


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # has ended meanwhile
            os.kill(pid, number)


def _with_descendants(pids: Iterable[int]) -> list[int]:
    """These processes and all that they started, as Ctrl-C would reach; without /proc these alone."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_bytes().rpartition(b")")[2].split()[1])
    family = list(pids)
    for pid in family:  # grows on the way
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _run_in_child(nursery: _Nursery, request: Mapping[str, Any], pipe: tuple[int, int], mask: Iterable[int],
                  parent: int) -> NoReturn:
    """In the child: turn into the command."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for stream in (1, 2):
            os.dup2(pipe[1], stream)
        # a pipe ends when its last holder is gone
        for number in (*pipe, nursery.bell, nursery.events, *(key.fd for key in nursery.selector.get_map().values())):
            os.close(number)
        nursery.selector.close()
        die_with(parent)
        os.chdir(nursery.root)
        os.environ.update(request["env"])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if words := _script(request["command"]):
            _share_cores()
            code = _run_script(words, mask)
        else:
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; programs of a shell do not expect that
                signal.signal(ignored, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execv("/bin/sh", ["sh", "-c", request["command"]])
    except BaseException:  # whatever it is, this copy of the nursery ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def die_with(parent: int) -> None:
    """Let this process be killed when its parent ends, however it ends. Raises OSError when the kernel refuses."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    if sys.platform != "linux":
        threading.Thread(target=watch, daemon=True).start()
    elif ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _script(command: str) -> list[str] | None:
    """The words after `python`, when this is `python FILE.py ...` and nothing for a shell."""
    try:
        words = [] if SPECIAL & set(command) else shlex.split(command)
    except ValueError:
        return None  # an open quote: the shell says so
    fits = len(words) > 1 and words[0] == "python" and words[1].endswith(".py") and not words[1].startswith("-")
    return words[1:] if fits else None


def _share_cores() -> None:
    """Give linear algebra the threads that the item has: numpy read OMP_NUM_THREADS when the nursery imported it, and
    the last digits of its sums depend on it."""
    from finetrace.store.threads import share

    if (threads := share()) is not None and "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads, user_api="blas")


def _run_script(words: list[str], mask: Iterable[int]) -> int:
    """Do what `python SCRIPT ...` does, once signals are let in by `mask`; returns the exit code."""
    script = Path(os.getcwd(), words[0])
    for name in [name for name in sys.modules if name.partition(".")[0] == "finetrace"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.argv = list(words)
    sys.orig_argv = [sys.executable, *words]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # lines are shown as they are written
    try:
        source = script.read_bytes()
    except OSError as error:
        print(f"{sys.executable}: can't open file '{script}': {error}", file=sys.stderr)
        return 2
    if not sys.flags.safe_path:
        sys.path.insert(0, str(script.resolve().parent))
    # not by runpy, which takes __main__ away while threads and exit functions still need it. Without a __spec__,
    # multiprocessing lets its workers import the script by __file__
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main).update(__file__=str(script), __builtins__=sys.modules["builtins"], __annotations__={}, __cached__=None,
                      __loader__=SourceFileLoader("__main__", str(script)))
    code = 0
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        exec(compile(source, str(script), "exec", dont_inherit=True), vars(main))
    except SystemExit as stop:
        code = _exit_code(stop)
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without the line above
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    del main
    return _end_interpreter(code)


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _end_interpreter(code: int) -> int:
    """What the interpreter does at its end, but for taking itself apart, which is slow after so many imports."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    # files left open first: the collector may close one before its buffer, which loses text
    _flush(*(stream for stream in gc.get_objects() if issubclass(type(stream), io.TextIOWrapper | io.BufferedWriter)))
    sys.modules.pop("__main__", None)
    gc.collect()  # the script's own objects end
    _flush(sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    ctypes.CDLL(None).fflush(None)  # what C wrote
    if code == -signal.SIGINT:  # an interrupt that nobody caught: the interpreter, too, ends by the signal then
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def _flush(*streams: Any) -> None:
    for stream in streams:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, broken, closed: nothing to be told
            stream.flush()


def main(settings: Mapping[str, Any]) -> None:
    """Be the nursery: import, then serve."""
    requests, events, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # nothing but events may get into the pipe to the front, whatever a library prints
    os.close(null)
    nursery = _Nursery(requests, events, settings["grace"])
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which `python -m` puts there; a script puts its own
    for name in settings["preload"]:
        with contextlib.suppress(ImportError):  # not installed: a script that needs it says so
            importlib.import_module(name)
    # Python 3.12 on: the threads that it sees are those of OpenBLAS and jemalloc, which are made for a fork
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    gc.collect()
    gc.freeze()  # what is here stays shared with the children: their collector does not touch it
    sys.stdout.flush()  # else every child would write it again
    nursery.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
