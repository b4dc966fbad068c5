"""Checkpoint folders: weights for the lenses (kept), and full states to resume from (scratch).

A folder counts only when it carries its marker, which is written last and atomically.
"""

import json
from pathlib import Path

from finetrace.store.files import sha256_file, write_json

MARKER = "complete.json"


def checkpoint_name(step: int) -> str:
    """Folder name of the weights after `step` updates."""
    return f"step-{step:08d}"


def mark(folder: Path, step: int) -> None:
    """Declare a checkpoint complete: sizes of its files and the hash of its weights."""
    files = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file() and p.name != MARKER}
    weights = {p.name: sha256_file(p) for p in sorted(folder.glob("*.safetensors"))}
    write_json(folder / MARKER, {"schema_version": 1, "step": step, "files": files, "sha256": weights})


def is_complete(folder: Path) -> bool:
    """Whether the marker is there and every file has its full size."""
    try:
        files = json.loads((folder / MARKER).read_text("utf-8"))["files"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False
    return isinstance(files, dict) and all(
        (folder / n).is_file() and (folder / n).stat().st_size == size for n, size in files.items())


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name (`step-00000128`, `checkpoint-128`)."""
    return int(folder.name.rsplit("-", 1)[1])


def list_weights(folder: Path) -> dict[int, Path]:
    """Complete checkpoints below `folder`: step -> folder, in step order."""
    return {step_of(p): p for p in sorted(folder.glob("step-*")) if is_complete(p)}
