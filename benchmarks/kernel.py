"""Speed of the neural tangent kernel: `python benchmarks/kernel.py [--big]`.

A random model of MiniLM's shape (6 layers x 384, 12 heads, 1,536, 30,522 words), random words. References, for 64
examples of 128 tokens and 2 classes: (1) the published way: for each example and each group of parameters
(word embeddings, other embeddings, each attention block, the rest of each layer) one backward pass per feature, 384 of
them, a tenth for the word embeddings; measured on two features of one example per group and multiplied up, without the
products that follow; (2) one gradient per example and class by autograd, kept as rows of a matrix, and its Gram matrix
in float64, as float32 sums of so many terms lose half the digits; measured on a few examples and on some columns, and
multiplied up. What (2) gives is compared with the kernel. --big: also 250 examples x 64 tokens, 3 classes: time and
peak memory, in a process of its own. Exits with 1 when a bar is missed.
"""

import argparse
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _bars import seconds, verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from finetrace.lenses.kernel.ntk import estimate, ntk

BAR_PUBLISHED, BAR_AUTOGRAD = 1000.0, 5.0
BAR_SECONDS, BAR_BYTES = 300.0, 4e9
SLICE, FEATURES, COLUMNS = 6, 2, 2**20


def minilm(classes: int) -> Any:
    """A classifier of MiniLM's shape with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    shape.num_labels = classes
    return BertForSequenceClassification(shape).eval()


def batches(examples: int, tokens: int, size: int) -> list[dict[str, torch.Tensor]]:
    """Random words without padding: the longest case."""
    ids = torch.randint(1000, 30000, (examples, tokens), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(size)]


def by_autograd(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, np.ndarray]:
    """Seconds per example of one gradient per class, and the kernel of these examples."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    count, classes = len(inputs["input_ids"]), model.config.num_labels
    rows = torch.empty(count * classes, sum(p.numel() for p in parameters)).fill_(0)
    start = time.perf_counter()
    for n in range(count):
        logits = model(**{k: v[n:n + 1] for k, v in inputs.items()}).logits[0]
        for c in range(classes):
            gs = torch.autograd.grad(logits[c], parameters, retain_graph=c + 1 < classes, allow_unused=True)
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten()
                       for g, p in zip(gs, parameters, strict=True)],
                      out=rows[n * classes + c])
    took = (time.perf_counter() - start) / count
    total = sum(part.double() @ part.double().T for part in rows.split(COLUMNS, dim=1))
    return took, total.numpy().reshape(count, classes, count, classes)


def gram_seconds(logits: int, entries: int) -> tuple[float, float]:
    """Seconds for the product of a matrix (logit, entry) with itself, from some of its columns: in float32 and, to be
    as exact as the kernel, in float64."""
    some = torch.randn(logits, COLUMNS)
    single = seconds(lambda: some @ some.T, repeats=3)
    return single * entries / COLUMNS, seconds(lambda: some.double() @ some.double().T, repeats=2) * entries / COLUMNS


def gradients(features: torch.Tensor, parameters: list[torch.nn.Parameter]) -> None:
    """One backward pass per feature."""
    for feature in features:
        torch.autograd.grad(feature, parameters, retain_graph=True)


def published_seconds(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    """Seconds per example of the Jacobians of all features, group by group."""
    groups: dict[str, list[torch.nn.Parameter]] = {}
    for name, p in model.bert.named_parameters():
        layer = ".".join(name.split(".")[:3])
        part = ("words" if "word" in name else "embeddings") if name.startswith("embeddings") else (
            layer + (".attention" if "attention" in name else ".rest") if "layer" in name else "")
        groups.setdefault(part, []).append(p)
    groups.pop("", None)  # the pooler
    total, dim = 0.0, model.config.hidden_size
    for name, parameters in groups.items():
        model.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        features = model.bert(**inputs).last_hidden_state[0, 0]
        torch.autograd.grad(features[0], parameters, retain_graph=True)
        took = seconds(partial(gradients, features[:FEATURES], parameters))
        total += took / FEATURES * dim * (0.1 if name == "words" else 1)
    model.requires_grad_(True)
    return total


def big() -> int:
    """250 examples x 64 tokens, 3 classes, in this process."""
    model, inputs = minilm(3), batches(250, 64, 16)
    expected = estimate(model, inputs, parameters="all")
    start = time.perf_counter()
    ntk(model, inputs, parameters="all")
    took = time.perf_counter() - start
    print(expected.passes, expected.seconds, expected.bytes, took,
          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--big", action="store_true", help="also 250 examples x 64 tokens, 3 classes")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        return big()
    if options.big:  # first: a child's peak memory is never below its parent's at that time
        out = subprocess.run([sys.executable, __file__, "--alone"], check=True, capture_output=True,
                             text=True).stdout.split()
    examples, tokens, classes = 64, 128, 2
    print(f"{examples} x {tokens} tokens, {classes} classes, {torch.get_num_threads()} threads")
    model, inputs = minilm(classes), batches(examples, tokens, 16)
    few = {k: v[:SLICE] for k, v in inputs[0].items()}
    ntk(model, [few], parameters="all")  # imports, and the memory's first use
    expected_seconds = estimate(model, inputs, parameters="all", memory_bytes=4e9).seconds
    start = time.perf_counter()
    kernel = ntk(model, inputs, parameters="all", memory_bytes=4e9)
    own = time.perf_counter() - start
    per_example, expected = by_autograd(model, few)
    off = np.abs(kernel.full[:SLICE, :, :SLICE] - expected).max() / np.abs(expected).max()
    rough, gram = gram_seconds(examples * classes, sum(p.numel() for p in model.parameters()))
    autograd = per_example * examples + gram
    published = published_seconds(model, {k: v[:1] for k, v in inputs[0].items()}) * examples
    print(f"  kernel {own:.2f} s (estimated {expected_seconds:.2f} s)")
    print(f"  gradients by autograd {autograd:.1f} s: {per_example:.3f} s x {examples} examples (from "
          f"{SLICE}), products {gram:.1f} s in float64, {rough:.1f} s in float32 (from {COLUMNS:,} columns)")
    print(f"  published way {published:,.0f} s (from {FEATURES} of {model.config.hidden_size} features, one "
          "example, each group)")
    bars = [("as by autograd, to 1e-5", off, bool(off < 1e-5), "{:.1e}"),
            (f"published way: {BAR_PUBLISHED:,.0f} times", published / own, published / own >= BAR_PUBLISHED,
             "{:,.0f} times"),
            (f"single gradients: {BAR_AUTOGRAD:.0f} times", autograd / own, autograd / own >= BAR_AUTOGRAD,
             "{:.1f} times")]
    if options.big:
        took, peak = float(out[-2]), float(out[-1])
        print(f"250 x 64 tokens, 3 classes; {out[-5]} passes, estimated {float(out[-4]):.0f} s and "
              f"{float(out[-3]) / 1e9:.1f} GB")
        bars += [(f"under {BAR_SECONDS:.0f} s", took, took < BAR_SECONDS, "{:.0f} s"),
                 (f"peak memory of the process under {BAR_BYTES / 1e9:.0f} GB", peak / 1e9, peak < BAR_BYTES,
                  "{:.2f} GB")]
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
