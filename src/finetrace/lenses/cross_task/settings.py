"""Settings of the cross-task effect: what training on one task does to the classes of another."""

import re
from typing import Literal

from finetrace.config.base import require, settings
from finetrace.config.hidden import SPLITS

_RUN = re.compile(r"[^/_]+/[^/_]+/[^/_]+/s\d+")


@settings
class CrossTaskSettings:
    """One task's examples in a model before and after it was trained on another task (or on the same one).

    Which examples, and how their hidden states are taken, is said in `hidden`; how classifiers are trained, in
    `probes`.
    """

    tuned: str
    """The training, as its folder in outputs: MODEL/TASK/METHOD/sSEED."""
    task: str
    """The task whose classes are looked at."""
    layers: Literal["all"] | list[int] = "all"
    """Layers to look at, 0 being the embeddings; negative ones count from the last, which gives the metrics."""
    train_split: str = "train"
    """Split whose examples are clustered and train the classifiers; it must be in hidden.rows."""
    test_split: str = "validation"
    """Split on which the classifiers are scored; it must be in hidden.rows."""
    max_points: int = 0
    """At most so many examples of train_split are clustered, chosen with the classes in their own shares; 0 takes
    all."""
    min_size: int = 1
    """Label distances: clusters of fewer points are left out (the study: 6)."""
    probe: Literal["logistic", "mlp", "none"] = "logistic"
    """The classifier: logistic regression, the study's perceptron with its grid search (as `probes` says), or none."""

    def __post_init__(self) -> None:
        run = self.tuned.replace("_", "/")
        hint = f"; did you mean {run!r}?" if _RUN.fullmatch(run) else ""
        require(bool(_RUN.fullmatch(self.tuned)), f"tuned: {self.tuned!r} is not a trajectory's folder in outputs, "
                                                  f"MODEL/TASK/METHOD/sSEED{hint}")
        require(self.layers == "all" or bool(self.layers), "layers: names no layer; write all or e.g. [-1]")
        for key in ("train_split", "test_split"):
            split = getattr(self, key)
            require(split in SPLITS, f"{key}: {split!r} is not a split; known: {', '.join(SPLITS)}")
        require(self.train_split != self.test_split,
                f"test_split: {self.test_split!r} trains the classifiers; name another")
        require(self.max_points == 0 or self.max_points >= 2,
                f"max_points: {self.max_points} leaves nothing to compare; 0: all")
        require(self.min_size >= 1, f"min_size: {self.min_size} is less than 1")

    @property
    def trajectory(self) -> str:
        """The key of the fine-tuning."""
        return self.tuned.replace("/", "_")
