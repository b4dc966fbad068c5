"""The trajectories of a study with the numbers of their lenses."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from finetrace.layout import Layout
from finetrace.longtable import INTERVAL, LongTable
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import read_table


@dataclass
class Entry:
    """One trajectory on a task: its names, manifests and metrics. metrics: lens (or "trajectory") -> metric ->
    value."""

    key: str
    model: str
    task: str
    method: str
    seed: int
    folder: Path
    manifest: Manifest
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Its folder below outputs, which names it everywhere."""
        return f"{self.model}/{self.task}/{self.method}/s{self.seed}"

    @property
    def label(self) -> str:
        return f"{self.model} {self.method}"

    @property
    def given(self) -> bool:
        """Whether its checkpoints were made elsewhere."""
        return self.manifest.facts.get("method_kind") == "given"


def collect(runs: Sequence[Mapping[str, Any]], looked: Mapping[str, Sequence[str]], layout: Layout, *,
            verify: bool = True) -> list[Entry]:
    """The fine-tunings in the study's order.

    runs: {model, task, method, seed} of each;  looked: lens -> places that it looks at;  verify: False where the
    folders have just been verified. Raises FinetraceError when something is absent or damaged.
    """
    entries, looks = [], lenses_at(looked)
    for run in runs:
        place = "{model}/{task}/{method}/s{seed}".format(**run)
        folder = layout.place(place)
        entry = Entry(place.replace("/", "_"), **run, folder=folder,
                      manifest=read_manifest(folder / "trajectory", verify=verify))
        entry.metrics = read_metrics(folder, looks.get(place, ()), verify=verify)
        if entry.given and {"calibration", "features"} & set(entry.metrics):  # no training has measured it
            answers = json.loads((folder / "predictions" / "metrics.json").read_text("utf-8"))
            entry.metrics["trajectory"] = answers | entry.metrics["trajectory"]
        entries.append(entry)
    return entries


def lenses_at(looked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Place -> the lenses that look at it, in alphabetical order."""
    lenses_of: dict[str, list[str]] = {}
    for lens in sorted(looked):
        for place in dict.fromkeys(looked[lens]):
            lenses_of.setdefault(place, []).append(lens)
    return lenses_of


def read_metrics(folder: Path, lenses: Sequence[str], *, verify: bool = True) -> dict[str, dict[str, float]]:
    """The metrics of a trajectory and of the lenses that look at it, by name, "trajectory" first."""
    metrics: dict[str, dict[str, float]] = {}
    for part in ("trajectory", *lenses):
        if verify:
            read_manifest(folder / part)
        metrics[part] = json.loads((folder / part / "metrics.json").read_text("utf-8"))
    return metrics


def by_layer(folder: Path, lens: str, statistic: str, **where: str) -> dict[int, np.ndarray]:
    """One statistic of a lens's table: layer -> (checkpoint, 3) value, low, high in step order, means over seeds.

    where: further columns to hold, e.g. split="validation". Empty when the lens has no such rows.
    """
    path = folder / lens / "table.parquet"
    if not path.is_file():
        return {}
    rows = read_table(path)
    for name, value in {"statistic": statistic, **where}.items():  # before it is a data frame: most rows are others
        rows = rows.filter(pc.equal(rows[name], value))
    columns = {name: rows[name].to_numpy() for name in ("step", "layer", *INTERVAL)}
    table = LongTable.of_columns(columns).averaged("step", "layer")
    layers, cells = table.frame["layer"].to_numpy(), table.frame[INTERVAL].to_numpy(np.float64)
    return {layer: cells[layers == layer] for layer in table.distinct("layer")}
