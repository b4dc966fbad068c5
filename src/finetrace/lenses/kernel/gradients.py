"""Gradients of all logits with respect to one parameter, kept in the form in which its use gives them.

Each form can add its part of the kernel to a sum without ever holding all gradients as vectors. Uses of a shared
parameter add up before the inner product: for outer products and tables, that is the same as more tokens.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from finetrace.lenses.kernel.gram import ENTRIES, Gram

ELEMENTWISE = 40
"""Cost of an elementwise product and sum, in multiply-adds of a matrix product."""
BLOCK = {"cpu": 3e7}
"""Bytes of a block of gradients: about a processor's cache, so that they are multiplied before they leave it."""
FREQUENT = 4
"""Rows of a table that more than 1/FREQUENT of the examples use are treated as dense."""

Piece = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Examples (n,), a (n, token, in) and g (n, token, class, out) of a batch."""


@dataclass
class Outer:
    """Weight of a linear layer: the gradient of logit (n, c) is the sum over tokens t of g[n, t, c] a[n, t]ᵀ."""

    pieces: list[Piece] = field(default_factory=list)

    def put(self, examples: torch.Tensor, a: torch.Tensor, g: torch.Tensor) -> None:
        """Keep a batch, without the tokens at which g is zero everywhere: padding, and what the logits do not look at.

        examples: (n,);  a: (n, token, in);  g: (n, token, class, out).
        """
        used = _nonzero(g)
        longest = max(1, int(used.sum(dim=1).max()))
        if longest < used.shape[1]:
            tokens = used.byte().argsort(dim=1, descending=True, stable=True)[:, :longest]
            rows = torch.arange(len(tokens), device=tokens.device)[:, None]
            a, g = a[rows, tokens], g[rows, tokens]
        self.pieces.append((examples, a, g))

    def add_to(self, gram: Gram, memory: float) -> None:
        """Two routes, chosen for each pair of chunks by their cost. A: make the gradients of a block of output rows and
        multiply them. B: <g aᵀ, g' a'ᵀ> = sum over pairs of tokens of (a . a') (g . g')."""
        chunks = [[p for p in self.pieces if start <= int(p[0][0]) < end]
                  for start, end in pairwise(gram.layout.bounds)]
        self.pieces = []
        tokens = [max(a.shape[1] for _, a, _ in pieces) for pieces in chunks]
        _, a, g = chunks[0][0]
        size_in, classes, size_out = a.shape[2], *g.shape[2:]
        by_gradients = {(i, j) for i, j in gram.pairs() if gram.formula != "sgd" or gradients_pay(
            tokens[i], tokens[j], size_in, size_out, classes, gram.layout.rows)}
        by_tokens = [pair for pair in gram.pairs() if pair not in by_gradients]
        merged = {i: _padded_chunk(chunks[i], gram.layout.bounds[i], tokens[i])
                  for i in {i for pair in by_tokens for i in pair}}
        for i, j in by_tokens:
            gram.sums[0][gram.layout.logits(i), gram.layout.logits(j)] += _products_by_tokens(merged[i], merged[j],
                                                                                              memory)
        merged.clear()
        if by_gradients:
            gradient_pieces = [piece for i in sorted({i for pair in by_gradients for i in pair}) for piece in chunks[i]]
            block_entries = min(memory, BLOCK.get(a.device.type, memory)) / (gram.layout.rows * a.element_size())
            step = max(1, min(size_out, int(max(min(ENTRIES, memory / gram.layout.rows), block_entries) / size_in)))
            buffer = a.new_empty(gram.layout.rows * step * size_in)
            for start in range(0, size_out, step):
                gram.add(_gradients(gradient_pieces, gram.layout.rows, start, min(size_out, start + step), buffer),
                         by_gradients)


def _nonzero(g: torch.Tensor) -> torch.Tensor:
    """(n, token) bool: where g (n, token, class, out) is not zero, or not so small that products of it vanish."""
    return torch.linalg.vector_norm(g.flatten(2), dim=2) != 0


def gradients_pay(tokens: int, other_tokens: int, size_in: int, size_out: int, classes: int, logits: int) -> bool:
    """Whether route A takes fewer multiply-adds per pair of logits than route B. Making a gradient is shared by all
    pairs."""
    gradient_operations = size_in * size_out * (1 + (tokens + other_tokens) / logits)
    return gradient_operations < tokens * other_tokens * (size_in / classes**2 + size_out + ELEMENTWISE)


def _gradients(pieces: list[Piece], logits: int, start: int, end: int, buffer: torch.Tensor) -> torch.Tensor:
    """(logit, out * in) gradients with respect to some output rows, in the memory of `buffer`."""
    size_in, classes = pieces[0][1].shape[2], pieces[0][2].shape[2]
    block = buffer[:logits * (end - start) * size_in].view(logits // classes, classes * (end - start), size_in)
    for examples, a, g in pieces:
        block_g = g[..., start:end].flatten(2).transpose(1, 2)
        first, count = int(examples[0]), len(examples)
        if bool((examples[1:] - examples[:-1] == 1).all()):
            torch.bmm(block_g, a, out=block[first:first + count])
        else:
            block[examples] = torch.bmm(block_g, a)
    return block.view(logits, -1)


def _padded_chunk(pieces: list[Piece], first: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """a and g of a chunk of examples, padded with zeros to its longest."""
    (_, a, g), count = pieces[0], sum(len(examples) for examples, _, _ in pieces)
    all_a, all_g = a.new_zeros((count, tokens, a.shape[2])), g.new_zeros((count, tokens, *g.shape[2:]))
    for examples, a, g in pieces:
        all_a[examples - first, :a.shape[1]] = a
        all_g[examples - first, :g.shape[1]] = g
    return all_a, all_g


def _products_by_tokens(row: tuple[torch.Tensor, torch.Tensor], column: tuple[torch.Tensor, torch.Tensor],
                        memory: float) -> torch.Tensor:
    """(logit, logit) inner products of two chunks of sums of outer products, by pairs of tokens."""
    (a, g), (b, h) = row, column
    classes = g.shape[2]
    step = max(1, int(memory / (2 * classes**2 * a.shape[1] * b.shape[0] * b.shape[1] * a.element_size())))
    parts = []
    for start in range(0, len(a), step):
        inputs = torch.einsum("nti,msi->ntms", a[start:start + step], b)
        products = torch.einsum("ntco,msdo->nctmds", g[start:start + step], h)
        products *= inputs[:, None, :, :, None, :]
        parts.append(products.sum(dim=(2, 5)))
    return torch.cat(parts).flatten(2, 3).flatten(0, 1)


@dataclass
class Lookup:
    """Table of an embedding: row `id` of the gradient is the sum of g over tokens with that id. Rows without any are
    not kept."""

    pieces: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Ids (entry,), examples (entry,) and sums of g (entry, class, dim), of batch after batch."""

    def put(self, examples: torch.Tensor, ids: torch.Tensor, g: torch.Tensor) -> None:
        """ids: (n, token), below zero for tokens that do not count;  g: (n, token, class, dim)."""
        used = (ids >= 0) & _nonzero(g)
        place, token = torch.nonzero(used, as_tuple=True)
        pairs, entry = torch.unique(torch.stack([ids[place, token], examples[place]]), dim=1, return_inverse=True)
        sums = g.new_zeros((pairs.shape[1], *g.shape[2:])).index_add_(0, entry, g[place, token])
        self.pieces.append((pairs[0], pairs[1], sums))

    def add_to(self, gram: Gram, memory: float) -> None:
        """Two examples interact through the ids that both have."""
        ids, examples, sums = (torch.cat(parts) for parts in zip(*self.pieces, strict=True))
        self.pieces = []
        if not len(ids):
            return
        order = ids.argsort(stable=True)
        _, count = torch.unique_consecutive(ids[order], return_counts=True)
        first = count.cumsum(0) - count
        example_count, classes, dim = gram.layout.bounds[-1], sums.shape[1], sums.shape[2]
        frequent = torch.nonzero(count * FREQUENT >= example_count).flatten()
        step = max(1, int(memory / (gram.layout.rows * dim * sums.element_size())))
        for chunk in frequent.split(step):
            block = sums.new_zeros((example_count, classes, len(chunk), dim))
            for place, (start, length) in enumerate(zip(first[chunk].tolist(), count[chunk].tolist(), strict=True)):
                entries = order[start:start + length]
                block[examples[entries], :, place] = sums[entries]
            gram.add(block.view(gram.layout.rows, -1))
        for length in count[count * FREQUENT < example_count].unique().tolist():
            bytes_each = length * classes * (2 * dim * sums.element_size() + 40 * length * classes)
            starts = first[count == length]
            for chunk in starts.split(max(1, int(memory / bytes_each))):
                entries = order[chunk[:, None] + torch.arange(length, device=chunk.device)]
                gram.add_scattered(sums[entries], examples[entries])


@dataclass
class Vector:
    """Anything whose gradient is kept as it is: biases, scales of norms, and parameters that autograd is asked
    about."""

    pieces: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Examples (n,) and gradients (n, class, entry), of batch after batch."""

    def put(self, examples: torch.Tensor, gradient: torch.Tensor) -> None:
        self.pieces.append((examples, gradient))

    def add_to(self, gram: Gram, memory: float) -> None:
        examples, gradients = (torch.cat(parts) for parts in zip(*self.pieces, strict=True))
        self.pieces = []
        gradients = gradients[examples.argsort()].flatten(0, 1)
        step = max(1, math.floor(memory / (gram.layout.rows * gradients.element_size())))
        for block in gradients.split(step, dim=1):
            gram.add(block)


Form = Outer | Lookup | Vector
