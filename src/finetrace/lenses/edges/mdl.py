"""Minimum description length with the online code (Voita and Titov 2020): what the labels cost somebody who has the
states of a layer and learns along the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetrace import seeds
from finetrace.lenses.edges.data import EdgeData, take_sentences
from finetrace.lenses.edges.network import Probe
from finetrace.lenses.edges.recipe import Recipe
from finetrace.lenses.edges.scoring import score_probes
from finetrace.lenses.edges.training import train_probes

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the blocks as shares of the training sentences, as published."""


@dataclass(frozen=True)
class OnlineCode:
    """bits: (probe,) code length of all labels;  uniform_bits: that of labels without a probe, targets times log2
    classes; compression: (probe,) uniform over bits: 1 for states that say nothing, targets over those of the first
    block for perfect ones, higher is better;  ends: (block,) int64 targets at the ends of the blocks;  block_bits:
    (probe, block), the first uniform;  data_bits: (probe,) what the labels cost the probe that saw all targets; the
    model's part is the rest."""

    bits: np.ndarray
    uniform_bits: float
    compression: np.ndarray
    ends: np.ndarray
    block_bits: np.ndarray
    data_bits: np.ndarray


def mdl_recipe(recipe: Recipe) -> Recipe:
    """The recipe of each portion: one class per target, best dev loss, stopped after four looks without a gain of
    0.001 nats."""
    return replace(recipe, loss="softmax", criterion="loss", select="best", stop_patience=4, halve_patience=1,
                   min_gain=1e-3)


def online_code(train: EdgeData, dev: EdgeData, probes: Sequence[Probe], recipe: Recipe, *, seed: int,
                fractions: Sequence[float] = FRACTIONS, device: str = "cpu", memory_mib: int = 1024) -> OnlineCode:
    """Code length of the labels of `train`, block by block: each is coded by probes freshly trained on the sentences
    before it.

    All probes of a portion are trained together by `mdl_recipe`, on at most as many steps as `recipe` has. Sentences
    are shuffled once by `seed`; the first block holds one at least. Raises ValueError for labels that are sets and for
    fractions that do not ascend to 1.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if not len(shares) or not (shares > 0).all() or not (np.diff(shares) > 0).all() or shares[-1] != 1:
        raise ValueError(f"fractions: {list(fractions)} must ascend from above 0 to 1, e.g. [0.1, 0.5, 1]")
    if not (train.gold.sum(axis=1) == 1).all():
        raise ValueError("description length needs exactly one class per target; leave mdl out for tasks whose labels "
                         "are sets")
    order = seeds.generator(seed, "mdl").permutation(train.sentences)
    ends = np.unique(np.maximum(1, np.round(shares * train.sentences).astype(np.int64)))
    targets = np.cumsum(np.diff(train.starts)[order])[ends - 1]
    uniform_bits = float(np.log2(train.gold.shape[1]))
    bits, data_bits = np.zeros((len(probes), len(ends))), np.zeros(len(probes))
    bits[:, 0] = targets[0] * uniform_bits
    stop = mdl_recipe(recipe)
    for block, end in enumerate(ends):
        part = take_sentences(train, np.sort(order[:end]))
        block_seed = seeds.derive(seed, "mdl", block)
        trained = train_probes(part, dev, probes, stop, seed=block_seed, device=device, memory_mib=memory_mib)
        if block + 1 < len(ends):
            coded = take_sentences(train, np.sort(order[end:ends[block + 1]]))
            nats = score_probes(trained, coded, stop, device=device).nats
            bits[:, block + 1] = nats.sum(axis=1, dtype=np.float64) / np.log(2)
        else:
            data_bits = score_probes(trained, part, stop, device=device).nats.sum(axis=1, dtype=np.float64) / np.log(2)
    total_bits = bits.sum(axis=1)
    uniform = len(train.gold) * uniform_bits
    return OnlineCode(total_bits, uniform, uniform / total_bits, targets, bits, data_bits)
