"""Edge probes (Tenney et al. 2019) side by side: one network whose every tensor has a leading probe axis.

Probes do not see each other: the loss is their sum, gradients are clipped per probe, and first weights and dropout
masks are drawn by the names of the probes, so a probe learns the same whatever stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetrace import seeds
from finetrace.lenses.edges.data import Batch, Side
from finetrace.lenses.edges.recipe import Recipe

if TYPE_CHECKING:
    import torch

SCALARS = ("mix", "gamma")
HIDDEN_LAYERS = {"linear": 0, "mlp": 1, "fancy_mlp": 2}


@dataclass(frozen=True, order=True)
class Probe:
    """A read-out: `layer` k alone, or the `mix` of layers 0 to k; seed: number of the repetition.

    The probes of layer k and of the mix 0 to k draw the same first weights and masks: what differs between them is the
    mix.
    """

    readout: Literal["layer", "mix"]
    layer: int
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.readout}:{self.layer}" + (f"/{self.seed}" if self.seed else "")

    @property
    def stream(self) -> tuple[int, int]:
        """What its random draws are named by."""
        return self.layer, self.seed


@dataclass(frozen=True)
class Shape:
    """layers: hidden states, the embedding output among them;  dim: their width;  sides: spans per target;  classes."""

    layers: int
    dim: int
    sides: int
    classes: int


def parameter_shapes(shape: Shape, recipe: Recipe, mix: bool) -> dict[str, tuple[int, ...]]:
    """The tensors of one probe, without the probe axis: name -> shape; weights are (in, out)."""
    token = recipe.projection or shape.dim
    shapes: dict[str, tuple[int, ...]] = {}
    hidden = [recipe.hidden or shape.dim] * HIDDEN_LAYERS[recipe.head]
    for side in range(shape.sides):
        if recipe.projection:
            shapes[f"project{side}"], shapes[f"project{side}_bias"] = (shape.dim, token), (token,)
        if recipe.pooling == "attention":
            shapes[f"attend{side}"] = (token,)  # its bias would cancel in the softmax
    width = token * (2 if recipe.pooling == "endpoint" else 1)
    for side in range(shape.sides):  # the rows of one matrix for the spans side by side
        shapes[f"first{side}"] = (width, [*hidden, shape.classes][0])
    shapes["first_bias"] = ([*hidden, shape.classes][0],)
    for number, units in enumerate(hidden):
        units_out = [*hidden, shape.classes][number + 1]
        shapes[f"norm{number}"], shapes[f"norm{number}_bias"] = (units,), (units,)
        shapes[f"linear{number}"], shapes[f"linear{number}_bias"] = (units, units_out), (units_out,)
    if mix:
        shapes["mix"], shapes["gamma"] = (shape.layers,), ()
    return shapes


def first_weights(probe: Probe, shape: Shape, recipe: Recipe, seed: int) -> dict[str, np.ndarray]:
    """First values of one probe, float64: linear layers uniform within -+ 1 / sqrt(inputs), as PyTorch has it, the
    scalars of the mix 0, gamma 1, layer norms 1 and 0."""
    shapes, weights = parameter_shapes(shape, recipe, probe.readout == "mix"), {}
    inputs = {"first": shape.sides * shapes["first0"][0], "project": shape.dim,
              "attend": recipe.projection or shape.dim}
    for name, size in shapes.items():
        kind, bias = name.removesuffix("_bias").rstrip("0123456789"), name.endswith("_bias")
        if kind in ("mix", "gamma", "norm"):
            weights[name] = np.full(size, 0.0 if kind == "mix" or bias else 1.0)
        else:
            fan_in = inputs.get(kind) or shapes[name.removesuffix("_bias")][0]
            limit = 1 / np.sqrt(fan_in)
            weights[name] = seeds.generator(seed, "weights", *probe.stream, name).uniform(-limit, limit, size)
    return weights


class Network:
    """Probes of one kind, all of single layers or all of mixes.

    parameters: name -> (probe, ...) tensors, leaves that require gradients.
    """

    def __init__(self, probes: Sequence[Probe], values: Sequence[Mapping[str, np.ndarray]], shape: Shape,
                 recipe: Recipe, like: "torch.Tensor"):
        import torch

        if len({probe.readout for probe in probes}) != 1:
            raise ValueError("probes of single layers and of mixes cannot share a network")
        self.probes, self.shape, self.recipe, self.mixed = list(probes), shape, recipe, probes[0].readout == "mix"
        self.parameters = {name: torch.as_tensor(np.stack([tensors[name] for tensors in values]), dtype=like.dtype,
                                                 device=like.device)
                           .requires_grad_() for name in values[0]}
        self._select()

    def _select(self) -> None:
        """Which layers are needed, and where each probe finds its own among them."""
        layers_of_probes = np.array([probe.layer for probe in self.probes])
        # a mix is a sum over all layers, to the last bit the same whichever probes are trained together
        self.layers = np.arange(self.shape.layers) if self.mixed else np.unique(layers_of_probes)
        self.own = np.searchsorted(self.layers, layers_of_probes)

    def restrict(self, going: np.ndarray) -> None:
        """Keep these probes only: going (probe,) int64."""
        import torch

        self.probes = [self.probes[i] for i in going]
        for name, values in self.parameters.items():
            index = torch.as_tensor(going, device=values.device)
            self.parameters[name] = values.detach().index_select(0, index).requires_grad_()
        self._select()

    def weights(self) -> "torch.Tensor":
        """Mixing weights (probe, layer) over `layers`; those beyond a probe's last layer are 0."""
        import torch

        scalars = self.parameters["mix"]
        places = torch.as_tensor(self.own, device=scalars.device)
        beyond = torch.arange(len(self.layers), device=scalars.device) > places[:, None]
        return scalars.masked_fill(beyond, float("-inf")).softmax(dim=1)

    def logits(self, batch: Batch, masks: "Sequence[torch.Tensor] | None" = None) -> "torch.Tensor":
        """(probe, target, class). batch: states of `layers`;  masks: dropout of each hidden layer, (probe, target,
        unit) factors that multiply it; None while scoring."""
        import torch

        values, x = self.parameters, self._states(batch.states)
        parts = []
        for number, side in enumerate(batch.sides):
            pooled, weights = self._pooled(x, side, number), values[f"first{number}"]  # per span, not target
            part = torch.bmm(pooled, weights) if number \
                else torch.baddbmm(values["first_bias"][:, None], pooled, weights)
            parts.append(part if side.targets is None else _rows(part, side.targets))
        z = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        for number in range(HIDDEN_LAYERS[self.recipe.head]):
            z = torch.nn.functional.layer_norm(z.tanh(), z.shape[-1:])
            scale, shift = values[f"norm{number}"], values[f"norm{number}_bias"]
            linear, bias = values[f"linear{number}"], values[f"linear{number}_bias"]
            if masks is None:  # scale and shift go into the linear layer, which is smaller than the targets
                bias, linear = torch.baddbmm(bias[:, None], shift[:, None], linear), scale[..., None] * linear
            else:
                z, bias = torch.addcmul(shift[:, None], z, scale[:, None]) * masks[number], bias[:, None]
            z = torch.baddbmm(bias, z, linear)
        return z

    def _states(self, states: "torch.Tensor") -> "torch.Tensor":
        """(probe, token, dim) of (layer, token, dim)."""
        import torch

        if self.mixed:
            weights, count = self.weights() * self.parameters["gamma"][:, None], len(self.probes)
            weights = torch.nn.functional.pad(weights, (0, 0, 0, 1)) if count == 1 else weights  # see _dot
            return (weights @ states.flatten(1))[:count].view(count, *states.shape[1:])
        in_order = len(self.own) == len(states) and (self.own == np.arange(len(states))).all()
        return states if in_order else states[self.own]

    def _pooled(self, x: "torch.Tensor", side: Side, number: int) -> "torch.Tensor":
        """Span vectors (probe, span, width) of token vectors (probe, token, dim).

        Pooling, but for max, is a weighted mean, which a linear map commutes with: spans are projected after it.
        """
        import torch

        pooling, values = self.recipe.pooling, self.parameters
        project = values.get(f"project{number}")
        if pooling == "max" and project is not None:
            x, project = torch.baddbmm(values[f"project{number}_bias"][:, None], x, project), None
        if pooling == "max":
            pooled = _max(x, side)
        elif side.single and pooling != "endpoint":
            pooled = _rows(x, side.pieces)
        elif pooling in ("first", "last", "endpoint"):
            ends = torch.cat([side.begins[1:], side.begins.new_tensor([len(side.pieces)])]) - 1
            where = {"first": side.begins, "last": ends,
                     "endpoint": torch.stack([side.begins, ends], dim=1).flatten()}[pooling]
            pooled = _rows(x, side.pieces[where])  # endpoint: (probe, span x end, dim)
        else:
            pooled = _weighted(x, side, self._attention(x, side, number, project))
        if project is not None:
            pooled = torch.baddbmm(values[f"project{number}_bias"][:, None], pooled, project)
        return pooled.reshape(len(pooled), side.spans, -1)

    def _attention(self, x: "torch.Tensor", side: Side, number: int, project: Any) -> "torch.Tensor":
        """Weights of the pieces (probe, piece), which sum to 1 over each span."""
        import torch

        if self.recipe.pooling == "mean":
            counts = torch.bincount(side.span_of, minlength=side.spans)[side.span_of]
            return (1.0 / counts.to(x.dtype)).expand(len(x), -1)
        query = self.parameters[f"attend{number}"]
        if project is not None:
            query = _dot(project, query)  # what scores projected tokens, for tokens as they are
        scores = _dot(x, query).gather(1, side.pieces.expand(len(x), -1))
        span_of = side.span_of.expand(len(x), -1)
        with torch.no_grad():
            lowest = scores.new_full((len(x), side.spans), float("-inf"))
            top = lowest.scatter_reduce(1, span_of, scores, "amax").gather(1, span_of)
        weights = (scores - top).exp()
        return weights / weights.new_zeros(len(x), side.spans).scatter_add(1, span_of, weights).gather(1, span_of)


class Dropout:
    """Masks of probes, each from a stream of its own. A unit is kept when a random byte is not below 256 times the
    rate, which is eight times cheaper than a random number per unit; kept units are scaled up so that the mean
    stays."""

    def __init__(self, probes: Sequence[Probe], recipe: Recipe, seed: int, device: Any):
        import torch

        self.level = round(256 * recipe.dropout)
        self.layers = HIDDEN_LAYERS[recipe.head] if self.level else 0
        self.streams = [torch.Generator(device).manual_seed(seeds.derive(seed, "dropout", *probe.stream))
                        for probe in probes]

    def restrict(self, going: np.ndarray) -> None:
        self.streams = [self.streams[i] for i in going]

    def masks(self, targets: int, units: int, like: "torch.Tensor") -> "list[torch.Tensor] | None":
        """Per hidden layer (probe, target, unit), 0 or 256 / (256 - level)."""
        import torch

        if not self.layers:
            return None
        count, masks = targets * units, []
        words = torch.empty(len(self.streams), -(-count // 8), dtype=torch.int64, device=like.device)
        for _ in range(self.layers):
            for row, stream in zip(words, self.streams, strict=True):
                row.random_(-2**63, None, generator=stream)
            mask = words.view(torch.uint8)[:, :count].reshape(-1, targets, units) >= self.level
            masks.append(mask.to(like.dtype) * (256 / (256 - self.level)))
        return masks


def _dot(x: "torch.Tensor", query: "torch.Tensor") -> "torch.Tensor":
    """x (probe, row, dim) times query (probe, dim): (probe, row).

    With a second column of zeros, because of one column and one probe BLAS sums in another order than of several
    probes, and Adam can make a difference of 1e-5 of what is rounding at first.
    """
    import torch

    return torch.bmm(x, torch.nn.functional.pad(query[..., None], (0, 1)))[..., 0]


def _rows(x: "torch.Tensor", index: "torch.Tensor") -> "torch.Tensor":
    """x[:, index] of x (probe, row, dim); as an embedding, whose gradient is summed in parallel and in one order."""
    import torch

    flat = index + x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    return torch.nn.functional.embedding(flat, x.reshape(-1, x.shape[2]))


def _weighted(x: "torch.Tensor", side: Side, weights: "torch.Tensor") -> "torch.Tensor":
    """Sums over the pieces of each span, weights (probe, piece): (probe, span, dim)."""
    import torch

    probes = torch.arange(len(x), device=x.device)[:, None]
    flat = (side.pieces + x.shape[1] * probes).flatten()
    begins = (side.begins + len(side.pieces) * probes).flatten()
    sums = torch.nn.functional.embedding_bag(flat, x.reshape(-1, x.shape[2]), begins, mode="sum",
                                             per_sample_weights=weights.reshape(-1))
    return sums.view(len(x), side.spans, -1)


def _max(x: "torch.Tensor", side: Side) -> "torch.Tensor":
    """Largest value of each dimension over each span; a short span repeats its first piece."""
    import torch

    counts = torch.bincount(side.span_of, minlength=side.spans)
    offset = torch.arange(int(counts.max()), device=x.device)
    places = side.begins[:, None] + torch.where(offset < counts[:, None], offset, 0)  # (span, piece of it)
    return _rows(x, side.pieces[places.flatten()]).view(len(x), side.spans, len(offset), -1).amax(dim=2)
