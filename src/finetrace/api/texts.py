"""The hidden states of texts, without a study."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetrace.errors import FinetraceError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TextStates:
    """The hidden states of some texts. Layer 0 is the embeddings, layer l the output of layer l."""

    cls: "np.ndarray"
    """(layer, text, dim) float32: the token that a classifier reads."""
    mean: "np.ndarray"
    """(layer, text, dim) float32: the mean over a text's tokens, special ones included."""
    tokens: "list[np.ndarray]"
    """Per text (layer, token, dim) float32."""
    words: list[list[str]]
    """Per text its tokens, special ones included."""


def hidden_states(model: str | Path, texts: Iterable[str], *, max_length: int = 128) -> TextStates:
    """What a model makes of texts, in all layers.

    Args:
        model: folder of a model or of a checkpoint, or hub id, perhaps with `@REVISION`; safetensors only.
        texts: one or more.
        max_length: longest input in tokens; what is beyond is cut.

    Returns:
        The states, as the lenses of a study see them: evaluation mode, float32.

    Raises:
        FinetraceError: no texts, no such model, or one that cannot be loaded.
    """
    import numpy as np

    from finetrace.first_look.sources import find_models
    from finetrace.inference.extract import extract
    from finetrace.models.device import fit_threads
    from finetrace.models.load import forward_names, load_tokenizer, longest_input
    from finetrace.models.rows import Collator, encode
    from finetrace.models.saved import load_trained_encoder
    from finetrace.store.arrays import read_array
    from finetrace.store.tables import write_table

    if not isinstance(model, str | Path):
        raise FinetraceError(f"model: {model!r} is neither a folder nor a hub id")
    if not isinstance(max_length, int) or max_length < 1:
        raise FinetraceError(f"max_length: {max_length!r} is no number of tokens, 1 or more")
    texts = [] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise FinetraceError("texts: give a list of one or more texts")
    if broken := [number for number, text in enumerate(texts) if any("\ud800" <= char <= "\udfff" for char in text)]:
        raise FinetraceError(f"texts: number {broken[0]} holds half of a character (a lone surrogate), which no file "
                             "can; take it out")
    with tempfile.TemporaryDirectory(prefix="finetrace-texts-") as folder:
        scratch = Path(folder)
        (source,) = find_models([str(model)], scratch)
        tokenizer, encoder = load_tokenizer(source.base), load_trained_encoder(source.folder, source.base)
        fit_threads(encoder.num_parameters())
        write_table(scratch / "texts.parquet", _table(texts))
        rows = encode(scratch / "texts.parquet", tokenizer, longest_input(encoder, tokenizer, max_length),
                      forward_names(encoder) | {"attention_mask"})
        ends = np.cumsum(rows.lengths)
        (scratch / "out").mkdir()
        extract(encoder, rows, Collator(tokenizer, side="right"), scratch / "out", vectors=["cls", "mean"],
                offsets=ends - rows.lengths, dtype="float32", batch_tokens=4096)
        arrays = {kind: np.array(read_array(scratch / "out" / f"{kind}.npy")) for kind in ("cls", "mean", "tokens")}
    return TextStates(arrays["cls"], arrays["mean"], np.split(arrays["tokens"], ends[:-1], axis=1),
                      [tokenizer.convert_ids_to_tokens(ids) for ids in rows.features["input_ids"]])


def _table(texts: Sequence[str]) -> dict[str, object]:
    """The texts as a split of a task."""
    import pyarrow as pa

    count = len(texts)
    return {"example_id": pa.array(range(count), pa.int64()), "text_a": pa.array(list(texts), pa.string()),
            "text_b": pa.array([None] * count, pa.string()), "label": pa.array([0] * count, pa.int32())}
