"""Speed of the lens influence: `python benchmarks/influence.py`.

A random model of MiniLM's shape (see kernel.py), random words; 64 training and 32 evaluation examples of 128 tokens, 2
classes. Two references: the kernel of the same examples, which influence must not cost more than 1.5 times of, and one
backward pass per example by autograd, whose gradients are multiplied as whole vectors, measured on a few examples and
multiplied up. What the second gives is compared with influence. Exits with 1 when a bar is missed.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from _bars import seconds, verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from finetrace.lenses.influence.losses import truths_of, with_truths
from finetrace.lenses.influence.products import estimate, loss_products, prepare
from finetrace.lenses.kernel.ntk import ntk
from kernel import batches, minilm

BAR_KERNEL, BAR_EXACT = 1.5, 1e-5
TRAIN, EVAL, TOKENS, CLASSES, FEW = 64, 32, 128, 2, 6
MEMORY = 4e9


def labelled(plain: list[dict[str, torch.Tensor]], seed: int) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Batches with random labels, and these."""
    draw = np.random.default_rng(seed)
    labels = [draw.integers(0, CLASSES, len(batch["input_ids"])) for batch in plain]
    return [with_truths(b, truths_of(y, "class", CLASSES)) for b, y in zip(plain, labels, strict=True)], labels


def by_autograd(model: Any, batch: dict[str, torch.Tensor], labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds per example of one gradient of its loss, and the products of all pairs of these examples."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    start, rows = time.perf_counter(), []
    for n, label in enumerate(labels):
        logits = model(**{k: v[n:n + 1] for k, v in batch.items()}).logits
        loss = F.cross_entropy(logits, torch.tensor([label]))
        gs = torch.autograd.grad(loss, parameters, allow_unused=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten()
                               for g, p in zip(gs, parameters, strict=True)]))
    took = (time.perf_counter() - start) / len(labels)
    every = torch.stack(rows)
    total = sum(part.double() @ part.double().T for part in every.split(2**20, dim=1))
    return took, total.numpy()


def main() -> int:
    print(f"{TRAIN} training and {EVAL} evaluation examples x {TOKENS} tokens, {CLASSES} classes, "
          f"{torch.get_num_threads()} threads")
    model = minilm(CLASSES)
    plain, other = batches(TRAIN, TOKENS, 16), batches(EVAL, TOKENS, 16)
    (train, labels), (evaluated, _) = labelled(plain, 0), labelled(other, 1)
    few = {k: v[:FEW] for k, v in plain[0].items()}
    some = with_truths(few, truths_of(labels[0][:FEW], "class", CLASSES))
    exact = loss_products(model, [some], [some], parameters="all")  # also imports, and the memory's first use
    per_example, expected = by_autograd(model, few, labels[0][:FEW])
    found = np.sum(list(exact.pairs.values()), axis=0)
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    expected_cost = estimate(prepare(model, train, evaluated, parameters="all", memory=MEMORY))
    own = seconds(lambda: loss_products(model, train, evaluated, parameters="all", memory_bytes=MEMORY), repeats=2)
    kernel = seconds(lambda: ntk(model, plain, other, parameters="all", memory_bytes=MEMORY, groups=True), repeats=2)
    autograd = per_example * (TRAIN + EVAL)
    print(f"  influence {own:.2f} s (estimated {expected_cost.seconds:.2f} s, {expected_cost.bytes / 1e9:.1f} GB)")
    print(f"  kernel {kernel:.2f} s")
    print(f"  gradients by autograd {autograd:.1f} s: {per_example:.3f} s x {TRAIN + EVAL} examples (from {FEW}), "
          f"their products not counted: {autograd / own:.1f} times influence; they take "
          f"{4 * sum(p.numel() for p in model.parameters()) * (TRAIN + EVAL) / 1e9:.0f} GB")
    print(f"  peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")
    return verdict([
        (f"as by autograd, to {BAR_EXACT:.0e}", off, off < BAR_EXACT, "{:.1e}"),
        (f"at most {BAR_KERNEL} times the kernel", own / kernel, own <= BAR_KERNEL * kernel, "{:.2f} times")])


if __name__ == "__main__":
    sys.exit(main())
