"""Logits as the original information-dynamics scripts left them: one `logits_step_{k}.npy` per optimiser step."""

import re
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError

_NAME = re.compile(r"logits_step_(\d+)\.npy")


def load_logits(folder: Path, step_max: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All logits of a folder in time order.

    step_max: last step taken, INCLUSIVE, as in the original (5000 keeps 5,001 files); None takes all.
    Returns logits (example, class) float64 and steps (example,) int64. Files are sorted by step number, not by name or
    date; a last batch may be smaller. Raises FinetraceError naming the file when one is damaged or of another width.
    """
    found = {int(m[1]): p for p in folder.glob("logits_step_*.npy") if (m := _NAME.fullmatch(p.name))}
    chosen = sorted(k for k in found if step_max is None or k <= step_max)
    if not chosen:
        raise FinetraceError(f"{folder}: has no logits_step_*.npy" + ("" if step_max is None else f" up to step "
                             f"{step_max}"))
    parts: list[np.ndarray] = []
    for step in chosen:
        try:
            part = np.load(found[step], allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise FinetraceError(f"{found[step]}: not a readable array ({error})") from error
        if part.ndim != 2 or (parts and part.shape[1] != parts[0].shape[1]):
            raise FinetraceError(f"{found[step]}: has shape {part.shape}, not (batch, class) like the other steps")
        parts.append(part.astype(np.float64))
    return np.concatenate(parts), np.repeat(np.array(chosen, dtype=np.int64), [len(p) for p in parts])
