"""A computed kernel, and the estimated cost of one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a kernel, before it is computed."""

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
    """P: (row example, class, train example, class), over the head's weight and bias; zero where they are not
    chosen."""
    ft_effective: np.ndarray
    """F: the same shape, over all other chosen parameters."""
    splits: dict[str, slice]
    """Rows of "train" and "eval"."""
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    """Where asked for: F of each group of parameters; they sum to `ft_effective`."""
    flipped: "Kernel | None" = None
    """Only of asymmetric-signgd, where the row's gradient is the signed one: the kernel with the column's gradient
    signed."""

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
        """The kernel of one split's examples (rows) with the train examples (columns). ValueError for a split it has
        not."""
        if split not in self.splits:
            raise ValueError(f"the kernel has no rows {split!r}, only {', '.join(self.splits)}; give ntk their batches")
        rows = self.splits[split]
        return replace(self, pretrain_effective=self.pretrain_effective[rows], ft_effective=self.ft_effective[rows],
                       splits={split: slice(0, rows.stop - rows.start)},
                       groups={k: v[rows] for k, v in self.groups.items()},
                       flipped=self.flipped and self.flipped.rows(split))

    def by(self, level: Literal["kind", "layer"]) -> dict[str, np.ndarray]:
        """Sums of groups: kind (attention, ffn, norms, biases over all layers) or layer (layer-00, ...); groups that
        are in no layer (embeddings, rest) stay as they are. ValueError without groups."""
        if not self.groups:
            raise ValueError("the kernel was computed without groups; ask ntk for groups=True")
        sums: dict[str, np.ndarray] = {}
        for name, values in self.groups.items():
            key = name.split("/")[-1 if level == "kind" else 0]
            sums[key] = sums[key] + values if key in sums else values
        return sums
