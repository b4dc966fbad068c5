"""Pieces of unfinished work that are kept until all are there: folders that appear whole, with hashes of their files.

A piece that was damaged since is made again instead of believed. Hashing takes about a second per gigabyte.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetrace.store.files import atomic_folder, sha256_file, write_json

NAME = "whole.json"
log = logging.getLogger(__name__)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, which becomes `path`, with hashes, if the block ends without an exception."""
    with atomic_folder(path) as temporary:
        yield temporary
        write_json(temporary / NAME, _hashes(temporary))


def is_whole(path: Path) -> bool:
    """Whether a piece is there as it was written; one that is not is removed, and a line says so."""
    if not path.is_dir():
        return False
    try:
        if json.loads((path / NAME).read_text("utf-8")) == _hashes(path):
            return True
    except (OSError, ValueError):
        pass
    log.warning("%s: is damaged since it was written, or of an older version; it is made again", path)
    shutil.rmtree(path)
    return False


def hand_over(path: Path, target: Path) -> None:
    """Move a piece to its place in the finished folder, without its hashes, which the manifest has."""
    os.unlink(path / NAME)
    shutil.move(path, target)


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path)
            for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / NAME}
