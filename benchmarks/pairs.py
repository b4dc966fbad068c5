"""Minimal pairs in batches of distinct masked copies against one masked sentence at a time:
`python benchmarks/pairs.py [--pairs N]`.

A BERT of 4 layers x 256 with random weights and 30,522 words; pairs of 8 to 24 tokens that differ in one, as BLiMP's
do. The reference is the plain one: for every token of every sentence a copy, a pass through the whole model with its
masked-word head, log probabilities of all words, the one that is meant. It runs on a few sentences and is extrapolated
per scored token. Times are of the processor. Exits with 1 when a score differs by more than single precision explains,
or when the lens is less than 4 times faster.
"""

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from _bars import verdict
from finetrace.inference.pseudo_likelihood import Sentences, count_copies, pseudo_log_likelihoods

BAR, WORDS, SPECIAL = 4.0, 30_522, 1000
CLS, SEP, MASK = 101, 102, 103
CLOSE = 1e-5  # of a score, relative


def model_of() -> Any:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=WORDS, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
                                      intermediate_size=1024)).eval()


def sentences_of(pairs: int) -> Sentences:
    """Good and bad sentences one after the other; each differs from its neighbour in one token, of one piece."""
    from finetrace.models.rows import Encoded

    random = np.random.default_rng(0)
    rows: list[list[int]] = []
    for length in random.integers(8, 25, pairs).tolist():
        good = random.integers(SPECIAL, WORDS, length)
        bad = good.copy()
        bad[random.integers(length)] = random.integers(SPECIAL, WORDS)
        rows += [[CLS, *good.tolist(), SEP], [CLS, *bad.tolist(), SEP]]
    features = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows],
                "token_type_ids": [[0] * len(row) for row in rows]}
    lengths = np.array([len(row) for row in rows])
    encoded = Encoded(features, np.zeros(len(rows), dtype=np.int64), np.arange(len(rows)), lengths)
    return Sentences(encoded, [np.array([-1, *range(len(row) - 2), -1]) for row in rows])


def reference(model: Any, sentences: Sentences, chosen: np.ndarray) -> np.ndarray:
    """(chosen,) scores, one masked sentence at a time."""
    import torch

    found = np.zeros(len(chosen))
    with torch.no_grad():
        for place, sentence in enumerate(chosen):
            ids = torch.tensor([sentences.rows.features["input_ids"][sentence]])
            for at in range(1, ids.shape[1] - 1):
                masked = ids.clone()
                masked[0, at] = MASK
                found[place] += float(model(input_ids=masked).logits[0, at].log_softmax(-1)[ids[0, at]])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=100, help="pairs of the lens")
    parser.add_argument("--reference", type=int, default=10, help="sentences of the reference")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    options = parser.parse_args()
    import torch

    from finetrace.models.masked_head import masked_head_of
    from finetrace.models.rows import Collator

    torch.set_num_threads(options.threads)
    model, sentences = model_of(), sentences_of(options.pairs)
    collator = Collator(SimpleNamespace(padding_side="right", pad_token_id=0, pad_token_type_id=0), side="right")
    head = masked_head_of(model)
    few = np.linspace(0, len(sentences) - 1, options.reference).round().astype(int)
    reference(model, sentences, few[:1])  # wakes the processor
    start = time.process_time()
    expected = reference(model, sentences, few)
    slow = (time.process_time() - start) / int(sentences.tokens[few].sum())
    start = time.process_time()
    found = pseudo_log_likelihoods(model.bert, head, sentences, MASK, collator, batch_tokens=8192)
    fast = (time.process_time() - start) / int(sentences.tokens.sum())
    copies, _ = count_copies(sentences, MASK)
    apart = float(np.max(np.abs(found[few] / expected - 1)))
    print(f"{options.pairs:,} pairs, {int(sentences.tokens.sum()):,} scored tokens on {copies:,} copies, "
          f"{options.threads} threads: {1000 * fast:.2f} ms per token; one by one {1000 * slow:.2f} ms "
          f"({len(few)} sentences timed)")
    return verdict([("largest relative difference of a score", apart, apart <= CLOSE, "{:.1e}"),
                    (f"times faster (bar {BAR:.0f})", slow / fast, slow / fast >= BAR, "{:.1f}")])


if __name__ == "__main__":
    sys.exit(main())
