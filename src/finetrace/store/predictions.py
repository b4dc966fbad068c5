"""Predictions on disk: logits of every set and features of some rows per checkpoint, one index for all of them.

    predictions/index.parquet                   one row per example: set, example_id, label, sentence,
                                                feature_row (or -1)
    predictions/step-00000128/logits.npy        (example, class) float32, in the order of the index
    predictions/step-00000128/features.npy      (row, dim) float32, what goes into the head's last linear layer
    predictions/step-00000128/weight.npy        (class, dim) float32 of that layer
    predictions/step-00000128/bias.npy          (class,) float32; zeros where the layer has none

Sets are train (some rows), validation, test, and those out of distribution by their names.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.arrays import read_array
from finetrace.store.hidden import PREFIX, step_name
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import read_table

SPLITS = ("train", "validation", "test")


@dataclass
class Predictions:
    """The predictions of one trajectory. Arrays are memory-mapped: only what is used is read."""

    folder: Path
    manifest: Manifest
    sets: np.ndarray
    """(example,) str: the set of each example."""
    example_ids: np.ndarray
    """(example,) int64: its number in the set's table."""
    labels: np.ndarray
    """(example,) int64: its class."""
    sentences: np.ndarray
    """(example,) int64: its sentence within the set; in tasks of words, examples share sentences."""
    feature_rows: np.ndarray
    """(example,) int64: its row in features.npy, or -1."""

    @cached_property
    def steps(self) -> list[int]:
        """Optimiser steps of the checkpoints, ascending."""
        return sorted(int(p.name.removeprefix(PREFIX)) for p in self.folder.glob(f"{PREFIX}*"))

    @property
    def kept_step(self) -> int:
        """The checkpoint of which the training's final metrics speak."""
        return int(self.manifest.facts["kept_step"])

    @property
    def label_names(self) -> list[str]:
        return list(self.manifest.facts["label_names"])

    @cached_property
    def names(self) -> list[str]:
        """The sets: those of the task itself, then those out of distribution."""
        return list(dict.fromkeys(self.sets.tolist()))

    def rows(self, name: str) -> np.ndarray:
        """Positions of a set's examples, (example,) int64; an error that lists the sets when there is no such set."""
        positions = np.flatnonzero(self.sets == name)
        if not len(positions):
            raise FinetraceError(f"{self.folder}: has no set {name!r}; it has {', '.join(self.names)} (params.yaml: "
                                 "predictions.sets)")
        return positions

    def with_features(self, name: str) -> np.ndarray:
        """Positions of a set's examples whose features are kept: (row,) int64."""
        rows = self.rows(name)
        return rows[self.feature_rows[rows] >= 0]

    def logits(self, step: int) -> np.ndarray:
        """(example, class) float32 of one checkpoint."""
        return self._read(step, "logits", (len(self.labels), len(self.label_names)))

    def features(self, step: int, name: str) -> np.ndarray:
        """(row, dim) float32 of the examples `with_features` of a set, in their order."""
        values = self._read(step, "features", (int((self.feature_rows >= 0).sum()), self.manifest.facts["dim"]))
        return np.asarray(values[self.feature_rows[self.with_features(name)]])

    def weight(self, step: int) -> np.ndarray:
        """(class, dim) float32 of one checkpoint's head."""
        return self._read(step, "weight", (len(self.label_names), self.manifest.facts["dim"]))

    def bias(self, step: int) -> np.ndarray:
        """(class,) float32."""
        return self._read(step, "bias", (len(self.label_names),))

    def _read(self, step: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        folder = self.folder / step_name(step)
        if not folder.is_dir():
            raise FinetraceError(f"{self.folder}: has no checkpoint {step}; it has {', '.join(map(str, self.steps))}")
        values = read_array(folder / f"{kind}.npy")
        if values.shape != shape:
            raise FinetraceError(f"{folder / f'{kind}.npy'}: has shape {values.shape} instead of {shape}; delete "
                                 f"{self.folder} and run the stage predictions again")
        return values


def read_predictions(folder: Path) -> Predictions:
    """Open the predictions of one trajectory; truncated or unfinished ones are refused with a message."""
    manifest = read_manifest(folder)
    index = read_table(folder / "index.parquet")
    columns = {name: index[name].to_numpy().astype(np.int64)
               for name in ("example_id", "label", "sentence", "feature_row")}
    return Predictions(folder, manifest, np.array(index["set"].to_pylist()), columns["example_id"], columns["label"],
                       columns["sentence"], columns["feature_row"])
