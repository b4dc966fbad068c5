"""What each lens finds where something is planted, and in a control where nothing is; docs/grounding.md says how to
read it.

    python benchmarks/grounding.py [--seeds 60] [--examples 20 56 150] [--only geometry hulls] [--markdown FILE]

Lenses that look at a model look at small ones that are trained here (`_toys.py`), with fewer seeds.

Bar: from some number of examples on the planted is found in at least 90 % of seeds; at every number something is
"found" in at most 10 % of controls.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from _bars import verdict
from _toys import facts_told, most_alike, most_helpful, roles_in_context, wrong_labels
from finetrace.lenses.calibration.measures import fit_temperature, intervals, probabilities_of
from finetrace.lenses.features.change import Units, feature_change
from finetrace.lenses.geometry.cones import own_and_other
from finetrace.lenses.geometry.summary import make_sample, spectral_estimates
from finetrace.lenses.hulls.partition import probe
from finetrace.lenses.infodynamics.changepoints import change_points
from finetrace.lenses.infodynamics.measures import curb, resonance, shuffled_order_null
from finetrace.lenses.infodynamics.slope import resonance_novelty_slope
from finetrace.lenses.intervals import bootstrap_weights, groups_of, jackknife_interval, percentile_interval
from finetrace.lenses.kernel.statistics import label_alignment
from finetrace.lenses.probes.linear import logistic_probe, logits, majority_floor, score
from finetrace.lenses.similarity.measures import compare, represent

DIM, WORDS, GROUPS = 16, 8, 20
Seen = tuple[float, bool]
"""What a lens says of one sample: its number, and whether it claims to have found something."""
Look = Callable[[np.random.Generator, int, bool], Seen]
"""A sample of some size, planted or control."""


@dataclass(frozen=True)
class Ground:
    """One line of the table. truth, control: what is planted, and what is not;  claim: when the lens has found it."""

    lens: str
    number: str
    truth: str
    control: str
    claim: str
    look: Look
    most: int = 60


def cka(random: np.random.Generator, count: int, planted: bool) -> Seen:
    one, other = random.normal(size=(2, count, DIM))
    if planted:
        other = np.sqrt(0.5) * one @ np.linalg.qr(random.normal(size=(DIM, DIM)))[0] + np.sqrt(0.5) * other
    group = groups_of(count, GROUPS, 0)
    found = compare(represent(one, group), represent(other, group), ["cka"])["cka"]
    return found.value, found.low > 0


def ranks(random: np.random.Generator, count: int, planted: bool) -> Seen:
    axes = np.array([1.0] * 4 + [0.15] * (DIM - 4)) if planted else np.ones(DIM)
    sentence = np.repeat(np.arange(count), WORDS)
    tokens = random.normal(size=(len(sentence), DIM)) * axes
    sample = make_sample(np.arange(0, len(sentence) + 1, WORDS), np.zeros(len(sentence), dtype=bool),
                         np.zeros(len(sentence), dtype=np.int64), sentences=np.arange(count), special_tokens=True,
                         draws=2, groups=GROUPS, seed=0)
    estimates = spectral_estimates(tokens, sample)
    at = estimates.names.index("participation_ratio")
    return float(estimates.values[at]), bool(jackknife_interval(estimates.values, estimates.resamples)[1][at] < DIM / 2)


def cones(random: np.random.Generator, count: int, planted: bool) -> Seen:
    labels = np.arange(count) % 2
    vectors = random.normal(size=(count, DIM)) + (0.8 * (2 * labels[:, None] - 1) * np.eye(DIM)[0] if planted else 0)
    cosines = own_and_other(vectors, labels, groups_of(count, GROUPS, 0))
    difference = cosines[:, 0] - cosines[:, 1]
    return float(difference[0]), bool(jackknife_interval(difference[0], difference[1:])[0] > 0)


def hulls(random: np.random.Generator, count: int, planted: bool) -> Seen:
    points, labels = random.normal(size=(count, 3)), np.arange(count) % 2
    if planted:
        points[:, 0] = np.abs(points[:, 0]) * (2 * labels - 1) + 0.3 * (2 * labels - 1)
    clusters = probe(points, labels).count
    return float(clusters), clusters == 2


def interleaved(random: np.random.Generator, count: int, planted: bool) -> Seen:
    points = random.uniform(0.1, 1.0, size=(count, 2)) * random.choice([-1, 1], size=(count, 2))
    labels = (points.prod(axis=1) > 0 if planted else points[:, 0] > 0).astype(int)
    clusters = probe(points, labels).count
    return float(clusters), clusters > 2


def probes(random: np.random.Generator, count: int, planted: bool) -> Seen:
    vectors = random.normal(size=(1, 2 * count, DIM))
    read = vectors[0, :, 0] + 0.5 * random.normal(size=2 * count) > 0
    labels = (read if planted else random.random(2 * count) < 0.5).astype(int)
    labels[:2] = 0, 1
    fitted = logistic_probe(vectors[:, :count], labels[:count], l2=[1.0])
    scores = score(logits(fitted, vectors[:, count:]), labels[count:], fitted.classes)
    return float(scores.accuracy[0]), bool(scores.low[0] > majority_floor(labels[:count], labels[count:]))


def curriculum(random: np.random.Generator, count: int, planted: bool) -> tuple[np.ndarray, int]:
    """Predictions (example, 2) for easy, then mixed examples, or for both in any order; the window."""
    sure = np.where(np.arange(10 * count) < 5 * count, 0.95, 0.6)
    first = np.where(random.random(10 * count) < 0.5, sure, 1 - sure) + random.uniform(-0.03, 0.03, 10 * count)
    rows = np.stack([first, 1 - first], axis=1)
    return rows if planted else random.permutation(rows), count // 2


def changes(random: np.random.Generator, count: int, planted: bool) -> Seen:
    rows, window = curriculum(random, count, planted)
    novelty = curb(resonance(rows, window), window).novelty
    at = change_points(novelty, block=window).positions + window
    near = bool(len(at)) and bool(np.abs(at - len(rows) / 2).min() <= 2 * window)
    return float(len(at)), near if planted else bool(len(at))


def persistence(random: np.random.Generator, count: int, planted: bool) -> Seen:
    """A model that changes its mind and stays with it, or one that wavers."""
    minds = np.repeat(random.normal(size=(10, 2)), count, axis=0)[:10 * count]
    scores = minds + 0.5 * random.normal(size=(10 * count, 2))
    rows = probabilities_of(scores if planted else random.permutation(scores))
    window = count // 4
    signals = curb(resonance(rows, window), window)
    null = shuffled_order_null(rows, window, permutations=99, seed=int(random.integers(2**31)))
    slope = resonance_novelty_slope(signals.novelty, signals.resonance, null)
    return slope.slope, slope.p_value <= 0.05


def alignment(random: np.random.Generator, count: int, planted: bool) -> Seen:
    features = random.normal(size=(count, DIM))
    labels = (features[:, 0] > 0 if planted else np.arange(count) % 2).astype(int)
    gram = features @ features.T
    kernel = np.einsum("nm,cd->ncmd", gram, np.eye(2))
    value = label_alignment(kernel, labels)
    null = [label_alignment(kernel, random.permutation(labels)) for _ in range(39)]
    return value, value > max(null[:19])


def sureness(random: np.random.Generator, count: int, planted: bool) -> Seen:
    true = random.normal(size=(count, 3)) * 1.5
    drawn = (random.random((count, 1)) > probabilities_of(true).cumsum(axis=1)).sum(axis=1).clip(0, 2)
    shown = 3 * true if planted else true
    return float(fit_temperature(shown, drawn)), bool(intervals(probabilities_of(shown), drawn)["ece"][0] > 0)


def moved(random: np.random.Generator, count: int, planted: bool) -> Seen:
    before = random.normal(size=(count, DIM))
    after = before + (0.5 * random.normal(size=(count, DIM)) if planted else 0)
    change = feature_change(before, after, Units(np.arange(count)))
    return change.value, change.low > 0


GROUNDS = (
    Ground("similarity", "CKA, debiased", "half of the variance is shared, rotated", "independent sides",
           "interval above 0", cka),
    Ground("geometry", "participation ratio", "4 of 16 directions", "16 equal directions", "interval below 8", ranks),
    Ground("geometry", "own - other class cosine", "two classes 1.6 apart", "labels that mean nothing",
           "interval above 0", cones),
    Ground("hulls", "clusters", "two classes with a gap", "shuffled labels", "two clusters", hulls),
    Ground("hulls", "clusters", "two classes, interleaved like XOR", "two halves", "more than two clusters",
           interleaved),
    Ground("probes", "accuracy", "one direction tells the label, with noise", "control task: random labels",
           "interval above the majority class", probes),
    Ground("infodynamics", "change points of novelty", "easy examples, then hard ones", "the same rows shuffled",
           "a change within two windows of the truth", changes),
    Ground("infodynamics", "slope, and its null", "changes of mind that last", "the same rows shuffled",
           "p <= 0.05 against shuffled orders", persistence),
    Ground("kernel", "label alignment", "labels by one feature", "labels that mean nothing",
           "above 19 orders of the labels", alignment),
    Ground("calibration", "temperature; ECE", "logits three times too large", "the true logits",
           "interval of the ECE above 0", sureness),
    Ground("features", "change", "features that moved", "features that stayed", "interval above 0", moved),
    Ground("influence", "most helpful is the copy", "10 examples that training has, too", "sentences of other words",
           "more often than by chance (p <= 0.05)", most_helpful, 20),
    Ground("influence", "most alike is the copy", "10 examples that training has, too", "sentences of other words",
           "more often than by chance (p <= 0.05)", most_alike, 20),
    Ground("influence", "precision of self-influence", "a tenth of the labels wrong", "labels that mean nothing",
           "more than by chance (p <= 0.05)", wrong_labels, 20),
    Ground("edges", "last layer - embeddings", "roles in a direction that context adds",
           "control task: a label per noun", "interval above 0", roles_in_context, 20),
    Ground("cloze", "P@1, stated - never stated", "facts that were read", "facts of another world",
           "intervals apart", facts_told),
)


def auc(planted: np.ndarray, control: np.ndarray) -> tuple[float, float, float]:
    """Share of pairs (planted, control) in which the planted one's number is further from the control's mean side, with
    the bootstrap interval over seeds; 0.5: not told apart, 0 or 1: always."""
    wins = (planted[:, None] > control) + 0.5 * (planted[:, None] == control)
    first, second = (bootstrap_weights(len(values), 1000, seed) / len(values)
                     for seed, values in ((1, planted), (2, control)))
    draws = np.einsum("di,ij,dj->d", first, wins, second)
    low, high = percentile_interval(draws)
    return float(wins.mean()), float(low), float(high)


def measured(ground: Ground, sizes: list[int], seeds: int) -> Iterator[tuple[int, float, float, str]]:
    """Per size: share of planted samples found, share of controls in which something was, and the numbers."""
    for count in sizes:
        runs = [[ground.look(np.random.default_rng([seed, count, int(planted)]), count, planted)
                 for seed in range(seeds)] for planted in (True, False)]
        values = [np.array([value for value, _ in of_runs]) for of_runs in runs]
        found, alarms = (float(np.mean([claim for _, claim in of_runs])) for of_runs in runs)
        apart = auc(*values)
        yield count, found, alarms, (f"{values[0].mean():.3g} | {values[1].mean():.3g} | {apart[0]:.2f} "
                                     f"({apart[1]:.2f} to {apart[2]:.2f})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--examples", type=int, nargs="+", default=[20, 56, 150])
    parser.add_argument("--only", nargs="+", choices=sorted({ground.lens for ground in GROUNDS}))
    parser.add_argument("--markdown", type=Path)
    asked = parser.parse_args()
    lines = ["| lens | number | planted | control | found when | mean of planted, control | told apart (AUC, 95 %) | "
             "found | false alarms | trust it from |", "|" + "---|" * 10]
    bars = []
    for ground in (ground for ground in GROUNDS if not asked.only or ground.lens in asked.only):
        seeds = min(asked.seeds, ground.most)
        sizes = list(measured(ground, asked.examples, seeds))
        short = [count for count, found, _, _ in sizes if found < 0.9]
        enough = [count for count, _, _, _ in sizes if count > max(short, default=0)]
        for count, found, alarms, numbers in sizes:
            print(f"{ground.lens:13} {ground.number:26} {count:4} examples: found {found:.2f}, false alarms "
                  f"{alarms:.2f}; {numbers}", flush=True)
        worst = max(alarms for _, _, alarms, _ in sizes)
        first, second, apart = sizes[-1][3].split(" | ")
        lines.append(f"| {ground.lens} | {ground.number} | {ground.truth} | {ground.control} | {ground.claim} | "
                     f"{first}, {second} | {apart} | " + ", ".join(f"{found:.2f}" for _, found, _, _ in sizes)
                     + f" | {worst:.2f} | {enough[0] if enough else 'none of these'} |")
        name = f"{ground.lens}, {ground.number}"
        bars += [(f"{name}: found at {asked.examples[-1]} examples", sizes[-1][1], sizes[-1][1] >= 0.9, "{:.2f}"),
                 (f"{name}: false alarms at most", worst, worst <= 0.1, "{:.2f}")]
    if asked.markdown:
        asked.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return verdict(bars)


if __name__ == "__main__":
    raise SystemExit(main())
