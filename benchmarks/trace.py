"""python benchmarks/trace.py -- what TraceCallback costs a Trainer, measured beside the same Trainer without it.

Trainings with and without take turns, in processor time on a CPU and in wall time on a GPU. Bar: at most 2 % of the
step time for what happens at every step, the write to disk included; on a CPU the verdict is on the time spent inside
the calls, as the difference is mostly noise on a shared machine. Looks and weights, which come on a schedule, are
measured apart.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import finetrace
from finetrace.models.device import device_name, quiet
from finetrace.training import tagging
from finetrace.training.trace import Trace
from finetrace.training.trace_recorder import TraceRecorder

BAR = 0.02
EVERY_STEP = ((Trace, "end_micro_batch"), (Trace, "before_update"), (Trace, "_remember_answer"),
              (TraceRecorder, "flush"), (tagging, "tag_of"))
CASES = {"micro-BERT, 4 layers x 64, batch 16 x 24 tokens": (4, 64, 4, 16, 24, 100, 3),
         "MiniLM size, 6 layers x 384, batch 16 x 64 tokens": (6, 384, 12, 16, 64, 8, 3)}
"""Name -> layers, width, heads, rows and tokens of a batch, steps, repeats."""


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Random texts of one length."""

    def __init__(self, rows: int, tokens: int):
        generator = np.random.default_rng(0)
        self.ids = torch.from_numpy(generator.integers(5, 1000, (rows, tokens)))
        self.labels = generator.integers(0, 2, rows).tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids = self.ids[row]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self.labels[row]}


class Inside:
    """Adds up the time spent in functions of the trace."""

    def __init__(self, now: Callable[[], float]):
        self.now, self.seconds = now, 0.0
        for owner, name in EVERY_STEP:
            setattr(owner, name, timed_by(self, getattr(owner, name)))


def timed_by(inside: Inside, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its time added up."""
    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = inside.now()
        try:
            return function(*args, **kwargs)
        finally:
            inside.seconds += inside.now() - begun
    return timed


def train(case: tuple[int, ...], now: Callable[[], float], callbacks: list[Any], folder: str) -> float:
    """Seconds of one training."""
    layers, width, heads, batch, tokens, steps, _ = case
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=1000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width))
    trainer = Trainer(model, TrainingArguments(
        folder, per_device_train_batch_size=batch, max_steps=steps, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available()),
        train_dataset=Rows(batch * steps, tokens), callbacks=callbacks)
    begun = now()
    trainer.train()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return now() - begun


def measure(name: str, case: tuple[int, ...], inside: Inside, on_gpu: bool) -> bool:
    """Train by turns without a trace, with one of the steps alone, and with looks and weights; say whether the bar is
    met."""
    modes: dict[str, dict[str, Any] | None] = {"without": None, "steps": {"probe": "none", "checkpoints": "none"},
                                               "all": {}}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    spent = []
    for repeat in range(-1, case[-1]):  # the first is a warm-up
        for mode, options in modes.items():
            with tempfile.TemporaryDirectory() as folder:
                callbacks = [] if options is None else [finetrace.TraceCallback(Path(folder) / "trace", **options)]
                inside.seconds = 0.0
                took = train(case, inside.now, callbacks, folder)
            if repeat >= 0:
                seconds[mode].append(took)
                spent += [inside.seconds / (took - inside.seconds)] if mode == "steps" else []
    base = statistics.median(seconds["without"])
    ratios = {mode: statistics.median(b / a for a, b in zip(seconds["without"], found, strict=True))
              for mode, found in seconds.items()}
    cost = ratios["steps"] - 1 if on_gpu else statistics.median(spent)
    print(f"{name}: {1000 * base / case[-2]:.2f} ms per step without; with / without: steps {ratios['steps']:.3f}, "
          f"looks and weights too {ratios['all']:.3f}")
    print(f"  at every step {100 * cost:.2f} % (bar {100 * BAR:.0f} %): {'PASS' if cost <= BAR else 'FAIL'}")
    return cost <= BAR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, not three times")
    quick = parser.parse_args().quick
    quiet()
    on_gpu = torch.cuda.is_available()
    inside = Inside(time.perf_counter if on_gpu else time.process_time)
    print(f"device: {device_name()}, torch {torch.__version__}")
    cases = {name: (*case[:-1], 1) if quick else case for name, case in CASES.items()}
    passed = [measure(name, case, inside, on_gpu) for name, case in cases.items()]
    print("PASS" if all(passed) else "FAIL")
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
