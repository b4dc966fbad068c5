"""Pseudo-log-likelihood against one masked sentence at a time, and what must not matter."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import FAMILIES, config_of
from tests.oracles.pairs import pseudo_log_likelihood
from tests.training_fixtures import WORDS
from tests.training_fixtures import tokenizer as words_tokenizer

from finetrace.errors import FinetraceError
from finetrace.inference.pseudo_likelihood import (
    Sentences,
    blocks,
    count_copies,
    encode_sentences,
    masked_copies,
    pseudo_log_likelihoods,
)
from finetrace.models.load import forward_names
from finetrace.models.masked_head import masked_head_of
from finetrace.models.rows import Collator

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["the souvenirs surprise tourists .", "the souvenirs surprises tourists .", "tourists don't surprise",
         "a souvenir", "the tourists , who buy souvenirs , surprise the tourist ."]
PIECES = ["the", "a", "sou", "##ven", "##ir", "##irs", "surpris", "##e", "##es", "tourist", "##s", ".", ",", "don", "'",
          "t", "who", "buy"]


@cache
def tokenizer(kind: str) -> Any:
    """A small tokenizer of each way to say where words are, with pieces smaller than words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece({t: i for i, t in enumerate(SPECIAL + PIECES)}, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        byte_level = kind == "byte-level"
        made.pre_tokenizer = (pre_tokenizers.ByteLevel(add_prefix_space=True) if byte_level
                              else pre_tokenizers.Metaspace(split=kind == "metaspace"))
        made.decoder = decoders.ByteLevel() if byte_level else decoders.Metaspace()
        made.train_from_iterator([" ".join(TEXTS)] * 3, trainers.BpeTrainer(vocab_size=60, special_tokens=SPECIAL))
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]",
                                                        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                   sep_token="[SEP]", mask_token="[MASK]",
                                   model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def model_of(family: str = "bert", words: int = 0) -> Any:
    """A tiny model with its masked-word head, its weights large enough for words to differ."""
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(3)
    config = config_of(family)
    if words:
        config.vocab_size = words
    model = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.tie_weights()
    return model


def encoded(texts: list[str], model: Any, tokens: Any, scoring: Any = "word_l2r") -> Sentences:
    return encode_sentences(texts, tokens, inputs=forward_names(model) | {"attention_mask"}, scoring=scoring,
                            where="set")


def scores(texts: list[str], model: Any, tokens: Any, scoring: Any = "word_l2r", **changes: Any) -> np.ndarray:
    sentences = encoded(texts, model, tokens, scoring)
    return pseudo_log_likelihoods(model.base_model, masked_head_of(model), sentences, tokens.mask_token_id,
                                  Collator(tokens, side="right"), **{"batch_tokens": 64, **changes})


@pytest.mark.parametrize("scoring", ["word_l2r", "original"])
@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "metaspace"])
def test_as_one_masked_sentence_at_a_time(kind: str, scoring: str) -> None:
    tokens = tokenizer(kind)
    model = model_of(words=len(tokens))
    found = scores(TEXTS, model, tokens, scoring)
    expected = [pseudo_log_likelihood(model, tokens, text, scoring == "word_l2r") for text in TEXTS]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(set(np.round(found, 3))) == len(TEXTS)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_scored_as_its_own_model_does(family: str) -> None:
    tokens, texts = words_tokenizer(), [" ".join(WORDS[:4]), " ".join(WORDS[2:9])]
    model = model_of(family)
    tokens.model_input_names = [n for n in tokens.model_input_names
                                if n in forward_names(model) | {"attention_mask"}]
    found = scores(texts, model, tokens)
    expected = [pseudo_log_likelihood(model, tokens, text, True) for text in texts]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_neither_batches_nor_order_nor_company_matter() -> None:
    tokens = tokenizer("wordpiece")
    model = model_of(words=len(tokens))
    whole = scores(TEXTS, model, tokens, batch_tokens=4096)
    for changes in ({"batch_tokens": 1}, {"batch_tokens": 40}, {"memory_bytes": 1}, {"block_tokens": 1},
                    {"block_tokens": 150}):
        np.testing.assert_allclose(scores(TEXTS, model, tokens, **changes), whole, atol=1e-5)
    np.testing.assert_allclose(scores(TEXTS[::-1], model, tokens)[::-1], whole, atol=1e-5)
    np.testing.assert_allclose([scores([text], model, tokens)[0] for text in TEXTS], whole, atol=1e-5)


def test_words_of_one_piece_have_one_score() -> None:
    tokens, model = words_tokenizer(), model_of()
    texts = [" ".join(WORDS[:5])]
    np.testing.assert_array_equal(scores(texts, model, tokens, "original"), scores(texts, model, tokens, "word_l2r"))


def test_what_is_masked() -> None:
    """souvenirs is sou ##ven ##irs: all three, then two, then one are hidden; other words stay."""
    tokens, model = tokenizer("wordpiece"), model_of()
    sentences = encoded(["the souvenirs ."], model, tokens)
    assert sentences.words[0].tolist() == [-1, 0, 1, 1, 1, 2, -1] and sentences.tokens.tolist() == [5]
    copies = masked_copies(sentences, np.array([0]), tokens.mask_token_id)
    shown = [tokens.convert_ids_to_tokens(row)[1:-1] for row in copies.rows.features["input_ids"]]
    m = "[MASK]"
    assert shown == [[m, "sou", "##ven", "##irs", "."], ["the", m, m, m, "."], ["the", "sou", m, m, "."],
                     ["the", "sou", "##ven", m, "."], ["the", "sou", "##ven", "##irs", m]]
    original = masked_copies(encoded(["the souvenirs ."], model, tokens, "original"), np.array([0]), 4)
    assert all((row == 4).sum() == 1 for row in original.rows.features["input_ids"])


def test_sentences_that_differ_in_one_token_share_its_copy() -> None:
    """`surprise` and `surprises` are two pieces each, and what hides the second hides all that differs."""
    tokens, model = tokenizer("wordpiece"), model_of()
    sentences = encoded(TEXTS[:2], model, tokens)
    copies = masked_copies(sentences, np.arange(2), tokens.mask_token_id)
    assert sentences.tokens.tolist() == [9, 9] and len(copies.copy) == 18
    assert len(copies.places) == 16  # both hide `e` and `es`, with and without `surpris`
    assert count_copies(sentences, tokens.mask_token_id) == (16, 16 * 11)
    assert sorted(np.concatenate(list(blocks(encoded(TEXTS, model, tokens), 50))).tolist()) == list(range(len(TEXTS)))


def test_tokenizers_that_do_not_tell_words() -> None:
    model = model_of()
    with pytest.raises(FinetraceError, match=r"^set: this tokenizer takes 'the souven.*for one word; set pairs"):
        encoded(TEXTS, model, tokenizer("one word"))
    assert len(encoded(TEXTS, model, tokenizer("one word"), "original")) == len(TEXTS)
    tokens = words_tokenizer()
    tokens.mask_token = None
    with pytest.raises(FinetraceError, match=r"^set: cannot be scored: the tokenizer has no mask token"):
        encoded(["a"], model, tokens)


def test_a_tokenizer_without_a_fast_form(tmp_path: Path) -> None:
    class Slow:
        mask_token_id, is_fast = 4, False

    with pytest.raises(FinetraceError, match=r"no fast form .*; set pairs\.scoring: original"):
        encoded(["a"], model_of(), Slow())


def test_a_diverged_model_is_an_error() -> None:
    tokens = tokenizer("wordpiece")
    model = model_of(words=len(tokens))
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.fill_(float("nan"))
    with pytest.raises(FinetraceError, match="score of sentence 0 is not finite"):
        scores(TEXTS, model, tokens)
