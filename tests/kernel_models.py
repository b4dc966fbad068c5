"""Tiny classifiers with random weights, and batches for them, for tests of the neural tangent kernel."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.families import FAMILIES, TOKENS, config_of

CLASSES = 3


def family_model(family: str, **changes: Any) -> Any:
    """A classifier of three classes, none of whose parameters is zero or at its initial value."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config_of(family, num_labels=CLASSES, **changes))
    return stirred(model)


def stirred(model: Any) -> Any:
    """Every parameter moved a little, in evaluation mode."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def family_batches(family: str, shapes: tuple[tuple[int, int], ...] = ((3, 9), (2, 5)), seed: int = 0) -> list[dict]:
    """Batches of (rows, tokens) random words; rows but the first are padded."""
    generator, changes = torch.Generator().manual_seed(seed), FAMILIES[family][0]
    padding, found = changes.get("pad_token_id", 0), []
    for rows, tokens in shapes:
        ids = torch.randint(5, TOKENS, (rows, tokens), generator=generator)
        mask = torch.ones_like(ids)
        for r in range(1, rows):
            ids[r, tokens - 1 - r:], mask[r, tokens - 1 - r:] = padding, 0
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


class Small(torch.nn.Module):
    """logits = head(phi(x)) of one vector per example; phi is any module."""

    def __init__(self, phi: torch.nn.Module, dim: int, classes: int, bias: bool = True):
        super().__init__()
        self.phi, self.head = phi, torch.nn.Linear(dim, classes, bias=bias)

    @property
    def base_model(self) -> Any:
        return self.phi

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.phi(x)))


def small(phi: torch.nn.Module, dim: int, classes: int = CLASSES, bias: bool = True) -> Small:
    torch.manual_seed(2)
    return Small(phi, dim, classes, bias).double().eval()


def vectors(examples: int, *shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(examples, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def head_names(model: Any, head: Any) -> list[str]:
    return [name for name, p in model.named_parameters() if p is head.weight or p is head.bias]


def far(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, in units of the largest expected number."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300))
