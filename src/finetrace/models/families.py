"""What differs between families of encoders: which token is "the sentence", and what the last hidden state is.

Layer 0 is the embedding output as the first encoder layer receives it (after its norm and, in ALBERT, after the
projection to the hidden width); layer l is the output of encoder layer l. Where a family ends with a norm of its own,
layer L is after it, because that is what a classifier reads.
"""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """One family of encoders.

    sentence: `first` token ([CLS] or <s>), or `summary`: where the config's summary_type says;
    final_norm: whether layer L is after a norm that belongs to no layer;  token: the sentence token's usual name.
    """

    sentence: Literal["first", "summary"] = "first"
    final_norm: bool = False
    token: str = "[CLS]"


FAMILIES = {
    "albert": Family(),
    "bert": Family(),  # multilingual BERT, MiniLM and many others are of this type
    "camembert": Family(token="<s>"),
    "deberta-v2": Family(),
    "distilbert": Family(),
    "electra": Family(),
    # its tokenizer's cls_token is </s>, which is not the first token
    "flaubert": Family(sentence="summary", token="<s>"),
    "modernbert": Family(final_norm=True),
    "roberta": Family(token="<s>"),
    "xlm": Family(sentence="summary", token="<s>"),
    "xlm-roberta": Family(token="<s>"),
}


def family_of(config: Any) -> Family:
    """The family of a model's config; one that is not listed is read like BERT: first token, no final norm."""
    return FAMILIES.get(config.model_type, Family())


def layer_count(config: Any) -> int:
    """Number of hidden states: embeddings and one per encoder layer."""
    return int(config.num_hidden_layers) * int(getattr(config, "inner_group_num", 1)) + 1


def sentence_position(config: Any) -> Literal["first", "last", "mean"]:
    """Which token of an example its sentence vector is.

    Raises ValueError for a summary type that names no token.
    """
    if family_of(config).sentence == "first":
        return "first"
    position_of: dict[str, Literal["first", "last", "mean"]] = {"first": "first", "last": "last", "mean": "mean",
                                                                "cls_index": "last"}
    kind = getattr(config, "summary_type", "first")
    if kind not in position_of:  # cls_index: without given positions, transformers takes the last token
        raise ValueError(f"summary_type {kind!r} of {config.model_type} names no token; use first, last or mean")
    return position_of[kind]
