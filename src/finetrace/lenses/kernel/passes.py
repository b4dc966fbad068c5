"""Forward and backward passes over the batches, planned so that what they keep fits into memory."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from finetrace.lenses.kernel.batches import Batch, logits_of
from finetrace.lenses.kernel.gradients import Form, Lookup, Outer, Vector
from finetrace.lenses.kernel.uses import Use, Watch

CANCELLED = 16
"""A sum of at most so many units of rounding of its terms counts as zero."""
Swap = dict[int, tuple[torch.Tensor, torch.Tensor | None]]


@dataclass(frozen=True)
class Found:
    """What a look at two rows tells about a parameter."""

    name: str
    kind: str
    """outer, lookup, vector or dense."""
    together: bool
    """Whether several rows can go through at once: every use has an axis of rows."""
    size: int
    """Numbers along the last axis of g, along which the work can be split."""
    per_token: int
    """Numbers kept per row and token: a."""
    per_logit: int
    """Numbers kept per logit and token, or per logit for vectors: g."""
    gradient: int
    """Entries of the gradient, per logit."""


@dataclass(frozen=True)
class Share:
    """A parameter, or a part of it along the last axis of g."""

    found: Found
    start: int
    end: int
    numbers: int
    """Kept for it."""


def survey(model: Any, batch: Batch, wanted: dict[str, torch.Tensor], swap: Swap) -> list[Found]:
    """How each parameter is used, in the order of use; parameters that no logit depends on are left out.

    Rows go through together where the first row's logits have no gradient in the second row's half of a use, and the
    other way round; relative positions, which all rows share, are an example of the contrary. Nor do they where rows
    hold several examples and a use has an axis of examples.
    """
    counts = torch.bincount(batch.row, minlength=batch.rows)
    batch = batch.take(int((counts[:-1] + counts[1:]).argmax()) if batch.rows > 1 else 0, min(2, batch.rows))
    for p in wanted.values():
        p.requires_grad_(True)
    logits, uses = _watched(model, batch, wanted, swap)
    weights = torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=logits.device)
    of_row = []
    for r in range(batch.rows):
        seed = (batch.row == r).to(logits.dtype)[:, None] * weights
        of_row.append(torch.autograd.grad(logits, [u.edge for u in uses], seed, retain_graph=True, allow_unused=True))
    for p in wanted.values():
        p.requires_grad_(False)
    by_name: dict[str, list[tuple[Use, bool]]] = defaultdict(list)
    for use, gs in zip(uses, zip(*of_row, strict=True), strict=True):
        if any(g is not None for g in gs):
            of_examples = not batch.plain and any(g is not None and g.dim() and len(g) == len(batch.row) for g in gs)
            by_name[use.name].append((use, batch.rows == 1 or (not of_examples and _apart(gs))))
    return [_found(name, wanted[name], of_name, batch) for name, of_name in by_name.items()]


def _apart(gs: tuple[torch.Tensor | None, ...]) -> bool:
    """Whether the first row has its g in the first half and the second row in the second."""
    for place, g in enumerate(gs):
        if g is not None:
            if g.dim() < 2 or len(g) % 2:
                return False
            if torch.linalg.vector_norm(g.reshape(2, -1)[1 - place]) > 0:
                return False
    return True


def _found(name: str, parameter: torch.Tensor, uses: list[tuple[Use, bool]], batch: Batch) -> Found:
    kinds = {use.kind for use, _ in uses}
    kind = next((k for k, some in {"outer": {"outer"}, "lookup": {"lookup"}, "vector": {"scale", "shift"}}.items()
                 if kinds <= some), "dense")
    together = kind != "dense" and all(apart for _, apart in uses)
    if kind in ("vector", "dense"):
        return Found(name, kind, together, parameter.numel(), 0, parameter.numel(), parameter.numel())
    size = uses[0][0].shape[-1]
    tokens = sum(use.shape.numel() // size for use, _ in uses) / batch.rows
    factors = {id(use.factor): use.input().numel() for use, _ in uses} if kind == "outer" else {}
    return Found(name, kind, together, size, round(sum(factors.values()) / batch.rows), round(tokens * size),
                 parameter.numel())


def plan(found: Sequence[Found], batches: Sequence[Batch], surveyed: Batch, classes: int, memory: float, itemsize: int,
         ) -> list[list[Share]]:
    """Shares of parameters, in the order of use, for passes that keep at most `memory` bytes each."""
    examples = sum(len(b.row) for b in batches)
    stretch = sum(len(b.row) * b.tokens for b in batches) / surveyed.tokens
    shares = []
    for one in found:
        fixed = one.per_token * stretch
        per_column = classes * (one.per_logit * (stretch if one.kind in ("outer", "lookup") else examples)) / one.size
        room = max(1, int((memory / itemsize - fixed) / per_column))
        parts = -(-one.size // room)
        edges = [one.size * k // parts for k in range(parts + 1)]
        shares += [Share(one, s, e, round(fixed + per_column * (e - s))) for s, e in pairwise(edges)]
    passes: list[list[Share]] = []
    for together in (True, False):
        kept: list[Share] = []
        for share in (s for s in shares if s.found.together == together):
            full = sum(s.numbers for s in kept) + share.numbers > memory / itemsize
            if not kept or full or share.found.name == kept[-1].found.name:
                kept = []
                passes.append(kept)
            kept.append(share)
    return passes


def gradients(model: Any, batches: Sequence[Batch], shares: Sequence[Share], wanted: dict[str, torch.Tensor],
              swap: Swap, tell: Callable[[int], None]) -> dict[str, Form]:
    """One pass over all batches: name -> gradients of all logits with respect to that share. tell: told the batches
    done."""
    inside = {share.found.name: share for share in shares}
    parameters = {name: wanted[name].requires_grad_(True) for name in inside}
    forms = {name: _empty(share.found.kind) for name, share in inside.items()}
    for done, batch in enumerate(batches):
        for part in [batch] if shares[0].found.together else batch.single():
            _collect(model, part, inside, parameters, swap, forms)
        tell(done + 1)
    for p in parameters.values():
        p.requires_grad_(False)
    return forms


def _empty(kind: str) -> Form:
    return Outer() if kind == "outer" else Lookup() if kind == "lookup" else Vector()


def _collect(model: Any, batch: Batch, inside: dict[str, Share], parameters: dict[str, torch.Tensor], swap: Swap,
             forms: dict[str, Form]) -> None:
    """Put the gradients of a batch into the forms."""
    logits, uses = _watched(model, batch, parameters, swap)
    by_name: dict[str, list[Use]] = defaultdict(list)
    for use in uses:
        by_name[use.name].append(use)
    dense = [name for name in by_name if inside[name].found.kind == "dense"]
    edges = {id(u.edge): u.edge for name, of_name in by_name.items() if name not in dense for u in of_name}
    gs = _output_gradients(logits, batch, edges | {id(parameters[name]): parameters[name] for name in dense})
    for name, of_name in by_name.items():
        form, columns = forms[name], slice(inside[name].start, inside[name].end)
        if isinstance(form, Vector):
            parts = [gs[id(parameters[name])].transpose(1, 2).flatten(2)] if name in dense else [
                summed(u, gs[id(u.edge)], batch) for u in of_name]
            form.put(batch.examples, torch.stack(parts).sum(dim=0)[..., columns])
        else:
            width = of_name[0].input().shape[-1:] if isinstance(form, Outer) else ()
            factor = _joined([u.input().reshape(batch.rows, -1, *width) for u in of_name])
            g = _joined([gs[id(u.edge)] for u in of_name])[..., columns]
            form.put(batch.examples, batch.by_example(factor), g.contiguous())


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Tokens of all uses. One use stays what it is, so that query, key and value keep one copy of their input."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def summed(use: Use, g: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Sum over tokens of g, or of g times the normalised input: (example, class, dim).

    Sums that cancel to rounding are zero, as those of key biases must be: softmax does not notice what all keys have in
    common, and formulas with signs would make much of the rest.
    """
    if use.kind == "scale":
        a = use.input().expand(use.shape).reshape(batch.rows, -1, 1, use.shape[-1])
        g = g * batch.by_example(a)
    total, terms = g.sum(dim=1), g.abs().sum(dim=1)
    return total.masked_fill_(total.abs() <= CANCELLED * torch.finfo(g.dtype).eps * terms, 0)


def _output_gradients(logits: torch.Tensor, batch: Batch, edges: dict[int, Any]) -> dict[int, torch.Tensor]:
    """g of every edge: (example, token, class, out), by one backward pass per class (and turn, where rows hold several
    examples).

    The logits of one class are summed over the rows: rows do not interact, so each row's g is that of its own logit.
    """
    found: dict[int, list[torch.Tensor]] = defaultdict(list)
    turns = batch.turns
    for c in range(logits.shape[1]):
        of_turn: dict[int, list[torch.Tensor]] = defaultdict(list)
        for turn in turns:
            seed = torch.zeros_like(logits)
            seed[turn, c] = 1
            gs = torch.autograd.grad(logits, list(edges.values()), seed, retain_graph=True, allow_unused=True)
            for key, g in zip(edges, gs, strict=True):
                if g is not None:
                    g = g.reshape(batch.rows, -1, g.shape[-1] if g.dim() else 1)
                    of_turn[key].append(g if batch.plain else g[batch.row[turn]])
        for key, parts in of_turn.items():
            found[key].append(parts[0] if batch.plain else torch.cat(parts)[torch.cat(turns).argsort()])
    return {key: torch.stack(of_class, dim=2) for key, of_class in found.items()}


def _watched(model: Any, batch: Batch, wanted: dict[str, torch.Tensor], swap: Swap) -> tuple[torch.Tensor, list[Use]]:
    """Logits (example, class) of a batch, and the uses of the wanted parameters on the way."""
    with Watch({id(p): name for name, p in wanted.items()}, batch.rows, swap) as watch:
        logits = logits_of(model, batch)
    if not logits.requires_grad:
        raise ValueError(f"no logit depends on {next(iter(wanted))} or the other parameters asked for")
    return logits, watch.uses
