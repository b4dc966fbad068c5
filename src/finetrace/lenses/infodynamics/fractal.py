"""Adaptive fractal analysis: the Hurst exponent of a signal from how its roughness grows with scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.infodynamics.smoothing import detrend


@dataclass(frozen=True)
class HurstFit:
    """Result of `hurst_exponent`: the slope of log2 fluctuation against log2 scale, and the points behind it.

    exponent: 0.5 = no memory (white noise), > 0.5 = persistent, < 0.5 = turning back. se: standard error of the slope.
    r2: of the log-log line; far below 1 means that one exponent does not describe the signal.
    windows: (scale,) int, window lengths in entries. fluctuations: (scale,) float64, in the signal's unit.
    """

    exponent: float
    se: float
    r2: float
    windows: np.ndarray
    fluctuations: np.ndarray


def hurst_exponent(
    signal: np.ndarray, order: int = 1, q: float = 2.0, windows: Sequence[int] | None = None
) -> HurstFit:
    """Hurst exponent by adaptive fractal analysis (Gao et al. 2011; Riley et al. 2012).

    The profile u = cumsum(signal - mean) is detrended with windows of growing length W;
    F(W) = (sum |u - trend|^q / (length - 1))^(1/q) grows as ((W + 1) / 2)^H.

    signal: (time,) finite float, not constant. order: of the local polynomials. q: moment; q = 2 is the usual exponent,
    a different H at other q means a multifractal signal. windows: odd lengths in entries; None = 2^i + 1 for
    i = 3 .. round(log2 length) - 3: smaller windows hold too few entries and larger ones leave too few windows.
    """
    y = np.asarray(signal, dtype=np.float64)
    if y.ndim != 1 or not np.isfinite(y).all():
        raise ValueError(f"the signal (shape {y.shape}) must have one dimension and no NaN or infinity: curb it first")
    if q <= 0:
        raise ValueError(f"q is {q}: the moment must be positive")
    if windows is None:
        largest = round(np.log2(max(len(y), 1))) - 3
        windows = [2**i + 1 for i in range(3, largest + 1)]
        if len(windows) < 2:
            raise ValueError(f"the signal has {len(y)} entries: the default scales need at least 91; pass `windows`")
    lengths = np.unique(np.asarray(windows, dtype=np.int64))
    if len(lengths) < 2 or lengths[-1] > len(y):
        raise ValueError(f"windows {lengths.tolist()}: give at least two, none longer than the signal ({len(y)})")
    if np.ptp(y) == 0:
        raise ValueError("the signal is constant: it has no Hurst exponent")
    profile = np.cumsum(y - y.mean())
    residuals = (np.abs(detrend(profile, int(length), order)[1]) for length in lengths)
    fluctuations = np.array([(np.sum(r**q) / (len(y) - 1)) ** (1 / q) for r in residuals])
    x, z = np.log2((lengths + 1) / 2), np.log2(fluctuations)
    dx, dz = x - x.mean(), z - z.mean()
    slope = float(dx @ dz / (dx @ dx))
    errors = dz - slope * dx
    freedom = len(x) - 2
    se = float(np.sqrt(errors @ errors / freedom / (dx @ dx))) if freedom else float("nan")
    return HurstFit(slope, se, float(1 - errors @ errors / (dz @ dz)), lengths, fluctuations)
