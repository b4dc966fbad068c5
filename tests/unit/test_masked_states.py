"""States at masked positions: the rows of a plain forward pass, in any batches; masks of texts; not finite is an
error."""

import numpy as np
import pytest
import torch
from tests.training_fixtures import SPECIAL, WORDS, model_folder, sentences, tokenizer

from finetrace.errors import FinetraceError
from finetrace.inference.masked import cache_states, mask_texts, masked_states
from finetrace.models.load import load_encoder
from finetrace.models.rows import Collator

INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(model_folder(tmp_path_factory.mktemp("masked") / "model"))


@pytest.fixture(scope="module")
def texts():
    return mask_texts(sentences(300, seed=1)[0], tokenizer(), max_length=12, inputs=INPUTS, seed=4)


def test_masks_are_those_of_bert(texts):
    original = tokenizer()(sentences(300, seed=1)[0], truncation=True, max_length=12)["input_ids"]
    masked = replaced = kept = 0
    for row, (before, after) in enumerate(zip(original, texts.rows.features["input_ids"], strict=True)):
        here = slice(texts.starts[row], texts.starts[row + 1])
        at = texts.places[here]
        assert len(at) and [before[i] for i in at] == texts.targets[here].tolist()
        rest = np.setdiff1d(np.arange(len(before)), at)
        assert [before[i] for i in rest] == [after[i] for i in rest]
        assert not {before[i] for i in at} & set(range(len(SPECIAL)))
        masked += sum(after[i] == 4 for i in at)
        kept += sum(after[i] == before[i] for i in at)
        replaced += sum(after[i] not in (4, before[i]) for i in at)
    total = len(texts.targets)
    words = sum(len(ids) - 2 for ids in original)
    assert 0.13 < total / words < 0.25  # at least one in every text, and these are short
    assert 0.75 < masked / total < 0.85 and 0.05 < replaced / total < 0.16 and 0.05 < kept / total < 0.16


def test_masks_follow_from_the_seed(texts):
    again, other = (mask_texts(sentences(300, seed=1)[0], tokenizer(), max_length=12, inputs=INPUTS, seed=s)
                    for s in (4, 5))
    np.testing.assert_array_equal(again.places, texts.places)
    assert again.rows.features["input_ids"] == texts.rows.features["input_ids"]
    assert len(other.places) != len(texts.places) or (other.places != texts.places).any()


def test_tokens_beyond_the_model_never_stand_in():
    found = mask_texts(sentences(300, seed=1)[0], tokenizer(), max_length=12, inputs=INPUTS, seed=4, embeddings=8)
    here = [ids[at] for ids, start, end in zip(found.rows.features["input_ids"], found.starts[:-1], found.starts[1:],
                                               strict=True)
            for at in found.places[start:end]]
    random = {i for i, target in zip(here, found.targets, strict=True) if i not in (4, target)}
    assert random == {5, 6, 7}


@pytest.mark.parametrize("batch_tokens", [16, 200, 10_000])
def test_states_are_the_rows_of_a_plain_pass(encoder, texts, batch_tokens):
    part = np.arange(40)
    rows = texts.rows.take(part)
    starts, found = texts.starts[:41], {}
    for numbers, states in masked_states(encoder, rows, starts, texts.places, Collator(tokenizer(), side="right"),
                                         batch_tokens):
        assert states.shape == (3, len(numbers), 16) and states.dtype == torch.float32
        found |= {int(n): states[:, i] for i, n in enumerate(numbers)}
    assert sorted(found) == list(range(starts[-1]))
    for row in part:
        inputs = {k: torch.tensor([v[row]]) for k, v in rows.features.items()}
        with torch.no_grad():
            plain = encoder(**inputs, output_hidden_states=True).hidden_states
        for number in range(starts[row], starts[row + 1]):
            expected = torch.stack([s[0, texts.places[number]] for s in plain])
            torch.testing.assert_close(found[number], expected, atol=2e-6, rtol=1e-5)


def test_the_cache_holds_every_position_once(encoder, texts, tmp_path):
    collator = Collator(tokenizer(), side="right")
    order = cache_states(encoder, texts, tmp_path / "a.npy", collator, batch_tokens=300, dtype="float32")
    half = cache_states(encoder, texts, tmp_path / "b.npy", collator, batch_tokens=64, dtype="float16")
    assert sorted(order) == list(range(len(texts.places)))
    whole, small = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert whole.shape == (3, len(texts.places), 16) and small.dtype == np.float16
    np.testing.assert_allclose(small[:, np.argsort(half)], whole[:, np.argsort(order)], atol=5e-3)


def test_not_finite_and_too_large_are_errors(tmp_path, texts):
    encoder, collator = load_encoder(model_folder(tmp_path / "model")), Collator(tokenizer(), side="right")
    with torch.no_grad():
        encoder.encoder.layer[1].output.LayerNorm.bias += 1e5
    with pytest.raises(FinetraceError, match=r"cloze\.dtype: .* too large for float16; set float32"):
        cache_states(encoder, texts, tmp_path / "a.npy", collator, batch_tokens=64, dtype="float16")
    with torch.no_grad():
        encoder.encoder.layer[1].output.LayerNorm.bias += float("inf")
    with pytest.raises(FinetraceError, match="layer 2 of row 0 is not finite"):
        list(masked_states(encoder, texts.rows.take([0]), texts.starts[:2], texts.places, collator, 64))


def test_texts_without_a_word():
    with pytest.raises(FinetraceError, match="none of the texts has a word to mask"):
        mask_texts(["", ""], tokenizer(), max_length=12, inputs=INPUTS, seed=0)
    assert len(WORDS) > 30
