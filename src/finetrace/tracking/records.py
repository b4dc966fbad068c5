"""Records of runs, as plain data: the collector reads them from files, the publisher writes them into MLflow."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetrace.tracking.checkpoints import Checkpoints
from finetrace.tracking.series import Series


@dataclasses.dataclass(frozen=True)
class DataInput:
    """The data set that a training read."""

    name: str
    digest: str
    source: str
    profile: dict[str, Any]


@dataclasses.dataclass
class RunContent:
    """What a run holds. artifacts: path in the run -> file to copy, or the text of a small file."""

    params: dict[str, str] = dataclasses.field(default_factory=dict)
    series: list[Series] = dataclasses.field(default_factory=list)
    finals: dict[str, float] = dataclasses.field(default_factory=dict)
    final_step: int = 0
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    artifacts: dict[str, Path | str] = dataclasses.field(default_factory=dict)
    data: DataInput | None = None


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One run of MLflow. kind: trajectory | lens | cell | tune | trial | pretrain | adapt | downstream | dynamics |
    comparison | cross-task | directprobe | atlas.

    name: children start with what tells them apart, because MLflow's list cuts names at the end;
    key: what was asked for (a live run carries it too); identity: what came out of it, by content;
    parent: identity of the parent's record, or ""; state: MLflow's run state; load: reads the content when needed.
    """

    kind: str
    name: str
    key: str
    identity: str
    parent: str
    state: str
    started_at_ms: int
    ended_at_ms: int | None
    load: Callable[[], RunContent]
    accepted: str = ""
    """Why an author vouches for this result of other code (`finetrace accept`)."""
    shown: str = ""
    """How MLflow's list shows it; by its name where this is empty."""
    headlines: dict[str, float] = dataclasses.field(default_factory=dict)
    """Headline metrics of the lenses at this place, which the run of the training carries, too."""
    members: tuple[str, ...] = ()
    """Identities of the runs that a cell is made of."""
    checkpoints: Checkpoints | None = None
    """What a training has kept, and what the lenses measured at it."""


@dataclasses.dataclass
class Collected:
    """records: parents before children; absent: what the study asks for and is not there yet; problems: damage."""

    records: list[RunRecord] = dataclasses.field(default_factory=list)
    absent: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
