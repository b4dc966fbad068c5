"""Settings of learning dynamics: which trajectories the lenses edges and cloze look at, and how they are compared."""

import re
from typing import Any, Literal

from finetrace.config.base import require, settings
from finetrace.config.training import TrainSettings
from finetrace.layout import is_slug

Checkpoints = Literal["all", "ends"] | list[int]
_PLACE = re.compile(r"[^/]+/(pretrain|adapt|[^/]+/[^/]+/s\d+)")


def require_place(key: str, place: str) -> None:
    """For `__post_init__`: reject what is not a trajectory's folder in outputs."""
    require(bool(_PLACE.fullmatch(place)), f"{key}: {place!r} is not a trajectory's folder in outputs; write MODEL/pretrain, "
                                           "MODEL/adapt or MODEL/TASK/METHOD/sSEED")


@settings
class EdgeProbeSettings:
    """One trajectory that the lens edges looks at."""

    trajectory: str
    """Its folder in outputs: MODEL/pretrain, MODEL/adapt or MODEL/TASK/METHOD/sSEED."""
    checkpoints: Checkpoints | None = None
    """Which of its checkpoints: all, the first and last, or these steps (first and last are always in); by default as `edges`
    says."""

    def __post_init__(self) -> None:
        require_place("trajectory", self.trajectory)


@settings
class ClozeProbeSettings:
    """One trajectory that the lens cloze looks at."""

    trajectory: str
    """Its folder in outputs: MODEL/pretrain, MODEL/adapt or MODEL/TASK/METHOD/sSEED."""
    facts: str
    """What is asked: an entry of `facts` or `fact_files`."""
    corpus: str = "world"
    """Texts on which heads of single layers are trained: world, an entry of `corpora`, or a task."""
    checkpoints: Checkpoints | None = None
    """Which of its checkpoints: all, the first and last, or these steps (first and last are always in); by default as `cloze`
    says."""

    def __post_init__(self) -> None:
        require_place("trajectory", self.trajectory)


@settings
class DownstreamSettings:
    """One task, learned from each checkpoint of a trajectory of masked-word training."""

    trajectory: str
    """Its folder in outputs: MODEL/pretrain or MODEL/adapt."""
    task: str
    """A task of `tasks` or `task_files`."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """From which checkpoints: all, the first and last, or these steps; first and last are always in."""
    seeds: int = 1
    """Trainings per checkpoint."""
    train: dict[str, Any] | None = None
    """Changes of `train`, after those of `by_task`; seeds, order and dropout are those of a training with the same seed."""

    def __post_init__(self) -> None:
        require_place("trajectory", self.trajectory)
        require(self.trajectory.split("/")[1] in ("pretrain", "adapt"),
                f"trajectory: {self.trajectory} is a fine-tuning; name MODEL/pretrain or MODEL/adapt")
        require(self.seeds >= 1, f"seeds: {self.seeds} is less than 1")
        known = TrainSettings.__dataclass_fields__
        for key in self.train or {}:
            require(key in known, f"train.{key}: is not a key of train; known: {', '.join(sorted(known))}")


@settings
class DynamicsSettings:
    """What is learned when: trajectories on one time axis, and what adaptation does to them.

    Each list has one trajectory per pre-training seed, in the same order; the seeds are resampled together with the examples.
    """

    original: tuple[str, ...]
    """Folders in outputs of trajectories that the lenses edges or cloze looked at."""
    adapted: tuple[str, ...] = ()
    """The same after adaptation, one per entry of `original`."""
    control: tuple[str, ...] = ()
    """The same after as much training on the original corpus, one per entry of `original`."""
    downstream: tuple[str, ...] = ()
    """Entries of the section downstream that start from these trajectories."""
    sources: tuple[Literal["edges", "cloze"], ...] = ("edges", "cloze")
    """Lenses that are compared; each must have looked at every trajectory named here."""
    step_unit: int = 0
    """Unit u of the logarithmic time axis log10(1 + step / u), in steps; 0: the first step after 0."""
    draws: int = 1000
    """Resamplings of the multi-bootstrap behind the 95 % intervals."""

    def __post_init__(self) -> None:
        require(bool(self.original), "original: names no trajectory")
        for key in ("original", "adapted", "control"):
            for place in getattr(self, key):
                require_place(key, place)
        for key in ("adapted", "control"):
            require(len(getattr(self, key)) in (0, len(self.original)),
                    f"{key}: names {len(getattr(self, key))} trajectories; give one per entry of original ({len(self.original)})")
        require(all(is_slug(name) for name in self.downstream), "downstream: names entries of the section downstream")
        require(bool(self.sources or self.downstream), "sources: is empty and downstream too; name edges or cloze")
        require(self.step_unit >= 0, f"step_unit: {self.step_unit} is negative; give steps, or 0 for the first step after 0")
        everything = [*self.original, *self.adapted, *self.control]
        twice = sorted({place for place in everything if everything.count(place) > 1})
        require(not twice, f"original, adapted, control: {', '.join(twice)} stands there twice; name each trajectory once")
        require(self.draws >= 100, f"draws: {self.draws} are too few for an interval; take 100 or more")
