"""The micro-batches of a step, put together from the parts of several processes in the order of the plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finetrace.group import Group, here
from finetrace.models.device import device_name


@dataclass(frozen=True)
class Part:
    """A micro-batch, or one process's part of it, before the update.

    ids: (example,) int64, on the CPU;  losses: (example,);  labels: (example,) or (example, class), and logits
    (example, class), or None where none are recorded.
    """

    ids: Any
    losses: Any
    labels: Any = None
    logits: Any = None


def part_of(ids: np.ndarray, losses: Any, labels: Any, logits: Any, counts: bool) -> Part:
    """The part that a forward pass gave.  counts: whether its rows count, or stand in where a process has none.

    Where the losses are none of examples (words to predict), their sum stands for each example: it tells NaN.
    """
    losses = losses.detach().float()
    rows = len(ids) if counts else 0
    if len(losses) != len(ids):
        losses = losses.sum().expand(len(ids))
    example_ids = torch.from_numpy(np.asarray(ids, dtype=np.int64))[:rows]
    if logits is None:
        return Part(example_ids, losses[:rows])
    return Part(example_ids, losses[:rows], labels[:rows], logits.detach().float()[:rows])


def join_parts(group: Group, own_parts: Sequence[Part], rows: Sequence[np.ndarray],
               sizes: np.ndarray) -> Iterator[Part]:
    """The micro-batches of a step from the parts of all processes, which have to come here together.

    own_parts: this process's part of each micro-batch;  rows: of the plan, per micro-batch;  sizes: (row,) examples of
    each.
    """
    counts = np.array([[int(sizes[part].sum()) for part in group.parts(batch_rows)]
                       for batch_rows in rows])  # (micro-batch, rank)

    def joined(name: str) -> list[Any]:
        own_values = [getattr(part, name) for part in own_parts]
        if own_values[0] is None:
            return [None] * len(own_parts)
        by_rank = [torch.split(gathered, batch_rows.tolist()) for gathered, batch_rows in
                   zip(group.gathered(torch.cat(own_values), counts.sum(axis=0).tolist()), counts.T, strict=True)]
        return [torch.cat(parts) for parts in zip(*by_rank, strict=True)]

    columns = [joined(name) for name in Part.__dataclass_fields__]
    return (Part(*values) for values in zip(*columns, strict=True))


def devices() -> str:
    """The devices of the training for its manifest, with their number where there are several."""
    group = here()
    return device_name() if group.size == 1 else f"{group.size} x {device_name()}"
