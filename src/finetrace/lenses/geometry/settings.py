"""Settings of the lens geometry."""

from typing import Literal

from finetrace.config.base import require, settings
from finetrace.config.hidden import SPLITS


@settings
class GeometrySettings:
    """Token vectors within and across sentences, and class cones of sentence vectors, at every checkpoint and layer."""

    split: str = "validation"
    """Split whose tokens are measured; it must be in hidden.token_rows."""
    special_tokens: bool = True
    """Whether tokens that the tokenizer adds ([CLS], [SEP], <s>, ...) count, as in the French study. Some are
    outliers."""
    sentences: int = 0
    """Sentences behind the per-sentence statistics and the anisotropy; 0 takes all that have tokens."""
    rank_sentences: int = 0
    """Sentences whose tokens are stacked for effective rank, participation ratio, IsoScore and dimension; 0 takes
    all."""
    choose: Literal["spread", "first"] = "spread"
    """Which sentences when not all are taken: evenly spread over the split, or its first ones (as the French study
    did)."""
    dimension_tokens: int = 2000
    """Most tokens compared with each other for the intrinsic dimension, drawn at random; time grows with its square."""
    cones_splits: list[str] = None  # type: ignore[assignment]
    """Splits whose sentence vectors make the class cones, one after the other; by default validation; [] leaves cones
    out."""
    cones_vectors: Literal["cls", "mean"] = "cls"
    """Sentence vectors of the cones; they must be in hidden.vectors."""
    groups: int = 10
    """Groups of sentences for the jackknife intervals (ranks, dimension, cones)."""
    draws: int = 1000
    """Bootstrap resamples of sentences behind the other intervals."""

    def __post_init__(self) -> None:
        if self.cones_splits is None:
            object.__setattr__(self, "cones_splits", ["validation"])
        for key, names in (("split", [self.split]), ("cones_splits", self.cones_splits)):
            for name in names:
                require(name in SPLITS, f"{key}: {name!r} is not a split; known: {', '.join(SPLITS)}")
        require(len(set(self.cones_splits)) == len(self.cones_splits),
                f"cones_splits: {self.cones_splits} names a split twice")
        for key in ("sentences", "rank_sentences"):
            value = getattr(self, key)
            require(value >= 0 and value != 1, f"{key}: {value} is too few; take 2 or more, or 0 for all")
        require(self.dimension_tokens >= 20,
                f"dimension_tokens: {self.dimension_tokens} are too few for a fit; take 20 or more")
        require(self.groups >= 2, f"groups: {self.groups} leave nothing to compare; take 2 or more (10 is usual)")
        require(self.draws >= 100, f"draws: {self.draws} are too few for a 95 % interval; take 100 or more")
