"""What a person sees of long work: a bar on a terminal, or a line now and then in a log."""

import logging
import os
import sys
import time

log = logging.getLogger(__name__)
LINE_SECONDS = 15.0


class Progress:
    """A bar on a terminal, a line every 15 s in a log; states the expected cost once it can be judged.

    total: how many units there are;  label: whose progress it is;  started: units that were done before;  unit: one of
    them.
    """

    def __init__(self, total: int, label: str, started: int = 0, unit: str = "step"):
        self.total, self.label, self.first, self.unit = total, label, started, unit
        self.begun = self.said = time.monotonic()
        self.done = started
        self.paced: tuple[float, int] | None = None
        self.announced = False
        self.bar = None
        if sys.stderr.isatty() and not os.environ.get("CI") and not os.environ.get("FINETRACE_LINES"):
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=started, desc=label, unit=unit, leave=False)

    def update(self, step: int, note: str = "") -> None:
        """`step` of the units are done."""
        now = time.monotonic()
        self.done = step
        if self.paced is None and step > self.first:
            self.paced = now, step  # the first unit holds what is done once, such as loading
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            return
        since, first = self.paced or (now, step)
        to_go = (f", about {duration((now - since) / (step - first) * (self.total - step))} to go" if step > first
                 else "")
        if not self.announced and to_go and now - self.begun > 3:
            self.announced = True
            log.info("%s: %d %ss in all%s", self.label, self.total, self.unit, to_go)
        elif now - self.said >= LINE_SECONDS:
            self.said = now
            log.info("%s: %s %d of %d%s %s", self.label, self.unit, step, self.total, to_go, note)

    def advance(self, note: str = "") -> None:
        """One more unit is done."""
        self.done += 1
        self.update(self.done, note)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """A time span for people, e.g. 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
