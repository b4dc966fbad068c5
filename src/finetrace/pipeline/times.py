"""How long items took, for the order of work and the time to go."""

import json
from bisect import insort
from collections.abc import Sequence
from pathlib import Path

from finetrace.store.files import write_json

GUESS = {
    "tune": 90.0,
    "pretrain": 90.0,
    "adapt": 30.0,
    "train": 20.0,
    "train-tuned": 20.0,
    "cloze": 20.0,
    "edges": 20.0,
    "downstream": 20.0,
    "kernel": 10.0,
    "pairs": 10.0,
    "probes": 10.0,
    "similarity": 5.0,
    "hulls": 5.0,
    "inputs": 0.1,
}
"""Seconds of stages that never ran here, of a micro-BERT; others: 2."""


class Times:
    """Seconds by item, kept in a file from run to run; a damaged file is as good as none."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: dict[str, float] = {}
        self._of_stage: dict[str, list[float]] = {}
        """Stage -> seconds of its items, in rising order."""
        try:
            content = json.loads(path.read_text("utf-8"))
            for name, value in {str(name): float(value) for name, value in content.items()}.items():
                self._put(name, value)
        except (OSError, ValueError, AttributeError, TypeError):
            pass

    def of(self, name: str) -> float:
        """An item's own last time, else the median of its stage, else a guess."""
        if name in self.seconds:
            return self.seconds[name]
        stage = name.split("@")[0]
        alike = self._of_stage.get(stage)
        return _middle(alike) if alike else GUESS.get(stage, 2.0)

    def knows(self, name: str) -> bool:
        """Whether `of` is more than a guess: the item, or one of its stage, has run here; copies take no time."""
        stage = name.split("@")[0]
        return stage == "inputs" or stage in self._of_stage

    def add(self, name: str, seconds: float) -> None:
        self._put(name, round(seconds, 2))

    def _put(self, name: str, seconds: float) -> None:
        alike = self._of_stage.setdefault(name.split("@")[0], [])
        if name in self.seconds:
            alike.remove(self.seconds[name])
        insort(alike, seconds)
        self.seconds[name] = seconds

    def write(self) -> None:
        write_json(self.path, self.seconds)

    @staticmethod
    def text(seconds: float) -> str:
        """`about 3 min to go`."""
        if seconds < 90:
            return f"about {max(1, round(seconds))} s to go"
        return f"about {round(seconds / 60)} min to go" if seconds < 5400 else f"about {seconds / 3600:.1f} h to go"


def _middle(rising: Sequence[float]) -> float:
    """The median of numbers in rising order."""
    half = len(rising) // 2
    return rising[half] if len(rising) % 2 else (rising[half - 1] + rising[half]) / 2
