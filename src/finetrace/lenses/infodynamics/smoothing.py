"""Smoothing of long noisy signals: adaptive filter, Gaussian kernel, moving average, and scaling helpers."""

import math

import numpy as np


def adaptive_filter(signal: np.ndarray, span: int = 56, order: int = 1) -> np.ndarray:
    """Trend of a signal by the nonlinear adaptive filter of Gao and colleagues, with a window that scales with it.

    Local polynomials on overlapping windows of W = 4 * floor(length / span) + 1 entries, blended linearly where they
    overlap: about span / 2 pieces whatever the length, so a larger span keeps finer detail (128, 56, 32 are usual).
    Defined for every length >= 1: a signal shorter than `span` uses the smallest window of the rule, W = 5.

    signal: (time,) finite float. order: of the polynomials, 1 = lines. Returns (time,) float64 in the signal's unit.
    Sources: Gao et al. 2010 (denoising by adaptive filtering), Gao et al. 2011 (PLoS ONE, culturomics).
    """
    y = _checked(signal)
    if span < 1:
        raise ValueError(f"span is {span}: it must be at least 1")
    half = max(2 * max(len(y) // span, 1), order)
    return detrend(y, 2 * half + 1, order)[0]


def detrend(signal: np.ndarray, window_length: int, order: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Adaptive detrending: (trend, residual), which add up to the signal.

    With W = 2 n + 1, window j covers the entries j n .. j n + 2 n and neighbours share n + 1 entries. Each gets its
    least-squares polynomial; on a shared stretch the trend moves linearly from one polynomial to the next.
    A polynomial of degree <= order is returned unchanged, and the trend is linear in the signal.

    signal: (time,) finite float. window_length: odd, in entries, at least 2 * order + 1 and 3.
    Both results: (time,) float64. Source: Gao et al. 2010, 2011; defined here at every length.
    """
    y = _checked(signal)
    if order < 0:
        raise ValueError(f"order is {order}: the degree of the local polynomials must be 0 or more")
    if window_length % 2 == 0 or window_length < max(3, 2 * order + 1):
        raise ValueError(f"window_length is {window_length}: use an odd number of at least {max(3, 2 * order + 1)}")
    n, length = window_length // 2, len(y)
    last = (length - 1) // n - 1  # number of the last window; it runs to the end and holds n + 1 .. 2 n entries
    if last < 1:  # at most one window fits
        trend = _polynomial_fit(y[None], order)[0]
        return trend, y - trend
    full = np.lib.stride_tricks.sliding_window_view(y, window_length)[: last * n : n]
    fits = _polynomial_fit(full, order)  # (window, entry)
    final = _polynomial_fit(y[None, last * n :], order)[0]
    entering = np.vstack([fits[1:, : n + 1], final[: n + 1]])  # the next window's fit on the stretch shared with it
    weight = np.arange(n + 1) / n
    blended = (1 - weight) * fits[:, n:] + weight * entering
    trend = np.concatenate([fits[0, :n], blended[:, :n].ravel(), final[n:]])
    return trend, y - trend


def gaussian_smooth(signal: np.ndarray, sigma: float | None = None, fwhm: float | None = None) -> np.ndarray:
    """Weighted mean with a Gaussian kernel, renormalised at the ends so that constants are preserved.

    Exactly one width, in entries: sigma, or fwhm (full width at half maximum = 2.3548 sigma). The kernel is cut at nine
    sigma, where it is below 3e-18. signal: (time,) finite float. Returns (time,) float64 in the signal's unit.
    """
    y = _checked(signal)
    if (sigma is None) == (fwhm is None):
        raise ValueError("give exactly one width: sigma=... or fwhm=... (fwhm = 2.3548 sigma), in entries")
    width = sigma if sigma is not None else fwhm / math.sqrt(8 * math.log(2))  # type: ignore[operator]
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"the kernel's width is {width}: it must be positive")
    reach = min(math.ceil(9 * width), len(y) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    centre = y.mean()  # convolving deviations keeps rounding relative to the signal's spread
    total = _convolve_same(y - centre, kernel)
    return total / _convolve_same(np.ones(len(y)), kernel) + centre


def moving_average(signal: np.ndarray, n: int = 5) -> np.ndarray:
    """Mean of each stretch of n entries: value j is mean(signal[j : j + n]). Returns (time - n + 1,) float64.

    signal: (time,) finite float. n: 1 to the signal's length.
    """
    y = _checked(signal)
    if not 1 <= n <= len(y):
        raise ValueError(f"n is {n} for a signal of {len(y)} entries: use 1 to {len(y)}")
    centre = y.mean()
    sums = np.concatenate([[0.0], np.cumsum(y - centre)])
    return (sums[n:] - sums[:-n]) / n + centre


def normalise(signal: np.ndarray, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """The signal stretched so that its smallest value is `low` and its largest `high`. NaN entries stay NaN.

    The unit is lost: two normalised curves cannot be compared in height. signal: (time,) float, not constant.
    """
    y = np.asarray(signal, dtype=np.float64)
    if y.ndim != 1 or np.isinf(y).any() or np.isnan(y).all():
        raise ValueError(f"the signal has shape {y.shape}: pass one dimension with finite entries (NaN is kept)")
    smallest, largest = np.nanmin(y), np.nanmax(y)
    if smallest == largest:
        raise ValueError(f"the signal is constant ({smallest}): there is no range to stretch")
    return low + (high - low) * ((y - smallest) / (largest - smallest))


def zero_centre(signal: np.ndarray) -> np.ndarray:
    """Deviations from the mean. signal: (time,) finite float. Returns (time,) float64."""
    y = _checked(signal)
    return y - y.mean()


def _checked(signal: np.ndarray) -> np.ndarray:
    y = np.asarray(signal, dtype=np.float64)
    if y.ndim != 1 or y.size == 0:
        raise ValueError(f"the signal has shape {y.shape}: pass one dimension with at least one entry")
    if not np.isfinite(y).all():
        raise ValueError(
            f"the signal holds NaN or infinity, first at {int(np.argmin(np.isfinite(y)))}: "
            "cut incomplete windows off first (infodynamics.curb)"
        )
    return y


def _polynomial_fit(windows: np.ndarray, order: int) -> np.ndarray:
    """Least-squares polynomials of degree <= order, evaluated at the entries themselves. (window, entry) -> same.

    One orthonormal basis serves all windows, so the cost is linear in the number of entries.
    """
    entries = windows.shape[1]
    x = np.linspace(-1, 1, entries)
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(x, min(order, entries - 1)))
    return (windows @ basis) @ basis.T


def _convolve_same(y: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = len(kernel) // 2
    if len(kernel) < 512:
        full = np.convolve(y, kernel)
    else:
        size = len(y) + len(kernel) - 1
        padded = 1 << (size - 1).bit_length()
        full = np.fft.irfft(np.fft.rfft(y, padded) * np.fft.rfft(kernel, padded), padded)[:size]
    return full[reach : reach + len(y)]
