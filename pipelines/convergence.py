"""python pipelines/convergence.py TRAJECTORY -- do layers whose tokens converge probe better? -> .../sSEED/convergence/"""

import math

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.tables import read_table, write_table

ROOMS = ("lenses/convergence.py", "lenses/intervals.py", "config/convergence.py")


def main(stage: Stage) -> None:
    from finetrace.lenses.convergence import links

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings = stage.study.convergence
    split = settings.split or stage.study.probes.for_model(item.model).test_splits[0]
    geometry, probes = (folder / lens for lens in ("geometry", "probes"))
    cosines = _cells(geometry / "table.parquet", settings.cosine, None, "convergence.cosine")
    accuracies = _cells(probes / "table.parquet", "accuracy", split, "convergence.split")
    steps, layers = _shared(cosines, accuracies, geometry, probes)
    seed = seeds.derive(stage.study.study.seed, "convergence", item.task)
    manifest = stage.manifest("lens", as_dict(settings) | {"split": split}, {geometry: geometry, probes: probes},
                              {"convergence": seed}, rooms=ROOMS)
    cosine, accuracy = (np.array([[cells[step, layer] for layer in layers] for step in steps]) for cells in (cosines, accuracies))
    try:
        found = links(cosine, accuracy, draws=settings.draws, permutations=settings.permutations, seed=seed)
    except ValueError as error:
        raise FinetraceError(f"{geometry} and {probes}: {error}; run both stages again") from error
    with stage.output(folder / "convergence", manifest) as out:
        write_table(out / "table.parquet", _table(found, steps, layers, split))
        write_json(out / "metrics.json", _metrics(found, steps, layers))
        write_curves(out / "curves.csv", _curves(found, steps))
        _figure(stage, out, found, layers, cosine, accuracy, split)
        manifest.facts = {"checkpoints": len(steps), "layers": len(layers)}


def _cells(path, statistic, split, key) -> dict[tuple[int, int], float]:
    """(step, layer) -> value of one statistic, mean over seeds; an error that names the key when there is none."""
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


def _shared(cosines, accuracies, geometry, probes) -> tuple[list[int], list[int]]:
    """The checkpoints and layers that both lenses measured."""
    common = set(cosines) & set(accuracies)
    steps, layers = (sorted({place[i] for place in common}) for i in (0, 1))
    if not common:
        raise FinetraceError(f"{geometry} and {probes}: share no checkpoint and layer; let probes.layers name layers that "
                             "geometry has (or all), and run both on the same hidden states")
    lacking = [place for place in ((s, l) for s in steps for l in layers) if place not in common]
    if lacking:
        raise FinetraceError(f"{geometry} and {probes}: step {lacking[0][0]} layer {lacking[0][1]} is missing in one of them; "
                             "run both stages again")
    return steps, layers


def _table(found, steps, layers, split) -> dict:
    """One row per correlation; -1 in step or layer: it runs over all of them."""
    return {
        "step": np.array([steps[one.checkpoint] if one.checkpoint >= 0 else -1 for one in found], dtype=np.int64),
        "layer": np.array([layers[one.layer] if one.layer >= 0 else -1 for one in found], dtype=np.int32),
        "statistic": [one.kind for one in found],
        **{name: np.array([getattr(one.found, name) for one in found], dtype=np.float64) for name in ("value", "low", "high")},
        "n": np.array([one.found.n for one in found], dtype=np.int64),
        "of": [one.of for one in found], "over": [one.over for one in found],
        "p": np.array([one.found.p for one in found], dtype=np.float64),
        "clusters": np.array([one.found.clusters for one in found], dtype=np.int64), "split": [split] * len(found)}


def _rows(found, last) -> dict[tuple[str, str], dict]:
    """What stands for the trajectory: (of, when) -> {kind: correlation}; over layers at the last checkpoint, over all pairs."""
    from finetrace.lenses.convergence import KINDS, pick

    rows = {}
    for of in ("level", "change"):
        for when, over, checkpoint in (("last", "layers", last), ("all", "all", -1)):
            kinds = {kind: pick(found, kind, of, over, checkpoint) for kind in KINDS}
            if all(kinds.values()):
                rows[of, when] = kinds
    return rows


def _metrics(found, steps, layers) -> dict[str, float]:
    """`spearman/change/last` with /low, /high, /p; what could not be computed is left out."""
    metrics: dict[str, float] = {"layers": len(layers), "checkpoints": len(steps)}
    for (of, when), kinds in _rows(found, len(steps) - 1).items():
        for kind, one in kinds.items():
            values = {"": one.value, "/low": one.low, "/high": one.high, "/p": one.p}
            metrics |= {f"{kind}/{of}/{when}{end}": value for end, value in values.items() if not math.isnan(value)}
    return metrics


def _curves(found, steps) -> dict:
    from finetrace.lenses.convergence import KINDS, pick

    ones = {f"{kind}_{of}": [pick(found, kind, of, "layers", number) for number in range(len(steps))]
            for kind in KINDS for of in ("level", "change")}
    return {"step": steps} | {name: [one.value if one else math.nan for one in column] for name, column in ones.items()}


def _figure(stage, out, found, layers, cosine, accuracy, split) -> None:
    from finetrace.figures.convergence import convergence

    when = {"last": "last checkpoint", "all": "all checkpoints"}
    rows = {f"{of.capitalize()}s, {when[at]}": kinds for (of, at), kinds in _rows(found, len(cosine) - 1).items()}
    figure = convergence(layers, cosine, accuracy, rows, split=split, title=f"Convergence and performance: {stage.item}")
    write_figures(out / "figures", {"convergence": figure})


if __name__ == "__main__":
    run("convergence", main)
