"""Load a model folder as a classifier, with its tokenizer. Weights are never changed before they are measured."""

from pathlib import Path
from typing import Any

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


def load_classifier(folder: Path, label_names: list[str], seed: int, dropout: float | None = None) -> Any:
    """The encoder with a freshly drawn classification head.

    label_names: classes in order;  seed: names the head's initial weights;  dropout: replaces the config's own.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    names = {i: name for i, name in enumerate(label_names)}
    quiet()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=len(names), id2label=names,
                                            label2id={n: i for i, n in names.items()})
        if dropout is not None:
            set_dropout(config, dropout)
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, local_files_only=True, ignore_mismatched_sizes=True, dtype=torch.float32,
            use_safetensors=True)
    except (OSError, ValueError) as error:
        raise FinetraceError(f"{folder}: could not be loaded as a sequence classifier: {error}") from error
    return model


def set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout probability that the config has (families name them differently)."""
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout",
             "seq_classif_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout_prob")
    for name in names:
        if hasattr(config, name) and not isinstance(getattr(config, name), bool):
            setattr(config, name, dropout)


def head_parameters(model: Any) -> list[Any]:
    """The parameters outside the encoder: the classification head."""
    encoder = {id(p) for p in model.base_model.parameters()}
    return [p for p in model.parameters() if id(p) not in encoder]


def longest_input(model: Any, tokenizer: Any, wanted: int) -> int:
    """`wanted` tokens, or fewer where the model has fewer positions."""
    limit = getattr(model.config, "max_position_embeddings", None) or wanted
    if getattr(model.config, "model_type", "") in ("roberta", "camembert", "xlm-roberta", "longformer"):
        limit -= 2  # positions of these families start after the padding index
    return min(wanted, limit, tokenizer.model_max_length)


def forward_names(model: Any) -> set[str]:
    """Names of the inputs that the model's forward takes (distilbert has no token_type_ids, for example)."""
    import inspect

    return set(inspect.signature(model.forward).parameters)
