"""One forward pass per batch gives all layers; they go straight to disk."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.models.families import layer_count, sentence_position
from finetrace.models.rows import Collator, Encoded, batches_by_tokens
from finetrace.models.vectors import sentence_vectors, span_vectors
from finetrace.store.hidden import LayerMajorFile

log = logging.getLogger(__name__)


def layer_states(model: Any, batch: dict[str, Any]) -> list[Any]:
    """All hidden states of a batch: L + 1 tensors (example, token, dim), layer 0 the embedding output.

    batch: the encoder's inputs, with `attention_mask`.
    Raises FinetraceError when the model gives another number of states.
    """
    states = model(**batch, output_hidden_states=True, return_dict=True).hidden_states
    if len(states) != layer_count(model.config):
        raise FinetraceError(f"{model.config.model_type}: gives {len(states)} hidden states instead of "
                             f"{layer_count(model.config)}; declare in finetrace/models/families.py how its "
                             "layers are counted")
    return list(states)


def extract(model: Any, rows: Encoded, collator: Collator, out: Path, *, vectors: list[str], offsets: np.ndarray,
            dtype: str, batch_tokens: int, bf16: bool = False, on_batch: Callable[[int], None] | None = None) -> None:
    """Write `out/{cls,mean,tokens}.npy` of one checkpoint; for a task of words `out/span.npy` instead of cls and mean.

    vectors: cls and/or mean;  offsets: (row,) int64, where a row's tokens begin in the token axis, -1 for those whose
    tokens are not kept;  on_batch: told the number of rows done. Results do not depend on padding beyond rounding,
    memory does not grow with the number of examples. Raises FinetraceError when a state is not finite.
    """
    import torch

    device = next(model.parameters()).device
    layers, dim = layer_count(model.config), model.config.hidden_size
    position, token_count, done = sentence_position(model.config), int((rows.lengths * (offsets >= 0)).sum()), 0
    spans = rows.targets.pieces.shape[1] if rows.targets else 0
    kinds, width = (["span"], spans * dim) if spans else (vectors, dim)
    with ExitStack() as stack, torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        files = {kind: stack.enter_context(LayerMajorFile(out / f"{kind}.npy", layers, len(rows.labels), width, dtype))
                 for kind in kinds}
        if token_count:
            files["tokens"] = stack.enter_context(LayerMajorFile(out / "tokens.npy", layers, token_count, dim, dtype))
        for index in batches_by_tokens(rows.lengths, batch_tokens):
            batch = collator(rows, index)
            batch.pop("labels")
            batch = {k: v.to(device) for k, v in batch.items()}
            mask, examples = batch["attention_mask"], rows.examples(index)
            weights, slots = batch.pop("spans", None), batch.pop("slots", None)
            states = [s.float() for s in layer_states(model, batch)]
            for kind in kinds:
                if kind == "span":
                    block = torch.stack([span_vectors(s, weights, slots, spans) for s in states])
                else:
                    block = torch.stack([sentence_vectors(s, mask, position if kind == "cls" else "mean")
                                         for s in states])
                _write(files[kind], examples, _checked(block.cpu().numpy(), rows, examples, dtype))
            for place, row in enumerate(index):
                if offsets[row] >= 0:
                    block = torch.stack([s[place][mask[place].bool()] for s in states])
                    first = rows.examples([int(row)])[:1]
                    files["tokens"].put(int(offsets[row]), _checked(block.cpu().numpy(), rows, first, dtype))
            done += len(index)
            if on_batch:
                on_batch(done)


def _write(file: LayerMajorFile, examples: np.ndarray, block: np.ndarray) -> None:
    """Write block (layer, example, dim) to the places `examples`, neighbours together."""
    ends = np.flatnonzero(np.diff(examples, append=examples[-1]) != 1) + 1
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        file.put(int(examples[start]), block[:, start:end])


def _checked(block: np.ndarray, rows: Encoded, examples: np.ndarray, dtype: str) -> np.ndarray:
    """The block in the type of the disk, or an error that names the example."""
    with np.errstate(over="ignore"):
        stored = block.astype(dtype)
    if not np.isfinite(stored).all():
        layer, item = np.argwhere(~np.isfinite(stored).all(axis=-1))[0]
        example = int(rows.example_ids[examples[min(int(item), len(examples) - 1)]])
        if np.isfinite(block).all():
            raise FinetraceError(f"hidden.dtype: layer {layer} of example {example} holds numbers up to "
                                 f"{np.abs(block).max():.3g}, too large for {dtype}; set float32")
        raise FinetraceError(f"layer {layer} of example {example} is not finite; the training diverged: lower "
                             "train.learning_rate")
    return stored
