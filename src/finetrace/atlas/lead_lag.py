"""Which of two signals of a training moves first: the cross-correlation of their changes, against shuffled seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import factorial
from typing import Literal

import numpy as np

from finetrace.seeds import generator

Verdict = Literal["first leads", "second leads", "together", "none", "undecided"]
LEVEL = 0.05
LEAST_SEEDS, MOST_SEEDS = 4, 64
"""Four have 24 orders, so that the least p is 1/24 = .042; of three it is 1/6."""
LEAST_CHANGES, MOST_LAG = 4, 6
_ORDERS, _RESAMPLES = 999, 500


@dataclass(frozen=True)
class LeadLag:
    """How the changes of two signals go together, a number per lag.

    lags: (lag,) int64, -L .. L, in checkpoints. A POSITIVE LAG MEANS THAT THE FIRST SIGNAL MOVES FIRST: the change of
        the first at checkpoint t is set beside that of the second at t + lag.
    correlation: (lag,) float64, in -1 .. 1; 0 for unrelated signals.
    low, high: (lag,) its 95 % band over resampled seeds;  null_low, null_high: (lag,) 95 % of what shuffled seeds give,
        both NaN with one seed.
    best_lag: where the correlation is farthest from what shuffled seeds give, in their standard deviations; 0 where
        nothing can be said.  best_low, best_high: 95 % of the best lags of resampled seeds.
    p: share of the orders of seeds whose best lag stands out as much: the search of the lags is paid for.  p_cell: the
        same among the best of all pairs of the cell: the search of pairs is paid for, too. NaN where undecided.
    verdict: of p_cell at .05;  reason: in words.  seeds, changes: how many there were.
    """

    lags: np.ndarray
    correlation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null_low: np.ndarray
    null_high: np.ndarray
    best_lag: int
    best_low: int
    best_high: int
    p: float
    p_cell: float
    verdict: Verdict
    reason: str
    seeds: int
    changes: int
