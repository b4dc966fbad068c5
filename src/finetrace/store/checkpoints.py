"""Checkpoint folders: weights for the lenses (kept), and full states to resume from (scratch).

A folder counts only when it carries its marker, which is written last and atomically. The marker of a full state also
names what lies beside it and a continuation builds on.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetrace.store.files import sha256_file, write_json

MARKER = "complete.json"
KEYS = {"schema_version", "step", "files", "sha256", "beside"}


def checkpoint_name(step: int) -> str:
    """Folder name of the weights after `step` updates."""
    return f"step-{step:08d}"


def mark(folder: Path, step: int, beside: Iterable[Path] | None = None) -> None:
    """Declare a checkpoint complete: sizes of its files and the hash of its weights.

    beside: of a full state, files below the folder's parent on which a continuation builds; they are hashed, and so are
    all files of the folder.
    """
    own_files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != MARKER]
    hashed = [p for p in own_files if beside is not None or p.suffix == ".safetensors"]
    content: dict[str, Any] = {"schema_version": 1, "step": step,
                               "files": {p.name: p.stat().st_size for p in own_files},
                               "sha256": {p.name: sha256_file(p) for p in hashed}}
    if beside is not None:
        content["beside"] = {p.relative_to(folder.parent).as_posix(): sha256_file(p) for p in beside}
    write_json(folder / MARKER, content)


def is_complete(folder: Path) -> bool:
    """Whether the marker is there and every file has its full size."""
    files = _marker(folder).get("files")
    return isinstance(files, dict) and all(
        (folder / n).is_file() and (folder / n).stat().st_size == size for n, size in files.items())


def damage(folder: Path) -> Path | None:
    """The first file that is not what was marked, by content: of the folder, or of what it builds on; None if all are.

    Weights beside a full state are told by their folder, and looked into.
    """
    content = _marker(folder)
    if not is_complete(folder) or "sha256" not in content or set(content) - KEYS:
        return folder
    for name, digest in content["sha256"].items():
        if sha256_file(folder / name) != digest:
            return folder / name
    for name, digest in content.get("beside", {}).items():
        file = folder.parent / name
        intact = file.is_file() and sha256_file(file) == digest
        if file.name == MARKER and (damaged := damage(file.parent) if intact else file.parent):
            return damaged
        if not intact:
            return file
    return None


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name (`step-00000128`, `checkpoint-128`)."""
    return int(folder.name.rsplit("-", 1)[1])


def list_weights(folder: Path) -> dict[int, Path]:
    """Complete checkpoints below `folder`: step -> folder, in step order."""
    return {step_of(p): p for p in sorted(folder.glob("step-*")) if is_complete(p)}


def _marker(folder: Path) -> dict[str, Any]:
    """What the marker says; nothing where it is absent or damaged."""
    try:
        content = json.loads((folder / MARKER).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
