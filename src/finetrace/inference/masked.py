"""Hidden states at masked positions only: of cloze prompts, and of texts in which words are masked at random.

One forward pass gives all layers; of a sentence only the masked rows are kept, which are what a masked-word head reads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.inference.extract import layer_states
from finetrace.models.families import layer_count
from finetrace.models.masking import IGNORED, mask_words
from finetrace.models.rows import Collator, Encoded, batches_by_tokens
from finetrace.store.hidden import LayerMajorFile

if TYPE_CHECKING:
    import torch

RATE, REPLACE = 0.15, 0.8  # Devlin et al. 2019, section 3.1
_TOGETHER = 256  # texts whose masks are drawn together


@dataclass(frozen=True)
class MaskedTexts:
    """Texts with masked words.

    rows: token ids, words masked;  starts: (text + 1,) int64, the masked positions of text i are starts[i] up to
    starts[i + 1]; places: (position,) int64, where they are in their row;  targets: (position,) int64,
    the ids that stood there.
    """

    rows: Encoded
    starts: np.ndarray
    places: np.ndarray
    targets: np.ndarray


def mask_texts(texts: list[str], tokenizer: Any, *, max_length: int, inputs: set[str], seed: int,
               embeddings: int | None = None) -> MaskedTexts:
    """Tokenise texts and mask 15 % of their tokens: 80 % of these by the mask token, 10 % by a random word, 10 % stay.

    Texts longer than `max_length` tokens are cut. Masks follow from the seed and the texts. embeddings: of the model;
    tokens beyond them, which some tokenizers have, never stand in for words.
    Raises FinetraceError when no text has a token to mask.
    """
    encoded = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=True)
    special = np.array(tokenizer.all_special_ids)
    words = np.setdiff1d(np.fromiter(tokenizer.get_vocab().values(), np.int64), special)
    words = words[words < (embeddings or len(tokenizer))]
    ids, starts, places, targets = [], [0], [], []
    for number, first in enumerate(range(0, len(texts), _TOGETHER)):
        part = encoded["input_ids"][first:first + _TOGETHER]
        padded = np.full((len(part), max(map(len, part))), tokenizer.pad_token_id, dtype=np.int64)
        for row, ids_of_text in enumerate(part):
            padded[row, :len(ids_of_text)] = ids_of_text
        masked, hidden_ids = mask_words(padded, np.isin(padded, special), tokenizer.mask_token_id, words, RATE, REPLACE,
                                        seeds.generator(seed, "masks", number))
        for row, ids_of_text in enumerate(part):
            at = np.flatnonzero(hidden_ids[row] != IGNORED)
            ids.append(masked[row, :len(ids_of_text)].tolist())
            places.append(at)
            targets.append(hidden_ids[row, at])
            starts.append(starts[-1] + len(at))
    if not starts[-1]:
        raise FinetraceError("none of the texts has a word to mask; choose another corpus")
    features = {k: encoded[k] for k in encoded.keys() if k in inputs} | {"input_ids": ids}
    rows = Encoded(features, np.zeros(len(ids), dtype=np.int64), np.arange(len(ids)), np.array([len(i) for i in ids]))
    return MaskedTexts(rows, np.array(starts), np.concatenate(places), np.concatenate(targets))


def masked_states(model: Any, rows: Encoded, starts: np.ndarray, places: np.ndarray, collator: Collator,
                  batch_tokens: int, bf16: bool = False) -> Iterator[tuple[np.ndarray, "torch.Tensor"]]:
    """States of all layers at given positions, batch after batch, rows of similar length together.

    starts: (row + 1,) int64, the positions of row i are places[starts[i]:starts[i + 1]];  places: (position,) int64,
    counted in their row;  collator: pads on the right, so that places stay;  batch_tokens: tokens of a forward pass
    with their padding. Yields the numbers (n,) of positions and their states (layer, n, dim) float32 on the model's
    device; every position comes once. Raises FinetraceError when a state is not finite:
    comparisons with it would all be false, which is rank 1.
    """
    import torch

    device = next(model.parameters()).device
    for index in batches_by_tokens(rows.lengths, batch_tokens):
        counts = starts[index + 1] - starts[index]
        numbers = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in index])
        if not len(numbers):
            continue
        batch = collator(rows, index)
        batch.pop("labels")
        at = torch.from_numpy(np.repeat(np.arange(len(index)), counts)), torch.from_numpy(places[numbers])
        at = at[0].to(device), at[1].to(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            states = torch.stack([s[at].float()
                                  for s in layer_states(model, {k: v.to(device) for k, v in batch.items()})])
        if not bool(torch.isfinite(states).all()):
            layer, item = (~torch.isfinite(states).all(dim=-1)).nonzero()[0].tolist()
            row = int(index[np.repeat(np.arange(len(index)), counts)[item]])
            raise FinetraceError(f"layer {layer} of row {row} is not finite; the training diverged: lower "
                                 "its learning_rate")
        yield numbers, states


def cache_states(model: Any, texts: MaskedTexts, path: Path, collator: Collator, *, batch_tokens: int, dtype: str,
                 bf16: bool = False, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
    """Write the states of all masked positions to `path`, an .npy file (layer, position, dim) of `dtype`.

    Positions come in the order of the batches: returns their numbers (position,) int64, to reorder the targets.
    on_batch: told the number of positions done. Raises FinetraceError when a state is not finite,
    or too large for `dtype`.
    """
    order, done = [], 0
    with LayerMajorFile(path, layer_count(model.config), len(texts.places), model.config.hidden_size, dtype) as file:
        for numbers, states in masked_states(model, texts.rows, texts.starts, texts.places, collator,
                                             batch_tokens, bf16):
            with np.errstate(over="ignore"):
                block = states.cpu().numpy().astype(dtype)
            if not np.isfinite(block).all():
                raise FinetraceError(f"cloze.dtype: a state holds numbers up to {float(states.abs().max()):.3g}, "
                                     f"too large for {dtype}; set float32")
            file.put(done, block)
            order.append(numbers)
            done += len(numbers)
            if on_batch:
                on_batch(done)
    return np.concatenate(order)
