"""Settings of the stage downstream: a task learned from each checkpoint of a masked-word training."""

from typing import Any, Literal

from finetrace.config.base import require, settings
from finetrace.config.place import require_place
from finetrace.config.training import TrainSettings


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
    """Changes of `train`, after those of `by_task`; seeds, order and dropout are those of a training with the same
    seed."""

    def __post_init__(self) -> None:
        require_place("trajectory", self.trajectory)
        require(self.trajectory.split("/")[1] in ("pretrain", "adapt"),
                f"trajectory: {self.trajectory} is a fine-tuning; name MODEL/pretrain or MODEL/adapt")
        require(self.seeds >= 1, f"seeds: {self.seeds} is less than 1")
        known = TrainSettings.__dataclass_fields__
        for key in self.train or {}:
            require(key in known, f"train.{key}: is not a key of train; known: {', '.join(sorted(known))}")
