"""Tables as Markdown, and numbers as their cells."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

NONE = "-"
"""A cell of which nothing is known."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without a line end after its last row; `|` inside cells becomes `/`. Texts stay as they are:
    nothing is read as a number."""
    header, *lines = ([cell.replace("|", "/") for cell in line] for line in (header, *rows))
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)


def mean_sd(values: Sequence[float], wanted: int, form: str = ".2f") -> str:
    """`mean ± standard deviation` over repetitions (n - 1 in the denominator), the mean alone of one, NONE of none.

    wanted: how many there should be; where some are missing, `(have/wanted)` follows. NaN counts as missing.
    """
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return NONE
    spread = f" ± {np.std(finite, ddof=1):{form}}" if len(finite) > 1 else ""
    return f"{np.mean(finite):{form}}{spread}" + (f" ({len(finite)}/{wanted})" if len(finite) < wanted else "")


def mean(values: Sequence[float], form: str = ".2f") -> str:
    """The mean over repetitions, NONE of none; NaN counts as missing."""
    finite = [value for value in values if np.isfinite(value)]
    return f"{np.mean(finite):{form}}" if finite else NONE
