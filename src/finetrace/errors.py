"""The one exception that means: the user can fix this. And what the operating system refuses, in words."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|os error (28|122)\b|disk is full|Not enough free space to write"
    r"|\d+ requested and \d+ written|enforce fail at inline_container.*unexpected pos|file write failed"
)
"""How libraries say that a disk is full: numpy, safetensors, sqlite, torch."""
_TOO_LARGE = re.compile(r"File too large|os error 27\b")
_TOO_MANY = re.compile(r"Too many open files|os error 24\b")
_READ_ONLY = re.compile(r"Read-only file system|os error 30\b|attempt to write a readonly database")
_DENIED = re.compile(r"\[Errno (1|13)\]|os error (1|13)\b")


_SECRETS = (
    re.compile(r"""(\bhttps?://[^\s/:@'"]*):[^\s/'"]*(?=@)"""),
    re.compile(r"""(\b(?!https?:)[a-z][a-z0-9+.-]*://[^\s/:@'"]*):[^\s'"]*(?=@)"""),  # a database's may hold a slash
    re.compile(r"""([?&](?:\w*password|passwd|pwd|token)=)[^\s&'"]+"""),
)


class FinetraceError(Exception):
    """Bad input. The message says what is wrong, where (file, row or key) and what to do; it leaves passwords in
    addresses out."""

    def __init__(self, message: object = ""):
        super().__init__(hide_passwords(str(message)))


def hide_passwords(text: str) -> str:
    """A text in which the passwords of addresses (scheme://user:password@host) are stars."""
    for number, pattern in enumerate(_SECRETS):
        text = pattern.sub(r"\1***" if number == 2 else r"\1:***", text)
    return text


@contextmanager
def blame(where: str, fix: str = "") -> Iterator[None]:
    """Turn a ValueError of a pure function into a FinetraceError that says where it comes from: `where: what; fix`.

    where: a file, or a section of params.yaml, such as "params.yaml: kernel, for micro-a/micro-topic/ft/s1".
    """
    try:
        yield
    except ValueError as error:
        raise FinetraceError(f"{where}: {error}" + (f"; {fix}" if fix else "")) from error


def refusal(error: BaseException, where: Path) -> str | None:
    """What the operating system refused, in one sentence: path, need and remedy. None for errors of another kind.

    where: the folder to be named when the error names no file.
    """
    current: BaseException | None = error
    while current is not None:
        if (reason := _refused(current, where)) is not None:
            return reason
        current = current.__cause__ or current.__context__
    return None


def _refused(error: BaseException, where: Path) -> str | None:
    number, text = error.errno if isinstance(error, OSError) else None, str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(text):
        path = _path(error, where)
        free = shutil.disk_usage(_existing(path)).free / 2**20
        return (f"{path}: no space is left on its disk ({free:,.0f} MiB free) or in your quota; make room there, or "
                "move the project to a larger disk, and run the same command again: finished work and resume points "
                "are kept")
    if number == errno.EFBIG or _TOO_LARGE.search(text):
        return (f"{_path(error, where)}: would become larger than one file may be; raise the limit (ulimit -f "
                "unlimited), or put the project on another file system")
    if number in (errno.EMFILE, errno.ENFILE) or _TOO_MANY.search(text):
        return (f"{_path(error, where)}: cannot be opened, as this process may have no more files open at a time; "
                "raise the limit (ulimit -n 4096)")
    if number == errno.EROFS or _READ_ONLY.search(text):
        return (f"{_path(error, where)}: lies on a file system that is read-only, and has to be written; mount it for "
                "writing, or work in a copy of the project on another disk")
    if number in (errno.EACCES, errno.EPERM) or (isinstance(error, OSError | RuntimeError) and _DENIED.search(text)):
        path = _path(error, where)
        nearest = _existing(path)
        return (f"{path}: user {os.getuid()} may not read or write it; make it yours (sudo chown -R {os.getuid()} "
                f"{nearest}; chmod -R u+rwX {nearest})")
    return None


def _path(error: BaseException, where: Path) -> Path:
    """The file that an error speaks of, under its final name; of a copy, the new one."""
    named = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    if not isinstance(named, str):
        return where
    parts = Path(named).parts
    hidden = next((i for i, part in enumerate(parts) if part.startswith(".tmp-")), len(parts))  # see store.files
    return Path(*parts[:hidden])


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that is there."""
    for candidate in (path, *path.parents):
        try:
            if candidate.exists():
                return candidate
        except OSError:
            continue
    return Path.cwd()
