"""What the outputs of a probe say: the classes decided for, right or wrong, and what the labels cost."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def hits_of(logits: "torch.Tensor", gold: "torch.Tensor", loss: Literal["sigmoid", "softmax"],
            classes: "torch.Tensor | None" = None) -> "torch.Tensor":
    """True positives, false positives, false negatives of each target: (probe, target, 3) int32.

    logits: (probe, target, class);  gold: (target, class) 0 or 1;  classes: (class,) bool, those that count. Sigmoid:
    a class is decided for at a probability of 0.5 and above, none or several per target; softmax: the one of the
    highest output.
    """
    import torch

    truth = gold > 0.5
    if loss == "sigmoid":
        decided = logits >= 0
    else:
        decided = torch.zeros_like(logits, dtype=torch.bool).scatter_(2, logits.argmax(dim=2, keepdim=True), True)
    if classes is not None:
        decided, truth = decided & classes, truth & classes
    true_positives = (decided & truth).sum(dim=2)
    return torch.stack([true_positives, decided.sum(dim=2) - true_positives, truth.sum(dim=1) - true_positives],
                       dim=2).int()


def losses_of(logits: "torch.Tensor", gold: "torch.Tensor", loss: Literal["sigmoid", "softmax"]) -> "torch.Tensor":
    """(probe, target) in nats: cross-entropy, or the mean over classes of that of a yes or no."""
    import torch

    if loss == "softmax":
        return -(torch.log_softmax(logits, dim=2) * gold).sum(dim=2)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, gold.expand_as(logits),
                                                                reduction="none").mean(dim=2)
