"""Settings of checkpoints that were made elsewhere: on the hub, in a folder, or a model of the study."""

from typing import Literal

from finetrace.config.base import require, settings

STEP = "{step}"
KEYS = {"id": ("id", "revision", "steps", "unit", "phases", "tokenizer", "keep"),
        "path": ("path", "pattern", "steps", "unit", "phases", "base", "tokenizer"), "model": ("model",)}
"""What says where checkpoints are, by the key that says it first."""
NAMES = {"id": "a hub id", "path": "a folder (path)", "model": "a model of the study"}


@settings
class Phase:
    """One of several lists of checkpoints that follow each other on one axis."""

    revision: str = ""
    """On the hub: commit, branch or tag; `{step}` stands for an entry of `steps`."""
    pattern: str = ""
    """In a folder: the names of the checkpoints' folders, with `{step}`."""
    steps: tuple[int, ...] | None = None
    """The checkpoints, as their names count them; in a folder by default all that are there."""
    after: int | None = None
    """Where on the axis, in optimiser steps, the phase begins; by default at the last step of the phase before."""

    def __post_init__(self) -> None:
        require(STEP in self.revision or STEP in self.pattern,
                "write {step} where the names of the checkpoints differ, in revision (hub) or pattern (folder)")
        _require_steps(self.steps)
        require(self.after is None or self.after >= 0, f"after: {self.after} is negative")


@settings
class SourceSettings:
    """Where checkpoints are that were made elsewhere: read there, one at a time."""

    id: str = ""
    """Hub id; `{step}` stands for an entry of `steps`, e.g. google/multiberts-seed_0-step_{step}k."""
    revision: str = "main"
    """Commit, branch or tag; `{step}` as in `id`, e.g. step{step}."""
    path: str = ""
    """Instead of `id`: a folder with a folder per checkpoint, or with one model; relative to the project folder."""
    pattern: str = ""
    """Names of the checkpoints' folders below `path`, `{step}` for the number; by default checkpoint-{step}, and the
    folder itself where there are none."""
    model: str = ""
    """Instead of `id`: a model of the study, of `models`, `model_folders` or `pretrain`."""
    steps: tuple[int, ...] | None = None
    """The checkpoints, as their names count them; by default 0 of a hub id, and all that are there of a folder."""
    unit: int = 1
    """Optimiser steps per unit of `steps`: 1000 where names count in thousands."""
    phases: tuple[Phase, ...] = ()
    """Instead of `revision` or `pattern`, and `steps`: several lists that follow each other on one axis."""
    base: str = ""
    """The model that adapters change: hub id or folder; by default what their adapter_config.json names."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer, where the checkpoints have none; by default that of the last checkpoint."""
    keep: bool = True
    """Whether fetched weights stay in the hub's cache after use; false saves disk and fetches again when asked."""

    def __post_init__(self) -> None:
        kinds = [key for key in KEYS if getattr(self, key)]
        require(len(kinds) == 1, f"names {' and '.join(kinds) or 'nothing'}; name one of id (hub), path (folder), "
                                 "model (of this study)")
        defaults = type(self).__dataclass_fields__
        for key in dict.fromkeys(key for keys in KEYS.values() for key in keys):
            require(key in KEYS[kinds[0]] or getattr(self, key) == defaults[key].default,
                    f"{key}: says nothing about {NAMES[kinds[0]]}; remove it")
        _require_steps(self.steps)
        require(self.unit >= 1, f"unit: {self.unit} is less than 1")
        if self.id and not self.phases and self.steps is None:
            object.__setattr__(self, "steps", (0,))
        self._check_names(kinds[0])

    def _check_names(self, kind: str) -> None:
        """Where the names of the checkpoints differ."""
        if self.phases:
            key, other = ("revision", "pattern") if kind == "id" else ("pattern", "revision")
            require(self.steps is None and getattr(self, key) in ("", "main") and STEP not in self.id,
                    f"phases: each has its own {key} and steps; remove those beside them")
            for number, phase in enumerate(self.phases):
                require(bool(getattr(phase, key)) and not getattr(phase, other),
                        f"phases.{number}: the names of a {'hub id' if kind == 'id' else 'folder'}'s checkpoints "
                        f"stand in {key}")
                require(kind == "path" or phase.steps is not None, f"phases.{number}.steps: is missing; the hub is not "
                                                                   "asked which there are")
            return
        if kind == "id":
            named = any(STEP in text for text in (self.id, self.revision))
            require(named or len(self.steps or ()) == 1, "id: write {step} where the names of the checkpoints "
                    "differ (or in revision)")
        require(not self.pattern or self.pattern.count(STEP) == 1,
                f"pattern: {self.pattern!r} does not have {{step}} once, e.g. checkpoint-{{step}}")


@settings
class SeriesSettings(SourceSettings):
    """A series of checkpoints that were made elsewhere, or a single model, and the tasks that it is looked at with."""

    tasks: str | tuple[str, ...] = ()
    """Tasks whose texts the checkpoints are looked at with; each makes a place NAME/TASK/given/s1."""
    head: str | tuple[str, ...] = ()
    """Those of `tasks` whose classes the checkpoints' own head tells."""
    labels: tuple[str, ...] = ()
    """The task's names of the classes in the order of the head's outputs; by default what the checkpoints' config
    says."""
    signals: bool = False
    """Whether `path` is a trajectory with signals, as finetrace's TraceCallback writes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for task in self.heads:
            require(task in self.looked_at_with, f"head: {task!r} is none of tasks ({', '.join(self.looked_at_with)}); "
                                                 "name it there, too")
        require(not self.labels or bool(self.heads), "labels: are of a head; name its task in `head`")
        require(len(set(self.labels)) == len(self.labels), f"labels: {list(self.labels)} names a class twice")
        require(bool(self.path) or not self.signals, "signals: are those of a folder; name it in `path`")
        require(not self.signals or (len(self.looked_at_with) == 1 and self.unit == 1 and not self.phases),
                "signals: are of one training on one task; name it, and no other, in `tasks`, without unit and phases")

    @property
    def looked_at_with(self) -> tuple[str, ...]:
        """`tasks` as a tuple."""
        return (self.tasks,) if isinstance(self.tasks, str) else self.tasks

    @property
    def heads(self) -> tuple[str, ...]:
        """`head` as a tuple; a trajectory with signals has its task's."""
        if self.signals:
            return self.looked_at_with
        return (self.head,) if isinstance(self.head, str) else self.head


@settings
class GivenSettings:
    """How the checkpoints of a series are looked at with one task."""

    head: bool
    """Whether their own head tells the task's classes."""
    labels: tuple[str, ...]
    """Names of its classes in the order of its outputs, or none."""
    recorded: str
    """The folder of a trajectory with signals, or empty."""
    max_length: int
    """Longest input in tokens, as in a fine-tuning on the task."""
    pieces: Literal["mean", "first"]
    """The vector of a word, as in a fine-tuning on the task."""


def _require_steps(steps: tuple[int, ...] | None) -> None:
    require(steps is None or (bool(steps) and list(steps) == sorted(set(steps)) and steps[0] >= 0),
            f"steps: {list(steps or ())} is not an ascending list of steps such as [0, 20, 60]")
