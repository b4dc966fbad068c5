"""A small synthetic split for edge probes: random states in which the classes of spans can be told apart."""

from typing import Any

import numpy as np

from finetrace.lenses.edges.data import EdgeData


def edge_data(*, sentences: int = 12, layers: int = 3, dim: int = 6, sides: int = 2, classes: int = 4, seed: int = 0,
              signal: float = 2.0, dtype: Any = np.float64, sets: bool = False, single: bool = False,
              of: int = 0) -> EdgeData:
    """Sentences of 3 to 7 kept tokens among others and 1 to 5 targets of spans of up to 3 tokens (of 1 where `single`).

    signal: length of the class direction in the last layer, half of it in the one before, and so on; 0: states say
    nothing;
    sets: any number of classes per target;  of: seed of the class directions, equal for the splits of a task.
    """
    random = np.random.default_rng([seed, 7])
    kept = random.integers(3, 8, sentences)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    counts = random.integers(1, 6, sentences)
    starts = np.concatenate([[0], np.cumsum(counts)])
    total = int(offsets[-1]) + 5
    tokens = np.sort(random.permutation(total)[:offsets[-1]])
    owner = np.repeat(np.arange(sentences), counts)
    first = offsets[owner][:, None] + random.integers(0, kept[owner][:, None], (len(owner), sides))
    width = np.ones_like(first) if single else random.integers(1, 4, first.shape)
    spans = np.stack([first, np.minimum(first + width, offsets[owner + 1][:, None])], axis=2)
    gold = random.random((len(owner), classes)) < 0.4
    if not sets:
        gold = np.eye(classes, dtype=bool)[random.integers(0, classes, len(owner))]
    directions = np.random.default_rng([of, 8]).normal(size=(classes, dim))
    states = random.normal(size=(layers, total, dim))
    for n, (start, end) in enumerate(spans[:, 0]):
        for layer in range(layers):
            states[layer, tokens[start:end]] += signal * 0.5 ** (layers - 1 - layer) * gold[n] @ directions
    states = states.astype(dtype)
    lengths = kept + 2
    moments = np.zeros((layers, sentences, 2))
    for i in range(sentences):
        own = states[:, tokens[offsets[i]:offsets[i + 1]]].astype(np.float64)
        rest = random.normal(size=(layers, 2, dim))
        moments[:, i, 0] = own.sum((1, 2)) + rest.sum((1, 2))
        moments[:, i, 1] = (own**2).sum((1, 2)) + (rest**2).sum((1, 2))
    return EdgeData(states, tokens, offsets, starts, spans, gold, moments, lengths)
