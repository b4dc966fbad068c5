"""Writes weights, and finds the newest full state to resume from;
what a checkpoint folder is, `store/checkpoints.py` says."""

import shutil
from pathlib import Path
from typing import Any

from finetrace.store.checkpoints import checkpoint_name, is_complete, mark, step_of
from finetrace.store.files import atomic_folder


def save_weights(model: Any, folder: Path, step: int) -> None:
    """Write config and weights (safetensors) after `step` updates; the folder appears whole or not at all. Of a
    classifier whose encoder is frozen or adapted only what is trained is written."""
    from finetrace.models.saved import save_classifier

    target = folder / checkpoint_name(step)
    with atomic_folder(target) as temporary:
        save_classifier(model, temporary)
        mark(temporary, step)


def newest_state(folder: Path) -> Path | None:
    """The newest complete resumable state below `folder`; incomplete ones are removed."""
    states = sorted((p for p in folder.glob("checkpoint-*")), key=step_of)
    for path in [p for p in states if not is_complete(p)]:
        shutil.rmtree(path)
    states = [p for p in states if p.exists()]
    return states[-1] if states else None
