"""Facts as cloze prompts: token ids with a masked position, and the single piece that is to be found there."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.models.rows import Encoded

MASK = "[MASK]"
COLUMNS = ("fact_id", "corpus", "relation", "relation_type", "subject", "object", "sentences", "held_out", "candidates")
REASONS = {
    "inside a word": "a letter or digit touches the mask",
    "not one piece": "the tokenizer splits the object",
    "unknown": "the tokenizer does not know the object",
    "respelled": "the tokenizer changes the object's spelling (accents, say); with lama_compat only",
    "not in the vocabulary": "the object is not in the restricted vocabulary",
    "too long": "the prompt is longer than the model's input",
}
"""Why a fact is left out."""


@dataclass(frozen=True)
class Prompts:
    """The facts that can be asked.

    rows: token ids, one row per fact;  kept: (fact,) int64, their rows in the table of facts;  mask_at: (fact,) int64,
    the masked position, counted in the row with its special tokens;  gold: (fact,) int64, id of the object's piece;
    candidates: per fact the ids of words of the right type, ascending, the object's among them;
    None where the facts name none;
    counts: (corpus, relation) -> {"facts": before, "kept": after, reason: how many}.
    """

    rows: Encoded
    kept: np.ndarray
    mask_at: np.ndarray
    gold: np.ndarray
    candidates: list[np.ndarray | None]
    counts: dict[tuple[str, str], dict[str, int]]

    def __len__(self) -> int:
        return len(self.gold)


def encode_prompts(facts: Any, tokenizer: Any, vocabulary: np.ndarray, *, max_length: int, inputs: set[str], where: str,
                   lama_compat: bool = False) -> Prompts:
    """Tokenise facts and leave out those that cannot be answered with one piece of the vocabulary.

    facts: table with `COLUMNS`;  vocabulary: (word,) ids, ascending;  max_length: longest input in tokens;
    inputs: names that the model takes;  where: the file, for messages;  lama_compat: read what is attached to the mask
    as LAMA's connector did. Raises FinetraceError for a tokenizer without a mask, a row that is no cloze question,
    or when no fact is left.
    """
    if missing := [c for c in COLUMNS if c not in facts.column_names]:
        raise FinetraceError(f"{where}: has no column {missing[0]!r}; run its facts stage again")
    if tokenizer.mask_token is None:
        raise FinetraceError(f"{where}: cannot be asked: the tokenizer has no mask token; cloze needs a "
                             "model of masked words")
    if facts.num_rows == 0:
        raise FinetraceError(f"{where}: has no facts")
    encode = _compat_encoder(tokenizer, where) if lama_compat else _encoder(tokenizer)
    piece = _Pieces(tokenizer)
    predictable = set(vocabulary.tolist())
    counts: dict[tuple[str, str], dict[str, int]] = {}
    encoded_facts: list[tuple[int, dict[str, list[int]], int, int, np.ndarray | None]] = []
    for row, fact in enumerate(facts.select(COLUMNS).to_pylist()):
        count = counts.setdefault((fact["corpus"], fact["relation"]), Counter())
        count["facts"] += 1
        left, right = _around_mask(fact["sentences"], f"{where}: row {row} ({fact['fact_id']})")
        reason, gold = piece.of(fact["object"], "" if lama_compat else left)
        if right[:1].isalnum() or left[-1:].isalnum():
            reason = reason or "inside a word"
        if lama_compat and not reason and not piece.spelled(gold, fact["object"]):
            reason = "respelled"
        if not reason and gold not in predictable:
            reason = "not in the vocabulary"
        if not reason:
            features = encode(fact["sentences"])
            ids = features["input_ids"]
            reason = "too long" if len(ids) > max_length else ""
        if reason:
            count[reason] += 1
            continue
        if ids.count(tokenizer.mask_token_id) != sum(s.count(MASK) for s in fact["sentences"]):
            raise FinetraceError(f"{where}: row {row} ({fact['fact_id']}): has another number of mask tokens after "
                                 f"tokenisation than of {MASK}; take {tokenizer.mask_token} out of its text")
        count["kept"] += 1
        encoded_facts.append((row, {k: v for k, v in features.items() if k in inputs},
                              ids.index(tokenizer.mask_token_id), gold,
                              _candidates(fact, gold, piece, left, f"{where}: row {row} ({fact['fact_id']})")))
    if not encoded_facts:
        raise FinetraceError(f"{where}: none of its {facts.num_rows} facts can be asked of this model: "
                             f"{left_out(counts)}; name other facts, or set cloze.vocabulary: full")
    return _prompts(encoded_facts, {k: dict(v) for k, v in counts.items()})


def left_out(counts: dict[tuple[str, str], dict[str, int]]) -> str:
    """How many facts were left out and why, for a message."""
    totals = {reason: sum(reasons.get(reason, 0) for reasons in counts.values()) for reason in REASONS}
    return ", ".join(f"{number:,} {reason}" for reason, number in totals.items() if number) or "all"


def _prompts(encoded_facts: list[Any], counts: dict[tuple[str, str], dict[str, int]]) -> Prompts:
    numbers, features, mask_at, gold, candidates = zip(*encoded_facts, strict=True)
    rows = Encoded({name: [f[name] for f in features] for name in features[0]}, np.array(gold, dtype=np.int64),
                   np.arange(len(gold)), np.array([len(f["input_ids"]) for f in features], dtype=np.int64))
    return Prompts(rows, np.array(numbers, dtype=np.int64), np.array(mask_at, dtype=np.int64),
                   np.array(gold, dtype=np.int64), list(candidates), counts)


def _around_mask(sentences: Sequence[str], where: str) -> tuple[str, str]:
    """What stands before and after the mask in its sentence; of several masks the first is the question, as in LAMA."""
    if len(sentences) not in (1, 2) or not any(MASK in s for s in sentences):
        raise FinetraceError(f"{where}: needs one or two sentences with a {MASK}; mend it and run its "
                             "facts stage again")
    left, _, right = next(s for s in sentences if MASK in s).partition(MASK)
    return left, right


class _Pieces:
    """The piece that stands for a word after a given text: byte-level tokenizers have another one after a blank."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.found = tokenizer, {}  # type: ignore[var-annotated]

    def of(self, word: str, left: str) -> tuple[str, int]:
        """(reason, id): the reason is empty where there is exactly one known piece."""
        context = "" if not left else "a " if left[-1].isspace() else left[-1]
        if (word, context) not in self.found:
            self.found[word, context] = self._look_up(word, context)
        return self.found[word, context]

    def _look_up(self, word: str, context: str) -> tuple[str, int]:
        before = self.tokenizer.tokenize(context.strip()) if context else []
        pieces = self.tokenizer.tokenize(context + word)
        if len(pieces) != len(before) + 1 or pieces[:-1] != before:
            return "not one piece", -1
        token = int(self.tokenizer.convert_tokens_to_ids(pieces[-1]))
        if token == self.tokenizer.unk_token_id or token in self.tokenizer.all_special_ids:
            return "unknown", -1
        return "", token

    def spelled(self, piece: int, word: str) -> bool:
        """Whether the piece is the word, but for its case."""
        return self.tokenizer.convert_ids_to_tokens(piece).lower() == word.lower()


def _candidates(fact: dict[str, Any], gold: int, piece: _Pieces, left: str, where: str) -> np.ndarray | None:
    """Ids of the words of the right type; those that are not one piece cannot be predicted and do not count."""
    if fact["candidates"] is None:
        return None
    ids = {token for reason, token in (piece.of(word, left) for word in fact["candidates"]) if not reason}
    if gold not in ids:
        raise FinetraceError(f"{where}: its object {fact['object']!r} is not among its candidates; mend it and "
                             "run its facts stage again")
    return np.array(sorted(ids), dtype=np.int64)


def _encoder(tokenizer: Any) -> Callable[[Sequence[str]], dict[str, list[int]]]:
    """Sentences to features, with the tokenizer as it is."""
    def encode(sentences: Sequence[str]) -> dict[str, list[int]]:
        texts = [sentence.replace(MASK, tokenizer.mask_token) for sentence in sentences]
        encoded = tokenizer(*texts, return_attention_mask=True, verbose=False)
        return {name: list(encoded[name]) for name in encoded.keys()}

    return encode


def _compat_encoder(tokenizer: Any, where: str) -> Callable[[Sequence[str]], dict[str, list[int]]]:
    """Sentences to features as LAMA's connector to BERT did: it split at blanks, and made of a chunk with the mask the
    mask and all its other characters as one word, neither lower-cased nor split at punctuation."""
    model: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if type(model).__name__ not in ("WordPiece", "WordLevel") or tokenizer.sep_token_id is None:
        raise FinetraceError(f"{where}: cloze.lama_compat reads prompts as LAMA did for BERT, and this tokenizer "
                             "is of another kind; set it to false")

    def pieces(sentence: str) -> list[int]:
        token_ids: list[int] = []
        for chunk in sentence.split():
            if MASK in chunk:
                token_ids += [tokenizer.mask_token_id, *(token.id for token in model.tokenize(chunk.replace(MASK, "")))]
            else:
                token_ids += tokenizer.convert_tokens_to_ids(tokenizer.tokenize(chunk))
        return token_ids

    def encode(sentences: Sequence[str]) -> dict[str, list[int]]:
        ids, types = [tokenizer.cls_token_id], [0]
        for number, sentence in enumerate(sentences):
            new = [*pieces(sentence), tokenizer.sep_token_id]
            ids, types = ids + new, types + [number] * len(new)
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids)}

    return encode
