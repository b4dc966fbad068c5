"""Checkpoints: weights for the lenses (kept), and full states to resume from (scratch).

A checkpoint folder counts only when it carries its marker, which is written last and atomically.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from finetrace.store.files import atomic_folder, sha256_file, write_json

MARKER = "complete.json"


def checkpoint_name(step: int) -> str:
    """Folder name of the weights after `step` updates."""
    return f"step-{step:08d}"


def save_weights(model: Any, folder: Path, step: int) -> None:
    """Write config and weights (safetensors) after `step` updates; the folder appears whole or not at all. Of a classifier whose
    encoder is frozen or adapted only what is trained is written."""
    from finetrace.models.saved import save_classifier

    target = folder / checkpoint_name(step)
    with atomic_folder(target) as temporary:
        save_classifier(model, temporary)
        mark(temporary, step)


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


def newest_state(folder: Path) -> Path | None:
    """The newest complete resumable state below `folder`; incomplete ones are removed."""
    states = sorted((p for p in folder.glob("checkpoint-*")), key=step_of)
    for path in [p for p in states if not is_complete(p)]:
        shutil.rmtree(path)
    states = [p for p in states if p.exists()]
    return states[-1] if states else None
