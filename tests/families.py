"""Tiny configs of every family of encoders that finetrace knows, over the words of the training fixtures."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training_fixtures import SPECIAL, WORDS, model_folder

TOKENS = len(SPECIAL) + len(WORDS)
USUAL = {"vocab_size": TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 0}
FAMILIES = {  # family -> (its config, parameters of the head, longest input)
    "bert": ({}, ["classifier"], 40),
    "distilbert": ({"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}, ["pre_classifier", "classifier"], 40),
    "roberta": ({"pad_token_id": 1}, ["classifier.dense", "classifier.out_proj"], 38),
    "xlm-roberta": ({"pad_token_id": 1}, ["classifier.dense", "classifier.out_proj"], 38),
    "camembert": ({"pad_token_id": 1}, ["classifier.dense", "classifier.out_proj"], 38),
    "electra": ({"embedding_size": 8}, ["classifier.dense", "classifier.out_proj"], 40),
    "albert": ({"embedding_size": 8}, ["classifier"], 40),
    "deberta-v2": ({"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
                    "type_vocab_size": 0}, ["pooler.dense", "classifier"], 40),
    "modernbert": ({"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "local_attention": 8},
                   ["head.dense", "head.norm", "classifier"], 40),
    "flaubert": ({"emb_dim": 16, "n_layers": 2, "n_heads": 2, "n_words": TOKENS, "pad_index": 0},
                 ["sequence_summary.summary"], 40),
    "mpnet": ({"pad_token_id": 1}, ["classifier.dense", "classifier.out_proj"], 38),
}
WITHOUT_TYPES = {"distilbert", "modernbert", "mpnet"}


def config_of(family: str, **changes: Any) -> Any:
    """The family's tiny config: 2 layers, 16 wide."""
    from transformers import AutoConfig

    values = {**USUAL, **FAMILIES[family][0]}
    if family in ("distilbert", "flaubert"):
        values = {k: v for k, v in values.items() if k not in
                  ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")}
        values |= {"vocab_size": TOKENS} if family == "distilbert" else {}
    return AutoConfig.for_model(family, **values, **changes)


def family_folders(root: Path) -> Callable[[str], Path]:
    """A function from a family to its model folder, made when first asked for."""
    return functools.cache(lambda family: model_folder(root / family, config_of(family)))
