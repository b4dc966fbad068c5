"""What an item needs of a machine: processors, GPUs, memory. Another machine, the same result.

What machines.yaml says comes first, then what earlier runs took (cost.json beside the results, `pipeline.times`), then
a guess by the stage. The file is about machines, not about the study: no item depends on it, and nothing runs again
when it changes.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from finetrace.config.base import parse, require, settings
from finetrace.config.yamlfile import read_yaml
from finetrace.layout import Layout
from finetrace.store.manifest import COST
from finetrace.study import Study

FILE = "machines.yaml"
ON_MODEL = frozenset((
    "pretrain", "adapt", "tune", "train", "train-tuned", "downstream", "hidden", "predictions", "cloze", "pairs",
    "edges", "kernel", "cross-task",
))
"""Stages that run a model, and so gain from a GPU."""
SPARE = 1.25
"""An item asks for so many times the memory that an earlier run took at its peak."""
GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """What one item asks for.

    cpus: cores, 1 or more, also its number of threads;  gpus: devices, a share such as 0.5 lets items share one;
    memory: bytes.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory: int = 2 * GIB


@settings
class NeedsSettings:
    """Needs of the items that a pattern names; what is absent stays as it is."""

    cpus: int | None = None
    """Cores, and threads."""
    gpus: float | None = None
    """GPUs; 0.5: two items share one."""
    memory_gib: float | None = None
    """Memory in GiB."""
    hours: float | None = None
    """Longest time; SLURM ends what takes longer."""

    def __post_init__(self) -> None:
        require(self.cpus is None or self.cpus >= 1, f"cpus: {self.cpus} is less than 1")
        require(self.gpus is None or self.gpus >= 0, f"gpus: {self.gpus} is negative")
        require(self.memory_gib is None or self.memory_gib > 0, f"memory_gib: {self.memory_gib} is not positive")
        require(self.hours is None or self.hours > 0, f"hours: {self.hours} is not positive")


@settings
class Machines:
    """machines.yaml."""

    needs: dict[str, NeedsSettings] = field(default_factory=dict)
    """Pattern of items (`*`, `train@*`) -> what they need; of several for one item the later wins, key by key."""
    slurm: tuple[str, ...] = ()
    """Further options of every sbatch, such as --partition=gpu."""


def read_machines(layout: Layout) -> Machines:
    """machines.yaml of the project; without the file, its defaults. Raises FinetraceError for a wrong key."""
    path = layout.home / FILE
    return parse(Machines, read_yaml(path) or {}, FILE) if path.is_file() else Machines()


def is_micro(study: Study) -> bool:
    """Whether every model is pre-trained here: a micro-BERT, which trains on one thread."""
    return not (study.models or study.model_folders or study.series)


class Estimate:
    """Needs of a study's items; learns from what items took.

    micro: whether every model of the study is small.
    """

    def __init__(self, machines: Machines, *, micro: bool):
        self._machines, self._micro = machines, micro
        self._peaks: dict[str, int] = {}

    def of(self, name: str, folders: Iterable[Path]) -> Needs:
        """Needs of one item. folders: its outputs, where an earlier run may have left its cost."""
        stage = name.partition("@")[0]
        usual = self._usual(stage)
        peak = _peak(folders) or self._peaks.get(stage, 0)
        said = self.said(name)
        return Needs(
            usual.cpus if said.cpus is None else said.cpus,
            usual.gpus if said.gpus is None else said.gpus,
            math.ceil(said.memory_gib * GIB) if said.memory_gib is not None
            else math.ceil(peak * SPARE) if peak else usual.memory,
        )

    def said(self, name: str) -> NeedsSettings:
        """What machines.yaml says about one item."""
        found: dict[str, int | float] = {}
        for pattern, entry in self._machines.needs.items():
            if fnmatchcase(name, pattern):
                found |= {key: value for key, value in vars(entry).items() if value is not None}
        return parse(NeedsSettings, found, FILE)

    def learn(self, name: str, folders: Iterable[Path]) -> None:
        """An item has ended: others of its stage ask for as much memory as it took."""
        stage = name.partition("@")[0]
        self._peaks[stage] = max(_peak(folders), self._peaks.get(stage, 0))

    def _usual(self, stage: str) -> Needs:
        if self._micro:
            return Needs()
        return Needs(cpus=4, gpus=1.0, memory=16 * GIB) if stage in ON_MODEL else Needs(cpus=2, memory=8 * GIB)


def _peak(folders: Iterable[Path]) -> int:
    """The most memory that was taken for one of these folders, bytes; 0 where nobody knows."""
    peaks = [0]
    for folder in folders:
        try:
            peaks.append(int(json.loads((folder / COST).read_text("utf-8"))["peak_memory_bytes"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(peaks)
