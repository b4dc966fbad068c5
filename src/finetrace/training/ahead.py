"""Whether a training will record enough signals for the lens infodynamics, checked before it starts."""

import logging
from collections.abc import Sequence

import numpy as np

from finetrace.errors import blame
from finetrace.lenses.infodynamics.length import absent, require_window, told
from finetrace.training.schedule import steps_of
from finetrace.training.trainer import Plan

log = logging.getLogger(__name__)


def require_signals(plan: Plan, window: int, windows: Sequence[int], max_steps: int, name: str) -> None:
    """Log what infodynamics cannot measure of a training; an error where it could measure nothing.

    plan: of the training that is about to start;  window, windows, max_steps: settings of infodynamics;
    name: of the training. Raises FinetraceError that proposes one window.
    """
    examples = recorded_examples(plan, max_steps)
    with blame(f"params.yaml: infodynamics, for {name}", "or leave it out of `look`"):
        require_window(examples, window)
    if missing := absent(examples, window, windows):
        log.warning("%s: infodynamics: %s", name, told(examples, missing))


def recorded_examples(plan: Plan, max_steps: int) -> int:
    """Rows of signals.parquet in the first `max_steps` steps (0: all), without early stopping.

    A linear probe, whose plan has no batches, records all examples at steps that are powers of two.
    """
    if plan.batches:
        return plan.examples(max_steps or None)
    steps = [step for step in steps_of("log2", plan.total_steps, 1) if not max_steps or step < max_steps]
    return len(steps) * int(np.sum(plan.sizes))
