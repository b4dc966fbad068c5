"""Hashes of files and folders as DVC calls them, remembered as long as nothing was touched.

Trusted is what DVC itself trusts: size, time of change and inode. Files are hashed here, folders by DVC, which knows
the hashes of their files. DVC takes a millisecond for a file, whether it knows it or not.
"""

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path

from finetrace.pipeline.unchanged import files_below
from finetrace.store.files import write_text
from finetrace.store.verified import SETTLED_NS


class Hashes:
    """Hashes by path. file: where they are remembered;  root: the folder to which paths are relative;
    of_folder: hashes a folder."""

    def __init__(self, file: Path, root: Path, of_folder: Callable[[str], str]) -> None:
        self._file, self._root, self._of_folder, self._new = file, root, of_folder, False
        self._known: dict[str, list[str]] = {}
        """Path -> what was seen of it, its hash."""
        try:
            known = json.loads(file.read_text("utf-8"))
            self._known = {path: [str(seen), str(value)] for path, (seen, value) in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass

    def of(self, path: str) -> str | None:
        """The hash of a file or folder, None when it is not there."""
        full = os.path.join(self._root, path)
        try:
            seen, touched, is_folder = _look(full)
        except OSError:
            return None
        if (known := self._known.get(path)) and known[0] == seen:
            return known[1]
        value = self._of_folder(full) if is_folder else _md5(full)
        self._remember(path, seen, touched, value)
        return value

    def learn(self, path: str, value: str) -> None:
        """What DVC has just hashed."""
        with contextlib.suppress(OSError):
            seen, touched, _ = _look(os.path.join(self._root, path))
            self._remember(path, seen, touched, value)

    def _remember(self, path: str, seen: str, touched: int, value: str) -> None:
        if time.time_ns() - touched > SETTLED_NS:
            self._known[path], self._new = [seen, value], True

    def write(self, paths: Collection[str]) -> None:
        """Keep what is known of these paths for the next process."""
        if self._new:
            known = {path: self._known[path] for path in sorted(paths) if path in self._known}
            write_text(self._file, json.dumps(known, separators=(",", ":")))


def _md5(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _look(path: str) -> tuple[str, int, bool]:
    """What can be seen of a file, or of all in a folder, without reading; the last time at which it was touched; and
    whether it is a folder. Raises OSError when it is not there."""
    facts = os.stat(path)
    if not stat.S_ISDIR(facts.st_mode):
        return _seen(facts), facts.st_mtime_ns, False
    digest, touched = hashlib.blake2b(digest_size=16), 0
    for file, file_facts in files_below(path):
        digest.update(f"{file} {_seen(file_facts)}\n".encode("utf-8", "surrogateescape"))
        touched = max(touched, file_facts.st_mtime_ns)
    return digest.hexdigest(), touched, True


def _seen(facts: os.stat_result) -> str:
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"
