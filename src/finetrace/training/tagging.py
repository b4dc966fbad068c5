"""Which rows of a dataset a batch holds, told by the batch itself.

The order in which a loader hands out rows is not to be guessed from outside: samplers shuffle, processes share the
rows, batches are skipped after a resumption, workers read ahead. So the dataset notes the rows it was asked for, the
collator ties them to the batch that it makes of them (in a worker, where there are some), and the batch drops them the
moment it is moved to its device: what the training sees is the batch as it would be without.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError

LABELS = ("labels", "label", "label_ids")  # names under which collators leave the labels


@dataclass
class Tag:
    """What is known of a batch before the model sees it.

    rows: (example,) int64 rows of the dataset;  labels: (example,) tensor on the CPU, or None;  tokens: without
    padding, where the batch has a mask;  longest: tokens of its longest row with padding.
    """

    rows: np.ndarray
    labels: Any
    tokens: int
    longest: int


class Tagged:
    """A batch and its tag on the way from the collator, perhaps in a worker, to the device."""

    def __init__(self, batch: Any, tag: Tag, queue: int):
        self.batch, self.tag, self.queue = batch, tag, queue

    def to(self, device: Any, non_blocking: bool = False) -> Any:
        """The batch on its device, as accelerate moves it; the tag is put into its queue."""
        from accelerate.utils import send_to_device

        return send_to_device(self.untie(), device, non_blocking=non_blocking)

    def pin_memory(self) -> "Tagged":
        """The batch in pinned memory, as torch's own loader pins it."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return Tagged(pin_memory(self.batch), self.tag, self.queue)

    def _not_untied(self, *_: Any) -> Any:
        raise FinetraceError("this batch comes from the loader itself, while a trace watches it; take the batches from "
                             "traced.batches()")

    keys = items = get = __getitem__ = __iter__ = _not_untied  # what a loop does: model(**batch), x, y = batch

    def untie(self) -> Any:
        """The batch alone; the tag is put into its queue."""
        if self.queue in _QUEUES:
            _QUEUES[self.queue].append(self.tag)
        return self.batch


_QUEUES: dict[int, deque[Tag]] = {}  # those of the traces that run
_NUMBERS = count()


class _Rows(list[Any]):
    """Items of a dataset that know their rows."""

    rows: np.ndarray


class RowsDataset:
    """A dataset that tells which rows an answer holds; everything else is the dataset's own."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: Any) -> Any:
        return self.dataset[row]

    def __getitems__(self, rows: list[int]) -> list[Any]:
        """What torch's loader asks for: the items of one batch."""
        get_items = getattr(self.dataset, "__getitems__", None)
        items = _Rows(get_items(rows) if get_items else [self.dataset[row] for row in rows])
        items.rows = np.asarray(rows, dtype=np.int64)
        return items

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


class TaggingCollator:
    """A collator whose batches carry a tag."""

    def __init__(self, collate: Callable[[Any], Any], queue: int):
        self.collate, self.queue = collate, queue

    def __call__(self, items: Any) -> Any:
        batch = self.collate(list(items))
        return Tagged(batch, tag_of(batch, items.rows), self.queue)


def tag_of(batch: Any, rows: np.ndarray) -> Tag:
    """The tag of a collated batch: a mapping, or a sequence whose last part is the labels."""
    labels = labels_of(batch)
    mask: Any = batch.get("attention_mask") if hasattr(batch, "get") else None
    longest = int(mask.shape[1]) if getattr(mask, "ndim", 0) == 2 else 0
    return Tag(rows, None if labels is None else labels.detach().clone(), int(mask.sum()) if longest else 0, longest)


def labels_of(batch: Any) -> Any:
    """The labels of a batch, or None."""
    if hasattr(batch, "get"):
        return next((batch[name] for name in LABELS if batch.get(name) is not None), None)
    return batch[-1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


@contextmanager
def tagging(loader: Any) -> Iterator[tuple[deque[Tag], Any, Callable[[Any], Any]]]:
    """Within the block the batches of a loader carry tags. Yields the queue of the tags in the order of the batches,
    and the loader's own dataset and collator.

    loader: torch's, or one that accelerate has prepared. Raises FinetraceError for one without rows.
    """
    import torch

    base = getattr(loader, "base_dataloader", loader)
    if not isinstance(base, torch.utils.data.DataLoader):
        raise FinetraceError(f"{type(loader).__name__}: is no torch DataLoader, so that it cannot tell which rows a "
                             "batch holds; give one to the training")
    dataset, collate, queue = base.dataset, base.collate_fn, next(_NUMBERS)
    if isinstance(dataset, torch.utils.data.IterableDataset):
        raise FinetraceError("the training dataset is an IterableDataset, whose rows have no numbers; load it whole "
                             "(datasets.load_dataset without streaming)")
    if base.batch_sampler is None or not getattr(base, "in_order", True):
        raise FinetraceError("the loader makes no batches of its own, or hands them out in any order; set a "
                             "batch_size, and dataloader_in_order (in_order) to True")
    if isinstance(collate, TaggingCollator):
        raise FinetraceError("the loader is watched by another trace; give a training one trace, and make a new loader "
                             "after a training that failed")
    object.__setattr__(base, "dataset", RowsDataset(dataset))  # torch forbids it, lest a sampler be of another dataset
    base.collate_fn = TaggingCollator(collate, queue)
    _QUEUES[queue] = deque()
    try:
        yield _QUEUES[queue], dataset, collate
    finally:
        del _QUEUES[queue]
        object.__setattr__(base, "dataset", dataset)
        base.collate_fn = collate
