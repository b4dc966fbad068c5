"""Do layers that converge probe better? -> .../sSEED/convergence/"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.convergence.settings import ConvergenceSettings
from finetrace.longtable import LongTable, known
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest
from finetrace.store.tables import read_long_table, write_table

if TYPE_CHECKING:
    from finetrace.lenses.convergence.correlation import Correlation, Link

    Rows = dict[tuple[str, str], dict[str, Correlation]]
    """(level or change, last or all) -> kind -> correlation."""

COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64,
    "n": np.int64, "of": str, "over": str, "p": np.float64, "clusters": np.int64, "split": str}


def main(stage: Stage) -> None:
    from finetrace.lenses.convergence.figures import TYPES, draw

    settings, folder = stage.settings("convergence", ConvergenceSettings), stage.folder / "convergence"
    inputs = {source: source for source in (stage.folder / "geometry", stage.folder / "probes")}
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
    cosine, accuracy = (cells.grid(steps, layers)[..., 0] for cells in (cosines, accuracies))
    with blame(f"{geometry} and {probes}", "run both stages again"):
        correlations = links(cosine, accuracy, draws=settings.draws, permutations=settings.permutations, seed=seed)
    rows = _rows(correlations, len(steps) - 1)
    table = _table(correlations, steps, layers, split)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", _metrics(rows, steps, layers))
    write_curves(out / "curves.csv", _curves(table, steps))
    manifest.facts = {"checkpoints": len(steps), "layers": len(layers)}
    return {"name": stage.item, "split": split, "layers": layers, "cosine": cosine, "accuracy": accuracy, "rows": rows}


def _cells(path: Path, statistic: str, split: str | None, key: str) -> LongTable:
    """One statistic by step and layer, mean over seeds; an error that names the key when there is none."""
    table = read_long_table(path)
    cells = table.select(statistic=statistic, **({"split": split} if split else {})).averaged("step", "layer")
    if not len(cells):
        lacking = f"{statistic!r} of the split {split!r}" if split else repr(statistic)
        present = ", ".join(sorted(table.distinct("split" if split else "statistic")))
        raise FinetraceError(f"{path}: has no {lacking} (params.yaml: {key}); it has {present}")
    return cells


def _shared(cosines: LongTable, accuracies: LongTable, geometry: Path, probes: Path) -> tuple[list[int], list[int]]:
    """The checkpoints and layers that both lenses measured."""
    common = cosines.frame.merge(accuracies.frame, on=["step", "layer"])
    if common.empty:
        raise FinetraceError(f"{geometry} and {probes}: share no checkpoint and layer; let probes.layers name layers "
                             "that geometry has (or all), and run both on the same hidden states")
    grid = common.pivot(index="step", columns="layer", values="layer")
    lacking = np.argwhere(grid.isna().to_numpy())
    if len(lacking):
        step, layer = lacking[0]
        raise FinetraceError(f"{geometry} and {probes}: step {grid.index[step]} layer {grid.columns[layer]} is "
                             "missing in one of them; run both stages again")
    return grid.index.tolist(), grid.columns.tolist()


def _table(correlations: Sequence["Link"], steps: list[int], layers: list[int], split: str) -> LongTable:
    """One row per correlation; -1 in step or layer: it runs over all of them."""
    return LongTable.of_rows(({
        "step": steps[link.checkpoint] if link.checkpoint >= 0 else -1,
        "layer": layers[link.layer] if link.layer >= 0 else -1,
        "statistic": link.kind, "of": link.of, "over": link.over, "split": split, **vars(link.correlation)}
        for link in correlations), COLUMNS)


def _rows(correlations: Sequence["Link"], last: int) -> "Rows":
    """What stands for the trajectory, over layers at the last checkpoint and over all pairs."""
    from finetrace.lenses.convergence.correlation import KINDS, pick

    rows: Rows = {}
    for of in ("level", "change"):
        for when, over, checkpoint in (("last", "layers", last), ("all", "all", -1)):
            kinds = {kind: pick(correlations, kind, of, over, checkpoint) for kind in KINDS}
            if all(kinds.values()):
                rows[of, when] = {kind: correlation for kind, correlation in kinds.items() if correlation}
    return rows


def _metrics(rows: "Rows", steps: list[int], layers: list[int]) -> dict[str, float]:
    """`spearman/change/last` with /low, /high, /p; what could not be computed is left out."""
    numbers = {f"{kind}/{of}/{when}{end}": getattr(correlation, name)
               for (of, when), kinds in rows.items() for kind, correlation in kinds.items()
               for end, name in (("", "value"), ("/low", "low"), ("/high", "high"), ("/p", "p"))}
    return {"layers": len(layers), "checkpoints": len(steps)} | known(numbers)


def _curves(table: LongTable, steps: list[int]) -> dict[str, Any]:
    from finetrace.lenses.convergence.correlation import KINDS

    return {"step": steps} | {f"{kind}_{of}": table.course(steps, statistic=kind, of=of, over="layers")[:, 0]
                              for kind in KINDS for of in ("level", "change")}
