"""Settings of the lens features."""

from finetrace.config.base import require, settings


@settings
class FeaturesSettings:
    """How far the inputs of the head move in training, how alike they are, how well they separate, how the head
    grows."""

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
