"""Which operations read a parameter, with what input, and where the gradient of their output is to be had.

The gradient of a logit with respect to a parameter is a sum over the uses of that parameter, and for each use a simple
function of its input a and of g, the gradient with respect to its output:

    linear weight      sum over tokens of  g aᵀ           ("outer")
    embedding table    row `id` collects g of its tokens  ("lookup")
    scale of a norm    sum over tokens of  g * a          ("scale"; a is the normalised input)
    bias               sum over tokens of  g              ("shift")
    anything else      autograd's own answer              ("dense")
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode


@dataclass
class Use:
    """One operation that reads one parameter."""

    name: str
    """The parameter."""
    kind: str
    """outer, lookup, scale, shift or dense."""
    edge: Any
    """Where g arrives: the operation's output; for "dense" the parameter itself."""
    shape: torch.Size
    """Shape of g."""
    factor: torch.Tensor | None = None
    """a: (..., in), token ids (...), or (..., dim) for a scale."""
    version: int = 0
    """Of a, to notice that it was overwritten."""

    def input(self) -> torch.Tensor:
        """a, as it was when the operation read it."""
        if self.factor is None or self.factor._version != self.version:
            raise ValueError(f"the input of the operation that reads {self.name} was overwritten in place; set its "
                             "module's inplace to False")
        return self.factor.detach()


Role = tuple[torch.Tensor, str, torch.Tensor | None]
"""A parameter read by a call, how, and its factor."""


class Watch(TorchFunctionMode):
    """While active, lists every use of the wanted parameters.

    wanted: id of a parameter -> name;  rows: rows of the batch;  swap: id of a weight -> the (weight, bias) put in its
    place, for several heads at once.
    """

    def __init__(self, wanted: dict[int, str], rows: int, swap: dict[int, tuple[Any, Any]] | None = None):
        super().__init__()
        self.wanted, self.rows, self.swap = wanted, rows, swap or {}
        self.uses: list[Use] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and self.swap:
            args, kwargs = self._swapped(*args, **kwargs)
        if func is F.embedding and args[0].dim() > 1 and len(args[0]) == 1 and self.rows > 1:
            args = (args[0].expand(self.rows, *args[0].shape[1:]), *args[1:])  # positions common to all rows
        parameters_read = {id(p): p for p in _tensors((args, list(kwargs.values()))) if id(p) in self.wanted}
        out = func(*args, **kwargs)
        if not parameters_read or not any(o.requires_grad and id(o) not in parameters_read for o in _tensors(out)):
            return out
        role_function = _ROLES.get(func)
        roles = role_function(*args, **kwargs) if role_function and isinstance(out, torch.Tensor) else []
        edge = get_gradient_edge(out) if roles else None
        for parameter, kind, factor in roles:
            if id(parameter) in parameters_read and (factor is None or id(factor) not in self.wanted):
                del parameters_read[id(parameter)]
                self.uses.append(Use(self.wanted[id(parameter)], kind, edge, out.shape, factor,
                                     0 if factor is None else factor._version))
        for parameter in parameters_read.values():
            self.uses.append(Use(self.wanted[id(parameter)], "dense", get_gradient_edge(parameter), parameter.shape))
        return out

    def _swapped(self, input: Any, weight: Any, bias: Any = None) -> tuple[tuple, dict]:
        return (input, *self.swap.get(id(weight), (weight, bias))), {}


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, list | tuple) else []


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> list[Role]:
    return [(weight, "outer", input)] + ([(bias, "shift", None)] if bias is not None else [])


def _addmm(bias: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, *, beta: float = 1,
           alpha: float = 1) -> list[Role]:
    """GPT-2's Conv1D. Its weight is (in, out), which inner products of gradients do not notice."""
    return [(weight, "outer", input), (bias, "shift", None)] if beta == alpha == 1 and bias.dim() == 1 else []


def _embedding(input: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None, max_norm: float | None = None,
               norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> list[Role]:
    if max_norm is not None or scale_grad_by_freq:
        return []
    if padding_idx is not None:  # autograd gives the padding's row no gradient
        input = input.masked_fill(input == padding_idx % len(weight), -1)
    return [(weight, "lookup", input)]


def _layer_norm(input: torch.Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5,
                ) -> list[Role]:
    if len(normalized_shape) != 1:
        return []
    normalised = F.layer_norm(input.detach(), normalized_shape, eps=eps)
    return [(weight, "scale", normalised)] * (weight is not None) + [(bias, "shift", None)] * (bias is not None)


def _rms_norm(input: torch.Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> list[Role]:
    if len(normalized_shape) != 1 or weight is None:
        return []
    return [(weight, "scale", F.rms_norm(input.detach(), normalized_shape, eps=eps))]


def _mul(a: Any, b: Any) -> list[Role]:
    return [(p, "scale", other) for p, other in ((a, b), (b, a)) if _along_last(p, other)]


def _add(a: Any, b: Any) -> list[Role]:
    return [(p, "shift", None) for p, other in ((a, b), (b, a)) if _along_last(p, other)]


def _along_last(p: Any, other: Any) -> bool:
    """Whether p is a vector along the last axis of a larger tensor."""
    return (isinstance(p, torch.Tensor) and isinstance(other, torch.Tensor) and p.dim() == 1 and other.dim() > 1
            and other.shape[-1] == len(p))


_ROLES: dict[Any, Callable[..., list[Role]]] = {
    F.linear: _linear, torch.addmm: _addmm, F.embedding: _embedding, F.layer_norm: _layer_norm, F.rms_norm: _rms_norm,
    **dict.fromkeys((torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__), _mul),
    **dict.fromkeys((torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__), _add),
}
