"""Which parameters enter the kernel, and what group each belongs to."""

import re
from collections.abc import Callable
from typing import Any

CHOICES = ("trainable", "all", "head", "encoder", "lora")
KINDS = ("embeddings", "attention", "ffn", "norms", "biases")


def chosen(model: Any, parameters: str | Callable[[str], bool], head: Any) -> dict[str, Any]:
    """Name -> parameter of the set asked for; a parameter that has several names comes once, under its first.

    trainable: those that require a gradient;  all;  head: the last linear layer;  encoder: all but that layer;  lora:
    the adapters' matrices alone;  or a function that is true for the names wanted. ValueError when none is
    meant.
    """
    if not callable(parameters) and parameters not in CHOICES:
        raise ValueError(f"parameters is {parameters!r}; give one of {', '.join(CHOICES)}, or a function of a name")
    head_ids = {id(p) for p in head.parameters()}
    conditions: dict[str, Callable[[str, Any], bool]] = {
        "trainable": lambda name, p: p.requires_grad,
        "all": lambda name, p: True,
        "head": lambda name, p: id(p) in head_ids,
        "encoder": lambda name, p: id(p) not in head_ids,
        "lora": lambda name, p: "lora_" in name,
    }
    is_chosen = (lambda name, p: parameters(name)) if callable(parameters) else conditions[parameters]
    chosen_parameters = {name: p for name, p in model.named_parameters()
                         if is_chosen(name, p) and p.is_floating_point()}
    if not chosen_parameters:
        raise ValueError(f"no parameter of {type(model).__name__} is meant by parameters={parameters!r}; the first of "
                         f"its parameters is {next((name for name, _ in model.named_parameters()), 'none')!r}")
    return chosen_parameters


def group(name: str) -> str:
    """Where a parameter sits: "embeddings", "layer-00/attention", "layer-00/ffn", "layer-00/norms" (weights and biases
    of layer norms), "layer-00/biases" (of linear layers); "rest" for what is in no layer, such as a pooler or the
    head's dense layer.

    ALBERT's one layer, used many times, is layer-00.
    """
    lowered = name.lower()
    layer = re.search(r"\.(\d+)\.", lowered)
    if layer is None or re.match(r".*(classifier|head|pooler|summary)\.", lowered[:layer.start() + 1]):
        return "embeddings" if "embed" in lowered else "rest"
    if "norm" in lowered:
        kind = "norms"
    elif lowered.endswith("bias"):
        kind = "biases"
    else:
        kind = "attention" if re.search(r"att(entio)?n", lowered) else "ffn"
    return f"layer-{int(layer[1]):02d}/{kind}"
