"""When something happens during a training, and in which order examples are seen. Pure functions."""

import math
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError


def steps_of(schedule: Any, total: int, steps_per_epoch: float) -> list[int]:
    """The steps of a schedule, sorted; a step is a number of optimiser updates done.

    schedule: "log2" (0, 1, 2, 4, ...), "epochs", "none", {"every": n}, {"log": n} (n steps from 1 to `total`, evenly on
    a logarithmic scale; fewer where whole steps coincide) or {"steps": [...]}. Step 0 and the last step are always
    included, except for "none", which is empty.
    """
    if schedule == "none":
        return []
    steps = {0, total}
    if schedule == "log2":
        steps |= {2**i for i in range(total.bit_length()) if 2**i <= total}
    elif schedule == "epochs":
        steps |= {min(total, math.ceil(e * steps_per_epoch)) for e in range(1, math.ceil(total / steps_per_epoch) + 1)}
    elif (isinstance(schedule, dict) and set(schedule) == {"every"} and _is_whole_number(schedule["every"])
          and schedule["every"] > 0):
        steps |= set(range(0, total, schedule["every"]))
    elif isinstance(schedule,
                    dict) and set(schedule) == {"log"} and _is_whole_number(schedule["log"]) and schedule["log"] >= 2:
        steps |= {min(total, round(total ** (i / (schedule["log"] - 1)))) for i in range(schedule["log"])}
    elif isinstance(schedule, dict) and set(schedule) == {"steps"} and (
            isinstance(schedule["steps"], list) and all(map(_is_whole_number, schedule["steps"]))):
        steps |= {s for s in schedule["steps"] if 0 <= s <= total}
    else:
        raise FinetraceError(f"schedule {schedule!r}: use log2, epochs, none, {{every: n}}, {{log: n}} "
                             f"or {{steps: [...]}}")
    return sorted(steps)


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def plan_steps(lengths: np.ndarray, batch_size: int, epochs: float, order: str, generator: np.random.Generator,
               max_steps: int = 0) -> tuple[list[np.ndarray], int]:
    """Which rows each optimiser step sees: (one array of row numbers per step, steps per epoch).

    lengths: (row,) tokens per row;  order: "random" shuffles; "length" shuffles, then sorts by length inside blocks of
    50 batches and shuffles the batches, so that a batch holds similar lengths while the order stays random. Every
    row comes once per epoch; an epoch's last batch may be smaller.
    """
    rows = len(lengths)
    per_epoch = math.ceil(rows / batch_size)
    total = max_steps or max(1, math.ceil(round(epochs * per_epoch, 6)))
    steps: list[np.ndarray] = []
    while len(steps) < total:
        permutation = generator.permutation(rows)
        if order == "length":
            block = 50 * batch_size
            blocks = (permutation[i:i + block] for i in range(0, rows, block))
            permutation = np.concatenate([b[np.argsort(-lengths[b], kind="stable")] for b in blocks])
        batches = [permutation[i:i + batch_size] for i in range(0, rows, batch_size)]
        if order == "length":
            batches = [batches[i] for i in generator.permutation(len(batches))]
        steps.extend(batches)
    return steps[:total], per_epoch


def learning_rate_factor(step: int, total: int, warmup_steps: int, scheduler: str) -> float:
    """Multiplier of the peak learning rate for the update after `step` updates, in [0, 1]."""
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total - warmup_steps)
    if scheduler == "linear":
        return max(0.0, 1.0 - progress)
    if scheduler == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return 1.0
