"""The table of learning dynamics: courses of statistics over steps, to and from columns. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from finetrace.longtable import LongTable

ARMS = ("original", "adapted", "control")
DIFFERENCES = {"difference": ("adapted", "original"), "control-difference": ("control", "original"),
               "net-difference": ("adapted", "control")}
"""Arms that are one arm minus another; `net-difference` is the difference of the two differences."""
UNION = -1
"""The layer of what is known in any layer but the embeddings."""
COLUMNS: dict[str, type] = {"source": str, "task_or_corpus": str, "relation": str, "arm": str, "readout": str,
                            "layer": np.int32, "held_out": np.bool_, "step": np.int64, "statistic": str,
                            "value": np.float64, "low": np.float64, "high": np.float64, "p": np.float64, "n": np.int64,
                            "seeds": np.int64}


class Key(NamedTuple):
    """What a course is about."""

    source: str
    """edges | cloze | pairs | downstream."""
    item: str
    """Task, corpus of facts, set of minimal pairs, or task learned downstream."""
    arm: str
    statistic: str
    readout: str = ""
    """edges: layer | mix | full; cloze: own | trained | tuned."""
    layer: int = 0
    """Number of the layer; of a mix the last one in it; -1: any layer; 0 where none is meant."""
    relation: str = ""
    """Relation of the facts, or type:...; phenomenon of the pairs; empty: the mean over all."""
    held_out: bool = False
    """Facts that cannot be known, or pairs that cannot be told, as a control."""


@dataclass(frozen=True)
class Course:
    """A statistic over the steps; arrays are (step,) float64 except `steps`, int64. A summary of all steps stands at
    the last."""

    steps: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    """One-sided p-value of a difference, else NaN."""
    n: int
    """Test examples, targets, facts or pairs."""
    seeds: int

    @property
    def last(self) -> tuple[float, float, float]:
        """Value and interval at the last step."""
        return float(self.value[-1]), float(self.low[-1]), float(self.high[-1])


class Table:
    """Courses by key, in the order in which they were added."""

    def __init__(self) -> None:
        self._courses: dict[Key, Course] = {}

    def add(self, key: Key, steps: Any, value: Any, low: Any = None, high: Any = None, p: Any = None, *, n: int,
            seeds: int) -> None:
        """Add a course; what is left out is NaN. Courses without any known value are dropped."""
        value = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if not np.isfinite(value).any():
            return
        low, high, p = (np.full(len(value), np.nan) if end is None else np.atleast_1d(np.asarray(end, dtype=np.float64))
                        for end in (low, high, p))
        steps = np.atleast_1d(np.asarray(steps, dtype=np.int64))
        if key in self._courses or len(steps) != len(value):
            raise ValueError(f"{key}: is there already, or {len(value)} values do not fit {len(steps)} steps")
        self._courses[key] = Course(steps, value, low, high, p, n, seeds)

    def get(self, key: Key) -> Course | None:
        """The course, None if there is none."""
        return self._courses.get(key)

    def course(self, key: Key) -> Course:
        """The course; KeyError if there is none."""
        return self._courses[key]

    def select(self, **values: Any) -> Iterator[tuple[Key, Course]]:
        """The courses whose keys have these values, e.g. `select(source="edges", statistic="f1")`."""
        for key, course in self._courses.items():
            if all(getattr(key, name) == value for name, value in values.items()):
                yield key, course

    def items_of(self, source: str) -> list[str]:
        """The tasks or corpora of a source."""
        return list(dict.fromkeys(key.item for key in self._courses if key.source == source))

    def columns(self) -> dict[str, Any]:
        """Columns of table.parquet, one row per course and step; NaN stands for what is unknown."""
        rows = []
        for key, course in self._courses.items():
            shared = key._asdict() | {"task_or_corpus": key.item, "n": course.n, "seeds": course.seeds}
            rows += [shared | {"step": step, "value": value, "low": low, "high": high, "p": p}
                     for step, value, low, high, p
                     in zip(course.steps, course.value, course.low, course.high, course.p, strict=True)]
        return LongTable.of_rows(rows, COLUMNS).columns()

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any]) -> "Table":
        """The inverse of `columns`; rows of one course stand together."""
        rows = zip(*(list(columns[name]) for name in COLUMNS), strict=True)
        grouped: dict[Key, list[tuple]] = {}
        for source, item, relation, arm, readout, layer, held_out, step, statistic, *numbers in rows:
            key = Key(source, item, arm, statistic, readout, int(layer), relation, bool(held_out))
            grouped.setdefault(key, []).append((step, *numbers))
        table = cls()
        for key, course_rows in grouped.items():
            step, value, low, high, p, n, seeds = zip(*course_rows, strict=True)
            table.add(key, step, value, low, high, p, n=int(n[-1]), seeds=int(seeds[-1]))
        return table
