"""The empirical neural tangent kernel of a classifier, exactly (Jacot et al. 2018), and its split into what a change of
the head and what a change of all else would do (Tomihari and Sato 2024, proposition 4.1).

For logits f_c(x_n) with gradients J_nc with respect to the chosen parameters, the kernel is <J_nc, J_md>. The head
f = V phi + b gives the pre-train-effective part P = (<phi_n, phi_m> + 1) for c = d, else 0; all other parameters give
the FT-effective part F = V (dphi_n dphi_m') V'.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.lenses.kernel.results import Cost, Kernel, Progress

if TYPE_CHECKING:
    from finetrace.lenses.kernel.products import Product

__all__ = ["Cost", "Kernel", "estimate", "ntk", "ntk_vector_product"]

def ntk(
    model: Any, batches: Sequence[dict[str, Any]], eval_batches: Sequence[dict[str, Any]] = (), *,
    parameters: str | Callable[[str], bool] = "trainable", formula: str = "sgd", head: Any = None,
    heads: Sequence[tuple[np.ndarray, np.ndarray | None]] | None = None, dtype: Any = None, memory_bytes: float = 2e9,
    groups: bool | Callable[[str], str] = False, share: tuple[int, int] = (0, 1), progress: Progress | None = None,
) -> Any:
    """Exact kernel of a classifier at its present weights: one forward and C backward passes over the batches, no
    sampling.

    model: any module with model(**batch).logits (example, class) whose rows do not interact, put into evaluation mode
    meanwhile;
    batches, eval_batches: dicts of input tensors, padded, with their masks; examples are numbered in their order;
    parameters: "trainable", "all", "head", "encoder" (all but the head), "lora", or a function of a parameter's name;
    formula: "sgd" <J, J'>, "signgd" <sign J, sign J'>, "asymmetric-signgd" <sign J, J'> (row signed; `flipped` the
    other way);
    head: the last linear layer, found by itself where the model has a base_model;
    heads: several (weight (class, dim), bias (class,)) in place of the model's own; they share the passes, and a list
    comes back;
    dtype: torch.float32 or torch.float64, default the model's own; sums are float64 in any case;
    memory_bytes: for what is kept between passes and blocks of gradients; less memory means more passes;
    groups: also F by group of parameters (`parameters.group`), or by a function of a parameter's name;
    share: (number, of how many): only this part of the parameters, for one of several processes or devices, whose
    kernels add up;
    progress: called as progress(phase, done, total).

    Returns a `Kernel`, symmetric on train x train. For a zero gradient it is 0; F grows with the square of the head's
    weight. ValueError for parameters that mean nothing, batches without examples, models whose logits have another
    shape, half precision weights, or a kernel with eigenvalues below -1e-6 of the largest.
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
    """What `ntk` will take for the same arguments, from a look at two rows. Grows with the square of examples times
    classes."""
    from finetrace.lenses.kernel import compute

    return compute.estimate(compute.prepare(model, batches, eval_batches, parameters, head, heads, dtype, memory_bytes),
                            memory_bytes)


def ntk_vector_product(
    model: Any, batches: Sequence[dict[str, Any]], delta: np.ndarray, onto: Sequence[dict[str, Any]] | None = None, *,
    parameters: str | Callable[[str], bool] = "trainable", head: Any = None, dtype: Any = None,
) -> "Product":
    """The kernel's rows for `onto` (default: `batches`), columns for `batches`, times delta: without making the kernel.

    delta: (example, class) of the batches' examples, such as one-hot label minus probability;  others: as of `ntk`.
    Takes one gradient and one derivative, whatever the number of examples.
    Returns `Product`: P delta and F delta (example, class), and the change of the head's input (example, dim), all
    float64: what a step of gradient descent would change, per unit of the learning rate. Zero for delta zero, linear in
    it. ValueError for a delta that does not fit, and for a model whose logits are not simply its head's output.
    """
    from finetrace.lenses.kernel.products import product

    return product(model, batches, delta, onto, parameters, head, dtype)
