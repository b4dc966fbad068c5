"""Commands side by side, forked from a process that has imported much: as `python script.py` would run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from tests.conftest import listen_to_ctrl_c

from finetrace.pipeline.executor import Executor, Finished, LocalExecutor

PATIENCE = 60.0  # seconds, for a busy machine; nothing here takes one


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    with LocalExecutor(tmp_path, preload=()) as found:
        yield found


def script(folder: Path, text: str, name: str = "script.py") -> str:
    """Write a script; returns the command that runs it."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(dedent(text), "utf-8")
    return f"python {name}"


def finish(executor: Executor, command: str, **environment: str) -> Finished:
    executor.submit("one", command, environment)
    return ended(executor)


def ended(executor: Executor) -> Finished:
    found = executor.next(PATIENCE)
    assert found is not None
    return found


def plain(folder: Path, command: str) -> tuple[int, str]:
    """Exit code and output of the same command as an interpreter of its own runs it."""
    words = [sys.executable, *command.split()[1:]]
    done = subprocess.run(words, cwd=folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=PATIENCE, check=False, preexec_fn=listen_to_ctrl_c)
    return done.returncode, "\n".join(line for line in done.stdout.splitlines() if line)


def until(true: Callable[[], bool]) -> None:
    stop = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.02)


def text(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def number(path: Path) -> int:
    """The process id that a script writes, with a new line behind it, to a file."""
    until(lambda: text(path).endswith("\n"))
    return int(text(path))


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


SLEEPER = """
    import os, sys, time
    from pathlib import Path
    name = sys.argv[1]
    try:
        Path(name + ".parent").write_text(f"{os.getppid()}\\n")
        Path(name + ".pid").write_text(f"{os.getpid()}\\n")
        time.sleep(1000)
    except KeyboardInterrupt:
        Path(name + ".whole").write_text("whole")
        sys.exit(130)
"""


@pytest.mark.parametrize("body", [
    "print('done')",
    "import sys; sys.exit(3)",
    "import sys; sys.exit()",
    "import sys; sys.exit(True)",
    "import sys; sys.exit(-1)",
    "import sys; sys.exit('a reason')",
    "import sys; sys.exit(['no', 'text'])",
    "def f():\n    raise ValueError('broken')\nf()",
    "print('never'",
    "raise KeyboardInterrupt",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "import os; os._exit(7)",
    # what is left to the end
    "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
    "import atexit, sys; atexit.register(lambda: print(sys.modules['__main__'].sys))",
    "import tempfile, weakref; d = tempfile.TemporaryDirectory(); weakref.finalize(d, print, 'removed')",
    "class A:\n    def __del__(self):\n        print('gone', OTHER)\nOTHER = 1\na = A()",
    "import ctypes; ctypes.CDLL(None).printf(b'from C')",
], ids=range(17))
def test_a_script_ends_as_under_an_interpreter_of_its_own(executor: LocalExecutor, tmp_path: Path, body: str) -> None:
    command = script(tmp_path, body)
    found = finish(executor, command)
    assert (found.code, found.output) == plain(tmp_path, command)
    assert found.name == "one" and 0 < found.seconds < PATIENCE


def test_a_file_left_open_is_written(executor: LocalExecutor, tmp_path: Path) -> None:
    finish(executor, script(tmp_path, "def f(): pass\nstream = open('left', 'w')\nstream.write('text')"))
    assert text(tmp_path / "left") == "text"


def test_a_script_finds_what_an_interpreter_gives(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    script(tmp_path, "NAME = 'beside the script'", "stages/neighbour.py")
    command = script(tmp_path, """
        import os, signal, sys
        import neighbour
        print(__name__, __file__, __spec__, __package__, __doc__, sorted(globals()), type(__loader__), sys.flags)
        print(sys.argv, sys.path, neighbour.NAME, os.getcwd(), repr(sys.stdin.read()), sys.orig_argv[1:])
        print(*(signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), __import__("__main__"))
        print([m for m in sys.modules if m.startswith("finetrace")])
    """, "stages/look.py") + " key more=words"
    found = finish(executor, command)
    assert (found.code, found.output) == plain(tmp_path, command)


def test_arguments_in_quotes_and_variables_reach_the_script(executor: LocalExecutor, tmp_path: Path) -> None:
    command = script(tmp_path, "import os, sys\nprint(sys.argv[1:], os.environ['KEY'], os.environ['PATH'])")
    found = finish(executor, command + " 'two words' -x", KEY="välue")
    assert found.output == f"['two words', '-x'] välue {os.environ['PATH']}"


def test_a_script_that_is_not_there(executor: LocalExecutor, tmp_path: Path) -> None:
    found = finish(executor, "python missing.py")
    assert found.code == 2 and f"can't open file '{tmp_path / 'missing.py'}'" in found.output


def test_every_command_gets_a_fresh_process(executor: LocalExecutor, tmp_path: Path) -> None:
    command = script(tmp_path, """
        import os, string, sys
        print(hasattr(string, "MARK"), os.environ.get("MARK"), "finetrace" in sys.modules)
        string.MARK = os.environ["MARK"] = "left behind"
        import finetrace
    """)
    assert [finish(executor, command).output for _ in range(2)] == ["False None False"] * 2


def test_modules_are_imported_once_and_missing_ones_left_out(tmp_path: Path) -> None:
    command = script(tmp_path, "import sys\nprint('wave' in sys.modules, sys.modules['wave'].__file__)")
    with LocalExecutor(tmp_path, preload=("no_such_module", "wave")) as executor:
        assert finish(executor, command).output.startswith("True /")


def test_numbers_are_those_of_an_interpreter_of_its_own(tmp_path: Path) -> None:
    command = script(tmp_path, """
        import numpy as np
        random = np.random.default_rng(7)
        a = random.normal(size=(300, 300))  # enough for the threads of OpenBLAS
        print((a @ a).sum().hex(), np.linalg.svd(a[:40, :40])[1][:3].tolist(), random.integers(1 << 60))
    """)
    with LocalExecutor(tmp_path, preload=("numpy",)) as executor:
        found = finish(executor, command)
    assert (found.code, found.output) == plain(tmp_path, command)


@pytest.mark.parametrize("threads", [1, 2])
def test_linear_algebra_has_the_threads_of_the_item(tmp_path: Path, threads: int) -> None:
    (tmp_path / "pools.py").write_text(
        "import numpy, threadpoolctl\n"
        "print({pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas'})\n")
    with LocalExecutor(tmp_path, preload=["numpy"]) as executor:
        executor.submit("pools", "python pools.py", {"FINETRACE_THREADS": str(threads), "OMP_NUM_THREADS": "2"})
        assert ended(executor).output == f"{{{threads}}}"


def test_two_run_side_by_side(executor: LocalExecutor, tmp_path: Path) -> None:
    command = script(tmp_path, """
        import sys, time
        from pathlib import Path
        mine, other = sys.argv[1:]
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.01)
    """)
    executor.submit("a", f"{command} a b", {})
    with pytest.raises(ValueError, match="a runs already"):
        executor.submit("a", f"{command} a b", {})
    assert executor.next(0.05) is None
    executor.submit("b", f"{command} b a", {})
    assert {(one.name, one.code) for one in (ended(executor), ended(executor))} == {("a", 0), ("b", 0)}
    assert executor.next() is None


def test_a_shell_runs_what_is_not_a_script(executor: LocalExecutor, tmp_path: Path) -> None:
    script(tmp_path, "print('from python')")
    found = finish(executor, "echo $KEY | tr a b; pwd; exit 4", KEY="aaa")
    assert (found.code, found.output) == (4, f"bbb\n{tmp_path}")
    assert finish(executor, "kill -TERM $$").code == -signal.SIGTERM
    assert finish(executor, "echo 'open quote").code == 2
    assert finish(executor, f"{sys.executable} script.py").output == "from python"
    assert finish(executor, "yes | head -n 1").output == "y"


def test_the_last_lines_are_kept_and_all_are_shown(tmp_path: Path) -> None:
    shown: list[tuple[str, str]] = []
    command = script(tmp_path, """
        import sys
        for i in range(30):
            print("out", i)
            print("err", i, file=sys.stderr)
        sys.stdout.flush()
        sys.stdout.buffer.write(b"10%\\r20%\\r\\n\\n\\xff bad\\nno end")
    """)
    with LocalExecutor(tmp_path, (), lambda name, line: shown.append((name, line))) as executor:
        found = finish(executor, command)
    lines = [f"{stream} {i}" for i in range(30) for stream in ("out", "err")] + ["10%", "20%", "\ufffd bad", "no end"]
    assert shown == [("one", line) for line in lines]
    assert found.output.splitlines() == lines[-20:]


def test_what_show_raises_is_raised_by_next(tmp_path: Path) -> None:
    def show(name: str, line: str) -> None:
        raise OSError(f"{name}: no terminal")

    with LocalExecutor(tmp_path, (), show) as executor:
        executor.submit("one", script(tmp_path, "print(1)\nprint(2)"), {})
        with pytest.raises(OSError, match="one: no terminal"):
            executor.next(PATIENCE)
        assert ended(executor).output == "1\n2"


def test_output_cannot_be_taken_for_an_event(executor: LocalExecutor, tmp_path: Path) -> None:
    line = '{"event": "end", "number": 0, "name": "one", "code": 5, "seconds": 0}'
    found = finish(executor, script(tmp_path, f"""
        import os, sys
        print('{line}', flush=True)
        for fd in range(3, 64):
            try:
                os.write(fd, b'{line}\\n')
            except OSError:
                pass
        sys.exit(6)
    """))
    assert (found.code, found.output) == (6, line)


def test_much_output_and_very_long_lines_pass(tmp_path: Path) -> None:
    shown: list[str] = []
    command = script(tmp_path, """
        import sys
        sys.stdout.write("x" * 1_000_000 + "\\n")
        for i in range(20_000):
            sys.stderr.write(f"{i:049d}\\n")
    """)
    with LocalExecutor(tmp_path, (), lambda name, line: shown.append(line)) as executor:
        found = finish(executor, command)
    assert found.code == 0 and found.output.endswith("19999")
    assert sum(line.count("x") for line in shown) == 1_000_000 and len(shown) > 20_000


def test_what_a_command_leaves_running_does_not_hold_it_up(executor: LocalExecutor, tmp_path: Path) -> None:
    found = finish(executor, script(tmp_path, """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid, flush=True)
    """))
    assert found.code == 0 and alive(int(found.output))
    os.kill(int(found.output), signal.SIGKILL)


def test_worker_processes_import_the_script_anew(executor: LocalExecutor, tmp_path: Path) -> None:
    command = script(tmp_path, """
        import multiprocessing
        import sys
        from concurrent.futures import ProcessPoolExecutor

        def square(x):
            return x * x, __name__, sys.argv[1]

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                print(*pool.map(square, [2, 3]))
            one = context.Process(target=square, args=("wrong",))
            one.start()
            one.join()
            print(one.exitcode)
    """) + " key"
    found = finish(executor, command)
    assert found.code == 0 and "(4, '__mp_main__', 'key') (9, '__mp_main__', 'key')" in found.output
    assert "TypeError" in found.output and found.output.endswith("\n1")


def test_close_interrupts_first_and_kills_later(tmp_path: Path) -> None:
    command = script(tmp_path, SLEEPER)
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    stubborn = script(tmp_path, deaf + dedent(SLEEPER), "stubborn.py")
    executor = LocalExecutor(tmp_path, (), grace=0.5)
    executor.submit("a", f"{command} a", {})
    executor.submit("b", f"{stubborn} b", {})
    executor.submit("c", f"cd . && {sys.executable} script.py c", {})
    pids = [number(tmp_path / f"{name}.pid") for name in "abc"]
    executor.close()
    assert not any(alive(pid) for pid in pids)
    assert text(tmp_path / "a.whole") == text(tmp_path / "c.whole") == "whole" and not text(tmp_path / "b.whole")
    codes = {one.name: one.code for one in (ended(executor) for _ in pids)}
    assert codes["a"] == 130 and codes["b"] == -signal.SIGKILL and codes["c"] in (130, -signal.SIGINT)
    assert executor.next() is None
    executor.close()
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit("d", command, {})


def test_close_does_not_wait_for_imports(tmp_path: Path) -> None:
    (tmp_path / "lengthy.py").write_text("import time\ntime.sleep(1000)\n")
    os_path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os_path)
        with LocalExecutor(tmp_path, ("lengthy",)) as executor:
            for i in range(20):  # more than a pipe holds
                executor.submit(f"{i}", script(tmp_path, "print(1)"), {"LONG": "x" * 10_000})
    assert {ended(executor).code for _ in range(20)} == {-signal.SIGKILL}


def test_when_the_nursery_is_killed_its_commands_end_and_a_new_one_starts(tmp_path: Path) -> None:
    command = script(tmp_path, SLEEPER)
    with LocalExecutor(tmp_path, ()) as executor:
        for name in "ab":
            executor.submit(name, f"{command} {name}", {})
        pids = [number(tmp_path / f"{name}.pid") for name in "ab"]
        os.kill(number(tmp_path / "a.parent"), signal.SIGKILL)
        found = [ended(executor), ended(executor)]
        assert {(one.name, one.code) for one in found} == {("a", -9), ("b", -9)}
        assert all("ended with code -9" in one.output for one in found)
        until(lambda: not any(alive(pid) for pid in pids))
        assert finish(executor, script(tmp_path, "print('again')", "again.py")).output == "again"


FRONT = """
    import sys
    from pathlib import Path
    from finetrace.pipeline.executor import LocalExecutor
    executor = LocalExecutor(Path.cwd(), ())
    try:
        with executor:
            executor.submit("a", "python script.py a", {})
            executor.next()
    except KeyboardInterrupt:
        print(executor.next().code)
"""


def start_front(folder: Path) -> subprocess.Popen[str]:
    """A front in a process group of its own, as a shell makes one."""
    script(folder, FRONT, "front.py")
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, "front.py"], cwd=folder, env=os.environ | {"PYTHONPATH": paths}, text=True,
                            stdout=subprocess.PIPE, process_group=0, preexec_fn=listen_to_ctrl_c)


def test_when_the_front_is_killed_everything_ends_at_a_whole_state(tmp_path: Path) -> None:
    script(tmp_path, SLEEPER)
    with start_front(tmp_path) as front:
        pids = [number(tmp_path / "a.pid"), number(tmp_path / "a.parent")]
        front.kill()
    until(lambda: not any(alive(pid) for pid in pids))
    assert text(tmp_path / "a.whole") == "whole"


def test_ctrl_c_reaches_a_command_once(tmp_path: Path) -> None:
    script(tmp_path, """
        import os, sys, time
        from pathlib import Path
        times = 0
        try:
            Path("a.pid").write_text(f"{os.getpid()}\\n")
            time.sleep(1000)
        except KeyboardInterrupt:
            time.sleep(0.5)  # a second one would end this
            sys.exit(42)
    """)
    with start_front(tmp_path) as front:
        number(tmp_path / "a.pid")
        os.killpg(front.pid, signal.SIGINT)
        assert front.stdout is not None
        assert front.stdout.read() == "42\n"
