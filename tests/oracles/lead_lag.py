"""Cross-correlation of changes against orders of seeds, by loops over single numbers in float64."""

import itertools
import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
"""(seed, time)"""


def standardised(row: Sequence[float]) -> list[float]:
    """Changes of one seed, of mean 0 and variance 1."""
    changes = [row[t + 1] - row[t] for t in range(len(row) - 1)]
    mean = sum(changes) / len(changes)
    spread = math.sqrt(sum((change - mean) ** 2 for change in changes) / len(changes))
    return [(change - mean) / spread for change in changes]


def correlation(first: Rows, second: Rows, lag: int) -> float:
    """The first's change at t beside the second's at t + lag, over all seeds and t."""
    products = squares = other_squares = 0.0
    for one, other in zip(first, second, strict=True):
        a, b = standardised(one), standardised(other)
        for t in range(len(a)):
            if 0 <= t + lag < len(b):
                products += a[t] * b[t + lag]
                squares += a[t] ** 2
                other_squares += b[t + lag] ** 2
    return products / math.sqrt(squares * other_squares)


def sizes(first: Rows, second: Rows, order: Sequence[int], lag: int) -> float:
    """The sum of products with the second's seeds in another order."""
    total = 0.0
    for i, j in enumerate(order):
        a, b = standardised(first[i]), standardised(second[j])
        total += sum(a[t] * b[t + lag] for t in range(len(a)) if 0 <= t + lag < len(b))
    return total


def judged(signals: Sequence[Rows], lags: Sequence[int]) -> dict[tuple[int, int], tuple[float, float, int]]:
    """p, p of the cell and best lag of every pair of signals, by all orders of the seeds."""
    orders = list(itertools.permutations(range(len(signals[0]))))
    stands_out: dict[tuple[int, int], list[float]] = {}
    best_lag = {}
    for i, j in itertools.combinations(range(len(signals)), 2):
        largest = [0.0] * len(orders)
        most = -1.0
        for lag in lags:
            sums = [sizes(signals[i], signals[j], order, lag) for order in orders]
            mean = sum(sums) / len(sums)
            spread = math.sqrt(sum((each - mean) ** 2 for each in sums) / len(sums))
            far = [abs(each - mean) / spread for each in sums]
            largest = [max(pair) for pair in zip(largest, far, strict=True)]
            if far[0] > most:
                most, best_lag[i, j] = far[0], lag
        stands_out[i, j] = largest
    best = [max(of_order) for of_order in zip(*stands_out.values(), strict=True)]
    return {pair: (share(found, found[0]), share(best, found[0]), best_lag[pair]) for pair, found in stands_out.items()}


def share(of: Sequence[float], least: float) -> float:
    return sum(each >= least - 1e-9 * (1 + least) for each in of) / len(of)
