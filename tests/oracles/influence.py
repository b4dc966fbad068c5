"""Influence by its definition: one backward pass per example, dot products of whole gradients, float64."""

import copy
from typing import Any

import numpy as np
import torch
from tests.oracles.kernel import rows_of


def gradients(model: Any, batches: list[dict], labels: list[np.ndarray], loss: Any, chosen: list[str],
              ) -> dict[str, np.ndarray]:
    """Parameter name -> (example, entry): the gradient of every example's loss, one row through the model at a time.

    labels: of each batch, in the order of its logits;  loss: from logits (1, class) and labels (1, ..) to a number.
    """
    model = copy.deepcopy(model).double().eval().requires_grad_(False)
    named = {name: p.requires_grad_(True) for name, p in model.named_parameters() if name in chosen}
    of_all: list[dict[str, np.ndarray]] = []
    for batch, of_batch in zip(batches, labels, strict=True):
        in_order: dict[int, dict[str, np.ndarray]] = {}
        for row, places in rows_of(batch, getattr(model, "spans", 1)):
            inputs = {k: v.double() if v.is_floating_point() else v for k, v in row.items()}
            for number, place in enumerate(places):
                logits = model(**inputs).logits[number:number + 1]
                value = loss(logits, torch.as_tensor(of_batch[place:place + 1]))
                gs = torch.autograd.grad(value, list(named.values()), allow_unused=True)
                in_order[place] = {name: (torch.zeros_like(p) if g is None else g).flatten().numpy()
                                   for (name, p), g in zip(named.items(), gs, strict=True)}
        of_all += [in_order[place] for place in sorted(in_order)]
    return {name: np.stack([one[name] for one in of_all]) for name in named}


def products(evaluated: dict[str, np.ndarray], train: dict[str, np.ndarray], names: Any = None) -> np.ndarray:
    """(eval example, train example) dot products over some parameters, all of them if left out."""
    return sum(evaluated[name] @ train[name].T for name in names or train)


def squares(of: dict[str, np.ndarray]) -> np.ndarray:
    """(example,) squared lengths."""
    return sum((values ** 2).sum(axis=1) for values in of.values())


def cosines(evaluated: dict[str, np.ndarray], train: dict[str, np.ndarray]) -> np.ndarray:
    """(eval example, train example) cosines of whole gradients."""
    return products(evaluated, train) / np.sqrt(np.outer(squares(evaluated), squares(train)))


def influence(checkpoints: list[tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]]) -> np.ndarray:
    """Sum over checkpoints of weight x products (Pruthi et al. 2020, TracInCP): (eval example, train example)."""
    return sum(weight * products(evaluated, train) for weight, evaluated, train in checkpoints)
