"""Speed and memory of `resonance` against the plain loops: `python benchmarks/infodynamics.py [--full]`.

40,008 examples (5,001 steps of 8), 3 classes, window 160. The loop oracle is timed on a slice and extrapolated by the
number of divergences (--full runs it to the end: minutes). Exits with 1 when a bar is missed.
"""

import argparse
import sys
import tracemalloc
from pathlib import Path

import numpy as np

from _bars import seconds, verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.oracles import infodynamics as oracle

from finetrace.lenses.infodynamics.measures import resonance, softmax

EXAMPLES, CLASSES, WINDOW = 40_008, 3, 160
SLICE = 2 * WINDOW + 80  # examples of the slice
BAR_RATIO, BAR_SECONDS, BAR_ERROR, BAR_MEMORY_GROWTH = 1000, 0.5, 1e-12, 1.1


def training_like(m: int) -> np.ndarray:
    """(example, class) probabilities of a classifier whose confidence grows along the run."""
    rng = np.random.default_rng(0)
    gold = np.eye(CLASSES)[rng.integers(0, CLASSES, m)]
    return softmax(gold * np.linspace(0, 8, m)[:, None] + rng.normal(0, 1, (m, CLASSES)))


def divergences(m: int) -> int:
    """How many pairs the loops compare: novelty and transience at `WINDOW` lags where the window is complete."""
    return 2 * (m - WINDOW) * WINDOW


def peak_bytes(m: int) -> int:
    """Extra memory at the peak of one call, beyond its input, as allocated through numpy and Python."""
    p = training_like(m)
    tracemalloc.start()
    resonance(p, WINDOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="run the loop oracle over all examples")
    full = parser.parse_args().full
    p = training_like(EXAMPLES)
    part = p if full else p[-SLICE:]

    fast = seconds(lambda: resonance(p, WINDOW), repeats=5)
    found: dict[str, np.ndarray] = {}
    loops = seconds(lambda: found.update(oracle.dynamics(part, WINDOW)))
    same = resonance(part, WINDOW)
    error = max(float(np.nanmax(np.abs(getattr(same, name) - value))) for name, value in found.items())
    total = loops * divergences(EXAMPLES) / divergences(len(part))
    small, large = peak_bytes(EXAMPLES), peak_bytes(4 * EXAMPLES)
    growth = large / (4 * small)
    windows = [8, 40, 80, 160]
    several = seconds(lambda: resonance(p, windows), repeats=3)

    print(f"series                    {EXAMPLES:,} x {CLASSES}, window {WINDOW}")
    print(
        f"loop oracle               {loops:.2f} s for {divergences(len(part)):,} divergences ({len(part):,} examples)"
    )
    how = "measured" if full else "extrapolated by the number of divergences"
    print(f"loop oracle, whole series {total:.0f} s ({how})")
    print(f"resonance()               {fast:.4f} s (best of 5)")
    print(f"windows {windows}   {several:.4f} s in one pass (best of 3)")
    print(f"peak extra memory         {small / 2**20:.1f} MiB; {large / 2**20:.1f} MiB for 4 times the examples")
    bars = [
        (f"at least {BAR_RATIO:,} times faster than the loops", total / fast, total / fast >= BAR_RATIO, "{:,.0f}x"),
        (f"under {BAR_SECONDS} s", fast, fast < BAR_SECONDS, "{:.4f} s"),
        (f"all six signals within {BAR_ERROR:g} of the loops", error, error <= BAR_ERROR, "{:.1e}"),
        ("memory linear in examples", growth, growth < BAR_MEMORY_GROWTH, "{:.2f} of proportional"),
    ]
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
