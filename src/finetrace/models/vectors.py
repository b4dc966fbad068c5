"""The vector of an example: its sentence token's, or that of its marked words."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def sentence_vectors(states: "torch.Tensor", mask: "torch.Tensor",
                     position: Literal["first", "last", "mean"]) -> "torch.Tensor":
    """The sentence vector of each example of one layer, wherever its padding is.

    states: (example, token, dim) tensor;  mask: (example, token) 1 where there is a token;  position: first | last |
    mean (see `families.sentence_position`). Returns (example, dim).
    """
    import torch

    if position == "mean":
        weights = mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
    width = mask.shape[1]
    at = mask.argmax(dim=1) if position == "first" else width - 1 - mask.flip(1).argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), at]


def span_vectors(states: "torch.Tensor", spans: "torch.Tensor", slots: "torch.Tensor",
                 per_example: int) -> "torch.Tensor":
    """(row, token, dim) states to (example, per_example * dim).

    spans: (row, slot, token) weights, `per_example` slots in a row for each example;  slots: (example,) places of the
    examples. A product instead of a gather: its gradient needs no atomic additions, so it is the same at every run.
    Never in half precision, also under autocast: a mean of equal numbers is that number.
    """
    import torch

    states = states if states.dtype == torch.float64 else states.float()
    with torch.autocast(states.device.type, enabled=False):
        vectors = torch.bmm(spans.to(states.dtype), states)
    return vectors.reshape(-1, per_example * states.shape[2])[slots]
