"""What is asked of a first look."""

from dataclasses import dataclass
from typing import Any

from finetrace.errors import FinetraceError

LENSES = ("geometry", "similarity", "hulls", "probes", "convergence", "calibration")
"""Lenses that have something to say about one state of a model, in the order of the page."""
NEEDS = {"convergence": ("geometry", "probes")}
"""Lens -> lenses on whose numbers it builds."""


@dataclass(frozen=True)
class Request:
    """What is looked at.

    models: folders or hub ids;  task: a built-in task, data/TASK, or a file;  rows: of train, and as many of
    validation, 0 all;  lenses: some of `LENSES`;  text, label: columns of a file;  seed: as a study's;  keys: further
    ones of a task in a study, with their values.
    """

    models: tuple[str, ...]
    task: str
    rows: int = 200
    lenses: tuple[str, ...] = LENSES
    text: tuple[str, ...] = ()
    label: str | None = None
    seed: int = 0
    keys: tuple[tuple[str, Any], ...] = ()


def check(request: Request) -> None:
    """Raises FinetraceError for an unknown lens and for too few rows."""
    import difflib

    for lens in request.lenses:
        if lens not in LENSES:
            near = difflib.get_close_matches(lens, LENSES, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose of {', '.join(LENSES)}"
            raise FinetraceError(f"--lens {lens}: no lens of a first look; {hint}")
    if request.rows < 0 or 0 < request.rows < 10:
        raise FinetraceError(f"--rows {request.rows}: too few rows; take 10 or more, or 0 for all")
