"""Slow and plain versions of what the lens cloze computes: float64, loops, sorting."""

import math

import numpy as np


def scores(states, head):
    """(word,) scores of one state; head: dict of dense_weight, dense_bias, norm_weight, norm_bias, eps, decoder, bias
    (gelu)."""
    x = [sum(w * s for w, s in zip(row, states, strict=True)) + b
         for row, b in zip(head["dense_weight"], head["dense_bias"], strict=True)]
    x = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    x = [(v - mean) / math.sqrt(variance + head["eps"]) * g + b
         for v, g, b in zip(x, head["norm_weight"], head["norm_bias"], strict=True)]
    return np.array([sum(e * v for e, v in zip(row, x, strict=True)) + b
                     for row, b in zip(head["decoder"], head["bias"], strict=True)])


def sorted_rank(values, gold, words):
    """Position of `gold` in the words sorted by falling score, gold first among equals; counts from 1."""
    order = sorted(words, key=lambda word: (-values[word], word != gold))
    return order.index(gold) + 1


def log_prob(values, gold):
    """Natural logarithm of the softmax at `gold`."""
    highest = max(values)
    return values[gold] - highest - math.log(sum(math.exp(v - highest) for v in values))


def best(values, words, count):
    """The words with the highest scores, best first."""
    return sorted(words, key=lambda word: -values[word])[:count]


def precision(ranks, k):
    """Share of ranks up to k."""
    return sum(rank <= k for rank in ranks) / len(ranks)


def reciprocal(ranks):
    """Mean reciprocal rank."""
    return sum(1 / rank for rank in ranks) / len(ranks)


def macro(ranks, relations, measure):
    """Unweighted mean over relations of a measure of their ranks."""
    return sum(measure([r for r, of in zip(ranks, relations, strict=True) if of == name])
               for name in set(relations)) / len(
        set(relations))


def adamw(gradient, start, rates, decay=0.0, betas=(0.9, 0.999), eps=1e-8):
    """AdamW, number by number: the parameters after the last rate. gradient(values, step) -> list of numbers."""
    values, first, second = list(start), [0.0] * len(start), [0.0] * len(start)
    for step, rate in enumerate(rates, 1):
        for i, g in enumerate(gradient(values, step - 1)):
            first[i] = betas[0] * first[i] + (1 - betas[0]) * g
            second[i] = betas[1] * second[i] + (1 - betas[1]) * g * g
            values[i] -= rate * decay * values[i]
            values[i] -= rate * (first[i] / (1 - betas[0] ** step)) / (math.sqrt(second[i] / (1 - betas[1] ** step))
                                                                       + eps)
    return values
