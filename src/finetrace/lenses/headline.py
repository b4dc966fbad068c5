"""What is said of a headline metric of a lens, wherever it is shown.

A lens declares its own in `headlines.py`, as `HEADLINES`. No stage of a lens imports them: another sentence measures
nothing again.
"""

from dataclasses import dataclass
from typing import Literal

DIRECTIONS = {"up": "higher is better", "down": "lower is better", "": ""}


@dataclass(frozen=True)
class Headline:
    """One number by which trajectories are compared."""

    metric: str
    """Its name in the lens's metrics.json. `*` stands for the last layer, or for the split; of several, `a|b`, the
    first that is there counts."""
    heading: str
    """A few words, for the head of a column."""
    unit: str
    """E.g. nats, share; empty where there is none."""
    digits: int
    """After the point."""
    direction: Literal["up", "down", ""]
    """Which way is better; empty where a number only describes."""
    sentence: str
    """What it says, in one sentence."""
    mean_of: str = ""
    """Where the lens writes one number per task or corpus: their name with `*`. `metric` is then their mean, made by
    the reader."""

    @property
    def explanation(self) -> str:
        """The sentence with unit and direction."""
        details = [text for text in (self.unit, DIRECTIONS[self.direction]) if text]
        return f"{self.sentence} ({'; '.join(details)})" if details else self.sentence
