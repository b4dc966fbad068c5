"""python benchmarks/recording.py -- what recording every step costs, measured beside the same training without it.

Recording on and off take turns, warm-up steps are not counted, the write to disk is. Bar: at most 3 % of the step time.
On a GPU the verdict is on the difference of the wall times. On a CPU, where a call returns when its work is done, it is
on the time spent inside the recording calls: the difference is printed too, but on a shared machine it is mostly noise.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

from finetrace.config.training import TrainSettings
from finetrace.models.device import device_name, quiet, set_up
from finetrace.models.rows import Collator, Encoded
from finetrace.training import recorder as recorder_module
from finetrace.training.finetune import make_batch, make_plan
from finetrace.training.losses import cross_entropy_of
from finetrace.training.recorder import Recorder
from finetrace.training.trainer import Hooks, RecordingTrainer, _Tap

BAR = 0.03
WARM_UP = 3
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, from the makers' data sheets


@dataclass(frozen=True)
class Case:
    """A model and a batch; steps and repeats say how long to measure."""

    name: str
    layers: int
    width: int
    heads: int
    batch: int
    tokens: int
    steps: int
    repeats: int
    precision: str = "fp32"

    def flops(self) -> float:
        """Forward and backward pass of one sequence through the encoder: 6 per weight and token,
        and the attention scores."""
        weights = self.layers * 12 * self.width**2
        return 6 * weights * self.tokens + self.layers * 12 * self.tokens**2 * self.width


class Clock(TrainerCallback):
    """Times the steps after the warm-up, the flush of the recorder included."""

    def __init__(self, now: Callable[[], float], last: int, recorder: Recorder | None):
        self.now, self.last, self.recorder = now, last, recorder
        self.seconds, self.inside, self.held = 0.0, 0.0, 0

    def inside_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added up."""
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.inside += self.now() - begun
        return timed

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM_UP:
            if self.recorder:
                self.recorder.flush()
            self.seconds, self.inside = -self._time(), 0.0
        elif state.global_step == self.last:
            if self.recorder:
                self.held = held_bytes(self.recorder)
                self.inside_of(self.recorder.flush)()
            self.seconds += self._time()

    def _time(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.now()


def held_bytes(recorder: Recorder) -> int:
    """Bytes of the signals and history rows that wait for the next flush."""
    tensors = [v for row in recorder._micro for v in row[2:]] + [v for row in recorder._steps for v in row.values()]
    return sum(v.nbytes for v in tensors if hasattr(v, "nbytes"))


def rows_of(case: Case, count: int) -> Encoded:
    generator = np.random.default_rng(0)
    ids = generator.integers(5, 1000, (count, case.tokens))
    features = {"input_ids": ids.tolist(), "token_type_ids": np.zeros_like(ids).tolist(),
                "attention_mask": np.ones_like(ids).tolist()}
    return Encoded(features, generator.integers(0, 2, count), np.arange(count), np.full(count, case.tokens))


@dataclass
class Times:
    """Per repeat, in seconds per step: without recording, with it, inside the recording calls; bytes held per step."""

    off: list[float]
    on: list[float]
    inside: list[float]
    held: float = 0.0


def measure(case: Case, now: Callable[[], float]) -> Times:
    """Train with and without recording by turns."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=30_522 if case.width > 100 else 1000, hidden_size=case.width, num_hidden_layers=case.layers,
        num_attention_heads=case.heads, intermediate_size=4 * case.width))
    set_up(model.num_parameters())
    steps = WARM_UP + case.steps
    settings = TrainSettings(learning_rate=1e-5, batch_size=case.batch, max_steps=steps,
                             precision=case.precision)  # type: ignore[arg-type]
    rows = rows_of(case, case.batch * 8)
    plan = make_plan(rows, settings, 0)
    make = make_batch(rows, Collator(SimpleNamespace(padding_side="right", pad_token_id=0, pad_token_type_id=0)))
    times = Times([], [], [])
    for repeat in range(-1, case.repeats):  # the first is a warm-up as a whole
        for on in (False, True) if repeat % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                recorder = Recorder(Path(folder) / "segments", 2, signals=on)
                trainer = RecordingTrainer(model, plan, make, settings, scratch=Path(folder), seed=0, recorder=recorder,
                                           hooks=Hooks(), loss_of=cross_entropy_of, resume_seconds=float("inf"))
                clock = Clock(now, steps, recorder if on else None)
                if on:
                    tap = next(c for c in trainer.callback_handler.callbacks if isinstance(c, _Tap))
                    for name in ("on_pre_optimizer_step", "on_step_end"):
                        setattr(tap, name, clock.inside_of(getattr(tap, name)))
                    recorder.micro_batch = clock.inside_of(recorder.micro_batch)  # type: ignore[method-assign]
                else:
                    trainer.remove_callback(_Tap)  # no history row either: the bare Trainer
                trainer.add_callback(clock)
                trainer.train()
            if repeat >= 0:
                (times.on if on else times.off).append(clock.seconds / case.steps)
                if on:
                    times.inside.append(clock.inside / case.steps)
                    times.held = clock.held / case.steps
    return times


def report(case: Case, on_gpu: bool) -> bool:
    times = measure(case, time.perf_counter if on_gpu else time.process_time)
    base, recorded, inside = map(statistics.median, (times.off, times.on, times.inside))
    spread = (max(times.off) - min(times.off)) / base
    difference = statistics.median(b / a for a, b in zip(times.off, times.on, strict=True)) - 1
    overhead = difference if on_gpu else inside / (recorded - inside)
    passed, most = overhead <= BAR, recorder_module.BUFFER_STEPS
    print(f"{case.name}: {1000 * base:.3f} ms per step without, {1000 * recorded:.3f} ms with recording "
          f"({case.repeats} x {case.steps} steps each, spread {100 * spread:.0f} %)")
    print(f"  difference {100 * difference:+.2f} %, inside the recording calls {1e6 * inside:.0f} us per step")
    print(f"  recording costs {100 * overhead:.2f} % (bar {100 * BAR:.0f} %): {'PASS' if passed else 'FAIL'};  "
          f"memory held: {times.held:.0f} bytes per step, at most {times.held * most / 1024:.0f} KiB ({most} steps)")
    peak = next((v for k, v in PEAK_FLOPS.items() if on_gpu and k in device_name()), None)
    if on_gpu:
        for word, seconds in (("without", base), ("with", recorded)):
            rate = case.batch / seconds
            share = f", {100 * rate * case.flops() / peak:.1f} % of {peak / 1e12:.0f} TFLOP/s (bf16)" if peak else ""
            print(f"  {word} recording: {rate:,.0f} sequences/s at {case.flops() / 1e9:.1f} GFLOP per sequence{share}")
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps: to see that it runs")
    quick = parser.parse_args().quick
    quiet()
    on_gpu = torch.cuda.is_available()
    cases = [Case("micro-BERT, 4 layers x 64, batch 16 x 24 tokens", 4, 64, 4, 16, 24, 100, 5),
             Case("MiniLM size, 6 layers x 384, batch 16 x 64 tokens", 6, 384, 12, 16, 64, 6, 3)]
    if on_gpu:
        cases.append(Case("BERT-base size, batch 128 x 128 tokens, bf16", 12, 768, 12, 128, 128, 50, 7, "bf16"))
    print(f"device: {device_name()}, torch {torch.__version__}")
    passed = []
    for case in cases:
        if quick:
            case = Case(**{**vars(case), "steps": max(3, case.steps // 10), "repeats": 1})
        passed.append(report(case, on_gpu))
    print("PASS" if all(passed) else "FAIL")
    sys.exit(0 if all(passed) or quick else 1)


if __name__ == "__main__":
    main()
