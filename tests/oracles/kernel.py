"""The neural tangent kernel by its definition: one gradient per example and class, one example at a time, float64."""

import copy
from typing import Any

import numpy as np
import torch


def jacobian(model: Any, batches: list[dict], chosen: list[str]) -> dict[str, np.ndarray]:
    """Parameter name -> (example, class, entry): derivatives of every logit, by autograd on one row at a time."""
    model = copy.deepcopy(model).double().eval().requires_grad_(False)
    named = {name: p.requires_grad_(True) for name, p in model.named_parameters() if name in chosen}
    found: dict[str, list] = {name: [] for name in named}
    for batch in batches:
        of_batch: dict[str, list] = {name: [] for name in named}
        for row, places in rows_of(batch, getattr(model, "spans", 1)):
            logits = model(**{k: v.double() if v.is_floating_point() else v for k, v in row.items()}).logits
            for place, example in zip(places, logits, strict=True):
                per_class = [torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
                             for value in example]
                for name, of_parameter, p in zip(named, zip(*per_class, strict=True), named.values(), strict=True):
                    values = [(torch.zeros_like(p) if g is None else g).flatten() for g in of_parameter]
                    of_batch[name].append((place, torch.stack(values).numpy()))
        for name, values in of_batch.items():  # in the order of the batch's logits
            found[name] += [v for _, v in sorted(values, key=lambda pair: pair[0])]
    return {name: np.stack(values) for name, values in found.items()}


def rows_of(batch: dict, spans: int = 1) -> list[tuple[dict, list[int]]]:
    """A batch as batches of one row, and the places of their examples among the batch's logits. spans: of each
    example."""
    count = len(batch["input_ids"]) if "input_ids" in batch else len(next(iter(batch.values())))
    if "slots" not in batch:
        return [({k: v[i:i + 1] for k, v in batch.items()}, [i]) for i in range(count)]
    slots, rows = batch["slots"].tolist(), []
    per_row = batch["spans"].shape[1] // spans
    for i in range(count):
        places = [place for place, slot in enumerate(slots) if i * per_row <= slot < (i + 1) * per_row]
        row = {k: v[i:i + 1] for k, v in batch.items()} | {"slots": torch.tensor([slots[p] - i * per_row
                                                                                  for p in places])}
        rows.append((row, places))
    return rows


def inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(example, class, example, class) inner products of two Jacobians (example, class, entry)."""
    return np.einsum("ncp,mdp->ncmd", left, right, optimize=True)


def kernel(jacobians: dict[str, np.ndarray], head: list[str], left=np.array, right=np.array) -> tuple[np.ndarray,
                                                                                                      np.ndarray]:
    """Pre-train-effective and FT-effective kernel: sums over the head's parameters, and over all others."""
    first = next(iter(jacobians.values()))
    parts = {True: np.zeros(2 * first.shape[:2]), False: np.zeros(2 * first.shape[:2])}
    for name, values in jacobians.items():
        parts[name in head] += inner(left(values), right(values))
    return parts[True], parts[False]
