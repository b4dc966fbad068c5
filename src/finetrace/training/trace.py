"""Watches a training that someone else runs: records the logits of its model, the rows that it reads, its weights.

The training does not change. A forward hook takes the logits, tags on the loader's batches name the rows
(`training.tagging`), the norm of the gradients is the one that clipping computes; looks at the probe set put modes and
random states back as they were.
"""

import contextlib
import json
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.store.checkpoints import list_weights, step_of
from finetrace.store.files import write_json
from finetrace.store.manifest import NAME
from finetrace.training.schedule import steps_of
from finetrace.training.tagging import Tag, labels_of, tagging
from finetrace.training.trace_options import TraceOptions, ids_of, require_metric
from finetrace.training.trace_recorder import TraceRecorder, require_labels
from finetrace.training.traced_model import bare, head_of, keep_weights, names_of, require_kept

UNFINISHED = "unfinished"  # below the folder of a trace, until it is whole
LOOK_ROWS = 64  # examples per forward pass of a look


class Trace:
    """One process's part in the trace of one training.

    folder: what is being written;  rank, processes: which of the training's processes this is. Only process 0 keeps
    weights, looks at the probe set and finishes the folder, which all processes must be able to write to.
    """

    def __init__(self, folder: Path, options: TraceOptions, *, rank: int = 0, processes: int = 1):
        self.folder, self.options, self.rank, self.processes = folder, options, rank, processes
        if folder.exists() and not folder.is_dir():
            raise FinetraceError(f"{folder}: is a file; a trace needs a folder of its own")
        if (folder / NAME).exists():
            raise FinetraceError(f"{folder}: holds a finished trace; name another folder, or delete it")
        if folder.is_dir() and set(p.name for p in folder.iterdir()) - {UNFINISHED}:
            raise FinetraceError(f"{folder}: holds other files; a trace needs a folder of its own")
        try:
            self.recorder = TraceRecorder(folder / UNFINISHED / f"segments-{rank}")
        except OSError as error:
            raise FinetraceError(f"{folder}: cannot be made ({error.strerror}); name another folder") from error
        self.weights = folder / UNFINISHED / "checkpoints"
        self.step = self.total = self.tokens = self.longest = self.dataset_rows = 0
        self.steps_per_epoch = 1
        self.facts: dict[str, Any] = {}
        self.kept: int | None = None
        self.norms = GradientNorms()
        self._ends: contextlib.ExitStack | None = None
        self._head_known = False
        self._answer: Any = None
        self._probe: dict[str, tuple[np.ndarray, list[tuple[dict[str, Any], Any]]]] | None = None
        self._tags: deque[Tag] = deque()

    @property
    def running(self) -> bool:
        """Whether the training is being watched."""
        return self._ends is not None

    def begin(self, model: Any, loader: Any, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Start to watch after `step` updates of a training of `total`; 0 starts the trace anew."""
        self.close()
        self.model, options = bare(model), self.options
        self.step, self.total, self.steps_per_epoch = step, total, steps_per_epoch
        if options.checkpoints != "none":
            require_kept(self.model)
        self.tokens = self.recorder.resume(step or -1)
        self._forget_weights(step)
        if step:
            earlier = self.batch_facts(self.rank)
            self.longest, self.facts = earlier["longest"], earlier["facts"]
        schedule = lambda setting: set(steps_of(setting, total, steps_per_epoch))  # noqa: E731
        self.looks = schedule(options.probe) if options.probe_rows else set()
        self.checkpoints = schedule(options.checkpoints)
        self._ends = ends = contextlib.ExitStack()
        self._tags, dataset, self._collate = ends.enter_context(tagging(loader))
        self.ids, self.dataset_rows = ids_of(options.ids, dataset), len(dataset)
        self._sources = {"train": dataset} | ({} if options.validation is None else {"validation": options.validation})
        hook = self.model.register_forward_hook(self._remember_answer, with_kwargs=True)
        ends.callback(hook.remove)
        ends.enter_context(self.norms)
        self._head = head_of(self.model)
        self._started = self._last = time.perf_counter()
        self._seconds = self.recorder.seconds()
        self._reset_step()
        if step == 0:
            try:
                self._look_and_keep()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Stop watching: hooks and loader are as they were."""
        if self._ends:
            self._ends.close()
        self._ends, self._answer = None, None

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        self.recorder.flush()
        write_json(self._batch_facts_file(self.rank), {"longest": self.longest, "facts": self.facts})

    def batch_facts(self, rank: int) -> dict[str, Any]:
        """Of a process's batches, as of its last flush: the longest input in tokens, and facts; 0 and none before the
        first."""
        file = self._batch_facts_file(rank)
        return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {"longest": 0, "facts": {}}

    def _batch_facts_file(self, rank: int) -> Path:
        return self.folder / UNFINISHED / f"seen-{rank}.json"

    def epoch(self) -> None:
        """A new pass over the data begins: batches that were read ahead of an early end are forgotten."""
        self._tags.clear()

    def end_micro_batch(self) -> None:
        """A forward and backward pass is over. Raises FinetraceError when its rows or logits are not known."""
        if not self._tags:
            raise FinetraceError(f"step {self.step}: the training read a batch that the loader did not hand out, so "
                                 "its rows are unknown; let batches come from the loader that was given")
        tag, logits = self._tags.popleft(), self._answer
        self._answer = None
        if logits is None:
            raise FinetraceError(f"step {self.step}: no logits (example, class) came from the model's forward pass in "
                                 "training mode; a trace needs a classifier in that mode (model.train()) that is "
                                 "called as model(...) and returns them (outputs.logits)")
        logits, labels = logits
        labels = tag.labels if labels is None else labels
        if labels is None:
            raise FinetraceError(f"step {self.step}: the batch has no labels; a trace needs one label per example, in "
                                 "`labels`")
        require_labels(self.step, labels if tag.labels is None else tag.labels, logits)  # the tag's are on the CPU
        if not len(logits) == len(labels) == len(tag.rows):
            raise FinetraceError(f"step {self.step}: {len(logits)} rows of logits and {len(labels)} labels for "
                                 f"{len(tag.rows)} examples of the loader; a trace needs one row per example")
        self.recorder.batch(self.step, self.ids[tag.rows], labels, logits)
        self._require_head()
        self._step_rows += len(tag.rows)
        self._step_tokens += tag.tokens
        self.longest = max(self.longest, tag.longest)

    def before_update(self, optimizer: Any) -> None:
        """All gradients of a step are there; its history row is taken. Raises FinetraceError where no batch was seen
        since the update before."""
        if not self._step_rows:
            raise FinetraceError(f"step {self.step}: an update without a batch that the trace has seen since the one "
                                 "before; take the batches from traced.batches(), and call step() once for them")
        norms = torch._foreach_norm([p.detach() for p in self._head]) if self._head else []
        now = time.perf_counter()
        self.tokens += self._step_tokens
        self.recorder.train_step({
            "step": self.step, "kind": "train", "split": None, "examples": self.recorder.rows - self._step_rows,
            "epoch": self.step / self.steps_per_epoch, "loss": None,
            "learning_rate": optimizer.param_groups[0]["lr"], "gradient_norm": self.norms.take(optimizer),
            "head_norm": torch.stack(list(norms)).norm() if norms else None, "tokens": self.tokens,
            "seconds": self._seconds + now - self._started, "step_seconds": now - self._last,
            "step_tokens": self._step_tokens})
        self.facts.setdefault("learning_rate", max(g.get("initial_lr", g["lr"]) for g in optimizer.param_groups))
        self.facts["batch_size"] = max(self.facts.get("batch_size", 0), self._step_rows * self.processes)
        self._reset_step()

    def after_update(self, stopping: bool = False) -> None:
        """One more update is done;  stopping: it is the last one."""
        self.step += 1
        if stopping:
            self.checkpoints = self.checkpoints | ({self.step} if self.checkpoints else set())
        self._look_and_keep()
        self._last = time.perf_counter()

    def evaluation(self, split: str, metrics: dict[str, float]) -> None:
        """Metrics of one evaluation after the updates done so far: loss, accuracy, macro_f1, f1, matthews; of numbers
        mse, pearson, spearman; of several labels micro_f1, exact_match."""
        if self.rank == 0:
            self.recorder.evaluation(self.step, split, self.recorder.rows * self.processes,
                                     self.step / self.steps_per_epoch, numbers_of(metrics))

    def keep(self) -> None:
        """Keep the weights as they are now."""
        if self.rank == 0 and self.step not in list_weights(self.weights):
            with untouched(self.model):
                keep_weights(self.model, self.weights, self.step, self.base)

    @property
    def base(self) -> str:
        """Name of the model that the training started from."""
        config = getattr(self.model, "config", None)
        return self.options.base or str(getattr(config, "_name_or_path", "") or "")

    def _require_head(self) -> None:
        """Once it is known what the model tells, options that do not fit it end the training: at its start, not
        after it."""
        if not self._head_known:
            names_of(self.model, self.options.label_names, self.recorder.classes)
            require_metric(self.options, self.recorder.target)
            self._head_known = True

    def _reset_step(self) -> None:
        self._step_rows = self._step_tokens = 0

    def _forget_weights(self, step: int) -> None:
        """Drop weights of a future that is trained anew."""
        if self.rank == 0:
            for folder in self.weights.glob("step-*"):
                if step == 0 or step_of(folder) > step:
                    shutil.rmtree(folder)

    def _remember_answer(self, module: Any, args: Any, kwargs: dict[str, Any], outputs: Any) -> None:
        """Forward hook: remember the first logits of the micro-batch."""
        if not module.training or not torch.is_grad_enabled() or self._answer is not None:
            return
        logits = logits_of(outputs, "labels" in kwargs)
        if logits is not None:
            labels = kwargs.get("labels")
            self._answer = logits.detach().clone(), None if labels is None else labels.detach()

    def _look_and_keep(self) -> None:
        if self.rank:
            return
        if self.step in self.looks:
            with untouched(self.model):
                self._look()
        if self.step in self.checkpoints:
            self.keep()

    def _look(self) -> None:
        self._probe = self._probe or {split: self._probe_batches(split, rows) for split, rows in self._sources.items()}
        self.model.eval()
        device = next(self.model.parameters()).device
        with torch.no_grad():
            for split, (ids, batches) in self._probe.items():
                answers = [probe_logits(self.model, batch, device) for batch, _ in batches]
                labels = torch.cat([labels for _, labels in batches])
                self.recorder.look(self.step, split, ids, labels, torch.cat(answers))
                self._require_head()

    def _probe_batches(self, split: str, dataset: Any) -> tuple[np.ndarray, list[tuple[dict[str, Any], Any]]]:
        """Ids of the probe set's rows of a split, and its batches: inputs and labels."""
        order = seeds.generator(self.options.seed, "probe", split).permutation(len(dataset))
        rows = np.sort(order[:self.options.probe_rows])
        columns = getattr(self._sources["train"], "column_names", None)
        if split != "train" and columns and hasattr(dataset, "select_columns"):
            dataset = dataset.select_columns([name for name in dataset.column_names if name in columns])
        batches = []
        for start in range(0, len(rows), LOOK_ROWS):
            try:
                batch = self._collate([dataset[int(row)] for row in rows[start:start + LOOK_ROWS]])
            except Exception as error:  # whatever a collator of one's own raises
                if split == "train":
                    raise
                told = str(error).partition("\n")[0] or type(error).__name__
                raise FinetraceError(f"{split}: its rows make no batch with the training's collator ({told}); give a "
                                     "dataset that is prepared like the training dataset") from error
            labels = labels_of(batch)
            if labels is None:
                raise FinetraceError(f"the probe set's rows of {split} have no labels; name them `labels`")
            batches.append((without_labels(batch), labels))
        return self.ids[rows] if split == "train" else rows, batches


class GradientNorms:
    """The norm of all gradients before they are clipped, as torch.nn.utils.clip_grad_norm_ returns it: the Trainer
    calls it at every step, through accelerate. Where nobody calls it, the norm of the gradients as they are."""

    def __init__(self) -> None:
        self._norm: Any = None
        self.clipped = False

    def __enter__(self) -> "GradientNorms":
        self._original = original = torch.nn.utils.clip_grad_norm_

        def clip_grad_norm_(*args: Any, **kwargs: Any) -> Any:
            self._norm = original(*args, **kwargs)
            self.clipped = True
            return self._norm

        self._listening = torch.nn.utils.clip_grad_norm_ = clip_grad_norm_
        return self

    def __exit__(self, *_: object) -> None:
        if torch.nn.utils.clip_grad_norm_ is self._listening:
            torch.nn.utils.clip_grad_norm_ = self._original

    def take(self, optimizer: Any) -> Any:
        """The norm of this step, as a scalar of the device."""
        norm, self._norm = self._norm, None
        if norm is not None:
            return norm.detach()
        gradients = [p.grad.detach() for group in optimizer.param_groups for p in group["params"]
                     if p.grad is not None]
        return torch.stack(list(torch._foreach_norm(gradients))).norm() if gradients else None


def logits_of(outputs: Any, with_loss: bool) -> Any:
    """The logits (example, class) among a model's outputs, a column where they are one number each; else None.

    with_loss: whether a tuple begins with the loss.
    """
    logits = outputs.get("logits") if hasattr(outputs, "get") else getattr(outputs, "logits", None)
    if logits is None and isinstance(outputs, tuple | list):
        logits = outputs[1 if with_loss and len(outputs) > 1 else 0]
    logits = outputs if logits is None and torch.is_tensor(outputs) else logits
    if not torch.is_tensor(logits) or logits.ndim not in (1, 2):
        return None
    return logits if logits.ndim == 2 else logits.unsqueeze(1)


def numbers_of(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics as plain numbers. Raises FinetraceError for what is none."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError) as error:
            raise FinetraceError(f"evaluation: {name} is {value!r}, not a number") from error
    return numbers


def probe_logits(model: Any, batch: Any, device: Any) -> Any:
    """The logits (example, class) of a batch of the probe set."""
    outputs = call(model, batch, device)
    logits = logits_of(outputs, False)
    if logits is None and getattr(getattr(outputs, "logits", None), "ndim", 0) > 2:
        raise FinetraceError(f"a look at the probe set gave logits {tuple(outputs.logits.shape)}, one row per token; a "
                             "trace records classifiers of texts, with logits (example, class)")
    if logits is None:
        raise FinetraceError("a look at the probe set gave no logits (example, class); set probe: none "
                             "(probe=\"none\") for a model that is not called with its inputs alone")
    return logits


def without_labels(batch: Any) -> Any:
    """The model's inputs: a mapping without its labels, or a sequence without its last part."""
    if hasattr(batch, "items"):
        return {name: values for name, values in batch.items() if name not in ("labels", "label", "label_ids")}
    return list(batch[:-1])


def call(model: Any, inputs: Any, device: Any) -> Any:
    """The model's outputs for the inputs of a batch."""
    move: Callable[[Any], Any] = lambda values: values.to(device) if torch.is_tensor(values) else values  # noqa: E731
    if isinstance(inputs, dict):
        return model(**{name: move(values) for name, values in inputs.items()})
    return model(*map(move, inputs))


@contextlib.contextmanager
def untouched(model: Any) -> Iterator[None]:
    """After the block the modes of all modules and all random states are as they were before."""
    modes = [(module, module.training) for module in model.modules()]
    # numpy's old generator is the one that other people's collators may draw from
    python_state, numpy_state, cpu_state = (
        random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
