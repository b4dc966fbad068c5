"""How far the hull probe is within one space."""

from collections.abc import Callable

from finetrace.progress import Progress

Tell = Callable[[str, int, int], None]
"""Called as tell(phase, done, total) during long runs; total is 0 where it is not known."""


def teller(progress: Progress, where: str = "") -> Tell:
    """Adds the phase of the unit that is being worked on to the lines of `progress`; where: which unit that is."""
    def tell(phase: str, done: int, total: int) -> None:
        out_of = f" of {total:,}" if total else ""
        progress.update(progress.done, f"{where}{phase} {done:,}{out_of}")

    return tell
