"""The empirical neural tangent kernel of a classifier, exactly (Jacot et al. 2018), and its split into what a change of the head
and what a change of all else would do (Tomihari and Sato 2024, proposition 4.1).

For logits f_c(x_n) with gradients J_nc with respect to the chosen parameters, the kernel is <J_nc, J_md>. The head
f = V phi + b gives the pre-train-effective part P = (<phi_n, phi_m> + 1) for c = d, else 0; all other parameters give the
FT-effective part F = V (dphi_n dphi_m') V'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from finetrace.lenses.kernel.products import Product

__all__ = ["Cost", "Kernel", "estimate", "ntk", "ntk_vector_product"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Cost:
    """What a kernel will take, before it starts."""

    passes: int
    """Times that all batches go through the model."""
    operations: float
    """Floating-point operations, multiplications and additions counted apart."""
    seconds: float
    """Rough time on the model's device, right to a factor of two or so, from the speed of a short product."""
    bytes: int
    """Rough peak memory beyond the model and the activations of one batch."""


@dataclass(frozen=True)
class Kernel:
    """Inner products of the gradients of all logits with those of the train logits, float64.

    Rows are the train examples, then the eval examples; columns are the train examples.
    """

    pretrain_effective: np.ndarray
    """P: (row example, class, train example, class), over the head's weight and bias; zero where they are not chosen."""
    ft_effective: np.ndarray
    """F: the same shape, over all other chosen parameters."""
    splits: dict[str, slice]
    """Rows of "train" and "eval"."""
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    """Where asked for: F of each group of parameters; they sum to `ft_effective`."""
    flipped: "Kernel | None" = None
    """Only of asymmetric-signgd, where the row's gradient is the signed one: the kernel with the column's gradient signed."""

    @property
    def full(self) -> np.ndarray:
        """P + F, the neural tangent kernel."""
        return self.pretrain_effective + self.ft_effective

    def __add__(self, other: "Kernel") -> "Kernel":
        """The kernel over the parameters of both, such as those of two processes."""
        groups = {k: np.sum([kernel.groups[k] for kernel in (self, other) if k in kernel.groups], axis=0)
                  for k in sorted({*self.groups, *other.groups})}
        return replace(self, pretrain_effective=self.pretrain_effective + other.pretrain_effective,
                       ft_effective=self.ft_effective + other.ft_effective, groups=groups,
                       flipped=self.flipped and other.flipped and self.flipped + other.flipped)

    def rows(self, split: Literal["train", "eval"]) -> "Kernel":
        """The kernel of one split's examples (rows) with the train examples (columns). ValueError for a split it has not."""
        if split not in self.splits:
            raise ValueError(f"the kernel has no rows {split!r}, only {', '.join(self.splits)}; give ntk their batches")
        part = self.splits[split]
        return replace(self, pretrain_effective=self.pretrain_effective[part], ft_effective=self.ft_effective[part],
                       splits={split: slice(0, part.stop - part.start)}, groups={k: v[part] for k, v in self.groups.items()},
                       flipped=self.flipped and self.flipped.rows(split))

    def by(self, what: Literal["kind", "layer"]) -> dict[str, np.ndarray]:
        """Sums of groups: kind (attention, ffn, norms, biases over all layers) or layer (layer-00, ...); groups that are in no
        layer (embeddings, rest) stay as they are. ValueError without groups."""
        if not self.groups:
            raise ValueError("the kernel was computed without groups; ask ntk for groups=True")
        found: dict[str, np.ndarray] = {}
        for name, values in self.groups.items():
            key = name.split("/")[-1 if what == "kind" else 0]
            found[key] = found[key] + values if key in found else values
        return found


def ntk(
    model: Any, batches: Sequence[dict[str, Any]], eval_batches: Sequence[dict[str, Any]] = (), *,
    parameters: str | Callable[[str], bool] = "trainable", formula: str = "sgd", head: Any = None,
    heads: Sequence[tuple[np.ndarray, np.ndarray | None]] | None = None, dtype: Any = None, memory_bytes: float = 2e9,
    groups: bool | Callable[[str], str] = False, share: tuple[int, int] = (0, 1), progress: Progress | None = None,
) -> Any:
    """Exact kernel of a classifier at its present weights: one forward and C backward passes over the batches, no sampling.

    model: any module with model(**batch).logits (example, class) whose rows do not interact, put into evaluation mode meanwhile;
    batches, eval_batches: dicts of input tensors, padded, with their masks; examples are numbered in their order;
    parameters: "trainable", "all", "head", "encoder" (all but the head), "lora", or a function of a parameter's name;
    formula: "sgd" <J, J'>, "signgd" <sign J, sign J'>, "asymmetric-signgd" <sign J, J'> (row signed; `flipped` the other way);
    head: the last linear layer, found by itself where the model has a base_model;
    heads: several (weight (class, dim), bias (class,)) in place of the model's own; they share the passes, and a list comes back;
    dtype: torch.float32 or torch.float64, default the model's own; sums are float64 in any case;
    memory_bytes: for what is kept between passes and blocks of gradients; less memory means more passes;
    groups: also F by group of parameters (`parameters.group`), or by a function of a parameter's name;
    share: (number, of how many): only this part of the parameters, for one of several processes or devices, whose kernels add up;
    progress: called as progress(phase, done, total).

    Returns a `Kernel`, symmetric on train x train. For a zero gradient it is 0; F grows with the square of the head's weight.
    ValueError for parameters that mean nothing, batches without examples, models whose logits have another shape, half precision
    weights, or a kernel with eigenvalues below -1e-6 of the largest.
    """
    from finetrace.lenses.kernel.compute import compute

    if isinstance(batches, dict) or not len(batches):
        raise ValueError("batches must be a list of at least one dict of input tensors")
    return compute(model, batches, eval_batches, parameters, formula, head, heads, dtype, memory_bytes, groups,
                   share, progress or (lambda phase, done, total: None))


def estimate(
    model: Any, batches: Sequence[dict[str, Any]], eval_batches: Sequence[dict[str, Any]] = (), *,
    parameters: str | Callable[[str], bool] = "trainable", head: Any = None,
    heads: Sequence[tuple[np.ndarray, np.ndarray | None]] | None = None, dtype: Any = None, memory_bytes: float = 2e9,
) -> Cost:
    """What `ntk` will take for the same arguments, from a look at two rows. Grows with the square of examples times classes."""
    from finetrace.lenses.kernel import compute

    return compute.estimate(compute.prepare(model, batches, eval_batches, parameters, head, heads, dtype, memory_bytes),
                            memory_bytes)


def ntk_vector_product(
    model: Any, batches: Sequence[dict[str, Any]], delta: np.ndarray, onto: Sequence[dict[str, Any]] | None = None, *,
    parameters: str | Callable[[str], bool] = "trainable", head: Any = None, dtype: Any = None,
) -> "Product":
    """The kernel's rows for `onto` (default: `batches`), columns for `batches`, times delta: without making the kernel.

    delta: (example, class) of the batches' examples, such as one-hot label minus probability;  others: as of `ntk`. Takes one
    gradient and one derivative, whatever the number of examples.
    Returns `Product`: P delta and F delta (example, class), and the change of the head's input (example, dim), all float64: what
    a step of gradient descent would change, per unit of the learning rate. Zero for delta zero, linear in it.
    ValueError for a delta that does not fit, and for a model whose logits are not simply its head's output.
    """
    from finetrace.lenses.kernel.products import product

    return product(model, batches, delta, onto, parameters, head, dtype)
