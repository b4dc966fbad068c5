"""What benchmarks share: the best of several timings, and the verdict."""

import time
from collections.abc import Callable, Iterable

NOT_MEASURED = 77  # exit code of a benchmark that lacks what it needs; `make bench` tells it from a missed bar


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Shortest wall time of a call."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def verdict(bars: Iterable[tuple[str, float, bool, str]]) -> int:
    """Print PASS or FAIL for each (bar, measured value, whether it is met, format); exit code 0 if all are met."""
    bars = list(bars)
    for name, value, met, pattern in bars:
        print(f"{'PASS' if met else 'FAIL'}  {name}: {pattern.format(value)}")
    return 0 if all(met for _, _, met, _ in bars) else 1
