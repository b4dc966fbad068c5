"""Settings of the lens hulls."""

from typing import Literal

from finetrace.config.base import require, settings

PARITY = {"min_size": 6, "reduce": "mean", "missing": "zero"}
DEFAULTS = {"min_size": 1, "reduce": "min", "missing": "nan"}


@settings
class HullsSettings:
    """Clusters of one label with disjoint convex hulls, and the distances of labels, per layer and checkpoint."""

    vectors: Literal["cls", "mean"] = "cls"
    """Sentence vector of tasks of whole texts, which must be in hidden.vectors; tasks of words have their own."""
    split: Literal["train", "validation", "test"] = "train"
    """Split that is probed; it must be in hidden.rows."""
    compare_split: Literal["train", "validation", "test", "none"] = "validation"
    """Second split, probed by itself for the similarity of the splits; its examples are looked up among the clusters
    of the first one."""
    layers: Literal["all"] | list[int] = "all"
    """Layers to probe, 0 being the embeddings; negative ones count from the last."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which of the checkpoints in hidden: all, the first and last, or these steps, where a run is as long; first and
    last are always in."""
    max_points: int = 5000
    """At most so many points per split, chosen at random with the classes in their own shares and one of each class at
    least; 0 takes all. Above, a layer that planes do not separate takes many minutes."""
    min_size: int = None  # type: ignore[assignment]
    """Fewest points of a cluster that counts for distances: 1, and 6 in the 2022 study."""
    reduce: Literal["min", "mean"] = None  # type: ignore[assignment]
    """Distance of two labels of several clusters: that of the nearest two (min), or the mean over pairs (2022
    study)."""
    missing: Literal["nan", "zero"] = None  # type: ignore[assignment]
    """What stands where two labels have no distance: NaN, which correlations leave out, or 0, which they count (2022
    study)."""
    parity: bool = False
    """The numbers of the 2022 program: min_size 6, reduce mean, missing zero."""
    predict_rows: int = 200
    """Examples of compare_split whose nearest cluster is looked up (intra-accuracy), 0: none. At random, the same ones
    everywhere."""
    files: bool = False
    """Also write the files of the original programs (clusters.txt, dis.txt, prediction.txt, vec.txt, ...)."""

    def __post_init__(self) -> None:
        for key, value in (PARITY if self.parity else DEFAULTS).items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
            elif self.parity:
                require(getattr(self, key) == value, f"{key}: {getattr(self, key)} contradicts parity, which means "
                                                     f"{value}; remove one of the two")
        require(self.compare_split != self.split, f"compare_split: {self.split!r} is the split that is probed anyway; "
                                                  "name another one, or none")
        require(self.layers == "all" or bool(self.layers), "layers: names no layer; write all or e.g. [0, 6, 12]")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints),
                    f"checkpoints: {self.checkpoints} is not a list of steps")
        require(self.min_size >= 1, f"min_size: {self.min_size} is less than 1")
        require(self.predict_rows >= 0,
                f"predict_rows: {self.predict_rows} is negative; 0 leaves the intra-accuracy out")
        require(self.max_points == 0 or self.max_points >= 2,
                f"max_points: {self.max_points} leaves nothing to compare; 0 takes all")
