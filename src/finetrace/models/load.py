"""Load a model folder as a classifier, with its tokenizer. Weights are never changed before they are measured."""

from pathlib import Path
from typing import Any, Literal

from finetrace.errors import FinetraceError
from finetrace.models.device import quiet


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; one with a padding token is needed."""
    from transformers import AutoTokenizer

    quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FinetraceError(f"{folder}: its tokenizer could not be loaded: {error}") from error
    if tokenizer.pad_token is None:
        raise FinetraceError(f"{folder}: its tokenizer has no padding token; finetrace trains encoders such as BERT")
    return tokenizer


def load_classifier(folder: Path, label_names: list[str], seed: int, dropout: float | None = None, spans: int = 0,
                    head: Literal["family", "linear"] = "family") -> Any:
    """The encoder with a freshly drawn classification head.

    label_names: classes in order;  seed: names the head's initial weights;  dropout: replaces the config's own;
    spans: marked words per example, 0 for tasks of whole texts;  head: the family's own
    (in tasks of words always `linear`), or one linear layer on the raw sentence token.
    """
    import torch
    from transformers import AutoModel

    torch.manual_seed(seed)
    if spans or head == "linear":
        from finetrace.models.linear import LinearClassifier

        return LinearClassifier(_load(AutoModel, "an encoder", folder, dropout), spans, label_names)
    return load_family_classifier(folder, label_names, dropout)


def load_family_classifier(folder: Path, label_names: list[str] | None = None, dropout: float | None = None) -> Any:
    """A folder's encoder with its family's own head: as it is in the folder, or for other classes."""
    from transformers import AutoModelForSequenceClassification

    if label_names is None:
        return AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    names = {i: name for i, name in enumerate(label_names)}
    return _load(AutoModelForSequenceClassification, "a sequence classifier", folder, dropout, num_labels=len(names),
                 id2label=names, label2id={n: i for i, n in names.items()})


def load_encoder(folder: Path) -> Any:
    """The encoder of a model or checkpoint folder, without its head, in evaluation mode."""
    from transformers import AutoModel

    return _load(AutoModel, "an encoder", folder).eval()


def _load(kind: Any, what: str, folder: Path, dropout: float | None = None, **changes: Any) -> Any:
    """A model of the Auto class `kind` whose encoder is wholly in the folder; `changes` are of its config."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig

    quiet()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **changes)
        if dropout is not None:
            set_dropout(config, dropout)
        model, report = kind.from_pretrained(folder, config=config, local_files_only=True, ignore_mismatched_sizes=True,
                                             dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise FinetraceError(f"{folder}: could not be loaded as {what}: {error}") from error
    drawn = {key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])}
    encoder = "" if model.base_model is model else model.base_model_prefix + "."
    lost = sorted(k for k in drawn if k.startswith(encoder) and "pooler" not in k)
    if lost:
        raise FinetraceError(f"{folder}: its weights do not fit its config.json: {len(lost)} tensors of the encoder "
                             f"are missing or have another shape ({', '.join(lost[:3])} ...); fetch the model again")
    return model


def set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout probability that the config has (families name them differently)."""
    for name, value in config.to_dict().items():
        if "dropout" in name and not isinstance(value, bool) and (value is None or isinstance(value, int | float)):
            setattr(config, name, dropout)


def head_parameters(model: Any) -> list[Any]:
    """The parameters outside the encoder: the classification head."""
    encoder = {id(p) for p in model.base_model.parameters()}
    return [p for p in model.parameters() if id(p) not in encoder]


def longest_input(model: Any, tokenizer: Any, wanted: int) -> int:
    """`wanted` tokens, or fewer where the model has fewer positions."""
    limit = getattr(model.config, "max_position_embeddings", None) or wanted
    for name, module in model.base_model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit -= module.padding_idx + 1  # RoBERTa and its kin count positions from after the padding index
    return min(wanted, limit, tokenizer.model_max_length)


def forward_names(model: Any) -> set[str]:
    """Names of the inputs that the model's encoder takes (distilbert has no token_type_ids, for example)."""
    import inspect

    return set(inspect.signature(model.base_model.forward).parameters)
