"""The hull probe on inputs of the original programs -> directprobe/NAME/

The folder holds their files (clusters.txt, dis.txt, vec.txt, ...) beside the usual table, metrics and figures.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from finetrace.errors import FinetraceError
from finetrace.lenses.directprobe.settings import DirectprobeSettings
from finetrace.originals.directprobe_inputs import Settings, read_settings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage
from finetrace.store.files import sha256_file, sha256_folder, write_json
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.originals.directprobe import Result

PATHS = ("label_set_path", "entities_path", "embeddings_path", "test_entities_path", "test_embeddings_path",
         "batch_embeddings_path", "probing_cluster_path")


def main(stage: Stage) -> None:
    from finetrace.lenses.directprobe.figures import draw
    from finetrace.originals.directprobe import analyse

    entry = stage.settings("directprobe", DirectprobeSettings)
    folder = stage.layout.directprobe(stage.item)
    config, data = stage.layout.root / entry.config, stage.layout.root / entry.inputs
    settings = read_settings(config)
    if not data.is_dir():
        raise FinetraceError(f"params.yaml: directprobe.{stage.item}.inputs: {data} is not a folder")
    _check_inside(stage, settings, data)
    manifest = stage.manifest("lens", {config: sha256_file(config), data: sha256_folder(data)}, outs=(folder,))

    def measure(out: Path) -> Record:
        result = analyse(settings, out, mode=entry.mode, min_size=entry.min_size, numbering=entry.numbering)
        write_table(out / "table.parquet", result.table.columns())
        write_json(out / "metrics.json", result.metrics)
        manifest.facts = {"mode": entry.mode or settings.mode, "spaces": len(result.spaces),
                          "vectors": len(result.spaces[0].clusters.assignment), "comments": settings.comments}
        return {"name": stage.item, "min_size": entry.min_size, **_drawn(result)}

    write_lens(stage, folder, manifest, measure, draw)


def _check_inside(stage: Stage, settings: Settings, data: Path) -> None:
    """Every file that the INI names lies where DVC watches for changes."""
    for key in PATHS:
        path: Path | None = getattr(settings, key)
        if path is not None and not path.resolve().is_relative_to(data.resolve()):
            raise FinetraceError(f"params.yaml: directprobe.{stage.item}.inputs: {key} of the INI, {path}, does not "
                                 f"lie in {data}: a change of it would go unnoticed; name a folder that "
                                 "holds all of them")


def _drawn(result: "Result") -> Record:
    """What the figures show: of a batch distances by checkpoint and layer, else those between labels of one space."""
    first = result.spaces[0]
    if first.layer >= 0:
        return {"checkpoints": {
            s.iteration: {t.layer: None if t.distances is None else t.distances.outside_min
                          for t in result.spaces if t.iteration == s.iteration} for s in result.spaces}}
    if first.distances is None:
        raise ValueError("the labels of a single space have no distances")
    clusters = {str(label): int((first.clusters.cluster_labels == label).sum()) for label in first.clusters.classes}
    return {"clusters": clusters, "outside_min": first.distances.outside_min, "matrix": first.distances.matrix}
