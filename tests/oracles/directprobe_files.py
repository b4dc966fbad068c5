"""Output files of the original hull-probe programs read back, to see what was written; see
`originals.directprobe_files`."""

from pathlib import Path

import numpy as np


def read_distances(path: Path) -> dict[tuple[tuple[int, str], tuple[int, str]], float]:
    """Distance by pair of (cluster number, label), of dis.txt."""
    found = {}
    for line in _lines(path):
        names, value = line.split("): ")
        first, second = names.removeprefix("(").split(", ")
        found[_cluster(first), _cluster(second)] = float(value)
    return found


def read_prediction(path: Path) -> list[tuple[str, list[tuple[int, str, float]]]]:
    """Gold label and (cluster number, its label, distance) in the file's order, for each line of prediction.txt."""
    found = []
    for line in _lines(path):
        gold, *fields = line.split("\t")
        ranked = [field.rsplit(",", 1) for field in fields]
        found.append((gold, [(*_cluster(name), float(value)) for name, value in ranked]))
    return found


def read_label_pairs(path: Path) -> dict[tuple[str, str], float]:
    """Distance by pair of labels, of vec.txt."""
    return {tuple(name.split("---")): value for name, value in read_label_values(path).items()}


def read_label_values(path: Path) -> dict[str, float]:
    """Number by label, of inside_max.txt, inside_mean.txt or outside_min.txt."""
    return {name: float(value) for name, value in (line.rsplit(",", 1) for line in _lines(path))}


def read_batch_table(path: Path) -> tuple[list[str], list[int], np.ndarray]:
    """Row names, layer numbers and (row, layer) float64 of a table of the batch mode."""
    head, *lines = _lines(path)
    layers = [int(field) for field in head.split(",")[1:]]
    rows = [line.rsplit(",", len(layers)) for line in lines]
    return [name for name, *_ in rows], layers, np.array([fields for _, *fields in rows], dtype=np.float64)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").removesuffix("\n").split("\n")


def _cluster(name: str) -> tuple[int, str]:
    number, label = name.split("-", 1)
    return int(number), label
