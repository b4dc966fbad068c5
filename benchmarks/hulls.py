"""Speed of the hull probe: `python benchmarks/hulls.py [--reference]`.

Synthetic classes: Gaussian clouds around random centres. Reference: the same pairs of hulls decided one by one by HiGHS
(linear programs, scipy), which is what the definition asks for without certificates; the original program took 3 to
19 s for the first case on two cores. --reference times it on a few pairs and extrapolates by the number of pairs. Exits
with 1 when a bar is missed.
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import linprog

from _bars import verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from finetrace.lenses.hulls.clusters import Clusters
from finetrace.lenses.hulls.distances import label_distances
from finetrace.lenses.hulls.partition import estimate, probe

BAR_SEPARABLE, BAR_DISTANCES, BAR_MEMORY = 0.5, 2.0, 200 * 2**20
BAR_LINEAR, BAR_OVERLAPPING = 60.0, 60.0


def classes(points: int, dim: int, labels: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (point, dim) of unit noise around centres of the given spread, and their labels (point,)."""
    rng = np.random.default_rng(seed)
    which = np.arange(points) % labels
    return rng.normal(size=(points, dim)) + spread * rng.normal(size=(labels, dim))[which], which


def timed(call: Callable[[], Clusters], repeats: int = 1) -> tuple[float, Clusters]:
    """Best wall time in seconds and the answer."""
    best, found = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        found = call()
        best = min(best, time.perf_counter() - start)
    assert found is not None
    return best, found


def peak_bytes(call: Callable[[], object]) -> int:
    """Memory at the peak of one call beyond its input, as allocated through numpy and Python."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def reference_seconds(points: np.ndarray, labels: np.ndarray, pairs: int = 2) -> float:
    """All label pairs by linear programs, from the time of the first few."""
    found = np.unique(labels)
    bounds = [(None, None)] * (points.shape[1] + 1)
    start = time.perf_counter()
    for other in found[1 : 1 + pairs]:  # w . x + b >= 1 on one side, <= -1 on the other, as the original asks
        a, b = points[labels == found[0]], points[labels == other]
        rows = np.vstack([np.hstack([-a, -np.ones((len(a), 1))]), np.hstack([b, np.ones((len(b), 1))])])
        linprog(np.zeros(rows.shape[1]), A_ub=rows, b_ub=-np.ones(len(rows)), bounds=bounds, method="highs")
    return (time.perf_counter() - start) / pairs * len(found) * (len(found) - 1) / 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", action="store_true", help="time linear programs on a few label pairs, too")
    reference = parser.parse_args().reference
    bars: list[tuple[str, float, bool, str]] = []
    probe(*classes(50, 5, 3, 1.0))  # imports

    print("1,000 x 768, 5 labels, separable")
    for spread in (0.1, 1.0):
        points, labels = classes(1000, 768, 5, spread)
        seconds, found = timed(partial(probe, points, labels), repeats=3)
        start = time.perf_counter()
        label_distances(found)
        distances = time.perf_counter() - start
        print(f"  spread {spread}: probe {seconds:.3f} s, 10 exact distances {distances:.3f} s; {found.decisions}")
        if reference:
            print(f"  HiGHS for all label pairs: {reference_seconds(points, labels):.1f} s (extrapolated from two)")
        good = seconds < BAR_SEPARABLE and found.linear
        bars.append((f"separable, spread {spread}: under {BAR_SEPARABLE} s", seconds, good, "{:.3f} s"))
        total = seconds + distances
        bars.append((f"with distances: under {BAR_DISTANCES} s", total, total < BAR_DISTANCES, "{:.3f} s"))
    peak = peak_bytes(lambda: label_distances(probe(points, labels)))
    bars.append(("peak memory under 200 MiB", peak / 2**20, peak < BAR_MEMORY, "{:.0f} MiB"))

    print("5,000 x 768, 50 labels, linear")
    for spread in (0.05, 1.0):
        points, labels = classes(5000, 768, 50, spread)
        seconds, found = timed(partial(probe, points, labels))
        expected = estimate(len(points), points.shape[1], 50).linear_seconds
        print(f"  spread {spread}: probe {seconds:.2f} s (estimated {expected:.1f} s); {found.decisions}")
        good = seconds < BAR_LINEAR and found.linear
        bars.append((f"linear, spread {spread}: under {BAR_LINEAR:.0f} s", seconds, good, "{:.2f} s"))

    print("2,000 x 64, 17 labels, overlapping")
    for spread in (0.2, 0.0):
        points, labels = classes(2000, 64, 17, spread)
        seconds, found = timed(partial(probe, points, labels))
        expected = estimate(len(points), points.shape[1], 17).overlapping_seconds
        print(f"  spread {spread}: probe {seconds:.1f} s (estimated {expected:.0f} s), "
              f"{found.count} clusters, {sum(c.refused for c in found.components):,} refusals; {found.decisions}")
        good = seconds < BAR_OVERLAPPING and not found.linear and "undecided" not in found.decisions
        bars.append((f"overlapping, spread {spread}: under {BAR_OVERLAPPING:.0f} s, none undecided", seconds, good,
                     "{:.1f} s"))
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
