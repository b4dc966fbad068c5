"""Speed of the neural tangent kernel on a CUDA device: `python benchmarks/kernel_h200.py`.
Needs torch, transformers and numpy.

A random model of BERT-base's shape, 512 examples of 128 random words, 2 classes, float32 without TF32. Says the time,
the peak memory of the device, and the fraction of its float32 peak (67 TFLOPS for an H200; --peak for others). Exits
with 1 when a bar is missed, with 77 without a device.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from _bars import NOT_MEASURED, verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from finetrace.lenses.kernel.ntk import estimate, ntk

BAR_SECONDS, BAR_BYTES = 120.0, 60e9
MEMORY = 45e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peak", type=float, default=67e12, help="float32 operations per second of the device")
    peak = parser.parse_args().peak
    if not torch.cuda.is_available():
        print("not measured: no CUDA device here")
        return NOT_MEASURED
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model: Any = BertForSequenceClassification(BertConfig())  # two classes: the default
    model = model.eval().cuda()
    ids = torch.randint(1000, 30000, (512, 128))
    batches = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(32)]
    ntk(model, [{k: v[:4] for k, v in batches[0].items()}], parameters="all")  # libraries
    cost = estimate(model, batches, parameters="all", memory_bytes=MEMORY)
    print(f"{torch.cuda.get_device_name()}: {cost.passes} passes, {cost.operations / 1e12:.0f} TFLOP; estimated "
          f"{cost.seconds:.0f} s and {cost.bytes / 1e9:.0f} GB")
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    kernel = ntk(model, batches, parameters="all", memory_bytes=MEMORY)
    took = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated()
    print(f"  {took:.1f} s, {100 * cost.operations / took / peak:.0f} % of the float32 peak")
    few = [{k: v[:4] for k, v in batches[0].items()}]
    exact = ntk(model, few, parameters="all", dtype=torch.float64).full
    off = abs(kernel.full[:4, :, :4] - exact).max() / abs(exact).max()
    return verdict([
        (f"under {BAR_SECONDS:.0f} s", took, took < BAR_SECONDS, "{:.1f} s"),
        (f"peak memory under {BAR_BYTES / 1e9:.0f} GB", memory / 1e9, memory < BAR_BYTES, "{:.1f} GB"),
        ("as in float64, to 1e-4", off, bool(off < 1e-4), "{:.1e}"),
    ])


if __name__ == "__main__":
    sys.exit(main())
