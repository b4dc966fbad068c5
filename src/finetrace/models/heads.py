"""Which head the checkpoints of others carry, told from config.json and the names of the tensors, and how its classes
become those of a task."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import CONFIG as ADAPTER_CONFIG
from finetrace.models.check import check_weights, read_config
from finetrace.models.peft_folders import adapter_head
from finetrace.models.saved import FACTS as OWN_HEAD

ENDS = {"ForSequenceClassification": "sequence", "ForTokenClassification": "token", "ForMaskedLM": "masked words",
        "ForPreTraining": "masked words", "WithLMHeadModel": "masked words", "Model": "none"}
"""How names of architectures end -> kind of head."""
GENERATING = ("ForCausalLM", "GPT2LMHeadModel", "ForConditionalGeneration")
MASKED = ("cls.predictions.", "lm_head.", "vocab_", "generator_lm_head.", "pred_layer.", "mlm.", "decoder.")
"""Where families keep their masked-word head."""
OF_SPANS = ("sequence", "token", "span-pair")
"""Kind of a head that finetrace wrote, by marked words per example."""
CLASSIFIERS = ("classifier.", "score.", "logits_proj.", "sequence_summary.")


@dataclass(frozen=True)
class FoundHead:
    """kind: sequence, token, masked words, none, or the name of an architecture that finetrace has no use for;
    names: of its classes in the order of its outputs, LABEL_0, ... where nobody said."""

    kind: str
    names: tuple[str, ...] = ()
    own: bool = False
    """Whether finetrace wrote it."""


def head_of(folder: Path, base: Path | None = None) -> FoundHead:
    """The head of a checkpoint folder; headers of files are read, not weights.

    base: of adapters, the folder of the model that they change. Raises FinetraceError for damaged or foreign files.
    """
    if (folder / OWN_HEAD).is_file():  # also beside adapters
        facts = json.loads((folder / OWN_HEAD).read_text("utf-8"))
        return FoundHead(OF_SPANS[int(facts["spans"])], tuple(facts["label_names"]), own=True)
    if (folder / ADAPTER_CONFIG).is_file():
        kind, classes = adapter_head(folder)
        names = names_of(read_config(base)) if base is not None else ()
        return FoundHead(kind, names if len(names) == classes else tuple(f"LABEL_{i}" for i in range(classes)))
    config = read_config(folder)
    check_weights(folder)
    return told_by(config, tensor_names(folder))


def told_by(config: dict[str, Any], tensors: Sequence[str] | None = None) -> FoundHead:
    """The head that a config, and where they are known the names of the tensors, tell of."""
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith(GENERATING):
        raise FinetraceError(f"config.json: {architecture} generates text; finetrace looks at encoders such as BERT")
    kind = next((kind for end, kind in ENDS.items() if architecture.endswith(end)), architecture)
    if tensors is not None:
        classifies = any(name.startswith(CLASSIFIERS) for name in tensors)
        if kind in ("sequence", "token") and not classifies:
            kind = "none"  # the config of the training, the weights of the encoder alone
        elif kind in ("", "none"):
            kind = "masked words" if any(name.startswith(MASKED) for name in tensors) else (
                "sequence" if classifies else "none")
    return FoundHead(kind or "none", names_of(config) if kind in ("sequence", "token") else ())


def names_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The classes of a config by their number; transformers takes two, LABEL_0 and LABEL_1, where it says nothing."""
    named = config.get("id2label") or {}
    if not named:
        return tuple(f"LABEL_{i}" for i in range(int(config.get("num_labels") or 2)))
    return tuple(str(named[key]) for key in sorted(named, key=int))


def tensor_names(folder: Path) -> list[str]:
    """Names of all tensors in the safetensors files of a folder."""
    from safetensors import safe_open

    names: list[str] = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as content:
            names += content.keys()
    return names


def order_of(head: FoundHead, label_names: Sequence[str], declared: Sequence[str], where: str) -> list[int]:
    """For each class of a task, which output of the head tells it: (class,).

    label_names: the task's classes in order;  declared: their names in the order of the outputs, from params.yaml, or
    empty: then the head's own names count, whatever their case, or, where it has only LABEL_0, LABEL_1, ..., the task's
    order. Raises FinetraceError for classes of another set.
    """
    outputs = list(declared) or list(head.names)
    if len(head.names) != len(label_names) or len(outputs) != len(label_names):
        raise FinetraceError(f"{where}: the head tells {len(head.names)} classes ({', '.join(head.names[:6])}), and "
                             f"the task has {len(label_names)} ({', '.join(label_names[:6])}); leave the task out of "
                             "`head`")
    if not declared and all(name in (f"LABEL_{number}", str(number)) for number, name in enumerate(outputs)):
        return list(range(len(outputs)))
    folded, class_names = [_folded(name) for name in outputs], [_folded(name) for name in label_names]
    if sorted(folded) != sorted(class_names) or len(set(folded)) != len(folded):
        raise FinetraceError(f"{where}: the head's classes are {', '.join(outputs[:6])}, and those of the task "
                             f"{', '.join(label_names[:6])}; say in `labels` which is which, in the order of the "
                             "outputs, or leave the task out of `head`")
    return [folded.index(name) for name in class_names]


def _folded(name: str) -> str:
    """A class's name without what people write differently."""
    return "".join(c for c in name.lower() if c.isalnum()) or name
