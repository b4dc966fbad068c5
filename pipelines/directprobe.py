"""python pipelines/directprobe.py NAME -- the hull probe on inputs of the original programs -> directprobe/NAME/

The folder holds their files (clusters.txt, dis.txt, vec.txt, ...) beside the usual table, metrics, manifest and figures.
"""

from pathlib import Path

from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_figures
from finetrace.store.directprobe_inputs import read_settings
from finetrace.store.files import sha256_file, sha256_folder, write_json
from finetrace.store.tables import write_table

ROOMS = ("directprobe.py", "store/directprobe_inputs.py", "store/directprobe_files.py", "lenses/hulls", "lenses/intervals.py")
PATHS = ("label_set_path", "entities_path", "embeddings_path", "test_entities_path", "test_embeddings_path",
         "batch_embeddings_path", "probing_cluster_path")


def main(stage: Stage) -> None:
    from finetrace.directprobe import analyse

    entry = stage.pick("directprobe", stage.study.directprobe)
    config, data = stage.layout.root / entry.config, stage.layout.root / entry.inputs
    settings = read_settings(config)
    if not data.is_dir():
        raise FinetraceError(f"params.yaml: directprobe.{stage.item}.inputs: {data} is not a folder")
    _check_inside(stage, settings, data)
    manifest = stage.manifest("lens", as_dict(entry), {config: sha256_file(config), data: sha256_folder(data)}, rooms=ROOMS)
    with stage.output(stage.layout.directprobe(stage.item), manifest) as out:
        result = analyse(settings, out, mode=entry.mode, min_size=entry.min_size, numbering=entry.numbering)
        write_table(out / "table.parquet", result.table)
        write_json(out / "metrics.json", result.metrics)
        write_figures(out / "figures", _figures(stage.item, result, entry))
        manifest.facts = {"mode": entry.mode or settings.mode, "spaces": len(result.spaces),
                          "vectors": len(result.spaces[0].clusters.assignment), "comments": settings.comments}


def _check_inside(stage, settings, data) -> None:
    """Every file that the INI names lies where DVC watches for changes."""
    for key in PATHS:
        path: Path | None = getattr(settings, key)
        if path is not None and not path.resolve().is_relative_to(data.resolve()):
            raise FinetraceError(f"params.yaml: directprobe.{stage.item}.inputs: {key} of the INI, {path}, does not lie in "
                                 f"{data}: a change of it would go unnoticed; name a folder that holds all of them")


def _figures(name, result, entry):
    from finetrace.figures import directprobe as figures

    first = result.spaces[0]
    note = f"clusters of fewer than {entry.min_size} points left out" if entry.min_size > 1 else ""
    if first.layer >= 0:
        return {"layers": figures.layers(
            {s.iteration: {t.layer: None if t.distances is None else t.distances.outside_min for t in result.spaces
                           if t.iteration == s.iteration} for s in result.spaces},
            title=f"Distances between labels by layer: {name}", note=note)}
    counts = {str(label): int((first.clusters.cluster_labels == label).sum()) for label in first.clusters.classes}
    return {"labels": figures.labels(list(counts), list(counts.values()), first.distances.outside_min, first.distances.matrix,
                                     title=f"Clusters and distances of labels: {name}", note=note)}


if __name__ == "__main__":
    run("directprobe", main)
