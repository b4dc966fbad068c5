"""Classifiers in folders: whole ones, and those that keep the pre-trained encoder and so only hold what was trained.

    config.json, model.safetensors            a whole classifier with its family's head, as transformers writes it
    ... and head.safetensors, head.json       a whole encoder with a linear head beside it
    config.json, head.safetensors, head.json  a linear probe: the head only
    ... and adapter_model.safetensors, adapter_config.json   LoRA: adapters (as peft writes them) and the head
"""

import copy
import json
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import CONFIG as ADAPTER_CONFIG
from finetrace.models.adapters import has_adapters, load_adapters, merge, save_adapters
from finetrace.models.load import load_encoder, load_family_classifier
from finetrace.store.files import write_json
from finetrace.store.manifest import NAME, read_key

HEAD = "head.safetensors"
FACTS = "head.json"


def save_classifier(model: Any, folder: Path) -> None:
    """Write a classifier into `folder`; of an encoder that is frozen or only adapted, what was trained."""
    from safetensors.torch import save_file

    from finetrace.models.linear import LinearClassifier

    encoder, linear = model.base_model, isinstance(model, LinearClassifier)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad and ".lora_" not in name
               and "pooler" not in name]
    all_trained = bool(trained) and not has_adapters(encoder)
    if all_trained:
        (encoder if linear else model).save_pretrained(folder, safe_serialization=True)
        if not linear:
            return
    else:
        config = copy.deepcopy(model.config)  # as save_pretrained of the whole model writes it
        config.architectures, config.dtype = ([type(encoder if linear else model).__name__],
                                              next(encoder.parameters()).dtype)
        config.save_pretrained(folder)
        if has_adapters(encoder):
            save_adapters(encoder, folder, getattr(model, "base_name", ""))
    save_file({name: values.detach().cpu().contiguous() for name, values in _head_tensors(model).items()},
              folder / HEAD)
    facts = {"head": "linear" if linear else "family", "label_names": _names(model),
             "spans": model.spans if linear else 0}
    write_json(folder / FACTS, facts if all_trained else {**facts, "base": getattr(model, "base_sha256", None)})


def load_trained(folder: Path, base: Path | None = None) -> Any:
    """The classifier of a checkpoint folder, in evaluation mode;
    its trained parameters require gradients, frozen ones do not.

    base: the model folder that the training started from; checkpoints of adapters or of a head alone need it. Raises
    FinetraceError when it is needed and missing or another model, or when the folder is damaged.
    """
    if not (folder / FACTS).is_file():
        return load_family_classifier(folder).eval()
    from finetrace.models.linear import LinearClassifier

    facts = _facts(folder)
    source = _encoder_folder(folder, facts, base)
    if facts.get("head", "linear") == "linear":
        model = LinearClassifier(load_encoder(source), int(facts["spans"]), facts["label_names"])
    else:
        model = load_family_classifier(source, facts["label_names"])
    if (folder / ADAPTER_CONFIG).is_file():
        load_adapters(model.base_model, folder)
    _load_head(model, folder)
    if source != folder:
        freeze_encoder(model)
        remember_base(model, source)
    return model.eval()


def load_trained_encoder(folder: Path, base: Path | None = None) -> Any:
    """The encoder of a model or checkpoint folder without its head, adapters applied, in evaluation mode;
    see `load_trained`."""
    if not (folder / FACTS).is_file():
        return load_encoder(folder)
    source = _encoder_folder(folder, _facts(folder), base)
    encoder = load_encoder(source)
    if (folder / ADAPTER_CONFIG).is_file():
        load_adapters(encoder, folder)
    return encoder.eval()


def export(folder: Path, base: Path | None, out: Path) -> None:
    """Write a checkpoint as a whole model that needs neither its base nor peft: adapters merged,
    head beside the encoder."""
    model = load_trained(folder, base)
    if has_adapters(model.base_model):
        merge(model.base_model)
    model.requires_grad_(True)
    save_classifier(model, out)


def freeze_encoder(model: Any) -> None:
    """Only the head, adapters, and a pooler that feeds the family's own head are trained."""
    for name, parameter in model.base_model.named_parameters():
        parameter.requires_grad_(".lora_" in name or (_pooler_feeds_head(model) and "pooler" in name))


def remember_base(model: Any, folder: Path) -> None:
    """Note which model folder a training starts from, so that its partial checkpoints can name it."""
    model.base_name, model.base_sha256 = folder.name, read_key(folder) if (folder / NAME).is_file() else None


def _pooler_feeds_head(model: Any) -> bool:
    from finetrace.models.linear import LinearClassifier

    return not isinstance(model, LinearClassifier)


def _head_tensors(model: Any) -> dict[str, Any]:
    """Tensors outside the encoder, by name; of the family's own head also the pooler's, which lies in the encoder."""
    inside = {id(values) for name, values in model.base_model.state_dict(keep_vars=True).items()
              if not (_pooler_feeds_head(model) and "pooler" in name)}
    return {name: values for name, values in model.state_dict(keep_vars=True).items() if id(values) not in inside}


def _load_head(model: Any, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors, expected = load_file(folder / HEAD), set(_head_tensors(model))
        if set(tensors) != expected:
            raise ValueError(f"it holds {', '.join(sorted(tensors))} instead of {', '.join(sorted(expected))}")
        model.load_state_dict(tensors, strict=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FinetraceError(f"{folder}: its head ({HEAD}, {FACTS}) cannot be read: {error}") from error


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        return {**facts, "spans": int(facts["spans"]), "label_names": list(facts["label_names"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetraceError(f"{folder}: its head ({HEAD}, {FACTS}) cannot be read: {error}") from error


def _encoder_folder(folder: Path, facts: dict[str, Any], base: Path | None) -> Path:
    """Where the encoder's weights lie: in the checkpoint, or in the model folder that it was trained on."""
    if "base" not in facts:
        return folder
    if base is None:
        raise FinetraceError(f"{folder}: holds only what was trained on top of a frozen encoder; name the model "
                             "folder that the training started from (models/MODEL)")
    if facts["base"] and (base / NAME).is_file() and read_key(base) != facts["base"]:
        raise FinetraceError(f"{folder}: was trained on top of another model than {base} now holds; train again")
    return base


def _names(model: Any) -> list[str]:
    names = getattr(model, "label_names", None)
    return list(names) if names else [model.config.id2label[i] for i in range(model.config.num_labels)]
