"""Several processes that do one training: who is who, and what passes between them.

Every process has the whole model and a part of each micro-batch, and torch takes the mean of their gradients
(DistributedDataParallel). Process 0 leads: it alone writes, looks and decides; the others follow. Whatever passes
between them needs all of them: they come to the same calls in the same order.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from finetrace.errors import FinetraceError

PATIENCE = timedelta(days=7)
"""How long one waits for another: process 0 evaluates, or fits a linear probe, while the others wait. A process that
has ended is noticed at once, by whoever started it and by a connection that closes."""
GONE = ("closed by peer", "reset by peer", "remote process exited", "Broken pipe", "Connection refused")
"""Words of torch's backends for another process that has ended."""
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """One process's view of the group. rank: its number, from 0;  size: how many there are; 1 is a training as usual,
    in which nothing passes and nothing is waited for."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, looks and decides."""
        return self.rank == 0

    def parts(self, rows: Any) -> list[Any]:
        """The contiguous parts of a micro-batch's rows (row,), one per process; where rows are few, some are empty."""
        import numpy as np

        return np.array_split(rows, self.size)

    def gathered(self, own: Any, counts: Sequence[int]) -> list[Any]:
        """The rows of all processes, by rank.  own: tensor (row, ...) of this process;  counts: rows of each."""
        import torch

        padded = own.new_zeros((max(counts), *own.shape[1:]))  # only equal shapes can be gathered
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(found, padded)
        return [rows[:count] for rows, count in zip(found, counts, strict=True)]

    def total(self, own: Any) -> Any:
        """The sum of a tensor over the processes."""
        import torch

        found = own.clone()
        if self.size > 1:
            torch.distributed.all_reduce(found)
        return found

    def told(self, *numbers: int) -> list[int]:
        """What process 0 says; the others' own numbers do not count."""
        import torch

        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.int64)  # on the CPU: nobody waits for a GPU
        torch.distributed.broadcast(found, 0)
        return [int(number) for number in found]

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            import torch

            self.total(torch.zeros(1))

    def first(self, work: Callable[[], T]) -> T:
        """Process 0 does some work, then all others do: they find what it has written."""
        if self.leads:
            found = work()
            self.wait()
            return found
        self.wait()
        return work()


def here() -> Group:
    """This process's view of the group that was opened; alone where none was."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return Group()
    return Group(torch.distributed.get_rank(), torch.distributed.get_world_size())


@contextlib.contextmanager
def opened() -> Iterator[Group]:
    """Meet the other processes that torchrun started, each on a GPU of its own where there are GPUs.

    Raises FinetraceError when this machine has fewer GPUs than processes.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        local, beside = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if beside > gpus:
            raise FinetraceError(f"{beside} processes need {beside} GPUs, and {gpus} can be seen here; lower "
                                 "compute.processes, or show more of them (CUDA_VISIBLE_DEVICES)")
        torch.cuda.set_device(local)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    yield here()
    torch.distributed.destroy_process_group()  # not after an error: others may be gone


def lost(error: BaseException) -> bool:
    """Whether an error says that another process of the group has ended."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in GONE)
