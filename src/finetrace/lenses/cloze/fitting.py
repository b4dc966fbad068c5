"""Fits one small map per layer to cached states, all layers in one pass over the data, as if each had been trained
alone.

Losses of different layers share no parameters and AdamW works number by number, so the gradient of the sum is each
layer's own gradient. A layer stops by its own held-out loss and is then left out of the work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds

if TYPE_CHECKING:
    import torch

BETAS, EPS = (0.9, 0.999), 1e-8
HELD_OUT_POSITIONS = 4096  # at most, on which the held-out loss is measured


@dataclass(frozen=True)
class Recipe:
    """How maps are trained: AdamW, the rate rising linearly over the first `warmup` of the steps and falling linearly
    to 0.

    steps: at most;  batch: positions per step;  warmup: share of the steps;  evaluations: how often the held-out loss
    is measured;  min_delta (nats), patience: a layer stops after `patience` measurements in a row that were not lower
    than its best by more than min_delta.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: float = 1 / 12
    evaluations: int = 40
    min_delta: float = 0.01
    patience: int = 15
    weight_decay: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (self.steps - step) / max(1, self.steps - rising)

    def measured(self, step: int) -> bool:
        """Whether the held-out loss is measured after `step` updates."""
        return step == self.steps or step % max(1, self.steps // self.evaluations) == 0


@dataclass(frozen=True)
class Cached:
    """States at masked positions. states: (layer, position, dim), an array (also memory-mapped) or a tensor;
    targets: (position,) int64 ids."""

    states: Any
    targets: np.ndarray

    def take(self, layers: list[int], positions: np.ndarray, device: "torch.device") -> "torch.Tensor":
        """(layer, position, dim) float32 (or float64, if stored so) of some layers and positions."""
        import torch

        if isinstance(self.states, torch.Tensor):
            at = torch.from_numpy(positions).to(self.states.device)
            taken = torch.stack([self.states[layer, at] for layer in layers])
        else:
            taken = torch.from_numpy(np.stack([self.states[layer][positions] for layer in layers]))
        return (taken if taken.dtype == torch.float64 else taken.float()).to(device)


Loss = Callable[[dict[str, "torch.Tensor"], list[int], Cached, np.ndarray], "torch.Tensor"]
"""(tensors of some layers, these layers, data, positions) -> (layer,) mean loss in nats."""


@dataclass(frozen=True)
class Fitted:
    """The best maps by held-out loss.

    tensors: name -> (layer, ...);  loss, first_loss: (layer,) float64, held-out loss in nats of the kept map and
    before training;
    steps: (layer,) int64, updates after which the kept map stood;  stopped: (layer,) int64, updates in all.
    """

    tensors: dict[str, "torch.Tensor"]
    loss: np.ndarray
    first_loss: np.ndarray
    steps: np.ndarray
    stopped: np.ndarray


def fit(tensors: dict[str, "torch.Tensor"], layers: list[int], loss_of: Loss, train: Cached, held_out: Cached,
        recipe: Recipe, *,
        seed: int, at_once: int | None = None, on_step: Callable[[int], None] | None = None) -> Fitted:
    """Train the maps of `layers`.

    tensors: name -> (map, ...), first values, one per entry of layers;  at_once: layers whose losses are in memory at
    once, by default all (the result is the same but for rounding);  on_step: told the number of updates done.
    Raises ValueError when a loss is not finite, or there are no positions.
    """
    import torch

    if not len(train.targets) or not len(held_out.targets):
        raise ValueError("no masked positions to train on, or none held out; take more texts")
    tensors = {name: values.detach().clone() for name, values in tensors.items()}
    moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in tensors.items()}
    best = {name: values.clone() for name, values in tensors.items()}
    size = len(layers)
    lowest, reference, first = np.full(size, np.inf), np.full(size, np.inf), np.full(size, np.nan)
    best_step, stopped, waited = (np.zeros(size, dtype=np.int64), np.full(size, recipe.steps),
                                  np.zeros(size, dtype=np.int64))
    active, batches = list(range(size)), _batches(len(train.targets), recipe.batch, seed)
    measured = np.sort(seeds.generator(seed, "held out").permutation(len(held_out.targets))[:HELD_OUT_POSITIONS])
    for step in range(recipe.steps + 1):
        if recipe.measured(step):
            losses = _held_out_loss(tensors, active, layers, loss_of, held_out, measured, recipe.batch, at_once)
            if not np.isfinite(losses).all():
                raise ValueError(f"the loss of layer {layers[active[int(np.argmin(np.isfinite(losses)))]]} is not "
                                 f"finite after {step} steps; lower the learning rate ({recipe.learning_rate})")
            for number, loss in zip(active, losses, strict=True):
                first[number] = loss if step == 0 else first[number]
                waited[number] = 0 if loss < reference[number] - recipe.min_delta else waited[number] + 1
                reference[number] = loss if waited[number] == 0 else reference[number]
                if loss < lowest[number]:
                    lowest[number], best_step[number] = loss, step
                    for name, values in tensors.items():
                        best[name][number] = values[number]
                if waited[number] >= recipe.patience:
                    stopped[number] = step
            active = [number for number in active if waited[number] < recipe.patience]
        if step == recipe.steps or not active:
            break
        positions = next(batches)
        for part in _parts(active, at_once):
            _update(tensors, moments, part, layers, loss_of, train, positions, recipe, step)
        if on_step:
            on_step(step + 1)
    return Fitted(best, lowest, first, best_step, stopped)


def _update(tensors: dict[str, "torch.Tensor"], moments: dict[str, tuple["torch.Tensor", "torch.Tensor"]],
            part: list[int],
            layers: list[int], loss_of: Loss, train: Cached, positions: np.ndarray, recipe: Recipe, step: int) -> None:
    """One step of AdamW (Loshchilov and Hutter 2019) for the maps in `part`."""
    import torch

    all_maps = len(part) == len(layers)
    parameters = {name: (v if all_maps else v[part]).detach().requires_grad_() for name, v in tensors.items()}
    loss = loss_of(parameters, [layers[number] for number in part], train, positions)
    gradients = torch.autograd.grad(loss.sum(), list(parameters.values()))
    rate = recipe.rate(step)
    with torch.no_grad():
        for (name, values), gradient in zip(parameters.items(), gradients, strict=True):
            first, second = ((m if all_maps else m[part]) for m in moments[name])
            first = first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
            second = second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            moved = values.detach() * (1 - rate * recipe.weight_decay)
            scale = (second / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(EPS)
            moved.addcdiv_(first, scale, value=-rate / (1 - BETAS[0] ** (step + 1)))
            if all_maps:
                tensors[name] = moved
            else:
                tensors[name][part] = moved
                moments[name][0][part], moments[name][1][part] = first, second


def _held_out_loss(tensors: dict[str, "torch.Tensor"], active: list[int], layers: list[int], loss_of: Loss,
                   data: Cached, measured: np.ndarray, batch: int, at_once: int | None) -> np.ndarray:
    """(active map,) float64 mean loss over the positions `measured`."""
    import torch

    count, losses = len(measured), []
    with torch.no_grad():
        for part in _parts(active, at_once):
            parameters = {name: values[part] for name, values in tensors.items()}
            total: Any = 0.0
            for start in range(0, count, batch):
                positions = measured[start:start + batch]
                total = total + len(positions) * loss_of(parameters, [layers[n] for n in part], data,
                                                         positions).double()
            losses.append((total / count).cpu().numpy())
    return np.concatenate(losses)


def _parts(numbers: list[int], at_once: int | None) -> Iterator[list[int]]:
    size = at_once or len(numbers)
    for start in range(0, len(numbers), size):
        yield numbers[start:start + size]


def _batches(positions: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Position numbers in a new order at each pass, without end; the same for all layers."""
    waiting, epoch = np.zeros(0, dtype=np.int64), 0
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, seeds.generator(seed, "order", epoch).permutation(positions)])
            epoch += 1
        yield waiting[:batch]
        waiting = waiting[batch:]
