"""Events of a training that runs, for a live tracking run."""

import json
from pathlib import Path
from typing import Any

MORE = ("mse", "pearson", "spearman", "micro_f1", "exact_match", "entity_precision", "entity_recall", "entity_f1")
"""Metrics of tasks that are not of plain classes."""

class LiveLog:
    """Appends events as JSON lines; the tracking side follows the file. See `finetrace.tracking.live`."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def start(self, key: str, name: str, kind: str, *, parent: str | None = None, started_at_ms: int = 0,
              params: dict[str, Any] | None = None, tags: dict[str, str] | None = None, total_steps: int = 0) -> None:
        """A run begins (or continues after a crash: the same key is the same run)."""
        self._write({"event": "start", "id": key, "name": name, "kind": kind, "parent": parent,
                     "started_at_ms": started_at_ms, "params": params or {}, "tags": tags or {},
                     "total_steps": total_steps})

    def rows(self, key: str, rows: list[dict[str, Any]]) -> None:
        """History rows as metrics, named as the final publication names them."""
        for row in rows:
            prefix = "train" if row["kind"] == "train" else row["split"]
            values = {f"{prefix}/{k}": v for k, v in row.items()
                      if k in ("loss", "learning_rate", "gradient_norm", "head_norm", "accuracy", "macro_f1", "f1",
                               "matthews", *MORE) and isinstance(v, int | float)}
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
