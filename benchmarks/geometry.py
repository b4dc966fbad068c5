"""Speed of the geometry lens against the double loop over token pairs: `python benchmarks/geometry.py`.

A review of 200 tokens, 13 layers, 768 wide, float32, on one core. The loop (the oracle of the tests) runs over all
layers in the same process; then all statistics of the French study for 100 reviews: cosines and their variance,
covariance trace, effective rank of ten stacked reviews, sentence vectors. Exits with 1 when a bar is missed.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two BLAS threads on busy cores would wait for each other

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import numpy as np
from tests.oracles import geometry as oracle

from _bars import seconds, verdict
from finetrace.lenses.geometry.gram import effective_rank_of_gram, gram
from finetrace.lenses.geometry.statistics import cosine_summary, covariance_trace, effective_rank

LAYERS, TOKENS, DIM, REVIEWS, STACKED = 13, 200, 768, 100, 10
BAR_SECONDS, BAR_RATIO, BAR_ALL_SECONDS, BAR_ERROR, BAR_RANK_ERROR = 0.020, 100, 3.0, 1e-6, 1e-6


def review(seed: int) -> np.ndarray:
    """(layer, token, dim) float32 of a fine-tuned kind: the common direction grows with the layer."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=DIM) * np.linspace(0, 2, LAYERS)[:, None, None]
    return (random.normal(size=(LAYERS, TOKENS, DIM)) + shared).astype(np.float32)


def all_statistics(reviews: list[np.ndarray]) -> tuple[list[object], np.ndarray]:
    """The study's statistics; the ten reviews in memory stand for a hundred that a pass over files would bring."""
    found: list[object] = []
    vectors = np.empty((LAYERS, REVIEWS, DIM), dtype=np.float32)
    for number in range(REVIEWS):
        states = reviews[number % len(reviews)]
        found.append((cosine_summary(states), [covariance_trace(layer) for layer in states]))
        vectors[:, number] = states[:, 0]
    for layer in range(LAYERS):
        found.append(effective_rank_of_gram(gram(np.concatenate([r[layer] for r in reviews[:STACKED]]))))
    return found, vectors


def main() -> int:
    states = review(0)
    cosine_summary(states)  # first call: BLAS threads start
    fast = seconds(lambda: cosine_summary(states), repeats=20)
    found = cosine_summary(states)
    pairs: list[np.ndarray] = []
    loop = seconds(lambda: pairs.extend(oracle.cosine_pairs(layer) for layer in states))
    error = max(float(np.abs(getattr(found, name) - [of(p) for p in pairs]).max())
                for name, of in (("mean", np.mean), ("variance", np.var), ("median", np.median)))
    ratio = loop / fast

    trace_fast = seconds(lambda: covariance_trace(states[-1]), repeats=10)
    trace_slow = seconds(lambda: oracle.covariance_trace(states[-1]))
    trace_error = abs(covariance_trace(states[-1]) / oracle.covariance_trace(states[-1].astype(np.float64)) - 1)
    reviews = [review(seed) for seed in range(STACKED)]
    stack = np.concatenate([r[-1] for r in reviews])
    rank_fast = seconds(lambda: effective_rank_of_gram(gram(stack)), repeats=3)
    rank_slow = seconds(lambda: oracle.effective_rank(stack[:TOKENS * 5].astype(np.float64)))
    rank_error = abs(float(effective_rank_of_gram(gram(stack))) / effective_rank(stack) - 1)
    everything = seconds(lambda: all_statistics(reviews))

    print(f"review                        {LAYERS} layers x {TOKENS} tokens x {DIM}, float32")
    print(f"double loop over pairs        {loop:.2f} s for {sum(map(len, pairs)):,} pairs")
    print(f"cosine_summary()              {1000 * fast:.1f} ms (best of 20): mean, variance, median, histogram")
    print(f"covariance trace, one layer   {1000 * trace_slow:.1f} ms by the matrix, {1000 * trace_fast:.2f} ms")
    print(f"effective rank, one layer     {1000 * rank_slow:.0f} ms by SVD with vectors ({TOKENS * 5:,} tokens), "
          f"{1000 * rank_fast:.0f} ms by Gram ({len(stack):,} tokens)")
    bars = [
        (f"a review's cosines under {1000 * BAR_SECONDS:.0f} ms", 1000 * fast, fast < BAR_SECONDS, "{:.1f} ms"),
        (f"at least {BAR_RATIO} times faster than the double loop", ratio, ratio >= BAR_RATIO, "{:,.0f}x"),
        (f"mean, variance, median within {BAR_ERROR:g} of the loop", error, error <= BAR_ERROR, "{:.1e}"),
        ("trace within 1e-9 of the matrix", trace_error, trace_error <= 1e-9, "{:.1e}"),
        (f"streamed effective rank within {BAR_RANK_ERROR:g}", rank_error, rank_error <= BAR_RANK_ERROR, "{:.1e}"),
        (f"statistics of {REVIEWS} reviews under {BAR_ALL_SECONDS:g} s", everything, everything < BAR_ALL_SECONDS,
         "{:.2f} s"),
    ]
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
