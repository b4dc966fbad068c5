"""Computes the kernel: plans the passes over the batches, adds up inner products of gradients, splits them by head."""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from finetrace.lenses.kernel.batches import Batch, measuring, prepared
from finetrace.lenses.kernel.gradients import ELEMENTWISE
from finetrace.lenses.kernel.gram import FORMULAS, Gram, Layout
from finetrace.lenses.kernel.parameters import chosen, group
from finetrace.lenses.kernel.passes import Found, Share, Swap, gradients, plan, survey
from finetrace.lenses.kernel.results import Cost, Kernel, Progress

log = logging.getLogger("finetrace")

CHUNK, CHUNKS = 64, 8
"""Least number of logits of a chunk, and number of chunks to aim at: large enough for fast products, small enough that
nearly half of the pairs can be left out."""
SLOWER = 2.0
"""A kernel takes longer than its multiplications by themselves would, by about so much."""
NEGATIVE, EIGENVALUES = -1e-6, 2000
"""Smallest eigenvalue allowed, in units of the largest; looked at for kernels of at most so many rows."""
KEPT, BLOCKS = 0.6, 0.2
"""Of the memory: for what a pass keeps, and for a block of gradients."""
Heads = Sequence[tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Job:
    """A kernel to be computed."""

    model: Any
    head: Any
    wanted: dict[str, torch.Tensor]
    of_head: list[str]
    swap: Swap
    batches: list[Batch]
    """Train, then eval."""
    train: int
    """Train examples."""
    layout: Layout
    found: list[Found]
    passes: list[list[Share]]
    surveyed: int
    """Length of the rows looked at."""


def prepare(model: Any, batches: Sequence[dict], eval_batches: Sequence[dict], parameters: str | Callable[[str], bool],
            head: Any, heads: Heads | None, dtype: Any, memory: float, share: tuple[int, int] = (0, 1)) -> Job:
    """The passes and blocks of a kernel, planned from a survey of two rows."""
    if not 0 <= share[0] < share[1]:
        raise ValueError(f"share is {share}; give (number, of how many), the number counted from 0")
    model, head = in_precision(model, head, dtype)
    wanted: dict[str, torch.Tensor] = dict(chosen(model, parameters, head))
    head_names = [name for name, p in wanted.items() if p is head.weight or p is head.bias]
    swap, classes = {}, head.weight.shape[0]
    if heads is not None:
        weight, bias = stacked(heads, head)
        swap, classes = {id(head.weight): (weight, bias)}, len(weight)
        for name in head_names:
            wanted[name] = weight if bias is None or wanted[name] is head.weight else bias
    train = prepared(batches, model)
    train_count = sum(len(b.row) for b in train)
    all_batches = train + prepared(eval_batches, model, train_count)
    # rows of several examples tell more
    surveyed = max(all_batches, key=lambda b: (min(b.rows, 2), len(b.row) / b.rows))
    with measuring(model):
        findings = part_of(survey(model, surveyed, wanted, swap), *share)
    passes = plan(findings, all_batches, surveyed, classes, KEPT * memory, head.weight.element_size())
    return Job(model, head, wanted, head_names, swap, all_batches, train_count,
               layout_of(train, all_batches[len(train):], classes), findings, passes, surveyed.tokens)


def compute(
    model: Any, batches: Sequence[dict], eval_batches: Sequence[dict], parameters: str | Callable[[str], bool],
    formula: str, head: Any, heads: Heads | None, dtype: Any, memory: float, groups: bool | Callable[[str], str],
    share: tuple[int, int], report: Progress,
) -> Kernel | list[Kernel]:
    """See `finetrace.lenses.kernel.ntk`."""
    if formula not in FORMULAS:
        raise ValueError(f"formula is {formula!r}; give one of {', '.join(FORMULAS)}")
    job = prepare(model, batches, eval_batches, parameters, head, heads, dtype, memory, share)
    _announce(job)
    group_name = group if groups is True else groups or (lambda name: "rest")
    sums: dict[tuple[str, str], Gram] = {}
    with measuring(job.model):
        for number, shares in enumerate(job.passes):
            phase = f"pass {number + 1} of {len(job.passes)}"
            forms = gradients(job.model, job.batches, shares, job.wanted, job.swap,
                              partial(_report_batches, report, f"{phase}: batches", len(job.batches)))
            for share_number, name in enumerate(pass_share.found.name for pass_share in shares):
                key = ("head", "head") if name in job.of_head else ("rest", group_name(name))
                if key not in sums:
                    sums[key] = Gram(job.layout, formula, job.head.weight.device)
                forms.pop(name).add_to(sums[key], BLOCKS * memory)
                report(f"{phase}: products", share_number + 1, len(shares))
    kernel = _kernel(sums, job, formula, bool(groups))
    if formula != "asymmetric-signgd":
        _require_semidefinite(kernel, job.train)
    return kernel if heads is None else _split_by_head(kernel, [len(weight) for weight, _ in heads])


def estimate(job: Job, memory: float) -> Cost:
    """See `finetrace.lenses.kernel.ntk.estimate`."""
    layout, classes = job.layout, job.layout.classes
    tokens = sum(b.rows * b.tokens for b in job.batches)
    linear = sum(m.weight.numel() for m in job.model.modules() if isinstance(m, torch.nn.Linear))
    turns = max(len(b.turns) for b in job.batches)
    operations = 2.0 * linear * tokens * (1 + classes * turns) * len(job.passes)
    pairs = layout.rows * layout.width - layout.width**2 / 2
    for finding in job.found:
        if finding.kind == "outer":
            length = finding.per_logit / finding.size * tokens / sum(b.rows for b in job.batches) / job.surveyed
            size_in = finding.gradient / finding.size
            token_operations = length**2 * (size_in / classes**2 + finding.size + ELEMENTWISE)
            operations += 2 * min(pairs * token_operations, finding.gradient * (pairs + layout.rows * length))
        else:
            operations += 2 * pairs * min(finding.gradient, tokens / layout.rows * finding.size)
    size = job.head.weight.element_size()
    kept_bytes = max((sum(share.numbers for share in shares) for shares in job.passes), default=0) * size
    return Cost(len(job.passes), operations, operations * SLOWER / _speed(job.head.weight),
                int(kept_bytes + BLOCKS * memory + 8 * layout.rows * layout.width))


def _speed(weight: torch.Tensor) -> float:
    """Floating-point operations per second, measured on a matrix product of the kind that dominates."""
    matrix = torch.ones((256, 2**13), dtype=weight.dtype, device=weight.device)
    seconds = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (matrix @ matrix.T).sum().item()
        seconds = min(seconds, time.perf_counter() - start)
    return 2 * matrix.shape[0] * matrix.numel() / seconds


def _report_batches(report: Progress, phase: str, total: int, done: int) -> None:
    report(phase, done, total)


def part_of(findings: list[Found], number: int, count: int) -> list[Found]:
    """Consecutive parameters, such that each of `count` parts has about as much to multiply."""
    work = np.array([finding.gradient if finding.kind in ("outer", "dense") else finding.size for finding in findings],
                    dtype=float)
    parts = (np.cumsum(work) - work / 2) / max(work.sum(), 1) * count
    return [finding for finding, part in zip(findings, parts, strict=True) if int(part) == number]


def in_precision(model: Any, head: Any, dtype: Any) -> tuple[Any, Any]:
    """The model and its head, copies where another precision is asked for."""
    from finetrace.models.head import last_linear

    if head is None:  # peft's wrapper calls the whole classifier its base model
        head = last_linear(model.get_base_model() if hasattr(model, "get_base_model") else model)
    if dtype is not None and head.weight.dtype != dtype:
        head_name = next((name for name, module in model.named_modules() if module is head), None)
        if head_name is None:
            raise ValueError("head is not a module of the model; give one of its linear layers")
        model = copy.deepcopy(model).to(dtype)
        head = model.get_submodule(head_name)
    if head.weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the weights are {head.weight.dtype}, too coarse for products of gradients; give "
                         "dtype=torch.float32")
    return model, head


def stacked(heads: Heads, head: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Several heads as one, class after class. ValueError where they do not fit the model's own."""
    own_weight = head.weight
    if not heads:
        raise ValueError("heads is empty; give at least one (weight, bias), or leave it out for the model's own head")
    weights = [torch.as_tensor(weight, dtype=own_weight.dtype, device=own_weight.device).detach()
               for weight, _ in heads]
    for number, weight in enumerate(weights):
        bias = heads[number][1]
        if weight.dim() != 2 or weight.shape[1] != own_weight.shape[1] or (bias is None) != (head.bias is None) or (
                bias is not None and len(bias) != len(weight)):
            raise ValueError(f"head {number}: weight of shape {tuple(weight.shape)} and "
                             f"{'no' if bias is None else 'a'} bias; the model's is (class, {own_weight.shape[1]}) "
                             f"with {'no' if head.bias is None else 'a'} bias")
    biases = [torch.as_tensor(b, dtype=own_weight.dtype, device=own_weight.device).detach() for _, b in heads
              if b is not None]
    return torch.cat(weights), torch.cat(biases) if biases else None


def layout_of(train: Sequence[Batch], evaluated: Sequence[Batch], classes: int) -> Layout:
    """Chunks of whole batches, of so many logits that products are fast; none has examples of both splits."""
    bounds, columns = [0], 0
    smallest = max(CHUNK, classes * sum(len(b.row) for b in train) // CHUNKS)
    for batches in (train, evaluated):
        for batch in batches:
            end = int(batch.examples[-1]) + 1
            if (end - bounds[-1]) * classes >= smallest or batch is batches[-1]:
                bounds.append(end)
        columns = columns or len(bounds) - 1
    return Layout(classes, tuple(bounds), columns)


def _announce(job: Job) -> None:
    log.info("kernel: %d train examples and %d others, %d classes, %s numbers in %d parameters; %d passes", job.train,
             job.layout.bounds[-1] - job.train, job.layout.classes, f"{sum(f.gradient for f in job.found):,}",
             len(job.found), len(job.passes))
    if row_by_row := [f.name for f in job.found if not f.together]:
        log.info("kernel: row by row for %d parameters whose operation is unknown or has no axis of rows: %s",
                 len(row_by_row), ", ".join(row_by_row))


def _kernel(sums: dict[tuple[str, str], Gram], job: Job, formula: str, groups: bool) -> Kernel:
    layout, example_count = job.layout, job.layout.bounds[-1]
    splits = {"train": slice(0, job.train)} | (
        {"eval": slice(job.train, example_count)} if example_count > job.train else {})
    shape = (layout.bounds[-1], layout.classes, layout.bounds[layout.columns], layout.classes)
    kernels = []
    finished = {key: [total.cpu().numpy().reshape(shape) for total in gram.finished()] for key, gram in sums.items()}
    for number in range(1 if formula != "asymmetric-signgd" else 2):
        rest_by_group = {key: totals[number] for (part, key), totals in finished.items() if part == "rest"}
        head_sums = finished.get(("head", "head"))
        rest_sum = (np.sum(list(rest_by_group.values()), axis=0) if len(rest_by_group) > 1
                    else next(iter(rest_by_group.values()), np.zeros(shape)))
        kernels.append(Kernel(head_sums[number] if head_sums else np.zeros(shape), rest_sum, splits,
                              dict(sorted(rest_by_group.items())) if groups else {}))
    return kernels[0] if len(kernels) == 1 else replace(kernels[0], flipped=kernels[1])


def _split_by_head(kernel: Kernel, classes: list[int]) -> list[Kernel]:
    """The kernels of single heads: blocks on the diagonal of the classes."""
    ends = np.cumsum(classes)
    kernels: list[Kernel] = []
    for end, size in zip(ends, classes, strict=True):
        columns = slice(end - size, end)
        kernels.append(replace(
            kernel, pretrain_effective=kernel.pretrain_effective[:, columns, :, columns],
            ft_effective=kernel.ft_effective[:, columns, :, columns],
            groups={k: v[:, columns, :, columns] for k, v in kernel.groups.items()},
            flipped=kernel.flipped and _split_by_head(kernel.flipped, classes)[len(kernels)]))
    return kernels


def _require_semidefinite(kernel: Kernel, examples: int) -> None:
    """Raises ValueError for a kernel that is not finite, or has a negative eigenvalue, as no matrix of inner products
    has."""
    square = kernel.full[:examples].reshape(examples * kernel.full.shape[1], -1)
    if not np.isfinite(square).all():
        raise ValueError("the kernel is not finite; the model's weights or activations are not")
    if len(square) <= EIGENVALUES:
        values = np.linalg.eigvalsh(square)
        if values[0] < NEGATIVE * values[-1]:
            raise ValueError(f"the kernel has an eigenvalue {values[0]:.3g} beside {values[-1]:.3g}; use "
                             "dtype=torch.float64, and check that the rows of a batch do not influence each other")
