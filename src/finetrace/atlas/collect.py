"""Every trajectory and lens of a study as one long table."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace.config import Study
from finetrace.layout import Layout
from finetrace.store.manifest import Manifest, read_manifest

LENSES = ("infodynamics",)


@dataclass
class Entry:
    """One trajectory: its names, manifests and metrics. metrics: lens (or "trajectory") -> metric -> value."""

    key: str
    model: str
    task: str
    method: str
    seed: int
    folder: Path
    manifest: Manifest
    settings: dict[str, Any]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.model} {self.method}"


def collect(study: Study, layout: Layout) -> list[Entry]:
    """The study's trajectories in its order. Raises FinetraceError when one is absent or damaged."""
    entries = []
    for key, one in study.trajectories.items():
        folder = layout.run(one.model, one.task, one.method, one.seed)
        manifest = read_manifest(folder / "trajectory")
        entry = Entry(key, one.model, one.task, one.method, one.seed, folder, manifest, manifest.settings["train"])
        for part in ("trajectory", *LENSES):
            path = folder / part / "metrics.json"
            if path.is_file():
                entry.metrics[part] = json.loads(path.read_text("utf-8"))
        entries.append(entry)
    return entries


def long_table(entries: list[Entry]) -> dict[str, list[Any]]:
    """Columns: trajectory, model, task, method, seed, lens, metric, value; one row per number."""
    rows = [(e.key, e.model, e.task, e.method, e.seed, lens, metric, value)
            for e in entries for lens, metrics in e.metrics.items() for metric, value in metrics.items()
            if isinstance(value, int | float)]
    names = ("trajectory", "model", "task", "method", "seed", "lens", "metric", "value")
    return {name: [float(r[i]) if name == "value" else r[i] for r in rows] for i, name in enumerate(names)}
