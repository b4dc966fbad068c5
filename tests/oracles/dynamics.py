"""Learning dynamics the slow way: plain Python over steps, layers and facts; explicit resampled lists of seeds and
examples."""

import math

import numpy as np


def step_of_gain(steps: list[int], scores: list[float], share: float, unit: float) -> tuple[float, float]:
    """(recorded, interpolated) step at which a share of last - first is first reached; NaN without a gain."""
    gain = scores[-1] - scores[0]
    if gain <= 0:
        return math.nan, math.nan
    wanted = scores[0] + share * gain
    for i, (step, score) in enumerate(zip(steps, scores, strict=True)):
        if score >= wanted:
            a, b = (math.log10(1 + s / unit) for s in (steps[i - 1], step))
            part = (wanted - scores[i - 1]) / (score - scores[i - 1])
            return step, unit * (10 ** (a + part * (b - a)) - 1)
    raise AssertionError("the last score is above its share of the gain")


def area(steps: list[int], scores: list[float], unit: float) -> float:
    """Trapezoids on log10(1 + step / unit), divided by the length of the axis."""
    x = [math.log10(1 + s / unit) for s in steps]
    pieces = [(x[i + 1] - x[i]) * (scores[i] + scores[i + 1]) / 2 for i in range(len(x) - 1)]
    return sum(pieces) / (x[-1] - x[0])


def onset_steps(steps: list[int], scores: list[list[float]], share: float) -> list[float]:
    """Of each layer (rows) the first step with at least `share` of the last layer's final score."""
    wanted = share * scores[-1][-1]
    return [next((float(step) for step, score in zip(steps, row, strict=True) if wanted > 0 and score >= wanted),
                 math.nan)
            for row in scores]


def onset_layers(scores: list[list[float]], share: float) -> list[float]:
    """At each step the first layer (row) above `share` of the last layer."""
    columns = list(zip(*scores, strict=True))
    return [next((float(k) for k, score in enumerate(column) if column[-1] > 0 and score > share * column[-1]),
                 math.nan)
            for column in columns]


def micro_f1(counts: list[tuple[int, int, int]]) -> float:
    """F1 of TP, FP, FN summed over items."""
    right, wrong, missed = (sum(one[k] for one in counts) for k in range(3))
    return 2 * right / (2 * right + wrong + missed) if 2 * right + wrong + missed else 0.0


def drawn_scores(values: np.ndarray, units: list[int], seeds_drawn: list[list[int]], units_drawn: list[list[int]],
                 metric: str) -> list[float]:
    """The metric of each draw, from explicit lists of drawn seeds and units: values (seed, item) or (seed, item, 3)."""
    found = []
    for seeds, drawn in zip(seeds_drawn, units_drawn, strict=True):
        items = [i for unit in drawn for i, of in enumerate(units) if of == unit]
        scores = []
        for seed in seeds:
            rows = [values[seed][i] for i in items]
            scores.append(micro_f1([tuple(int(v) for v in row) for row in rows]) if metric == "f1"
                          else sum(rows) / len(rows))
        found.append(sum(scores) / len(scores))
    return found
