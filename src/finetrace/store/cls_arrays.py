"""Reader of the French study's sentence vectors: arrays appended one after the other to a single .npy file.

    train vectors of each layer (row, dim), test vectors of each layer (row, dim), train labels (row,), test labels (row,)

with layers 5, 7, 9, 11, 12, so twelve arrays; float32 vectors of 768 dimensions, 5,997 and 5,999 rows, int64 labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError

LAYERS = (5, 7, 9, 11, 12)


@dataclass(frozen=True)
class ClsArrays:
    """Sentence vectors of one model and state. layers: which;  train, test: (layer, row, dim) float;  train_labels,
    test_labels: (row,) int64. The axes are those of the lens probes: a problem is a layer.
    """

    layers: tuple[int, ...]
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


def read_cls_arrays(path: Path, layers: tuple[int, ...] = LAYERS) -> ClsArrays:
    """Read such a file; one that is truncated, too long or of other shapes is an error that names the array."""
    names = [*(f"train layer {l}" for l in layers), *(f"test layer {l}" for l in layers), "train labels", "test labels"]
    arrays = []
    try:
        with open(path, "rb") as stream:
            for name in names:
                try:
                    arrays.append(np.lib.format.read_array(stream, allow_pickle=False))
                except (ValueError, EOFError) as error:
                    raise FinetraceError(f"{path}: array {len(arrays) + 1} of {len(names)} ({name}) cannot be read: {error}; "
                                         "the file is truncated or holds other layers") from error
            if stream.read(1):
                raise FinetraceError(f"{path}: goes on after {len(names)} arrays; name the layers that it holds")
    except FileNotFoundError as error:
        raise FinetraceError(f"{path}: no such file") from error
    count = len(layers)
    train, test, labels = arrays[:count], arrays[count:2 * count], arrays[2 * count:]
    for side, vectors, own in (("train", train, labels[0]), ("test", test, labels[1])):
        for layer, array in zip(layers, vectors, strict=True):
            if array.shape != (*own.shape, train[0].shape[-1]) or own.ndim != 1:
                raise FinetraceError(f"{path}: {side} layer {layer} has shape {array.shape}, its labels {own.shape}; the arrays "
                                     "are not in the order train, test, labels")
    return ClsArrays(tuple(layers), np.stack(train), np.stack(test), labels[0].astype(np.int64), labels[1].astype(np.int64))
