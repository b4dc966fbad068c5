"""`finetrace.TraceCallback`: any Trainer leaves a trajectory like those of finetrace's own trainings."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainingArguments

from finetrace.errors import FinetraceError
from finetrace.training.trace import Trace
from finetrace.training.trace_folder import finish
from finetrace.training.trace_options import TraceOptions
from finetrace.training.trace_recorder import METRICS as OF_TARGETS

METRICS = {"loss": "loss", "accuracy": "accuracy", "macro_f1": "macro_f1", "f1": "f1", "matthews": "matthews",
           "matthews_correlation": "matthews", **{name: name for name in OF_TARGETS}, "pearsonr": "pearson",
           "spearmanr": "spearman"}
"""Names of a Trainer's metrics, without their prefix -> names in history.parquet."""


class TraceCallback(TrainerCallback):
    """Records a training into `folder`: `Trainer(..., callbacks=[TraceCallback("runs/mine")])`.

    folder: a folder of its own, which is whole when the training ends (`training.trace_folder` says what it holds);
    options: those of `TraceOptions`.

    Per-example logits before every update, losses, ids, norms of gradients and head; a probe set and the weights on
    a schedule. The training is the same with and without it, to the bit. A resumed training (resume_from_checkpoint)
    resumes its trace: what was recorded after that checkpoint is dropped and recorded anew. Works with gradient
    accumulation, bf16 and fp16, early stopping, several processes (torchrun, accelerate launch), losses of one's own,
    LoRA of PEFT. Raises FinetraceError, at the first step at the latest, for trainings that it cannot see through:
    streamed datasets, DataParallel, FSDP, DeepSpeed, torch.compile, models without logits per example.
    """

    def __init__(self, folder: str | Path, **options: Any):
        self.folder, self.options = Path(folder), TraceOptions.of(options)
        self.trace: Trace | None = None

    # What follows are the events of a Trainer, in the order in which they come.

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **objects: Any) -> None:
        _require_visible(args, objects["train_dataloader"])
        if self.trace:
            self.trace.close()  # a training that failed, or starts over with a smaller batch
        self.started = time.time()
        self.trace = Trace(self.folder, self.options, rank=args.process_index, processes=args.world_size)
        loader = objects["train_dataloader"]
        per_epoch = max(1, -(-len(loader) // args.gradient_accumulation_steps))
        self.trace.begin(objects["model"], loader, step=state.global_step, total=state.max_steps,
                         steps_per_epoch=per_epoch)

    def on_epoch_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        self._running().epoch()

    def on_substep_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        self._running().end_micro_batch()

    def on_pre_optimizer_step(self, args: TrainingArguments, state: Any, control: Any, optimizer: Any = None,
                              **_: Any) -> None:
        self._running().end_micro_batch()
        self._running().before_update(optimizer)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        trace = self._running()
        trace.after_update(stopping=control.should_training_stop)
        if control.should_save:
            trace.flush()  # first: a checkpoint must never know more than the trace

    def on_evaluate(self, args: TrainingArguments, state: Any, control: Any, metrics: dict[str, float] | None = None,
                    **_: Any) -> None:
        if self.trace and self.trace.running:
            split, values = named_metrics(metrics or {})
            self.trace.evaluation(split, values)
            if args.save_strategy != "no":
                self.trace.flush()  # whether the weights are the best so far, and saved, is known after this

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if control.should_save:
            self._running().flush()

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        trace = self.trace
        if trace is None or not trace.running or not trace.checkpoints:
            return
        best = args.load_best_model_at_end and state.best_global_step == trace.step
        if best or control.should_training_stop:  # at the end the best weights may stand in the place of the last
            trace.keep()

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, processing_class: Any = None,
                     **_: Any) -> None:
        trace = self._running()
        best = state.best_global_step if args.load_best_model_at_end and state.best_model_checkpoint else None
        if trace.checkpoints and best in (None, trace.step):
            trace.keep()
        trace.kept = best if trace.checkpoints else None
        trace.close()
        run_seeds = {"seed": args.seed} | ({} if args.data_seed is None else {"data_seed": args.data_seed})
        finish(trace, settings_of(args), run_seeds, processing_class, started=self.started)

    def _running(self) -> Trace:
        if self.trace is None or not self.trace.running:
            raise FinetraceError("TraceCallback was added after the training had begun; give it to the Trainer "
                                 "(callbacks=[...])")
        return self.trace


def named_metrics(metrics: dict[str, float]) -> tuple[str, dict[str, float]]:
    """Split and metrics of one evaluation: those that history.parquet has a column for.

    `eval_loss` is of validation; of a dictionary of evaluation sets `eval_NAME_loss` is of NAME.
    """
    prefix = next((key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime")), "eval")
    values = {name: float(metrics[f"{prefix}_{key}"]) for key, name in METRICS.items()
              if isinstance(metrics.get(f"{prefix}_{key}"), int | float | np.number)}
    return "validation" if prefix == "eval" else prefix.removeprefix("eval_"), values


def settings_of(args: TrainingArguments) -> dict[str, Any]:
    """What decides a training, of its arguments, under the names of params.yaml where there are such."""
    return {"epochs": float(args.num_train_epochs), "max_steps": max(0, args.max_steps),
            "learning_rate": args.learning_rate, "weight_decay": args.weight_decay, "beta2": args.adam_beta2,
            "max_grad_norm": args.max_grad_norm, "warmup_steps": args.warmup_steps,
            "scheduler": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
            "accumulate": args.gradient_accumulation_steps,
            "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
            "optimizer": str(getattr(args.optim, "value", args.optim)),
            "label_smoothing": args.label_smoothing_factor,
            "keep": "best" if args.load_best_model_at_end else "last"}


def _require_visible(args: TrainingArguments, loader: Any) -> None:
    from accelerate.data_loader import DataLoaderShard

    hidden = {"FSDP": args.fsdp, "DeepSpeed": args.deepspeed, "torch_compile": args.torch_compile,
              "DataParallel (several GPUs in one process)": args.n_gpu > 1}
    if active := [name for name, is_active in hidden.items() if is_active]:
        raise FinetraceError(f"TraceCallback does not see through {active[0]}; train without it, on several GPUs with "
                             "torchrun or accelerate launch")
    if not isinstance(loader, DataLoaderShard) or getattr(loader, "device", None) is None:
        raise FinetraceError(f"{type(loader).__name__}: is not the kind of loader that a Trainer makes of a dataset "
                             "with rows; give it a dataset with a length, and where get_train_dataloader is one's own "
                             "let it return self.accelerator.prepare(loader)")
