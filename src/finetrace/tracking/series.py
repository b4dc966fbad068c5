"""Dense series as a few honest points: one rule for the publisher and the live follower."""

import math
import re
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
        """At most `points` of the points, chosen by `thin`."""
        kept = thin(self.steps, self.values, points)
        return Series(self.name, self.steps[kept], self.values[kept])


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
    picked = set(ends[:points])
    if points > 4:
        dense = steps[-1] - steps[0] + 1 == count
        place = steps if dense else np.arange(count)
        picked |= set(np.flatnonzero(place % stride(count, points) == 0).tolist())
    return np.array(sorted(picked), dtype=np.int64)


def stride(total: int, points: int) -> int:
    """Distance between kept steps when `total` steps become at most `points` points, four of them for the extremes."""
    return max(1, math.ceil(total / max(1, points - 4))) if total > points else 1


def metric_name(name: str) -> str:
    """A name that MLflow accepts: letters, digits, `_ - . : /`, blanks; no empty path parts; 250 characters."""
    parts = [part for part in _FORBIDDEN.sub("_", name).split("/") if part.strip(".") != ""]
    return "/".join(parts)[:_NAME_LENGTH].rstrip("/") or "_"
