"""Whether anything has been touched since everything was found to be up to date: the answer in tenths of a second.

What is compared is what DVC itself trusts before it hashes a file again: size, time of change and inode of every
file that stages read or write, the code, the study, and the versions of installed packages. Any difference, and DVC
is asked in full.
"""

import hashlib
import json
import os
import stat
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
    inside = ""
    for name in sorted({*ALWAYS, *paths}, key=lambda path: path.split("/")):
        if not inside or not name.startswith(inside):  # what a folder holds is looked at once
            inside = f"{name}/"
            for path, facts in files_below(os.path.join(layout.root, name)):
                digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}\n".encode())
    return digest.hexdigest()


def files_below(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files at or below a path with what is known of them, in order; a path that is not there gives nothing."""
    try:
        facts = os.stat(path)
    except OSError:
        return
    if stat.S_ISDIR(facts.st_mode):
        yield from _in_folder(path)
    else:
        yield path, facts


def _in_folder(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.name == "__pycache__" or entry.name.endswith(".egg-info"):
            continue
        try:
            facts = entry.stat()
        except OSError:  # a link that leads nowhere
            continue
        if stat.S_ISDIR(facts.st_mode):
            yield from _in_folder(entry.path)
        else:
            yield entry.path, facts


def _path(layout: Layout) -> Path:
    return layout.home / ".finetrace" / "unchanged.json"
