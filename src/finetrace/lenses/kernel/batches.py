"""Batches as the kernel needs them: which row an example is in, batches of one row, and the model's state around it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """Inputs of some rows, and the examples that they hold: one per row, or several (words of a sentence)."""

    inputs: dict[str, torch.Tensor]
    rows: int
    row: torch.Tensor
    """(example,) int64: the row of each example, in the order of the logits."""
    examples: torch.Tensor
    """(example,) int64: their numbers among all examples."""
    slots: int = 1
    """Places for examples in each row."""

    @cached_property
    def plain(self) -> bool:
        """Whether row and example are the same."""
        return len(self.row) == self.rows and bool((self.row.diff() == 1).all())

    def by_example(self, values: torch.Tensor) -> torch.Tensor:
        """(row, ...) values as (example, ...)."""
        return values if self.plain else values[self.row]

    @property
    def turns(self) -> list[torch.Tensor]:
        """Places of the first example of every row that has one, of the second, and so on: each turn has at most one
        per row."""
        order = self.row.argsort(stable=True)
        _, count = torch.unique_consecutive(self.row[order], return_counts=True)
        turn = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count).repeat_interleave(count)
        return [order[turn == k] for k in range(int(count.max()))]

    def take(self, first: int, count: int) -> "Batch":
        """Consecutive rows as a batch."""
        places = torch.nonzero((self.row >= first) & (self.row < first + count)).flatten()
        inputs = {k: v[first:first + count] if len(v) == self.rows and k != "slots" else v
                  for k, v in self.inputs.items()}
        if "slots" in inputs:
            inputs["slots"] = self.inputs["slots"][places] - first * self.slots
        return Batch(inputs, count, self.row[places] - first, self.examples[places], self.slots)

    def single(self) -> Iterator["Batch"]:
        """Row by row, without rows that hold no example."""
        yield from (self.take(int(r), 1) for r in self.row.unique())

    @property
    def tokens(self) -> int:
        """Length of the rows, padding included."""
        values = self.inputs.get("input_ids", next(iter(self.inputs.values())))
        return int(values.shape[1]) if values.dim() > 1 else 1


def prepared(batches: Sequence[dict[str, Any]], model: Any, first: int = 0) -> list[Batch]:
    """Batches of inputs on the model's device and in its precision, their examples counted from `first`."""
    weight = next(model.parameters())
    prepared_batches: list[Batch] = []
    for batch in batches:
        inputs = {k: v.to(weight.device, weight.dtype if v.is_floating_point() else None)
                  for k, v in batch.items() if k != "labels"}
        rows, slots = len(inputs.get("input_ids", next(iter(inputs.values())))), 1
        row = torch.arange(rows, device=weight.device)
        if "slots" in inputs:
            slots = inputs["spans"].shape[1] // model.spans
            row = inputs["slots"] // slots
        if not len(row):
            raise ValueError("a batch has no examples; leave it out")
        prepared_batches.append(Batch(inputs, rows, row, first + torch.arange(len(row), device=weight.device), slots))
        first += len(row)
    return prepared_batches


@contextmanager
def measuring(model: Any) -> Iterator[None]:
    """Evaluation mode, full float32 products, no autocast; modes, required gradients and settings are put back
    afterwards."""
    modes = {module: module.training for module in model.modules()}
    required = {p: p.requires_grad for p in model.parameters()}
    device = next(model.parameters()).device.type
    tf32_settings = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        model.eval().requires_grad_(False)
        with torch.autocast(device, enabled=False), torch.enable_grad():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32_settings
        for module, mode in modes.items():
            module.training = mode
        for p, needed in required.items():
            p.requires_grad_(needed)


def logits_of(model: Any, batch: Batch) -> torch.Tensor:
    """(example, class) logits of a batch."""
    output = model(**batch.inputs)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != len(batch.row):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"the model gives logits of shape {shape} for {len(batch.row)} examples; give one with "
                         "(example, class)")
    return logits
