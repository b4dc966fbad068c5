"""Settings of the stage predictions, and of the lenses that read it: calibration and features."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class PredictionsSettings:
    """Logits, features and head of a trajectory's checkpoints on every evaluation set of its task."""

    sets: Literal["all"] | list[str] = "all"
    """Which sets: all, or some of train, validation, test and the names of sets out of distribution. What a task lacks is left
    out."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first, last and the kept one are always in."""
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
        require(self.max_length is None or self.max_length >= 4, f"max_length: {self.max_length} tokens leave no room for a text")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints), f"checkpoints: {self.checkpoints} is not a list of steps")


@settings
class CalibrationSettings:
    """Do probabilities mean what they say, before and after temperature scaling."""

    bins: int = 15
    """Bins of equal width of the confidence; the adaptive error has as many of equal size."""
    fit: str = "validation"
    """The set on which the temperature is fitted; its own numbers after scaling are of examples that chose the temperature."""
    groups: int = 20
    """Groups of the jackknife intervals."""

    def __post_init__(self) -> None:
        require(self.bins >= 1, f"bins: {self.bins} is less than 1")
        require(self.groups >= 2, f"groups: {self.groups} gives no interval; write at least 2")


@settings
class FeaturesSettings:
    """How far the inputs of the head move in training, how alike they are, how well they separate, how the head grows."""

    rcond: float = 1e-10
    """Eigenvalues of the within-class scatter up to this share of the largest count as 0 in the Fisher ratio."""
    ridge: float = 0.1
    """What its ridge variant adds to all of them, as share of their mean."""
    groups: int = 20
    """Groups of the jackknife intervals."""
    figure_set: str = "validation"
    """The set whose examples the pictures of features show."""
    figure_rows: int = 300
    """At most this many of them, the first ones of the set's choice."""
    tsne: bool = True
    """Draw t-SNE pictures too: a few seconds."""

    def __post_init__(self) -> None:
        require(0 < self.rcond < 1, f"rcond: {self.rcond} is not between 0 and 1")
        require(self.ridge > 0, f"ridge: {self.ridge} is not above 0")
        require(self.groups >= 2, f"groups: {self.groups} gives no interval; write at least 2")
        require(self.figure_rows >= 5, f"figure_rows: {self.figure_rows} is too few for a picture; write at least 5")
