"""Streaming second moments of token vectors: everything spectral from a (dim, dim) matrix, however many tokens there
are.

Squaring loses singular values below about 1e-7 of the largest, which an effective rank does not notice; the sums are
in float64.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Weights = Literal["sv", "sv2"]


_BLOCK = 4096  # tokens converted to float64 at a time


@dataclass(frozen=True)
class Gram:
    """Sums over tokens, to be added up over batches, or subtracted to leave some out; `...` are axes such as group.

    count: (...,) tokens;  total: (..., dim) sum of the tokens;  products: (..., dim, dim) sum of their outer products,
    W^T W.
    """

    count: np.ndarray
    total: np.ndarray
    products: np.ndarray

    def __add__(self, other: "Gram") -> "Gram":
        return Gram(self.count + other.count, self.total + other.total, self.products + other.products)

    def __sub__(self, other: "Gram") -> "Gram":
        return Gram(self.count - other.count, self.total - other.total, self.products - other.products)


def gram(tokens: np.ndarray) -> Gram:
    """The sums of one batch (token, dim), any float dtype; extra memory does not grow with the tokens."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2:
        raise ValueError(f"tokens {tokens.shape}: give (token, dim)")
    total, products = np.zeros(tokens.shape[1]), np.zeros((tokens.shape[1],) * 2)
    for start in range(0, len(tokens), _BLOCK):
        block = tokens[start:start + _BLOCK].astype(np.float64, copy=False)
        total += block.sum(axis=0)
        products += block.T @ block
    return Gram(np.array(len(tokens)), total, products)


def around_mean(tokens: np.ndarray) -> np.ndarray:
    """The tokens less their mean, (token, dim) float64: centred measures of their sums then keep their digits however
    far from the origin the cloud lies; sums of the tokens themselves lose twice the digits of mean over spread."""
    tokens = np.asarray(tokens, dtype=np.float64)
    return tokens - tokens.mean(axis=0)


def leave_out(tokens: np.ndarray, groups: np.ndarray) -> tuple[Gram, Gram]:
    """The sums of all tokens, and those with each group left out, first axis group. groups: (token,) 0 .. G-1."""
    parts = [gram(tokens[groups == g]) for g in range(int(groups.max()) + 1)]
    by_group = Gram(*(np.stack([getattr(part, name) for part in parts]) for name in ("count", "total", "products")))
    total = Gram(by_group.count.sum(axis=0), by_group.total.sum(axis=0), by_group.products.sum(axis=0))
    return total, total - by_group


def singular_values(sums: Gram, centre: bool = False) -> np.ndarray:
    """Singular values, descending (..., dim), of the stacked tokens behind the sums; centre: after subtracting their
    mean.

    What rounding makes of a zero is 0.
    """
    dim = sums.total.shape[-1]
    values = np.linalg.eigvalsh(_centred(sums) if centre else sums.products)[..., ::-1].clip(min=0)
    rounding = np.finfo(np.float64).eps * dim * _trace(sums.products)[..., None]
    possible = np.arange(dim) < (sums.count - centre)[..., None]  # n tokens span n dimensions, n - 1 once centred
    return np.sqrt(np.where((values > rounding) & possible, values, 0))


def effective_rank_of_gram(sums: Gram, centre: bool = False, weights: Weights = "sv") -> np.ndarray:
    """`statistics.effective_rank` of all the tokens added up, equal to that of the stacked matrix: (...,) float64."""
    return rank_of_singular_values(singular_values(sums, centre), weights)


def participation_ratio_of_gram(sums: Gram) -> np.ndarray:
    """(sum l)^2 / sum l^2 of the covariance eigenvalues, from trace and Frobenius norm: no eigenvalues are computed."""
    centred = _centred(sums)
    spread = _trace(centred)
    defined = (sums.count > 1) & (spread > np.finfo(np.float64).eps * sums.total.shape[-1] * _trace(sums.products))
    norm = np.einsum("...de,...de->...", centred, centred)
    return np.where(defined, spread * spread / np.where(defined, norm, 1), np.nan)


def _centred(sums: Gram) -> np.ndarray:
    """(..., dim, dim) products of the tokens minus their mean."""
    count = np.maximum(sums.count, 1)[..., None, None]
    return sums.products - sums.total[..., :, None] * sums.total[..., None, :] / count


def _trace(products: np.ndarray) -> np.ndarray:
    return np.trace(products, axis1=-2, axis2=-1)


def rank_of_singular_values(values: np.ndarray, weights: Weights = "sv") -> np.ndarray:
    """`effective_rank` from singular values >= 0 in any order: (..., value) -> (...,) float64; NaN where all are 0."""
    if weights not in ("sv", "sv2"):
        raise ValueError(f"weights {weights!r}: take 'sv' (singular values) or 'sv2' (their squares)")
    values = np.asarray(values, dtype=np.float64)
    largest = values.max(axis=-1, keepdims=True)
    p = values / np.where(largest > 0, largest, 1)
    p = p if weights == "sv" else p * p
    p /= np.where(largest > 0, p.sum(axis=-1, keepdims=True), 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1)
    return np.where(largest[..., 0] > 0, np.exp(entropy), np.nan)
