"""What figures of checkpoints share: their axis, markers per line, a readable logarithmic axis."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = "os^DvP*"


def ends_named(steps: Sequence[int]) -> tuple[str, str]:
    """What figures call the first and the last of some checkpoints: raw and tuned where the first is the model before a
    training; else, as of checkpoints that were made elsewhere and begin later, first and last."""
    first, last = ("raw", "tuned") if steps[0] == 0 < steps[-1] else ("first", "last")
    return f"{first} (step {steps[0]:,})", f"{last} (step {steps[-1]:,})"


def checkpoint_axis(panel: "Axes", steps: Sequence[int], kept_step: int, label: bool = True) -> None:
    """Evenly spaced checkpoints on the x axis, at most eight of them named, and a line at the kept one."""
    ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 8)).round().astype(int))
    panel.set_xticks(ticks, [f"{steps[i]:,}" for i in ticks])
    panel.axvline(list(steps).index(kept_step), color="#E3E3E3", lw=5, zorder=0)
    panel.set_xlim(-0.3, len(steps) - 0.7)
    if label:
        panel.set_xlabel("optimiser step of the checkpoint")


def plain_log_axis(panel: "Axes") -> None:
    """A logarithmic y axis with numbers instead of powers of ten; call it when its limits are set."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
