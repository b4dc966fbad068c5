"""The classification head: its last linear layer, and what goes into it."""

from typing import Any

from finetrace.errors import FinetraceError


def last_linear(model: Any) -> Any:
    """The linear layer that gives the logits: weight (class, dim), bias (class,) or None.

    Raises FinetraceError when the classifier has none outside its encoder.
    """
    import torch

    encoder = {id(module) for module in model.base_model.modules()}
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and id(m) not in encoder]
    if not layers:
        raise FinetraceError(f"{type(model).__name__}: has no linear layer after its encoder, which every "
                             "lens of heads needs")
    return layers[-1]
