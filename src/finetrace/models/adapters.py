"""Low-rank adapters of an encoder (LoRA, Hu et al. 2021), through peft."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.store.files import write_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # the names by which peft finds them
ADAPTER = "default"
# names of the query and value projections, family by family; a fused projection is taken whole
TARGETS = (("query", "value"), ("q_lin", "v_lin"), ("query_proj", "value_proj"), ("q", "v"), ("Wqkv",), ("c_attn",),
           ("in_proj",))


def add_lora(encoder: Any, rank: int, alpha: float, dropout: float, targets: Sequence[str] | None, seed: int) -> None:
    """Put W x + alpha/rank B A x in the place of every target W x of the encoder; A is uniform (Kaiming), B is zero.

    targets: names of linear layers, by default the query and value projections. Everything but A and B is frozen;
    before the first step nothing is computed differently, because B is zero.
    Raises FinetraceError when the encoder lacks the targets.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    names = {name.rsplit(".", 1)[-1] for name, m in encoder.named_modules() if isinstance(m, torch.nn.Linear)}
    if targets is None:
        targets = next((candidates for candidates in TARGETS if set(candidates) <= names), None)
        if targets is None:
            raise FinetraceError(f"{encoder.config.model_type}: has no query and value projections of a "
                                 "known name; set train.lora_targets to some of its linear layers: "
                                 f"{', '.join(sorted(names))}")
    if unknown := sorted(set(targets) - names):
        raise FinetraceError(f"train.lora_targets: {unknown[0]!r} is not a linear layer of this "
                             f"{encoder.config.model_type}; it has {', '.join(sorted(names))}")
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout,  # type: ignore[arg-type]
                        target_modules=sorted(targets))
    inject_adapter_in_model(config, encoder, adapter_name=ADAPTER)


def has_adapters(encoder: Any) -> bool:
    """Whether `add_lora` was here."""
    return ADAPTER in getattr(encoder, "peft_config", {})


def save_adapters(encoder: Any, folder: Path, base: str) -> None:
    """Write A and B as peft does: PeftModel.from_pretrained(AutoModel.from_pretrained(BASE), folder) reads them.

    base: the model's name, noted for the reader.
    """
    from safetensors.torch import save_file

    config = encoder.peft_config[ADAPTER].to_dict()
    # a set's order differs between processes
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    config |= {"peft_type": "LORA", "base_model_name_or_path": base, "inference_mode": True}
    write_json(folder / CONFIG, config)
    save_file({_peft_name(n): p.detach().cpu().contiguous() for n, p in encoder.named_parameters() if ".lora_" in n},
              folder / WEIGHTS)


def load_adapters(encoder: Any, folder: Path) -> None:
    """Put the adapters of a checkpoint folder into an encoder without any.
    Raises FinetraceError when they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        add_lora(encoder, config["r"], config["lora_alpha"], config["lora_dropout"], config["target_modules"], 0)
        weights = load_file(folder / WEIGHTS)
        peft_names = {_peft_name(name): name for name, _ in encoder.named_parameters() if ".lora_" in name}
        if set(peft_names) != set(weights):
            raise ValueError(f"{len(set(peft_names) ^ set(weights))} of its tensors belong to other layers")
        encoder.load_state_dict({peft_names[name]: values for name, values in weights.items()}, strict=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise FinetraceError(f"{folder}: its adapters ({CONFIG}, {WEIGHTS}) cannot be read: {error}") from error


def merge(encoder: Any) -> Any:
    """Add B A to the weights that they adapt and take the adapters out: a plain encoder, equal but for rounding."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, module.get_base_layer())
    del encoder.peft_config
    return encoder


def _peft_name(name: str) -> str:
    return f"base_model.model.{name}".replace(f".{ADAPTER}.", ".")
