"""Settings of the lens convergence."""

from finetrace.config.base import require, settings


@settings
class ConvergenceSettings:
    """Whether layers whose tokens converge are also those that probe well."""

    cosine: str = "cosine_mean"
    """Statistic of the lens geometry: the mean cosine within sentences."""
    split: str | None = None
    """Split of the probes' accuracy; by default the first of probes.test_splits."""
    draws: int = 2000
    """Resamples behind the 95 % intervals."""
    permutations: int = 2000
    """Random orders behind p values, where not all orders can be tried."""

    def __post_init__(self) -> None:
        for key in ("draws", "permutations"):
            require(getattr(self, key) >= 100, f"{key}: {getattr(self, key)} are too few for a 95 % interval; take 100 "
                                               "or more")
