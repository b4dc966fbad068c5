"""Pseudo-log-likelihood and age of acquisition as plainly as they can be written."""

from typing import Any

import numpy as np


def pseudo_log_likelihood(model: Any, tokenizer: Any, text: str, word_l2r: bool) -> float:
    """Sum of log p(token | sentence with it masked), one pass per token of a plain transformers model, in float64.

    word_l2r: the tokens of the same word to the right are masked, too (Kauf and Ivanova 2023).
    """
    import torch

    model = model.double().eval()
    encoded = tokenizer(text, return_tensors="pt")
    special = tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
    ids, words, total = encoded["input_ids"][0], encoded.word_ids(0), 0.0
    for at in range(len(ids)):
        if special[at]:
            continue
        masked = ids.clone()
        masked[at] = tokenizer.mask_token_id
        for right in range(at + 1, len(ids)):
            if word_l2r and words[right] == words[at]:
                masked[right] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(**{**encoded, "input_ids": masked[None]}).logits[0, at]
        total += float(torch.log_softmax(logits, dim=-1)[ids[at]])
    return total


def accuracy(good: list[float], bad: list[float]) -> float:
    """Share of pairs with the better score for the good sentence; a tie is half a pair."""
    points = [1.0 if g > b else 0.5 if g == b else 0.0 for g, b in zip(good, bad, strict=True)]
    return sum(points) / len(points)


def age(steps: list[int], accuracies: list[float]) -> float:
    """The step from which on accuracy stays above the middle between chance and its last value, straight between
    checkpoints on the axis log10(1 + step / first step after 0); NaN where it never rises through it."""
    middle = (0.5 + accuracies[-1]) / 2
    unit = min([step for step in steps if step > 0], default=1)
    for i in range(len(steps) - 1, 0, -1):
        if accuracies[i - 1] < middle <= accuracies[i]:
            part = (middle - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            x = [np.log10(1 + steps[j] / unit) for j in (i - 1, i)]
            return float(unit * (10 ** (x[0] + part * (x[1] - x[0])) - 1))
    return float("nan")
