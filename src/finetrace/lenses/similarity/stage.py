"""Which layers does training change, and when -> .../sSEED/similarity/"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetrace import seeds
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.hidden import HiddenStates, fit_threads, read_hidden
from finetrace.store.manifest import Manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.longtable import LongTable


def main(stage: Stage) -> None:
    from finetrace.lenses.similarity.figures import draw

    settings, folder = stage.settings("similarity", SimilaritySettings), stage.folder / "similarity"
    hidden = read_hidden(stage.folder / "hidden")
    seed = seeds.derive(stage.seed, "similarity", stage.asked["task"])
    manifest = stage.manifest("lens", {hidden.folder: hidden.folder}, {"rows": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, hidden, settings, seed, manifest, out), draw)


def _measure(stage: Stage, hidden: HiddenStates, settings: SimilaritySettings, seed: int, manifest: Manifest,
             out: Path) -> Record:
    from finetrace.lenses.similarity import summary, work

    fit_threads(hidden)
    steps, layers = hidden.steps, hidden.manifest.facts["layers"]
    rows, counts = {}, {}
    for kind in work.kinds_of(hidden, settings):
        sentences, items = work.candidates(hidden, kind)
        work.enough(len(items), kind, hidden.folder)
        chosen, groups = summary.choose(sentences, settings.rows, settings.groups, seed)
        counts[kind] = len(chosen)
        work.announce(stage.label, kind, f"{len(steps)} checkpoints x {layers} layers x {len(chosen):,} examples",
                      len(chosen), hidden.width if kind == "span" else hidden.manifest.facts["dim"], settings)
        load = work.loader(hidden, kind, items[chosen], groups, settings, seed)
        within = summary.within(load, steps, layers, settings.measures, settings.variance)
        rows[kind] = work.watched(within, layers * (len(steps) * (len(steps) - 1) // 2 + layers), kind)
    table = summary.table(rows)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.metrics(table, settings.measures, steps[-1], steps[0]))
    write_curves(out / "curves.csv", summary.curves(table, settings.measures, [(step, steps[0]) for step in steps]))
    manifest.facts = {f"{kind}_examples": count for kind, count in counts.items()}
    return {"name": stage.item, "steps": steps, "counts": counts, "measures": settings.measures,
            "table": _shown(table, steps)}


def _shown(table: "LongTable", steps: list[int]) -> dict[str, np.ndarray]:
    """The rows that compare with the first checkpoint or the one before; those of all pairs would be many."""
    from finetrace.lenses.similarity.summary import recorded
    from finetrace.longtable import LongTable

    step, other = table.frame["step"], table.frame["other_step"]
    before = step.map(dict(zip(steps[1:], steps, strict=False)))
    return recorded(LongTable(table.frame[(other == steps[0]) | (other == before)]))
