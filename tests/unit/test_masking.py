"""Masks as Devlin et al. describe them, words of several pieces, rows of texts, and the tokenizer that is trained on
texts."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tests.training_fixtures import tokenizer

from finetrace.config.base import parse
from finetrace.config.models import AdaptSettings, PretrainSettings
from finetrace.config.training import require_schedule
from finetrace.errors import FinetraceError
from finetrace.models.masking import IGNORED, first_tokens, mask_words
from finetrace.training.schedule import steps_of
from finetrace.training.texts import WORDS, added_tokens, encode_texts, pack_texts
from finetrace.training.tokenizer import SPECIAL_TOKENS, train_tokenizer

FIRST_WORD = 5
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
TEXTS = ["Unbelievable! The naïve president's speechwriters rewrote speeches.", "",
         "One speech, one writer; he rewrites it.",
         "Writers write speeches for presidents, presidents speak.", "Believe the writers: speeches are rewritten."] * 3


def masks(rate=0.15, replace=0.8, rows=400, width=30, words=None, seed=1):
    generator = np.random.default_rng(0)
    ids = generator.integers(FIRST_WORD, 41, (rows, width))
    ids[:, 0], ids[:, -1], ids[: rows // 2, 20:] = 2, 3, 0
    special = ids < FIRST_WORD
    return ids, special, *mask_words(ids, special, 4, np.arange(FIRST_WORD, 41), rate, replace,
                                     np.random.default_rng(seed), words(special) if words else None)


def pieces_of_words(special):
    """Words of one to four pieces: (sentence, token), -1 for special tokens."""
    generator, numbers = np.random.default_rng(3), np.full(special.shape, -1)
    for row, of_row in zip(numbers, special, strict=True):
        place = np.flatnonzero(~of_row)
        row[place] = np.repeat(np.arange(len(place)), generator.integers(1, 5, len(place)))[:len(place)]
    return numbers


@pytest.mark.parametrize("words", [None, pieces_of_words], ids=["tokens", "whole words"])
def test_masks_have_the_published_shares(words):
    ids, special, inputs, targets = masks(words=words)
    chosen = targets != IGNORED
    assert not (chosen & special).any()
    assert np.array_equal(targets[chosen], ids[chosen])
    assert np.array_equal(inputs[~chosen], ids[~chosen])
    # a sentence of few words that would have none gets one: 0.85^9 of those with 9 words, so the share is larger
    assert chosen.sum() / (~special).sum() == pytest.approx(0.174 if words else 0.15, abs=0.012)
    masked, kept = inputs[chosen] == 4, inputs[chosen] == ids[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 36, abs=0.03)
    assert (inputs[chosen][~masked] >= FIRST_WORD).all(), "no special token stands in"
    assert chosen.any(axis=1).all(), "every sentence has a word to predict"


def test_whole_words_are_chosen_whole():
    _, special, _, targets = masks(words=pieces_of_words)
    numbers, chosen = pieces_of_words(special), targets != IGNORED
    for row, of_row in zip(numbers, chosen, strict=True):
        for word in range(row.max() + 1):
            assert len(set(of_row[row == word])) == 1
    alone = masks()[3] != IGNORED
    assert any(len(set(of_row[row == word])) == 2 for row, of_row in zip(numbers, alone, strict=True)
               for word in range(row.max() + 1)), "without the option words are cut"


def test_words_of_one_piece_are_masked_as_tokens_are():
    def single(special):
        return np.where(special, -1, np.cumsum(~special, axis=1))

    pairs = list(zip(masks()[2:], masks(words=single)[2:], strict=True))
    assert pairs
    for plain, whole in pairs:
        assert np.array_equal(plain, whole)


def test_masks_are_a_function_of_the_generator():
    first, again, other = masks(seed=1), masks(seed=1), masks(seed=2)
    assert np.array_equal(first[2], again[2]) and np.array_equal(first[3], again[3])
    assert not np.array_equal(first[3], other[3])


@pytest.mark.parametrize("words", [None, pieces_of_words], ids=["tokens", "whole words"])
def test_rare_masks_leave_one_word_and_empty_sentences_none(words):
    _, special, _, targets = masks(rate=1e-9, words=words)
    numbers = words(special) if words else np.tile(np.arange(special.shape[1]), (len(special), 1))
    assert [len(set(n[t != IGNORED])) for n, t in zip(numbers, targets, strict=True)] == [1] * 400
    ids = np.array([[2, 3, 0], [2, 9, 3]])
    numbers = np.array([[-1, -1, -1], [-1, 0, -1]]) if words else None
    _, targets = mask_words(ids, ids < FIRST_WORD, 4, np.arange(5, 41), 0.2, 0.8, np.random.default_rng(0), numbers)
    assert targets.tolist() == [[IGNORED] * 3, [IGNORED, 9, IGNORED]]


def test_the_first_token_of_each_word():
    assert first_tokens(np.array([[-1, 0, 0, 1, 2, 2, -1, -1]])).tolist() == [[0, 1, 1, 3, 4, 4, 6, 6]]


@pytest.fixture(scope="module")
def wordpiece():
    return train_tokenizer(TEXTS, 90, True, 64)


def test_a_text_is_a_row_as_the_tokenizer_gives_it(wordpiece):
    rows, wanted = encode_texts(TEXTS, wordpiece, 12, INPUTS), wordpiece(TEXTS, truncation=True, max_length=12)
    assert set(rows.features) == INPUTS
    for name in INPUTS:
        assert [row.tolist() for row in rows.features[name]] == wanted[name]
    assert rows.lengths.tolist() == [len(ids) for ids in wanted["input_ids"]] and rows.lengths.max() == 12
    assert set(encode_texts(TEXTS, wordpiece, 12, {"input_ids"}).features) == {"input_ids"}


def test_word_numbers_are_those_of_the_continuation_marks(wordpiece):
    rows = encode_texts(TEXTS, wordpiece, 64, INPUTS, whole_words=True)
    for ids, numbers in zip(rows.features["input_ids"], rows.features[WORDS], strict=True):
        tokens = wordpiece.convert_ids_to_tokens(ids.tolist())
        assert numbers[0] == numbers[-1] == -1 and len(numbers) == len(ids)
        for before, token, number in zip(numbers[:-2], tokens[1:-1], numbers[1:-1], strict=True):
            assert number == before + (not token.startswith("##"))
    assert any(t.startswith("##") for t in tokens)


@pytest.mark.parametrize(("kind", "mark"), [("bytes", "Ġ"), ("pieces", "\u2581")])
def test_word_numbers_of_other_kinds_of_tokenizers(kind, mark):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {t: i for i, t in enumerate(["<s>", "</s>", "<pad>", "<mask>", "<unk>", f"{mark}a", f"{mark}b", "c",
                                              "d"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary | {mark: 9, "a": 10, "b": 11}, merges=[(mark, "a"), (mark, "b")],
                                 unk_token="<unk>"))
    inner.pre_tokenizer = (pre_tokenizers.ByteLevel(add_prefix_space=True) if kind == "bytes"
                           else pre_tokenizers.Metaspace(split=False))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", cls_token="<s>",
                                   sep_token="</s>", pad_token="<pad>", mask_token="<mask>", unk_token="<unk>")
    rows = encode_texts(["acd b ad"], fast, 20, {"input_ids"}, whole_words=True)
    assert fast.convert_ids_to_tokens(rows.features["input_ids"][0].tolist())[1:-1] == [
        f"{mark}a", "c", "d", f"{mark}b", f"{mark}a", "d"]
    assert rows.features[WORDS][0].tolist() == [-1, 0, 0, 0, 1, 2, 2, -1]


def test_a_tokenizer_that_tells_no_words_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(FinetraceError, match=r"Slow is a tokenizer in Python.*set whole_words: false"):
        encode_texts(["a"], Slow(), 8, INPUTS, whole_words=True)


@pytest.mark.parametrize("block", [8, 16, 64])
@pytest.mark.parametrize("whole_words", [False, True])
def test_packing_covers_every_token_once(wordpiece, block, whole_words):
    rows = pack_texts(TEXTS, wordpiece, block, INPUTS, whole_words)
    before, after = added_tokens(wordpiece)
    assert (before.tolist(), after.tolist()) == ([2], [3])
    inner = []
    for ids in rows.features["input_ids"]:
        assert len(ids) <= block and ids[0] == 2 and ids[-1] == 3
        assert ids[1] != 3 and ids[-2] != 3, "no separator at an edge"
        inner += [i for i in ids[1:-1].tolist() if i != 3]
    assert inner == [i for ids in wordpiece(TEXTS, add_special_tokens=False)["input_ids"] for i in ids]
    assert (rows.lengths[:-1] >= block - 2).all(), "rows are full, but for a dropped separator"
    separators = sum((ids[1:-1] == 3).sum() for ids in rows.features["input_ids"])
    assert separators <= sum(1 for t in TEXTS if t) - 1
    assert {len(lists) for lists in rows.features.values()} == {len(rows)}
    if whole_words:
        for ids, numbers in zip(rows.features["input_ids"], rows.features[WORDS], strict=True):
            assert np.array_equal(numbers == -1, np.isin(ids, [2, 3]))


def test_what_cannot_be_packed_is_said(wordpiece):
    with pytest.raises(FinetraceError, match="leaves nothing of the texts"):
        pack_texts(["", " "], wordpiece, 16, INPUTS)
    with pytest.raises(FinetraceError, match="block_tokens: 2 leave no room"):
        pack_texts(["a"], wordpiece, 2, INPUTS)


def digest(trained, folder):
    trained.save_pretrained(folder)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(folder).iterdir()))).hexdigest()


def test_equal_texts_give_equal_tokenizers(wordpiece, tmp_path):
    """The trainer of `tokenizers` by itself numbers pieces in the order of a hash table that is seeded anew each
    time."""
    found = {digest(train_tokenizer(TEXTS, 90, True, 64), tmp_path / str(i)) for i in range(3)}
    assert found == {digest(wordpiece, tmp_path / "3")}
    assert digest(train_tokenizer(TEXTS[::-1], 90, True, 64),
                  tmp_path / "4") in found, "the order of the texts is nothing"


def test_the_trained_tokenizer_is_like_that_of_bert(wordpiece):
    vocabulary = wordpiece.get_vocab()
    assert len(wordpiece) == len(vocabulary) == 90
    assert [wordpiece.convert_tokens_to_ids(t) for t in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert wordpiece.tokenize("NAÏVE Speeches") == wordpiece.tokenize("naive speeches")
    text = "the presidents speak , writers write"
    assert wordpiece.decode(wordpiece(text)["input_ids"],
                            skip_special_tokens=True).replace(" ,", ",") == text.replace(" ,", ",")
    assert wordpiece("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert wordpiece.tokenize("zebra") == ["[UNK]"] and wordpiece.model_max_length == 64
    cased = train_tokenizer(TEXTS, 90, False, 64)
    assert cased.tokenize("Writers") != cased.tokenize("writers")


@pytest.mark.parametrize(("texts", "size", "words"), [
    (TEXTS, 30, "vocabulary: 30 tokens are fewer than the letters of the texts, which need"),
    (TEXTS, 8000, r"vocabulary: 8000 tokens are more than the texts hold, 1\d\d; lower it"),
    (["", "  "], 50, "hold no word"),
])
def test_a_vocabulary_that_texts_cannot_fill_is_an_error(texts, size, words):
    with pytest.raises(FinetraceError, match=words):
        train_tokenizer(texts, size, True, 64)


@pytest.mark.parametrize(("number", "total", "steps"),
                         [(4, 1000, [0, 1, 10, 100, 1000]), (3, 1, [0, 1]), (2, 50, [0, 1, 50]),
                                                        (20, 8, [0, 1, 2, 3, 4, 5, 6, 7, 8])])
def test_steps_evenly_on_a_logarithmic_scale(number, total, steps):
    assert steps_of({"log": number}, total, 7) == steps
    require_schedule("checkpoints", {"log": number})


@pytest.mark.parametrize("schedule", [{"log": 1}, {"log": 2.5}, {"log": True}])
def test_a_wrong_number_of_steps_is_an_error(schedule):
    with pytest.raises(FinetraceError, match="use log2"):
        steps_of(schedule, 20, 7)


@pytest.mark.parametrize(("kind", "changes", "words"), [
    (PretrainSettings, {"accumulate": 3}, "accumulate: 3 does not divide batch_size 64"),
    (PretrainSettings, {"pack": "blocks", "block_tokens": 256, "max_tokens": 128},
     "block_tokens: 256 are more than max_tokens"),
    (PretrainSettings, {"checkpoints": {"log": 1}}, "checkpoints.log: 1 is not a number of steps of 2 or more"),
    (PretrainSettings, {"mask_rate": 1.0}, "mask_rate: 1.0 is not between"),
    (AdaptSettings, {"start": "a/pretrain", "corpus": "c", "from_steps": []}, "from_steps: names no checkpoint"),
    (AdaptSettings, {"start": "a", "corpus": "c"}, "is not a trajectory's folder"),
    (AdaptSettings, {"start": "a/pretrain", "corpus": "c", "evaluate": "none"},
     "evaluate: none leaves the adaptation unseen"),
    (AdaptSettings, {"start": "a/pretrain", "corpus": "c", "strip": [""]}, "strip: an empty mark"),
    (AdaptSettings, {"start": "a/pretrain", "corpus": "c", "batch_size": 8},
     "accumulate: 16 does not divide batch_size 8"),
])
def test_contradictory_settings_are_errors(kind, changes, words):
    with pytest.raises(FinetraceError, match=words):
        parse(kind, changes, "params.yaml")


def test_the_published_recipe_is_the_default():
    found = parse(AdaptSettings, {"start": "a/pretrain", "corpus": "c"}, "params.yaml")
    assert (found.learning_rate, found.beta2, found.epsilon, found.weight_decay, found.warmup, found.scheduler) == (
        1e-4, 0.98, 1e-6, 0.01, 0.06, "linear")
    assert (found.batch_size, found.epochs, found.steps, found.mask_rate, found.pack) == (256, 100.0, 0, 0.15, "none")


def test_a_tokenizer_of_whole_words_has_words_of_one_token():
    rows = encode_texts(["good1 bad2", "plain3"], tokenizer(), 8, INPUTS, whole_words=True)
    assert [n.tolist() for n in rows.features[WORDS]] == [[-1, 0, 1, -1], [-1, 0, -1]]
