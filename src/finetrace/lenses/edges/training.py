"""Training of edge probes: one pass over the batches serves all probes; each is judged, slowed, stopped and kept on
its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.lenses.edges.data import Batch, EdgeData, check, make_batch, norms
from finetrace.lenses.edges.network import SCALARS, Dropout, Network, Probe, Shape, first_weights, parameter_shapes
from finetrace.lenses.edges.outputs import hits_of, losses_of
from finetrace.lenses.edges.recipe import Recipe

if TYPE_CHECKING:
    import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Look:
    """One look at the dev split. f1: micro, in [0, 1];  loss: nats;  rate: learning rate of the steps before it."""

    step: int
    f1: float
    loss: float
    rate: float


@dataclass(frozen=True)
class Trained:
    """A probe as it is kept. parameters: name -> array, float32 (or float64 where asked);  norm: (layer, 2) mean and
    standard deviation of the fixed normalisation, or None;  step: at which these parameters stood;  steps: trained in
    all."""

    probe: Probe
    parameters: dict[str, np.ndarray]
    norm: np.ndarray | None
    step: int
    steps: int
    looks: tuple[Look, ...] = ()

    @property
    def weights(self) -> np.ndarray | None:
        """Mixing weights (layer,) float64 over all layers of the model, which sum to 1; None for a single layer."""
        if self.probe.readout != "mix":
            return None
        scalars = self.parameters["mix"].astype(np.float64)[:self.probe.layer + 1]
        shares = np.exp(scalars - scalars.max())
        return np.concatenate([shares / shares.sum(), np.zeros(len(self.parameters["mix"]) - self.probe.layer - 1)])


def train_probes(train: EdgeData, dev: EdgeData | None, probes: Sequence[Probe], recipe: Recipe, *, seed: int,
                 device: str = "cpu", memory_mib: int = 1024, progress: Callable[[int, int], None] | None = None,
                 precise: bool = False) -> list[Trained]:
    """Train probes on the sentences of `train`, choose by `dev`; in the order of `probes`.

    dev: None where the last parameters are kept anyway;  seed: of first weights, order and masks;  memory_mib: probes
    are trained together as far as they fit, which changes the time and not the result;  progress: called with steps
    done and steps in all at each look;  precise: float64.
    Raises ValueError for data that do not fit together, labels that are not one class each in softmax mode, NaN in the
    states.
    """
    shape = _shape(train, recipe)
    check(train, "train")
    if recipe.loss == "softmax" and not (train.gold.sum(axis=1) == 1).all():
        raise ValueError("loss: softmax needs exactly one class per target; set loss: sigmoid for tasks whose labels "
                         "are sets")
    if dev is not None:
        check(dev, "dev")
    elif recipe.select == "best" or recipe.halve_patience or recipe.stop_patience:
        raise ValueError("select: best and patience need a dev split; set select: last, halve_patience: 0, "
                         "stop_patience: 0")
    for probe in probes:
        if not 0 <= probe.layer < shape.layers:
            raise ValueError(f"probe {probe.name}: the states have layers 0 to {shape.layers - 1}")
    parts = _chunks(probes, train, shape, recipe, memory_mib)
    trained: dict[Probe, Trained] = {}
    total = len(parts) * recipe.steps(train.sentences)
    for number, part in enumerate(parts):
        def tell(step: int, done: int = number * recipe.steps(train.sentences)) -> None:
            if progress:
                progress(done + step, total)

        run = _Run(train, dev, part, shape, recipe, seed, device, precise)
        trained |= {result.probe: result for result in run.run(tell)}
    return [trained[probe] for probe in probes]


def probe_bytes(tokens: int, targets: int, shape: Shape, recipe: Recipe) -> int:
    """Memory of one probe in training, in bytes: tokens, targets of a batch;  parameters and their moments,
    activations."""
    parameters = sum(int(np.prod(size)) for size in parameter_shapes(shape, recipe, True).values())
    units = recipe.hidden or shape.dim
    return 4 * (6 * parameters + 8 * tokens * shape.dim + 10 * targets * units * shape.sides
                + 6 * targets * shape.classes)


def _shape(data: EdgeData, recipe: Recipe) -> Shape:
    sides = 2 if recipe.twin_spans else data.spans.shape[1]
    return Shape(len(data.states), data.states.shape[2], sides, data.gold.shape[1])


def _chunks(probes: Sequence[Probe], train: EdgeData, shape: Shape, recipe: Recipe,
            memory_mib: int) -> list[list[Probe]]:
    """Probes that are trained together: of one kind, and as many as fit."""
    size = min(recipe.batch_sentences, train.sentences) / train.sentences
    bytes_of_probe = probe_bytes(int(1.5 * size * len(train.tokens)) + 1, int(1.5 * size * len(train.gold)) + 1, shape,
                                 recipe)
    fitting = max(1, memory_mib * 2**20 // bytes_of_probe)
    parts = []
    for kind in ("layer", "mix"):
        alike = [probe for probe in dict.fromkeys(probes) if probe.readout == kind]
        count = -(-len(alike) // fitting)
        parts += [part for k in range(count)
                  if (part := alike[k * len(alike) // count:(k + 1) * len(alike) // count])]
    return parts


@dataclass
class _State:
    """What is remembered of one probe in training."""

    rate: float = 1.0
    best: float = -np.inf
    waited: int = 0
    looks: list[Look] = field(default_factory=list)
    kept: dict[str, Any] | None = None
    step: int = 0


class _Run:
    """The training of one chunk of probes."""

    def __init__(self, train: EdgeData, dev: EdgeData | None, probes: list[Probe], shape: Shape, recipe: Recipe,
                 seed: int, device: str, precise: bool):
        import torch

        self.train, self.dev, self.recipe, self.seed, self.probes = train, dev, recipe, seed, probes
        self.like = torch.empty(0, dtype=torch.float64 if precise else torch.float32, device=device)
        self.network = Network(probes, [first_weights(probe, shape, recipe, seed) for probe in probes], shape, recipe,
                               self.like)
        self.adam = _Adam(self.network, recipe)
        self.dropout = Dropout(probes, recipe, seed, self.like.device)
        self.norm = norms(train) if recipe.normalisation == "fixed" else None
        self.states = {probe: _State() for probe in probes}
        self.looked_at = self._dev_batches()

    def run(self, tell: Callable[[int], None]) -> list[Trained]:
        recipe, last = self.recipe, self.recipe.steps(self.train.sentences)
        every, finished = recipe.look_every(self.train.sentences), dict[Probe, Trained]()
        for step, sentences in enumerate(self._batches(last), start=1):
            losses = self._step(sentences)
            if step % every and step != last:
                continue
            self._check(losses)
            if step != last:
                tell(step)
            if self.looked_at:
                for probe in self._look(step):
                    finished[probe] = self._finished(probe, step)
                if not self._drop(finished):
                    break
        for probe in self.network.probes:
            if probe not in finished:
                finished[probe] = self._finished(probe, last)
        tell(last)
        return [finished[probe] for probe in self.probes]

    def _batches(self, steps: int) -> Iterator[np.ndarray]:
        """Sentences of each step: a new order per epoch, the same for all probes."""
        size, done, epoch = self.recipe.batch_sentences, 0, 0
        per_epoch = self.recipe.steps_per_epoch(self.train.sentences)
        while done < steps:
            order = seeds.generator(self.seed, "order", epoch).permutation(self.train.sentences)
            for start in range(0, min(per_epoch, steps - done) * size, size):
                yield order[start:start + size]
            done, epoch = done + per_epoch, epoch + 1

    def _step(self, sentences: np.ndarray) -> "torch.Tensor":
        """One optimiser step; the loss of each probe before it, (probe,) nats."""
        network = self.network
        batch = self._batch(self.train, sentences)
        units = self.recipe.hidden or network.shape.dim
        masks = self.dropout.masks(len(batch.gold), units, self.like)
        losses = losses_of(network.logits(batch, masks), batch.gold, self.recipe.loss).mean(dim=1)
        losses.sum().backward()
        self.adam.step([self.states[probe].rate for probe in network.probes])
        return losses.detach()

    def _check(self, losses: "torch.Tensor") -> None:
        """Of a loss that was infinite once, weights and all later losses are NaN: looking at the last one is enough."""
        bad = ~losses.isfinite().cpu().numpy()
        if bad.any():
            raise ValueError(f"probe {self.network.probes[int(np.argmax(bad))].name}: the loss is not finite; the "
                             "states hold NaN or infinity, or the learning rate is too high")

    def _batch(self, data: EdgeData, sentences: np.ndarray) -> Batch:
        norm = norms(data, sentences) if self.recipe.normalisation == "batch" else self.norm
        return make_batch(data, sentences, self.network.layers, norm, self.recipe.twin_spans, self.like)

    def _dev_batches(self) -> list[np.ndarray]:
        recipe, count = self.recipe, self.dev.sentences if self.dev is not None else 0
        chosen = seeds.generator(self.seed, "dev").permutation(count)[:recipe.dev_sentences or count]
        size = recipe.batch_sentences
        if recipe.dev_drop_last:
            chosen = chosen[:len(chosen) // size * size]
        elif recipe.normalisation != "batch":
            chosen, size = np.sort(chosen), 4 * size
        return [chosen[start:start + size] for start in range(0, len(chosen), size)]

    def _look(self, step: int) -> list[Probe]:
        """Judge all probes; returns those that stop."""
        import torch

        network, recipe, stopped = self.network, self.recipe, []
        counts, loss, targets = np.zeros((len(network.probes), 3)), np.zeros(len(network.probes)), 0
        with torch.no_grad():
            for sentences in self.looked_at:
                batch = self._batch(self.dev, sentences)  # type: ignore[arg-type]
                z = network.logits(batch)
                counts += hits_of(z, batch.gold, recipe.loss).sum(dim=1).double().cpu().numpy()
                loss += losses_of(z, batch.gold, recipe.loss).sum(dim=1).double().cpu().numpy()
                targets += len(batch.gold)
        decided = 2 * counts[:, 0] + counts[:, 1] + counts[:, 2]
        f1 = np.divide(2 * counts[:, 0], decided, out=np.zeros(len(decided)), where=decided > 0)
        loss /= targets
        for number, probe in enumerate(network.probes):
            state = self.states[probe]
            state.looks.append(Look(step, float(f1[number]), float(loss[number]), state.rate * recipe.learning_rate))
            score = float(f1[number] if recipe.criterion == "f1" else -loss[number])
            if score > state.best + (recipe.min_gain if np.isfinite(state.best) else 0):
                state.best, state.waited = score, 0
                if recipe.select == "best":
                    state.kept, state.step = self._values(number), step
            else:
                state.waited += 1
                if recipe.halve_patience and state.waited % recipe.halve_patience == 0:
                    state.rate /= 2
            patient = not recipe.stop_patience or state.waited < recipe.stop_patience
            if not patient or state.rate * recipe.learning_rate < recipe.floor:
                stopped.append(probe)
        return stopped

    def _drop(self, finished: dict[Probe, Trained]) -> bool:
        """Go on without the probes that have stopped; false when none is left."""
        going = np.array([i for i, probe in enumerate(self.network.probes) if probe not in finished], dtype=np.int64)
        if not len(going):
            return False
        if len(going) < len(self.network.probes):
            self.network.restrict(going)
            self.adam.restrict(going)
            self.dropout.restrict(going)
        return True

    def _values(self, number: int) -> dict[str, np.ndarray]:
        return {name: values[number].detach().cpu().numpy().copy() for name, values in self.network.parameters.items()}

    def _finished(self, probe: Probe, step: int) -> Trained:
        state = self.states[probe]
        parameters = state.kept or self._values(self.network.probes.index(probe))
        return Trained(probe, parameters, self.norm, state.step if state.kept else step, step, tuple(state.looks))


class _Adam:
    """Adam of each probe with its own learning rate and clipping; formulas and order of operations of PyTorch's."""

    def __init__(self, network: Network, recipe: Recipe):
        import torch

        self.network, self.recipe, self.count = network, recipe, 0
        self.first, self.second, self.largest = ({name: torch.zeros_like(values)
                                                  for name, values in network.parameters.items()}
                                                 if needed else {} for needed in (True, True, recipe.amsgrad))

    def restrict(self, going: np.ndarray) -> None:
        import torch

        for moments in (self.first, self.second, self.largest):
            for name, values in moments.items():
                moments[name] = values.index_select(0, torch.as_tensor(going, device=values.device))

    def step(self, rates: Sequence[float]) -> None:
        """rates: (probe,) factors of the recipe's learning rates."""
        import torch

        recipe, (beta1, beta2) = self.recipe, BETAS
        self.count += 1
        root = float(np.sqrt(1 - beta2**self.count))
        gradients = {}
        for name, values in self.network.parameters.items():  # poolers of spans of one piece each have no gradient
            gradients[name], values.grad = torch.zeros_like(values) if values.grad is None else values.grad, None
        scale = self._clip(gradients) if recipe.clip else None
        with torch.no_grad():
            for name, values in self.network.parameters.items():
                gradient, wide = gradients[name], (-1,) + (1,) * (values.ndim - 1)
                if scale is not None:
                    gradient = gradient * scale.view(wide)
                if recipe.weight_decay:
                    gradient = gradient.add(values, alpha=recipe.weight_decay)
                first, second = self.first[name], self.second[name]
                first.lerp_(gradient, 1 - beta1)
                second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                if recipe.amsgrad:
                    second = torch.maximum(self.largest[name], second, out=self.largest[name])
                below = second.sqrt().div_(root).add_(EPSILON)
                size = (recipe.scalar_learning_rate if name in SCALARS
                        else recipe.learning_rate) / (1 - beta1**self.count)
                if len(set(rates)) == 1:
                    values.addcdiv_(first, below, value=-size * rates[0])
                else:
                    step_sizes = torch.tensor([-size * rate for rate in rates], dtype=values.dtype,
                                              device=values.device)
                    values.addcdiv_(first * step_sizes.view(wide), below)

    def _clip(self, gradients: "dict[str, torch.Tensor]") -> "torch.Tensor":
        """(probe,) factors that bring each probe's gradient to the largest norm allowed."""
        import torch

        squares = torch.stack([values.reshape(len(values), -1).square().sum(dim=1)
                               for values in gradients.values()]).sum(dim=0)
        return torch.clamp(self.recipe.clip / (squares.sqrt() + 1e-6), max=1.0)
