"""The recorder of a training that is not ours: losses are computed here, and numbers may be labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.errors import FinetraceError
from finetrace.store.tables import fixed_lists, read_table
from finetrace.training.recorder import Recorder, probe_schema, signals_schema


class TraceRecorder(Recorder):
    """Writes signals, history, probe looks and timing of one process; see `Recorder`.

    Losses are cross-entropy in nats, or the squared error where a model gives one number: whatever the training
    itself minimises. A history row's loss is their mean over the rows that this process has of the step.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, 0)
        self._step_rows: dict[int, int] = {}  # of steps whose history row is not written
        self._sums: dict[int, list[Any]] = {}  # their losses, a sum per micro-batch
        self.rows = self.micro_steps = 0  # recorded so far

    @property
    def regression(self) -> bool:
        """Whether the model gives one number."""
        return self.classes == 1

    def batch(self, step: int, ids: np.ndarray, labels: Any, logits: Any) -> None:
        """Logits (example, class) of one micro-batch before the update, on any device, and its labels (example,)."""
        if self.classes and logits.shape[1] != self.classes:
            raise FinetraceError(f"step {step}: the model gives {logits.shape[1]} logits per example, and gave "
                                 f"{self.classes} before; a trace is of one head")
        self.classes = int(logits.shape[1])
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
        last, tokens = -1, 0
        for path in self.tables["signals"].segments():
            table = read_table(path, ["step", "micro_step", "logits"])
            self.classes = table.schema.field("logits").type.list_size
            self.rows += table.num_rows
            last, self.micro_steps = table["step"][-1].as_py(), table["micro_step"][-1].as_py() + 1
        for path in self.tables["history"].segments():
            tokens = max([tokens, *(row["tokens"] or 0 for row in read_table(path, ["tokens"]).to_pylist())])
        if last != max(step, 0) - 1:
            raise FinetraceError(f"{self.folder}: the training goes on after {step} updates, but the trace has the "
                                 f"signals of the first {last + 1}; go on from an earlier checkpoint, or start the "
                                 "training anew")
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
        """One look at the probe set: logits (example, class) in evaluation mode and labels (example,), tensors."""
        self.classes = self.classes or int(logits.shape[1])
        losses = losses_of(logits.float(), labels, self.regression)
        schema = _with_labels(probe_schema(self.classes), self.regression)
        self.tables["probe"].append(step, pa.table({
            "step": np.full(len(ids), step), "split": pa.array([split] * len(ids)), "example_id": ids,
            "label": labels.cpu().numpy(), "logits": fixed_lists(logits.float().cpu().numpy()),
            "loss": losses.cpu().numpy()}).cast(schema))

    def _drain(self) -> None:
        if self._micro:
            import torch

            micro, self._micro = self._micro, []
            device, sizes = micro[-1][4].device, [len(m[2]) for m in micro]
            logits = torch.cat([m[4] for m in micro]).float()
            labels = torch.cat([m[3].to(device) for m in micro])
            losses = losses_of(logits, labels, self.regression)
            self._step_losses(micro, losses.split(sizes))
            self.tables["signals"].append(micro[-1][0] + 1, pa.table({
                "step": np.repeat([m[0] for m in micro], sizes), "micro_step": np.repeat([m[1] for m in micro], sizes),
                "position": np.concatenate([np.arange(s, dtype=np.int32) for s in sizes]),
                "example_id": np.concatenate([m[2] for m in micro]), "label": labels.cpu().numpy(),
                "logits": fixed_lists(logits.cpu().numpy()), "loss": losses.cpu().numpy(),
            }).cast(_with_labels(signals_schema(self.classes), self.regression)))
        super()._drain()

    def _step_losses(self, micro: list[Any], losses: Any) -> None:
        """Put the mean loss of every step into its history row."""
        for (step, *_), part in zip(micro, losses, strict=True):
            self._sums.setdefault(step, []).append(part.sum())
        for row in self._steps:
            rows = self._step_rows.pop(row["step"])
            row["loss"] = sum(part / rows for part in self._sums.pop(row["step"]))


def losses_of(logits: Any, labels: Any, regression: bool) -> Any:
    """Per-example losses (example,) float32 of logits (example, class) and labels (example,).

    Cross-entropy in nats, 0 where the label is -100 (ignored); of one number, the squared error.
    """
    import torch.nn.functional as F

    if regression:
        return (logits.squeeze(1) - labels.to(logits.device).float()) ** 2
    return F.cross_entropy(logits, labels.to(logits.device).long(), reduction="none")


def _with_labels(schema: pa.Schema, regression: bool) -> pa.Schema:
    place = schema.get_field_index("label")
    return schema.set(place, pa.field("label", pa.float32())) if regression else schema
