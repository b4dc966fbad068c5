"""`finetrace.trace`: a training loop of one's own leaves a trajectory like those of finetrace's own trainings."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from finetrace.errors import FinetraceError
from finetrace.training.tagging import Tagged
from finetrace.training.trace import Trace
from finetrace.training.trace_folder import finish
from finetrace.training.trace_options import METRICS_OF, TraceOptions

log = logging.getLogger(__name__)


class TracedLoop:
    """The calls by which a training loop reports to its trace."""

    def __init__(self, trace: Trace, loader: Any):
        self._trace, self._loader, self._waits = trace, loader, False
        self.batches_seen = 0
        self._told: set[str] = set()  # metrics that were said to be left out

    @property
    def step(self) -> int:
        """Updates done."""
        return self._trace.step

    def batches(self) -> Iterator[Any]:
        """One pass over the loader; the batches are the same as without a trace."""
        self._trace.epoch()
        for batch in self._loader:
            self._end_micro_batch()
            batch = batch.untie() if isinstance(batch, Tagged) else batch
            self._waits = True
            self.batches_seen += 1
            yield batch
        self._end_micro_batch()

    def evaluation(self, split: str, **metrics: float) -> None:
        """Note an evaluation after the updates done so far: loss, accuracy, macro_f1, f1, matthews; of numbers mse,
        pearson, spearman; of several labels micro_f1, exact_match."""
        known = {"loss", *(name for names in METRICS_OF.values() for name in names)}
        if unknown := sorted(set(metrics) - known - self._told):
            self._told.update(unknown)
            log.warning("evaluation: %s: no metric that a trace keeps, left out; it keeps %s", ", ".join(unknown),
                        ", ".join(sorted(known)))
        self._trace.evaluation(split, metrics)

    def flush(self) -> None:
        """Make all that was recorded durable; to be called before a checkpoint to resume from is written."""
        self._trace.flush()

    def _end_micro_batch(self) -> None:
        if self._waits:
            self._waits = False
            self._trace.end_micro_batch()

    def _before_update(self, optimizer: Any, *_: Any) -> None:
        self._end_micro_batch()
        self._trace.before_update(optimizer)

    def _after_update(self, *_: Any) -> None:
        self._trace.after_update(stopping=self._trace.step + 1 >= self._trace.total)


@contextlib.contextmanager
def trace(model: Any, optimizer: Any, folder: str | Path, *, loader: Any, epochs: float = 1.0, accumulate: int = 1,
          steps: int = 0, start: int = 0, tokenizer: Any = None, settings: dict[str, Any] | None = None,
          seeds: dict[str, int] | None = None, **options: Any) -> Iterator[TracedLoop]:
    """Record the training loop in the block into `folder`, which is whole when the block ends without an exception.

        with finetrace.trace(model, optimizer, "runs/mine", loader=loader, epochs=2) as traced:
            for epoch in range(2):
                for batch in traced.batches():
                    ...

    model: called with a batch's inputs, it returns logits (example, class);  optimizer: its step() is an update;
    loader: torch's DataLoader of a dataset with rows, also one that accelerate has prepared;  epochs, accumulate:
    passes over it, and batches per update; with `steps`, the updates of the whole training, they do not count;
    start: updates done before, of a loop that was resumed: what was recorded after them is dropped;  tokenizer: kept
    beside the weights;  settings, seeds: of the training, for provenance.json;  options: those of `TraceOptions`.
    Raises FinetraceError as `TraceCallback` does.
    """
    if start < 0 or accumulate < 1:
        raise FinetraceError(f"start {start} is negative, or accumulate {accumulate} is less than 1; give the updates "
                             "that were done before, and the batches of an update")
    recording = Trace(Path(folder), TraceOptions.of(options), rank=_environment("RANK", 0),
                      processes=_environment("WORLD_SIZE", 1))
    started, steps_per_epoch = time.time(), max(1, -(-len(loader) // accumulate))
    recording.begin(model, loader, step=start, total=steps or max(1, round(epochs * steps_per_epoch)),
                    steps_per_epoch=steps_per_epoch)
    loop, inner_optimizer = TracedLoop(recording, loader), getattr(optimizer, "optimizer", optimizer)
    before_hook = inner_optimizer.register_step_pre_hook(loop._before_update)
    after_hook = inner_optimizer.register_step_post_hook(loop._after_update)
    try:
        yield loop
        loop._end_micro_batch()
    finally:
        before_hook.remove()
        after_hook.remove()
        recording.close()
    if loop.batches_seen and recording.step == start:
        raise FinetraceError("no update was seen: step() of the optimizer that was given was never called; give the "
                             "one whose step() the loop calls")
    recording.recorder.discard(recording.step)
    if recording.checkpoints:
        recording.keep()
    finish(recording, {"epochs": epochs, "max_steps": steps, "accumulate": accumulate} | (settings or {}), seeds or {},
           tokenizer, started=started)


def _environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default)) if torch.distributed.is_initialized() else default
