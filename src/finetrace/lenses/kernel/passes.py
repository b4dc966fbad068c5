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
    """How the model uses a parameter, found by passing two rows through it."""

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
    logits, uses = _logits_and_uses(model, batch, wanted, swap)
    weights = torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=logits.device)
    row_gradients = []
    for row in range(batch.rows):
        seed = (batch.row == row).to(logits.dtype)[:, None] * weights
        row_gradients.append(torch.autograd.grad(logits, [u.edge for u in uses], seed, retain_graph=True,
                                                 allow_unused=True))
    for p in wanted.values():
        p.requires_grad_(False)
    uses_by_name: dict[str, list[tuple[Use, bool]]] = defaultdict(list)
    for use, use_gradients in zip(uses, zip(*row_gradients, strict=True), strict=True):
        if any(g is not None for g in use_gradients):
            has_example_axis = not batch.plain and any(
                g is not None and g.dim() and len(g) == len(batch.row) for g in use_gradients)
            uses_by_name[use.name].append((
                use, batch.rows == 1 or (not has_example_axis and _rows_apart(use_gradients))))
    return [_finding(name, wanted[name], name_uses, batch) for name, name_uses in uses_by_name.items()]


def _rows_apart(row_gradients: tuple[torch.Tensor | None, ...]) -> bool:
    """Whether the first row has its g in the first half and the second row in the second."""
    for row, g in enumerate(row_gradients):
        if g is not None:
            if g.dim() < 2 or len(g) % 2:
                return False
            if torch.linalg.vector_norm(g.reshape(2, -1)[1 - row]) > 0:
                return False
    return True


def _finding(name: str, parameter: torch.Tensor, uses: list[tuple[Use, bool]], batch: Batch) -> Found:
    kinds = {use.kind for use, _ in uses}
    kind = next((k for k, allowed in {"outer": {"outer"}, "lookup": {"lookup"}, "vector": {"scale", "shift"}}.items()
                 if kinds <= allowed), "dense")
    together = kind != "dense" and all(apart for _, apart in uses)
    if kind in ("vector", "dense"):
        return Found(name, kind, together, parameter.numel(), 0, parameter.numel(), parameter.numel())
    size = uses[0][0].shape[-1]
    tokens = sum(use.shape.numel() // size for use, _ in uses) / batch.rows
    factors = {id(use.factor): use.input().numel() for use, _ in uses} if kind == "outer" else {}
    return Found(name, kind, together, size, round(sum(factors.values()) / batch.rows), round(tokens * size),
                 parameter.numel())


def plan(findings: Sequence[Found], batches: Sequence[Batch], surveyed: Batch, classes: int, memory: float,
         itemsize: int) -> list[list[Share]]:
    """Shares of parameters, in the order of use, for passes that keep at most `memory` bytes each."""
    examples = sum(len(b.row) for b in batches)
    token_ratio = sum(len(b.row) * b.tokens for b in batches) / surveyed.tokens
    shares = []
    for finding in findings:
        fixed_numbers = finding.per_token * token_ratio
        per_column = classes * (
            finding.per_logit * (token_ratio if finding.kind in ("outer", "lookup") else examples)) / finding.size
        columns_together = max(1, int((memory / itemsize - fixed_numbers) / per_column))
        parts = -(-finding.size // columns_together)
        edges = [finding.size * k // parts for k in range(parts + 1)]
        shares += [Share(finding, s, e, round(fixed_numbers + per_column * (e - s))) for s, e in pairwise(edges)]
    passes: list[list[Share]] = []
    for together in (True, False):
        pass_shares: list[Share] = []
        for share in (s for s in shares if s.found.together == together):
            is_full = sum(s.numbers for s in pass_shares) + share.numbers > memory / itemsize
            if not pass_shares or is_full or share.found.name == pass_shares[-1].found.name:
                pass_shares = []
                passes.append(pass_shares)
            pass_shares.append(share)
    return passes


def gradients(model: Any, batches: Sequence[Batch], shares: Sequence[Share], wanted: dict[str, torch.Tensor],
              swap: Swap, report: Callable[[int], None]) -> dict[str, Form]:
    """One pass over all batches: name -> gradients of all logits with respect to that share. report: called with the
    number of batches done."""
    share_by_name = {share.found.name: share for share in shares}
    parameters = {name: wanted[name].requires_grad_(True) for name in share_by_name}
    forms = {name: _empty(share.found.kind) for name, share in share_by_name.items()}
    for number, batch in enumerate(batches):
        for rows in [batch] if shares[0].found.together else batch.single():
            _collect(model, rows, share_by_name, parameters, swap, forms)
        report(number + 1)
    for p in parameters.values():
        p.requires_grad_(False)
    return forms


def _empty(kind: str) -> Form:
    return Outer() if kind == "outer" else Lookup() if kind == "lookup" else Vector()


def _collect(model: Any, batch: Batch, share_by_name: dict[str, Share], parameters: dict[str, torch.Tensor], swap: Swap,
             forms: dict[str, Form]) -> None:
    """Put the gradients of a batch into the forms."""
    logits, uses = _logits_and_uses(model, batch, parameters, swap)
    uses_by_name: dict[str, list[Use]] = defaultdict(list)
    for use in uses:
        uses_by_name[use.name].append(use)
    dense = [name for name in uses_by_name if share_by_name[name].found.kind == "dense"]
    edges = {id(u.edge): u.edge for name, name_uses in uses_by_name.items() if name not in dense for u in name_uses}
    edge_gradients = _output_gradients(
        logits, batch, edges | {id(parameters[name]): parameters[name] for name in dense})
    for name, name_uses in uses_by_name.items():
        form, columns = forms[name], slice(share_by_name[name].start, share_by_name[name].end)
        if isinstance(form, Vector):
            parts = [edge_gradients[id(parameters[name])].transpose(1, 2).flatten(2)] if name in dense else [
                summed(u, edge_gradients[id(u.edge)], batch) for u in name_uses]
            form.put(batch.examples, torch.stack(parts).sum(dim=0)[..., columns])
        else:
            width = name_uses[0].input().shape[-1:] if isinstance(form, Outer) else ()
            factor = _join_tokens([u.input().reshape(batch.rows, -1, *width) for u in name_uses])
            g = _join_tokens([edge_gradients[id(u.edge)] for u in name_uses])[..., columns]
            form.put(batch.examples, batch.by_example(factor), g.contiguous())


def _join_tokens(parts: list[torch.Tensor]) -> torch.Tensor:
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
    class_gradients: dict[int, list[torch.Tensor]] = defaultdict(list)
    turns = batch.turns
    for label in range(logits.shape[1]):
        turn_gradients: dict[int, list[torch.Tensor]] = defaultdict(list)
        for turn in turns:
            seed = torch.zeros_like(logits)
            seed[turn, label] = 1
            edge_gradients = torch.autograd.grad(logits, list(edges.values()), seed, retain_graph=True,
                                                 allow_unused=True)
            for key, g in zip(edges, edge_gradients, strict=True):
                if g is not None:
                    g = g.reshape(batch.rows, -1, g.shape[-1] if g.dim() else 1)
                    turn_gradients[key].append(g if batch.plain else g[batch.row[turn]])
        for key, parts in turn_gradients.items():
            class_gradients[key].append(parts[0] if batch.plain else torch.cat(parts)[torch.cat(turns).argsort()])
    return {key: torch.stack(per_class, dim=2) for key, per_class in class_gradients.items()}


def _logits_and_uses(model: Any, batch: Batch, wanted: dict[str, torch.Tensor], swap: Swap) -> tuple[torch.Tensor,
                                                                                                     list[Use]]:
    """Logits (example, class) of a batch, and the uses of the wanted parameters on the way."""
    with Watch({id(p): name for name, p in wanted.items()}, batch.rows, swap) as watch:
        logits = logits_of(model, batch)
    if not logits.requires_grad:
        raise ValueError(f"no logit depends on {next(iter(wanted))} or the other parameters asked for")
    return logits, watch.uses
