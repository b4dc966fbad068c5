"""Minimum description length probing with the online code (Voita and Titov 2020, "Information-theoretic probing with
minimum description length", equation 3): how many bits the labels cost somebody who has the vectors and learns along
the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from finetrace.lenses.probes.linear import L2_GRID, checked, held_out_rows, logistic_probe, logits

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the blocks as shares of the rows, as published."""


@dataclass(frozen=True)
class OnlineCode:
    """bits: (problem,) code length of all labels;  compression: (problem,) uniform code length over it, 1 for vectors
    that say nothing about even classes, higher is better;  uniform_bits: rows times log2 classes;  ends: (block,) int64
    rows at the ends of the blocks;  block_bits: (problem, block) of each, the first being uniform."""

    bits: np.ndarray
    compression: np.ndarray
    uniform_bits: float
    ends: np.ndarray
    block_bits: np.ndarray


def online_code(X: np.ndarray, y: np.ndarray, *, fractions: Sequence[float] = FRACTIONS, l2: Sequence[float] = L2_GRID,
                holdout: float = 0.2, seed: int = 0, tolerance: float = 1e-4, max_iterations: int = 1000,
                device: str = "cpu") -> OnlineCode:
    """Code length of the labels, block by block: each block is coded with a logistic probe trained on the rows before
    it.

    X: (problem, row, dim) float;  y: (row,) int labels, of which the classes are known to both sides;  fractions: ends
    of the blocks, ascending to 1; blocks that round to no rows fall away, and the first has one row at least. Rows are
    shuffled once by `seed`. The strength of each probe is chosen on held-out rows as in `logistic_probe`; where none
    can be held out, the strongest. A class that the rows so far lack has the probability 1 / (rows + classes),
    Laplace's, and the probe's probabilities share the rest; where the rows so far are no more than their classes, or of
    one class, all classes have Laplace's, (count + 1) / (rows + classes).
    Raises ValueError for NaN, a single class, fewer rows than classes, fractions that do not ascend to 1.
    """
    X, classes, codes = checked(X, y)
    shares = np.asarray(fractions, dtype=np.float64)
    if not len(shares) or not (shares > 0).all() or not (np.diff(shares) > 0).all() or shares[-1] != 1:
        raise ValueError(f"fractions: {list(fractions)} must ascend from above 0 to 1, e.g. [0.1, 0.5, 1]")
    count = len(classes)
    order = np.random.default_rng(seed).permutation(len(codes))
    X, codes = X[:, order], codes[order]
    ends = np.unique(np.maximum(1, np.round(shares * len(codes)).astype(np.int64)))
    bits = np.zeros((len(X), len(ends)))
    bits[:, 0] = ends[0] * np.log2(count)
    for block, (start, end) in enumerate(pairwise(ends), start=1):
        counts = np.bincount(codes[:start], minlength=count)
        share = np.broadcast_to(np.log((counts + 1) / (start + count)), (len(X), end - start, count)).copy()
        present = np.flatnonzero(counts)
        if 1 < len(present) < start:
            strengths = _strengths(codes[:start], l2, holdout, seed)
            probe = logistic_probe(X[:, :start], codes[:start], l2=strengths, holdout=holdout, seed=seed,
                                   tolerance=tolerance, max_iterations=max_iterations, device=device)
            z = logits(probe, X[:, start:end])
            top = z.max(axis=2, keepdims=True)
            z -= np.log(np.exp(z - top).sum(axis=2, keepdims=True)) + top
            share[:, :, present] = z + np.log1p(-(count - len(present)) / (start + count))
        gold = np.broadcast_to(codes[start:end, None], (len(X), end - start, 1))
        bits[:, block] = -np.take_along_axis(share, gold, axis=2).sum(axis=(1, 2)) / np.log(2)
    uniform = float(len(codes) * np.log2(count))
    total_bits = bits.sum(axis=1)
    return OnlineCode(total_bits, uniform / total_bits, uniform, ends, bits)


def _strengths(codes: np.ndarray, l2: Sequence[float], holdout: float, seed: int) -> Sequence[float]:
    if len(l2) == 1:
        return l2
    try:
        held_out = held_out_rows(codes, holdout, seed)
    except ValueError:
        return [max(l2)]
    return l2 if len(np.unique(codes[~held_out])) > 1 else [max(l2)]
