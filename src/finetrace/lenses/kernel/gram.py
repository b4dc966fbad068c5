"""Sums of inner products of per-example gradients, in blocks, accumulated in float64."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

ENTRIES = 2**14
"""At most so many products are summed in the gradients' own precision: sums of squares of millions would lose half the
digits."""
FORMULAS = ("sgd", "signgd", "asymmetric-signgd")


@dataclass(frozen=True)
class Layout:
    """How the logits (example-major, class-minor) are cut into chunks of consecutive examples, those of the columns
    first."""

    classes: int
    bounds: tuple[int, ...]
    """First example of every chunk, then the number of examples."""
    columns: int
    """Chunks that are columns of the kernel, too; they come first."""

    @property
    def chunks(self) -> int:
        return len(self.bounds) - 1

    @property
    def rows(self) -> int:
        """Logits of all examples."""
        return self.bounds[-1] * self.classes

    @property
    def width(self) -> int:
        """Logits of the column examples."""
        return self.bounds[self.columns] * self.classes

    def logits(self, chunk: int, end: int | None = None) -> slice:
        """Rows of the kernel that belong to a chunk, or to all from `chunk` up to and without `end`."""
        return slice(self.bounds[chunk] * self.classes, self.bounds[chunk + 1 if end is None else end] * self.classes)


class Gram:
    """<J, J'> of all logits against those of the columns; <sign J, sign J'> for signgd. For asymmetric-signgd <sign J,
    J'>, and <J, sign J'> as a second sum.

    Symmetric sums visit each pair of chunks once: the chunk of the row never comes before that of the column.
    """

    def __init__(self, layout: Layout, formula: str, device: torch.device):
        self.layout, self.formula = layout, formula
        self.symmetric = formula != "asymmetric-signgd"
        shape = (layout.rows, layout.width)
        self.sums = [torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(1 if self.symmetric else 2)]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs of chunks (row, column) to be visited."""
        for column in range(self.layout.columns):
            for row in range(column if self.symmetric else 0, self.layout.chunks):
                yield row, column

    def factors(self, block: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What is multiplied with what, for each of the sums: gradients, or their signs."""
        if self.formula == "sgd":
            return [(block, block)]
        sign = block.sign()
        return [(sign, sign)] if self.symmetric else [(sign, block), (block, sign)]

    def add(self, block: torch.Tensor, pairs: set[tuple[int, int]] | None = None) -> None:
        """Add the inner products over some entries of the gradient.

        block: (logit, entry) of all logits;  pairs: only these pairs of chunks.
        """
        runs = [(self.layout.logits(first, end), self.layout.logits(column))
                for column in range(self.layout.columns) for first, end in self._runs(column, pairs)]
        for part in block.split(ENTRIES, dim=1):
            for total, (left, right) in zip(self.sums, self.factors(part), strict=True):
                for rows, columns in runs:
                    total[rows, columns] += left[rows] @ right[columns].T

    def _runs(self, column: int, pairs: set[tuple[int, int]] | None) -> list[tuple[int, int]]:
        """Consecutive row chunks to be multiplied with a column chunk, as (first, end)."""
        runs: list[tuple[int, int]] = []
        for row in range(column if self.symmetric else 0, self.layout.chunks):
            if pairs is None or (row, column) in pairs:
                runs = [*runs[:-1], (runs[-1][0], row + 1)] if runs and runs[-1][1] == row else [*runs, (row, row + 1)]
        return runs

    def add_scattered(self, values: torch.Tensor, examples: torch.Tensor) -> None:
        """Add the inner products over entries that few examples have.

        values: (entries, example, class, dim) of gradients;  examples: (entries, example) whose they are.
        """
        classes = torch.arange(self.layout.classes, device=examples.device)
        logits = (examples[:, :, None] * self.layout.classes + classes).flatten(1)
        starts = torch.tensor(self.layout.bounds[1:], device=examples.device) * self.layout.classes
        chunks = torch.bucketize(logits, starts, right=True)
        visited = (logits < self.layout.width)[:, None, :].expand(-1, logits.shape[1], -1)
        if self.symmetric:
            visited = visited & (chunks[:, :, None] >= chunks[:, None, :])
        rows, columns = (i.expand_as(visited)[visited] for i in (logits[:, :, None], logits[:, None, :]))
        for total, (left, right) in zip(self.sums, self.factors(values.flatten(1, 2)), strict=True):
            products = left @ right.transpose(1, 2)
            total.index_put_((rows, columns), products[visited].double(), accumulate=True)

    def finished(self) -> list[torch.Tensor]:
        """The sums, with the half that was not visited filled in, exactly symmetric."""
        if self.symmetric:
            (total,) = self.sums
            for row, column in self.pairs():
                if row < self.layout.columns:
                    lower = total[self.layout.logits(row), self.layout.logits(column)]
                    mirror = total[self.layout.logits(column), self.layout.logits(row)]
                    mirror.copy_((lower + lower.T) / 2 if row == column else lower.T)
        return self.sums
