"""Which examples of a split are looked at."""

from typing import Literal

import numpy as np

from finetrace import seeds


def choose_rows(labels: np.ndarray, count: int, how: Literal["stratified", "random", "first"], seed: int) -> np.ndarray:
    """Row numbers in ascending order: (row,) int64.

    labels: (row,) classes;  count: how many, all when 0 or more than there are;  how: `stratified` keeps the classes'
    shares (largest remainders, at least one of each while `count` allows), `random` draws without regard to them,
    `first` takes the first.
    """
    rows = len(labels)
    if count == 0 or count >= rows:
        return np.arange(rows)
    if how == "first":
        return np.arange(count)
    order = seeds.generator(seed, "rows").permutation(rows)
    if how == "random":
        return np.sort(order[:count])
    classes, sizes = np.unique(labels, return_counts=True)
    shares = _shares(sizes, count)
    return np.sort(np.concatenate([order[labels[order] == c][:n] for c, n in zip(classes, shares, strict=True)]))


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """`count` dealt out in proportion to `sizes`: (class,) integers with that sum."""
    exact = sizes * count / sizes.sum()
    shares = np.floor(exact).astype(np.int64)
    if count >= len(sizes):
        shares = np.maximum(shares, 1)
    order = np.argsort(-(exact - np.floor(exact)), kind="stable")
    while (missing := count - int(shares.sum())) != 0:
        if missing > 0:
            for i in order[:missing]:
                shares[i] += 1
        else:
            shares[int(np.argmax(shares))] -= 1
    return shares
