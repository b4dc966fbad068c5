"""Slow, obviously right similarities: plain sums in float64, straight from the definitions."""

import numpy as np


def hsic(k: np.ndarray, l: np.ndarray, debiased: bool = True) -> float:
    """HSIC of two kernel matrices (example, example).

    debiased: the U-statistic, the mean over ordered quadruples of different examples (i, j, q, r) of
    k_ij l_ij + k_ij l_qr - 2 k_ij l_iq (Song et al. 2012, eq. 4);  otherwise the mean over all quadruples.
    """
    n = len(k)
    total, count = 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if not debiased or len({i, j, q, r}) == 4:
                        total += k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q]
                        count += 1
    return total / count


def cka(a: np.ndarray, b: np.ndarray, debiased: bool = True) -> float:
    """HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b)) with inner products that are not centred. a, b: (example, dim)."""
    k, l = a @ a.T, b @ b.T
    return hsic(k, l, debiased) / np.sqrt(hsic(k, k, debiased) * hsic(l, l, debiased))


def naive_cka(a: np.ndarray, b: np.ndarray) -> float:
    """The same, debiased, as it is usually written: matrices (example, example) and Song et al. 2012, eq. 5."""
    def unbiased(k: np.ndarray, l: np.ndarray) -> float:
        n, k, l = len(k), k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
        ones = np.ones(n)
        return float(np.trace(k @ l) + (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
                     - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))

    k, l = a @ a.T, b @ b.T
    return unbiased(k, l) / np.sqrt(unbiased(k, k) * unbiased(l, l))


def _centred(x: np.ndarray) -> np.ndarray:
    return np.array([row - sum(x) / len(x) for row in x])


def canonical_correlations(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations, descending, and the canonical variates of a (example, variate) of unit norm, from the covariances:
    eigenvectors of Saa^-1 Sab Sbb^-1 Sba. a, b: (example, dim) centred, of full column rank."""
    saa, sab, sbb = a.T @ a, a.T @ b, b.T @ b
    values, vectors = np.linalg.eig(np.linalg.inv(saa) @ sab @ np.linalg.inv(sbb) @ sab.T)
    order = np.argsort(-values.real)[:min(a.shape[1], b.shape[1])]
    variates = a @ vectors.real[:, order]
    return np.sqrt(np.maximum(values.real[order], 0)), variates / np.linalg.norm(variates, axis=0)


def _leading(x: np.ndarray, variance: float) -> np.ndarray:
    """Projection on the fewest principal directions that keep this share of the variance."""
    values, vectors = np.linalg.eigh(x.T @ x)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = 1
    while values[:kept].sum() < variance * values.sum():
        kept += 1
    return x @ vectors[:, :kept]


def svcca(a: np.ndarray, b: np.ndarray, variance: float) -> float:
    correlations, _ = canonical_correlations(_leading(_centred(a), variance), _leading(_centred(b), variance))
    return float(correlations.mean())


def pwcca(a: np.ndarray, b: np.ndarray) -> float:
    a, b = _centred(a), _centred(b)
    correlations, variates = canonical_correlations(a, b)
    weights = [sum(abs(variate @ column) for column in a.T) for variate in variates.T]
    return float(sum(w * r for w, r in zip(weights, correlations, strict=True)) / sum(weights))


def procrustes(a: np.ndarray, b: np.ndarray) -> float:
    """1 - d/2, where d is the squared distance after the rotation that the polar factor of a'b gives. Equal widths."""
    a, b = _centred(a), _centred(b)
    a, b = a / np.sqrt((a**2).sum()), b / np.sqrt((b**2).sum())
    from scipy.linalg import orthogonal_procrustes

    rotation, _ = orthogonal_procrustes(a, b)
    return float(1 - ((a @ rotation - b) ** 2).sum() / 2)


def rsa(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    return float(spearmanr(pdist(_centred(a), "cosine"), pdist(_centred(b), "cosine")).statistic)
