"""Features and head of a classifier over its training: how far the features move, how alike they are, how well they
separate the classes, and how large the head grows. Pure.

Features are what goes into the last linear layer: logits = head weight times feature + bias. The measures are those of
Tomihari and Sato (2024), "Understanding Linear Probing then Fine-tuning Language Models from NTK Perspective" (CS,
Diff, FDR, Norm), which names them without formulas; the formulas here are the usual ones of these names.
"""

from dataclasses import dataclass

import numpy as np

from finetrace.lenses.intervals import groups_of, jackknife_interval

RCOND = 1e-10  # features in float32 carry noise of about 1e-12 of the largest within-class scatter
LOST = 1e-6  # less is rounding
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Estimate:
    """A statistic with the ends of its 95 % interval (NaN where there is none) and the number of examples behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class FisherRatio:
    """Between-class over within-class scatter of features: 0 where class means coincide, no upper end; higher: easier
    to part."""

    value: float
    """tr(pinv(S_W) S_B); NaN with fewer than two classes or without any scatter within classes."""
    ridge: float
    """tr(inv(S_W + r I) S_B), r being a share of the mean eigenvalue of S_W: defined also where S_W is singular."""
    rank: int
    """Eigenvalues of S_W that the pseudo-inverse uses."""
    lost: float
    """Share of the between-class scatter in the directions that the pseudo-inverse leaves out: `value` does not count
    it."""
    singular: bool
    """Whether that share is not 0, as with fewer examples than dimensions. Then `value` is of the rest only, and both
    depend on the number of examples: compare `ridge`, between features of the same examples. (Features behind a layer
    norm have one direction without any scatter, where class means do not differ either: this alone is not singular.)"""


@dataclass(frozen=True)
class Plane:
    """The two directions of largest variance. centre: (dim,);  axes: (2, dim), orthonormal;  shares: (2,) of the
    variance."""

    centre: np.ndarray
    axes: np.ndarray
    shares: np.ndarray


class Units:
    """Which examples are independent: the groups of units (sentences) of which the jackknife leaves out one each
    time."""

    def __init__(self, units: np.ndarray, groups: int = 20, seed: int = 0):
        _, unit = np.unique(np.asarray(units), return_inverse=True)
        self.group = groups_of(int(unit.max()) + 1, groups, seed)[unit]
        self.count = int(self.group.max()) + 1

    def left_out(self, values: np.ndarray) -> np.ndarray:
        """Sums of values (example, ...) without each group: (group, ...)."""
        values = np.asarray(values, dtype=np.float64)
        inside = np.zeros((self.count, *values.shape[1:]))
        np.add.at(inside, self.group, values)
        return values.sum(axis=0) - inside


def cosine_similarity(features: np.ndarray, units: Units | None = None, *, diagonal: bool = False) -> Estimate:
    """CS: mean cosine between the features of two different examples, in [-1, 1]; 1 where all point the same way.

    features: (example, dim) float; those of length 0 have no direction and are left out.  diagonal: also count each
    example with itself.  NaN with fewer than two examples. Raises ValueError for NaN or another shape.
    """
    x = _features(features)
    lengths = np.linalg.norm(x, axis=1)
    directions = np.divide(x, lengths[:, None], out=np.zeros_like(x), where=lengths[:, None] > 0)
    mean = _mean_cosine(directions.sum(axis=0), float((lengths > 0).sum()), diagonal)
    if units is None:
        return Estimate(mean, np.nan, np.nan, int((lengths > 0).sum()))
    sums, counts = units.left_out(directions), units.left_out(lengths > 0)
    left_out = np.array([_mean_cosine(s, float(n), diagonal) for s, n in zip(sums, counts, strict=True)])
    low, high = np.clip(jackknife_interval(mean, left_out), -1, 1)
    return Estimate(mean, float(low), float(high), int((lengths > 0).sum()))


def feature_change(before: np.ndarray, after: np.ndarray, units: Units | None = None) -> Estimate:
    """Diff: mean over examples of the Euclidean length of feature after - feature before; 0 where nothing moved.

    before, after: (example, dim) float of the same examples, in the same order. The length of the difference, not the
    difference of lengths, which is never larger. Raises ValueError when the shapes differ.
    """
    a, b = _features(before), _features(after)
    if a.shape != b.shape:
        raise ValueError(f"before and after: have shapes {a.shape} and {b.shape}; the same examples and dimensions are "
                         "needed")
    return mean_of(np.linalg.norm(b - a, axis=1), units)


def mean_norm(features: np.ndarray, units: Units | None = None) -> Estimate:
    """Mean Euclidean length of the features (example, dim)."""
    return mean_of(np.linalg.norm(_features(features), axis=1), units)


def mean_of(values: np.ndarray, units: Units | None = None) -> Estimate:
    """Mean of one number per example: (example,) float."""
    if units is None:
        return Estimate(float(values.mean()), np.nan, np.nan, len(values))
    counts = units.left_out(np.ones(len(values)))
    sums = units.left_out(values)
    left_out = np.divide(sums, counts, out=np.full(units.count, np.nan), where=counts > 0)
    low, high = jackknife_interval(float(values.mean()), left_out)
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def fisher_ratio(features: np.ndarray, labels: np.ndarray, rcond: float = RCOND, ridge: float = 0.1) -> FisherRatio:
    """FDR: multi-class Fisher ratio of S_W = sum over classes k and their examples i of (x_i - m_k)(x_i - m_k)' and
    S_B = sum over classes of n_k (m_k - m)(m_k - m)'.

    features: (example, dim) float;  labels: (example,) int; classes without examples do not count, a class of one
    example has no scatter within.  rcond: eigenvalues of S_W up to this share of the largest count as 0;  ridge: as
    share of the mean eigenvalue. Without singular S_W the value is the same for every invertible linear map of the
    features. Works on the smaller of (example, example) and (dim, dim). Raises ValueError for shapes that do not fit or
    a cutoff that is not above 0.
    """
    x = _features(features)
    labels = np.asarray(labels)
    if labels.shape != (len(x),):
        raise ValueError(f"labels: have shape {labels.shape} instead of ({len(x)},)")
    if not 0 < rcond < 1 or not ridge > 0:
        raise ValueError(f"rcond {rcond} must be between 0 and 1, and ridge {ridge} above 0")
    classes, member = np.unique(labels, return_inverse=True)
    counts = np.bincount(member)
    means = np.stack([x[member == k].mean(axis=0) for k in range(len(classes))])
    within = x - means[member]
    between = np.sqrt(counts)[:, None] * (means - x.mean(axis=0))  # its square is S_B
    total, spread = float(np.square(between).sum()), float(np.square(within).sum())
    if len(classes) < 2 or spread <= 1e-24 * float(np.square(x).sum()):  # rounding of means, no scatter
        return FisherRatio(float("nan"), float("nan"), 0, float("nan"), True)
    if len(x) < x.shape[1]:
        values, vectors = np.linalg.eigh(within @ within.T)
        used = values > rcond * values[-1]
        along = (between @ within.T) @ vectors[:, used] / np.sqrt(values[used])
    else:
        values, vectors = np.linalg.eigh(within.T @ within)
        used = values > rcond * values[-1]
        along = between @ vectors[:, used]
    scatter = np.square(along).sum(axis=0)  # of the class means along each direction that is used
    eigenvalues, shrink = values[used], ridge * spread / x.shape[1]
    outside = max(0.0, total - float(scatter.sum()))
    outside_share = outside / total if total else 0.0
    return FisherRatio(float((scatter / eigenvalues).sum()),
                       float((scatter / (eigenvalues + shrink)).sum() + outside / shrink),
                       len(eigenvalues), outside_share, outside_share > LOST)


def head_norm(weight: np.ndarray) -> float:
    """Norm: Frobenius norm of the head's weight (class, dim), without its bias."""
    return float(np.linalg.norm(np.asarray(weight, dtype=np.float64)))


def class_means(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(class, dim) mean feature of each class; NaN for a class without examples."""
    x, labels = _features(features), np.asarray(labels)
    return np.stack([x[labels == k].mean(axis=0) if (labels == k).any() else np.full(x.shape[1], np.nan)
                     for k in range(classes)])


def head_cosines(weight: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Cosine between each head row and each class mean: (class, dim), (class, dim) -> (row, class), NaN where one is 0
    or NaN.

    On the diagonal a row and the mean of its own class: as it comes near 1, gradient descent makes the row longer.
    """
    v, m = np.asarray(weight, dtype=np.float64), np.asarray(means, dtype=np.float64)
    lengths = np.linalg.norm(v, axis=1)[:, None] * np.linalg.norm(m, axis=1)[None, :]
    return np.divide(v @ m.T, lengths, out=np.full((len(v), len(m)), np.nan), where=lengths > 0)


def plane(points: np.ndarray) -> Plane:
    """The plane of largest variance through points (point, dim), by principal components; the larger part of each axis
    is positive. Raises ValueError with fewer than two points or dimensions."""
    x = _features(points)
    if min(x.shape) < 2:
        raise ValueError(f"points: have shape {x.shape}; a plane needs two points of two dimensions")
    centre = x.mean(axis=0)
    centred = x - centre
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, [-1, -2]].T
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    total = float(np.square(centred).sum())
    return Plane(centre, axes * signs[:, None], np.maximum(values[[-1, -2]], 0) / total if total else np.zeros(2))


def tsne(points: np.ndarray, seed: int, perplexity: float = PERPLEXITY) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) of the directions of the points, from a principal-component start: (point,
    2).

    points: (point, dim), scaled to length 1 first, so that head rows and features can stand in one picture.
    perplexity: at most a third of the points. Distances between groups mean little, neighbours do. Raises ValueError
    with fewer than five points.
    """
    x = _features(points)
    if len(x) < 5:
        raise ValueError(f"points: {len(x)} are too few for t-SNE, 5 are needed")
    from sklearn.manifold import TSNE

    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    directions = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    if not np.ptp(directions, axis=0).any():
        return np.zeros((len(x), 2))
    return TSNE(2, perplexity=min(perplexity, (len(x) - 1) / 3), init="pca", random_state=seed,
                n_jobs=1).fit_transform(directions).astype(np.float64)


def _mean_cosine(total: np.ndarray, n: float, diagonal: bool) -> float:
    """From the sum of n unit vectors: the squared length of the sum holds every pair twice, and each vector with
    itself."""
    pairs = n * n if diagonal else n * (n - 1)
    if n < 2:
        return float("nan")
    return float(np.clip((np.square(total).sum() - (0 if diagonal else n)) / pairs, -1, 1))


def _features(values: np.ndarray) -> np.ndarray:
    features = np.asarray(values, dtype=np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"features: have shape {features.shape}; (example, dim) with at least one of each is needed")
    if not np.isfinite(features).all():
        raise ValueError(f"features: row {int(np.argmin(np.isfinite(features).all(axis=1)))} holds NaN or infinity")
    return features
