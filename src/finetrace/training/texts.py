"""Texts as rows of token ids for masked-word training: one row per text, or running text in blocks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.models.rows import Encoded, tokens_cut

CHUNK = 8192  # texts handed to the tokenizer at once
WORDS = "words"
"""Name of the feature that tells which word each token belongs to: a number per word of a row,
-1 for special tokens."""


def encode_texts(texts: Sequence[str], tokenizer: Any, max_tokens: int, inputs: set[str],
                 whole_words: bool = False) -> Encoded:
    """One row per text, cut after `max_tokens`; `inputs` are the names that the model takes.

    whole_words: also mark the words (feature `WORDS`). Raises FinetraceError where the tokenizer does not tell words.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for encoded in _tokenizer_outputs(texts, tokenizer, whole_words, truncation=True, max_length=max_tokens):
        for name, lists in encoded.items():
            if name in inputs | {WORDS}:
                parts.setdefault(name, []).extend(_array_views(lists))
    rows = _rows(parts)
    rows.cut = tokens_cut(tokenizer, texts, None, rows.lengths, max_tokens)
    return rows


def pack_texts(texts: Sequence[str], tokenizer: Any, block_tokens: int, inputs: set[str],
               whole_words: bool = False) -> Encoded:
    """The texts one after the other, a separator between them, cut into rows of at most `block_tokens` tokens.

    Every row has the special tokens of a single text around it; a separator at the edge of a row is dropped. Every
    token of the texts is in exactly one row. inputs, whole_words: as in `encode_texts`.
    """
    if tokenizer.sep_token_id is None:
        raise FinetraceError("pack: blocks needs a tokenizer with a separator token; set pack: none")
    before, after = added_tokens(tokenizer)
    text_tokens = block_tokens - len(before) - len(after)
    if text_tokens < 1:
        raise FinetraceError(f"block_tokens: {block_tokens} leave no room beside "
                             f"{len(before) + len(after)} special tokens")
    stream, words = _stream(texts, tokenizer, whole_words)
    rows: list[np.ndarray] = []
    word_rows: list[np.ndarray] = []
    for start in range(0, len(stream), text_tokens):
        ids, word_numbers = stream[start:start + text_tokens], words[start:start + text_tokens]
        first, last = int(word_numbers[0] == -1), len(ids) - int(word_numbers[-1] == -1)
        if first < last:
            rows.append(np.concatenate([before, ids[first:last], after]))
            word_rows.append(np.concatenate([np.full(len(before), -1), word_numbers[first:last],
                                             np.full(len(after), -1)]))
    parts = {"input_ids": rows, "attention_mask": _constant(1, rows)}
    if "token_type_ids" in tokenizer.model_input_names:
        parts["token_type_ids"] = _constant(0, rows)
    return _rows({name: lists for name, lists in parts.items() if name in inputs}
                 | ({WORDS: word_rows} if whole_words else {}))


def added_tokens(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ids that the tokenizer puts before and after a single text, e.g. [CLS] and [SEP]."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, text_places = (np.array(encoded["input_ids"], dtype=np.int32),
                        np.flatnonzero(np.array(encoded["special_tokens_mask"]) == 0))
    return ids[:text_places[0]], ids[text_places[-1] + 1:]


def _stream(texts: Sequence[str], tokenizer: Any, whole_words: bool) -> tuple[np.ndarray, np.ndarray]:
    """All tokens with separators between texts, and the number of each token's word: (token,), (token,);
    separators have -1."""
    separator = np.array([tokenizer.sep_token_id], dtype=np.int32)
    stream, words = [], []
    for encoded in _tokenizer_outputs(texts, tokenizer, whole_words, add_special_tokens=False):
        ids = encoded["input_ids"]
        for number, row in enumerate(ids):
            if row:
                stream += [np.array(row, dtype=np.int32), separator]
                words += [np.array(encoded[WORDS][number] if whole_words else [0] * len(row), dtype=np.int32),
                          np.array([-1], dtype=np.int32)]
    if not stream:
        raise FinetraceError("the tokenizer leaves nothing of the texts; name another corpus or tokenizer")
    return np.concatenate(stream)[:-1], np.concatenate(words)[:-1]


def _tokenizer_outputs(texts: Sequence[str], tokenizer: Any, whole_words: bool,
                       **options: Any) -> Iterator[dict[str, list[list[int]]]]:
    """Outputs of the tokenizer, some texts at a time."""
    if whole_words and not tokenizer.is_fast:
        raise FinetraceError(f"whole_words: {type(tokenizer).__name__} is a tokenizer in Python, which does not "
                             "tell which word a piece belongs to; set whole_words: false")
    for start in range(0, len(texts), CHUNK):
        output = tokenizer(list(texts[start:start + CHUNK]), verbose=False, **options)
        encoded = {name: output[name] for name in output.keys()}
        if whole_words:
            encoded[WORDS] = [_word_numbers(output.word_ids(i), output.tokens(i))
                              for i in range(len(encoded["input_ids"]))]
        yield encoded


def _word_numbers(owners: list[int | None], tokens: list[str]) -> list[int]:
    """The number of each token's word in its row. A SentencePiece tokenizer that does not split at spaces takes a whole
    text for one word: there its mark of a word's beginning counts."""
    numbers, number = [], -1
    for place, (owner, token) in enumerate(zip(owners, tokens, strict=True)):
        if owner is not None and (place == 0 or owner != owners[place - 1] or token.startswith("\u2581")):
            number += 1
        numbers.append(-1 if owner is None else number)
    return numbers


def _array_views(lists: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The lists as parts of one array: 4 bytes per number instead of a list's 8 and more."""
    if not lists:
        return []
    flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in lists])
    return np.split(flat, np.cumsum([len(row) for row in lists])[:-1])


def _constant(value: int, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    longest_row = np.full(max((len(row) for row in rows), default=0), value, dtype=np.int32)
    return [longest_row[:len(row)] for row in rows]


def _rows(parts: dict[str, list[Any]]) -> Encoded:
    ids = parts["input_ids"]
    return Encoded(parts, np.zeros(len(ids), dtype=np.int64), np.arange(len(ids)),
                   np.array([len(row) for row in ids], dtype=np.int64))
