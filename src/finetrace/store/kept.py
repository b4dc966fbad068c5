"""Measurements that are kept beside DVC's outputs, which DVC deletes before a stage runs: links, so they cost no
space.

A folder here can be deleted at any time; the measurement is then made again when a figure changes.
"""

import os
import shutil
from pathlib import Path

from finetrace.errors import FinetraceError
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import read_manifest


def keep_files(folder: Path, kept: Path) -> None:
    """Keep the files of a finished folder, in place of an earlier version."""
    with atomic_folder(kept) as temporary:
        _link_all(folder, temporary)


def restore_files(kept: Path, key: str, folder: Path) -> bool:
    """Put kept files into an empty folder; False, and nothing put, when they are not whole or are of another key."""
    try:
        if read_manifest(kept, verify="content").key != key:
            return False
    except FinetraceError:
        return False  # absent or damaged: the stage measures
    _link_all(kept, folder)
    return True


def _link_all(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file():
            link = target / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, link)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, link)
