"""Words and pieces: against alignment by characters, on random text of many scripts; and sentences that are cut."""

import itertools

import numpy as np
import pytest
from tests.oracles.alignment import matching_blocks, piece_span, word_to_piece
from tests.word_tasks import piece_tokenizer

from finetrace.errors import FinetraceError
from finetrace.models.words import LOST, encode_words

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
MARKS = ["café", "naïve", "Ångström", "e\u0301te\u0301", "ñandú", "Straße", "ﬁn"]
OTHERS = [
    "🙂",
    "👩\u200d🚀",
    "日本",
    "漢字x",
    "Привет",
    "مرحبا",
    "x\u200by",
    "\u200b",
    "don't",
    "A.B.",
    "(word)",
    "--",
    "%",
    "[UNK]",
]


def toy_wordpiece():
    """An uncased WordPiece of single letters and a few longer pieces: other characters are unknown, CJK stands
    alone."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    more = ["the", "dogs", "bark", "loud", "##ly", "##ing", "##ed", "un", ".", "(", ")", "-", "'", "日", "##本"]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *more, *LETTERS, *(f"##{c}" for c in LETTERS)]
    inner = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]",
                                                         special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                   pad_token="[PAD]")


def random_sentences(count: int, others: list[str], seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    plain = ["".join(random.choice(list("abcdeABC"), random.integers(1, 7))) for _ in range(40)]
    pool = [*plain, "the", "loudly", "barking", "unloved", *MARKS, *others]
    return [[pool[i] for i in random.integers(0, len(pool), random.integers(1, 8))] for _ in range(count)]


def pieces_of(tokenizer, encoded, i):
    return tokenizer.convert_ids_to_tokens(encoded["input_ids"][i])[1:-1]


def test_the_published_example():
    tokenizer = toy_wordpiece()
    encoded, bounds = encode_words(tokenizer, [["Dogs", "bark", "loudly", "."]], 20, "here")
    assert pieces_of(tokenizer, encoded, 0) == ["dogs", "bark", "loud", "##ly", "."]
    assert bounds[0].tolist() == [[1, 2], [2, 3], [3, 5], [5, 6]]  # pieces [2, 4) of the text are [3, 5) behind [CLS]
    table = word_to_piece(["Dogs", "bark", "loudly", "."], ["dogs", "bark", "loud", "##ly", "."], lower=True)
    assert [piece_span(table, i, i + 1) for i in range(4)] == [(0, 1), (1, 2), (2, 4), (4, 5)]
    assert piece_span(table, 0, 3) == (0, 4)


def test_the_oracle_finds_cheapest_ways_of_editing():
    assert matching_blocks("abc", "abc") == [(0, 0, 3), (3, 3, 0)]
    assert matching_blocks("xabc", "abc") == [(1, 0, 3), (4, 3, 0)]
    assert matching_blocks("abxcd", "abyycd") == [(0, 0, 2), (3, 4, 2), (5, 6, 0)]
    assert matching_blocks("ab", "xy") == [(2, 2, 0)]
    random = np.random.default_rng(0)
    for _ in range(30):
        one, other = ("".join(random.choice(list("ab "), random.integers(0, 9))) for _ in range(2))
        blocks = matching_blocks(one, other)
        assert all(one[i:i + n] == other[j:j + n] for i, j, n in blocks)
        assert all(a[0] + a[2] <= b[0] and a[1] + a[2] <= b[1] for a, b in itertools.pairwise(blocks))


@pytest.mark.parametrize("seed", [0, 1])
def test_words_tile_the_pieces_of_random_text_in_order(seed):
    tokenizer, sentences = toy_wordpiece(), random_sentences(150, OTHERS, seed)
    encoded, bounds = encode_words(tokenizer, sentences, 500, "here")
    assert len(bounds) == len(sentences) == 150
    for i, words in enumerate(sentences):
        assert len(bounds[i]) == len(words) and (bounds[i][:, 0] < bounds[i][:, 1]).all()
        assert bounds[i][0, 0] == 1 and bounds[i][-1, 1] == len(encoded["input_ids"][i]) - 1
        assert (bounds[i][1:, 0] == bounds[i][:-1, 1]).all()


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_alignment_is_that_of_characters(seed):
    tokenizer, sentences = toy_wordpiece(), random_sentences(40, OTHERS, seed)
    encoded, bounds = encode_words(tokenizer, sentences, 500, "here")
    random, compared = np.random.default_rng(seed), 0
    for i, words in enumerate(sentences):
        ids = np.array(encoded["input_ids"][i])
        if any((ids[a:b] == tokenizer.unk_token_id).any() and b - a > 1 for a, b in bounds[i]):
            continue  # characters do not tell to which word an unknown piece belongs that has others beside it
        table = word_to_piece(words, pieces_of(tokenizer, encoded, i), lower=True)
        for start in range(len(words)):
            end = int(random.integers(start + 1, len(words) + 1))
            for last in {start + 1, end}:
                span = piece_span(table, start, last)
                assert span is not None
                assert (span[0] + 1, span[1] + 1) == (bounds[i][start, 0], bounds[i][last - 1, 1]), (words, start, last)
                compared += 1
    assert compared > 100


@pytest.mark.parametrize("longest", [3, 4, 5, 8, 200])
def test_cut_sentences_are_those_of_the_tokenizer_and_lose_whole_words(longest):
    tokenizer, sentences = toy_wordpiece(), random_sentences(40, OTHERS[:6], 4)
    whole, of_whole = encode_words(tokenizer, sentences, 500, "here")
    cut, bounds = encode_words(tokenizer, sentences, longest, "here", truncate=True)
    theirs = tokenizer(sentences, is_split_into_words=True, truncation=True, max_length=longest,
                       return_special_tokens_mask=True)
    for name in theirs.keys():
        assert cut[name] == theirs[name]
    lost = 0
    for i, words in enumerate(sentences):
        assert len(bounds[i]) == len(words) and len(cut["input_ids"][i]) == min(longest, len(whole["input_ids"][i]))
        for word, before in zip(bounds[i].tolist(), of_whole[i].tolist(), strict=True):
            there = before[1] <= len(cut["input_ids"][i]) - 1
            assert word == (before if there else [LOST, LOST])
            lost += not there
    assert (lost > 0) == (longest < 200)


def test_a_word_cut_in_the_middle_is_lost():
    encoded, bounds = encode_words(piece_tokenizer(), [["good12", "bad34", "plain5"]], 6, "here", truncate=True)
    assert bounds[0].tolist() == [[1, 4], [LOST, LOST], [LOST, LOST]] and len(encoded["input_ids"][0]) == 6
    assert encoded["input_ids"][0][-1] == piece_tokenizer().sep_token_id
    with pytest.raises(FinetraceError, match="here: max_length 2 leaves no room for a piece besides the 2 tokens"):
        encode_words(piece_tokenizer(), [["good12"]], 2, "here", truncate=True)
    with pytest.raises(FinetraceError, match="more than the longest input, 6"):
        encode_words(piece_tokenizer(), [["good12", "bad34", "plain5"]], 6, "here")


def test_a_tokenizer_in_python_is_cut_alike(tmp_path):
    from tests.french_models import flaubert_folder, reviews

    from finetrace.models.load import load_tokenizer

    theirs = load_tokenizer(flaubert_folder(tmp_path, reviews(32)[0]))
    words = "L' histoire est mal écrite . aujourd'hui !".split()
    whole, of_whole = encode_words(theirs, [words], 500, "here")
    longest = len(whole["input_ids"][0]) - 3
    cut, bounds = encode_words(theirs, [words], longest, "here", truncate=True)
    assert not theirs.is_fast and len(cut["input_ids"][0]) == longest
    assert cut["input_ids"][0] == [*whole["input_ids"][0][:longest - 1], whole["input_ids"][0][-1]]
    assert bounds[0][-1].tolist() == [LOST, LOST] and bounds[0][0].tolist() == of_whole[0][0].tolist()
