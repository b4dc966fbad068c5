"""Pseudo-log-likelihood: how probable a masked-word model finds a sentence, token by token from its surroundings.

The score of a sentence is the sum over its tokens of log p(token | the sentence with that token masked) (Salazar et al.
2020, "Masked Language Model Scoring"). A word of several tokens gives itself away: "sou ##ven ##ir" is easy to
complete. So with `word_l2r` the tokens of the same word to the right are masked, too (Kauf and Ivanova 2023, "A Better
Way to Do Masked Language Model Scoring", PLL-word-l2r). Tokens that the tokenizer adds are neither masked nor scored.

Where words end is what the tokenizer itself splits into before it makes pieces: words and marks in BERT's family; words
with the blank before them in byte-level tokenizers (RoBERTa); what stands between blanks, marks included, in those made
of SentencePiece models (ALBERT, XLM-R).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.models.rows import Collator, Encoded, batches_by_tokens

if TYPE_CHECKING:
    import torch

    from finetrace.models.masked_head import MaskedHead

Scoring = Literal["word_l2r", "original"]
BLOCK_TOKENS = 1 << 20  # of masked copies that are in memory at once


@dataclass(frozen=True)
class Sentences:
    """Tokenised sentences. rows: one each;  words: per sentence (token,) int64, the number of the token's word, -1 for
    tokens that the tokenizer added."""

    rows: Encoded
    words: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def tokens(self) -> np.ndarray:
        """(sentence,) int64 tokens that are scored."""
        return np.array([int((words >= 0).sum()) for words in self.words], dtype=np.int64)


@dataclass(frozen=True)
class Copies:
    """Masked copies of some sentences, each once however many tokens are scored on it.

    rows: token ids with masks;  places: (copy,) int64, the token that is looked at;  copy, target, sentence: (target,)
    int64, one per token of the sentences: the copy that it is scored on, its id, and whose it is.
    """

    rows: Encoded
    places: np.ndarray
    copy: np.ndarray
    target: np.ndarray
    sentence: np.ndarray


def encode_sentences(texts: Sequence[str], tokenizer: Any, *, inputs: set[str], scoring: Scoring,
                     where: str) -> Sentences:
    """Tokenise sentences. inputs: names that the model takes;  where: the file, for messages.

    Raises FinetraceError for a tokenizer that has no mask token, or does not tell words apart where `scoring` needs it.
    """
    if tokenizer.mask_token_id is None:
        raise FinetraceError(f"{where}: cannot be scored: the tokenizer has no mask token; pairs needs a model of "
                             "masked words")
    if scoring == "word_l2r" and not tokenizer.is_fast:
        raise FinetraceError(f"{where}: this tokenizer does not say which pieces are one word, because it has no fast "
                             "form (tokenizer.json); set pairs.scoring: original")
    encoded = tokenizer(list(texts), return_special_tokens_mask=True, return_attention_mask=True, verbose=False)
    words = []
    for number, (text, special) in enumerate(zip(texts, encoded["special_tokens_mask"], strict=True)):
        ordinary = np.flatnonzero(np.array(special, dtype=np.int64) == 0)
        word_of_token = np.full(len(special), -1, dtype=np.int64)
        word_of_token[ordinary] = (_words(encoded, number, text, where)[ordinary] if scoring == "word_l2r"
                                   else np.arange(len(ordinary)))
        words.append(word_of_token)
    features = {name: encoded[name] for name in encoded.keys() if name in inputs}
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    return Sentences(Encoded(features, np.zeros(len(lengths), np.int64), np.arange(len(lengths)), lengths), words)


def _words(encoded: Any, number: int, text: str, where: str) -> np.ndarray:
    """(token,) the number of each token's word, as the tokenizer splits; -1 for tokens that it added."""
    words = np.array([-1 if word is None else word for word in encoded.word_ids(number)], dtype=np.int64)
    span = encoded.word_to_chars(number, int(words.max())) if (words >= 0).any() else None
    if span is not None and len(text[span.start:span.end].split()) > 1:
        raise FinetraceError(f"{where}: this tokenizer takes {text[span.start:span.end][:40]!r} for one word; set "
                             "pairs.scoring: original")
    return words


def masked_copies(sentences: Sentences, chosen: np.ndarray, mask: int) -> Copies:
    """All masked copies of the chosen sentences (n,): of each token, with what is right of it in its word.

    mask: id of the mask token. Copies that are equal - of a good and a bad sentence that differ in the very token that
    is masked - are there once.
    """
    names, lists = list(sentences.rows.features), sentences.rows.features
    features: dict[str, list[Any]] = {name: [] for name in names}
    numbers: dict[tuple[bytes, int], int] = {}
    places: list[int] = []
    copy: list[int] = []
    target: list[int] = []
    whose: list[int] = []
    for sentence in chosen.tolist():
        ids, words = np.array(lists["input_ids"][sentence], dtype=np.int64), sentences.words[sentence]
        at = np.flatnonzero(words >= 0)
        hidden = (words[None] == words[at, None]) & (np.arange(len(ids))[None] >= at[:, None])
        for place, row in zip(at.tolist(), np.where(hidden, mask, ids), strict=True):
            key = (row.tobytes(), place)
            if key not in numbers:
                numbers[key] = len(places)
                places.append(place)
                for name in names:
                    features[name].append(row if name == "input_ids" else lists[name][sentence])
            copy.append(numbers[key])
        target += ids[at].tolist()
        whose += [sentence] * len(at)
    lengths = np.array([len(row) for row in features["input_ids"]], dtype=np.int64)
    rows = Encoded(features, np.zeros(len(lengths), np.int64), np.arange(len(lengths)), lengths)
    return Copies(rows, *(np.array(values, dtype=np.int64) for values in (places, copy, target, whose)))


def blocks(sentences: Sentences, block_tokens: int = BLOCK_TOKENS) -> Iterator[np.ndarray]:
    """Numbers of sentences, longest first, in blocks whose masked copies have about `block_tokens` tokens.

    Sentences of equal length keep their order: only they can share copies, so what is alike has to stand together.
    """
    order = np.argsort(-sentences.rows.lengths, kind="stable")
    ends = np.cumsum((sentences.rows.lengths * sentences.tokens)[order]) // block_tokens
    yield from np.split(order, np.flatnonzero(np.diff(ends)) + 1)


def count_copies(sentences: Sentences, mask: int) -> tuple[int, int]:
    """How many masked copies there are, and how many tokens they have: what a model has to read."""
    lengths_of_blocks = [masked_copies(sentences, chosen, mask).rows.lengths for chosen in blocks(sentences)]
    return sum(map(len, lengths_of_blocks)), int(sum(lengths.sum() for lengths in lengths_of_blocks))


def pseudo_log_likelihoods(encoder: Any, head: "MaskedHead", sentences: Sentences, mask: int, collator: Collator, *,
                           batch_tokens: int, memory_bytes: int = 2**29, bf16: bool = False,
                           block_tokens: int = BLOCK_TOKENS,
                           tell: Callable[[int], None] = lambda count: None) -> np.ndarray:
    """Score of each sentence: (sentence,) float64 nats, at most 0; higher = more probable.

    encoder: in evaluation mode;  head: its masked-word head, on the same device;  collator: pads on the right;
    batch_tokens: tokens of a forward pass with their padding;  memory_bytes: of the scores of all words that are held
    at once;  tell: told the number of copies done. Neither the batches nor the order of sentences matter beyond
    rounding. Raises FinetraceError when a score is not finite.
    """
    scores = np.zeros(len(sentences))
    done = 0
    for chosen in blocks(sentences, block_tokens):
        copies = masked_copies(sentences, chosen, mask)
        by_copy = np.argsort(copies.copy, kind="stable")  # targets of copy c: by_copy[starts[c]:starts[c + 1]]
        starts = np.searchsorted(copies.copy[by_copy], np.arange(len(copies.places) + 1))
        log_probs = np.empty(len(copies.copy))
        for index in batches_by_tokens(copies.rows.lengths, batch_tokens):
            counts = starts[index + 1] - starts[index]
            targets = np.concatenate([by_copy[starts[i]:starts[i + 1]] for i in index])
            states = _states(encoder, copies, index, collator, bf16)
            log_probs[targets] = _log_probs(head, states, np.repeat(np.arange(len(index)), counts),
                                            copies.target[targets], memory_bytes)
            done += len(index)
            tell(done)
        np.add.at(scores, copies.sentence, log_probs)
    if len(wrong := np.flatnonzero(~np.isfinite(scores))):
        raise FinetraceError(f"the score of sentence {wrong[0]} is not finite; the training diverged: lower its "
                             "learning_rate")
    return scores


def _states(encoder: Any, copies: Copies, index: np.ndarray, collator: Collator, bf16: bool) -> "torch.Tensor":
    """(copy, dim) float32 states of the last layer at the places of some copies."""
    import torch

    device = next(encoder.parameters()).device
    batch = collator(copies.rows, index)
    batch.pop("labels")
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        last = encoder(**{name: values.to(device) for name, values in batch.items()}, return_dict=True)[0]
    places = torch.from_numpy(copies.places[index]).to(device)
    states: torch.Tensor = last[torch.arange(len(index), device=device), places].float()
    return states


def _log_probs(head: "MaskedHead", states: "torch.Tensor", row: np.ndarray, target: np.ndarray,
               memory_bytes: int) -> np.ndarray:
    """(target,) log probability of word `target` after the state `row`; all words of some states at a time."""
    import torch

    at_once = max(1, memory_bytes // (4 * len(head.decoder)))
    log_probs = np.empty(len(row))
    with torch.no_grad():
        for first in range(0, len(states), at_once):
            scores = head(states[first:first + at_once])
            chosen = np.flatnonzero((row >= first) & (row < first + len(scores)))
            rows = torch.from_numpy(row[chosen] - first).to(scores.device)
            words = torch.from_numpy(target[chosen]).to(scores.device)
            log_probs[chosen] = (scores[rows, words] - scores.logsumexp(dim=-1)[rows]).double().cpu().numpy()
    return log_probs
