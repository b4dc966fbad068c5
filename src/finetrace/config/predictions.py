"""Settings of the stage predictions."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class PredictionsSettings:
    """Logits, features and head of a trajectory's checkpoints on every evaluation set of its task."""

    sets: Literal["all"] | list[str] = "all"
    """Which sets: all, or some of train, validation, test and the names of sets out of distribution. What a task lacks
    is left out."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps;
    first, last and the kept one are always in."""
    train_rows: int = 500
    """Training examples, chosen at random with the classes in their own shares; 0 takes all."""
    max_rows: int = 0
    """At most this many examples of each other set, chosen likewise; 0 takes all."""
    feature_rows: int = 1000
    """Examples per set whose features are kept too, chosen likewise; 0 takes all."""
    max_length: int | None = None
    """Longest input in tokens; by default the training's own."""

    def __post_init__(self) -> None:
        for key in ("train_rows", "max_rows", "feature_rows"):
            require(getattr(self, key) >= 0, f"{key}: {getattr(self, key)} is negative; 0 takes all")
        require(self.sets == "all" or bool(self.sets), "sets: names no set; write all or e.g. [validation, test]")
        require(self.sets == "all" or len(set(self.sets)) == len(self.sets), "sets: a set stands twice; remove one")
        require(self.max_length is None or self.max_length >= 4, f"max_length: {self.max_length} tokens leave "
                "no room for a text")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints), f"checkpoints: {self.checkpoints} is "
                    "not a list of steps")
