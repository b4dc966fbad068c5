"""Tokenised rows and batches: tokenise once, pad each batch to its own longest row."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.models.words import Targets, encode_words
from finetrace.store.tables import read_table

log = logging.getLogger(__name__)
MANY_UNKNOWN, MOST_UNKNOWN = 0.05, 0.5  # shares of unknown tokens from which on it is said, and refused


@dataclass
class Encoded:
    """The rows of one split as token ids. A row is what goes through the encoder: a text, a pair of texts or a
    sentence. It is one example, but for tasks of words, where the examples are words of it.

    features: input name -> one list of integers per row;  labels: (example,) int64 classes, float32 scores where a
    number is predicted, (example, class) float32 of 0 and 1 where examples have several;  example_ids: (example,)
    int64;
    lengths: (row,) int64, tokens per row, special tokens included;  special: where asked for, one list per row that is
    1 where the tokenizer added the token ([CLS], </s>, ...);  targets: for tasks of words, which examples are a row's,
    and where; cut: (row,) int64 tokens that did not fit and were left out, None where none were.
    """

    features: dict[str, list[list[int]]]
    labels: np.ndarray
    example_ids: np.ndarray
    lengths: np.ndarray
    special: list[list[int]] | None = None
    targets: Targets | None = None
    cut: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> np.ndarray:
        """(row,) int64 examples of each row."""
        return self.targets.counts() if self.targets else np.ones(len(self), dtype=np.int64)

    def examples(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Numbers of the examples of some rows, row after row: (example,) int64."""
        index = np.asarray(rows, dtype=np.int64)
        return self.targets.of(index) if self.targets else index

    def take(self, rows: Sequence[int] | np.ndarray) -> "Encoded":
        """Some of the rows, in the given order."""
        index = [int(r) for r in rows]
        examples = self.examples(index)
        return Encoded({k: [v[i] for i in index] for k, v in self.features.items()}, self.labels[examples],
                       self.example_ids[examples], self.lengths[index],
                       self.special and [self.special[i] for i in index],
                       self.targets and self.targets.take(np.asarray(index, dtype=np.int64)),
                       None if self.cut is None else self.cut[index])

    def told(self, tokenizer: Any) -> dict[str, int]:
        """Rows, tokens with special ones, how many of both were cut, and the tokens of the texts that are unknown."""
        cut = np.zeros(len(self), dtype=np.int64) if self.cut is None else self.cut
        return {"rows": len(self), "tokens": int(self.lengths.sum()), "rows_cut": int((cut > 0).sum()),
                "tokens_cut": int(cut.sum()), "unknown": unknown_tokens(self, tokenizer)[0]}


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Several splits of one task, one after the other."""
    first = parts[0]
    targets = None
    if first.targets:
        counts = np.concatenate([p.sizes for p in parts])
        targets = Targets(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                          np.concatenate([p.targets.pieces for p in parts if p.targets]),
                          np.concatenate([p.targets.numbers for p in parts if p.targets]))
    return Encoded({name: [ids for p in parts for ids in p.features[name]] for name in first.features},
                   np.concatenate([p.labels for p in parts]), np.concatenate([p.example_ids for p in parts]),
                   np.concatenate([p.lengths for p in parts]),
                   [mask for p in parts for mask in p.special or []] or None, targets,
                   np.concatenate([np.zeros(len(p), dtype=np.int64) if p.cut is None else p.cut for p in parts]))


def encode(path: Path, tokenizer: Any, max_length: int, inputs: set[str], *, rows: np.ndarray | None = None,
           special: bool = False, classes: int = 0) -> Encoded:
    """Tokenise a split (`data/<task>/<split>.parquet`); `inputs` are the names that the model takes.

    rows: only these rows of the table;  special: also mark the tokens that the tokenizer adds. A sentence of a task of
    words is tokenised once for all its examples.  classes: of a task whose examples can have several: then they may.
    Raises FinetraceError when the table lacks a column or has no rows, or its examples can have several labels.
    """
    table = read_table(path)
    for column in ("example_id", "text_a", "text_b", "label"):
        if column not in table.column_names:
            raise FinetraceError(f"{path}: has no column {column!r}; run its data stage again")
    if table.num_rows == 0:
        raise FinetraceError(f"{path}: has no rows")
    pairs = table["text_b"].null_count < table.num_rows
    table = table if rows is None else table.take(rows)
    if "labels" in table.column_names and not classes:
        raise FinetraceError(f"{path}: its examples can have several labels; write target: multi-label in the task to "
                             "train on it, or look at it with the lens edges only, and take it out of `runs`")
    if "spans" in table.column_names:
        return _encode_spans(path, table, tokenizer, max_length, inputs, special, classes)
    first, second = table["text_a"].to_pylist(), table["text_b"].to_pylist() if pairs else None
    encoded = tokenizer(first, second, truncation=True, max_length=max_length, return_special_tokens_mask=special)
    features = {k: encoded[k] for k in encoded.keys() if k in inputs}
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    return Encoded(features, _labels(table, classes), table["example_id"].to_numpy(), lengths,
                   encoded["special_tokens_mask"] if special else None,
                   cut=tokens_cut(tokenizer, first, second, lengths, max_length))


def _labels(table: Any, classes: int) -> np.ndarray:
    """The labels of a task's table as `Encoded` has them."""
    if "labels" in table.column_names:
        lists = table["labels"].to_pylist()
        matrix = np.zeros((len(lists), classes), dtype=np.float32)
        for row, numbers in enumerate(lists):
            matrix[row, numbers] = 1
        return matrix
    labels = table["label"].to_numpy()
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)


def tokens_cut(tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, lengths: np.ndarray,
               max_length: int) -> np.ndarray:
    """Tokens that each text, or pair of texts, loses because its row holds `max_length` at most: (row,) int64.

    lengths: (row,) tokens of the rows as they were cut.
    """
    cut = np.zeros(len(lengths), dtype=np.int64)
    full = np.flatnonzero(lengths >= max_length).tolist()  # the others are whole
    if full:
        uncut = tokenizer([first[i] for i in full], None if second is None else [second[i] for i in full],
                          verbose=False)
        cut[full] = np.array([len(ids) for ids in uncut["input_ids"]]) - lengths[full]
    return cut


def unknown_tokens(rows: Encoded, tokenizer: Any) -> tuple[int, int]:
    """How many of the texts' own tokens are the unknown one, and how many there are; special tokens do not count."""
    unknown = tokenizer.unk_token_id
    if unknown in (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
        unknown = None  # no token says "unknown"
    special = set(tokenizer.all_special_ids) - {unknown}
    lists = rows.features["input_ids"]
    ids = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=int(rows.lengths.sum()))
    counts = np.bincount(ids, minlength=max(special, default=0) + 1)
    ordinary = int(len(ids) - counts[sorted(special)].sum())
    return (int((ids == unknown).sum()) if unknown is not None else 0), ordinary


def require_known(rows: Encoded, tokenizer: Any, where: str) -> None:
    """Warn when many tokens of the texts are unknown to the tokenizer. Raises FinetraceError when most are.

    where: the file, for messages.
    """
    unknown, ordinary = unknown_tokens(rows, tokenizer)
    share = unknown / max(1, ordinary)
    text = (f"{where}: {100 * share:.0f} % of its tokens ({unknown:,} of {ordinary:,}) are unknown to the tokenizer "
            f"({tokenizer.unk_token})")
    if share > MOST_UNKNOWN:
        raise FinetraceError(f"{text}; the model would learn from little else: name a model whose tokenizer knows "
                             "these texts, or see whether its tokenizer files are whole")
    if share > MANY_UNKNOWN:
        log.warning("%s; is it made for such texts?", text)


def _encode_spans(path: Path, table: Any, tokenizer: Any, max_length: int, inputs: set[str], special: bool,
                  classes: int) -> Encoded:
    """A task of words: consecutive rows of the table that share a sentence become one row of `Encoded`."""
    sentences = table["sentence"].to_numpy()
    first = np.flatnonzero(np.concatenate([[True], sentences[1:] != sentences[:-1]]))
    starts = np.concatenate([first, [len(sentences)]]).astype(np.int64)
    encoded, bounds = encode_words(tokenizer, table["words"].take(first).to_pylist(), max_length, str(path))
    spans = np.array(table["spans"].to_pylist(), dtype=np.int64)
    spans = spans.reshape(len(spans), -1, 2)
    pieces = np.empty_like(spans)
    for number, word_bounds in enumerate(bounds):
        rows = slice(starts[number], starts[number + 1])
        start, end = spans[rows][..., 0], spans[rows][..., 1]
        if ((start < 0) | (end > len(word_bounds)) | (start >= end)).any():
            raise FinetraceError(f"{path}: a span of sentence {sentences[starts[number]]} is empty or outside its "
                                 f"{len(word_bounds)} words; run its data stage again")
        pieces[rows] = np.stack([word_bounds[start, 0], word_bounds[end - 1, 1]], axis=-1)
    return Encoded({k: v for k, v in encoded.items() if k in inputs}, _labels(table, classes),
                   table["example_id"].to_numpy(), np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64),
                   encoded["special_tokens_mask"] if special else None, Targets(starts, pieces, sentences[first]))


class Collator:
    """Pads rows to the longest of their batch and makes tensors; multiples of 8 tokens on a GPU.

    For tasks of words also `spans` (row, slot, token) float32, which makes span vectors of token vectors, and `slots`
    (example,) int64, the examples' places in the flattened (row, slot of example) axis. pieces: a word is the `mean` of
    its pieces, or the `first`.
    """

    def __init__(self, tokenizer: Any, multiple: int | None = None, side: str | None = None,
                 pieces: Literal["mean", "first"] = "mean"):
        self.pieces = pieces
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
        batch["labels"] = torch.from_numpy(rows.labels[rows.examples(index)])
        if rows.targets:
            spans, slots = self._spans(rows.targets, rows.lengths, index, width)
            batch |= {"spans": torch.from_numpy(spans), "slots": torch.from_numpy(slots)}
        return batch

    def _spans(self, targets: Targets, lengths: np.ndarray, index: list[int],
               width: int) -> tuple[np.ndarray, np.ndarray]:
        counts, per_example = targets.counts()[index], targets.pieces.shape[1]
        slots_each = int(counts.max())
        weights, slots = np.zeros((len(index), slots_each * per_example, width), dtype=np.float32), []
        for r, i in enumerate(index):
            shift = width - int(lengths[i]) if self.side == "left" else 0
            bounds = targets.pieces[targets.starts[i]:targets.starts[i + 1]].reshape(-1, 2) + shift
            for slot, (start, end) in enumerate(bounds):
                if self.pieces == "first":
                    weights[r, slot, start] = 1.0
                else:
                    weights[r, slot, start:end] = 1.0 / (end - start)
            slots.append(r * slots_each + np.arange(counts[r]))
        return weights, np.concatenate(slots)


def batches_by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of similar length, longest first: the cheapest order when order does not matter."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start:start + batch_size]


def batches_by_tokens(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of similar length, longest first, each of at most `batch_tokens`
    tokens with its padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start:start + size]
        start += size
