"""How many training examples a window takes: what a series is too short for, and the one window that is proposed.

A window of w examples needs 2 w + 1 of them for novelty and resonance. What is said about these needs more: their
slope three points, its interval four blocks of 2 w points, change points four blocks of w points.
"""

from collections.abc import Sequence

BLOCKS = 4
"""Fewest blocks of a resampled interval, and of a search for change points."""
HURST = 91
"""Fewest points of a Hurst exponent."""


def require_window(examples: int, window: int) -> None:
    """Raises ValueError, which proposes one window, where a series is too short for the main one.

    examples: training examples that enter the analysis;  window: in examples.
    """
    if examples >= 2 * window + 1:
        return
    if examples < 3:
        raise ValueError(f"there are {examples} training examples, and the smallest window takes 3; train longer, or "
                         "leave infodynamics out of `look`")
    raise ValueError(f"window {window} takes at least {2 * window + 1:,} training examples and there are "
                     f"{examples:,}; write window: {best_window(examples)} (a tenth of them)")


def best_window(examples: int) -> int:
    """The largest window with slope, interval and change points: a tenth of the examples; at least 1."""
    return max(1, examples // (2 + 2 * BLOCKS))


def absent(examples: int, window: int, windows: Sequence[int] = ()) -> dict[str, str]:
    """What a series of so many examples is too short for: quantity -> reason, in one sentence.

    windows: the further ones. Quantities: slope, slope_ci, change_points, hurst_novelty, and `window W` for each
    further window that does not fit.
    """
    least = {"slope": 2 * window + 3, "slope_ci": (2 + 2 * BLOCKS) * window, "change_points": (2 + BLOCKS) * window,
             "hurst_novelty": 2 * window + HURST}
    missing = {name: _reason(window, count, examples) for name, count in least.items() if examples < count}
    return missing | {f"window {w}": _reason(w, 2 * w + 1, examples)
                      for w in windows if w != window and examples < 2 * w + 1}


def told(examples: int, missing: dict[str, str]) -> str:
    """What will be absent, as one sentence that proposes one window."""
    return (f"{examples:,} training examples are too few for {', '.join(missing)}, which will be absent; "
            f"window: {best_window(examples)} would give all that they can give")


def _reason(window: int, least: int, examples: int) -> str:
    return f"window {window} takes {least:,} training examples for it, and there are {examples:,}"
