"""How similar are two sets of representations of the same examples: CKA, SVCCA, PWCCA, Procrustes, RSA.

Every measure takes a (example, dim_a) and b (example, dim_b), float, row i of both about the same example. Widths may
differ. Both sides are centred first, so none sees a translation; none sees a rotation or an isotropic scaling of b,
nor (PWCCA apart) of a. Equal representations give 1. Where a or b is the same for all examples similarity is not
defined: NaN. In layer 0 that is so for the sentence token, which has the same embedding everywhere.

`represent` and `compare` do the same for many comparisons: what concerns one side alone is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finetrace.lenses.intervals import jackknife_interval

MEASURES = ("cka", "svcca", "pwcca", "procrustes", "rsa")
EXAMPLES_PER_DIRECTION = 5  # CCA's correlations between unrelated sides grow with directions per example
_CONSTANT = 1e-6  # spread, as a share of the size, that float32 cannot tell from none
_NOISE = 1e-6  # directions with a smaller singular value, as a share of the largest, are rounding errors of float32


@dataclass(frozen=True)
class Similarity:
    """A similarity and its 95 % interval (NaN where none is computed)."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def linear_cka(a: np.ndarray, b: np.ndarray, debiased: bool = True) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019): HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b)).

    debiased: with the unbiased estimator of HSIC (Song et al. 2012, eq. 5; Nguyen et al. 2021, eq. 3): in [-1, 1], 0
    on average for unrelated representations. Otherwise the biased one: in [0, 1], and for unrelated representations
    the nearer to 1 the wider they are. Exact by either route: products of features when dim_a * dim_b <= examples^2,
    products of examples otherwise.
    """
    return float(_cka(represent(a), represent(b), debiased)[0])


def svcca(a: np.ndarray, b: np.ndarray, variance: float = 0.99) -> float:
    """Mean canonical correlation of the leading singular directions of both sides (Raghu et al. 2017), in [0, 1].

    variance: share of the variance that the directions keep, in (0, 1].
    Warning: the value rises with the number of directions, also between unrelated representations; where both sides
    together have more directions than examples, some correlations are 1 by force. Hence at most one direction per
    `EXAMPLES_PER_DIRECTION` examples is used on each side (at least one), whatever `variance` asks for.
    """
    return compare(represent(a), represent(b), ["svcca"], variance)["svcca"].value


def pwcca(a: np.ndarray, b: np.ndarray) -> float:
    """Mean canonical correlation, weighted by how much of a each direction accounts for (Morcos et al. 2018, eq. 2),
    in [0, 1].

    The weights come from a: the measure is not symmetric. They are sums over the single columns of a, so that a
    rotation of a changes them; any invertible linear map of b changes nothing.
    Warning: as in `svcca`, at most one leading direction per `EXAMPLES_PER_DIRECTION` examples is used on each side.
    """
    return compare(represent(a), represent(b), ["pwcca"])["pwcca"].value


def procrustes_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of the singular values of a'b, both centred and of Frobenius norm 1 (Williams et al. 2021, eq. 5), in [0, 1].

    It is the inner product of a and b after the best rotation of one onto the other.
    """
    return compare(represent(a), represent(b), ["procrustes"])["procrustes"].value


def rsa(a: np.ndarray, b: np.ndarray, rsa_rows: int = 200, seed: int = 0) -> float:
    """Spearman correlation of the dissimilarities of all pairs of examples (Kriegeskorte et al. 2008), in [-1, 1].

    A dissimilarity is 1 - cosine of two centred examples (centred over all examples); equal ones share their mean rank.
    rsa_rows, seed: at most so many examples, chosen by position from the seed. NaN also when all dissimilarities are
    equal.
    """
    first, second = (represent(side, rsa_rows=rsa_rows, seed=seed) for side in (a, b))
    return compare(first, second, ["rsa"])["rsa"].value


def represent(values: np.ndarray, groups: np.ndarray | None = None, rsa_rows: int = 200, seed: int = 0
              ) -> "Representation":
    """One side of many comparisons.

    values: (example, dim) float;  groups: (example,) int64 group 0 .. G-1 of each example, for the intervals of CKA:
    examples that belong together (tokens of a sentence) are in one group;  rsa_rows, seed: of `rsa`.
    Raises ValueError for other shapes, fewer than 4 examples, NaN or infinity.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"expected floats with 2 axes (example, dim), got {values.dtype} of shape {values.shape}")
    if len(values) < 4 or values.shape[1] < 1:
        raise ValueError(f"shape {values.shape}: similarity needs at least 4 examples and 1 dimension; pass more "
                         "examples")
    if rsa_rows < 4:
        raise ValueError(f"rsa_rows is {rsa_rows}; use 4 or more")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"NaN or infinity, first in example {int(np.argmin(np.isfinite(values).all(axis=1)))}; leave "
                         "it out")
    if groups is not None and (np.shape(groups) != (len(values),) or np.min(groups) < 0):
        raise ValueError(f"groups of shape {np.shape(groups)}: expected one group, from 0 on, for each of "
                         f"{len(values)} examples")
    centred = values - values.mean(axis=0)
    constant = np.linalg.norm(centred) <= _CONSTANT * np.linalg.norm(values)
    return Representation(centred, bool(constant), None if groups is None else np.asarray(groups), rsa_rows, seed)


def most_directions(examples: int) -> int:
    """How many leading directions of each side SVCCA and PWCCA use at most."""
    return max(1, examples // EXAMPLES_PER_DIRECTION)


def compare(a: "Representation", b: "Representation", measures: Sequence[str] = MEASURES,
            variance: float = 0.99) -> dict[str, Similarity]:
    """The chosen measures between two sides (a: the reference, which gives the weights of PWCCA).

    CKA, debiased, has an interval when both sides have groups: delete-a-group jackknife, cut to [-1, 1].
    """
    _same_examples(a, b)
    if unknown := set(measures) - set(MEASURES):
        raise ValueError(f"unknown measure {sorted(unknown)[0]!r}: use some of {', '.join(MEASURES)}")
    if not 0 < variance <= 1:
        raise ValueError(f"variance is {variance}; use a share above 0, at most 1")
    if a.constant or b.constant:
        return {measure: Similarity(float("nan")) for measure in measures}
    overlap = a.left.T @ b.left if {"svcca", "pwcca", "procrustes"} & set(measures) else np.empty((0, 0))
    similarities: dict[str, Similarity] = {}
    for measure in measures:
        match measure:
            case "cka":
                value, *left_out = _cka(a, b).tolist()
                low, high = np.clip(jackknife_interval(value, np.array(left_out)), -1.0, 1.0).tolist()
                similarities[measure] = Similarity(value, low, high)
            case "svcca":
                similarities[measure] = Similarity(_svcca(a, b, overlap, variance))
            case "pwcca":
                similarities[measure] = Similarity(_pwcca(a, b, overlap))
            case "procrustes":
                total = np.linalg.svd(a.singular[:, None] * overlap * b.singular, compute_uv=False).sum()
                lengths = np.linalg.norm(a.singular), np.linalg.norm(b.singular)
                similarities[measure] = Similarity(min(1.0, float(total / lengths[0] / lengths[1])))
            case "rsa":
                similarities[measure] = Similarity(float(a.dissimilarity_ranks @ b.dissimilarity_ranks))
    return similarities


@dataclass(frozen=True)
class Representation:
    """One side of comparisons; make it with `represent`. What only concerns this side is computed when first needed.

    centred: (example, dim) float64;  constant: the same for all examples, up to rounding;  groups: (example,) int64 or
    None.
    """

    centred: np.ndarray
    constant: bool
    groups: np.ndarray | None
    rsa_rows: int
    seed: int

    @cached_property
    def kept(self) -> np.ndarray:
        """(1 + group, example) float64: 1 where an example takes part; first all do, then all but those of each
        group."""
        everything = np.ones((1, len(self.centred)))
        if self.groups is None:
            return everything
        return np.concatenate([everything, self.groups != np.arange(self.groups.max() + 1)[:, None]])

    @cached_property
    def squares(self) -> np.ndarray:
        """(example,) squared norms: the diagonal of the kernel matrix."""
        return np.einsum("ed,ed->e", self.centred, self.centred)

    @cached_property
    def row_sums(self) -> np.ndarray:
        """(example, 1 + group) sums of the kernel matrix's rows over the examples that take part."""
        return self.centred @ (self.kept @ self.centred).T

    @cached_property
    def kernel(self) -> np.ndarray:
        """(example, example) inner products."""
        return self.centred @ self.centred.T

    @cached_property
    def own_hsic(self) -> np.ndarray:
        """(1 + group,) unbiased HSIC with itself; NaN where it is no more than rounding error."""
        hsic = _hsic(self, self)
        return np.where(hsic > 1e-12 * (self.kept @ self.squares) ** 2, hsic, np.nan)

    @cached_property
    def _decomposed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left, singular, right = np.linalg.svd(self.centred, full_matrices=False)
        rank = int((singular > _NOISE * singular[0]).sum())
        return left[:, :rank], singular[:rank], right[:rank]

    @property
    def left(self) -> np.ndarray:
        """(example, direction) orthonormal columns, leading direction first."""
        return self._decomposed[0]

    @property
    def singular(self) -> np.ndarray:
        """(direction,) singular values, descending."""
        return self._decomposed[1]

    @property
    def right(self) -> np.ndarray:
        """(direction, dim) orthonormal rows."""
        return self._decomposed[2]

    @cached_property
    def dissimilarity_ranks(self) -> np.ndarray:
        """(pair,) ranks of 1 - cosine of the examples chosen for RSA, centred and of norm 1; NaN when all are equal."""
        count = len(self.centred)
        chosen = np.arange(count)
        if count > self.rsa_rows:
            chosen = np.sort(np.random.default_rng(self.seed).choice(count, self.rsa_rows, replace=False))
        norms = np.sqrt(self.squares[chosen])
        unit = self.centred[chosen] / np.where(norms > 0, norms, 1.0)[:, None]
        # rounded: pairs of equal examples are ties, whatever the last digits say
        pairs = np.round((1 - unit @ unit.T)[np.triu_indices(len(chosen), 1)], 12)
        _, inverse, times = np.unique(pairs, return_inverse=True, return_counts=True)
        if len(times) == 1:
            return np.full(len(pairs), np.nan)
        ranks = (np.cumsum(times) - (times - 1) / 2)[inverse]
        ranks -= ranks.mean()
        return ranks / np.linalg.norm(ranks)


def _same_examples(a: Representation, b: Representation) -> None:
    if len(a.centred) != len(b.centred):
        raise ValueError(f"{len(a.centred)} and {len(b.centred)} examples: both sides must be about the same ones, in "
                         "one order")
    if (a.groups is None) != (b.groups is None) or not np.array_equal(a.kept, b.kept):
        raise ValueError("the groups of both sides differ; pass the same to both")


def _cka(a: Representation, b: Representation, debiased: bool = True) -> np.ndarray:
    """(1 + group,) CKA with all examples, then with each group left out."""
    _same_examples(a, b)
    if a.constant or b.constant:
        return np.full(len(a.kept), np.nan)
    scale = np.sqrt(a.own_hsic) * np.sqrt(b.own_hsic) if debiased else np.sqrt(_hsic(a, a, False) * _hsic(b, b, False))
    return np.clip(_hsic(a, b, debiased) / scale, -1.0, 1.0)


def _hsic(a: Representation, b: Representation, debiased: bool = True) -> np.ndarray:
    """(1 + group,) HSIC of linear kernels up to a factor that depends on the number of examples alone, and cancels in
    CKA.

    Debiased, Song et al. 2012 eq. 5 for kernel matrices K, L with zero diagonal: tr KL + 1'K1 1'L1 / ((n-1)(n-2)) -
    2 1'KL1 / (n-2); biased: the same with the diagonal, n^2 and n. Leaving a group out only takes its share out of
    these sums.
    """
    kept, count = a.kept, a.kept.sum(axis=1)
    trace, sums_a, sums_b = _trace(a, b), a.row_sums, b.row_sums
    if debiased:
        trace = trace - kept @ (a.squares * b.squares)
        sums_a, sums_b = sums_a - a.squares[:, None], sums_b - b.squares[:, None]
    total_a, total_b = (np.einsum("ge,eg->g", kept, sums) for sums in (sums_a, sums_b))
    product = np.einsum("ge,eg,eg->g", kept, sums_a, sums_b)
    if not debiased:
        return trace + total_a * total_b / count**2 - 2 * product / count
    enough = count >= 4
    count = np.where(enough, count, 4)
    return np.where(enough, trace + total_a * total_b / ((count - 1) * (count - 2)) - 2 * product / (count - 2), np.nan)


def _trace(a: Representation, b: Representation) -> np.ndarray:
    """(1 + group,) sum over pairs of examples that take part of the product of both kernels: the squared norm of
    a'b."""
    if a.centred.shape[1] * b.centred.shape[1] > len(a.centred) ** 2:
        return np.einsum("ge,ge->g", a.kept @ (a.kernel * b.kernel), a.kept)
    cross = a.centred.T @ b.centred
    traces = [np.vdot(cross, cross)]
    for group in range(len(a.kept) - 1):
        members = a.groups == group
        remaining = cross - a.centred[members].T @ b.centred[members]
        traces.append(np.vdot(remaining, remaining))
    return np.array(traces)


def _svcca(a: Representation, b: Representation, overlap: np.ndarray, variance: float) -> float:
    sizes = []
    for side in (a, b):
        shares = np.cumsum(side.singular**2) / np.sum(side.singular**2)
        needed = int(np.searchsorted(shares, variance - 1e-12)) + 1
        sizes.append(min(needed, len(shares), most_directions(len(side.centred))))
    correlations = np.linalg.svd(overlap[:sizes[0], :sizes[1]], compute_uv=False)
    return min(1.0, float(correlations.mean()))


def _pwcca(a: Representation, b: Representation, overlap: np.ndarray) -> float:
    directions = most_directions(len(a.centred))
    mixing, correlations, _ = np.linalg.svd(overlap[:directions, :directions], full_matrices=False)
    # inner products of the canonical directions of a with the columns of a
    accounted = np.abs(mixing.T @ (a.singular[:directions, None] * a.right[:directions])).sum(axis=1)
    return min(1.0, float((accounted * correlations).sum() / accounted.sum()))
