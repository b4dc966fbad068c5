"""Sentences given as words: their pieces, and which pieces belong to which word."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError


@dataclass(frozen=True)
class Targets:
    """Where the examples of a task of words lie in their sentences' pieces.

    starts: (sentence + 1,) int64, the examples of sentence i are starts[i] up to starts[i + 1];
    pieces: (example, span, 2) int64, first piece and the one after the last, counted in the sentence with its special
    tokens; numbers: (sentence,) int64, the sentences' numbers in the source.
    """

    starts: np.ndarray
    pieces: np.ndarray
    numbers: np.ndarray

    def of(self, sentences: np.ndarray) -> np.ndarray:
        """Numbers of the examples of some sentences, sentence after sentence: (example,) int64."""
        return np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in sentences]
                              or [np.zeros(0, np.int64)])

    def counts(self) -> np.ndarray:
        """(sentence,) int64 examples of each sentence."""
        return np.diff(self.starts)

    def take(self, sentences: np.ndarray) -> "Targets":
        """Those of some sentences, in the given order."""
        return Targets(np.concatenate([[0], np.cumsum(self.counts()[sentences])]).astype(np.int64),
                       self.pieces[self.of(sentences)], self.numbers[sentences])


LOST = -1
"""First and last piece of a word that a cut sentence no longer has whole."""


def encode_words(tokenizer: Any, sentences: Sequence[Sequence[str]], max_length: int, where: str, *,
                 truncate: bool = False,
                 ) -> tuple[dict[str, list[list[int]]], list[np.ndarray]]:
    """Token ids of sentences that are split into words, and each word's pieces.

    Returns the tokenizer's outputs (`special_tokens_mask` among them), one list of integers per sentence, and per
    sentence (word, 2) int64: the word's first piece and the one after its last. A word of which nothing is left
    (a zero-width character, say) is read as the unknown token, so every word has a piece.
    where: the file, for messages.

    A sentence longer than `max_length` tokens is an error, because a cut one would lose examples; with `truncate` it is
    cut after the piece that is the last to fit, special tokens stay, and words that are not there whole have the bounds
    (LOST, LOST) = (-1, -1): the caller drops and counts what is marked there.
    Raises FinetraceError naming the sentence.
    """
    tokenizer = _for_words(tokenizer)
    words = [list(sentence) for sentence in sentences]
    encoded, bounds = _encode(tokenizer, words)
    if without_pieces := [i for i, word_bounds in enumerate(bounds) if (word_bounds[:, 1] == 0).any()]:
        if tokenizer.unk_token is None:
            word = words[without_pieces[0]][int(np.argmin(bounds[without_pieces[0]][:, 1]))]
            raise FinetraceError(f"{where}: the tokenizer leaves nothing of the word {word!r} and has no "
                                 "unknown token; remove its sentence")
        fixed = [[w if b else tokenizer.unk_token for w, b in zip(words[i], bounds[i][:, 1], strict=True)]
                 for i in without_pieces]
        encoded_again, bounds_again = _encode(tokenizer, fixed)
        for place, i in enumerate(without_pieces):
            bounds[i] = bounds_again[place]
            for name, values in encoded.items():
                values[i] = encoded_again[name][place]
    for i, ids in enumerate(encoded["input_ids"]):
        if len(ids) > max_length and truncate:
            _cut_sentence(encoded, bounds, i, max_length, where)
        elif len(ids) > max_length:
            raise FinetraceError(f"{where}: the sentence {' '.join(words[i][:8])!r}... has {len(ids)} tokens, "
                                 f"more than the longest input, {max_length}; raise train.max_length where the model "
                                 "allows it, or leave long sentences out with the task's max_words")
    return encoded, bounds


def _cut_sentence(encoded: dict[str, list[list[int]]], bounds: list[np.ndarray], i: int, max_length: int,
                  where: str) -> None:
    """Shorten a sentence in place: what the tokenizer put before and after it stays."""
    word_bounds = bounds[i]
    after = len(encoded["input_ids"][i]) - int(word_bounds[-1, 1])
    end = max_length - after
    if end <= word_bounds[0, 0]:
        raise FinetraceError(f"{where}: max_length {max_length} leaves no room for a piece besides the "
                             f"{after + word_bounds[0, 0]} tokens that the tokenizer adds; raise it")
    for values in encoded.values():
        values[i] = values[i][:end] + values[i][len(values[i]) - after:]
    bounds[i] = np.where(word_bounds[:, 1:] <= end, word_bounds, LOST)


def _encode(tokenizer: Any, words: list[list[str]]) -> tuple[dict[str, list[list[int]]], list[np.ndarray]]:
    """Outputs of the tokenizer and the bounds of each word; bounds (0, 0) for a word without pieces."""
    if tokenizer.is_fast:
        output = tokenizer(words, is_split_into_words=True, return_special_tokens_mask=True, return_attention_mask=True)
        encoded = {name: list(output[name]) for name in output.keys()}
        return encoded, [_bounds(output.word_ids(i), len(sentence)) for i, sentence in enumerate(words)]
    encoded, bounds = {}, []  # tokenizers in Python do not tell which word a piece comes from
    for sentence in words:
        pieces = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word)) for word in sentence]
        output = tokenizer.prepare_for_model([i for word in pieces for i in word], add_special_tokens=True,
                                             return_attention_mask=True)
        ids = output["input_ids"]
        mask = _added_tokens(ids, [i for word in pieces for i in word])
        for name in output.keys():
            encoded.setdefault(name, []).append(list(output[name]))
        encoded.setdefault("special_tokens_mask", []).append(mask)
        places = iter(np.flatnonzero(np.array(mask) == 0))
        owners: list[int | None] = [None] * len(ids)
        for number, word in enumerate(pieces):
            for _ in word:
                owners[next(places)] = number
        bounds.append(_bounds(owners, len(sentence)))
    return encoded, bounds


def _added_tokens(ids: list[int], inner: list[int]) -> list[int]:
    """1 for the tokens before and after the sentence's own pieces."""
    before = next(i for i in range(len(ids) - len(inner) + 1) if ids[i:i + len(inner)] == inner)
    return [1] * before + [0] * len(inner) + [1] * (len(ids) - before - len(inner))


def _bounds(owners: Sequence[int | None], words: int) -> np.ndarray:
    bounds = np.zeros((words, 2), dtype=np.int64)
    for piece, word in enumerate(owners):
        if word is not None:
            if not bounds[word, 1]:
                bounds[word, 0] = piece
            bounds[word, 1] = piece + 1
    return bounds


def _for_words(tokenizer: Any) -> Any:
    """A byte-level tokenizer glues words that come one by one, unless each is read as if a blank stood before it."""
    from tokenizers.pre_tokenizers import ByteLevel

    if not tokenizer.is_fast:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    outer: Any = tokenizer.backend_tokenizer.pre_tokenizer
    for part in list(outer) if hasattr(outer, "__getitem__") else [outer]:
        if isinstance(part, ByteLevel):
            part.add_prefix_space = True
    return tokenizer
