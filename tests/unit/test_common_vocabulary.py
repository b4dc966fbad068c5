"""Restricted vocabularies: the rule by hand, and over tokenizers of every kind."""

from collections import Counter

import numpy as np
import pytest

from finetrace.data.common_vocabulary import (
    STOP_WORDS,
    common_words,
    kind_of,
    restricted_vocabulary,
    vocabulary_file,
    word_of,
)
from finetrace.errors import FinetraceError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDPIECE = [*SPECIAL, "[unused7]", "paris", "##paris", "the", "The", ".", "##s", "1984", "é", "—", "don", "##", "rock"]
TEXTS = ["the naïve capital of france is paris .", "paris lies in france , and rome in italy .",
         "rome was not built ."] * 20
UNIGRAMS = ["▁paris", "▁france", "▁rome", "▁the", "▁in", "▁.", "▁", "par", "is", "▁naïve",
            *"abcdefghijklmnopqrstuvwxyz.ï"]


class Tokenizer:
    """As much of a tokenizer as the vocabularies read."""

    def __init__(self, pieces, special=5):
        self.pieces, self.all_special_ids = list(pieces), list(range(special))

    def get_vocab(self):
        return {piece: number for number, piece in reversed(list(enumerate(self.pieces)))}


def trained(kind: str):
    """A small tokenizer, made of `TEXTS`, or of `UNIGRAMS`: training those on so little text makes no words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<unk>", "<mask>"]
    if kind == "bytelevel":
        one = Tokenizer(models.BPE())
        one.pre_tokenizer, one.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
        one.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                                           initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    elif kind == "sentencepiece":
        scored = [(piece, len(piece) - 30.0) for piece in UNIGRAMS]
        one = Tokenizer(models.Unigram([*((piece, 0.0) for piece in special), *scored], special.index("<unk>")))
        one.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        one = Tokenizer(models.WordPiece(unk_token="<unk>"))
        one.pre_tokenizer = pre_tokenizers.Whitespace()
        one.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special,
                                                                 show_progress=False))
    names = dict(zip(("bos_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=one, **names)


def test_the_rule_by_hand():
    left_out: Counter[str] = Counter()
    ids = common_words(WORDPIECE, range(len(WORDPIECE)), range(5), "wordpiece", left_out)
    assert [WORDPIECE[i] for i in ids] == ["paris", "The", "1984", "é", "don", "rock"] and ids.dtype == np.int64
    assert left_out == {"special": 5, "reserved": 1, "continuation": 2, "stop word": 1, "no letter or digit": 3}


def test_order_and_numbers_of_the_pieces_do_not_matter():
    numbers = np.random.default_rng(0).permutation(100)[: len(WORDPIECE)].tolist()
    special = numbers[:5]
    ids = common_words(WORDPIECE, numbers, special)
    order = np.random.default_rng(1).permutation(len(WORDPIECE))
    again = common_words([WORDPIECE[i] for i in order], [numbers[i] for i in order], special)
    np.testing.assert_array_equal(ids, again)
    assert (np.diff(ids) > 0).all() and {WORDPIECE[numbers.index(i)] for i in ids} == {"paris", "The", "1984", "é",
                                                                                       "don", "rock"}


@pytest.mark.parametrize(("piece", "kind", "word"), [
    ("paris", "wordpiece", "paris"), ("##s", "wordpiece", None), ("##", "wordpiece", "##"), ("paris", "words", "paris"),
    ("Ġparis", "bytelevel", "paris"), ("paris", "bytelevel", None), ("ĠÃ©t", "bytelevel", "ét"),
    ("ĠÃ", "bytelevel", None),
    ("Ġ", "bytelevel", ""), ("Ġ—", "bytelevel", None), ("▁paris", "sentencepiece", "paris"),
    ("ris", "sentencepiece", None), ("▁", "sentencepiece", "")])
def test_what_word_a_piece_is(piece, kind, word):
    assert word_of(piece, kind) == word


def test_bytes_are_those_of_the_tokenizers_library():
    from tokenizers import pre_tokenizers

    from finetrace.data.common_vocabulary import _BYTES

    assert set(_BYTES) == set(pre_tokenizers.ByteLevel.alphabet()) and sorted(_BYTES.values()) == list(range(256))
    text = "naïve Ωμέγα 東京 🙂\t\x00"
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = "".join(piece for piece, _ in split.pre_tokenize_str(text))
    assert bytes(_BYTES[letter] for letter in spelled).decode("utf-8") == text


@pytest.mark.parametrize(("kind", "mark"), [("wordpiece", ""), ("bytelevel", "Ġ"), ("sentencepiece", "▁")])
def test_tokenizers_of_every_kind_keep_words_that_they_make_one_piece_of(kind, mark):
    tokenizer = trained(kind)
    assert kind_of(tokenizer.get_vocab()) == kind
    ids, facts = restricted_vocabulary(tokenizer, "common")
    pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
    assert {mark + word for word in ("paris", "france", "rome")} <= set(pieces) and all(p.startswith(mark)
                                                                                        for p in pieces)
    assert not {mark + word for word in ("the", "in", ".", ",", "")} & set(pieces) and (np.diff(ids) > 0).all()
    for number in ids.tolist():
        assert tokenizer(f"rome {tokenizer.decode([number])}", add_special_tokens=False)["input_ids"][-1] == number
    assert facts["kind"] == kind and facts["words"] == len(ids) and facts["stop_words_version"] == 1
    assert sum(facts["left_out"].values()) + len(ids) == facts["pieces"] == len(tokenizer.get_vocab())


def test_the_world_s_words_are_whole(micro):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(micro.model)
    ids, facts = restricted_vocabulary(tokenizer, "common")
    words = set(tokenizer.convert_ids_to_tokens(ids.tolist()))
    assert facts["kind"] == "words" and words == {w for w in micro.world.vocabulary if w not in STOP_WORDS and w != ","}
    assert {fact.object for fact in micro.world.facts} <= words
    full, facts = restricted_vocabulary(tokenizer, "full")
    assert full.tolist() == list(range(len(tokenizer))) and facts == {"vocabulary": "full", "words": len(tokenizer)}


def test_words_of_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Paris\nROCK\nparis\nlondon\n\n[MASK]\ns\n1984\n")
    pieces = [p for p in WORDPIECE if p != "The"]
    ids, facts = vocabulary_file(path, Tokenizer(pieces))
    assert [pieces[i] for i in ids] == ["paris", "1984", "rock"] and ids.dtype == np.int64
    assert facts["left_out"] == {"not one piece": 3, "repeated": 1} and (facts["lines"], facts["words"]) == (7, 3)
    assert facts["vocabulary"] == "words.txt" and len(facts["sha256"]) == 64
    cased = vocabulary_file(path, Tokenizer([*pieces, "Paris"]))
    assert [[*pieces, "Paris"][i] for i in cased[0]] == ["paris", "1984",
                                                         "Paris"], "with capital letters, words are as written"
    for tokenizer in (trained("bytelevel"), trained("sentencepiece")):
        ids, facts = restricted_vocabulary(tokenizer, path)
        assert [piece[1:] for piece in tokenizer.convert_ids_to_tokens(ids.tolist())] == ["paris"]
        np.testing.assert_array_equal(restricted_vocabulary(tokenizer, str(path))[0], ids)


def test_bad_vocabularies_are_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"nothing\.txt: no such file; use full, common, or a file"):
        restricted_vocabulary(Tokenizer(WORDPIECE), tmp_path / "nothing.txt")
    (tmp_path / "words.txt").write_text("londinium\n")
    with pytest.raises(FinetraceError, match=r"words\.txt: none of its 1 words is one piece"):
        restricted_vocabulary(Tokenizer(WORDPIECE), tmp_path / "words.txt")
    (tmp_path / "words.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(FinetraceError, match=r"words\.txt line 2: byte 2 is not utf-8"):
        restricted_vocabulary(Tokenizer(WORDPIECE), tmp_path / "words.txt")
    with pytest.raises(FinetraceError, match="no common word is left of 7 pieces"):
        restricted_vocabulary(Tokenizer([*SPECIAL, "the", "."]), "common")
    with pytest.raises(FinetraceError, match=r"marks ends of words \(</w>\)"):
        restricted_vocabulary(Tokenizer([*SPECIAL, "par", "is</w>", "rome</w>"]), "common")


def test_the_list_of_stop_words_is_frozen():
    from finetrace.data.common_vocabulary import STOP_WORDS_VERSION
    from finetrace.store.files import sha256_value

    digest = sha256_value(sorted(STOP_WORDS))[:16]
    assert (STOP_WORDS_VERSION, digest) == (1, "bf23610c0206880e"), "a changed list needs a new version"
    assert all(word == word.lower() and word.isalpha() for word in STOP_WORDS)
