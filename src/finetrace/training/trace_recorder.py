"""The recorder of a training that is not ours: losses are computed here, and what is predicted - one class, a number,
any number of classes - shows in its first batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.errors import FinetraceError
from finetrace.inference.targets import Target
from finetrace.store.tables import fixed_lists, read_table, write_table
from finetrace.training.recorder import Recorder, label_type, probe_schema, signals_schema

METRICS = (*Target("regression", ()).metrics, *Target("multi-label", ()).metrics)
"""Metrics of evaluations that plain classes do not have."""
IGNORED = -100  # label of an example that teaches nothing, as torch's cross-entropy has it


class TraceRecorder(Recorder):
    """Writes signals, history, probe looks and timing of one process; see `Recorder`.

    Losses are those of `losses_of`, whatever the training itself minimises. A history row's loss is their mean over
    the rows that this process has of the step.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, 0, metrics=METRICS)
        self.target = ""  # class, regression or multi-label, once it is known
        self._step_rows: dict[int, int] = {}  # of steps whose history row is not written
        self._sums: dict[int, list[Any]] = {}  # their losses, a sum per micro-batch
        self.rows = self.micro_steps = 0  # recorded so far

    def know(self, classes: int, target: str) -> None:
        """How many logits the model gives, and what is predicted."""
        self.classes, self.target, self._label = classes, target, label_type(target, classes)
        self._schemas |= {"signals": signals_schema(classes, target), "probe": probe_schema(classes, target)}

    def batch(self, step: int, ids: np.ndarray, labels: Any, logits: Any) -> None:
        """Logits (example, class) of one micro-batch before the update, on any device, and its labels (example,) or
        (example, class), as `require_labels` takes them."""
        head = int(logits.shape[1]), target_from(labels, logits)
        if self.target and head != (self.classes, self.target):
            raise FinetraceError(f"step {step}: the model gives {head[0]} logits per example (target: {head[1]}), "
                                 f"and gave {self.classes} ({self.target}) before; a trace is of one head")
        if not self.target:
            self.know(*head)
        self._micro.append((step, self.micro_steps, ids, labels, logits, None))
        self._step_rows[step] = self._step_rows.get(step, 0) + len(ids)
        self.micro_steps += 1
        self.rows += len(ids)

    def resume(self, step: int) -> int:
        """Forget what was recorded after `step` updates (-1: all of it). Returns the tokens read before.

        Raises FinetraceError when something that was seen before is not there.
        """
        self.truncate(step)
        self._step_rows, self._sums, self.rows, self.micro_steps = {}, {}, 0, 0
        last_step, tokens = -1, 0
        for path in self.tables["signals"].segments():
            table = read_table(path, ["step", "micro_step", "label", "logits"])
            self.know(table.schema.field("logits").type.list_size, _recorded_target(table.schema))
            self.rows += table.num_rows
            last_step, self.micro_steps = table["step"][-1].as_py(), table["micro_step"][-1].as_py() + 1
        for path in self.tables["history"].segments():
            tokens = max([tokens, *(row["tokens"] or 0 for row in read_table(path, ["tokens"]).to_pylist())])
        if last_step != max(step, 0) - 1:
            raise FinetraceError(f"{self.folder}: the training goes on after {step} updates, but the trace has the "
                                 f"signals of the first {last_step + 1}; go on from an earlier checkpoint, or start "
                                 "the training anew")
        return tokens

    def discard(self, step: int) -> None:
        """Forget micro-batches that no update followed."""
        self.rows -= sum(len(m[2]) for m in self._micro if m[0] >= step)
        self._micro = [m for m in self._micro if m[0] < step]

    def seconds(self) -> float:
        """Seconds of work that were recorded so far."""
        return max([0.0, *(row["seconds"] for path in self.tables["timing"].segments()[-1:]
                           for row in read_table(path, ["seconds"]).to_pylist())])

    def look(self, step: int, split: str, ids: np.ndarray, labels: Any, logits: Any) -> None:
        """One look at the probe set: logits (example, class) in evaluation mode and labels as in `batch`, tensors."""
        if not self.target:
            self.know(int(logits.shape[1]), target_from(labels, logits))
        require_labels(step, labels, logits)
        losses = losses_of(logits.float(), labels, self.target)
        self.tables["probe"].append(step, pa.table({
            "step": np.full(len(ids), step), "split": pa.array([split] * len(ids)), "example_id": ids,
            "label": self._plain_labels(labels), "logits": fixed_lists(logits.float().cpu().numpy()),
            "loss": losses.cpu().numpy()}).cast(self._schemas["probe"]))

    def finish(self, out: Path) -> dict[str, int]:
        """As a recorder's; the history keeps the columns of metrics that the target has."""
        rows = super().finish(out)
        target_metrics = Target(self.target, ()).metrics
        history = read_table(out / "history.parquet")
        write_table(out / "history.parquet",
                    history.drop_columns([name for name in METRICS if name not in target_metrics]))
        return rows

    def _plain_labels(self, labels: Any) -> pa.Array:
        """Labels as a column."""
        return self._labels(labels.reshape(-1).cpu().numpy() if self.target == "regression" else labels.cpu().numpy())

    def _drain(self) -> None:
        if self._micro:
            import torch

            micro, self._micro = self._micro, []
            device, sizes = micro[-1][4].device, [len(m[2]) for m in micro]
            logits = torch.cat([m[4] for m in micro]).float()
            labels = torch.cat([m[3].to(device) for m in micro])
            losses = losses_of(logits, labels, self.target)
            self._step_losses(micro, losses.split(sizes))
            self.tables["signals"].append(micro[-1][0] + 1, pa.table({
                "step": np.repeat([m[0] for m in micro], sizes), "micro_step": np.repeat([m[1] for m in micro], sizes),
                "position": np.concatenate([np.arange(s, dtype=np.int32) for s in sizes]),
                "example_id": np.concatenate([m[2] for m in micro]), "label": self._plain_labels(labels),
                "logits": fixed_lists(logits.cpu().numpy()), "loss": losses.cpu().numpy(),
            }).cast(self._schemas["signals"]))
        super()._drain()

    def _step_losses(self, micro: list[Any], losses: Any) -> None:
        """Put the mean loss of every step into its history row."""
        for (step, *_), part in zip(micro, losses, strict=True):
            self._sums.setdefault(step, []).append(part.sum())
        for row in self._steps:
            rows = self._step_rows.pop(row["step"])
            row["loss"] = sum(part / rows for part in self._sums.pop(row["step"]))


def target_from(labels: Any, logits: Any) -> str:
    """What is predicted of an example, as labels and logits (example, class) tell: a number where the model gives one,
    any number of classes where the labels are (example, class), else one class."""
    return "regression" if logits.shape[1] == 1 else "multi-label" if labels.ndim == 2 else "class"


def require_labels(step: int, labels: Any, logits: Any) -> None:
    """Raises FinetraceError for labels that say nothing about logits (example, class).

    labels: classes (example,); numbers (example,) or (example, 1) of a model with one logit; 0 or 1 (example, class).
    """
    rows, classes = logits.shape
    multi_label = labels.ndim == 2
    if labels.ndim not in (1, 2) or (multi_label and tuple(labels.shape[1:]) != (classes,)):
        raise FinetraceError(f"step {step}: the batch has labels {tuple(labels.shape)} for logits ({rows}, {classes}); "
                             "a trace needs one label per example, in `labels`, or one truth per class")
    if multi_label and classes > 1 and not bool(((labels == 0) | (labels == 1)).all()):
        raise FinetraceError(f"step {step}: the batch's labels are neither 0 nor 1; a trace of several labels per "
                             "example needs one truth per class")
    if not multi_label and classes > 1 and labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise FinetraceError(f"step {step}: the batch's labels are numbers such as {float(labels[0]):g}, and the model "
                             f"tells {classes} classes; give a model of numbers one output (num_labels=1)")
    if not multi_label and classes > 1 and labels.device.type == "cpu":
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= classes))
        if bool(wrong.any()):
            raise FinetraceError(f"step {step}: the batch has the label {int(labels[wrong][0])}, and the model tells "
                                 f"{classes} classes; labels are 0 to {classes - 1}, or {IGNORED} for none")


def losses_of(logits: Any, labels: Any, target: str) -> Any:
    """Per-example losses (example,) float32 of logits (example, class) and labels as `require_labels` takes them.

    Cross-entropy in nats, 0 where the label is -100 (ignored); of one number, the squared error; of several labels,
    the mean over the classes of binary cross-entropies in nats.
    """
    import torch.nn.functional as F

    labels = labels.to(logits.device)
    if target == "regression":
        return (logits.squeeze(1) - labels.reshape(-1).float()) ** 2
    if target == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(dim=1)
    return F.cross_entropy(logits, labels.long(), reduction="none")


def _recorded_target(schema: pa.Schema) -> str:
    """The target of a recorded table, told by the type of its labels."""
    kind = schema.field("label").type
    return "regression" if pa.types.is_floating(kind) else "class" if pa.types.is_integer(kind) else "multi-label"
