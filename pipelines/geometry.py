"""python pipelines/geometry.py TRAJECTORY -- cosines, traces, ranks, isotropy, class cones -> .../sSEED/geometry/"""

import logging
import time

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.hidden import finite, fit_threads, read_hidden
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/geometry.py", "lenses/gram.py", "lenses/anisotropy.py", "lenses/cones.py", "lenses/geometry_summary.py",
         "lenses/intervals.py")
CURVES = ("cosine_mean", "effective_rank", "anisotropy")
EVERY_LAYER = ("cosine_mean", "effective_rank")
LAST_LAYER = ("cosine_pooled_median", "covariance_trace", "scaled_trace", "effective_rank_centred", "anisotropy",
              "corrected_intra_sentence_similarity", "iso_score", "intrinsic_dimension", "within_class_cosine",
              "between_class_cosine", "class_angle_degrees", "scatter_ratio")
LABELS = {  # statistic -> heading and unit in the figures
    "covariance_trace": ("Covariance trace (depends on scale)", "squared units of the states"),
    "scaled_trace": ("Trace / mean squared norm", "share of the squared norm"),
    "effective_rank": ("Effective rank of stacked tokens", "directions"),
    "effective_rank_centred": ("Effective rank, mean token removed", "directions"),
    "cosine_mean": ("Cosine within sentences", "cosine, mean over sentences"),
    "anisotropy": ("Anisotropy", "cosine across sentences"),
}


def main(stage: Stage) -> None:
    from finetrace.lenses import geometry_summary as summary

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings = stage.study.geometry
    hidden = read_hidden(folder / "hidden")
    fit_threads(hidden)
    seed = seeds.derive(stage.study.study.seed, "geometry", item.task)
    manifest = stage.manifest("lens", as_dict(settings), {folder / "hidden": folder / "hidden"}, {"geometry": seed}, rooms=ROOMS)
    everyone, stacked = _samples(hidden, settings, seed)
    cone = _cone_rows(hidden, settings, seed)
    layers = hidden.manifest.facts["layers"]
    log.info("%s: %d checkpoints x %d layers, %d sentences with %s tokens, %d vectors of examples", stage.label,
             len(hidden.steps), layers, len(everyone.groups), f"{len(everyone.select):,}", len(cone[0]) if cone else 0)
    first: dict[int, list] = {}
    parts, told = [], time.monotonic()
    for number, step in enumerate(hidden.steps):
        tokens = hidden.tokens(step)
        vectors = hidden.vectors(step, settings.cones_vectors) if cone else None
        for layer in range(layers):
            values = finite(np.asarray(tokens[layer]), hidden, step, "tokens", layer)
            found = summary.sentence_estimates(values, everyone)
            found.append(summary.spectral_estimates(values, stacked, settings.dimension_tokens))
            if cone:
                whole = finite(np.asarray(vectors[layer]), hidden, step, settings.cones_vectors, layer)
                found += summary.cone_estimates(whole[cone[0]], *cone[1:])
            parts.append(summary.table_rows(step, layer, found, first.get(layer)))
            first.setdefault(layer, found)
            if time.monotonic() - told > 20:
                log.info("%s: checkpoint %d of %d (step %d), layer %d of %d", stage.label, number + 1, len(hidden.steps), step,
                         layer, layers - 1)
                told = time.monotonic()
    table = {name: np.concatenate([part[name] for part in parts]) for name in summary.COLUMNS}
    with stage.output(folder / "geometry", manifest) as out:
        write_table(out / "table.parquet", {k: v.tolist() if k == "statistic" else v for k, v in table.items()})
        write_json(out / "metrics.json", _metrics(table, layers))
        write_curves(out / "curves.csv", {"step": hidden.steps} | {
            f"{name}_layer_{layer:02d}": values for name in CURVES for layer, values in enumerate(summary.grid(table, name).T)})
        _figures(stage, out, table, hidden, cone, settings, everyone)
        manifest.facts = {"checkpoints": len(hidden.steps), "layers": layers, "sentences": len(everyone.groups),
                          "tokens": len(everyone.select), "rank_tokens": len(stacked.select),
                          "cone_rows": len(cone[0]) if cone else 0}


def _samples(hidden, settings, seed):
    """The sentences behind the per-sentence statistics, and those whose tokens are stacked."""
    from finetrace.lenses.geometry_summary import choose_sentences, make_sample

    inside = np.flatnonzero(hidden.splits[hidden.sentence_rows] == settings.split)
    if not len(inside):
        raise FinetraceError(f"{hidden.folder}: has no tokens of the split {settings.split!r} (params.yaml: geometry.split); add "
                             "it to hidden.token_rows")
    try:
        return [make_sample(hidden.offsets, hidden.special, hidden.token_ids,
                            sentences=choose_sentences(inside, limit, settings.choose), special_tokens=settings.special_tokens,
                            draws=settings.draws, groups=settings.groups, seed=seed)
                for limit in (settings.sentences, settings.rank_sentences)]
    except ValueError as error:
        raise FinetraceError(f"{hidden.folder}: split {settings.split!r} for the lens geometry: {error}") from error


def _cone_rows(hidden, settings, seed):
    """Rows, labels, class names, bootstrap weights and jackknife groups of the class cones, or None."""
    from finetrace.lenses.intervals import bootstrap_weights, groups_of

    if not settings.cones_splits:
        return None
    rows = np.concatenate([hidden.rows(split) for split in settings.cones_splits])
    labels = hidden.labels[rows]
    if len(np.unique(labels)) < 2:
        raise FinetraceError(f"{hidden.folder / 'index.parquet'}: the {len(rows)} rows of {', '.join(settings.cones_splits)} "
                             f"have one class only ({hidden.label_names[labels[0]]}), and class cones compare classes; take "
                             "more rows (hidden.rows), another split (geometry.cones_splits), or none: geometry.cones_splits: []")
    sentence = hidden.sentence_codes(rows)  # words of one sentence are drawn together
    count = int(sentence.max()) + 1
    return (rows, labels, hidden.label_names, bootstrap_weights(count, settings.draws, seed)[:, sentence],
            groups_of(count, settings.groups, seed)[sentence])


def _metrics(table, layers) -> dict[str, float]:
    """What a person compares between runs: last checkpoint and change, two statistics of every layer, the rest of the last."""
    from finetrace.lenses.geometry_summary import grid

    found = {}
    for name in (*EVERY_LAYER, *LAST_LAYER):
        values = grid(table, name)
        for layer in range(layers) if name in EVERY_LAYER else [layers - 1]:
            found[f"{name}/layer-{layer:02d}/first"] = values[0, layer]
            found[f"{name}/layer-{layer:02d}/last"] = values[-1, layer]
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _figures(stage, out, table, hidden, cone, settings, sample) -> None:
    from finetrace.figures import geometry as figures
    from finetrace.lenses.geometry_summary import BOX, Bands, bands, grid

    steps = (hidden.steps[0], hidden.steps[-1])
    special = "special tokens included" if settings.special_tokens else "without special tokens"
    note = f"{len(sample.groups):,} sentences of {settings.split}, {special}"

    def ends(name):
        values = bands(table, name)
        return tuple(Bands(values.value[i], values.low[i], values.high[i]) for i in (0, -1))

    boxes = np.stack([grid(table, f"cosine_pooled_{part}") for part in BOX], axis=-1)
    spread = ("covariance_trace", "scaled_trace", "effective_rank", "effective_rank_centred")
    made = {
        "cosines": figures.cosine_boxes(boxes[0], boxes[-1], *ends("cosine_median"), steps=steps, note=note,
                                        title=f"Tokens of a sentence: {stage.item}"),
        "spread": figures.layer_profiles(
            {name: ends(name) for name in spread}, LABELS, steps=steps, note=note,
            title=f"Spread of the tokens: {stage.item}"),
        "trajectories": figures.trajectories(np.array(hidden.steps), {name: bands(table, name) for name in CURVES}, LABELS,
                                             note=note, title=f"Tokens over training: {stage.item}"),
    }
    if cone:
        made["cones"] = _cone_figure(stage, hidden, cone, settings, steps)
    write_figures(out / "figures", made)


def _cone_figure(stage, hidden, cone, settings, steps):
    from finetrace.figures import geometry as figures
    from finetrace.lenses.cones import cone as cosines_with
    from finetrace.lenses.cones import cone_statistics

    rows, labels, names = cone[:3]
    ends = [np.asarray(hidden.vectors(step, settings.cones_vectors)[-1])[rows] for step in steps]
    classes, column = np.unique(labels, return_inverse=True)
    splits = " then ".join(settings.cones_splits)
    return figures.class_cones(
        tuple(cosines_with(values, labels) for values in ends), tuple(cosines_with(values, labels, "first") for values in ends),
        column, [names[c] for c in classes], statistics=tuple(cone_statistics(values, labels) for values in ends),
        steps=steps, layer=hidden.manifest.facts["layers"] - 1,
        note=f"{hidden.kind(settings.cones_vectors)} vectors of {splits}; each example is part of its class mean",
        title=f"Class cones: {stage.item}")


if __name__ == "__main__":
    run("geometry", main)
