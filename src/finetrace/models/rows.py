"""Tokenised rows and batches: tokenise once, pad each batch to its own longest row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.tables import read_table


@dataclass
class Encoded:
    """The rows of one split as token ids.

    features: input name -> one list of integers per row;  labels: (row,) int64;  example_ids: (row,) int64;
    lengths: (row,) int64, tokens per row, special tokens included;  special: where asked for, one list per row that is 1
    where the tokenizer added the token ([CLS], </s>, ...).
    """

    features: dict[str, list[list[int]]]
    labels: np.ndarray
    example_ids: np.ndarray
    lengths: np.ndarray
    special: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Encoded":
        """Some of the rows, in the given order."""
        index = [int(r) for r in rows]
        return Encoded({k: [v[i] for i in index] for k, v in self.features.items()}, self.labels[index],
                       self.example_ids[index], self.lengths[index], self.special and [self.special[i] for i in index])


def encode(path: Path, tokenizer: Any, max_length: int, inputs: set[str], *, rows: np.ndarray | None = None,
           special: bool = False) -> Encoded:
    """Tokenise a split (`data/<task>/<split>.parquet`); `inputs` are the names that the model takes.

    rows: only these row numbers;  special: also mark the tokens that the tokenizer adds.
    Raises FinetraceError when the table lacks a column or has no rows.
    """
    table = read_table(path)
    for column in ("example_id", "text_a", "text_b", "label"):
        if column not in table.column_names:
            raise FinetraceError(f"{path}: has no column {column!r}; run its data stage again")
    if table.num_rows == 0:
        raise FinetraceError(f"{path}: has no rows")
    pairs = table["text_b"].null_count < table.num_rows
    table = table if rows is None else table.take(rows)
    encoded = tokenizer(table["text_a"].to_pylist(), table["text_b"].to_pylist() if pairs else None,
                        truncation=True, max_length=max_length, return_special_tokens_mask=special)
    features = {k: encoded[k] for k in encoded.keys() if k in inputs}
    return Encoded(features, table["label"].to_numpy().astype(np.int64), table["example_id"].to_numpy(),
                   np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64),
                   encoded["special_tokens_mask"] if special else None)


class Collator:
    """Pads rows to the longest of their batch and makes tensors; multiples of 8 tokens on a GPU."""

    def __init__(self, tokenizer: Any, multiple: int | None = None, side: str | None = None):
        self.side = side or tokenizer.padding_side
        self.fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self.multiple = multiple or 1

    def __call__(self, rows: Encoded, index: Sequence[int] | np.ndarray) -> dict[str, Any]:
        import torch

        index = [int(i) for i in index]
        width = -(-int(rows.lengths[index].max()) // self.multiple) * self.multiple
        batch: dict[str, Any] = {}
        for name, lists in rows.features.items():
            values = np.full((len(index), width), self.fill.get(name, 0), dtype=np.int64)
            for r, i in enumerate(index):
                row = lists[i]
                values[r, slice(width - len(row), None) if self.side == "left" else slice(0, len(row))] = row
            batch[name] = torch.from_numpy(values)
        batch["labels"] = torch.from_numpy(rows.labels[index])
        return batch


def batches_by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of similar length, longest first: the cheapest order when order does not matter."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start:start + batch_size]


def batches_by_tokens(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of similar length, longest first, each of at most `batch_tokens` tokens with its padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start:start + size]
        start += size
