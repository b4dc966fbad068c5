"""Figure of a fixed probe set: how it moves between recorded steps, and its data map."""

from typing import TYPE_CHECKING

import numpy as np

from finetrace.figures import style
from finetrace.lenses.infodynamics.measures import Cartography, Dynamics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOVELTY, TRANSIENCE, RESONANCE = style.BLUE, style.ORANGE, style.GREEN


@style.styled
def probe_set(
    steps: np.ndarray,
    dynamics: Dynamics,
    data_map: Cartography,
    *,
    window: int,
    spread: tuple[np.ndarray, np.ndarray] | None = None,
    log_steps: bool = False,
    unit: str = "nats",
    title: str | None = None,
) -> "Figure":
    """How a fixed probe set moves between recorded steps, and where its examples lie on the data map.

    steps: (step,) optimizer steps, ascending. dynamics: from `probe_resonance`, (step,), NaN at the ends.
    window: in recorded steps.
    spread: (low, high) novelty of single examples, (step,) each, e.g. quantiles of `probe_resonance(per_example=True)`.
    data_map: from `cartography`. log_steps: step axis on a log scale (step 0 at its left end).
    """
    figure, axes = style.two_and_one((9.5, 6), title)
    upper, lower, right = axes
    if spread is not None:
        upper.fill_between(steps, *spread, color=NOVELTY, alpha=0.15, lw=0, label="novelty, single examples")
    upper.plot(steps, dynamics.novelty, color=NOVELTY, marker="o", ms=3, label="novelty")
    upper.plot(steps, dynamics.transience, color=TRANSIENCE, marker="s", ms=3, ls=style.DASHES[1], label="transience")
    upper.set_ylim(bottom=0)
    upper.set_title("Movement of the probe set")
    upper.legend(loc="upper right")
    lower.axhline(0, color=style.BLACK, lw=0.8)
    lower.plot(steps, dynamics.resonance, color=RESONANCE, marker="o", ms=3)
    lower.set_title("Resonance: above 0, the change persists")
    lower.set_xlabel("optimizer step")
    for panel in (upper, lower):
        panel.set_ylabel(unit)
        if steps[0] < steps[-1]:
            panel.set_xlim(steps[0], steps[-1])
        if log_steps:
            panel.set_xscale("symlog", linthresh=max(1.0, float(min(steps[steps > 0], default=1.0))))
        else:
            style.count_axis(panel.xaxis)
    _data_map(figure, right, data_map)
    style.panel_letters(axes)
    style.footnote(
        figure, f"window {window:,} recorded steps; {len(data_map.confidence):,} probe examples, each with itself"
    )
    return figure


def _data_map(figure: "Figure", panel: "Axes", cartography: Cartography) -> None:
    order = np.random.default_rng(0).permutation(len(cartography.confidence))  # no class of points always on top
    dots = panel.scatter(
        cartography.variability[order],
        cartography.confidence[order],
        c=cartography.correctness[order],
        cmap="cividis",
        vmin=0,
        vmax=1,
        s=12,
        alpha=0.8,
        linewidths=0,
        rasterized=True,
    )
    figure.colorbar(dots, ax=panel, label="correctness (share of steps)", shrink=0.8, pad=0.02)
    panel.set_xlim(0, 0.52)  # a probability has a standard deviation of at most 0.5
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("variability (sd of the gold label's probability)")
    panel.set_ylabel("confidence (mean of it)")
    panel.set_title("Data map")
    corners = ((0.99, "top", "↖ easy to learn"), (0.5, "center", "ambiguous →"), (0.0, "bottom", "↙ hard to learn"))
    for at, edge, text in corners:
        panel.text(0.51, at, text, ha="right", va=edge, color=style.GREY, size=8.5)
