"""Options of a trace: the keyword arguments of `finetrace.TraceCallback` and `finetrace.trace`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.config.training import Schedule
from finetrace.errors import FinetraceError
from finetrace.training.schedule import steps_of


@dataclasses.dataclass(frozen=True)
class TraceOptions:
    """What is recorded, and what else the folder is to say about the training."""

    ids: str | Sequence[int] | None = None
    """(row,) example_id of each row of the training dataset, different whole numbers: those by which the examples are
    known elsewhere; or the name of a column that holds them. By default the rows' numbers."""
    probe_rows: int = 64
    """Examples of train, and of `validation` where it is given, that are looked at in evaluation mode."""
    probe: Schedule = "log2"
    """When they are looked at: log2, epochs, none, {every: n}, {log: n} or {steps: [...]}."""
    validation: Any = None
    """A dataset like the training dataset, from which a second part of the probe set is chosen."""
    checkpoints: Schedule = "log2"
    """When weights are kept, as `probe`; step 0 and the last always, unless none."""
    label_names: Sequence[str] | None = None
    """Names of the classes in the order of the logits, by default those of the model's config."""
    task: str = ""
    """Name of the task, for those who read the folder."""
    columns: Mapping[str, str] | None = None
    """What the task's columns are, for those who read the folder: {text: sentence, label: label}, say."""
    base: str = ""
    """Hub id or folder of the model that the training started from, by default what the model says."""
    max_length: int = 0
    """Tokens to which texts were cut; by default the longest input that was seen."""
    metric: str = ""
    """By which trainings on this task are compared: accuracy, f1, macro_f1 or matthews; of numbers pearson, spearman or
    mse, of several labels micro_f1, macro_f1 or exact_match. By default the first of each."""
    seed: int = 1
    """Of the choice of the probe set."""

    def __post_init__(self) -> None:
        for schedule in (self.probe, self.checkpoints):
            steps_of(schedule, 1, 1.0)
        if self.probe_rows < 0:
            raise FinetraceError(f"probe_rows: {self.probe_rows} is negative; 0 looks at none")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TraceOptions":
        """The options; FinetraceError for an unknown one."""
        names = [f.name for f in dataclasses.fields(cls)]
        if unknown := sorted(set(options) - set(names)):
            raise FinetraceError(f"a trace has no option {unknown[0]!r}; it has {', '.join(names)}")
        return cls(**options)


def ids_of(ids: str | Sequence[int] | None, dataset: Any) -> np.ndarray:
    """(row,) int64 example_id of each row of the training dataset.

    Raises FinetraceError for a column that is not there, and for ids that are not different whole numbers, one a row.
    """
    rows = len(dataset)
    if ids is None:
        return np.arange(rows)
    values: Any = ids
    if isinstance(ids, str):
        try:
            values = dataset[ids]
        except Exception as error:  # datasets raise many kinds
            raise FinetraceError(f"ids: the training dataset that the loader reads has no column {ids!r} (the "
                                 "Trainer removes those that the model does not take); give the ids themselves: "
                                 f"ids=dataset[{ids!r}]") from error
    id_array = np.asarray(list(values))
    if id_array.shape != (rows,) or id_array.dtype.kind not in "iu":
        raise FinetraceError(f"ids: {len(id_array)} values of type {id_array.dtype} for {rows} rows of the training "
                             "dataset; give one whole number per row, or leave ids out to use the rows' numbers")
    if len(np.unique(id_array)) < rows:
        repeated_id = int(np.sort(id_array)[:-1][np.diff(np.sort(id_array)) == 0][0])
        raise FinetraceError(f"ids: {repeated_id} is the id of two rows; ids must differ")
    return id_array.astype(np.int64)
