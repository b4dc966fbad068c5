"""How often 95 % intervals hold the truth, at 56, 277, 872 and 3,000 examples; bar: 90 to 98 % of samples.

Reference in the same run: what stood there before (Wilson's interval over words, the jackknife of the ECE). The trials
are in _samples.py.

    python benchmarks/coverage.py [--samples 400] [--examples 56 277 872 3000] [--only words seeds]
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import _samples
from _bars import verdict

PARTS = ("words", "micro_f1", "differences", "facts", "calibration", "proper_scores", "cones", "spectra", "similar",
         "slopes", "seeds")
MOST_SENTENCES = 277  # of `spectra`: a sample takes the spectra of 21 layers


def trials_of(part: str, random: np.random.Generator, count: int) -> list[_samples.Trial]:
    """The trials of one part at samples of `count` examples."""
    match part:
        case "words":
            return [_samples.words(c, rate) for c in (0.0, 0.1) for rate in (0.5, 0.8, 0.95)]
        case "micro_f1":
            return [_samples.micro_f1(rate) for rate in (0.8, 0.97, 0.995)]
        case "differences":
            return [_samples.differences(*pair) for pair in ((0.5, 0.5), (0.8, 0.9), (0.97, 0.9))]
        case "facts":
            return [_samples.facts(rate) for rate in (0.1, 0.5, 0.995)]
        case "calibration":
            return [_samples.calibration(gap) for gap in (0.0, 0.05, 0.1, 0.2)]
        case "proper_scores":
            return [_samples.proper_scores]
        case "cones":
            return [_samples.cones(np.mean([_samples.own_and_other(*_samples.classes(random, count))[0]
                                            for _ in range(2000)], axis=0))]
        case "spectra" if count <= MOST_SENTENCES:
            samples = [_samples.spectrum(random, count)[0] for _ in range(200)]
            whole = _samples.spectrum(random, 3000)[0]
            return [_samples.spectra({name: float(np.mean([sample[name] for sample in samples])) for name in whole},
                                     whole)]
        case "similar":
            return [_samples.similar(shared) for shared in (0.2, 0.6, 0.9)]
        case "slopes":
            return [_samples.slopes(count // share, correlation) for share in (10, 20, 40)
                    for correlation in (0.0, 0.6) if count >= 277]
        case "seeds":
            return [_samples.seeds(number) for number in (2, 3, 5, 10)]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--examples", type=int, nargs="+", default=[56, 277, 872, 3000])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    bars = []
    for count in asked.examples:
        for trial in (trial for part in asked.only for trial in trials_of(part, random, count)):
            held: dict[str, list[bool]] = {}
            for _ in range(asked.samples):
                for name, hit in trial(random, count):
                    held.setdefault(name, []).append(hit)
            for name, hits in held.items():
                share = float(np.mean(hits))
                if ": " in name:
                    print(f"      {count:5,} examples, {name}: {share:.3f}", flush=True)
                else:
                    bars.append((f"{count:5,} examples, {name}", share, 0.9 <= share <= 0.98, "{:.3f}"))
    return verdict(bars)


if __name__ == "__main__":
    raise SystemExit(main())
