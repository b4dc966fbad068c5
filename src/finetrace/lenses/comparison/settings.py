"""Settings of the comparisons between trajectories."""

import re

from finetrace.config.base import require, settings

_RUN = re.compile(r"[^/_]+/[^/_]+/[^/_]+/s\d+")


@settings
class ComparisonSettings:
    """Two trajectories on the same task, each named as its folder in outputs: MODEL/TASK/METHOD/sSEED."""

    first: str
    """The reference."""
    second: str
    """What is compared with it."""

    def __post_init__(self) -> None:
        for key, value in (("first", self.first), ("second", self.second)):
            hint = f"; did you mean {value.replace('_', '/')!r}?" if _RUN.fullmatch(value.replace("_", "/")) else ""
            require(bool(_RUN.fullmatch(value)), f"{key}: {value!r} is not a trajectory's folder in outputs, "
                                                 f"MODEL/TASK/METHOD/sSEED{hint}")
        require(self.first != self.second, f"second: is the same trajectory as first ({self.first}); name another one")

    @property
    def trajectories(self) -> tuple[str, str]:
        """The keys of both."""
        return self.first.replace("/", "_"), self.second.replace("/", "_")
