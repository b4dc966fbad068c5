"""Speed of the similarity measures: `python benchmarks/similarity.py`.

1,000 examples x 384 dimensions x 7 layers (MiniLM), each layer at one checkpoint against the same layer at another: all
five measures with the intervals of CKA from 20 groups, against CKA alone by the naive formula
(three pairs of kernel matrices), once and repeated for the intervals. Exits with 1 when a bar is missed.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from _bars import seconds, verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.oracles import similarity as oracle

from finetrace.lenses.intervals import groups_of
from finetrace.lenses.similarity.measures import MEASURES, compare, linear_cka, represent

EXAMPLES, DIM, LAYERS, GROUPS = 1_000, 384, 7, 20
BAR_CKA, BAR_INTERVALS, BAR_SECONDS, BAR_ERROR = 3, 15, 5, 1e-10


def layers(seed: int) -> list[np.ndarray]:
    """(example, dim) float32 per layer; deeper ones have moved further from those of seed 0,
    with an uneven spectrum."""
    base, moved = np.random.default_rng(0), np.random.default_rng(seed)
    scales = np.arange(1, DIM + 1) ** -0.5
    return [((base.normal(size=(EXAMPLES, DIM)) + seed * layer / LAYERS * moved.normal(size=(EXAMPLES, DIM))) * scales
             ).astype(np.float32) for layer in range(LAYERS)]


def main() -> int:
    pairs = list(zip(layers(0), layers(1), strict=True))
    doubles = [(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs]
    groups = groups_of(EXAMPLES, GROUPS, seed=0)

    def everything(measures: tuple[str, ...] = MEASURES) -> list[object]:
        return [compare(represent(a, groups), represent(b, groups), measures) for a, b in pairs]

    cka = seconds(lambda: [linear_cka(a, b) for a, b in pairs], 3)
    naive = seconds(lambda: [oracle.naive_cka(a, b) for a, b in doubles])
    with_intervals, total = seconds(lambda: everything(("cka",)), 3), seconds(everything, 3)
    error = max(abs(linear_cka(a, b) - oracle.naive_cka(*double))
                for (a, b), double in zip(pairs, doubles, strict=True))
    kept = (1 - 1 / GROUPS) ** 2  # a left-out group makes the matrices smaller
    repeated = naive * (1 + GROUPS * kept)

    print(f"representations             {LAYERS} x {EXAMPLES:,} x {DIM}")
    for measure in MEASURES:
        print(f"{measure:<27} {seconds(partial(everything, (measure,))):.3f} s, decompositions included")
    print(f"all five, with intervals    {total:.3f} s")
    print(f"CKA                         {cka:.3f} s; naive formula {naive:.2f} s")
    print(f"CKA with intervals          {with_intervals:.3f} s; naive formula {repeated:.1f} s (extrapolated)")
    bars = [
        (f"CKA at least {BAR_CKA} times faster than the naive formula", naive / cka, naive / cka >= BAR_CKA, "{:.1f}x"),
        (f"with intervals at least {BAR_INTERVALS} times faster", repeated / with_intervals,
         repeated / with_intervals >= BAR_INTERVALS, "{:.1f}x"),
        (f"all measures and layers under {BAR_SECONDS} s", total, total < BAR_SECONDS, "{:.2f} s"),
        (f"CKA within {BAR_ERROR:g} of the naive formula", error, error < BAR_ERROR, "{:.1e}"),
    ]
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
