"""Samples of known distributions for benchmarks/coverage.py: did the interval of a lens hold the truth?

A trial draws one sample of some size and yields, for each interval, its name and whether it held. "before: ..." is an
interval that stood there once, "of the population: ..." says more than the lens does.
"""

from collections.abc import Callable, Iterator

import numpy as np

from finetrace.lenses.calibration.error_intervals import error_interval, filled_bins
from finetrace.lenses.calibration.measures import intervals
from finetrace.lenses.cloze.metrics import Group, estimates
from finetrace.lenses.cross_task.transfer import accuracy_change
from finetrace.lenses.dynamics.resampling import multi_bootstrap
from finetrace.lenses.edges.metrics import f1_difference, micro_intervals
from finetrace.lenses.geometry.cones import own_and_other
from finetrace.lenses.geometry.summary import make_sample, spectral_estimates
from finetrace.lenses.infodynamics.slope import resonance_novelty_slope
from finetrace.lenses.intervals import groups_of, jackknife_interval, share_interval, wilson_interval
from finetrace.lenses.similarity.measures import compare, represent

Trial = Callable[[np.random.Generator, int], Iterator[tuple[str, bool]]]
BINS, WORDS, GROUPS, DIM = 15, 8, 20, 16
AXES = 2.0 ** (-np.arange(DIM) / 4)
"""Standard deviations (dim,) of the tokens of `spectra` and of both sides of `similar`."""


def words(correlation: float, rate: float) -> Trial:
    """Words right at a rate; those of a sentence with a correlation."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        sentence = np.arange(count) // WORDS
        right = random.random(count) < correlated(random, rate, correlation, int(sentence.max()) + 1)[sentence]
        name = f"accuracy {rate:g} of words, correlation {correlation:g}"
        low, high = share_interval(right, sentence)
        yield name, bool(low <= rate <= high)
        plain = wilson_interval(int(right.sum()), count)
        yield f"before: {name}", bool(plain[0] <= rate <= plain[1])

    return trial


def correlated(random: np.random.Generator, rate: float, correlation: float, sentences: int) -> np.ndarray:
    """The rate of each sentence (sentence,), so that its words correlate."""
    if not correlation:
        return np.full(sentences, rate)
    strength = 1 / correlation - 1
    return random.beta(rate * strength, (1 - rate) * strength, sentences)


def micro_f1(rate: float) -> Trial:
    """Micro F1 of four decisions in each sentence, correlated; every wrong one is found wrongly and missed."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        right = random.binomial(4, correlated(random, rate, 0.1, count)).astype(np.float64)
        _, low, high = micro_intervals(np.stack([right, 4 - right, 4 - right], axis=-1))["f1"]
        yield f"micro F1 {rate:g} of sentences", bool(low <= rate <= high)

    return trial


def differences(first: float, second: float) -> Trial:
    """F1 and accuracy of two probes on the same sentences of one word; half of the words go together."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        drawn = random.random((2, count))
        drawn[1] = np.where(random.random(count) < 0.5, drawn[0], drawn[1])
        right = drawn < np.array([[first], [second]])
        _, low, high = f1_difference(*np.stack([right, ~right, ~right], axis=-1).astype(np.float64))
        yield f"difference of F1 {first:g} and {second:g}", bool(low <= first - second <= high)
        row = accuracy_change(0, 0, right[1:], right[:1], np.arange(count), "test")
        yield f"change of accuracy {second:g} to {first:g}", bool(row["low"] <= first - second <= row["high"])

    return trial


def facts(rate: float) -> Trial:
    """P@1 and the mean reciprocal rank over five relations of facts."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        group = Group("facts", "", False, tuple(np.array_split(np.arange(count), 5)))
        first = random.random(count) < rate
        values = np.stack([first, np.where(first, 1.0, 1 / random.integers(2, 11, count))], axis=-1).astype(np.float64)
        reciprocal = rate + (1 - rate) * float(np.mean(1 / np.arange(2, 11)))
        score, = estimates([group], lambda rows: [values[rows]], np.array([True, False]), np.array([False, True]))
        for name, low, high, truth in zip(("P@1", "MRR"), score.low, score.high, (rate, reciprocal), strict=True):
            yield f"{name} of facts known at {rate:g}", bool(low <= truth <= high)

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
        group = groups_of(count, GROUPS, 0)
        sums = np.stack([np.bincount(place[group != g], (confidence - right)[group != g], minlength=BINS)
                         for g in range(GROUPS)])
        kept = count - np.bincount(group)
        low, high = jackknife_interval(float(np.abs(bins.gaps) @ bins.share), np.abs(sums).sum(axis=1) / kept)
        yield f"before: ece of a gap of {gap:g}", bool(low <= gap <= high)

    return trial


def proper_scores(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
    """Brier score and cross-entropy of two classes whose probabilities are the true ones."""
    certain = random.beta(5, 1, count)
    labels = (random.random(count) < certain).astype(np.int64)
    truth = {"brier": 2 * 5 / (6 * 7), "nll": 5 / 36 + 1.45 / 6}  # E 2 p (1 - p) and the mean entropy, p ~ Beta(5, 1)
    ends = intervals(np.stack([1 - certain, certain], axis=1), labels)
    for name, value in truth.items():
        yield f"{name} of a calibrated classifier", bool(ends[name][0] <= value <= ends[name][1])


def cones(truth: np.ndarray) -> Trial:
    """Two classes in eight dimensions: cosines with the own and the other class's mean, at samples of the size."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        cosines = own_and_other(*classes(random, count), groups_of(count, GROUPS, 0))
        low, high = jackknife_interval(cosines[0], cosines[1:])
        for name, held in zip(("own_class_cosine", "other_class_cosine"), (low <= truth) & (truth <= high),
                              strict=True):
            yield name, bool(held)

    return trial


def classes(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (row, 8) and labels (row,)."""
    labels = np.arange(count) % 2
    return random.normal(size=(count, 8)) + np.where(labels[:, None] == 0, 0.6, -0.2), labels


def spectrum(random: np.random.Generator, count: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Ranks and dimensions of the tokens of `count` sentences: values, low and high (statistic,)."""
    sentence = np.repeat(np.arange(count), WORDS)
    tokens = (0.6 * random.normal(size=(count, DIM))[sentence] + 0.8 * random.normal(size=(len(sentence), DIM))) * AXES
    sample = make_sample(np.arange(0, len(sentence) + 1, WORDS), np.zeros(len(sentence), dtype=bool),
                         np.zeros(len(sentence), dtype=np.int64), sentences=np.arange(count), special_tokens=True,
                         draws=2, groups=GROUPS, seed=0)
    ranks = spectral_estimates(tokens, sample)
    low, high = jackknife_interval(ranks.values, ranks.resamples)
    return dict(zip(ranks.names, ranks.values.tolist(), strict=True)), low, high


def spectra(at_this_size: dict[str, float], population: dict[str, float]) -> Trial:
    """Ranks and dimensions against their mean in samples of the size, and against those of many tokens."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        values, low, high = spectrum(random, count)
        for name, least, most in zip(values, low, high, strict=True):
            yield name, bool(least <= at_this_size[name] <= most)
            yield f"of the population: {name}", bool(least <= population[name] <= most)

    return trial


def similar(shared: float) -> Trial:
    """CKA, debiased, of two sides with the same covariance that share so much of the variance of each axis."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        one = random.normal(size=(count, DIM)) * AXES
        other = np.sqrt(shared) * one + np.sqrt(1 - shared) * random.normal(size=(count, DIM)) * AXES
        group = groups_of(count, GROUPS, 0)
        cka = compare(represent(one, group), represent(other, group), ["cka"])["cka"]
        yield f"CKA of {shared:g}", bool(cka.low <= shared <= cka.high)

    return trial


def slopes(window: int, correlation: float) -> Trial:
    """The slope of resonance over novelty, both means over windows: of neighbours that overlap."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        noise = random.normal(size=(2, count + window - 1))
        smooth = np.stack([np.convolve(row, np.ones(window) / window, mode="valid") for row in noise])
        resonance = correlation * smooth[0] + np.sqrt(1 - correlation**2) * smooth[1]
        blocks = count // (2 * window)
        if blocks < 4:
            return
        slope = resonance_novelty_slope(smooth[0], resonance, block=2 * window)
        yield f"slope {correlation:g}, {blocks} blocks", bool(slope.ci_low <= correlation <= slope.ci_high)

    return trial


def seeds(number: int) -> Trial:
    """The mean accuracy of trainings that differ by seed, on the same examples (multi-bootstrap)."""
    def trial(random: np.random.Generator, count: int) -> Iterator[tuple[str, bool]]:
        of_seed = 0.8 + 0.03 * random.normal(size=(number, 1))
        hard = random.normal(size=count) * 0.1
        right = random.random((number, count)) < np.clip(of_seed + hard, 0, 1)
        ends = multi_bootstrap(right.astype(np.float64), draws=500)
        yield f"mean accuracy of {number} seeds", bool(ends.low <= 0.8 <= ends.high)

    return trial
