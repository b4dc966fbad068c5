"""How often 95 % intervals hold the truth, at 56, 277, 872 and 3,000 examples; bar: 90 to 98 % of samples.

Reference in the same run: what stood there before (Wilson's interval over words, the jackknife of the ECE).

    python benchmarks/coverage.py [--samples 400] [--examples 56 277 872 3000]
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from _bars import verdict
from finetrace.lenses.calibration.error_intervals import error_interval, filled_bins
from finetrace.lenses.edges.metrics import f1_difference
from finetrace.lenses.geometry.cones import own_and_other
from finetrace.lenses.intervals import groups_of, jackknife_interval, share_interval, wilson_interval

Ends = tuple[float, float]
Trial = Callable[[np.random.Generator, int], Iterator[tuple[str, bool]]]
"""One sample of some size: name of an interval, whether it held the truth."""
BINS, WORDS = 15, 8


def words(correlation: float, rate: float) -> Trial:
    """Words right at a rate; those of a sentence with a correlation."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        sentence = np.arange(count) // WORDS
        rates: float | np.ndarray = rate
        if correlation:
            strength = 1 / correlation - 1
            rates = random.beta(rate * strength, (1 - rate) * strength, int(sentence.max()) + 1)[sentence]
        right = random.random(count) < rates
        name = f"accuracy {rate:g} of words, correlation {correlation:g}"
        ends = share_interval(right, sentence)
        yield name, bool(ends[0] <= rate <= ends[1])
        low, high = wilson_interval(int(right.sum()), count)
        yield f"before: {name}", bool(low <= rate <= high)

    return trial


def calibration(gap: float) -> Trial:
    """A classifier that is surer by `gap` than it is right, at every confidence."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        confidence = 0.6 + 0.4 * random.random(count)
        right = (random.random(count) < confidence - gap).astype(np.float64)
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        bins = filled_bins(place, confidence, right, np.arange(count))
        for statistic in ("ece", "mce"):
            low, high = error_interval(bins, statistic, draws=200)
            yield f"{statistic} of a gap of {gap:g}", low <= gap <= high
        group = groups_of(count, 20, 0)
        sums = np.stack([np.bincount(place[group != g], (confidence - right)[group != g], minlength=BINS)
                         for g in range(20)])
        kept = count - np.bincount(group)
        low, high = jackknife_interval(float(np.abs(bins.gaps) @ bins.share), np.abs(sums).sum(axis=1) / kept)
        yield f"before: ece of a gap of {gap:g}", bool(low <= gap <= high)

    return trial


def differences(first: float, second: float) -> Trial:
    """F1 of two probes on the same sentences of one word; half of the words go together."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        drawn = random.random((2, count))
        drawn[1] = np.where(random.random(count) < 0.5, drawn[0], drawn[1])
        right = drawn < np.array([[first], [second]])
        _, low, high = f1_difference(*np.stack([right, ~right, ~right], axis=-1).astype(np.float64))
        yield f"difference of F1 {first:g} and {second:g}", bool(low <= first - second <= high)

    return trial


def cones(truth: np.ndarray) -> Trial:
    """Two classes in eight dimensions: cosines with the own and the other class's mean."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        found = own_and_other(*classes(random, count), groups_of(count, 20, 0))
        low, high = jackknife_interval(found[0], found[1:])
        for name, held in zip(("own_class_cosine", "other_class_cosine"), (low <= truth) & (truth <= high),
                              strict=True):
            yield name, bool(held)

    return trial


def classes(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (row, 8) and labels (row,)."""
    labels = np.arange(count) % 2
    return random.normal(size=(count, 8)) + np.where(labels[:, None] == 0, 0.6, -0.2), labels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--examples", type=int, nargs="+", default=[56, 277, 872, 3000])
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    bars = []
    for count in asked.examples:
        cosines = np.mean([own_and_other(*classes(random, count))[0] for _ in range(2000)], axis=0)
        trials = [*(words(c, rate) for c in (0.0, 0.1) for rate in (0.5, 0.8, 0.95)),
                  *(calibration(gap) for gap in (0.0, 0.05, 0.1, 0.2)), cones(cosines),
                  *(differences(*pair) for pair in ((0.5, 0.5), (0.8, 0.9), (0.97, 0.9)))]
        for trial in trials:
            held: dict[str, list[bool]] = {}
            for _ in range(asked.samples):
                for name, hit in trial(random, count):
                    held.setdefault(name, []).append(hit)
            for name, hits in held.items():
                share = float(np.mean(hits))
                if name.startswith("before: "):
                    print(f"      {count:5,} examples, {name}: {share:.3f}")
                else:
                    bars.append((f"{count:5,} examples, {name}", share, 0.9 <= share <= 0.98, "{:.3f}"))
    return verdict(bars)


if __name__ == "__main__":
    raise SystemExit(main())
