"""Cloze over all layers against one full-vocabulary pass per layer and prompt:
`python benchmarks/cloze.py [--facts N]`.

A BERT-base with random weights (12 layers x 768, 30,522 words), templated facts of 6 to 14 tokens. The reference does
what a script per layer does: for every layer, fact after fact, one forward pass with all hidden states, the head on
every token, a softmax over all words, a sort, the place of the object. It runs on a few facts and is extrapolated per
fact. Times are of the processor. Exits with 1 when a rank differs by more than the words whose scores equal the
object's but for rounding, or when the lens is less than 20 times faster.
"""

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from _bars import verdict
from finetrace.lenses.cloze.settings import ClozeSettings
from finetrace.lenses.cloze.states import rank_facts

if TYPE_CHECKING:
    from finetrace.inference.prompts import Prompts
    from finetrace.lenses.cloze.ranking import Ranks

BAR, WORDS, SPECIAL = 20.0, 30_522, 1000
ROUNDING = 1e-3  # of scores in single precision that sum 768 products
CLS, SEP, MASK = 101, 102, 103


def model_and_head() -> tuple[Any, Any]:
    """BERT-base whose random weights are spread enough for different words to win, and its own head."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from finetrace.models.masked_head import masked_head_of

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=WORDS)).eval()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.normal_(std=0.5)
    return model, masked_head_of(model)


def prompts_of(count: int) -> "Prompts":
    """Facts as token ids, one mask each."""
    from finetrace.inference.prompts import Prompts
    from finetrace.models.rows import Encoded

    random = np.random.default_rng(0)
    lengths = random.integers(6, 15, count)
    rows = [[CLS, *random.integers(SPECIAL, WORDS, n - 2).tolist(), SEP] for n in lengths]
    at = np.array([random.integers(1, n - 1) for n in lengths])
    for row, place in zip(rows, at, strict=True):
        row[place] = MASK
    features = {"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows],
                "token_type_ids": [[0] * len(r) for r in rows]}
    gold = random.integers(SPECIAL, WORDS, count)
    encoded = Encoded(features, gold, np.arange(count), lengths)
    return Prompts(encoded, np.arange(count), at, gold, [None] * count, {})


def reference(model: Any, head: Any, prompts: "Prompts", facts: np.ndarray,
              layers: range) -> tuple[np.ndarray, np.ndarray]:
    """(layer, fact) ranks among all words, pass after pass, and how many other words are as good as the object."""
    import torch

    found, near = (np.empty((len(layers), len(facts)), dtype=np.int64) for _ in range(2))
    with torch.no_grad():
        for i, layer in enumerate(layers):
            for j, fact in enumerate(facts):
                batch = {k: torch.tensor([v[fact]]) for k, v in prompts.rows.features.items()}
                states = model.bert(**batch, output_hidden_states=True).hidden_states[layer]
                scores = head(states)[0].log_softmax(dim=-1)[prompts.mask_at[fact]]
                order = scores.argsort(descending=True).tolist()
                found[i, j] = order.index(prompts.gold[fact]) + 1
                near[i, j] = int(((scores - scores[prompts.gold[fact]]).abs() < ROUNDING).sum()) - 1
    return found, near


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--facts", type=int, default=1000, help="facts of the lens")
    parser.add_argument("--reference", type=int, default=10, help="facts of the reference")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    options = parser.parse_args()
    import torch

    from finetrace.models.rows import Collator

    torch.set_num_threads(options.threads)
    (model, head), prompts = model_and_head(), prompts_of(options.facts)
    tokenizer = SimpleNamespace(padding_side="right", pad_token_id=0, pad_token_type_id=0)
    settings = ClozeSettings(top=5, memory_mib=512, batch_tokens=8192, precision="fp32")
    found: dict[str, Ranks] = {}

    def lens() -> None:
        found.update(rank_facts(model.bert, head, prompts, np.arange(SPECIAL, WORDS), {}, ["own"], settings,
                                Collator(tokenizer, side="right")))

    few = np.linspace(0, options.facts - 1, options.reference).round().astype(int)
    layers = range(13)
    reference(model, head, prompts, few[:1], layers)  # wakes the processor
    start = time.process_time()
    expected, near = reference(model, head, prompts, few, layers)
    slow = (time.process_time() - start) / len(few)
    start = time.process_time()
    lens()
    fast = (time.process_time() - start) / options.facts
    apart = np.abs(found["own"].rank_full[:, few] - expected)
    print(f"13 layers x {options.facts:,} facts, {WORDS:,} words, {options.threads} threads: "
          f"{fast * options.facts:.1f} s, {1000 * fast:.1f} ms per fact")
    print(f"one pass per layer and prompt: {slow:.2f} s per fact ({len(few)} facts timed; all would take "
          f"{slow * options.facts / 60:.0f} min); {(apart == 0).sum()} of {apart.size} ranks equal, others "
          f"{apart.max()} apart")
    wrong = int((apart > near).sum())
    return verdict([("ranks that differ beyond rounding", wrong, wrong == 0, "{:.0f}"),
                    (f"times faster (bar {BAR:.0f})", slow / fast, slow / fast >= BAR, "{:.1f}")])


if __name__ == "__main__":
    sys.exit(main())
