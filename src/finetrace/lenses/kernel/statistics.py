"""Statistics of kernels: rank, norms, spectrum, FT Ratio, alignment with labels, and how fast a kernel turns while
training.

A kernel is (row example, class, column example, class) float64, as `finetrace.lenses.kernel.ntk` gives it. As a matrix
its rows and columns are pairs (example, class), the class running fastest.
"""

from dataclasses import dataclass

import numpy as np

FLOAT32_ROUNDING = float(np.finfo(np.float32).eps)  # 1.19e-7
_BLOCK_NUMBERS = 4_000_000  # entries of the class x class blocks whose singular values are computed together


@dataclass(frozen=True)
class Spectrum:
    """Size and rank of one kernel of M rows.

    singular_values: (M,) float64, descending;  rank: how many of them exceed `tolerance` times the largest, 0 .. M;
    tolerance: relative;  stable_rank: (Frobenius / operator norm)^2, in [1, M], NaN of a zero kernel;  operator_norm,
    frobenius_norm, nuclear_norm: largest singular value, root of the sum of squares, sum.
    """

    singular_values: np.ndarray
    rank: int
    tolerance: float
    stable_rank: float
    operator_norm: float
    frobenius_norm: float
    nuclear_norm: float

    @property
    def normalised(self) -> np.ndarray:
        """Singular values divided by the largest: (M,) in [0, 1], descending; NaN of a zero kernel."""
        scale = self.operator_norm or np.nan
        return self.singular_values / scale


def spectrum(kernel: np.ndarray, tolerance: float | None = None) -> Spectrum:
    """Singular values, rank and norms of a kernel between the same examples.

    tolerance: singular values up to this share of the largest count as zero; by default M times the rounding of
    float32, which is what a library says of a kernel kept in float32 (Tomihari and Sato 2024 give such ranks): the
    smallest ones are noise of the gradients, and in exact arithmetic nearly every kernel has full rank. `stable_rank`
    needs no tolerance.
    """
    matrix = as_matrix(kernel)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"kernel {np.shape(kernel)}: give one between the same examples, e.g. train x train")
    if tolerance is None:
        tolerance = len(matrix) * FLOAT32_ROUNDING
    elif not 0 <= tolerance < 1:
        raise ValueError(f"tolerance: {tolerance} is not a share of the largest singular value, from 0 up to 1")
    values = _singular_values(matrix)
    largest, norm = float(values[0]), float(np.linalg.norm(values))
    stable_rank = (norm / largest) ** 2 if largest else float("nan")
    return Spectrum(values, int((values > tolerance * largest).sum()), tolerance, stable_rank, largest, norm,
                    float(values.sum()))


def block_nuclear_norms(kernel: np.ndarray) -> np.ndarray:
    """Nuclear norm (sum of singular values, also called trace norm) of the class x class block of each pair of
    examples: (row example, column example) float64 >= 0. Sorted by class they are the heat maps of Tomihari and Sato
    (2024), figure 8."""
    kernel = _checked_kernel(kernel)
    rows, classes, columns, _ = kernel.shape
    # as of the pre-train-effective part
    if not np.einsum("ncmd->cd", np.abs(kernel))[~np.eye(classes, dtype=bool)].any():
        return np.abs(np.einsum("ncmc->nmc", kernel)).sum(axis=2)
    norms = np.empty((rows, columns))
    rows_together = max(1, _BLOCK_NUMBERS // (classes * classes * columns))
    for start in range(0, rows, rows_together):
        blocks = kernel[start:start + rows_together].transpose(0, 2, 1, 3)
        if classes == 2:  # (s1 + s2)^2 = |B|^2 + 2 |det B|
            determinant = blocks[..., 0, 0] * blocks[..., 1, 1] - blocks[..., 0, 1] * blocks[..., 1, 0]
            norms[start:start + rows_together] = np.sqrt(np.square(blocks).sum(axis=(2, 3)) + 2 * np.abs(determinant))
        else:
            norms[start:start + rows_together] = np.linalg.svd(blocks, compute_uv=False).sum(axis=-1)
    return norms


def residuals(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """delta = one-hot label - softmax(logits), where one step of gradient descent pulls the logits: (example, class)
    float64 in [-1, 1], rows sum to 0. logits: (example, class);  labels: (example,) classes 0 .. C-1."""
    logits = np.asarray(logits, dtype=np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return one_hot(labels, logits.shape[1]) - shares / shares.sum(axis=1, keepdims=True)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(example,) classes -> (example, class) float64 of 0 and 1. Raises ValueError for a label outside 0 .. classes -
    1."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels {labels.shape} {labels.dtype}: give one whole number per example")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels: {labels.min()} .. {labels.max()} do not lie in 0 .. {classes - 1}, the classes of "
                         "the kernel")
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def product(kernel: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """sum_i K(x, x_i) delta_i: (row example, class) float64. delta: (column example, class)."""
    kernel, delta = _checked_kernel(kernel), np.asarray(delta, dtype=np.float64)
    if delta.shape != kernel.shape[2:]:
        raise ValueError(f"delta {delta.shape} does not fit the kernel's columns {kernel.shape[2:]}, (example, class)")
    return (as_matrix(kernel) @ delta.ravel()).reshape(kernel.shape[:2])


def ft_ratio(pretrain_effective: np.ndarray, ft_effective: np.ndarray, delta: np.ndarray) -> float:
    """Share of a first training step that comes from changing the encoder rather than the head (Tomihari and Sato
    2024).

    FT Ratio = mean over x of |sum_i F(x, x_i) delta_i| / |sum_i (P + F)(x, x_i) delta_i|: in [0, inf), 0 where only the
    head moves, 1 where only the encoder does; above 1 where the two terms cancel. delta: (column example, class) of
    `residuals`.
    """
    return ft_ratio_from_products(product(pretrain_effective, delta), product(ft_effective, delta))


def ft_ratio_from_products(pretrain_product: np.ndarray, ft_product: np.ndarray) -> float:
    """FT Ratio from P delta and F delta, each (example, class), as `ntk_vector_product` gives them without any
    kernel."""
    ratios = ft_ratios_from_products(pretrain_product, ft_product)
    defined = ratios[~np.isnan(ratios)]
    return float(defined.mean()) if len(defined) else float("nan")


def ft_ratios_from_products(pretrain_product: np.ndarray, ft_product: np.ndarray) -> np.ndarray:
    """The ratio of each example, whose mean is the FT Ratio: (example,) float64; NaN where both terms are 0."""
    head, encoder = np.asarray(pretrain_product, dtype=np.float64), np.asarray(ft_product, dtype=np.float64)
    if head.shape != encoder.shape or head.ndim != 2:
        raise ValueError(f"products {head.shape} and {encoder.shape}: give both as (example, class)")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.linalg.norm(encoder, axis=1) / np.linalg.norm(head + encoder, axis=1)


def label_alignment(kernel: np.ndarray, labels: np.ndarray) -> float:
    """Centred alignment of the kernel with the classes (Cortes, Mohri and Rostamizadeh 2012, definition 4).

    The kernel is summed over classes, k(x, x') = sum_c K(x, c, x', c), and compared with y(x, x') = 1 if x and x' are
    of one class, both centred: <HkH, HyH> / (|HkH| |HyH|). In [-1, 1], and [0, 1] where k has no negative eigenvalue; 1
    where the kernel is the classes, near 0 where it does not know them: sqrt((C - 1) / (N - 1)) for the identity, which
    tells each example from all others and no more, and C equal classes. A kernel's scale and shift do not matter. NaN
    where all labels are equal, or the kernel is the same for all examples.
    """
    kernel = _checked_kernel(kernel)
    count, classes = kernel.shape[:2]
    if kernel.shape[:2] != kernel.shape[2:] or len(labels) != count:
        raise ValueError(f"kernel {kernel.shape} with {len(labels)} labels: give a kernel between examples and their "
                         "labels")
    summed = np.einsum("ncmc->nm", kernel)
    same = one_hot(labels, classes) @ one_hot(labels, classes).T
    k, y = _centred(summed), _centred(same)
    rounding = count * np.finfo(np.float64).eps
    if np.linalg.norm(k) <= rounding * np.linalg.norm(summed) or np.linalg.norm(y) <= rounding * np.linalg.norm(same):
        return float("nan")
    return float(np.vdot(k, y) / (np.linalg.norm(k) * np.linalg.norm(y)))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """How far a kernel has turned: 1 - <K, K'> / (|K| |K'|) (Fort et al. 2020, equation 3; their kernel distance).

    In [0, 2], and [0, 1] for kernels without negative eigenvalues; 0 where one is a multiple of the other, NaN where
    one is zero. Divided by the steps between two checkpoints it is the kernel velocity (`kernel_velocity`).
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"kernels {first.shape} and {second.shape} are of different examples or classes")
    norms = np.linalg.norm(first), np.linalg.norm(second)
    if not all(norms):
        return float("nan")
    # keeps digits where the kernels are nearly equal, as 1 - cosine would not
    difference = first / norms[0] - second / norms[1]
    return float(np.vdot(difference, difference) / 2)


def kernel_velocity(first: np.ndarray, second: np.ndarray, steps: int) -> float:
    """Kernel distance per optimiser step between two checkpoints `steps` apart: [0, 2] / steps; 0 for a kernel that
    rests."""
    if steps < 1:
        raise ValueError(f"steps: {steps} between the checkpoints; give at least 1")
    return kernel_distance(first, second) / steps


def as_matrix(kernel: np.ndarray) -> np.ndarray:
    """(row example, class, column example, class) -> (row example * class, column example * class) float64, the class
    fastest."""
    kernel = _checked_kernel(kernel)
    return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)


def _checked_kernel(kernel: np.ndarray) -> np.ndarray:
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 4 or kernel.shape[1] != kernel.shape[3] or 0 in kernel.shape:
        raise ValueError(f"kernel {kernel.shape}: give (row example, class, column example, class)")
    if not np.isfinite(kernel).all():
        raise ValueError("kernel: holds values that are not finite; the training has diverged, look at an earlier "
                         "checkpoint")
    return kernel


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """Descending; of a symmetric matrix from its eigenvalues, which takes a third of the time."""
    if np.array_equal(matrix, matrix.T):
        return np.sort(np.abs(np.linalg.eigvalsh(matrix)))[::-1]
    return np.linalg.svd(matrix, compute_uv=False)


def _centred(gram: np.ndarray) -> np.ndarray:
    return gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
