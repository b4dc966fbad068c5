"""Which examples two trainings answer differently: the interval covers, the test is exact, the examples are right."""

import numpy as np
import pytest
from scipy import stats

from finetrace.atlas.paired import mcnemar, paired_difference


def pair(rng: np.random.Generator, n: int, lost: float, won: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers of which a share is right in the first only, and another in the second only."""
    u = rng.random(n)
    first = (u < lost) | (u > 0.5)
    return first, np.where(u < lost + won, ~first, first) if won else np.where(u < lost, False, first)


@pytest.mark.parametrize("n", [30, 56, 277, 872])
@pytest.mark.parametrize(("lost", "won"), [(0.0, 0.0), (0.02, 0.02), (0.05, 0.15), (0.2, 0.2)])
def test_the_interval_covers(n: int, lost: float, won: float) -> None:
    rng, hits = np.random.default_rng(n), 0
    for _ in range(400):
        first, second = pair(rng, n, lost, won)
        _, low, high = paired_difference(first, second, np.arange(n))
        hits += low <= won - lost <= high
    assert hits / 400 >= 0.93


def test_the_interval_of_words_of_a_sentence_covers() -> None:
    """Sentences change whole: as many independent things as there are sentences."""
    rng, hits, widths = np.random.default_rng(0), 0, []
    for _ in range(400):
        first, second = (np.repeat(a, 8) for a in pair(rng, 100, 0.05, 0.15))
        sentences = np.repeat(np.arange(100), 8)
        _, low, high = paired_difference(first, second, sentences)
        hits += low <= 0.1 <= high
        widths.append((high - low) / np.ptp(paired_difference(first, second, np.arange(800))[1:]))
    assert 0.9 <= hits / 400 <= 0.99 and np.mean(widths) > 2


def test_the_interval_is_that_of_agresti_and_min() -> None:
    first, second = np.array([1, 1, 1, 0, 0, 1, 0, 1, 1, 0], bool), np.array([1, 0, 1, 1, 1, 1, 0, 1, 1, 1], bool)
    mean, low, high = paired_difference(first, second, np.arange(10))
    lost, won = 1, 3
    centre = (won - lost) / 12
    spread = np.sqrt(won + lost + 1 - (won - lost) ** 2 / 10) / 12
    assert mean == pytest.approx(0.2) and (low, high) == pytest.approx((centre - 1.96 * spread, centre + 1.96 * spread),
                                                                       abs=1e-4)


def test_swapping_the_two_turns_the_sign() -> None:
    first, second = pair(np.random.default_rng(1), 80, 0.1, 0.2)
    mean, low, high = paired_difference(first, second, np.arange(80))
    assert paired_difference(second, first, np.arange(80)) == pytest.approx((-mean, -high, -low))


def test_mcnemar_is_the_sign_test_of_what_differs() -> None:
    first, second = np.array([1] * 9 + [0] * 2 + [1] * 50, bool), np.array([0] * 9 + [1] * 2 + [1] * 50, bool)
    assert mcnemar(first, second) == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))
    assert mcnemar(first, first) == 1.0
