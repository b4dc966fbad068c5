"""Closest pairs of same-label clusters in order, without ever holding all pairs.

Centroid linkage is neither monotone nor reducible (a merged cluster may be closer to a third than its parts were), so
nearest-neighbour chains do not apply. Each pair of clusters belongs to the younger of the two; each cluster hands out
its own pairs in ascending order and remembers only the last one; a heap holds one candidate per cluster. Memory is
linear in the number of points.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np

AHEAD = 16
"""Pairs that a cluster looks up at a time."""


@dataclass
class Agglomeration:
    """Clusters of the points `members`; a cluster is named by its smallest row, and starts as one point."""

    points: np.ndarray
    """(point, dim) float64, all points of the data set."""
    labels: np.ndarray
    """(point,) int64."""
    members: np.ndarray
    """(member,) int64 ascending rows that take part; the others never merge."""
    sums: np.ndarray = field(init=False)
    """(point, dim): sum of the members of the cluster of that name."""
    sizes: np.ndarray = field(init=False)
    """(point,): number of its members; 0: no cluster of that name."""
    births: np.ndarray = field(init=False)
    """(point,): order in which clusters came to be; points first, in the order of rows."""

    def __post_init__(self) -> None:
        count = len(self.points)
        self.sums, self.sizes, self.births = self.points.copy(), np.zeros(count, np.int64), np.arange(count)
        self.sizes[self.members] = 1
        self._born = count
        self._ahead: dict[int, list[tuple[float, int, int]]] = {}
        self._last: dict[int, tuple[float, int, int]] = {}
        member_labels = self.labels[self.members]
        self._place = np.zeros(count, np.int64)
        self._near = {int(label): self._table(self.members[member_labels == label])
                      for label in np.unique(member_labels)}
        self._heap: list[tuple[float, int, int, int, int]] = []
        for row in self.members.tolist():
            self._offer(row)

    def pop(self) -> tuple[float, int, int] | None:
        """The next pair (distance, smaller name, larger name) by distance, then names; None when all pairs have been
        handed out.

        A pair is handed out once, while both clusters live; `merge` it, or leave it, which discards it for good.
        """
        while self._heap:
            distance, low, high, owner, born = heapq.heappop(self._heap)
            if self.births[owner] != born or not self.sizes[owner]:
                continue
            partner = low + high - owner
            alive = self.sizes[partner] > 0 and self.births[partner] < born
            self._offer(owner)
            if alive:
                return distance, low, high
        return None

    def merge(self, low: int, high: int) -> None:
        """Unite two clusters; the new one is the youngest and keeps the smaller name."""
        self.sums[low] += self.sums[high]
        self.sizes[low] += self.sizes[high]
        self.sizes[high] = 0
        self.births[low] = self._born
        self._born += 1
        label = int(self.labels[low])
        table = self._near[label]
        table.enter(int(self._place[low]), self.sums[low] / self.sizes[low])
        if 2 * np.count_nonzero(self.sizes[table.names]) < len(table.names):
            self._near[label] = self._table(table.names[self.sizes[table.names] > 0])
        for name in (low, high):
            self._ahead.pop(name, None)
            self._last.pop(name, None)
        self._offer(low)

    def _offer(self, owner: int) -> None:
        """Put the owner's next pair on the heap, if it has one."""
        queue = self._ahead.get(owner)
        if not queue:
            queue = self._look_up(owner)
            if not queue:
                self._ahead.pop(owner, None)
                return
            self._ahead[owner] = queue
        pair = queue.pop()
        self._last[owner] = pair
        heapq.heappush(self._heap, (*pair, owner, int(self.births[owner])))

    def _table(self, names: np.ndarray) -> "_Table":
        self._place[names] = np.arange(len(names))
        return _Table(names, self.sums[names] / self.sizes[names, None])

    def _look_up(self, owner: int) -> list[tuple[float, int, int]]:
        """The next pairs of the owner with older clusters after the last one handed out, in descending order."""
        table = self._near[int(self.labels[owner])]
        centroid = self.sums[owner] / self.sizes[owner]
        squares, slack = table.rough(centroid)
        valid = (self.sizes[table.names] > 0) & (self.births[table.names] < self.births[owner])
        last = self._last.get(owner)
        if last is not None:
            valid &= squares >= last[0] ** 2 - slack
        names, squares = table.names[valid], squares[valid]
        count = AHEAD
        while len(names):
            # exact distances for those that may be among the next; none of the others is closer than `reach`
            complete = count >= len(names)
            reach = np.inf if complete else float(np.partition(squares, count - 1)[count - 1]) + slack
            near = names[squares <= reach + slack]
            difference = self.sums[near] / self.sizes[near, None] - centroid
            exact = (difference**2).sum(axis=1)
            near, exact = near[exact <= reach], exact[exact <= reach]
            distances, low, high = np.sqrt(exact), np.minimum(near, owner), np.maximum(near, owner)
            if last is not None:
                d, l, h = last
                later = (distances > d) | ((distances == d) & ((low > l) | ((low == l) & (high > h))))
                distances, low, high = distances[later], low[later], high[later]
            if len(distances) or complete:
                order = np.lexsort((high, low, distances))[::-1]
                return list(zip(distances[order].tolist(), low[order].tolist(), high[order].tolist(), strict=True))
            count *= 4
        return []


class _Table:
    """Centroids of one label, for rough distances to all of them at once."""

    def __init__(self, names: np.ndarray, centroids: np.ndarray):
        self.names = names
        self.shift = centroids.mean(axis=0)  # near the origin, squares lose fewer digits
        self.centroids = centroids - self.shift
        self.squares = np.einsum("ij,ij->i", self.centroids, self.centroids)

    def enter(self, place: int, centroid: np.ndarray) -> None:
        """Replace one centroid."""
        self.centroids[place] = centroid - self.shift
        self.squares[place] = self.centroids[place] @ self.centroids[place]

    def rough(self, centroid: np.ndarray) -> tuple[np.ndarray, float]:
        """Squared distances (cluster,) to a centroid by one product, and how far they may be from those by
        differences."""
        moved = centroid - self.shift
        squared_norm = float(moved @ moved)
        largest = float(np.abs(self.shift).max()) + np.sqrt(max(squared_norm, float(self.squares.max())))
        slack = (8 * (len(moved) + 8) * np.finfo(np.float64).eps * largest
                 * np.sqrt(max(squared_norm, float(self.squares.max()))))
        return self.squares - 2 * (self.centroids @ moved) + squared_norm, max(slack, 1e-300)


def merge_all(points: np.ndarray, labels: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge same-label clusters closest first until one per label is left, with no look at other labels.

    Returns the merged names (merge, 2) int64, smaller first, and their distances (merge,) float64.
    """
    clusters = Agglomeration(points, labels, members)
    pairs, distances = [], []
    while (closest := clusters.pop()) is not None:
        distance, low, high = closest
        clusters.merge(low, high)
        pairs.append((low, high))
        distances.append(distance)
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(distances)


def names_after(count: int, pairs: np.ndarray) -> np.ndarray:
    """(point,) int64: the cluster (smallest row) of each of `count` points after the given merges (merge, 2)."""
    parent = np.arange(count)
    for low, high in pairs.tolist():
        parent[high] = low
    while True:  # names only fall along the chain; a few doublings reach its end
        above = parent[parent]
        if (above == parent).all():
            return parent
        parent = above
