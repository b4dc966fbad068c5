"""What a person sees while a training runs: a bar or log lines, and events for a live tracking run."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
LINE_SECONDS = 15.0


class LiveLog:
    """Appends events as JSON lines; the tracking side follows the file. See `finetrace.tracking.live`."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def start(self, key: str, name: str, kind: str, *, parent: str | None = None, started_at_ms: int = 0,
              params: dict[str, Any] | None = None, tags: dict[str, str] | None = None, total_steps: int = 0) -> None:
        """A run begins (or continues after a crash: the same key is the same run)."""
        self._write({"event": "start", "id": key, "name": name, "kind": kind, "parent": parent,
                     "started_at_ms": started_at_ms, "params": params or {}, "tags": tags or {}, "total_steps": total_steps})

    def rows(self, key: str, rows: list[dict[str, Any]]) -> None:
        """History rows as metrics, named as the final publication names them."""
        for row in rows:
            prefix = "train" if row["kind"] == "train" else row["split"]
            values = {f"{prefix}/{k}": v for k, v in row.items()
                      if k in ("loss", "learning_rate", "gradient_norm", "head_norm", "accuracy", "macro_f1", "f1",
                               "matthews") and isinstance(v, int | float)}
            self.metrics(key, row["step"], values)

    def metrics(self, key: str, step: int, values: dict[str, float]) -> None:
        """Values at a step."""
        self._write({"event": "metrics", "id": key, "step": step, "values": values})

    def end(self, key: str, state: str) -> None:
        """A run ends: FINISHED, KILLED or FAILED."""
        self._write({"event": "end", "id": key, "state": state})

    def _write(self, event: dict[str, Any]) -> None:
        with open(self._path, "a", encoding="utf-8") as stream:  # events are few, so no file stays open
            stream.write(json.dumps(event) + "\n")


class Progress:
    """A bar on a terminal, a line every 15 s in a log; states the expected cost once it can be judged."""

    def __init__(self, total: int, what: str, started: int = 0):
        self.total, self.what, self.first = total, what, started
        self.begun = self.said = time.monotonic()
        self.announced = False
        self.bar = None
        if sys.stderr.isatty() and not os.environ.get("CI") and not os.environ.get("FINETRACE_LINES"):
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=started, desc=what, unit="step", leave=False)

    def update(self, step: int, note: str = "") -> None:
        """`step` steps are done."""
        now = time.monotonic()
        done = step - self.first
        left = (now - self.begun) / done * (self.total - step) if done else 0.0
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if note:
                self.bar.set_postfix_str(note)
            return
        if not self.announced and done and now - self.begun > 3:
            self.announced = True
            log.info("%s: %d steps in all, about %s to go", self.what, self.total, duration(left))
        elif now - self.said >= LINE_SECONDS:
            self.said = now
            log.info("%s: step %d of %d, about %s to go %s", self.what, step, self.total, duration(left), note)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """A time span for people, e.g. 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
