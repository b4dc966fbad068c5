"""Files of the original hull-probe programs: DirectProbe (2021) and its sequel on fine-tuning (2022).

Written here in their exact layout, so that scripts made for them go on working; clusters are read, too, as old ones can
be used. Text is UTF-8, numbers have four decimals, clusters are written `number-label`. An undefined number is written
`nan`; the original wrote zeros, which `label_distances(..., missing="zero")` gives.

    clusters.txt       one cluster number per training line                    dis.txt     (0-A, 1-B): 5.0000
    prediction.txt     gold<TAB>0-A,1.0000<TAB>1-B,2.0000 ... ascending        vec.txt     A---B,5.0000
    inside_max.txt, inside_mean.txt, outside_min.txt    A,1.5811
    batch_vec/<iteration>.txt, ...    header " ,1,2,...,12", then A---B,v1,...,v12 or A,v1,...,v12

Inputs are read by `originals.directprobe_inputs`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.files import write_text

PAIR = "---"
PLACES = 4


def write_clusters(path: Path, assignment: np.ndarray) -> None:
    """clusters.txt: the cluster number of each training line. assignment: (point,) int."""
    _write(path, (str(int(number)) for number in assignment))


def read_clusters(path: Path, points: int | None = None) -> np.ndarray:
    """(point,) int64 of clusters.txt; `points`: how many lines there must be."""
    clusters = []
    for number, line in numbered_lines(path):
        if not line.strip().isdigit():
            raise FinetraceError(f"{path} line {number}: {line!r} is not a cluster number; write one "
                                 "whole number per line")
        clusters.append(int(line))
    if points is not None and len(clusters) != points:
        raise FinetraceError(f"{path}: has {len(clusters)} lines for {points} points; it belongs to other data")
    return np.array(clusters, np.int64)


def write_distances(path: Path, cluster_labels: Sequence[str] | np.ndarray, distances: np.ndarray) -> None:
    """dis.txt: distances of clusters of different label. cluster_labels: (cluster,);
    distances: (cluster, cluster) float."""
    names = [f"{i}-{label}" for i, label in enumerate(cluster_labels)]
    count = len(names)
    _write(path, (f"({names[i]}, {names[j]}): {distances[i][j]:.{PLACES}f}" for i in range(count)
                  for j in range(i + 1, count)
                  if cluster_labels[i] != cluster_labels[j]))


def write_prediction(
    path: Path, gold: Sequence[str] | np.ndarray, order: np.ndarray, distances: np.ndarray,
    cluster_labels: Sequence[str] | np.ndarray,
) -> None:
    """prediction.txt. gold: (point,) labels; order, distances: (point, rank) of
    `finetrace.lenses.hulls.partition.predict`."""
    _write(path,
           ("\t".join([str(label), *(f"{k}-{cluster_labels[k]},{d:.{PLACES}f}"
                                     for k, d in zip(ranks, row, strict=True))])
            for label, ranks, row in zip(gold, order, distances, strict=True)))


def write_label_pairs(path: Path, classes: Sequence[str] | np.ndarray, vector: np.ndarray) -> None:
    """vec.txt: distances of label pairs. classes: (label,) in order; vector: (pair,) over pairs a < b."""
    _write(path, (f"{name},{value:.{PLACES}f}" for name, value in zip(pair_names(classes), vector, strict=True)))


def write_label_values(path: Path, classes: Sequence[str] | np.ndarray, values: np.ndarray) -> None:
    """inside_max.txt, inside_mean.txt or outside_min.txt: one number per label. classes, values: (label,)."""
    _write(path, (f"{label},{value:.{PLACES}f}" for label, value in zip(classes, values, strict=True)))


def write_batch_table(path: Path, names: Sequence[str], table: np.ndarray, layers: Sequence[int] | None = None) -> None:
    """A table of the batch mode, such as batch_vec/<iteration>.txt.

    names: (row,) labels, or `pair_names` of them; table: (row, layer) float;
    layers: their numbers, by default 1, 2, ... .
    """
    table = np.asarray(table)
    numbers = list(range(1, table.shape[1] + 1) if layers is None else layers)
    if table.shape != (len(names), len(numbers)):
        raise ValueError(f"table has shape {table.shape} for {len(names)} names and {len(numbers)} layers")
    rows = (",".join([name, *(f"{value:.{PLACES}f}" for value in row)]) for name, row in zip(names, table, strict=True))
    _write(path, [",".join([" ", *map(str, numbers)]), *rows])


def pair_names(classes: Sequence[str] | np.ndarray) -> list[str]:
    """`A---B` for each pair of labels a < b, in the order of the distance vector."""
    return [f"{classes[a]}{PAIR}{classes[b]}" for a in range(len(classes)) for b in range(a + 1, len(classes))]


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text without the line end) of a UTF-8 file;
    lines end at newlines only, not at other separators."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise FinetraceError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise FinetraceError(f"{path}: is a folder; name the file in it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FinetraceError(f"{path} line {line}: is not UTF-8; convert the file") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    return [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1)]


def _write(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))
