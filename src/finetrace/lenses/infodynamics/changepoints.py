"""Change points: where the mean level of a signal shifts, by exactly minimised penalised least squares."""

from dataclasses import dataclass

import numpy as np

_SD_OF_MEDIAN = 1 / (0.6744897501960817 * np.sqrt(2))  # of the median absolute difference of two normal numbers
_MOST_BLOCKS = 2000  # the search is quadratic at worst: 2,000 blocks take less than 0.1 s


@dataclass(frozen=True)
class ChangePoints:
    """The best piecewise-constant description of a signal.

    positions: (change,) int, first entry of each new segment, ascending; empty = no change found.
    means: (change + 1,) float64, level of each segment in the signal's unit. block: entries averaged before the search.
    noise_sd: standard deviation of a block's mean about its level, in the signal's unit, as estimated.
    penalty: price of one change, in squared units of the signal.
    """

    positions: np.ndarray
    means: np.ndarray
    block: int
    noise_sd: float
    penalty: float


def change_points(
    signal: np.ndarray, *, block: int | None = None, penalty: float | None = None, min_blocks: int = 2
) -> ChangePoints:
    """Shifts of the mean level: minimises sum of squares about the segment means + penalty * number of changes.

    The signal is first averaged over blocks; the minimum over all segmentations of the blocks is then found exactly by
    PELT (Killick, Fearnhead and Eckley 2012). With blocks of more than one entry, each change is then moved to the best
    entry nearby, and dropped if it is not worth its penalty (a block that straddles a jump looks like its own level).
    A slow trend is described by several steps.

    signal: (time,) finite float, e.g. curbed novelty.
    block: entries per block; None = 1, or as many as leave 2,000 blocks. Overlapping windows make neighbouring entries
        alike, so give at least the window for novelty and resonance. The noise is the larger of two estimates, from
        the differences of neighbouring blocks and of blocks two apart, since neighbours still share windows.
    penalty: None = 3 * noise variance * ln(blocks) * (1 + 8 / blocks): the modified BIC of Zhang and Siegmund 2007 for
        a mean shift, and a margin for a noise that few blocks tell badly. Of series without a change at most 7 %
        get one.
    min_blocks: fewest blocks of a segment.
    """
    y = np.asarray(signal, dtype=np.float64)
    if y.ndim != 1 or y.size == 0 or not np.isfinite(y).all():
        raise ValueError(f"the signal (shape {y.shape}) must be one-dimensional, not empty, without NaN: curb it first")
    if block is None:
        block = max(1, -(-len(y) // _MOST_BLOCKS))
    if block < 1 or min_blocks < 1:
        raise ValueError(f"block is {block} and min_blocks {min_blocks}: both must be at least 1")
    starts = np.arange(max(len(y) // block, 1)) * block  # the last block takes the remainder
    ends = np.append(starts[1:], len(y))
    means = np.add.reduceat(y, starts) / (ends - starts)
    if len(means) < 2 * min_blocks:
        raise ValueError(
            f"{len(y)} entries make {len(means)} blocks of {block}: two segments of {min_blocks} blocks do not fit; "
            "use a smaller block"
        )
    noise_sd = max(float(np.median(np.abs(means[apart:] - means[:-apart]))) for apart in (1, 2)) * _SD_OF_MEDIAN
    if penalty is None:
        floor = 1e-9 * float(np.sum((means - means.mean()) ** 2))  # a noiseless step signal: rounding is no change
        penalty = max(3 * noise_sd**2 * float(np.log(len(means))) * (1 + 8 / len(means)), floor)
    if penalty < 0:
        raise ValueError(f"penalty is {penalty}: it must not be negative")
    edges = np.concatenate([[0], starts[_pelt(means, penalty, min_blocks)], [len(y)]]).astype(np.int64)
    if block > 1:
        edges = _refined(y, edges, block, penalty)
    levels = np.add.reduceat(y, edges[:-1]) / np.diff(edges)
    return ChangePoints(edges[1:-1], levels, block, noise_sd, float(penalty))


def _pelt(y: np.ndarray, penalty: float, shortest: int) -> np.ndarray:
    """(change,) int, first index of every segment but the first, of the cheapest segmentation.

    Not by a library: ruptures 1.1 forgets a start at once where segments have a shortest length, and so misses the
    minimum of some signals (2 of 3,949 random ones, by up to 2 % of the cost).
    """
    n = len(y)
    y = y - y.mean()  # keeps the difference of cumulative sums exact enough for long, barely moving signals
    sums, squares = np.concatenate([[0.0], np.cumsum(y)]), np.concatenate([[0.0], np.cumsum(y * y)])
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    previous = np.zeros(n + 1, dtype=np.int64)
    starts = np.array([0], dtype=np.int64)
    expiry = np.array([n + 1], dtype=np.int64)
    for end in range(shortest, n + 1):
        total = sums[end] - sums[starts]
        cost = best[starts] + squares[end] - squares[starts] - total * total / (end - starts)
        winner = int(np.argmin(cost))
        best[end], previous[end] = cost[winner] + penalty, starts[winner]
        # A start that costs more than closing a segment here can never win once a segment from here may end.
        expiry = np.where(cost > best[end], np.minimum(expiry, end + shortest), expiry)
        opens = end + 1 - shortest  # may begin the segment that ends at end + 1
        keep = expiry > end + 1
        starts, expiry = starts[keep], expiry[keep]
        if opens >= shortest:
            starts, expiry = np.append(starts, opens), np.append(expiry, n + 1)
    changes = []
    at = n
    while (at := int(previous[at])) > 0:
        changes.append(at)
    return np.array(changes[::-1], dtype=np.int64)


def _refined(y: np.ndarray, edges: np.ndarray, block: int, penalty: float) -> np.ndarray:
    """Segment edges at the best entry within a block's reach, without changes that gain less than the penalty."""
    sums = np.concatenate([[0.0], np.cumsum(y - y.mean())])
    moved = edges.tolist()
    while True:
        before, gains = list(moved), []
        for i in range(1, len(moved) - 1):
            low, high = moved[i - 1], moved[i + 1]
            at = np.arange(max(low + 1, moved[i] - block), min(high, moved[i] + block + 1))
            left, right = (sums[at] - sums[low]) / (at - low), (sums[high] - sums[at]) / (high - at)
            gain = (at - low) * (high - at) / (high - low) * (left - right) ** 2 / block  # in units of block means
            moved[i] = int(at[np.argmax(gain)])
            gains.append(float(gain.max()))
        if moved != before:  # a gain counts once its neighbours rest; every move explains more, so this ends
            continue
        if not gains or min(gains) >= penalty:
            return np.array(moved, dtype=np.int64)
        del moved[1 + int(np.argmin(gains))]
