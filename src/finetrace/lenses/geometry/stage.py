"""Cosines, traces, ranks, isotropy, class cones -> .../sSEED/geometry/"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.geometry.settings import GeometrySettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress
from finetrace.store.files import write_json
from finetrace.store.hidden import HiddenStates, finite, fit_threads, read_hidden
from finetrace.store.manifest import Manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.lenses.geometry.summary import Sample
    from finetrace.longtable import LongTable

log = logging.getLogger("finetrace")
CURVES = ("cosine_mean", "effective_rank", "anisotropy")
EVERY_LAYER = ("cosine_mean", "effective_rank")
LAST_LAYER = ("cosine_pooled_median", "covariance_trace", "scaled_trace", "effective_rank_centred", "anisotropy",
              "corrected_intra_sentence_similarity", "iso_score", "intrinsic_dimension", "within_class_cosine",
              "between_class_cosine", "class_angle_degrees", "scatter_ratio")


@dataclass
class ConeRows:
    """The examples of the class cones: rows of the hidden states, labels, class names by number; jackknife groups
    (row,), in which the words of a sentence are together."""

    rows: np.ndarray
    labels: np.ndarray
    names: list[str]
    groups: np.ndarray


def main(stage: Stage) -> None:
    from finetrace.lenses.geometry.figures import TYPES, draw

    settings, folder = stage.settings("geometry", GeometrySettings), stage.folder / "geometry"
    hidden = read_hidden(stage.folder / "hidden")
    seed = seeds.derive(stage.seed, "geometry", stage.asked["task"])
    manifest = stage.manifest("lens", {hidden.folder: hidden.folder}, {"geometry": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, hidden, settings, seed, manifest, out), draw, TYPES)


def _measure(stage: Stage, hidden: HiddenStates, settings: GeometrySettings, seed: int, manifest: Manifest,
             out: Path) -> Record:
    fit_threads(hidden)
    everyone, stacked = _samples(hidden, settings, seed)
    cone = _cone_rows(hidden, settings, seed)
    layers = hidden.manifest.facts["layers"]
    cone_rows = len(cone.rows) if cone else 0
    log.info("%s: %d checkpoints x %d layers, %d sentences with %s tokens, %d vectors of examples", stage.label,
             len(hidden.steps), layers, len(everyone.groups), f"{len(everyone.select):,}", cone_rows)
    table = _table(stage, hidden, settings, everyone, stacked, cone)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", _metrics(table, hidden.steps, layers))
    write_curves(out / "curves.csv", {"step": hidden.steps} | {
        f"{name}_layer_{layer:02d}": values for name in CURVES
        for layer, values in enumerate(table.grid(statistic=name)[..., 0].T)})
    manifest.facts = {"checkpoints": len(hidden.steps), "layers": layers, "sentences": len(everyone.groups),
                      "tokens": len(everyone.select), "rank_tokens": len(stacked.select), "cone_rows": cone_rows}
    return {"name": stage.item, "steps": hidden.steps, "sentences": len(everyone.groups), "split": settings.split,
            "special_tokens": settings.special_tokens, "bands": _bands(table),
            "cones": _cones(hidden, cone, settings) if cone else None}


def _table(stage: Stage, hidden: HiddenStates, settings: GeometrySettings, everyone: "Sample", stacked: "Sample",
           cone: ConeRows | None) -> "LongTable":
    """All statistics of all layers of all checkpoints."""
    from finetrace.lenses.geometry import summary

    layers = hidden.manifest.facts["layers"]
    first: dict[int, list[Any]] = {}
    parts, progress = [], Progress(len(hidden.steps) * layers, stage.label, unit="layer")
    for step in hidden.steps:
        tokens = hidden.tokens(step)
        vectors = hidden.vectors(step, settings.cones_vectors) if cone else None
        for layer in range(layers):
            values = finite(np.asarray(tokens[layer]), hidden, step, "tokens", layer)
            estimates = summary.sentence_estimates(values, everyone)
            estimates.append(summary.spectral_estimates(values, stacked, settings.dimension_tokens))
            if cone and vectors is not None:
                layer_vectors = finite(np.asarray(vectors[layer]), hidden, step, settings.cones_vectors, layer)
                estimates.append(summary.cone_estimates(layer_vectors[cone.rows], cone.labels, cone.names, cone.groups))
            parts.append(summary.table_rows(step, layer, estimates, first.get(layer)))
            first.setdefault(layer, estimates)
            progress.advance(f"(step {step}, layer {layer})")
    progress.close()
    return summary.table(parts)


def _samples(hidden: HiddenStates, settings: GeometrySettings, seed: int) -> tuple["Sample", "Sample"]:
    """The sentences behind the per-sentence statistics, and those whose tokens are stacked."""
    from finetrace.lenses.geometry.summary import choose_sentences, make_sample

    inside = np.flatnonzero(hidden.splits[hidden.sentence_rows] == settings.split)
    if not len(inside):
        raise FinetraceError(f"{hidden.folder}: has no tokens of the split {settings.split!r} (params.yaml: "
                             "geometry.split); add it to hidden.token_rows")
    with blame(f"{hidden.folder}: split {settings.split!r} for the lens geometry"):
        everyone, stacked = (
            make_sample(hidden.offsets, hidden.special, hidden.token_ids,
                        sentences=choose_sentences(inside, limit, settings.choose),
                        special_tokens=settings.special_tokens, draws=settings.draws, groups=settings.groups, seed=seed)
            for limit in (settings.sentences, settings.rank_sentences))
    return everyone, stacked


def _cone_rows(hidden: HiddenStates, settings: GeometrySettings, seed: int) -> ConeRows | None:
    """The examples of the class cones, or None where none are asked for, or the task has no classes."""
    from finetrace.lenses.intervals import groups_of

    if not settings.cones_splits or "target" in hidden.manifest.facts:
        return None
    rows = np.concatenate([hidden.rows(split) for split in settings.cones_splits])
    labels = hidden.labels[rows]
    if len(np.unique(labels)) < 2:
        raise FinetraceError(f"{hidden.folder / 'index.parquet'}: the {len(rows)} rows of "
                             f"{', '.join(settings.cones_splits)} have one class only "
                             f"({hidden.label_names[labels[0]]}), and class cones compare classes; take more rows "
                             "(hidden.rows), another split (geometry.cones_splits), or none: geometry.cones_splits: []")
    sentence = hidden.sentence_codes(rows)  # words of one sentence are drawn together
    groups = groups_of(int(sentence.max()) + 1, settings.groups, seed)[sentence]
    return ConeRows(rows, labels, hidden.label_names, groups)


def _metrics(table: "LongTable", steps: list[int], layers: int) -> dict[str, float]:
    """What a person compares between runs: first and last checkpoint, two statistics of every layer, the rest of the
    last."""
    every_layer, last_layer = ({name: {"statistic": name} for name in names} for names in (EVERY_LAYER, LAST_LAYER))
    return table.headlines(every_layer, steps, range(layers)) | table.headlines(last_layer, steps, [layers - 1])


def _bands(table: "LongTable") -> dict[str, Any]:
    """Every statistic but those of single pairs of classes, of which there may be thousands: name -> Bands."""
    from finetrace.lenses.geometry.summary import Bands

    return {name: Bands(*np.moveaxis(table.grid(statistic=name), -1, 0)) for name in table.distinct("statistic")
            if not name.startswith("class_cosine/")}


def _cones(hidden: HiddenStates, cone: ConeRows, settings: GeometrySettings) -> dict[str, Any]:
    """Directions of the last layer's vectors at the first and the last checkpoint."""
    from finetrace.lenses.geometry.cones import cone as cosines_with
    from finetrace.lenses.geometry.cones import cone_statistics

    ends = [np.asarray(hidden.vectors(hidden.steps[i], settings.cones_vectors)[-1])[cone.rows] for i in (0, -1)]
    classes, column = np.unique(cone.labels, return_inverse=True)
    return {"vectors": hidden.kind(settings.cones_vectors), "splits": settings.cones_splits,
            "layer": hidden.manifest.facts["layers"] - 1, "names": [cone.names[c] for c in classes], "labels": column,
            # two axes, one for each class: more classes are not drawn this way
            "cosines": tuple(cosines_with(values, cone.labels) for values in ends) if len(classes) == 2 else (),
            "to_first": tuple(cosines_with(values, cone.labels, "first") for values in ends),
            "statistics": tuple(cone_statistics(values, cone.labels) for values in ends)}
