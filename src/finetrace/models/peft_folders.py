"""Adapter folders as peft and the Trainer write them: what they change, which head they carry, and how they become a
whole model."""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import CONFIG, WEIGHTS
from finetrace.models.device import quiet
from finetrace.models.load import one_line

TASKS = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token", "FEATURE_EXTRACTION": "none"}
"""peft's task_type -> kind of head."""
CLASSES = {"sequence": "AutoModelForSequenceClassification", "token": "AutoModelForTokenClassification",
           "masked words": "AutoModelForMaskedLM", "none": "AutoModel"}
"""Kind of head -> the class of transformers that has it."""


def adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder. Raises FinetraceError when it cannot be read or is of another kind of model."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
        task = config.get("task_type")
    except (OSError, ValueError, AttributeError) as error:
        raise FinetraceError(f"{path}: cannot be read ({error}); save the adapters again (save_pretrained)") from error
    if task is not None and task not in TASKS:
        raise FinetraceError(f"{path}: its adapters are for {task}; finetrace reads those of encoders: "
                             f"{', '.join(TASKS)}, or none")
    return dict(config)


def adapter_head(folder: Path) -> tuple[str, int]:
    """Kind of the head that adapters were trained with - sequence, token, masked words or none - and how many classes
    it tells."""
    from safetensors import safe_open

    config = adapter_config(folder)
    with safe_open(folder / WEIGHTS, "np") as content:
        shapes = {name: content.get_slice(name).get_shape() for name in content.keys()}
    head_weights = sorted(name for name, shape in shapes.items() if len(shape) == 2 and name.endswith(".weight")
                          and ".lora_" not in name and "pre_classifier" not in name
                          and any(f".{part}." in name for part in ("classifier", "score")))
    named = str((config.get("auto_mapping") or {}).get("base_model_class", ""))
    kind = TASKS.get(config.get("task_type") or "") or next(
        (kind for end, kind in (("ForTokenClassification", "token"), ("ForSequenceClassification", "sequence"),
                                ("ForMaskedLM", "masked words"), ("ForPreTraining", "masked words"))
         if named.endswith(end)), "sequence" if head_weights else "none")
    if kind in ("sequence", "token") and not head_weights:
        raise FinetraceError(f"{folder / WEIGHTS}: holds no classifier beside its adapters, so its answers would be "
                             "random; train with task_type SEQ_CLS or modules_to_save: [classifier]")
    return kind, int(shapes[head_weights[-1]][0]) if head_weights else 0


def merged(folder: Path, base: Path, out: Path) -> None:
    """Write base and adapters as one whole model, with the head that the adapters carry, into `out`.

    Equal to the adapted model but for rounding. Raises FinetraceError when the adapters do not fit the base, or are of
    a kind that cannot be merged (prompts).
    """
    import torch
    import transformers
    from peft import PeftConfig, PeftModel

    quiet()
    kind, classes = adapter_head(folder)
    changes = {"num_labels": classes} if kind in ("sequence", "token") else {}
    try:
        model = getattr(transformers, CLASSES[kind]).from_pretrained(
            base, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            ignore_mismatched_sizes=True, **changes)
        config = PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise FinetraceError(f"{folder / CONFIG}: {config.peft_type} adds tokens to the input, which no layer can "
                                 "be changed for; name adapters that change weights, such as LoRA")
        with _no_random_adapters(folder):
            adapted: Any = PeftModel.from_pretrained(model, folder, config=config, torch_device="cpu")
        adapted.merge_and_unload().save_pretrained(out)
    except FinetraceError:
        raise
    except Exception as error:  # what does not fit raises many kinds
        raise FinetraceError(f"{folder}: its adapters ({CONFIG}, {WEIGHTS}) do not fit the model {base}: "
                             f"{one_line(error)}; name the model that they were trained on in `base`") from error


@contextlib.contextmanager
def _no_random_adapters(folder: Path) -> Iterator[None]:
    """Adapters that peft would draw at random, with a warning, are an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = [str(warning.message) for warning in caught if "missing adapter keys" in str(warning.message)]
    if missing:
        raise FinetraceError(f"{folder / WEIGHTS}: lacks adapters of layers that {CONFIG} names "
                             f"({missing[0].partition(': ')[2][:120]}); copy or save the folder again")
