"""python benchmarks/hidden.py [--model FOLDER --data FILE.parquet] -- hidden states of all layers, examples per second.

Reference, in the same run: batches of 4, every example padded to 512 tokens, arrays grown by concatenation
(how the French study extracted them). Ours: batches of similar length under a token budget, streamed to disk. Bar: 8
times the throughput, the same numbers to 1e-5, and memory that does not grow with the number of examples. Without
arguments: a BERT of MiniLM's size (6 layers x 384) with random weights, and examples as long as SST-2's sentences. The
reference runs on the first examples only.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertModel

from finetrace.inference.extract import extract, layer_states
from finetrace.models.device import device_name, quiet, use_bf16
from finetrace.models.load import forward_names, load_encoder, load_tokenizer
from finetrace.models.rows import Collator, Encoded, encode
from finetrace.store.manifest import peak_memory_bytes

BAR, PADDED = 8.0, 512
REPEATS = (1, 2, 4)  # the same examples, then several times as many: memory must stay


def synthetic(count: int) -> tuple[Any, Encoded, Any]:
    """A model of MiniLM's size and rows of 5 to 60 tokens (SST-2's sentences: mean 25)."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                 intermediate_size=1536)).eval()
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.gamma(4.0, 6.3, size=count), 5, 60).astype(int)
    ids = [generator.integers(1000, 30000, size=n).tolist() for n in lengths]
    features = {"input_ids": ids, "attention_mask": [[1] * n for n in lengths]}
    rows = Encoded(features, np.zeros(count, np.int64), np.arange(count), lengths)
    return model, rows, SimpleNamespace(padding_side="right", pad_token_id=0, pad_token_type_id=0)


def reference(model: Any, rows: Encoded, tokenizer: Any, count: int) -> tuple[float, np.ndarray]:
    """Examples per second and [CLS] states (layer, example, dim) of the plain way."""
    device = next(model.parameters()).device
    grown, begun = None, time.perf_counter()
    with torch.no_grad():
        for start in range(0, count, 4):
            index = range(start, min(start + 4, count))
            batch = Collator(tokenizer, PADDED)(rows, index)
            batch.pop("labels")
            states = layer_states(model, {k: v.to(device) for k, v in batch.items()})
            cls = np.stack([s[:, 0].cpu().numpy() for s in states])
            grown = cls if grown is None else np.concatenate([grown, cls], axis=1)
    assert grown is not None
    return count / (time.perf_counter() - begun), grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--reference-rows", type=int, default=24)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32")
    options = parser.parse_args()
    quiet()
    if options.model:
        model, tokenizer = load_encoder(options.model), load_tokenizer(options.model)
        rows = encode(options.data, tokenizer, PADDED, forward_names(model) | {"attention_mask"}, rows=None)
        rows = rows.take(range(min(options.rows, len(rows))))
    else:
        model, rows, tokenizer = synthetic(options.rows)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device_name()}: {len(rows)} examples, mean {rows.lengths.mean():.1f} tokens")
    plain, wanted = reference(model, rows, tokenizer, min(options.reference_rows, len(rows)))
    print(f"batches of 4 padded to {PADDED}, concatenated: {plain:8.1f} examples/s")
    collator, peaks, rate = Collator(tokenizer), [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for repeat in REPEATS:
            many = rows.take(list(range(len(rows))) * repeat)
            offsets = np.cumsum(many.lengths) - many.lengths
            begun = time.perf_counter()
            extract(model, many, collator, Path(folder), vectors=["cls", "mean"], offsets=offsets, dtype="float32",
                    batch_tokens=options.batch_tokens, bf16=use_bf16(options.precision))
            rate = max(rate, len(many) / (time.perf_counter() - begun))
            peaks.append(peak_memory_bytes() / 2**20)
        written = sum(f.stat().st_size for f in Path(folder).iterdir()) / 2**20
        error = np.abs(np.load(Path(folder) / "cls.npy")[:, :wanted.shape[1]] - wanted).max()
    print(f"by length, {options.batch_tokens} tokens at a time, to disk: {rate:8.1f} examples/s (all "
          f"tokens, cls, mean; {options.precision})")
    print(f"ratio {rate / plain:.1f} (bar {BAR:.0f});  largest difference {error:.1e};  peak memory after "
          f"{', '.join(f'{n * len(rows):,} examples {p:.0f} MiB' for n, p in zip(REPEATS, peaks, strict=True))} "
          f"({written:.0f} MiB written)")
    good = rate / plain >= BAR and (error < 1e-5 or options.precision != "fp32")
    print("bar met" if good else "bar NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
