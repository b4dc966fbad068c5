"""Hidden states on disk: layer-major arrays per checkpoint, one index and one tokenisation for all of them.

    hidden/index.parquet                 one row per example: split, example_id, label, sentence, length, token_offset
    hidden/tokens.parquet                one row per kept token: row, position, token_id, special
    hidden/step-00000128/cls.npy         (layer, row, dim)     the sentence token of each example
    hidden/step-00000128/mean.npy        (layer, row, dim)     the mean over an example's tokens, special ones included
    hidden/step-00000128/span.npy        (layer, row, width)   tasks of words: the marked words;
                                         width is dim, or 2 dim for pairs
    hidden/step-00000128/tokens.npy      (layer, token, dim)   every token of the examples whose token_offset is not -1

Layer 0 is the embedding output, layer l the output of encoder layer l.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.arrays import read_array
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import read_table
from finetrace.store.threads import share

PREFIX = "step-"
NARROW = 256  # dimensions


@dataclass
class HiddenStates:
    """The hidden states of one trajectory. Arrays are memory-mapped: only what is used is read."""

    folder: Path
    manifest: Manifest
    splits: np.ndarray
    """(row,) str: the split of each example."""
    sentences: np.ndarray
    """(row,) int64: the sentence of each example within its split; in tasks of words, examples share sentences."""
    example_ids: np.ndarray
    """(row,) int64: its number in the split's table."""
    labels: np.ndarray
    """(row,) int64: its class."""
    offsets: np.ndarray
    """(sentence + 1,) int64: where the tokens of each kept sentence begin and end in the token axis."""
    sentence_rows: np.ndarray
    """(sentence,) int64: the row of each kept sentence."""
    token_ids: np.ndarray
    """(token,) int64."""
    special: np.ndarray
    """(token,) bool: added by the tokenizer ([CLS], </s>, ...)."""

    @cached_property
    def steps(self) -> list[int]:
        """Optimiser steps of the checkpoints, ascending."""
        return sorted(int(p.name.removeprefix(PREFIX)) for p in self.folder.glob(f"{PREFIX}*"))

    @property
    def spans(self) -> int:
        """Marked words per example: 0 in tasks of whole texts, 1 in tasks of words, 2 of word pairs."""
        return int(self.manifest.facts.get("spans", 0))

    @property
    def width(self) -> int:
        """Dimensions of an example's vector: those of two words stand one after the other."""
        return int(self.manifest.facts["dim"]) * max(1, self.spans)

    def kind(self, default: str) -> str:
        """Whose vectors stand for an example: in tasks of words its words (span), else `default` (cls or mean)."""
        return "span" if self.spans else default

    def sentence_codes(self, rows: np.ndarray) -> np.ndarray:
        """(row,) int64 from 0 on: rows of one sentence share a number; what is resampled together."""
        return np.unique(np.stack([np.unique(self.splits, return_inverse=True)[1][rows], self.sentences[rows]]), axis=1,
                         return_inverse=True)[1].ravel()

    @property
    def label_names(self) -> list[str]:
        return list(self.manifest.facts["label_names"])

    def chosen_layers(self, wanted: str | list[int], key: str) -> list[int]:
        """Numbers of the layers that a setting asks for, ascending: "all", or numbers, counted from the end where
        negative.

        key: the setting's, such as "hulls.layers", for the error that names a layer which is not there.
        """
        count = int(self.manifest.facts["layers"])
        if wanted == "all":
            return list(range(count))
        for layer in wanted:
            if not -count <= int(layer) < count:
                raise FinetraceError(f"params.yaml: {key}: {layer} does not exist; {self.folder} has layers 0 "
                                     f"(embeddings) to {count - 1}")
        return sorted({int(layer) % count for layer in wanted})

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split; an error that names the setting when there are none."""
        rows = np.flatnonzero(self.splits == split)
        if not len(rows):
            raise FinetraceError(f"{self.folder}: has no rows of the split {split!r}; add it to hidden.rows in "
                                 f"params.yaml (there are {', '.join(sorted(set(self.splits)))})")
        return rows

    def vectors(self, step: int, kind: str = "cls") -> np.ndarray:
        """(layer, row, width) of one checkpoint; kind: cls | mean (tasks of words have one kind only, see `kind`)."""
        kind = self.kind(kind)
        path = self._path(step, kind)
        if not path.is_file():
            raise FinetraceError(f"{path}: was not extracted; add {kind} to hidden.vectors in params.yaml")
        return self._checked(path, len(self.labels), self.width)

    def tokens(self, step: int) -> np.ndarray:
        """(layer, token, dim) of one checkpoint."""
        path = self._path(step, "tokens")
        if not path.is_file():
            raise FinetraceError(f"{path}: was not extracted; set hidden.token_rows in params.yaml")
        return self._checked(path, len(self.token_ids), self.manifest.facts["dim"])

    def _path(self, step: int, kind: str) -> Path:
        folder = self.folder / step_name(step)
        if not folder.is_dir():
            raise FinetraceError(f"{self.folder}: has no checkpoint {step}; it has {', '.join(map(str, self.steps))}")
        return folder / f"{kind}.npy"

    def _checked(self, path: Path, count: int, width: int) -> np.ndarray:
        values = read_array(path)
        shape = (self.manifest.facts["layers"], count, width)
        if values.shape != shape:
            raise FinetraceError(f"{path}: has shape {values.shape} instead of {shape}; delete {self.folder} "
                                 "and run the stage hidden again")
        return values


def step_name(step: int) -> str:
    """Folder name of a checkpoint's hidden states."""
    return f"{PREFIX}{step:08d}"


def read_hidden(folder: Path) -> HiddenStates:
    """Open the hidden states of one trajectory; truncated or unfinished ones are refused with a message."""
    manifest = read_manifest(folder)
    index, tokens = read_table(folder / "index.parquet"), read_table(folder / "tokens.parquet")
    starts, lengths = index["token_offset"].to_numpy(), index["length"].to_numpy()
    token_rows = np.flatnonzero(starts >= 0)
    bounds = np.concatenate([[0], np.cumsum(lengths[token_rows])]).astype(np.int64)
    return HiddenStates(folder, manifest, np.array(index["split"].to_pylist(), dtype=str), index["sentence"].to_numpy(),
                        index["example_id"].to_numpy(), index["label"].to_numpy(), bounds, token_rows,
                        tokens["token_id"].to_numpy(), tokens["special"].to_numpy(zero_copy_only=False).astype(bool))


def finite(values: np.ndarray, hidden: HiddenStates, step: int, kind: str, layer: int) -> np.ndarray:
    """One layer (row, dim) as it came, or an error that names file, layer and first row with NaN or infinity.

    kind: cls | mean | tokens.
    """
    kind = kind if kind == "tokens" else hidden.kind(kind)
    good = np.isfinite(values).all(axis=-1)
    if not good.all():
        raise FinetraceError(f"{hidden.folder / step_name(step) / f'{kind}.npy'} layer {layer} row "
                             f"{int(np.argmin(good))}: holds NaN or infinity; the training diverged (lower "
                             "train.learning_rate), or hidden.dtype float16 is too small for this model (use float32)")
    return values


class LayerMajorFile:
    """A (layer, item, dim) .npy file that is written item by item in any order, without holding it in memory."""

    def __init__(self, path: Path, layers: int, items: int, dim: int, dtype: str):
        self.shape, self.dtype = (layers, items, dim), np.dtype(dtype)
        with open(path, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": np.lib.format.dtype_to_descr(self.dtype),
                                                          "fortran_order": False, "shape": self.shape})
            self.start = stream.tell()
            stream.truncate(self.start + layers * items * dim * self.dtype.itemsize)
        self._file = os.open(path, os.O_WRONLY)

    def put(self, item: int, block: np.ndarray) -> None:
        """Write consecutive items of all layers: block (layer, count, dim), from item number `item` on."""
        layers, count, dim = block.shape
        if (layers, dim) != (self.shape[0], self.shape[2]) or not 0 <= item <= self.shape[1] - count:
            raise ValueError(f"block {block.shape} at {item} does not fit {self.shape}")
        block = np.ascontiguousarray(block, dtype=self.dtype)
        for layer in range(layers):
            where = self.start + (layer * self.shape[1] + item) * dim * self.dtype.itemsize
            os.pwrite(self._file, block[layer].tobytes(), where)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "LayerMajorFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def fit_threads(hidden: HiddenStates) -> None:
    """One BLAS thread for narrow states: for such small products a second thread costs more than it gains, above all
    where several stages run side by side; for others this item's share of the cores."""
    threads = 1 if hidden.manifest.facts["dim"] <= NARROW else share()
    if threads is not None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
