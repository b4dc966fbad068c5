"""Atomic writing and content hashes.

A file or folder appears under its final name only when it is complete: it is written beside it, flushed to the disk
and renamed. A crash leaves at most a `.tmp` sibling, which readers never look at and the next writer removes.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError

TEMPORARY = ".tmp-"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes; NaN and infinities are written as null."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON as `write_json` writes it."""
    return json.dumps(_finite(value), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML in the given key order."""
    import yaml

    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` if the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` if the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                fsync(file)
        if path.exists():
            # moved away first: no moment shows a half-removed folder
            old = temporary.with_name(f"{temporary.name}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        else:
            os.replace(temporary, path)
        fsync(path.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


@contextlib.contextmanager
def file_lock(path: Path, waiting: str = "") -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process, so a crash leaves nothing to clean up.

    waiting: said (as a warning), with the number of that process, when another one holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except NotImplementedError as error:
        raise FinetraceError(f"{path}: its file system knows no locks, which keep two runs apart; put the project on "
                             "a local disk") from error
    except Timeout:
        if waiting:
            logging.getLogger("finetrace").warning("%s%s", waiting, _holder(path))
        lock.acquire()
    with lock:
        lock.release()  # it was taken twice
        if waiting:  # beside the lock, which whoever waits empties
            _pid_file(path).write_text(str(os.getpid()))
        yield


def _pid_file(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.pid")


def _holder(lock: Path) -> str:
    """Which process holds a lock, where it has said so."""
    try:
        number = int(_pid_file(lock).read_text())
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if _alive(number) else ""


def _temporary(path: Path) -> Path:
    """This process's temporary name for `path`; what killed writers of `path` left is removed."""
    leftover = re.compile(rf"{re.escape(TEMPORARY)}(\d+)-{re.escape(path.name)}(\.old)?")
    for stale in path.parent.iterdir():
        match = leftover.fullmatch(stale.name)
        if match and (int(match[1]) == os.getpid() or not _alive(int(match[1]))):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def fsync(path: Path) -> None:
    """Flush a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: Path, *, skip: tuple[str, ...] = ()) -> str:
    """Hex SHA-256 over relative names and contents of all files below `path`; order and time stamps do not matter."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if name in skip or "__pycache__" in file.parts:
            continue
        digest.update(f"{name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def sha256_path(path: Path) -> str:
    """Hex SHA-256 of a file, or of all files of a folder."""
    return sha256_folder(path) if path.is_dir() else sha256_file(path)


def sha256_value(value: Any) -> str:
    """Hex SHA-256 of a JSON-like value; key order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
