"""Inputs of the original hull-probe programs: the INI settings, label sets,
labelled examples and text embeddings they read.

    labels       one label per line; sorted and made unique
    entities     text<TAB>label, one example per line
    embeddings   one vector per line, decimals separated by blanks, in the order of the entities
"""

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.originals.directprobe_files import numbered_lines

MODES = ("probing", "prediction", "batch_probing")


@dataclass(frozen=True)
class Settings:
    """An INI file of either program; paths are resolved against the folder of the file, absent ones are None."""

    mode: str
    """probing | prediction | batch_probing."""
    output_path: Path
    label_set_path: Path
    entities_path: Path
    embeddings_path: Path | None
    test_entities_path: Path | None
    test_embeddings_path: Path | None
    batch_embeddings_path: Path | None
    """Folder with one sub-folder per checkpoint, each with one file per layer (2022)."""
    probing_cluster_path: Path | None
    """clusters.txt of an earlier run, for prediction and batch_probing."""
    rate: float
    """Stride of the original's search, as a share of the merges; read for completeness, has no effect on the result."""
    enable_cuda: bool
    """Read as a truth value (the original took the text "False" for true); has no effect here."""
    comments: str


@dataclass(frozen=True)
class Examples:
    """Labelled vectors."""

    texts: list[str]
    labels: list[str]
    points: np.ndarray
    """(example, dim) float32, as the original stored them."""


def read_settings(path: Path) -> Settings:
    """Read an INI file with `${section:key}` and `${key}` references."""
    parser = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    try:
        parser.read_string("\n".join(line for _, line in numbered_lines(path)), source=str(path))
    except configparser.Error as error:
        raise FinetraceError(f"{path}: is not an INI file: {' '.join(str(error).split())}") from None

    def text(section: str, key: str) -> str | None:
        try:
            value = parser.get(section, key, fallback="").strip()
        except configparser.InterpolationError as error:
            raise FinetraceError(f"{path}: [{section}] {key}: {' '.join(str(error).split())}") from None
        return value or None

    def place(section: str, key: str) -> Path | None:
        value = text(section, key)
        return None if value is None else path.parent / Path(value).expanduser()

    def needed(section: str, key: str) -> Path:
        value = place(section, key)
        if value is None:
            raise FinetraceError(f"{path}: has no {key} in [{section}]; add it")
        return value

    mode = text("clustering", "mode") or "probing"
    if mode not in MODES:
        raise FinetraceError(f"{path}: [clustering] mode is {mode!r}; choose {', '.join(MODES)}")
    return Settings(
        mode, needed("run", "output_path"), needed("data", "label_set_path"), needed("data", "entities_path"),
        place("data", "embeddings_path"), place("data", "test_entities_path"), place("data", "test_embeddings_path"),
        place("data", "batch_embeddings_path"), place("clustering", "probing_cluster_path"),
        _share(path, text("clustering", "rate") or "0.01"), _truth(path, text("clustering", "enable_cuda") or "false"),
        text("run", "comments") or "",
    )


def read_labels(path: Path) -> list[str]:
    """The label set, sorted, each label once; empty lines do not count."""
    labels = sorted({line for _, line in numbered_lines(path) if line})
    if not labels:
        raise FinetraceError(f"{path}: lists no label; write one per line")
    return labels


def read_entities(path: Path, labels: list[str] | None = None) -> tuple[list[str], list[str]]:
    """Texts and labels of an entities file, in order; `labels`: the label set that every label must be in.

    The last tab separates, so a text may be empty, or hold tabs or blanks at its ends (the original failed on these).
    """
    texts, entity_labels = [], []
    known = None if labels is None else set(labels)
    for number, line in numbered_lines(path):
        text, tab, label = line.rpartition("\t")
        if not tab or not label:
            raise FinetraceError(f"{path} line {number}: {line!r} is not text<TAB>label")
        if known is not None and label not in known:
            raise FinetraceError(f"{path} line {number}: the label {label!r} is not in the label set; add it there")
        texts.append(text)
        entity_labels.append(label)
    return texts, entity_labels


def read_embeddings(path: Path, rows: int | None = None) -> np.ndarray:
    """(example, dim) float32 of a text file of vectors; `rows`: how many there must be."""
    vectors: list[np.ndarray] = []
    for number, line in numbered_lines(path):
        try:
            vector = np.array(line.split(), dtype=np.float32)
        except ValueError as error:
            raise FinetraceError(f"{path} line {number}: holds something that is not a number ({error})") from None
        if not len(vector) or not np.isfinite(vector).all():
            raise FinetraceError(f"{path} line {number}: {'is empty' if not len(vector) else 'holds NaN or infinity'}")
        if vectors and len(vector) != len(vectors[0]):
            raise FinetraceError(f"{path} line {number}: has {len(vector)} numbers, the lines before have "
                                 f"{len(vectors[0])}")
        vectors.append(vector)
    if rows is not None and len(vectors) != rows:
        raise FinetraceError(f"{path}: has {len(vectors)} vectors for {rows} entities; the two files "
                             "must be line by line")
    return np.array(vectors, np.float32).reshape(len(vectors), -1)


def read_examples(entities: Path, embeddings: Path, labels: list[str] | None = None) -> Examples:
    """Entities and their embeddings together."""
    texts, entity_labels = read_entities(entities, labels)
    return Examples(texts, entity_labels, read_embeddings(embeddings, len(texts)))


def batch_files(folder: Path) -> dict[str, dict[int, Path]]:
    """Embedding files by checkpoint and layer of a batch folder: <iteration>/<layer>.txt, both in numeric order."""
    if not folder.is_dir():
        raise FinetraceError(f"{folder}: is not a folder; name the one that holds a folder per checkpoint")
    checkpoints = {}
    for checkpoint in sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: (_as_number(p.name), p.name)):
        layers = {int(file.stem): file for file in checkpoint.glob("*.txt") if file.stem.isdigit()}
        if layers:
            checkpoints[checkpoint.name] = dict(sorted(layers.items()))
    if not checkpoints:
        raise FinetraceError(f"{folder}: holds no <checkpoint>/<layer>.txt; each layer's vectors are a "
                             "file such as 5/12.txt")
    return checkpoints


def _as_number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return float("inf")


def _share(path: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise FinetraceError(f"{path}: [clustering] rate is {text!r}; give a share in (0, 1], such as 0.01")
    return value


def _truth(path: Path, text: str) -> bool:
    truth_values = configparser.ConfigParser.BOOLEAN_STATES
    if text.lower() not in truth_values:
        raise FinetraceError(f"{path}: [clustering] enable_cuda is {text!r}; write True or False")
    return truth_values[text.lower()]
