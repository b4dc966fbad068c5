"""Settings of learning dynamics: which trajectories are compared, and how."""

from collections.abc import Collection
from typing import Literal

from finetrace.config.base import require, settings
from finetrace.config.place import require_place
from finetrace.layout import is_slug


@settings
class DynamicsSettings:
    """What is learned when: trajectories on one time axis, and what adaptation does to them.

    Each list has one trajectory per pre-training seed, in the same order; the seeds are resampled together with the
    examples.
    """

    original: tuple[str, ...]
    """Folders in outputs of trajectories that the lenses edges, cloze or pairs looked at."""
    adapted: tuple[str, ...] = ()
    """The same after adaptation, one per entry of `original`."""
    control: tuple[str, ...] = ()
    """The same after as much training on the original corpus, one per entry of `original`."""
    downstream: tuple[str, ...] = ()
    """Entries of the section downstream that start from these trajectories."""
    sources: tuple[Literal["edges", "cloze", "pairs"], ...] = ("edges", "cloze")
    """Lenses that are compared; each must have looked at every trajectory named here. Only `pairs`, which asks when
    something is acquired, may have looked at none of adapted, or of control."""
    step_unit: int = 0
    """Unit u of the logarithmic time axis log10(1 + step / u), in steps; 0: the first step after 0."""
    draws: int = 1000
    """Resamplings of the multi-bootstrap behind the 95 % intervals."""

    def __post_init__(self) -> None:
        require(bool(self.original), "original: names no trajectory")
        for key in ("original", "adapted", "control"):
            for place in getattr(self, key):
                require_place(key, place)
        for key in ("adapted", "control"):
            require(len(getattr(self, key)) in (0, len(self.original)),
                    f"{key}: names {len(getattr(self, key))} trajectories; give one per entry of original "
                    f"({len(self.original)})")
        require(all(is_slug(name) for name in self.downstream), "downstream: names entries of the section downstream")
        require(bool(self.sources or self.downstream), "sources: is empty and downstream too; name edges, "
                                                             "cloze or pairs")
        require(self.step_unit >= 0, f"step_unit: {self.step_unit} is negative; give steps, or 0 for the first step "
                                     "after 0")
        everything = [*self.original, *self.adapted, *self.control]
        twice = sorted({place for place in everything if everything.count(place) > 1})
        require(not twice, f"original, adapted, control: {', '.join(twice)} stands there twice; name each trajectory "
                           "once")
        require(self.draws >= 100, f"draws: {self.draws} are too few for an interval; take 100 or more")

    @property
    def arms(self) -> dict[str, tuple[str, ...]]:
        """Arm -> its trajectories, of the arms that have some."""
        arms = {"original": self.original, "adapted": self.adapted, "control": self.control}
        return {arm: places for arm, places in arms.items() if places}

    def compared(self, source: str, looked: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Arm -> its trajectories, as far as a source compares them. looked: the places that it looks at."""
        return {arm: places for arm, places in self.arms.items()
                if source != "pairs" or arm == "original" or set(places) & set(looked)}
