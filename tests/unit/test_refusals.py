"""What the operating system refuses is one line with path, need and remedy; what it lacks is done in another way."""

import errno
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from tests.stage_project import project, quiet_logger  # noqa: F401 - fixtures

from finetrace import cli
from finetrace.errors import FinetraceError, refusal
from finetrace.pipeline import stage as stage_module
from finetrace.pipeline.graph import Graph, opened
from finetrace.store.files import atomic_folder, file_lock
from finetrace.tracking import store

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("/project")


def full(path: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", path)


@pytest.mark.parametrize("error", [
    full(), OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("Not enough free space to write 24000000 bytes after offset 128"), OSError("300 requested and 40 written"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    Exception("database or disk is full"),
], ids=["write", "quota", "numpy", "tofile", "torch", "safetensors", "sqlite"])
def test_a_full_disk_however_libraries_say_it(error: Exception, tmp_path: Path) -> None:
    text = refusal(error, tmp_path)
    assert text is not None and text.startswith(f"{tmp_path}: no space is left on its disk (")
    assert "make room there" in text and "run the same command again" in text and "\n" not in text


def test_the_cause_is_found_behind_another_error() -> None:
    try:
        try:
            raise full("/project/outputs/.tmp-12-a/x.npy")
        except OSError as error:
            raise RuntimeError("cannot commit") from error
    except RuntimeError as error:
        text = refusal(error, HERE)
    assert text is not None and text.startswith("/project/outputs: no space is left"), (
        "the folder that was to appear there"
    )


def test_of_a_copy_the_new_file_is_named() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/old/file", None, "/new/file")
    assert str(refusal(error, HERE)).startswith("/new/file: no space")


@pytest.mark.parametrize(("number", "said"), [
    (errno.EROFS, "lies on a file system that is read-only, and has to be written; mount it for writing"),
    (errno.EACCES, "may not read or write it; make it yours (sudo chown -R"), (errno.EPERM, "may not read or write it"),
])
def test_what_may_not_be_written(number: int, said: str) -> None:
    text = refusal(OSError(number, "no", "/project/outputs/a"), HERE)
    assert text is not None and text.startswith("/project/outputs/a: ") and said in text


@pytest.mark.parametrize(("error", "said"), [
    (OSError(errno.EFBIG, "File too large", "/project/a"), "/project/a: would become larger than one file may be"),
    (Exception("I/O error: File too large (os error 27)"), "/project: would become larger than one file may be"),
    (OSError(errno.EMFILE, "Too many open files", "/project/a"), "/project/a: cannot be opened, as this process"),
    (RuntimeError("Too many open files (os error 24)"), "/project: cannot be opened, as this process"),
])
def test_what_goes_beyond_a_limit(error: Exception, said: str) -> None:
    text = refusal(error, HERE)
    assert text is not None and text.startswith(said) and "(ulimit -" in text and "\n" not in text


@pytest.mark.parametrize("error", [ValueError("No such thing"), FileNotFoundError(errno.ENOENT, "gone", "x"),
                                   KeyError("a"), FinetraceError("a.csv: Permission denied is a word in row 3")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert refusal(error, HERE) is None


def run_stage(monkeypatch: pytest.MonkeyPatch, main) -> int:
    monkeypatch.setattr(sys, "argv", ["data.py", "own"])
    with pytest.raises(SystemExit) as stop:
        stage_module.run("data", main)
    return int(stop.value.code or 0)


def test_a_stage_says_one_line_and_leaves_nothing_half_written(
        project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    def main(stage: stage_module.Stage) -> None:
        with atomic_folder(project / "outputs" / "a") as out:
            (out / "x").write_text("x")
            raise full(str(out / "x"))

    assert run_stage(monkeypatch, main) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error and len(error.strip().splitlines()) == 2, error
    assert f"finetrace: stage data@own failed: {project / 'outputs'}: no space is left on its disk" in error
    assert list((project / "outputs").iterdir()) == []
    assert "Traceback" in (project / ".finetrace" / "logs" / "data@own.log").read_text(), "the log keeps it"


def test_a_log_that_cannot_be_written_is_one_line(
        project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(project / ".finetrace"))

    monkeypatch.setattr(stage_module, "_set_up_logging", refuse)
    assert run_stage(monkeypatch, lambda stage: None) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error and "stage data@own failed" in error and "is read-only" in error


def test_a_full_disk_of_the_log_hides_nothing(project: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
                                              capsys: pytest.CaptureFixture[str]) -> None:
    def main(stage: stage_module.Stage) -> None:
        (handler, _) = stage_module.log.handlers
        assert isinstance(handler, stage_module._LogFile)
        handler.stream = open("/dev/full", "w", buffering=1)
        stage_module.log.info("a line for the log")
        stage_module.log.removeHandler(handler)  # else its end fails, as the test's own
        raise full(str(project))

    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    assert run_stage(monkeypatch, main) == 1
    error = capsys.readouterr().err
    assert "Logging error" not in error and "no space is left on its disk" in error


def test_the_command_line_says_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "plan.yaml"))

    monkeypatch.setattr("finetrace.pipeline.compile.compile_study", refuse)
    assert cli.main(["plan"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"finetrace: {tmp_path / 'plan.yaml'}: user {os.getuid()} may not read or write it")
    assert len(error.splitlines()) == 1


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def unknown(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    monkeypatch.setattr(filelock.FileLock, "acquire", unknown)
    with pytest.raises(FinetraceError, match="its file system knows no locks"), file_lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("there", [False, True])
def test_a_store_appears_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       there: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    new, path = tmp_path / "new", tmp_path / "mlflow.db"
    new.write_text("new")
    if there:
        path.write_text("of mlflow ui")
    store._give_name(new, path)
    assert path.read_text() == ("of mlflow ui" if there else "new")


def dvc_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    Repo.init(str(root), no_scm=True).close()
    (root / "dvc.yaml").write_text("stages:\n  a: {cmd: 'true', outs: [outputs/x/y]}\n")
    return root


@pytest.mark.parametrize("link", ["outputs", "outputs/x"])
def test_linked_outputs_are_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      link: str) -> None:
    for name in ("big", "project"):
        (tmp_path / name).mkdir()
    root = dvc_project(tmp_path / "project", monkeypatch)
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / "big")
    with pytest.raises(FinetraceError, match=f"{link}: is a link to {tmp_path / 'big'}, and DVC records nothing "
                                             "through links"):
        Graph(root)


def test_a_project_without_git_or_dvc_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dvc_project(tmp_path, monkeypatch)
    (root / ".dvc" / "config").write_text("")
    with pytest.raises(FinetraceError, match="is not a git repository, which DVC asks for; git init && git add"):
        Graph(root)
    (root / ".dvc").rename(root / "elsewhere")
    with pytest.raises(FinetraceError, match=r"has no \.dvc folder; git checkout .dvc, or dvc init"):
        Graph(root)


def test_a_cache_that_takes_no_more_is_told_once_and_nothing_is_recorded(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """DVC itself prints a trace and goes on, so that dvc.lock names what its cache does not have."""
    root = dvc_project(tmp_path, monkeypatch)
    (root / "outputs" / "x").mkdir(parents=True)
    (root / "outputs" / "x" / "y").write_bytes(b"0" * 3_000_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(root) as graph:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(OSError, match="File too large") as refused:
                graph.record(["a"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(refusal(refused.value, HERE)).startswith(f"{root / '.dvc' / 'cache' / 'files' / 'md5'}/")
        assert not (root / "dvc.lock").exists() and "Traceback" not in capsys.readouterr().err
        graph.record(["a"])
    assert (root / "dvc.lock").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """`mlflow ui` itself ends with code 0 then."""
    fake = tmp_path / "venv" / "bin"
    fake.mkdir(parents=True)
    (fake / "python").symlink_to(sys.executable)
    for name, text in (("finetrace", "exit 0"), ("mlflow", "echo started $*"), ("pip", "exit 0")):
        (fake / name).write_text(f"#!/bin/sh\n{text}\n")
        (fake / name).chmod(0o755)
    (tmp_path / "venv" / ".stamp").touch()

    def make(port: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", "-C", str(ROOT), "ui", f"VENV={tmp_path / 'venv'}", f"PORT={port}"],
                              capture_output=True, text=True, timeout=60)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = make(port)
        assert ended.returncode and "started" not in ended.stdout
        assert f"Port {port} of 127.0.0.1 cannot be had" in ended.stderr and "make ui PORT=5001" in ended.stderr
    ended = make(port)
    assert ended.returncode == 0 and "started ui" in ended.stdout and f"--port {port}" in ended.stdout


def test_sources_are_not_in_git() -> None:
    assert "/sources/" in (ROOT / ".gitignore").read_text().split()
