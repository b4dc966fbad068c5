"""Files that were found to be what their writer wrote, so that many readers of a large file do not all hash it.

A file of some size is hashed when it is read for the first time, and again when its size, time of change or inode are
others than then; small ones are hashed every time. This is what DVC trusts, too. A disk that changes bytes on its own
changes none of the three: `finetrace doctor --verify` hashes everything.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetrace.store.files import sha256_file, write_json

SMALL = 1 << 20  # bytes: hashing less takes no time
SETTLED_NS = 2_000_000_000  # a file changed more recently is not remembered: the same tick may hide a change
Signature = tuple[int, int, int, str]
_known: dict[str, Signature] = {}  # absolute path -> size, time of change, inode and SHA-256 as it was found right
_memory: Path | None = None


def remember_in(folder: Path | None) -> None:
    """Where this process finds and leaves what others may trust, too; None: in this process alone."""
    global _memory
    _memory = folder
    _known.clear()


def first_damaged(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """The first file below `folder` whose content is not the one that is expected; None when all are right.

    hashes: name -> hex SHA-256; the files are there.
    """
    where, learned = os.path.abspath(folder), False
    _recall(where)
    for name, digest in hashes.items():
        path = f"{where}/{name}"
        facts = os.stat(path)
        signature = (facts.st_size, facts.st_mtime_ns, facts.st_ino, digest)
        if facts.st_size >= SMALL and _known.get(path) == signature:
            continue
        if sha256_file(Path(path)) != digest:
            return name
        if facts.st_size >= SMALL and time.time_ns() - facts.st_mtime_ns > SETTLED_NS:
            _known[path] = signature
            learned = True
    if learned:
        _keep(where)
    return None


def _file(where: str) -> Path | None:
    return None if _memory is None else _memory / f"{hashlib.sha256(where.encode()).hexdigest()[:24]}.json"


def _recall(where: str) -> None:
    """Take over what other processes know about a folder; a damaged memory is as good as none."""
    if (file := _file(where)) is None:
        return
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if content["folder"] == where:
            signatures = {name: (int(a), int(b), int(c), str(d)) for name, (a, b, c, d) in content["files"].items()}
            for name, signature in signatures.items():
                _known.setdefault(f"{where}/{name}", signature)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return


def _keep(where: str) -> None:
    """Leave what is known about a folder to other processes; a place that cannot be written to is no matter."""
    if (file := _file(where)) is None:
        return
    start = f"{where}/"
    with contextlib.suppress(OSError):
        write_json(file, {"folder": where,
                          "files": {path.removeprefix(start): signature for path, signature in _known.items()
                                    if path.startswith(start)}})
