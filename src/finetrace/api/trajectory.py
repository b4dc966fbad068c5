"""One finished trajectory, as a notebook reads it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetrace.errors import FinetraceError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finetrace.longtable import LongTable
    from finetrace.models.sources import Source
    from finetrace.store.hidden import HiddenStates
    from finetrace.store.manifest import Manifest
    from finetrace.store.predictions import Predictions

Kind = Literal["cls", "mean"]
UNFINISHED = "unfinished"  # what `training.trace` calls a trace that has not ended, without importing torch


def open(place: str | Path) -> "Trajectory":
    """Open what a study left of one trajectory.

    Args:
        place: its folder, such as `outputs/micro-a/micro-sentiment/ft/s1` or `outputs/micro-a/pretrain`; of a training
            of your own the folder that `TraceCallback` or `trace` wrote.

    Returns:
        The trajectory. Files are read when they are asked for, and refused when they are unfinished or damaged.

    Raises:
        FinetraceError: there is no finished trajectory; the message names those that are near.
    """
    folder = Path(place)
    if not (folder / "trajectory").is_dir() and _is_trace(folder):
        return Trajectory(folder)
    if not (folder / "trajectory" / "manifest.json").is_file():
        if (folder / UNFINISHED).is_dir():
            raise FinetraceError(f"{place}: is the trace of a training that has not ended; let the training go on "
                                 "(docs/own-trainings.md)")
        parent = next((candidate for candidate in (folder, *folder.parents) if candidate.is_dir()), Path())
        near = sorted(path.parent.parent.as_posix() for path in parent.glob("**/trajectory/manifest.json"))[:5]
        hint = f"there are {', '.join(near)}" if near else "run the study first: finetrace repro"
        raise FinetraceError(f"{place}: holds no finished trajectory; {hint}")
    return Trajectory(folder)


def _is_trace(folder: Path) -> bool:
    """Whether a folder is itself the record of a training."""
    from finetrace.store.manifest import read_manifest

    return (folder / "manifest.json").is_file() and read_manifest(folder, verify=False).kind == "trajectory"


@dataclass(frozen=True)
class Trajectory:
    """The record of one training, and what the lenses made of it. Make it with `finetrace.open`.

    Of checkpoints that were made elsewhere (`series`) the record says where they lie; what no training has written,
    such as signals, is not there, and asking for it says so.
    """

    folder: Path
    """Its folder in outputs, or that of a trace."""

    def __repr__(self) -> str:
        return f"Trajectory({self.folder.as_posix()!r}: {len(self.steps)} checkpoints, lenses {', '.join(self.lenses)})"

    @cached_property
    def manifest(self) -> "Manifest":
        """How the training was made: settings, seeds, versions; `manifest.facts`: steps, parameters, label names."""
        from finetrace.store.manifest import read_manifest

        return read_manifest(self._record)

    @cached_property
    def _record(self) -> Path:
        inside = self.folder / "trajectory"
        return inside if inside.is_dir() else self.folder

    @property
    def label_names(self) -> list[str]:
        """The classes in the order of their numbers."""
        return list(self.manifest.facts.get("label_names", []))

    @cached_property
    def steps(self) -> list[int]:
        """Optimiser steps of the checkpoints, ascending; 0 is the model before the training."""
        return list(self._checkpoints)

    @cached_property
    def _checkpoints(self) -> "dict[int, Path | Source]":
        """Step -> folder, or where it lies of checkpoints that were made elsewhere."""
        import json

        from finetrace.models.given import POINTER
        from finetrace.models.sources import of_plain
        from finetrace.models.timeline import SERIES, read_series
        from finetrace.store.checkpoints import list_weights

        if (self._record / SERIES).is_file():
            return dict(read_series(self._record)[0])
        return {step: of_plain(json.loads((folder / POINTER).read_text("utf-8"))["source"])
                if (folder / POINTER).is_file() else folder
                for step, folder in list_weights(self._record / "checkpoints").items()}

    @cached_property
    def lenses(self) -> list[str]:
        """Names of the lenses that have looked, for `table` and `metrics`."""
        return sorted(path.parent.name for path in self.folder.glob("*/metrics.json")
                      if (path.parent / "table.parquet").is_file())

    def checkpoint(self, step: int) -> Path:
        """The folder with the weights after so many optimiser steps. Raises FinetraceError naming the steps there are,
        and for one that was made elsewhere and is no whole model in a folder."""
        from finetrace.models.sources import Local, label, verified

        if step not in self._checkpoints:
            raise FinetraceError(f"{self.folder}: step {step} was not recorded; there are "
                                 f"{', '.join(map(str, self.steps)) or 'none'}")
        source = self._checkpoints[step]
        if isinstance(source, Path):
            return source
        if isinstance(source, Local) and source.base is None:
            return verified(source)
        instead = (f"changes {label(source.base)}; save both as one model (merge_and_unload of peft)"
                   if isinstance(source, Local) and source.base is not None else
                   "lies on the hub; hidden_states takes its id with @REVISION")
        raise FinetraceError(f"{self.folder}: step {step}: {label(source)} {instead}")

    def signals(self, columns: list[str] | None = None) -> "pd.DataFrame":
        """What was recorded of every training example when it was seen, in time order.

        Args:
            columns: only these; by default step, micro_step, position, example_id, label, logits and loss (nats).
        """
        return self._frame("signals", columns)

    def history(self, columns: list[str] | None = None) -> "pd.DataFrame":
        """One row per optimiser step (`kind` train) or evaluation (eval): loss, learning rate, norms, accuracy."""
        return self._frame("history", columns)

    @cached_property
    def states(self) -> "HiddenStates":
        """Everything about the hidden states: rows, splits, tokens, arrays. Raises FinetraceError where none are
        there."""
        from finetrace.store.hidden import read_hidden

        return read_hidden(self.folder / "hidden")

    def hidden(self, step: int, layer: int, kind: Kind = "cls") -> "np.ndarray":
        """The hidden states of one layer of one checkpoint, one vector per example.

        Args:
            step: of the checkpoint, one of `states.steps`.
            layer: 0 the embeddings, l the output of layer l; negative ones count from the last.
            kind: the sentence token's vector, or the mean over tokens; tasks of words have that of their words only.

        Returns:
            (example, dim) float32 or float16, memory-mapped. Which examples: `hidden_rows()`.

        Raises:
            FinetraceError: the checkpoint, layer or kind was not extracted; names those that were.
        """
        states = self.states
        if step not in states.steps:
            raise FinetraceError(f"{states.folder}: has no step {step}; it has {', '.join(map(str, states.steps))}")
        layers = int(states.manifest.facts["layers"])
        if not -layers <= layer < layers:
            raise FinetraceError(f"{states.folder}: has no layer {layer}; it has 0 (embeddings) to {layers - 1}")
        return states.vectors(step, kind)[layer]

    def hidden_rows(self) -> "pd.DataFrame":
        """The examples of `hidden`, in its order: split, example_id, label (class number)."""
        import pandas as pd

        states = self.states
        return pd.DataFrame({"split": states.splits, "example_id": states.example_ids, "label": states.labels})

    @cached_property
    def answers(self) -> "Predictions":
        """Everything about the predictions: sets, rows, logits, features, heads. Raises FinetraceError where none are
        there."""
        from finetrace.store.predictions import read_predictions

        return read_predictions(self.folder / "predictions")

    def predictions(self, step: int, split: str = "validation") -> "pd.DataFrame":
        """What a checkpoint answers on an evaluation set.

        Args:
            step: of the checkpoint, one of `answers.steps`.
            split: train, validation, test, or a set out of distribution: one of `answers.names`.

        Returns:
            One row per example: example_id, label (class number), predicted (class number), and per class a column
            `logit/NAME` float32.

        Raises:
            FinetraceError: there is no such checkpoint or set; names those there are.
        """
        import pandas as pd

        answers = self.answers
        rows, logits = answers.rows(split), answers.logits(step)
        logits = logits[rows]
        return pd.DataFrame({"example_id": answers.example_ids[rows], "label": answers.labels[rows],
                             "predicted": logits.argmax(axis=1),
                             **{f"logit/{name}": logits[:, number] for number, name in enumerate(answers.label_names)}})

    def table(self, lens: str) -> "LongTable":
        """All numbers of a lens, one per row: `course` and `grid` ask for one of them, `frame` is the pandas data
        frame."""
        from finetrace.store.tables import read_long_table

        return read_long_table(self._lens(lens) / "table.parquet")

    def metrics(self, lens: str) -> dict[str, float]:
        """The few numbers of a lens by which trajectories are compared; "trajectory": those of the training."""
        import json

        return dict(json.loads((self._lens(lens) / "metrics.json").read_text("utf-8")))

    def _lens(self, lens: str) -> Path:
        from finetrace.store.manifest import read_manifest

        folder = self._record if lens == "trajectory" else self.folder / lens
        if not (folder / "metrics.json").is_file():
            raise FinetraceError(f"{self.folder}: no lens {lens!r} has looked; there are {', '.join(self.lenses)}")
        read_manifest(folder)
        return folder

    def _frame(self, name: str, columns: list[str] | None) -> "pd.DataFrame":
        from finetrace.store.tables import column_names, read_table

        self.manifest  # noqa: B018  (refuses a damaged trajectory)
        path = self._record / f"{name}.parquet"
        if not path.is_file():
            tables = ", ".join(sorted(file.stem for file in self._record.glob("*.parquet"))) or "none"
            raise FinetraceError(f"{self.folder}: has no {name}, which only a training records; its tables: {tables}")
        if columns is not None:
            names = column_names(path)
            if isinstance(columns, str):
                raise FinetraceError(f"{name}: {columns!r} is no list of its columns; they are {', '.join(names)}")
            columns = list(columns)
            if unknown := [column for column in columns if column not in names]:
                raise FinetraceError(f"{name}: has no column {unknown[0]!r}; it has {', '.join(names)}")
        return read_table(path, columns).to_pandas()
