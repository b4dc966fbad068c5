"""Writes weights, and finds the newest full state to resume from;
what a checkpoint folder is, `store/checkpoints.py` says."""

import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from finetrace.store.checkpoints import checkpoint_name, damage, is_complete, mark, step_of
from finetrace.store.files import atomic_folder

log = logging.getLogger(__name__)
WEIGHTS, SEGMENTS = "checkpoints", "segments"  # folders beside the states


def save_weights(model: Any, folder: Path, step: int) -> None:
    """Write config and weights (safetensors) after `step` updates; the folder appears whole or not at all. Of a
    classifier whose encoder is frozen or adapted only what is trained is written."""
    from finetrace.models.saved import save_classifier

    target = folder / checkpoint_name(step)
    with atomic_folder(target) as temporary:
        save_classifier(model, temporary)
        mark(temporary, step)


def built_on(folder: Path) -> list[Path]:
    """Files below `folder` on which a continuation builds, besides the states: recorded segments, markers of
    weights."""
    return sorted([*folder.glob(f"{SEGMENTS}/*.parquet"), *folder.glob(f"{WEIGHTS}/step-*/complete.json")])


def newest_state(folder: Path, scheduled: Collection[int] = ()) -> Path | None:
    """The newest full state below `folder` from which a training can go on; newer ones, which are unfinished or of
    which something is damaged or lost, are removed, the latter with a warning.

    scheduled: steps whose weights are kept to the end; others, the best so far, are removed when better ones are there.
    """
    states = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
    for number, state in enumerate(states):
        if not is_complete(state):
            shutil.rmtree(state)
        elif (damaged := damage(state)) is None or _has_successor(damaged, folder / WEIGHTS, step_of(state), scheduled):
            return state
        else:
            older = number + 1 < len(states)
            log.warning("%s: is damaged or lost since it was written; the training %s", damaged,
                        "goes on from an earlier state" if older else "starts over")
            shutil.rmtree(state)
    return None


def _has_successor(damaged: Path, weights: Path, step: int, scheduled: Collection[int]) -> bool:
    """Whether weights are gone because better ones were found after the state of `step`, which the training will find
    again."""
    if damaged.parent != weights or damaged.exists() or step_of(damaged) in scheduled:
        return False
    return any(step_of(folder) > step for folder in weights.glob("step-*") if is_complete(folder))
