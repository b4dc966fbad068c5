"""Inner products of the loss gradients of evaluation and training examples, exactly, at one set of weights.

One forward and one backward pass over the examples give, operation by operation, what the kernel of all logits takes
one backward pass per class for: the gradient of a loss is that of the logits, contracted with their errors, before
anything is kept. No gradient is stored as a vector of all parameters (`finetrace.lenses.kernel`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from finetrace.lenses.influence.losses import Losses
from finetrace.lenses.kernel.batches import Batch, logits_of, measuring, prepared
from finetrace.lenses.kernel.compute import BLOCKS, KEPT, Job, in_precision, layout_of
from finetrace.lenses.kernel.compute import estimate as estimate_of
from finetrace.lenses.kernel.gradients import Form, Lookup, Outer
from finetrace.lenses.kernel.gram import Gram
from finetrace.lenses.kernel.parameters import chosen, group
from finetrace.lenses.kernel.passes import Found, gradients, plan, survey
from finetrace.lenses.kernel.results import Cost

Advance = Callable[[int, int], None]
"""Called with the batches done, and all of them."""
Batches = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Products:
    """What the gradients of all losses have to do with each other, float64.

    Groups of parameters: embeddings, layer-00 .., rest (in no layer, such as a pooler), head.
    """

    pairs: dict[str, np.ndarray]
    """Group -> (eval example, train example) inner products; the groups sum to those of the whole gradients."""
    train_squares: dict[str, np.ndarray]
    """Group -> (train example,) squared lengths of the gradients."""
    eval_squares: dict[str, np.ndarray]
    """Group -> (eval example,)."""
    train_losses: np.ndarray
    """(train example,)"""
    eval_losses: np.ndarray
    """(eval example,)"""


@dataclass(frozen=True)
class Work:
    """Products to be computed: a job per block of training examples, each with all eval examples first."""

    losses: Losses
    jobs: list[Job]
    memory: float

    @property
    def batches(self) -> int:
        """Batches of all passes."""
        return sum(len(job.batches) * len(job.passes) for job in self.jobs)


class Across(Gram):
    """Inner products of the columns' gradients with all others', but not with each other's."""

    def pairs(self) -> Iterator[tuple[int, int]]:
        return ((row, column) for row, column in super().pairs() if row >= self.layout.columns)

    def add(self, block: torch.Tensor, pairs: set[tuple[int, int]] | None = None) -> None:
        super().add(block, set(self.pairs()) if pairs is None else pairs)


def loss_products(model: Any, train: Batches, evaluated: Batches, kind: str = "class", *,
                  parameters: str | Callable[[str], bool] = "trainable", dtype: Any = None, memory_bytes: float = 2e9,
                  progress: Advance | None = None) -> Products:
    """Inner products of the gradients of each evaluation example's loss with those of each training example's.

    model: any classifier with model(**batch).logits (example, class) whose rows do not interact, put into evaluation
    mode meanwhile;  train, evaluated: batches of `losses.with_truths`;  kind: class, regression or multi-label;
    parameters, dtype: as of `kernel.ntk.ntk`;  memory_bytes: for what is kept of a block of training examples; less
    memory means more blocks, each of which takes the evaluation examples through the model again.
    Time grows with the examples, and with the product of their numbers. ValueError as of `ntk`.
    """
    work = prepare(model, train, evaluated, kind, parameters, dtype, memory_bytes)
    tell, done = progress or (lambda done, total: None), 0
    blocks = []
    with measuring(work.losses):
        for job in work.jobs:
            blocks.append(_of_block(job, work.memory, partial(_told, tell, done, work.batches)))
            done += len(job.batches) * len(job.passes)
        with torch.no_grad():
            values = [np.concatenate([logits_of(work.losses, batch).double().cpu().numpy()[:, 0]
                                      for batch in prepared(batches, work.losses)]) for batches in (evaluated, train)]
    pairs, squares = ([block[part] for block in blocks] for part in (0, 1))
    if not all(np.isfinite(values).all() for block in squares for values in block.values()):
        raise ValueError("gradients are not finite; the model's weights or activations are not")
    columns = len(values[0])
    return Products({name: np.concatenate([one[name] for one in pairs], axis=1) for name in pairs[0]},
                    {name: np.concatenate([one[name][columns:] for one in squares]) for name in squares[0]},
                    {name: values[:columns] for name, values in squares[0].items()}, values[1], values[0])


def prepare(model: Any, train: Batches, evaluated: Batches, kind: str = "class",
            parameters: str | Callable[[str], bool] = "trainable", dtype: Any = None, memory: float = 2e9) -> Work:
    """What is to be done, from a look at two rows."""
    if not len(train) or not len(evaluated):
        raise ValueError("train and evaluated must be lists of at least one batch each")
    model, head = in_precision(model, None, dtype)
    losses = Losses(model, kind)
    wanted: dict[str, torch.Tensor] = dict(chosen(model, parameters, head))
    of_head = [name for name, p in wanted.items() if p is head.weight or p is head.bias]
    columns = prepared(evaluated, losses)
    every = columns + prepared(train, losses)
    first = max(every, key=lambda b: (min(b.rows, 2), len(b.row) / b.rows))  # rows of several examples tell more
    with measuring(losses):
        found = survey(losses, first, wanted, {})
    size = head.weight.element_size()
    room = KEPT * memory - kept(found, columns, first, size)
    jobs, count = [], sum(len(batch.row) for batch in columns)
    for block in _blocks(train, [kept(found, [batch], first, size) for batch in every[len(columns):]],
                         max(room, KEPT * memory / 2)):
        rows = prepared(block, losses, count)
        passes = plan(found, columns + rows, first, 1, KEPT * memory, size)
        jobs.append(Job(losses, head, wanted, of_head, {}, columns + rows, count, layout_of(columns, rows, 1), found,
                        passes, first.tokens))
    return Work(losses, jobs, memory)


def estimate(work: Work) -> Cost:
    """What the products will take, before they start: of all blocks together, the peak memory that of the largest."""
    of_blocks = [estimate_of(job, work.memory) for job in work.jobs]
    return Cost(sum(one.passes for one in of_blocks), sum(one.operations for one in of_blocks),
                sum(one.seconds for one in of_blocks), max(one.bytes for one in of_blocks))


def kept(found: Sequence[Found], batches: Sequence[Batch], surveyed: Batch, itemsize: int) -> float:
    """Bytes of what a pass over some batches keeps of all parameters."""
    tokens = sum(len(batch.row) * batch.tokens for batch in batches) / surveyed.tokens
    examples = sum(len(batch.row) for batch in batches)
    return itemsize * sum(one.per_token * tokens + one.per_logit * (tokens if one.kind in ("outer", "lookup")
                                                                    else examples) for one in found)


def squared_lengths(form: Form, examples: int) -> torch.Tensor:
    """(example,) float64: the squared length of each example's gradient. A sum of outer products of a and g over tokens
    has the square sum over pairs of tokens of (a . a') (g . g')."""
    device = form.pieces[0][0].device
    total = torch.zeros(examples, dtype=torch.float64, device=device)
    if isinstance(form, Outer):
        for numbers, a, g in form.pieces:
            outputs = g.flatten(2)
            total[numbers] += ((a @ a.mT).double() * (outputs @ outputs.mT)).sum(dim=(1, 2))
    elif isinstance(form, Lookup):
        for _, numbers, sums in form.pieces:
            total.index_add_(0, numbers, sums.double().square().sum(dim=(1, 2)))
    else:
        for numbers, values in form.pieces:
            total[numbers] += values.double().square().sum(dim=(1, 2))
    return total


def _further(tell: Callable[[int], None], before: int, done: int) -> None:
    tell(before + done)


def _of_block(job: Job, memory: float, tell: Callable[[int], None]) -> tuple[dict[str, np.ndarray],
                                                                            dict[str, np.ndarray]]:
    """Group -> (eval example, train example) products of a block, and group -> (eval, then train example) squares."""
    sums: dict[str, Across] = {}
    squares: dict[str, torch.Tensor] = {}
    examples, device = job.layout.rows, job.head.weight.device
    for number, shares in enumerate(job.passes):
        before = number * len(job.batches)
        forms = gradients(job.model, job.batches, shares, job.wanted, job.swap, partial(_further, tell, before))
        for name in [share.found.name for share in shares]:
            of = "head" if name in job.of_head else group(name).split("/")[0]
            if of not in sums:
                sums[of] = Across(job.layout, "sgd", device)
                squares[of] = torch.zeros(examples, dtype=torch.float64, device=device)
            form = forms.pop(name)
            squares[of] += squared_lengths(form, examples)
            form.add_to(sums[of], BLOCKS * memory)
    order = sorted(sums, key=lambda of: ({"embeddings": 0, "rest": 2, "head": 3}.get(of, 1), of))
    return ({of: sums[of].sums[0][job.layout.width:].T.cpu().numpy() for of in order},
            {of: squares[of].cpu().numpy() for of in order})


def _blocks(batches: Batches, sizes: Sequence[float], room: float) -> list[Batches]:
    """Consecutive batches whose sizes fit together; one batch at least."""
    blocks: list[list[dict[str, Any]]] = []
    filled = 0.0
    for batch, size in zip(batches, sizes, strict=True):
        if not blocks or filled + size > room:
            blocks.append([])
            filled = 0.0
        blocks[-1].append(batch)
        filled += size
    return list(blocks)


def _told(tell: Advance, before: int, total: int, done: int) -> None:
    tell(before + done, total)
