"""Edge probes the slow way: one probe, one target and one span at a time, in float64, with autograd of plain sums."""

from typing import Any

import numpy as np
import torch

from finetrace import seeds
from finetrace.lenses.edges.data import EdgeData
from finetrace.lenses.edges.network import HIDDEN_LAYERS, Probe, Shape, first_weights
from finetrace.lenses.edges.recipe import Recipe


def span_vector(tokens: list[torch.Tensor], side: int, values: dict[str, torch.Tensor], recipe: Recipe) -> torch.Tensor:
    """One span of token vectors (dim,): project each token, then pool."""
    if recipe.projection:
        tokens = [token @ values[f"project{side}"] + values[f"project{side}_bias"] for token in tokens]
    if recipe.pooling == "attention":
        scores = [torch.dot(token, values[f"attend{side}"]) for token in tokens]
        below = sum(torch.exp(score) for score in scores)
        return sum(torch.exp(score) / below * token for score, token in zip(scores, tokens, strict=True))
    if recipe.pooling == "mean":
        return sum(tokens) / len(tokens)
    if recipe.pooling == "max":
        return torch.stack(tokens).max(dim=0).values
    return {"first": tokens[0], "last": tokens[-1], "endpoint": torch.cat([tokens[0], tokens[-1]])}[recipe.pooling]


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred * centred).mean() + 1e-5)


def target_logits(spans: list[list[torch.Tensor]], values: dict[str, torch.Tensor], recipe: Recipe) -> torch.Tensor:
    """(class,) outputs for one target, given the token vectors of each of its spans."""
    joined = torch.cat([span_vector(tokens, side, values, recipe) for side, tokens in enumerate(spans)])
    z = joined @ torch.cat([values[f"first{side}"] for side in range(len(spans))]) + values["first_bias"]
    for k in range(HIDDEN_LAYERS[recipe.head]):
        z = layer_norm(torch.tanh(z)) * values[f"norm{k}"] + values[f"norm{k}_bias"]
        z = z @ values[f"linear{k}"] + values[f"linear{k}_bias"]
    return z


def token_vector(layers: torch.Tensor, probe: Probe, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """One token of (layer, dim): its layer, or the mix of its layers."""
    if probe.readout == "layer":
        return layers[probe.layer]
    powers = [torch.exp(values["mix"][l]) for l in range(probe.layer + 1)]
    return values["gamma"] * sum(power / sum(powers) * layers[l] for l, power in enumerate(powers))


def normalise(states: np.ndarray, data: EdgeData, sentences: Any, kind: str) -> np.ndarray:
    """(layer, token, dim) with the statistics of all tokens of some sentences, all for `fixed`."""
    if kind == "none":
        return states
    chosen = range(data.sentences) if kind == "fixed" else sentences
    found = states.copy()
    for layer in range(len(states)):
        count = sum(int(data.lengths[i]) for i in chosen) * states.shape[2]
        mean = sum(data.moments[layer, i, 0] for i in chosen) / count
        variance = sum(data.moments[layer, i, 1] for i in chosen) / count - mean**2
        found[layer] = (states[layer] - mean) / np.sqrt(variance + 1e-13)
    return found


def outputs(data: EdgeData, sentences: Any, probe: Probe, values: dict[str, torch.Tensor], recipe: Recipe,
            of: EdgeData | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (target, class) and gold of the targets of some sentences; of: the split of the fixed statistics."""
    states = np.asarray(data.states, dtype=np.float64)
    if recipe.normalisation == "fixed":
        states = normalise(states, of or data, None, "fixed")
    else:
        states = normalise(states, data, sentences, recipe.normalisation)
    logits, gold = [], []
    for i in sentences:
        for target in range(data.starts[i], data.starts[i + 1]):
            spans = [[token_vector(torch.from_numpy(states[:, data.tokens[t]]), probe, values)
                      for t in range(start, end)]
                     for start, end in data.spans[target]]
            logits.append(target_logits(spans * 2 if recipe.twin_spans and len(spans) == 1 else spans, values, recipe))
            gold.append(torch.from_numpy(data.gold[target].astype(np.float64)))
    return torch.stack(logits), torch.stack(gold)


def mean_loss(logits: torch.Tensor, gold: torch.Tensor, kind: str) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for z, y in zip(logits, gold, strict=True):
        if kind == "softmax":
            total = total - torch.dot(y, z - torch.log(torch.exp(z).sum()))
        else:
            p = 1 / (1 + torch.exp(-z))
            total = total - (y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()
    return total / len(logits)


def train(data: EdgeData, probe: Probe, recipe: Recipe, seed: int, steps: int) -> dict[str, np.ndarray]:
    """Parameters after some steps of PyTorch's own Adam, without dropout."""
    sides = 2 if recipe.twin_spans else data.spans.shape[1]
    shape = Shape(len(data.states), data.states.shape[2], sides, data.gold.shape[1])
    values = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
              for name, value in first_weights(probe, shape, recipe, seed).items()}
    scalars = [value for name, value in values.items() if name in ("mix", "gamma")]
    others = [value for name, value in values.items() if name not in ("mix", "gamma")]
    groups = [{"params": others, "lr": recipe.learning_rate}]
    groups += [{"params": scalars, "lr": recipe.scalar_learning_rate}] if scalars else []
    adam = torch.optim.Adam(groups, weight_decay=recipe.weight_decay, amsgrad=recipe.amsgrad)
    done, epoch = 0, 0
    while done < steps:
        order = seeds.generator(seed, "order", epoch).permutation(data.sentences)
        for start in range(0, data.sentences, recipe.batch_sentences):
            part = order[start:start + recipe.batch_sentences]
            if done == steps or (recipe.drop_last and len(part) < recipe.batch_sentences):
                break
            adam.zero_grad()
            mean_loss(*outputs(data, part, probe, values, recipe), recipe.loss).backward()
            for value in values.values():  # what a batch does not touch has a gradient of 0
                value.grad = torch.zeros_like(value) if value.grad is None else value.grad
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(list(values.values()), recipe.clip)
            adam.step()
            done += 1
        epoch += 1
    return {name: value.detach().numpy() for name, value in values.items()}


def micro_counts(logits: np.ndarray, gold: np.ndarray, kind: str) -> np.ndarray:
    """(target, 3) true positives, false positives, false negatives, decision by decision."""
    found = np.zeros((len(gold), 3), dtype=np.int64)
    for n, (z, y) in enumerate(zip(logits, gold, strict=True)):
        for c in range(len(y)):
            said = z[c] >= 0 if kind == "sigmoid" else c == int(np.argmax(z))
            found[n] += (said and y[c] > 0, said and not y[c] > 0, not said and y[c] > 0)
    return found
