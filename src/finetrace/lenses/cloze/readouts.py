"""What turns the state of any layer into scores of words: the model's own head, heads of single layers, maps into the
own head.

own      the masked-word head as it is, on every layer (logit lens): how far a layer already speaks the last layer's
         language
trained  a head per layer with the transform trained on masked words, decoder tied and frozen (Wallat et al. 2020)
tuned    an affine map per layer into the own head, trained towards the last layer's predictions (Belrose et al. 2023)
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from finetrace import seeds
from finetrace.lenses.cloze.fitting import Cached, Fitted, Recipe, fit

if TYPE_CHECKING:
    import torch

INITIAL = 0.02  # standard deviation of freshly drawn weights, as BERT's


def train_heads(head: Any, layers: list[int], train: Cached, held_out: Cached, recipe: Recipe, *, seed: int,
                init: Literal["pretrained", "fresh"] = "pretrained", memory_bytes: float = 2**30,
                on_step: Callable[[int], None] | None = None) -> Fitted:
    """Heads that predict the masked words from each of `layers`: cross-entropy, nats per position.

    head: the MaskedHead that lends decoder and bias, which stay as they are;  init: the transform's first values, the
    head's own or random. A family without a transform gets a linear layer that begins as the identity. Tensors of the
    result are named as the fields of Transform.
    """
    import torch

    def loss_of(tensors: dict[str, "torch.Tensor"], part: list[int], data: Cached, positions: Any) -> "torch.Tensor":
        states = data.take(part, positions, head.decoder.device)
        scores = trained_inner(head, tensors, states) @ head.decoder.T + head.bias
        gold = torch.from_numpy(data.targets[positions]).to(scores.device)
        gold_scores = scores.gather(-1, gold.expand(len(part), -1)[..., None])[..., 0]
        return (scores.logsumexp(dim=-1) - gold_scores).mean(dim=1)

    first = first_heads(head, len(layers), init, seed, train.states.shape[2])
    return fit(first, layers, loss_of, train, held_out, recipe, seed=seed,
               at_once=_layers_at_once(head, recipe.batch, memory_bytes), on_step=on_step)


def first_heads(head: Any, count: int, init: Literal["pretrained", "fresh"], seed: int,
                dim: int) -> dict[str, "torch.Tensor"]:
    """First values of `count` equal heads: name -> (head, ...)."""
    import torch

    if head.transform is None:
        eye = torch.eye(dim, dtype=head.decoder.dtype, device=head.decoder.device)
        tensors = {"dense_weight": eye, "dense_bias": torch.zeros_like(eye[0])}
    else:
        tensors = head.transform.tensors()
    if init == "fresh":
        drawn = seeds.generator(seed, "fresh head").normal(scale=INITIAL, size=tuple(tensors["dense_weight"].shape))
        values = {name: torch.full_like(tensor, float(name == "norm_weight")) for name, tensor in tensors.items()}
        values["dense_weight"] = torch.from_numpy(drawn)
        tensors = {name: values[name].to(tensor) for name, tensor in tensors.items()}
    return {name: tensor.expand(count, *tensor.shape).clone() for name, tensor in tensors.items()}


def trained_inner(head: Any, tensors: dict[str, "torch.Tensor"], states: "torch.Tensor") -> "torch.Tensor":
    """What the decoder reads of states (layer, position, dim) through the layers' own heads: (layer, position,
    inner)."""
    if head.transform is None:
        return states @ tensors["dense_weight"].transpose(-1, -2) + tensors["dense_bias"].unsqueeze(-2)
    return head.transform.with_tensors(tensors)(states)


def train_maps(head: Any, layers: list[int], last: int, train: Cached, held_out: Cached, recipe: Recipe, *, seed: int,
               memory_bytes: float = 2**30, on_step: Callable[[int], None] | None = None) -> Fitted:
    """Affine maps into the own head: Kullback-Leibler divergence of the last layer's distribution from the mapped one,
    nats.

    layers: those with a map; `last` has none: the identity is exact there. Maps begin at the identity. Tensors of the
    result: weight (layer, dim, dim), bias (layer, dim).
    """
    import torch

    def loss_of(tensors: dict[str, "torch.Tensor"], part: list[int], data: Cached, positions: Any) -> "torch.Tensor":
        states = data.take([*part, last], positions, head.decoder.device)
        with torch.no_grad():
            goal = head(states[-1]).log_softmax(dim=-1)
        mapped_logs = head(mapped(tensors, states[:-1])).log_softmax(dim=-1)
        return (goal.exp() * (goal - mapped_logs)).sum(dim=-1).mean(dim=1)

    dim = train.states.shape[2]
    eye = torch.eye(dim, dtype=head.decoder.dtype, device=head.decoder.device)
    first = {"weight": eye.expand(len(layers), dim, dim).clone(), "bias": eye.new_zeros(len(layers), dim)}
    return fit(first, layers, loss_of, train, held_out, recipe, seed=seed,
               at_once=_layers_at_once(head, recipe.batch, memory_bytes), on_step=on_step)


def mapped(tensors: dict[str, "torch.Tensor"], states: "torch.Tensor") -> "torch.Tensor":
    """States (layer, position, dim) after the layers' affine maps."""
    return states @ tensors["weight"].transpose(-1, -2) + tensors["bias"].unsqueeze(-2)


def inner_states(readout: str, head: Any, fitted: Fitted | None, states: "torch.Tensor") -> "torch.Tensor":
    """What the decoder reads of states of all layers (layer, position, dim) through a read-out: (layer, position,
    inner).

    fitted: of `train_heads` for all layers, or of `train_maps` for all but the last.
    """
    import torch

    if readout == "own":
        return head.inner(states)
    if fitted is None:
        raise ValueError(f"the read-out {readout} needs trained maps")
    if readout == "trained":
        return trained_inner(head, fitted.tensors, states)
    return head.inner(torch.cat([mapped(fitted.tensors, states[:-1]), states[-1:]]))


def _layers_at_once(head: Any, batch: int, memory_bytes: float) -> int:
    """Layers whose scores, with gradients and copies, fit the memory."""
    return max(1, int(memory_bytes // (6 * batch * len(head.decoder) * head.decoder.element_size())))
