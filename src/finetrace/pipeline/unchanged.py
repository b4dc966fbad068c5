"""Whether anything has been touched since everything was found to be up to date: the answer in tenths of a second.

What is compared is what DVC itself trusts before it hashes a file again: size, time of change and inode of every
file that stages read or write, the code, the study, and the versions of installed packages. Any difference, and DVC
is asked in full.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetrace.layout import Layout
from finetrace.store.files import write_json
from finetrace.store.manifest import versions

ALWAYS = (
    "params.yaml",
    "plan.yaml",
    "dvc.yaml",
    "dvc.lock",
    ".dvcignore",
    "accepted.yaml",
    "requirements.lock",
    "settings",
    "studies",
    "src",
    "pipelines",
)


def is_unchanged(layout: Layout) -> bool:
    """Whether everything is as when `remember` was called. A damaged memory is as good as none."""
    try:
        memory = json.loads(_path(layout).read_text("utf-8"))
        return bool(memory["signature"] == signature(layout, memory["paths"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remember(layout: Layout, paths: Iterable[str], earlier_signature: str) -> None:
    """Everything was up to date; paths: what stages read and write;  earlier_signature: `signature` before that was
    looked into.

    Nothing is remembered when something was touched meanwhile.
    """
    paths = sorted(set(paths))
    if signature(layout, paths) == earlier_signature:
        write_json(_path(layout), {"paths": paths, "signature": earlier_signature})


def signature(layout: Layout, paths: Iterable[str]) -> str:
    """One hash of name, size, time of change and inode of every file below the paths, and of package versions."""
    digest = hashlib.blake2b(json.dumps(versions(), sort_keys=True).encode())
    for name in sorted({*ALWAYS, *paths}):
        for path, facts in _files(os.path.join(layout.root, name)):
            digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}\n".encode())
    return digest.hexdigest()


def _files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files at or below a path, in order; a path that is not there gives nothing."""
    try:
        facts = os.stat(path)
    except OSError:
        return
    if not os.path.isdir(path):
        yield path, facts
        return
    for name in sorted(os.listdir(path)):
        if name != "__pycache__" and not name.endswith(".egg-info"):
            yield from _files(os.path.join(path, name))


def _path(layout: Layout) -> Path:
    return layout.home / ".finetrace" / "unchanged.json"
