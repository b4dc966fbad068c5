"""What several processes saw of a step, put together in the order of the plan."""

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
    """What a forward pass gave.  counts: whether its rows count, or stand in for none.

    Where the losses are none of examples (words to predict), their sum stands for each example: it tells NaN.
    """
    losses = losses.detach().float()
    rows = len(ids) if counts else 0
    if len(losses) != len(ids):
        losses = losses.sum().expand(len(ids))
    own = torch.from_numpy(np.asarray(ids, dtype=np.int64))[:rows]
    if logits is None:
        return Part(own, losses[:rows])
    return Part(own, losses[:rows], labels[:rows], logits.detach().float()[:rows])


def whole(group: Group, own: Sequence[Part], rows: Sequence[np.ndarray], sizes: np.ndarray) -> Iterator[Part]:
    """The micro-batches of a step from the parts of all processes, which have to come here together.

    own: this process's part of each micro-batch;  rows: of the plan, per micro-batch;  sizes: (row,) examples of each.
    """
    counts = np.array([[int(sizes[part].sum()) for part in group.parts(of)] for of in rows])  # (micro-batch, rank)

    def joined(name: str) -> list[Any]:
        mine = [getattr(part, name) for part in own]
        if mine[0] is None:
            return [None] * len(own)
        by_rank = [torch.split(all_, of.tolist()) for all_, of in
                   zip(group.gathered(torch.cat(mine), counts.sum(axis=0).tolist()), counts.T, strict=True)]
        return [torch.cat(parts) for parts in zip(*by_rank, strict=True)]

    columns = [joined(name) for name in Part.__dataclass_fields__]
    return (Part(*values) for values in zip(*columns, strict=True))


def devices() -> str:
    """Where the training runs, as the manifest says it."""
    group = here()
    return device_name() if group.size == 1 else f"{group.size} x {device_name()}"
