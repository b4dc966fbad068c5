"""Decisions of trained probes: true and false positives and false negatives of each target, and what its labels
cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.edges.data import EdgeData, check, make_batch, norms
from finetrace.lenses.edges.outputs import hits_of, losses_of
from finetrace.lenses.edges.recipe import Recipe
from finetrace.lenses.edges.training import Trained

HITS = ("true positives", "false positives", "false negatives")


@dataclass(frozen=True)
class Scores:
    """hits: (probe, target, 3) of `counting_type`, true positives, false positives, false negatives among the classes
    of a target;  clean: the same among some classes, or None;  right: (probe, target) bool, the highest output is a
    right class; nats: (probe, target) float32, loss per target: cross-entropy, or its mean over the yes-or-no
    decisions of the classes."""

    hits: np.ndarray
    clean: np.ndarray | None
    right: np.ndarray
    nats: np.ndarray


def score_probes(trained: Sequence[Trained], data: EdgeData, recipe: Recipe, *, clean: np.ndarray | None = None,
                 device: str = "cpu", probes_at_once: int = 16) -> Scores:
    """What probes decide on the targets of a split; in the order of `trained`. clean: (class,) bool, classes that
    count.

    Dropout is off, every target is scored once. Raises ValueError for data that do not fit together.
    """
    import torch

    from finetrace.lenses.edges.network import Network, Shape

    check(data, "scored")
    shape = Shape(len(data.states), data.states.shape[2], 2 if recipe.twin_spans else data.spans.shape[1],
                  data.gold.shape[1])
    targets, count = len(data.gold), len(trained)
    hits = np.zeros((count, targets, 3), dtype=counting_type(data.gold.shape[1]))
    sieved = None if clean is None else np.zeros_like(hits)
    right, nats = np.zeros((count, targets), dtype=bool), np.zeros((count, targets), dtype=np.float32)
    size = recipe.batch_sentences * (1 if recipe.normalisation == "batch" else 4)
    for kind in ("layer", "mix"):
        alike = [i for i, result in enumerate(trained) if result.probe.readout == kind]
        for start in range(0, len(alike), probes_at_once):
            part = alike[start:start + probes_at_once]
            values = [trained[i].parameters for i in part]
            like = torch.empty(0, dtype=torch.from_numpy(values[0]["first_bias"]).dtype, device=device)
            network = Network([trained[i].probe for i in part], values, shape, recipe, like)
            for first in range(0, data.sentences, size):
                sentences = np.arange(first, min(first + size, data.sentences))
                norm = norms(data, sentences) if recipe.normalisation == "batch" else trained[part[0]].norm
                with torch.no_grad():
                    batch = make_batch(data, sentences, network.layers, norm, recipe.twin_spans, like)
                    z = network.logits(batch)
                    best = torch.take_along_dim(batch.gold.expand_as(z), z.argmax(-1, keepdim=True), -1)[..., 0]
                    where = slice(data.starts[sentences[0]], data.starts[sentences[-1] + 1])
                    hits[part, where] = hits_of(z, batch.gold, recipe.loss).cpu().numpy()
                    nats[part, where] = losses_of(z, batch.gold, recipe.loss).float().cpu().numpy()
                    right[part, where] = (best > 0.5).cpu().numpy()
                    if sieved is not None:
                        mask = torch.as_tensor(clean, device=z.device)
                        sieved[part, where] = hits_of(z, batch.gold, recipe.loss, mask).cpu().numpy()
    return Scores(hits, sieved, right, nats)


def counting_type(classes: int) -> type[np.unsignedinteger]:
    """The smallest type that counts the classes of a target."""
    return np.uint8 if classes < 256 else np.uint16
