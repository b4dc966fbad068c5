"""Do layers that converge probe better? -> .../sSEED/convergence/"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.convergence.settings import ConvergenceSettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest
from finetrace.store.tables import read_table, write_table

if TYPE_CHECKING:
    from finetrace.lenses.convergence.correlation import Correlation, Link

    Rows = dict[tuple[str, str], dict[str, Correlation]]
    """(level or change, last or all) -> kind -> correlation."""

Cells = dict[tuple[int, int], float]
"""(step, layer) -> value."""


def main(stage: Stage) -> None:
    from finetrace.lenses.convergence.figures import TYPES, draw

    settings, folder = stage.settings("convergence", ConvergenceSettings), stage.folder / "convergence"
    inputs = {one: one for one in (stage.folder / "geometry", stage.folder / "probes")}
    seed = seeds.derive(stage.seed, "convergence", stage.asked["task"])
    manifest = stage.manifest("lens", inputs, {"convergence": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, settings, seed, manifest, out), draw, TYPES)


def _measure(stage: Stage, settings: ConvergenceSettings, seed: int, manifest: Manifest, out: Path) -> Record:
    from finetrace.lenses.convergence.correlation import links

    geometry, probes = stage.folder / "geometry", stage.folder / "probes"
    split = str(settings.split)  # never null in what `finetrace plan` compiles
    cosines = _cells(geometry / "table.parquet", settings.cosine, None, "convergence.cosine")
    accuracies = _cells(probes / "table.parquet", "accuracy", split, "convergence.split")
    steps, layers = _shared(cosines, accuracies, geometry, probes)
    cosine, accuracy = (np.array([[cells[step, layer] for layer in layers] for step in steps])
                        for cells in (cosines, accuracies))
    try:
        found = links(cosine, accuracy, draws=settings.draws, permutations=settings.permutations, seed=seed)
    except ValueError as error:
        raise FinetraceError(f"{geometry} and {probes}: {error}; run both stages again") from error
    rows = _rows(found, len(steps) - 1)
    write_table(out / "table.parquet", _table(found, steps, layers, split))
    write_json(out / "metrics.json", _metrics(rows, steps, layers))
    write_curves(out / "curves.csv", _curves(found, steps))
    manifest.facts = {"checkpoints": len(steps), "layers": len(layers)}
    return {"name": stage.item, "split": split, "layers": layers, "cosine": cosine, "accuracy": accuracy, "rows": rows}


def _cells(path: Path, statistic: str, split: str | None, key: str) -> Cells:
    """One statistic, mean over seeds; an error that names the key when there is none."""
    names = ["step", "layer", "statistic", "value", *(["split"] if split else [])]
    table = read_table(path, names)
    cells: dict[tuple[int, int], list[float]] = {}
    for r in table.to_pylist():
        if r["statistic"] == statistic and (split is None or r["split"] == split):
            cells.setdefault((r["step"], r["layer"]), []).append(r["value"])
    if not cells:
        there = ", ".join(sorted(set((table["split"] if split else table["statistic"]).to_pylist())))
        wanted = f"{statistic!r} of the split {split!r}" if split else repr(statistic)
        raise FinetraceError(f"{path}: has no {wanted} (params.yaml: {key}); it has {there}")
    return {place: float(np.mean(values)) for place, values in cells.items()}


def _shared(cosines: Cells, accuracies: Cells, geometry: Path, probes: Path) -> tuple[list[int], list[int]]:
    """The checkpoints and layers that both lenses measured."""
    common = set(cosines) & set(accuracies)
    steps, layers = (sorted({place[i] for place in common}) for i in (0, 1))
    if not common:
        raise FinetraceError(f"{geometry} and {probes}: share no checkpoint and layer; let probes.layers name layers "
                             "that geometry has (or all), and run both on the same hidden states")
    lacking = [place for place in ((s, l) for s in steps for l in layers) if place not in common]
    if lacking:
        step, layer = lacking[0]
        raise FinetraceError(f"{geometry} and {probes}: step {step} layer {layer} is missing in one of them; run both "
                             "stages again")
    return steps, layers


def _table(found: Sequence["Link"], steps: list[int], layers: list[int], split: str) -> dict[str, Any]:
    """One row per correlation; -1 in step or layer: it runs over all of them."""
    return {
        "step": np.array([steps[one.checkpoint] if one.checkpoint >= 0 else -1 for one in found], dtype=np.int64),
        "layer": np.array([layers[one.layer] if one.layer >= 0 else -1 for one in found], dtype=np.int32),
        "statistic": [one.kind for one in found],
        **{name: np.array([getattr(one.found, name) for one in found], dtype=np.float64)
           for name in ("value", "low", "high")},
        "n": np.array([one.found.n for one in found], dtype=np.int64),
        "of": [one.of for one in found], "over": [one.over for one in found],
        "p": np.array([one.found.p for one in found], dtype=np.float64),
        "clusters": np.array([one.found.clusters for one in found], dtype=np.int64), "split": [split] * len(found)}


def _rows(found: Sequence["Link"], last: int) -> "Rows":
    """What stands for the trajectory, over layers at the last checkpoint and over all pairs."""
    from finetrace.lenses.convergence.correlation import KINDS, pick

    rows: Rows = {}
    for of in ("level", "change"):
        for when, over, checkpoint in (("last", "layers", last), ("all", "all", -1)):
            kinds = {kind: pick(found, kind, of, over, checkpoint) for kind in KINDS}
            if all(kinds.values()):
                rows[of, when] = {kind: one for kind, one in kinds.items() if one}
    return rows


def _metrics(rows: "Rows", steps: list[int], layers: list[int]) -> dict[str, float]:
    """`spearman/change/last` with /low, /high, /p; what could not be computed is left out."""
    metrics: dict[str, float] = {"layers": len(layers), "checkpoints": len(steps)}
    for (of, when), kinds in rows.items():
        for kind, one in kinds.items():
            values = {"": one.value, "/low": one.low, "/high": one.high, "/p": one.p}
            metrics |= {f"{kind}/{of}/{when}{end}": value for end, value in values.items() if not math.isnan(value)}
    return metrics


def _curves(found: Sequence["Link"], steps: list[int]) -> dict[str, list[Any]]:
    from finetrace.lenses.convergence.correlation import KINDS, pick

    ones = {f"{kind}_{of}": [pick(found, kind, of, "layers", number) for number in range(len(steps))]
            for kind in KINDS for of in ("level", "change")}
    return {"step": steps} | {name: [one.value if one else math.nan for one in column] for name, column in ones.items()}
