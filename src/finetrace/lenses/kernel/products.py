"""The kernel times a vector, in time linear in the number of examples: two passes, without the kernel.

K delta = J (J' delta): J' delta is one gradient, that of sum_i <delta_i, f(x_i)>; J u is one derivative of the logits
in the direction u of the parameters, by forward-mode differentiation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from finetrace.lenses.kernel.batches import Batch, logits_of, measuring, prepared
from finetrace.lenses.kernel.compute import in_precision
from finetrace.lenses.kernel.parameters import chosen


@dataclass(frozen=True)
class Product:
    """What a step of gradient descent along `delta` would change, per unit of the learning rate and to first order,
    float64."""

    pretrain_effective: np.ndarray
    """P delta, (example, class): the change of the logits through the head."""
    ft_effective: np.ndarray
    """F delta, (example, class): their change through all other chosen parameters."""
    features: np.ndarray
    """(example, dim): the change of the head's input, (dphi dphi') V' delta."""


def product(
    model: Any, batches: Sequence[dict[str, Any]], delta: np.ndarray, onto: Sequence[dict[str, Any]] | None,
    parameters: str | Callable[[str], bool], head: Any, dtype: Any,
) -> Product:
    """See `finetrace.lenses.kernel.ntk.ntk_vector_product`."""
    model, head = in_precision(model, head, dtype)
    wanted = chosen(model, parameters, head)
    prepared_batches = prepared(batches, model)
    weights = torch.as_tensor(np.asarray(delta), dtype=head.weight.dtype, device=head.weight.device)
    expected_shape = (sum(len(b.row) for b in prepared_batches), len(head.weight))
    if tuple(weights.shape) != expected_shape or not bool(weights.isfinite().all()):
        raise ValueError(f"delta has shape {tuple(weights.shape)}; give finite numbers of shape (example, class) = "
                         f"{expected_shape}")
    with measuring(model):
        direction = _gradient(model, prepared_batches, weights, wanted)
        head_names = {name for name, p in wanted.items() if p is head.weight or p is head.bias}
        parts = [_derivatives(model, batch, head, {n: u for n, u in direction.items() if n not in head_names},
                              {n.rsplit(".", 1)[-1]: direction[n] for n in head_names})
                 for batch in (prepared_batches if onto is None else prepared(onto, model))]
    return Product(*(torch.cat(batch_values).double().cpu().numpy() for batch_values in zip(*parts, strict=True)))


def _gradient(model: Any, batches: Sequence[Batch], delta: torch.Tensor, wanted: dict[str, torch.Tensor],
              ) -> dict[str, torch.Tensor]:
    """u: name -> gradient of sum_i <delta_i, f(x_i)>."""
    total = {name: torch.zeros_like(p) for name, p in wanted.items()}
    for p in wanted.values():
        p.requires_grad_(True)
    for batch in batches:
        value = (logits_of(model, batch) * delta[batch.examples]).sum()
        gradients = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
        for name, g in zip(total, gradients, strict=True):
            if g is not None:
                total[name] += g
    for p in wanted.values():
        p.requires_grad_(False)
    return total


def _derivatives(model: Any, batch: Batch, head: Any, direction: dict[str, torch.Tensor],
                 head_direction: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Derivatives along u: of the logits through the head, through all else, and of the head's input. Attention is
    spelled out in simple operations, as fused kernels have no forward mode."""
    inputs: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            values = dict(model.named_parameters())
            duals = {name: forward_ad.make_dual(values[name].detach(), u) for name, u in direction.items()}
            logits = logits_of(_WithParameters(model, duals), batch)
            if len(inputs) != 1 or inputs[0].shape[:-1] != logits.shape[:-1]:
                raise ValueError("the model's logits are not simply the output of its last linear layer; name the "
                                 "layer as head")
            (value, logits_change), (features, features_change) = (
                forward_ad.unpack_dual(logits), forward_ad.unpack_dual(inputs[0]))
            logits_change = torch.zeros_like(value) if logits_change is None else logits_change
            features_change = torch.zeros_like(features) if features_change is None else features_change
            through_head = torch.zeros_like(value)
            if "weight" in head_direction:
                through_head = through_head + features @ head_direction["weight"].T
            if "bias" in head_direction:
                through_head = through_head + head_direction["bias"]
    finally:
        hook.remove()
    return through_head, logits_change, features_change


class _WithParameters:
    """The model with other parameters."""

    def __init__(self, model: Any, values: dict[str, torch.Tensor]):
        self.model, self.values = model, values

    def __call__(self, **inputs: torch.Tensor) -> Any:
        return functional_call(self.model, self.values, kwargs=inputs)
