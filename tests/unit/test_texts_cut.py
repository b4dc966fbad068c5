"""Texts that a model cannot read whole, or not at all, are counted, told and, where most is lost, refused."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.training_fixtures import (
    SEEDS,
    WORDS,
    bert_config,
    model_folder,
    recording,
    settings,
    task_folder,
    tokenizer,
)

from finetrace.errors import FinetraceError
from finetrace.models.load import load_classifier
from finetrace.models.rows import encode, joined, unknown_tokens
from finetrace.store.manifest import complete, read_manifest
from finetrace.training.finetune import finetune, prepare
from finetrace.training.mlm import prepare_texts
from finetrace.training.texts import encode_texts

INPUTS = {"input_ids", "attention_mask"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = bert_config()
    config.max_position_embeddings = 9
    return model_folder(tmp_path_factory.mktemp("cut") / "model", config)


def with_texts(folder, split, texts, second=None):
    table = pq.read_table(folder / f"{split}.parquet").slice(0, len(texts))
    place = table.column_names.index("text_a")
    table = table.set_column(place, "text_a", pa.array(texts))
    if second:
        table = table.set_column(place + 1, "text_b", pa.array(second))
    pq.write_table(table, folder / f"{split}.parquet")
    complete(folder, read_manifest(folder, verify=False))
    return folder / f"{split}.parquet"


@pytest.mark.parametrize("pairs", [False, True])
def test_cut_tokens_are_counted_and_a_row_that_just_fits_is_whole(tmp_path, pairs):
    folder = task_folder(tmp_path / "task", {"train": 5}, pairs=pairs)
    words = [2, 5, 6, 9, 20]
    path = with_texts(folder, "train", [" ".join(WORDS[:n]) for n in words], ["good1 good2"] * 5 if pairs else None)
    extra = 5 if pairs else 2  # special tokens, and the second text
    rows = encode(path, tokenizer(), 8, INPUTS)
    assert rows.cut.tolist() == [max(0, n + extra - 8) for n in words]
    assert rows.take([4, 0]).cut.tolist() == [rows.cut[4], rows.cut[0]]
    assert joined([rows, rows]).cut.tolist() == [*rows.cut, *rows.cut]
    assert (rows.lengths + rows.cut).tolist() == [n + extra for n in words]


def test_a_training_tells_and_records_what_was_cut(tmp_path, model, caplog):
    task = task_folder(tmp_path / "task", {"train": 8, "validation": 6, "test": 4})
    texts = {split: pq.read_table(task / f"{split}.parquet")["text_a"].to_pylist()
             for split in ("train", "validation", "test")}
    words = {split: np.array([len(t.split()) + 2 for t in part]) for split, part in texts.items()}
    (tmp_path / "out").mkdir()
    with caplog.at_level(logging.INFO, "finetrace"):
        facts = finetune(model, task, settings(max_length=64, epochs=1.0),
                         recording(checkpoints="none", evaluate="none"), SEEDS,
                         scratch=tmp_path / "scratch", out=tmp_path / "out", name="mine")
    assert facts["max_length"] == 9, "the model's positions"
    for split, counts in words.items():
        assert facts["texts"][split] == {"rows": len(counts), "tokens": int(np.minimum(counts, 9).sum()), "unknown": 0,
                                         "rows_cut": int((counts > 9).sum()),
                                         "tokens_cut": int((counts - 9).clip(0).sum())}
    assert facts["texts"]["train"]["rows_cut"] > 0
    assert "mine: inputs have 9 tokens at most, not the 64 of train.max_length" in caplog.text
    assert "rows of train are longer than 9 tokens and were cut" in caplog.text


def test_masked_word_training_counts_cut_texts(model, caplog):
    texts = [" ".join(WORDS[:n]) for n in (3, 4, 12, 13, 5, 6, 7, 8)]
    rows = encode_texts(texts, tokenizer(), 9, INPUTS)
    assert rows.cut.tolist() == [0, 0, 5, 6, 0, 0, 0, 1]
    found = prepare_texts(texts, tokenizer(), load_classifier(model, ["a"], 1), 1, max_tokens=9)
    assert found.facts()["rows_cut"] + int((found.held_out.cut > 0).sum()) == 3
    assert "texts are longer than 9 tokens and were cut" in caplog.text


# --- unknown tokens


def test_unknown_tokens_are_shares_of_the_texts_own(tmp_path):
    folder = task_folder(tmp_path / "task", {"train": 2})
    path = with_texts(folder, "train", ["good1 nope bad2 nope", "good1 good2"])
    assert unknown_tokens(encode(path, tokenizer(), 16, INPUTS), tokenizer()) == (2, 6)
    odd = tokenizer()
    odd.unk_token = "[PAD]"
    assert unknown_tokens(encode(path, tokenizer(), 16, INPUTS), odd)[0] == 0, "padding is no unknown word"


@pytest.mark.parametrize(("share", "outcome"), [(0.02, "nothing"), (0.2, "told"), (0.9, "refused")])
def test_many_unknown_tokens_are_told_and_most_are_refused(tmp_path, model, caplog, share, outcome):
    task = task_folder(tmp_path / "task", {"train": 10, "validation": 4})
    unknown = round(50 * share)
    words = ["nope"] * unknown + ["good1"] * (50 - unknown)
    with_texts(task, "train", [" ".join(words[i::10]) for i in range(10)])
    classifier = load_classifier(model, ["no", "yes"], 1)
    if outcome == "refused":
        with pytest.raises(FinetraceError,
                           match=r"train.parquet: 90 % of its tokens \(45 of 50\) are unknown to the tokenizer"):
            prepare(model, task, settings(), classifier)
        return
    prepared = prepare(model, task, settings(), classifier)
    assert prepared.texts["train"]["unknown"] == unknown
    assert ("20 % of its tokens (10 of 50) are unknown" in caplog.text) == (outcome == "told")


def test_a_corpus_of_unknown_words_is_refused(model):
    with pytest.raises(FinetraceError, match="the corpus: 100 % of its tokens"):
        prepare_texts(["what is this"] * 9, tokenizer(), load_classifier(model, ["a"], 1), 1, max_tokens=9)
