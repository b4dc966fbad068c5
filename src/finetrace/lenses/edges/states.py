"""Hidden states for edge probes: the sentences of several tasks tokenised once, encoded once per checkpoint, and of
their tokens only those kept that some span covers."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.inference.extract import layer_states
from finetrace.lenses.edges.data import EdgeData
from finetrace.models.families import layer_count
from finetrace.models.rows import Collator, Encoded, batches_by_tokens
from finetrace.models.words import encode_words
from finetrace.store.hidden import LayerMajorFile
from finetrace.store.tables import read_table

SHARED = 0.5  # of the smaller task's sentences: from there on two tasks are encoded together


@dataclass(frozen=True)
class WordSplit:
    """One split of a task of words, as its table has it.

    words: per sentence its words;  starts: (sentence + 1,) int64, the targets of sentence i are starts[i] up to
    starts[i + 1];
    spans: (target, side, 2) int64, first word and the one after the last;  gold: (target, class) bool;  example_ids,
    sentences: (target,) int64, its number and that of its sentence in the table.
    """

    path: Path
    words: list[tuple[str, ...]]
    starts: np.ndarray
    spans: np.ndarray
    gold: np.ndarray
    example_ids: np.ndarray
    sentences: np.ndarray


@dataclass(frozen=True)
class PieceSplit:
    """The same in pieces, without the targets that a cut sentence lost and the sentences that have none left.

    texts: (sentence,) int64, which text of the group each sentence is;  starts, gold, example_ids, sentences as
    before;  spans: (target, side, 2) int64 in the pieces of the text;  names: per target the words of its spans, in
    order;  dropped: targets lost.
    """

    texts: np.ndarray
    starts: np.ndarray
    spans: np.ndarray
    gold: np.ndarray
    example_ids: np.ndarray
    sentences: np.ndarray
    names: list[tuple[str, ...]]
    dropped: int


@dataclass(frozen=True)
class Texts:
    """The different sentences of a group of tasks.

    rows: their tokens;  order: (text,) int64, in which they are encoded: longest first;  kept: per text the pieces
    that spans cover, ascending;  first: (text,) int64, where its kept pieces begin in the token axis, which follows
    `order`.
    """

    rows: Encoded
    order: np.ndarray
    kept: list[np.ndarray]
    first: np.ndarray

    @property
    def tokens(self) -> int:
        """Kept pieces of all texts."""
        return sum(map(len, self.kept))


def read_split(path: Path, label_names: list[str], limit: int = 0, seed: int = 0) -> WordSplit:
    """Read `data/TASK/SPLIT.parquet`. limit: targets at most, of whole sentences drawn by `seed`; 0: all.

    Raises FinetraceError when it is no task of words, has no rows, or a span outside its sentence.
    """
    table = read_table(path)
    for column in ("example_id", "label", "sentence", "words", "spans"):
        if column not in table.column_names:
            raise FinetraceError(f"{path}: has no column {column!r}; the lens edges looks at tasks of words (kind "
                                 "token, span or span-pair) only; remove the task from edges.tasks, or run its data "
                                 "stage again")
    if not table.num_rows:
        raise FinetraceError(f"{path}: has no rows")
    numbers = table["sentence"].to_numpy()
    first = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    starts = np.concatenate([first, [len(numbers)]]).astype(np.int64)
    if limit and limit < len(numbers):
        order = seeds.generator(seed, "sentences").permutation(len(first))
        within = np.cumsum(np.diff(starts)[order]) <= limit
        chosen = np.sort(order[within] if within.any() else order[:1])
        rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in chosen])
        table, numbers = table.take(rows), numbers[rows]
        starts = np.concatenate([[0], np.cumsum(np.diff(starts)[chosen])]).astype(np.int64)
    words = [tuple(sentence) for sentence in table["words"].take(starts[:-1]).to_pylist()]
    flat = table["spans"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    spans = flat.reshape(len(numbers), -1, 2)
    length = np.repeat([len(sentence) for sentence in words], np.diff(starts))[:, None]
    if (bad := (spans[..., 0] < 0) | (spans[..., 1] > length) | (spans[..., 0] >= spans[..., 1])).any():
        row = int(np.argmax(bad.any(axis=1)))
        raise FinetraceError(f"{path}: a span of sentence {numbers[row]} is empty or outside its {length[row, 0]} "
                             "words; run its data stage again")
    return WordSplit(path, words, starts, spans, _gold(table, len(label_names), path), table["example_id"].to_numpy(),
                     numbers)


def _gold(table: Any, classes: int, path: Path) -> np.ndarray:
    """(target, class) bool from the column labels, or label."""
    rows = table.num_rows
    if "labels" in table.column_names:
        lists = table["labels"].combine_chunks()
        numbers = lists.flatten().to_numpy(zero_copy_only=False)
        owner = np.repeat(np.arange(rows), np.diff(lists.offsets.to_numpy()))
    else:
        owner, numbers = np.arange(rows), table["label"].to_numpy()
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < classes:
        raise FinetraceError(f"{path}: holds a label outside 0 to {classes - 1}, the task's label_names; run its data "
                             "stage again")
    gold = np.zeros((rows, classes), dtype=bool)
    gold[owner, numbers] = True
    return gold


def group_tasks(tasks: Mapping[str, Mapping[str, WordSplit]]) -> list[list[str]]:
    """Tasks that share at least half of their different sentences (of the one that has fewer) are encoded together."""
    texts = {name: {words for split in splits.values() for words in split.words} for name, splits in tasks.items()}
    groups: list[list[str]] = []
    for name in tasks:
        near = [group for group in groups if any(_share(texts[name], texts[other]) >= SHARED for other in group)]
        groups = [group for group in groups if group not in near] + [[*itertools.chain(*near), name]]
    return groups


def _share(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / min(len(first), len(second))


def tokenise(tasks: Mapping[str, Mapping[str, WordSplit]], tokenizer: Any, max_length: int, inputs: set[str],
             ) -> tuple[Texts, dict[str, dict[str, PieceSplit]]]:
    """Tokenise the different sentences of a group of tasks and find every span's pieces.

    inputs: names that the model takes. Raises FinetraceError when a split loses all its targets to `max_length`.
    """
    number: dict[tuple[str, ...], int] = {}
    for splits in tasks.values():
        for split in splits.values():
            for words in split.words:
                number.setdefault(words, len(number))
    where = ", ".join(str(split.path) for splits in tasks.values() for split in splits.values())
    encoded, bounds = encode_words(tokenizer, list(number), max_length, where, truncate=True)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    rows = Encoded({k: v for k, v in encoded.items() if k in inputs | {"attention_mask"}},
                   np.zeros(len(number), dtype=np.int64), np.arange(len(number)), lengths)
    in_pieces = {name: {key: _in_pieces(split, number, bounds) for key, split in splits.items()}
                 for name, splits in tasks.items()}
    covered = [np.zeros(n, dtype=bool) for n in lengths]
    for splits_of in in_pieces.values():
        for split_of in splits_of.values():
            text_of_target = np.repeat(split_of.texts, np.diff(split_of.starts))
            for text, pairs in zip(text_of_target.tolist(), split_of.spans.tolist(), strict=True):
                for start, end in pairs:
                    covered[text][start:end] = True
    covered_tokens: list[np.ndarray] = [np.flatnonzero(mask) for mask in covered]
    order = np.argsort(-lengths, kind="stable")
    counts = np.array([covered_tokens[i].size for i in order])
    first = np.empty(len(order), dtype=np.int64)
    first[order] = np.cumsum(counts) - counts
    return Texts(rows, order, covered_tokens, first), in_pieces


def _in_pieces(split: WordSplit, number: Mapping[tuple[str, ...], int], bounds: list[np.ndarray]) -> PieceSplit:
    texts = np.array([number[words] for words in split.words])
    text_of = np.repeat(np.arange(len(texts)), np.diff(split.starts))
    flat = np.concatenate([bounds[text] for text in texts])  # words of the sentences, one after the other
    begin = np.cumsum([0, *map(len, split.words)])[text_of][:, None]
    spans = np.stack([flat[begin + split.spans[..., 0], 0], flat[begin + split.spans[..., 1] - 1, 1]], axis=-1)
    cut_off = (spans < 0).any(axis=(1, 2))
    if cut_off.all():
        raise FinetraceError(f"{split.path}: edges.max_length cuts off all {cut_off.size} targets; raise it")
    counts = np.bincount(text_of[~cut_off], minlength=len(texts))
    with_targets = np.flatnonzero(counts)
    names = [tuple(" ".join(split.words[i][start:end]) for start, end in pair)
             for i, pair in zip(text_of[~cut_off], split.spans[~cut_off].tolist(), strict=True)]
    return PieceSplit(texts[with_targets], np.concatenate([[0], np.cumsum(counts[with_targets])]).astype(np.int64),
                      spans[~cut_off],
                      split.gold[~cut_off], split.example_ids[~cut_off], split.sentences[~cut_off], names,
                      int(cut_off.sum()))


def encode_texts(model: Any, texts: Texts, collator: Collator, path: Path, *, dtype: str, batch_tokens: int,
                 bf16: bool = False, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
    """Write the states of the kept pieces to `path`, a .npy (layer, token, dim), in one pass over the texts.

    Returns moments (layer, text, 2) float64: sum and sum of squares of all numbers of all tokens of each text.
    on_batch: told the number of texts done. Memory does not grow with the number of texts; the model is not changed.
    Raises FinetraceError when a state is not finite in `dtype`.
    """
    import torch

    device = next(model.parameters()).device
    layers, done, item = layer_count(model.config), 0, 0
    moments = np.zeros((layers, len(texts.rows), 2))
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16), \
            LayerMajorFile(path, layers, texts.tokens, model.config.hidden_size, dtype) as file:
        for index in batches_by_tokens(texts.rows.lengths, batch_tokens):
            batch = collator(texts.rows, index)
            batch.pop("labels")
            batch = {k: v.to(device) for k, v in batch.items()}
            padding = ~batch["attention_mask"].bool()
            rows = torch.as_tensor(np.repeat(np.arange(len(index)), [len(texts.kept[i]) for i in index]), device=device)
            pieces = torch.as_tensor(np.concatenate([texts.kept[i] for i in index]), device=device)
            block = np.empty((layers, len(rows), model.config.hidden_size), dtype=np.float32)
            for layer, state in enumerate(layer_states(model, batch)):  # (text, token, dim)
                state = state.float()
                block[layer] = state[rows, pieces].cpu().numpy()
                sums = [values.sum(dim=2).masked_fill(padding, 0.0).double().sum(dim=1)
                        for values in (state, state.square())]
                moments[layer, index] = torch.stack(sums, dim=1).cpu().numpy()
            file.put(item, _stored(block, dtype))
            done, item = done + len(index), item + block.shape[1]
            if on_batch:
                on_batch(done)
    if not np.isfinite(moments).all():
        raise FinetraceError("a hidden state is not finite; the training diverged: lower its learning_rate")
    return moments


def _stored(block: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = block.astype(dtype)
    if not np.isfinite(stored).all():
        layer = int(np.argwhere(~np.isfinite(stored).all(axis=(1, 2)))[0, 0])
        if np.isfinite(block).all():
            raise FinetraceError(f"edges.dtype: layer {layer} holds numbers up to {np.abs(block).max():.3g}, too "
                                 f"large for {dtype}; set float32")
        raise FinetraceError(f"layer {layer} is not finite; the training diverged: lower its learning_rate")
    return stored


def edge_layout(split: PieceSplit, texts: Texts) -> EdgeData:
    """What probes of one split are trained on, but for what differs between checkpoints; see `with_states`."""
    sentence = np.repeat(np.arange(len(split.texts)), np.diff(split.starts))
    covered: list[np.ndarray] = []
    for i, text in enumerate(split.texts):  # of the pieces kept for all tasks, those that this split's spans cover
        mask = np.zeros(int(texts.rows.lengths[text]) + 1, dtype=np.int64)
        sentence_spans = split.spans[split.starts[i]:split.starts[i + 1]].reshape(-1, 2)
        np.add.at(mask, sentence_spans[:, 0], 1)
        np.add.at(mask, sentence_spans[:, 1], -1)
        covered.append(np.flatnonzero(np.cumsum(mask)[:-1]))
    counts = np.array([len(pieces) for pieces in covered])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tokens = np.concatenate([texts.first[text] + np.searchsorted(texts.kept[text], pieces)
                             for text, pieces in zip(split.texts, covered, strict=True)])
    places = np.concatenate(covered) + (np.arange(len(counts)) * _WIDE).repeat(counts)  # ascending over sentences
    spans = np.stack([np.searchsorted(places, split.spans[..., 0] + (sentence * _WIDE)[:, None]),
                      np.searchsorted(places, split.spans[..., 1] - 1 + (sentence * _WIDE)[:, None]) + 1], axis=-1)
    nothing = np.empty((0, len(split.texts), 2))
    return EdgeData(None, tokens, offsets, split.starts, spans, split.gold, nothing, texts.rows.lengths[split.texts])


def with_states(layout: EdgeData, split: PieceSplit, states: Any, moments: np.ndarray) -> EdgeData:
    """The same with one checkpoint's states (layer, token, dim) as `encode_texts` wrote them, and its moments."""
    return replace(layout, states=states, moments=moments[:, split.texts])


_WIDE = 1 << 20  # pieces that no sentence has
