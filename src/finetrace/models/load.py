"""Load a model folder as a classifier, with its tokenizer. Weights are never changed before they are measured."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from finetrace.errors import FinetraceError
from finetrace.models.device import quiet

INVENTED = 16  # transformers makes a tokenizer of special tokens alone where a folder has no vocabulary
PACKAGES = ("sentencepiece", "tiktoken", "fugashi", "ipadic", "unidic_lite", "unidic", "sudachipy", "rhoknp",
            "sacremoses")
STATELESS = ("inv_freq", "position_ids", "masked_bias")  # buffers that old versions saved and none needs


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; one with a padding token is needed."""
    from transformers import AutoTokenizer

    quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # damaged files and missing packages raise many kinds
        raise FinetraceError(f"{folder}: its tokenizer could not be loaded: "
                             f"{_tokenizer_trouble(folder, error)}") from error
    if len(tokenizer) < INVENTED and not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) - {"\u2581"}:
        raise FinetraceError(f"{folder}: has no tokenizer files (tokenizer.json, vocab.txt ...), so every word would "
                             "be unknown; put those of the model's tokenizer beside its weights "
                             "(tokenizer.save_pretrained)")
    if tokenizer.pad_token is None:
        raise FinetraceError(f"{folder}: its tokenizer has no padding token; finetrace trains encoders such as BERT")
    return tokenizer


def _tokenizer_trouble(folder: Path, error: Exception) -> str:
    """What transformers raised, in one line; a package that is missing is named."""
    text = " ".join(str(error).split())
    package = re.search(rf"\b({'|'.join(PACKAGES)})\b", text)
    if package and (isinstance(error, ImportError) or not (folder / "tokenizer.json").is_file()):
        name = "sentencepiece" if any(folder.glob("*.model")) else package[1]
        return (f"it needs the package {name}, which finetrace does not bring along; pip install {name}, or name a "
                "model with a tokenizer.json")
    return text


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
        quiet()
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True)
        except Exception as error:  # as in `_load`
            raise FinetraceError(f"{folder}: could not be loaded as a sequence classifier: "
                                 f"{one_line(error)}") from error
        if missing := sorted(report["missing_keys"]):
            raise FinetraceError(f"{folder}: its weights lack {', '.join(missing[:3])}, which would be random numbers; "
                                 "delete the folder that holds it and run its stage again")
        require_all_used(model, report["unexpected_keys"], folder)
        return model
    names = {i: name for i, name in enumerate(label_names)}
    return _load(AutoModelForSequenceClassification, "a sequence classifier", folder, dropout, num_labels=len(names),
                 id2label=names, label2id={n: i for i, n in names.items()})


def load_encoder(folder: Path) -> Any:
    """The encoder of a model or checkpoint folder, without its head, in evaluation mode."""
    from transformers import AutoModel

    return _load(AutoModel, "an encoder", folder).eval()


def _load(kind: Any, description: str, folder: Path, dropout: float | None = None, **changes: Any) -> Any:
    """A model of the Auto class `kind` whose encoder is wholly in the folder; `changes` are of its config."""
    import torch
    from transformers import AutoConfig

    quiet()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **changes)
        if dropout is not None:
            set_dropout(config, dropout)
        model, report = kind.from_pretrained(folder, config=config, local_files_only=True, ignore_mismatched_sizes=True,
                                             dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                                             trust_remote_code=False)
    except Exception as error:  # damaged files and wrong configs raise many kinds
        raise FinetraceError(f"{folder}: could not be loaded as {description}: {one_line(error)}") from error
    drawn = {key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])}
    encoder = "" if model.base_model is model else model.base_model_prefix + "."
    missing = sorted(k for k in drawn if k.startswith(encoder) and "pooler" not in k)
    if missing:
        raise FinetraceError(f"{folder}: its weights do not fit its config.json: {len(missing)} tensors of the encoder "
                             f"are missing or have another shape ({', '.join(missing[:3])} ...); fetch the model again")
    require_all_used(model, report["unexpected_keys"], folder)
    return model


def require_all_used(model: Any, unused: Iterable[str], folder: Path) -> None:
    """Raises FinetraceError when tensors of the encoder's layers were left over: then config.json describes another
    model.

    unused: names of tensors that were in the files and not in the model; those of heads and poolers do not matter.
    """
    names, prefix = list(model.base_model.state_dict()), model.base_model_prefix + "."
    lists = {match[1] for name in names if (match := re.match(r"(.*?)\.\d+\.", name))}  # encoder.layer, attentions, ...
    around = {name.rpartition(".")[0] for name in lists} - {""}  # encoder, in which all belongs to the layers
    leftover = sorted(name for key in unused if (name := key.removeprefix(prefix)).rpartition(".")[2] not in STATELESS
                      and any(name.startswith(f"{part}.") for part in (*lists, *around)))
    if leftover:
        raise FinetraceError(f"{folder}: its config.json fits only part of its weights: {len(leftover)} tensors of the "
                             f"encoder would not be used ({', '.join(leftover[:3])} ...); mend config.json (the number "
                             "of layers, say), or fetch the model again")


def one_line(error: Exception) -> str:
    """The message of an exception without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout probability that the config has (families name them differently)."""
    for name, value in config.to_dict().items():
        if "dropout" in name and not isinstance(value, bool) and (value is None or isinstance(value, int | float)):
            setattr(config, name, dropout)


def head_parameters(model: Any) -> list[Any]:
    """The parameters outside the encoder: the classification head."""
    encoder = {id(p) for p in model.base_model.parameters()}
    return [p for p in model.parameters() if id(p) not in encoder]


def longest_input(model: Any, tokenizer: Any, tokens: int) -> int:
    """`tokens`, or fewer where the model has fewer positions."""
    limit = getattr(model.config, "max_position_embeddings", None) or tokens
    for name, module in model.base_model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit -= module.padding_idx + 1  # RoBERTa and its kin count positions from after the padding index
    return min(tokens, limit, tokenizer.model_max_length)


def forward_names(model: Any) -> set[str]:
    """Names of the inputs that the model's encoder takes (distilbert has no token_type_ids, for example)."""
    import inspect

    return set(inspect.signature(model.base_model.forward).parameters)
