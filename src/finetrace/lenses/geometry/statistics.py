"""Geometry of the token vectors of a sentence or of a stack of sentences. Pure: arrays in, numbers out.

Tokens are (token, dim): one row per real token, padding removed (`real_tokens`). Everything is computed in float64,
but for `cosine_summary`, which is made for bulk and keeps the precision of its input. A zero vector has no direction:
its cosine with every vector, itself included, is 0.
"""

from dataclasses import dataclass

import numpy as np

from finetrace.lenses.geometry.gram import (
    Weights,
    around_mean,
    gram,
    participation_ratio_of_gram,
    rank_of_singular_values,
)

BINS = 4000
"""Bins of a cosine histogram on [-1, 1]: 0.0005 wide, so quantiles are known to 0.0005."""
_CACHE_NUMBERS = 100_000  # of cosine matrices worked on together: they stay in the processor's cache


@dataclass(frozen=True)
class CosineSummary:
    """Within-sentence cosines of one or many blocks of tokens; `...` are the axes before (token, dim), e.g. layer.

    mean, variance (population, ddof 0), median: (...,) float64, NaN with fewer than two tokens;
    histogram: (..., bin) int64, counts of the token pairs in `BINS` equal bins on [-1, 1];  pairs: token pairs per
    block.
    """

    mean: np.ndarray
    variance: np.ndarray
    median: np.ndarray
    histogram: np.ndarray
    pairs: int


def real_tokens(states: np.ndarray, mask: np.ndarray, special: np.ndarray | None = None) -> np.ndarray:
    """The real tokens of one padded example, in order: states (..., position, dim) -> (..., token, dim).

    mask: (position,), 0 where padded, anywhere (left, right);  special: (position,), non-zero where the tokenizer
    added the token ([CLS], </s>, ...): give it to leave those out.
    """
    states, keep = np.asarray(states), np.asarray(mask) != 0
    if keep.ndim != 1 or states.ndim < 2 or states.shape[-2] != len(keep):
        raise ValueError(f"states {states.shape} and mask {keep.shape}: give (..., position, dim) and (position,)")
    if special is not None:
        if np.shape(special) != keep.shape:
            raise ValueError(f"special {np.shape(special)} is not shaped like mask {keep.shape}")
        keep = keep & (np.asarray(special) == 0)
    return states[..., keep, :]


def cosine_similarities(tokens: np.ndarray) -> np.ndarray:
    """Cosine of each pair of tokens i < j, row-major: (token, dim) -> (pair,) float64 in [-1, 1], no unit.

    cos_ij = <x_i, x_j> / (|x_i| |x_j|). Equal tokens give 1, orthonormal ones 0; higher = more alike. Empty for one
    token.
    """
    unit = unit_vectors(_checked(tokens))
    return np.clip((unit @ unit.T)[np.triu_indices(len(unit), 1)], -1.0, 1.0)


def cosine_summary(states: np.ndarray) -> CosineSummary:
    """Distribution of within-sentence cosines for many blocks at once: states (..., token, dim), e.g. (layer, token,
    dim).

    float32 (and float16) states are multiplied in float32 and summed in float64: cosines to 1e-6.
    """
    states = np.asarray(states)
    states = states if states.dtype == np.float64 else states.astype(np.float32, copy=False)
    if states.ndim < 2:
        raise ValueError(f"states {states.shape}: give (..., token, dim)")
    shape, k = states.shape[:-2], states.shape[-2]
    pairs = k * (k - 1) // 2
    blocks = int(np.prod(shape, dtype=np.int64))
    if pairs == 0 or blocks == 0:
        blank = np.full(shape, np.nan)
        return CosineSummary(blank, blank, blank, np.zeros((*shape, BINS), dtype=np.int64), pairs)
    states = states.reshape(blocks, k, -1)
    upper = np.flatnonzero(np.triu(np.ones((k, k), dtype=bool), 1))
    at_once = max(1, _CACHE_NUMBERS // (k * k))
    parts = [_summarise(states[start:start + at_once], upper) for start in range(0, blocks, at_once)]
    mean, variance, median, histogram = (np.concatenate(part) for part in zip(*parts, strict=True))
    return CosineSummary(mean.reshape(shape), variance.reshape(shape), median.reshape(shape),
                         histogram.reshape(*shape, BINS), pairs)


def _summarise(states: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance, median (block,) and histogram (block, bin) of blocks (block, token, dim).

    upper: (pair,) places of i < j in a flat (token, token) matrix.
    """
    blocks, k, _ = states.shape
    pairs = len(upper)
    products = states @ states.swapaxes(-1, -2)  # a matrix times its own transpose: numpy halves the work (syrk)
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    inverse = np.where(norms > 0, 1 / np.where(norms > 0, norms, 1), 0)
    products *= inverse[:, :, None]
    products *= inverse[:, None, :]
    cosines = np.take(products.reshape(blocks, k * k), upper, axis=-1)
    np.clip(cosines, -1, 1, out=cosines)
    bins = ((cosines + 1) * cosines.dtype.type(BINS / 2)).astype(np.int32)
    np.minimum(bins, BINS - 1, out=bins)  # the last bin holds cosine 1 itself
    bins += (np.arange(blocks, dtype=np.int32) * BINS)[:, None]
    histogram = np.bincount(bins.reshape(-1), minlength=blocks * BINS).reshape(blocks, BINS)
    exact = cosines.astype(np.float64)
    mean = exact.mean(axis=-1)
    exact -= mean[:, None]
    variance = np.einsum("bp,bp->b", exact, exact) / pairs
    cosines.partition(pairs // 2, axis=-1)  # one pivot at a time is far faster in numpy than np.median
    median = cosines[:, pairs // 2].astype(np.float64)
    if pairs % 2 == 0:
        median = (median + cosines[:, :pairs // 2].max(axis=-1)) / 2
    return mean, variance, median, histogram


def covariance_trace(tokens: np.ndarray, ddof: int = 1) -> float:
    """Trace of the covariance of the token vectors: (token, dim) -> squared units of the vectors, >= 0.

    sum_i |x_i - mean|^2 / (k - ddof) = the sum of the variances of the dimensions. Equal tokens give 0, orthonormal
    ones 1 (ddof 1). It grows with the square of a global scale, so it does not compare layers; `scaled_trace` does.
    NaN for k <= ddof.
    """
    tokens = _checked(tokens)
    if len(tokens) <= ddof:
        return float("nan")
    return float(np.square(tokens - tokens.mean(axis=0)).sum() / (len(tokens) - ddof))


def scaled_trace(tokens: np.ndarray) -> float:
    """`covariance_trace` (ddof 1) over the mean squared norm: 0 for equal tokens, about 1 for tokens that share no
    direction.

    Free of scale, so layers and models compare. NaN for fewer than two tokens or zero tokens only.
    """
    tokens = _checked(tokens)
    power = np.square(tokens).sum(axis=1).mean() if len(tokens) else 0.0
    return covariance_trace(tokens) / power if power > 0 else float("nan")


def effective_rank(tokens: np.ndarray, centre: bool = False, weights: Weights = "sv") -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007): (token, dim) -> 1 .. min(token,
    dim).

    p_r = s_r / sum s ("sv", the published definition) or s_r^2 / sum s^2 ("sv2", the entropy of the variances);
    exp(-sum p_r ln p_r) with 0 ln 0 = 0. k equal singular values give k, rank one gives 1; higher = more directions in
    use. centre: subtract the mean token first, else the mean direction counts as one. NaN when nothing is left (all
    values zero).
    """
    tokens = _checked(tokens)
    scale = float(np.abs(tokens).max(initial=0.0))
    if centre and len(tokens):
        tokens = tokens - tokens.mean(axis=0)
    if not tokens.size or scale == 0:
        return float("nan")
    values = np.linalg.svd(tokens / scale, compute_uv=False)
    values[values < np.finfo(np.float64).eps * max(tokens.shape) ** 1.5] = 0  # rounding of subtracting the mean
    return float(rank_of_singular_values(values, weights))


def iso_score(tokens: np.ndarray) -> float:
    """IsoScore (Rudman et al. 2022): how evenly the cloud fills its dimensions, 1 = a round ball, 0 = a line.

    With covariance eigenvalues l_r and n = dim, the paper's steps (normalise l to length sqrt(n), distance to all ones,
    isotropy defect, share of dimensions used, rescale) reduce to (PR - 1) / (n - 1), PR = `participation_ratio`.
    NaN for dim 1 or a cloud without spread.
    """
    tokens = _checked(tokens)
    dim = tokens.shape[1]
    return (participation_ratio(tokens) - 1) / (dim - 1) if dim > 1 else float("nan")


def participation_ratio(tokens: np.ndarray) -> float:
    """(sum l)^2 / sum l^2 of the covariance eigenvalues l: (token, dim) -> 1 (a line) .. min(token - 1, dim) (a ball).

    A second count of directions in use, ruled by the large ones. NaN for a cloud without spread.
    """
    return float(participation_ratio_of_gram(gram(around_mean(_checked(tokens)))))


def neighbour_ratios(points: np.ndarray, limit: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the second nearest neighbour over that to the nearest, for the TwoNN dimension.

    points: (token, dim). Exact duplicates count once; of the rest at most `limit`, drawn by `seed`, are compared with
    each other. Returns (kept,) float64 >= 1 and (kept,) int64, the number of each point in `points`.
    """
    points = np.ascontiguousarray(points)
    first = {row.tobytes(): i for i, row in reversed(list(enumerate(points + 0)))}  # + 0: -0.0 becomes 0.0
    index = np.array(sorted(first.values()), dtype=np.int64)
    if len(index) > limit:
        index = np.sort(np.random.default_rng(seed).permutation(index)[:limit])
    if len(index) < 3:
        return np.empty(0), index[:0]
    chosen = points[index].astype(np.float64)
    chosen -= chosen.mean(axis=0)  # a distant centre would cost digits of the distances
    power = np.square(chosen).sum(axis=1)
    distances = power[:, None] + power[None, :] - 2 * (chosen @ chosen.T)
    np.fill_diagonal(distances, np.inf)
    nearest = np.partition(distances, 1, axis=1)[:, :2]
    distinct = nearest[:, 0] > 64 * np.finfo(np.float64).eps * power.max()  # closer is rounding: the same point
    return np.sqrt(nearest[distinct, 1] / nearest[distinct, 0]), index[distinct]


def two_nn(ratios: np.ndarray, discard: float = 0.1) -> float:
    """Intrinsic dimension from `neighbour_ratios` (Facco et al. 2017, TwoNN); points on a line give about 1.

    The ratios mu follow a Pareto law, so -ln(1 - F(mu)) = dimension * ln(mu): the slope of the line through the
    origin, with the largest `discard` share left out as published. NaN with fewer than three ratios or when all are 1.
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard {discard}: give a share of at least 0 and below 1")
    count = len(ratios)
    fitted_count = min(int(count * (1 - discard)), count - 1)  # the last one has F = 1
    if count < 3 or fitted_count < 1:
        return float("nan")
    x = np.log(np.sort(np.asarray(ratios, dtype=np.float64))[:fitted_count])
    y = -np.log1p(-np.arange(1, fitted_count + 1) / count)
    return float(x @ y / (x @ x)) if x @ x > 0 else float("nan")


def intrinsic_dimension(tokens: np.ndarray, discard: float = 0.1, limit: int = 2000, seed: int = 0) -> float:
    """TwoNN intrinsic dimension of a cloud (token, dim): `two_nn` of `neighbour_ratios`; equal seeds give equal
    values."""
    return two_nn(neighbour_ratios(_checked(tokens), limit, seed)[0], discard)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 in the same directions, (..., dim), at least float32; zero vectors stay zero."""
    vectors = vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)  # float16 squares overflow
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return vectors / np.where(norms > 0, norms, 1)


def histogram_quantiles(histogram: np.ndarray, shares: np.ndarray | list[float]) -> np.ndarray:
    """Quantiles of the cosines in a histogram of `cosine_summary`: (bin,) and (share,) -> (share,), to 0.0005; NaN if
    empty.

    As numpy's default: the value at position (n - 1) * share of the sorted cosines, linear between two of them.
    """
    histogram = np.asarray(histogram, dtype=np.int64)
    total = int(histogram.sum())
    if total == 0:
        return np.full(len(shares), np.nan)
    position = (total - 1) * np.asarray(shares, dtype=np.float64)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, total - 1)
    cumulated = np.cumsum(histogram)

    def value(order: np.ndarray) -> np.ndarray:  # of the sorted cosines, as if those of a bin lay evenly in it
        bins = np.searchsorted(cumulated, order, side="right")
        inside = (order - (cumulated[bins] - histogram[bins]) + 0.5) / histogram[bins]
        return (bins + inside) * (2 / BINS) - 1

    low, high = value(lower), value(upper)
    return low + (high - low) * (position - lower)


def box_of(histogram: np.ndarray) -> np.ndarray:
    """Tukey's box of a cosine histogram: (low whisker, Q1, median, Q3, high whisker); NaN if empty.

    Whiskers reach the outermost cosine within 1.5 times Q3 - Q1 of the box (Tukey 1977), to a bin's width.
    """
    q1, median, q3 = histogram_quantiles(histogram, [0.25, 0.5, 0.75])
    if np.isnan(median):
        return np.full(5, np.nan)
    reach = 1.5 * (q3 - q1)
    edges = np.arange(BINS + 1) * (2 / BINS) - 1
    filled = np.flatnonzero(histogram)
    low = filled[edges[filled + 1] >= q1 - reach][0]
    high = filled[edges[filled] <= q3 + reach][-1]
    return np.array([min(q1, max(edges[low], q1 - reach)), q1, median, q3, max(q3, min(edges[high + 1], q3 + reach))])


def _checked(tokens: np.ndarray) -> np.ndarray:
    """(token, dim) in float64, or a ValueError."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2:
        raise ValueError(f"tokens {tokens.shape}: give (token, dim), padding removed")
    tokens = tokens.astype(np.float64, copy=False)
    if not np.isfinite(tokens).all():
        raise ValueError(f"token {int(np.argmin(np.isfinite(tokens).all(axis=1)))} holds NaN or infinity")
    return tokens
