"""Words and their pieces: alignment, batches, and sentences that cannot be taken."""

import numpy as np
import pytest
import torch
from tests.french_models import flaubert_folder, reviews
from tests.training_fixtures import task_folder
from tests.word_tasks import naive_pieces, piece_tokenizer, word_task_folder

from finetrace.errors import FinetraceError
from finetrace.models.load import load_tokenizer
from finetrace.models.rows import Collator, encode, joined
from finetrace.models.words import encode_words
from finetrace.store.tables import read_table

ALL = {"input_ids", "token_type_ids", "attention_mask"}


def test_every_word_gets_its_own_pieces():
    sentences = [["good7", "bad11", "plain0"], ["plain10"]]
    encoded, bounds = encode_words(piece_tokenizer(), sentences, 64, "here")
    for i, words in enumerate(sentences):
        ids, places = naive_pieces(piece_tokenizer(), words)
        assert encoded["input_ids"][i] == ids
        assert [list(range(a, b)) for a, b in bounds[i]] == [p.tolist() for p in places]
        assert [k for k, special in enumerate(encoded["special_tokens_mask"][i]) if special] == [0, len(ids) - 1]


def byte_level_tokenizer(split_numbers: bool = False):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), bytes_]) if split_numbers else bytes_
    inner.train_from_iterator(["the film was good and the plot was bad"] * 9, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, cls_token="<s>", sep_token="</s>", unk_token="<unk>",
                                   pad_token="<pad>")


@pytest.mark.parametrize("split_numbers", [False, True])
def test_words_of_a_byte_level_tokenizer_are_read_as_in_running_text(split_numbers):
    words, theirs = "the film was naïve 日本 and bad".split(), byte_level_tokenizer(split_numbers)
    encoded, bounds = encode_words(theirs, [words], 99, "here")
    assert encoded["input_ids"][0] == theirs(" " + " ".join(words))["input_ids"]
    parts = [theirs.convert_ids_to_tokens(encoded["input_ids"][0][a:b]) for a, b in bounds[0]]
    assert all(part[0].startswith("Ġ") for part in parts) and [len(p) for p in parts[:3]] == [1, 1, 1]
    assert theirs("the film")["input_ids"] != theirs(" the film")["input_ids"]  # the tokenizer itself is untouched


def test_a_tokenizer_in_python_is_aligned_word_by_word(tmp_path):
    theirs = load_tokenizer(flaubert_folder(tmp_path, reviews(32)[0]))
    assert not theirs.is_fast
    words = "L' histoire est d'abord mal écrite . aujourd'hui !".split()
    encoded, bounds = encode_words(theirs, [words, ["Ce"]], 200, "here")
    assert encoded["input_ids"][0][0] == theirs.bos_token_id and encoded["special_tokens_mask"][1][0] == 1
    for word, (a, b) in zip(words, bounds[0], strict=True):
        assert encoded["input_ids"][0][a:b] == theirs.convert_tokens_to_ids(theirs.tokenize(word)) != []


ODD = ["\u200b", "\x00", "\u0301", "\U0001f642", "\u200f", "\u00a0", "a b", "x" * 500, "\u65e5\u672c", "\ufb01",
       "[SEP]"]


def test_random_unicode_words_all_have_pieces_in_order():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    ids = {t: n for n, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters])}
    inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]",
                                                         special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    theirs = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                     pad_token="[PAD]")
    random = np.random.default_rng(0)
    pool = [*ODD, *("".join(chr(c) for c in random.integers(1, 0x3000, 4)) for _ in range(300))]
    sentences = [[pool[i] for i in random.integers(0, len(pool), random.integers(1, 9))] for _ in range(150)]
    encoded, bounds = encode_words(theirs, sentences, 5000, "here")
    assert any(len(theirs.tokenize(word)) == 0 for word in pool)  # words of which nothing is left are among them
    for i, words in enumerate(sentences):
        assert (bounds[i][:, 1] > bounds[i][:, 0]).all() and len(bounds[i]) == len(words)
        assert bounds[i][0, 0] == 1 and bounds[i][-1, 1] == len(encoded["input_ids"][i]) - 1
        assert (bounds[i][1:, 0] == bounds[i][:-1, 1]).all()
        for word, (a, b) in zip(words, bounds[i], strict=True):
            alone = theirs(word, add_special_tokens=False)["input_ids"] or [1]
            assert encoded["input_ids"][i][a:b] == alone


def test_a_word_without_pieces_needs_an_unknown_token():
    theirs = piece_tokenizer()
    theirs.unk_token = None
    with pytest.raises(FinetraceError, match=r"data/x\.parquet: the tokenizer leaves nothing of the word ''.*unknown "
                                             r"token"):
        encode_words(theirs, [["good1", ""]], 64, "data/x.parquet")


def test_a_sentence_that_is_too_long_is_named_with_the_way_out(tmp_path):
    folder = word_task_folder(tmp_path / "task")
    with pytest.raises(FinetraceError, match=r"train\.parquet: the sentence '.*has \d+ tokens.*longest input, "
                                             r"9.*max_words"):
        encode(folder / "train.parquet", piece_tokenizer(), 9, ALL)


@pytest.mark.parametrize("spans", [1, 2])
def test_sentences_are_tokenised_once_for_all_their_examples(tmp_path, spans):
    folder = word_task_folder(tmp_path / "task", spans=spans)
    table = read_table(folder / "train.parquet")
    rows = encode(folder / "train.parquet", piece_tokenizer(), 64, ALL, special=True)
    assert len(rows) == 24 and len(rows.labels) == table.num_rows == rows.sizes.sum()
    assert rows.targets.numbers.tolist() == [5 * i + 2 for i in range(24)]
    assert np.array_equal(rows.example_ids, table["example_id"].to_numpy())
    for i in range(24):
        for example in rows.examples([i]):
            words, marked = table["words"][int(example)].as_py(), table["spans"][int(example)].as_py()
            ids, places = naive_pieces(piece_tokenizer(), words)
            assert rows.features["input_ids"][i] == ids
            for number in range(spans):
                start, end = marked[2 * number:2 * number + 2]
                a, b = rows.targets.pieces[example, number]
                assert list(range(a, b)) == np.concatenate(places[start:end]).tolist()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pieces", ["mean", "first"])
@pytest.mark.parametrize("spans", [1, 2])
def test_a_batch_says_where_its_examples_are(tmp_path, side, pieces, spans):
    from finetrace.models.vectors import span_vectors

    rows = encode(word_task_folder(tmp_path / "task", spans=spans) / "train.parquet", piece_tokenizer(), 64, ALL)
    index = [3, 17, 8, 0]
    batch = Collator(piece_tokenizer(), side=side, pieces=pieces)(rows, index)
    width = batch["input_ids"].shape[1]
    states = torch.randn(4, width, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = span_vectors(states, batch["spans"], batch["slots"], spans).numpy()
    examples = rows.examples(index)
    assert batch["labels"].tolist() == rows.labels[examples].tolist() and found.shape == (len(examples), 5 * spans)
    place = 0
    for r, i in enumerate(index):
        shift = width - rows.lengths[i] if side == "left" else 0
        for example in rows.examples([i]):
            expected = []
            for a, b in rows.targets.pieces[example]:
                of_word = states[r, a + shift:b + shift].numpy()
                expected.append(of_word.mean(axis=0) if pieces == "mean" else of_word[0])
            np.testing.assert_allclose(found[place], np.concatenate(expected), rtol=1e-6)
            place += 1


def test_taking_and_joining_keeps_examples_with_their_sentences(tmp_path):
    folder = word_task_folder(tmp_path / "task")
    parts = [encode(folder / f"{s}.parquet", piece_tokenizer(), 64, ALL, special=True) for s in ("train", "validation")]
    both = joined(parts)
    some = both.take([25, 2, 30])
    assert len(some) == 3 and len(both) == 34
    for new, old in enumerate([25, 2, 30]):
        assert some.features["input_ids"][new] == both.features["input_ids"][old]
        for name in ("labels", "example_ids"):
            assert np.array_equal(getattr(some, name)[some.examples([new])], getattr(both, name)[both.examples([old])])
        assert np.array_equal(some.targets.pieces[some.examples([new])], both.targets.pieces[both.examples([old])])
    whole = joined([encode(task_folder(tmp_path / "texts") / "test.parquet", piece_tokenizer(), 64, ALL)])
    assert whole.targets is None and whole.sizes.tolist() == [1] * 10


def test_chosen_examples_bring_only_their_sentences(tmp_path):
    folder = word_task_folder(tmp_path / "task")
    table = read_table(folder / "train.parquet")
    chosen = np.array([1, 2, 40])
    rows = encode(folder / "train.parquet", piece_tokenizer(), 64, ALL, rows=chosen)
    assert rows.example_ids.tolist() == chosen.tolist() and len(rows) == 2
    assert rows.targets.numbers.tolist() == sorted({table["sentence"][int(i)].as_py() for i in chosen})


def test_spans_outside_their_sentence_are_refused(tmp_path):
    import pyarrow as pa

    from finetrace.store.tables import write_table

    table = read_table(word_task_folder(tmp_path / "task") / "train.parquet")
    bad = [[0, 99], *table["spans"].to_pylist()[1:]]
    write_table(tmp_path / "bad.parquet", table.set_column(table.column_names.index("spans"), "spans",
                                                           pa.array(bad, pa.list_(pa.int32(), 2))))
    with pytest.raises(FinetraceError, match=r"bad\.parquet: a span of sentence 2 is empty or outside its \d+ words"):
        encode(tmp_path / "bad.parquet", piece_tokenizer(), 64, ALL)
