"""A model with its masked-word head, as a checkpoint has it or put together from an
encoder and another model's head."""

from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import has_adapters, merge
from finetrace.models.device import quiet
from finetrace.models.load import one_line, require_all_used, set_dropout
from finetrace.models.saved import load_trained_encoder


def load_masked(folder: Path, head: Path | None = None, base: Path | None = None, dropout: float | None = None) -> Any:
    """The model of a checkpoint folder with its masked-word head, float32, on the CPU.

    head: model folder whose masked-word head goes onto the checkpoint's encoder (a fine-tuned one has none of its own);
    a decoder that shares its weights with the word embeddings takes those of the encoder;  base: model folder that
    checkpoints of adapters need; adapters are merged;  dropout: replaces the config's own.
    Raises FinetraceError where there is no such head: its weights would be freshly drawn.
    """
    if head is None:
        return _load(folder, dropout)
    encoder = load_trained_encoder(folder, base)
    if has_adapters(encoder):
        encoder = merge(encoder)
    model = _load(head, dropout)
    expected, weights = model.base_model.state_dict(), encoder.state_dict()
    if wrong := [name for name, values in expected.items() if name not in weights
                 or weights[name].shape != values.shape]:
        raise FinetraceError(f"{folder}: its encoder is not of the architecture of {head} ({wrong[0]}), so the "
                             "masked-word head of that model does not fit")
    model.base_model.load_state_dict({name: weights[name] for name in expected})
    return model


def _load(folder: Path, dropout: float | None) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    quiet()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if dropout is not None:
            set_dropout(config, dropout)
        model, report = AutoModelForMaskedLM.from_pretrained(folder, config=config, local_files_only=True,
                                                             dtype=torch.float32,
                                                             use_safetensors=True, output_loading_info=True,
                                                             ignore_mismatched_sizes=True, trust_remote_code=False)
    except Exception as error:  # damaged files and wrong configs raise many kinds
        raise FinetraceError(f"{folder}: could not be loaded with a masked-word head: {one_line(error)}") from error
    drawn = {key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])}
    if missing := sorted(key for key in drawn if "pooler" not in key):
        raise FinetraceError(f"{folder}: has no masked-word head: its weights lack {', '.join(missing[:3])}"
                             f"{' ...' if len(missing) > 3 else ''}, which would be random numbers; start from a model "
                             "that was trained with masked words and saved with that head (not a sentence encoder or "
                             "a classifier)")
    require_all_used(model, report["unexpected_keys"], folder)
    return model
