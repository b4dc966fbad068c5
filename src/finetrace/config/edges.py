"""Settings of the lens edges: probes of words and word pairs on every layer and on mixes of layers."""

from typing import Any, Literal

from finetrace.config.base import require, settings


@settings
class EdgesSettings:
    """Edge probing (Tenney et al. 2019) of every checkpoint, all layers and cumulative mixes in one pass."""

    tasks: tuple[str, ...] = ()
    """Tasks of words (kinds token, span, span-pair) of `tasks` or `task_files`."""
    recipe: Literal["fast", "tenney", "seed-compat"] = "fast"
    """Named settings of probe and training; `changes` overrides single ones."""
    changes: dict[str, Any] | None = None
    """Changes of the recipe."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first and last are always in."""

    def __post_init__(self) -> None:
        require(len(set(self.tasks)) == len(self.tasks), "tasks: a name stands twice")
