"""Options of a trace: the keyword arguments of `finetrace.TraceCallback` and `finetrace.trace`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.config.training import Schedule
from finetrace.errors import FinetraceError
from finetrace.training.schedule import steps_of

METRICS_OF = {"class": ("accuracy", "f1", "macro_f1", "matthews"), "regression": ("pearson", "spearman", "mse"),
           "multi-label": ("micro_f1", "macro_f1", "exact_match")}
"""By what trainings can be compared, by target; the first unless said."""


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
        for name, value, kind, wanted in (
                ("probe_rows", self.probe_rows, int, "a whole number"), ("seed", self.seed, int, "a whole number"),
                ("max_length", self.max_length, int, "a number of tokens"), ("task", self.task, str, "a name"),
                ("base", self.base, str, "a hub id or a folder"), ("metric", self.metric, str, "a name"),
                ("columns", self.columns or {}, Mapping, 'names by names, such as {"text": "sentence"}')):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise FinetraceError(f"{name}: {value!r} is not {wanted}")
        if self.probe_rows < 0:
            raise FinetraceError(f"probe_rows: {self.probe_rows} is negative; 0 looks at none")
        known = sorted({name for names in METRICS_OF.values() for name in names})
        if self.metric and self.metric not in known:
            raise FinetraceError(f"metric: {self.metric!r} is none that a trace knows; choose of {', '.join(known)}")
        self._require_names()
        if self.validation is not None:
            _require_rows(self.validation)

    def _require_names(self) -> None:
        if self.label_names is None:
            return
        names = [] if isinstance(self.label_names, str) else list(self.label_names)
        if not names or not all(isinstance(name, str) for name in names):
            raise FinetraceError(f"label_names: {self.label_names!r} is no list of names; give one per class, in the "
                                 "order of the logits")
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise FinetraceError(f"label_names: {twice[0]!r} stands twice; each class has a name of its own")

    @classmethod
    def of(cls, options: dict[str, Any]) -> "TraceOptions":
        """The options; FinetraceError for an unknown one."""
        names = [f.name for f in dataclasses.fields(cls)]
        if unknown := sorted(set(options) - set(names)):
            raise FinetraceError(f"a trace has no option {unknown[0]!r}; it has {', '.join(names)}")
        base = options.get("base")
        return cls(**options | ({"base": str(base)} if isinstance(base, Path) else {}))


def _require_rows(dataset: Any) -> None:
    """Raises FinetraceError for a validation that is no dataset with rows."""
    rows = len(dataset) if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") else 0
    if isinstance(dataset, str | Mapping) or not rows:
        raise FinetraceError(f"validation: {type(dataset).__name__}: is no dataset with rows; give one like the "
                             "training dataset, or leave it out")


def require_metric(options: TraceOptions, target: str) -> None:
    """Raises FinetraceError for a metric that trainings of this target do not have."""
    if options.metric and options.metric not in METRICS_OF[target]:
        raise FinetraceError(f"metric: {options.metric!r} is none of a training whose target is {target}; choose of "
                             f"{', '.join(METRICS_OF[target])}")


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
    if not hasattr(values, "__iter__"):
        raise FinetraceError(f"ids: {values!r} is neither a list nor the name of a column; give one whole number per "
                             "row, or leave ids out to use the rows' numbers")
    id_array = np.asarray(list(values))
    if id_array.shape != (rows,) or id_array.dtype.kind not in "iu":
        raise FinetraceError(f"ids: {len(id_array)} values of type {id_array.dtype} for {rows} rows of the training "
                             "dataset; give one whole number per row, or leave ids out to use the rows' numbers")
    if len(np.unique(id_array)) < rows:
        repeated_id = int(np.sort(id_array)[:-1][np.diff(np.sort(id_array)) == 0][0])
        raise FinetraceError(f"ids: {repeated_id} is the id of two rows; ids must differ")
    return id_array.astype(np.int64)
