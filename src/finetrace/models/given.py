"""Checkpoints of a trajectory, trained here or given: the latter are opened where they lie.

A checkpoint that was given is a folder of `checkpoints/` with config.json and `source.json`: where its weights lie
(`models.sources`), the kind of its head, and which of the head's outputs tells which class of the task.
"""

import json
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models import saved
from finetrace.models.heads import CLASSIFIERS, tensor_names
from finetrace.models.load import load_encoder, load_family_classifier
from finetrace.models.saved import FACTS as OWN_HEAD
from finetrace.models.sources import Source, label, of_plain, opened, plain
from finetrace.models.timeline import TOKENIZER
from finetrace.store.files import write_json

POINTER = "source.json"


def write_pointer(folder: Path, source: Source, keep: bool, kind: str, order: list[int], names: list[str]) -> None:
    """Say in a checkpoint folder where its weights lie.

    keep: whether fetched weights stay in the hub's cache;  kind: of its head, sequence or token, or empty where none of
    the task's is there;  order: for each class of the task, which output tells it;  names: of the classes.
    """
    write_json(folder / POINTER, {"schema_version": 1, "source": plain(source), "keep": keep, "head": kind,
                                  "order": order, "label_names": names})


def model_folder(trajectory: Path, model: Path) -> Path:
    """The folder with the tokenizer and architecture of a trajectory: the model that it started from, or what a given
    one has of its own."""
    return trajectory / TOKENIZER if (trajectory / TOKENIZER).is_dir() else model


def load_trained(folder: Path, base: Path | None = None) -> Any:
    """The classifier of a checkpoint folder, as `models.saved.load_trained`; of a given one all parameters require
    gradients, and its outputs are in the order of the task's classes.

    Raises FinetraceError when its head does not tell the task's classes.
    """
    pointer = _pointer(folder)
    if pointer is None:
        return saved.load_trained(folder, base)
    source, kind, names = pointer["source"], str(pointer["head"]), list(pointer["label_names"])
    if not kind:
        raise FinetraceError(f"{folder}: {label(source)} was not given with a head for the classes "
                             f"{', '.join(names[:6])}; name its task in `head` of the series if it has one, or leave "
                             "it out of these lenses in `look`")
    with opened(source, pointer["keep"]) as weights_folder:
        if (weights_folder / OWN_HEAD).is_file():
            model = saved.load_trained(weights_folder)
        else:
            model = (load_family_classifier(weights_folder) if kind == "sequence"
                     else _words_classifier(weights_folder, source, names))
    _reorder(model, list(pointer["order"]), source)
    return model.float().eval()


def load_trained_encoder(folder: Path, base: Path | None = None) -> Any:
    """The encoder of a checkpoint folder, as `models.saved.load_trained_encoder`."""
    pointer = _pointer(folder)
    if pointer is None:
        return saved.load_trained_encoder(folder, base)
    with opened(pointer["source"], pointer["keep"]) as weights_folder:
        return saved.load_trained_encoder(weights_folder).eval()


def _pointer(folder: Path) -> dict[str, Any] | None:
    path = folder / POINTER
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        return {**content, "source": of_plain(content["source"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetraceError(f"{path}: cannot be read ({error}); run the stage given again") from error


def _words_classifier(weights_folder: Path, source: Source, names: list[str]) -> Any:
    """A classifier of words whose head is one linear layer on a word's first piece, as transformers trains them."""
    from safetensors import safe_open

    from finetrace.models.linear import LinearClassifier

    head_names = sorted(name for name in tensor_names(weights_folder) if name.startswith((*CLASSIFIERS, "head.")))
    if not set(head_names) <= {"classifier.weight", "classifier.bias"} or not head_names:
        raise FinetraceError(f"{label(source)}: its head for words has more than a linear layer "
                             f"({', '.join(head_names[:4])}), which finetrace does not read; leave it out of `head`")
    model = LinearClassifier(load_encoder(weights_folder), 1, names)
    tensors: dict[str, Any] = {}
    for file in sorted(weights_folder.glob("*.safetensors")):
        with safe_open(file, "pt") as content:
            tensors |= {name: content.get_tensor(name) for name in content.keys() if name in head_names}
    model.load_state_dict(tensors, strict=False)
    return model


def _reorder(model: Any, order: list[int], source: Source) -> None:
    """Put the outputs of a head into the order of the task's classes."""
    from finetrace.models.head import last_linear

    head = last_linear(model)
    if head.out_features != len(order):
        raise FinetraceError(f"{label(source)}: its head has {head.out_features} outputs, and the task {len(order)} "
                             "classes; leave it out of `head`")
    head.weight.data = head.weight.data[order]
    if head.bias is not None:
        head.bias.data = head.bias.data[order]
