"""Thins dense series to a few points, by one rule for the publisher and the live follower."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FORBIDDEN = re.compile(r"[^\w.\- :/]+", re.ASCII)
_NAME_LENGTH = 250  # MLflow's limit


@dataclass(frozen=True)
class Series:
    """One metric over time. steps: (point,) int64, strictly increasing; values: (point,) float64, may hold NaN."""

    name: str
    steps: np.ndarray
    values: np.ndarray

    def thinned(self, points: int) -> "Series":
        """At most `points` of the points, chosen by `thin`; none after the last finite one, see `shown`."""
        count = shown(self.values)
        steps, values = self.steps[:count], self.values[:count]
        indices = thin(steps, values, points)
        return Series(self.name, steps[indices], values[indices])


def shown(values: np.ndarray) -> int:
    """How many of a series' values, from the first on, are shown: up to the last finite one; all where none is finite.

    MLflow's lists and comparisons show the latest value of a metric: a loss that became NaN would hide what it had
    been, and sort as 0.
    """
    finite = np.flatnonzero(np.isfinite(values))
    return int(finite[-1]) + 1 if len(finite) else len(values)


def not_finite(series: Sequence[Series]) -> dict[str, str]:
    """A tag that names the series whose last values are not shown."""
    ends = [f"{curve.name} after step {curve.steps[count - 1]}" for curve in series
            if (count := shown(curve.values)) < len(curve.values)]
    return {"not_finite": "; ".join(ends)} if ends else {}


def thin(steps: np.ndarray, values: np.ndarray, points: int) -> np.ndarray:
    """Indices of the points to keep: all, or a regular stride plus the first, the last, the lowest and the highest.

    The choice depends on the series alone, so it is the same on every machine. A series with a value at every step is
    kept where `step % stride == 0`, which is what the live follower keeps too; any other series by position.
    """
    count = len(steps)
    if count <= points:
        return np.arange(count)
    ends = [0, count - 1]
    if not np.isnan(values).all():
        ends += [int(np.nanargmin(values)), int(np.nanargmax(values))]
    indices = set(ends[:points])
    if points > 4:
        is_dense = steps[-1] - steps[0] + 1 == count
        positions = steps if is_dense else np.arange(count)
        indices |= set(np.flatnonzero(positions % stride(count, points) == 0).tolist())
    return np.array(sorted(indices), dtype=np.int64)


def stride(total: int, points: int) -> int:
    """Distance between kept steps when `total` steps become at most `points` points, four of them for the extremes."""
    return max(1, math.ceil(total / max(1, points - 4))) if total > points else 1


def metric_name(name: str) -> str:
    """A name that MLflow accepts: letters, digits, `_ - . : /`, blanks; no empty path parts; 250 characters."""
    parts = [part for part in _FORBIDDEN.sub("_", name).split("/") if part.strip(".") != ""]
    return "/".join(parts)[:_NAME_LENGTH].rstrip("/") or "_"
