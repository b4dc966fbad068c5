"""python benchmarks/first_look.py [MODEL MODEL] -- seconds of `finetrace look` on two models of MiniLM's size.

Without arguments, two BERTs of MiniLM's shape (6 layers, 384 wide, 22.7 million parameters) with random weights and a
vocabulary of 30,522 made-up words, on 1,000 made-up sentences: no network is needed, and time does not depend on what
weights say, but for the hull probe, which takes longest where classes overlap. 200 rows of train and of validation,
all lenses; a process of its own, start of Python included. Exits with 1 when the bar is missed. On a machine
that is busy with other work the processor time, printed beside, says more than the clock.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _bars import verdict

ROOT = Path(__file__).parents[1]
BAR_SECONDS = 60.0  # on two cores
WORDS, SENTENCES, LONGEST = 30_000, 1_000, 24


def make_model(folder: Path, seed: int) -> Path:
    """A BERT of MiniLM's shape with random weights, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = {word: number for number, word in enumerate([*special, *(f"w{i}" for i in range(WORDS))])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                            sep_token="[SEP]", mask_token="[MASK]").save_pretrained(folder)
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                         intermediate_size=1536)).save_pretrained(folder)
    return folder


def make_rows(path: Path) -> Path:
    """Sentences of two classes, which differ in the words that they prefer."""
    import numpy as np

    random = np.random.default_rng(0)
    lines = ["text,label"]
    for number in range(SENTENCES):
        words = (random.zipf(1.3, random.integers(4, LONGEST)) * 2 + number % 2 * random.integers(0, 2)) % WORDS
        lines.append(f"{' '.join(f'w{word}' for word in words)},{('no', 'yes')[number % 2]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = sys.argv[1:] or [str(make_model(folder / f"model-{number}", number)) for number in range(2)]
        rows = make_rows(folder / "rows.csv")
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "finetrace.cli", "look", *models, "--task", str(rows), "--rows", "200",
                        "--out", str(folder / "out")], check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
        seconds = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{seconds:.1f} s by the clock, {cpu:.1f} s of processor, load {os.getloadavg()[0]:.1f}")
    return verdict([(f"finetrace look, {len(models)} models, bar {BAR_SECONDS:.0f} s", seconds,
                     seconds < BAR_SECONDS, "{:.1f} s")])


if __name__ == "__main__":
    sys.exit(main())
