"""The head, the classes and the kind of training of a model that someone else made, and how its weights are kept."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import ADAPTER, WEIGHTS, _peft_name
from finetrace.models.adapters import CONFIG as ADAPTER_CONFIG
from finetrace.models.load import head_parameters
from finetrace.models.saved import FACTS, HEAD, _head_tensors, save_classifier
from finetrace.store.checkpoints import checkpoint_name, mark
from finetrace.store.files import atomic_folder, write_json

FROZEN_COPY, TRAINED_COPY = "original_module.", "modules_to_save."
# of LoraConfig: what adapters.load_adapters, which knows rank, alpha, dropout and targets, would not put back
UNKNOWN = {"rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "use_rslora": False, "bias": "none",
           "lora_bias": False, "layers_to_transform": None, "target_parameters": None, "trainable_token_indices": None}
NEUTRAL_STARTS = (True, False, "gaussian", "kaiming")  # others change the frozen weights, too


def bare(model: Any) -> Any:
    """The model inside DistributedDataParallel. Raises FinetraceError for wrappers that hide or split a model."""
    import torch

    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return model.module
    if isinstance(model, torch.nn.DataParallel):
        raise FinetraceError("DataParallel splits batches inside one process; start one process per GPU instead "
                             "(accelerate launch, torchrun), or show one GPU only (CUDA_VISIBLE_DEVICES=0)")
    if hasattr(model, "_orig_mod"):
        raise FinetraceError("a compiled model hides its logits; train without torch.compile (torch_compile)")
    return model


def inner(model: Any) -> Any:
    """The transformers model inside one of PEFT."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def head_of(model: Any) -> list[Any]:
    """The parameters outside the encoder, without PEFT's frozen copy of them; none of a model without an encoder."""
    unwrapped = inner(model)
    if not hasattr(unwrapped, "base_model"):
        return []
    copies = {id(p) for name, p in unwrapped.named_parameters() if FROZEN_COPY in name}
    return [p for p in head_parameters(unwrapped) if id(p) not in copies]


def class_names(model: Any) -> list[str]:
    """Names of the classes as the model's config has them; none of a model without."""
    names = getattr(getattr(inner(model), "config", None), "id2label", None) or {}
    return [str(names[i]) for i in sorted(names)]


def names_of(model: Any, given: Sequence[str] | None, classes: int) -> list[str]:
    """Names of the classes: as given, else those of the config, else their numbers. Raises FinetraceError where there
    are not as many as logits."""
    names = list(given or class_names(model) or map(str, range(classes)))
    if len(names) != classes:
        raise FinetraceError(f"label_names: {len(names)} names ({', '.join(names[:5])}) for {classes} classes; name "
                             "all of them in the order of the logits")
    return names


def kind_of(model: Any) -> str:
    """How it is trained: `lora` with adapters, `lp` on a frozen encoder, else `ft`."""
    unwrapped = inner(model)
    if unwrapped is not model:
        return "lora"
    encoder = getattr(unwrapped, "base_model", unwrapped)
    return "ft" if encoder is unwrapped or any(p.requires_grad for p in encoder.parameters()) else "lp"


def describe(model: Any) -> dict[str, Any]:
    """Facts for whoever imports the trace: class, kind of head, whether checkpoints hold adapters, the base model."""
    unwrapped = inner(model)
    config = getattr(unwrapped, "config", None)
    name = str(getattr(config, "_name_or_path", "") or "")
    return {"architecture": type(unwrapped).__name__, "model_type": str(getattr(config, "model_type", "")),
            "head": "family" if type(unwrapped).__name__.endswith("ForSequenceClassification") else "own",
            "adapters": unwrapped is not model, "base": name,
            "base_revision": str(getattr(config, "_commit_hash", "") or "")}


def require_kept(model: Any) -> None:
    """Raises FinetraceError for adapters that a reader of checkpoints could not put back."""
    unwrapped = inner(model)
    if unwrapped is model:
        return
    config = model.peft_config.get(ADAPTER)
    problem = ""
    if config is None or set(model.peft_config) != {ADAPTER}:
        problem = f"the adapters are named {', '.join(sorted(model.peft_config))} instead of {ADAPTER}"
    elif str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        problem = f"its method is {getattr(config.peft_type, 'value', config.peft_type)} instead of LORA"
    elif changed := sorted(k for k, default in UNKNOWN.items() if (getattr(config, k, default) or default) != default):
        problem = f"its LoraConfig sets {', '.join(changed)}"
    elif config.init_lora_weights not in NEUTRAL_STARTS:
        problem = f"init_lora_weights: {config.init_lora_weights} changes the frozen weights"
    elif not isinstance(config.target_modules, list | set | tuple):
        problem = "its target_modules are a pattern"
    else:
        encoder, targets = unwrapped.base_model, set(config.target_modules)
        adapted = {name for name, module in encoder.named_modules() if hasattr(module, "lora_A")}
        targeted = {name for name, module in encoder.named_modules()
                    if name.rpartition(".")[2] in targets and hasattr(module, "weight") and ".base_layer" not in name}
        adapted_anywhere = [n for n, m in unwrapped.named_modules() if hasattr(m, "lora_A")]
        if adapted != targeted or len(adapted_anywhere) != len(adapted):
            problem = "its target_modules are not the names of the encoder's layers alone"
    if problem:
        raise FinetraceError(f"weights of this PEFT model would not be read back: {problem}; use plain LoRA, or "
                             'record no weights (checkpoints="none")')


def keep_weights(model: Any, folder: Path, step: int, base: str) -> None:
    """Write `folder`/step-N: what was trained, as `models.saved` reads it; the folder appears whole or not at all.

    base: the name of the model that adapters belong to.
    """
    target, unwrapped = folder / checkpoint_name(step), inner(model)
    with atomic_folder(target) as temporary:
        if unwrapped is not model:
            _save_adapted(model, unwrapped, temporary, base)
        elif hasattr(model, "save_pretrained") and hasattr(model, "base_model"):
            save_classifier(model, temporary)
        else:
            _save_tensors(model.state_dict(), temporary / "model.safetensors")
        mark(temporary, step)


def _save_adapted(model: Any, unwrapped: Any, folder: Path, base: str) -> None:
    config = model.peft_config[ADAPTER].to_dict()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}  # a set's order is not fixed
    model_config = copy.deepcopy(unwrapped.config)  # as save_pretrained of the whole model writes it
    model_config.architectures, model_config.dtype = [type(unwrapped).__name__], next(unwrapped.parameters()).dtype
    model_config.save_pretrained(folder)
    write_json(folder / ADAPTER_CONFIG, config | {"peft_type": "LORA", "base_model_name_or_path": base,
                                                  "inference_mode": True})
    _save_tensors({_peft_name(name): values for name, values in unwrapped.base_model.state_dict().items()
                   if ".lora_" in name}, folder / WEIGHTS)
    _save_tensors({name.replace(f"{TRAINED_COPY}{ADAPTER}.", ""): values
                   for name, values in _head_tensors(unwrapped).items() if FROZEN_COPY not in name}, folder / HEAD)
    write_json(folder / FACTS, {"head": "family", "label_names": class_names(model), "spans": 0, "base": None})


def _save_tensors(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: values.detach().cpu().contiguous().clone() for name, values in tensors.items()}, path)
