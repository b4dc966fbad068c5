"""Tokenised rows, padding and batches by length."""

import itertools

import numpy as np
import pytest
import torch
from tests.training_fixtures import WORDS, task_folder, tokenizer

from finetrace.errors import FinetraceError
from finetrace.models.rows import Collator, batches_by_length, encode
from finetrace.store.tables import read_table, write_table

ALL = {"input_ids", "token_type_ids", "attention_mask"}


def test_encoding_equals_the_tokenizer(tmp_path):
    folder, theirs = task_folder(tmp_path / "task", pairs=True), tokenizer()
    rows = encode(folder / "train.parquet", theirs, 12, ALL)
    table = read_table(folder / "train.parquet")
    for i, (a, b) in enumerate(zip(table["text_a"].to_pylist(), table["text_b"].to_pylist(), strict=True)):
        expected = theirs(a, b, truncation=True, max_length=12)
        assert {k: v[i] for k, v in rows.features.items()} == dict(expected)
        assert rows.lengths[i] == len(expected["input_ids"]) <= 12
    assert max(map(max, rows.features["token_type_ids"])) == 1
    assert np.array_equal(rows.labels, table["label"].to_numpy())
    assert np.array_equal(rows.example_ids, table["example_id"].to_numpy())


def test_only_inputs_that_the_model_takes_are_kept(tmp_path):
    folder = task_folder(tmp_path / "task", pairs=True)
    rows = encode(folder / "train.parquet", tokenizer(), 16, {"input_ids", "attention_mask", "labels"})
    assert set(rows.features) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [None, 8])
def test_batches_equal_the_tokenizers_own_padding(tmp_path, side, multiple):
    folder, theirs = task_folder(tmp_path / "task", pairs=True), tokenizer()
    theirs.padding_side = side
    rows = encode(folder / "train.parquet", theirs, 16, ALL)
    index = [5, 2, 40, 40]
    batch = Collator(theirs, multiple)(rows, index)
    expected = theirs.pad([{k: v[i] for k, v in rows.features.items()} for i in index], return_tensors="pt",
                          pad_to_multiple_of=multiple)
    for name in ALL:
        assert torch.equal(batch[name], expected[name]), name
    assert batch["labels"].tolist() == rows.labels[index].tolist()


def test_take_keeps_rows_together(tmp_path):
    rows = encode(task_folder(tmp_path / "task") / "train.parquet", tokenizer(), 16, ALL)
    some = rows.take(np.array([7, 3]))
    assert some.example_ids.tolist() == [rows.example_ids[7], rows.example_ids[3]]
    assert some.features["input_ids"] == [rows.features["input_ids"][7], rows.features["input_ids"][3]]
    assert len(rows.take([])) == 0


def test_batches_by_length_hold_every_row_once_and_start_with_the_longest():
    lengths = np.random.default_rng(0).integers(1, 50, 101)
    batches = list(batches_by_length(lengths, 10))
    assert sorted(np.concatenate(batches).tolist()) == list(range(101))
    assert lengths[batches[0]].max() == lengths.max()
    assert all(lengths[a].min() >= lengths[b].max() for a, b in itertools.pairwise(batches))


def test_a_table_without_its_columns_or_rows_is_refused(tmp_path):
    write_table(tmp_path / "a.parquet", {"text_a": [WORDS[0]], "label": [0], "example_id": [1]})
    with pytest.raises(FinetraceError, match="no column 'text_b'"):
        encode(tmp_path / "a.parquet", tokenizer(), 16, ALL)
    import pyarrow as pa

    write_table(tmp_path / "b.parquet", {k: pa.array([], t) for k, t in (
        ("example_id", pa.int64()), ("text_a", pa.string()), ("text_b", pa.string()), ("label", pa.int32()))})
    with pytest.raises(FinetraceError, match="has no rows"):
        encode(tmp_path / "b.parquet", tokenizer(), 16, ALL)
