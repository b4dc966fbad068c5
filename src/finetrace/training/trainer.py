"""The Hugging Face Trainer with a tap on every step, a fixed plan of batches, and resume points that are whole."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from finetrace import seeds
from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.group import Group, here
from finetrace.models.device import use_bf16
from finetrace.models.load import head_parameters
from finetrace.store.checkpoints import mark, step_of
from finetrace.store.tables import read_table
from finetrace.training.checkpoints import built_on, newest_state
from finetrace.training.parts import Part, join_parts, part_of
from finetrace.training.recorder import Recorder
from finetrace.training.schedule import learning_rate_factor

Batch = tuple[int, np.ndarray, int]  # micro_step, row numbers (may be none), examples of the whole optimiser step
CHECKED_STEPS = 16  # on a GPU the losses of so many steps are looked at together: each look waits for it
SHOWN = 8  # examples that an error names
STATES = 2  # resumable states kept: the newest, and the one before in case the newest is damaged


class NonFiniteError(FinetraceError):
    """A training that diverged: a loss, a gradient or a metric is NaN or infinite."""


@dataclass
class Plan:
    """Every micro-batch of the training, fixed before it starts.

    batches: in time order;  total_steps: optimiser steps;  steps_per_epoch;  accumulate: micro-batches per step;
    sizes: (row,) examples of each row.
    """

    batches: list[Batch]
    total_steps: int
    steps_per_epoch: int
    accumulate: int
    sizes: np.ndarray

    @classmethod
    def of(cls, steps: list[np.ndarray], steps_per_epoch: int, accumulate: int, sizes: np.ndarray) -> "Plan":
        """Split each step's rows into micro-batches; where rows are fewer than micro-batches, some have none."""
        batches = [(i * accumulate + j, part, int(sizes[rows].sum()))
                   for i, rows in enumerate(steps) for j, part in enumerate(np.array_split(rows, accumulate))]
        return cls(batches, len(steps), steps_per_epoch, accumulate, sizes)

    def examples(self, steps: int | None = None) -> int:
        """Examples seen in the first `steps` optimiser steps, by default in all."""
        return sum(size
                   for _, _, size in self.batches[:None if steps is None else steps * self.accumulate:self.accumulate])


class PlanSampler(Sampler):
    """Hands whole micro-batches to the data loader in the plan's order."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.batch_size = None  # read by accelerate

    def __len__(self) -> int:
        return len(self.plan.batches)

    def __iter__(self) -> Iterator[list[Batch]]:
        for batch in self.plan.batches:
            yield [batch]


class PlanDataset(torch.utils.data.Dataset):
    """Turns one entry of the plan, or this process's part of it, into tensors: `make(batch) -> dict`."""

    def __init__(self, plan: Plan, make: Callable[[Batch], dict[str, Any]], group: Group):
        self.plan, self.make, self.group = plan, make, group

    def __len__(self) -> int:
        return len(self.plan.batches)

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        micro_step, all_rows, step_rows = batch
        rows = self.group.parts(all_rows)[self.group.rank]
        if len(rows):
            return {**self.make((micro_step, rows, step_rows)), "counts": True}
        # a model cannot be run on no rows: any row stands in, with weight 0
        return {**self.make((micro_step, self.plan.batches[0][1][:1], step_rows)), "tokens": 0, "counts": False}


def _only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    return items[0]


def first_not_finite(model: Any) -> str:
    """The name of the first parameter with NaN or infinity, or ""."""
    return next((name for name, values in model.named_parameters() if not bool(torch.isfinite(values).all())), "")


def _ids_not_finite(ids: Any, losses: Any) -> list[Any]:
    """The ids of the losses that are NaN or infinite; all of them where losses and ids do not go together (masked
    words)."""
    is_bad = ~np.isfinite(losses.float().cpu().numpy())
    return list(np.asarray(ids)[is_bad]) if len(is_bad) == len(ids) else list(np.asarray(ids)) if is_bad.any() else []


class Hooks:
    """What happens besides the steps; the callers of `RecordingTrainer` override what they need.

    Called after `step` updates (0 = before the first): look, evaluate, save weights. Returns True to stop early.
    """

    checkpoints: set[int] = set()  # noqa: RUF012 - replaced, never changed
    """Steps whose weights are kept to the end."""

    def after_step(self, trainer: "RecordingTrainer", step: int) -> bool:
        return False


class RecordingTrainer(Trainer):
    """Trains a model by a plan, records every step, and leaves whole resume points.

    loss_of(model outputs, labels) -> (per-example losses (example,), logits (example, class) or None);  epsilon:
    AdamW's; on_nonfinite: whether a loss or gradient that is not finite is an error (`stop`) or recorded like any
    other.
    """

    def __init__(self, model: Any, plan: Plan, make: Callable[[Batch], dict[str, Any]], settings: TrainSettings, *,
                 scratch: Path, seed: int, recorder: Recorder, hooks: Hooks, loss_of: Callable[..., Any],
                 resume_seconds: float = 30.0, progress: TrainerCallback | None = None, epsilon: float = 1e-8,
                 on_nonfinite: Literal["stop", "record"] = "stop"):
        self.group = group = here()
        if int(os.environ.get("WORLD_SIZE", "1")) > group.size:
            raise FinetraceError("these trainings are one process each; run several of them side by side instead of "
                                 "torchrun or accelerate launch (docs/use.md, One training on several GPUs)")
        self.plan, self.recorder, self.hooks, self.loss_of = plan, recorder, hooks, loss_of
        self.settings, self.scratch, self.resume_seconds = settings, scratch, resume_seconds
        self._make, self._head = make, head_parameters(model)
        self.on_nonfinite = on_nonfinite
        self._grad_norm: Any = None
        self._step_losses: list[Any] = []
        self._step_examples: list[tuple[Any, Any]] = []  # example ids and losses of each micro-batch of the step
        self._unchecked: list[tuple[int, Any, Any, list[tuple[Any, Any]]]] = []
        self._parts: list[Part] = []  # of the step, where several processes do it
        self._step_rows = self._step_tokens = self.examples = self.tokens = 0
        args = TrainingArguments(
            output_dir=str(scratch), max_steps=plan.total_steps, gradient_accumulation_steps=plan.accumulate,
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, adam_beta2=settings.beta2,
            adam_epsilon=epsilon, max_grad_norm=settings.max_grad_norm, bf16=use_bf16(settings.precision),
            # of dropout: equal masks on all processes would be fewer masks
            seed=seed if group.leads else seeds.derive(seed, "process", group.rank), data_seed=seed,
            ddp_broadcast_buffers=False,  # of encoders they are constants
            use_cpu=not torch.cuda.is_available(), report_to="none", logging_strategy="no",
            save_strategy="no", eval_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=False, logging_nan_inf_filter=False,  # it would wait for the GPU at every step
            per_device_train_batch_size=max(1, settings.batch_size // plan.accumulate // group.size))
        args._n_gpu = min(1, args.n_gpu)  # one GPU per run: data parallelism would change the recorded order
        super().__init__(model=model, args=args, train_dataset=PlanDataset(plan, make, group))
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(_Tap(self))
        if progress is not None:
            self.add_callback(progress)
        self.loss_is_scaled_for_ga = True  # losses are divided by the rows of the whole step below
        self.model_accepts_loss_kwargs = False

    def run(self) -> None:
        """Train from the newest whole resume point, or from the start."""
        resume_step = -1
        if self.group.leads:
            state = newest_state(self.scratch, self.hooks.checkpoints)
            resume_step = step_of(state) if state else -1
            self.recorder.truncate(resume_step)
        (resume_step,) = self.group.told(resume_step)
        self.train(resume_from_checkpoint=str(self.scratch / f"checkpoint-{resume_step}") if resume_step >= 0 else None)
        if not self.group.leads:
            return
        steps = self.state.global_step
        self.recorder.expect(steps, self.plan.examples(steps))
        self.check_finite()
        if self.on_nonfinite == "stop" and (name := first_not_finite(self.model)):
            raise NonFiniteError(f"after the last update: weights of {name} are NaN or infinite; {self.remedy()}")

    def see_step(self, step: int, loss: Any, gradient_norm: Any) -> None:
        """Remember the numbers of a step that must be finite, and look at them at once where looking costs nothing."""
        micro_batches, self._step_examples = self._step_examples, []
        if self.on_nonfinite == "stop":
            self._unchecked.append((step, loss, gradient_norm, micro_batches))
            if not torch.cuda.is_available() or len(self._unchecked) >= CHECKED_STEPS:
                self.check_finite()

    def check_finite(self) -> None:
        """Raises NonFiniteError that names the first step whose loss or gradient is NaN or infinite, its rows and what
        to do."""
        unchecked, self._unchecked = self._unchecked, []
        for step, loss, norm, micro_batches in unchecked:
            for name, value in (("loss", float(loss)), ("gradient's norm", 0.0 if norm is None else float(norm))):
                if not math.isfinite(value):
                    bad_ids = [ids for all_ids, losses in micro_batches for ids in _ids_not_finite(all_ids, losses)]
                    ids = (bad_ids if name == "loss"
                           else [i for all_ids, _ in micro_batches for i in np.asarray(all_ids)])
                    shown = ", ".join(str(i) for i in ids[:SHOWN]) + (" ..." if len(ids) > SHOWN else "")
                    raise NonFiniteError(f"step {step}: the {name} is {value} (example_id {shown or 'unknown'}); "
                                         f"{self.remedy()}")

    def require_finite(self, value: float, step: int, quantity: str) -> None:
        """Raises NonFiniteError for a metric that is not finite, unless that is to be recorded."""
        if self.on_nonfinite == "stop" and not math.isfinite(value):
            raise NonFiniteError(f"after {step} updates: the {quantity} is {value}; {self.remedy()}")

    def remedy(self) -> str:
        """What to change in a training that diverged."""
        clip = "" if self.settings.max_grad_norm else ", clip gradients (max_grad_norm: 1.0)"
        return (f"the training diverged: lower learning_rate (it is {self.settings.learning_rate:g}){clip} or raise "
                "warmup; a fine-tuning goes on all the same with record.on_nonfinite: record")

    # What follows overrides the Trainer's own methods.

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(PlanDataset(self.plan, self._make, self.group), batch_sampler=PlanSampler(self.plan),
                            collate_fn=_only_item)
        if self.group.size == 1:
            return self.accelerator.prepare(loader)
        # every process reads the whole plan and takes its part: accelerate must not deal batches out
        return prepare_data_loader(loader, self.accelerator.device, num_processes=1, process_index=0,
                                   put_on_device=True)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            total, settings = self.plan.total_steps, self.settings
            warmup = round(settings.warmup * total)
            optimizer_used: Any = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer_used, lambda step: learning_rate_factor(step, total, warmup, settings.scheduler))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Any = None) -> Any:
        ids, micro_step = inputs.pop("example_ids"), inputs.pop("micro_step")
        rows, tokens, labels = inputs.pop("step_rows"), inputs.pop("tokens"), inputs.pop("labels")
        counts = inputs.pop("counts")
        outputs = model(**inputs)
        losses, logits = self.loss_of(outputs, labels)
        loss = losses.sum() / rows if counts else losses.sum() * 0.0
        self._step_losses.append(loss.detach())
        self._step_rows, self._step_tokens = rows, self._step_tokens + tokens
        if self.group.size > 1:
            self._parts.append(part_of(ids, losses, labels, logits, counts))
            loss = loss * self.group.size  # torch takes the mean over the processes, and the step is their sum
        elif counts:
            self._record_micro_batch(micro_step, ids, labels, logits, losses)
        return (loss, outputs) if return_outputs else loss

    def _record_micro_batch(self, micro_step: int, ids: Any, labels: Any, logits: Any, losses: Any) -> None:
        """Hand what the model gave for a micro-batch to the recorder, and remember the losses that must be finite."""
        if logits is not None:
            self.recorder.micro_batch(self.state.global_step, micro_step, ids, labels, logits, losses)
        if self.on_nonfinite == "stop":
            self._step_examples.append((ids, losses.detach()))

    def end_step(self) -> tuple[Any, int]:
        """The loss and the tokens of a step whose gradients are there; process 0 records the parts of all processes."""
        loss, tokens = sum(self._step_losses), self._step_tokens
        self._step_losses, self._step_tokens = [], 0
        if self.group.size > 1:
            first = self.state.global_step * self.plan.accumulate
            rows = [rows for _, rows, _ in self.plan.batches[first:first + self.plan.accumulate]]
            for number, part in enumerate(join_parts(self.group, self._parts, rows, self.plan.sizes)):
                if self.group.leads and len(part.ids):
                    self._record_micro_batch(first + number, part.ids.numpy(), part.labels, part.logits, part.losses)
            self._parts = []
            loss, tokens = self.group.total(loss), int(self.group.total(torch.tensor(tokens)))
        return loss, tokens

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        self._grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return self._grad_norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.group.leads:
            self.check_finite()
            self.recorder.flush()  # first: a resume point must never know more than the recorded signals
        super()._save_checkpoint(model, trial)
        self.group.wait()  # every process has written its random state
        if not self.group.leads:
            return
        step, folder = self.state.global_step, self.scratch
        mark(folder / f"checkpoint-{step}", step, built_on(folder))
        for path in sorted(folder.glob("checkpoint-*"), key=step_of)[:-STATES]:  # only now: two whole ones always exist
            shutil.rmtree(path)


class _Tap(TrainerCallback):
    """Records each step before its update and runs the hooks after it."""

    def __init__(self, trainer: RecordingTrainer):
        self.trainer = trainer
        self.saved = self.started = self.last = time.perf_counter()
        self.offset = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, stop = self.trainer, False
        self.saved = self.started = self.last = time.perf_counter()
        if trainer.group.leads:
            trainer.examples = trainer.plan.examples(state.global_step)
            trainer.tokens = self._recorded("history", "tokens")
            self.offset = self._recorded("timing", "seconds")
            stop = state.global_step == 0 and trainer.hooks.after_step(trainer, 0)
        if any(trainer.group.told(stop)):
            control.should_training_stop = True

    def _recorded(self, table: str, column: str) -> Any:
        for path in reversed(self.trainer.recorder.tables[table].segments()):
            values = [v for v in read_table(path, [column])[column].to_pylist() if v is not None]
            if values:
                return values[-1]
        return 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        trainer = self.trainer
        loss, tokens = trainer.end_step()
        if not trainer.group.leads:
            return
        now = time.perf_counter()
        norms = torch._foreach_norm([p.detach() for p in trainer._head]) if trainer._head else []
        trainer.tokens += tokens
        trainer.recorder.train_step({
            "step": state.global_step, "kind": "train", "split": None, "examples": trainer.examples,
            "epoch": state.global_step / trainer.plan.steps_per_epoch, "loss": loss,
            "learning_rate": optimizer.param_groups[0]["lr"], "gradient_norm": trainer._grad_norm,
            "head_norm": torch.stack(list(norms)).norm() if norms else None, "tokens": trainer.tokens,
            "seconds": self.offset + now - self.started, "step_seconds": now - self.last,
            "step_tokens": tokens})
        trainer.see_step(state.global_step, loss, trainer._grad_norm)
        trainer.examples += trainer._step_rows
        self.last = now

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        trainer, stop, save = self.trainer, control.should_training_stop, False
        if trainer.group.leads:
            stop = trainer.hooks.after_step(trainer, state.global_step) or stop
            self.last = time.perf_counter()
            finished = state.global_step >= trainer.plan.total_steps or stop
            save = not finished and self.last - self.saved >= trainer.resume_seconds
        stop, save = map(bool, trainer.group.told(stop, save))
        control.should_training_stop = stop
        if save:
            control.should_save = True
            self.saved = time.perf_counter()
        return control
