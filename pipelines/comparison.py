"""python pipelines/comparison.py NAME -- how similar two trajectories on one task are, layer by layer -> comparisons/NAME/"""

import logging

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.hidden import fit_threads, read_hidden
from finetrace.store.tables import write_table
from similarity import ROOMS, announce, curve, enough, kinds_of, loader, named, watched

log = logging.getLogger("finetrace")


def main(stage: Stage) -> None:
    from finetrace.lenses import similarity_summary as summary

    entry, settings = stage.pick("comparisons", stage.study.comparisons), stage.study.similarity
    sides = [stage.study.trajectories[key] for key in entry.trajectories]
    folders = [stage.layout.run(side.model, side.task, side.method, side.seed) / "hidden" for side in sides]
    first, second = (read_hidden(folder) for folder in folders)
    fit_threads(first)
    seed = seeds.derive(stage.study.study.seed, "comparison", stage.item)
    manifest = stage.manifest("lens", {**as_dict(settings), **as_dict(entry)}, {folder: folder for folder in folders},
                              {"rows": seed}, rooms=ROOMS)
    if sides[0].task != sides[1].task:
        raise _refusal(entry, f"they are on different tasks ({sides[0].task}, {sides[1].task})")
    rows = _matched_rows(first, second, entry)
    pairs = _checkpoints(first.steps, second.steps)
    layers = [one.manifest.facts["layers"] for one in (first, second)]
    found, counts = {}, {}
    for kind in kinds_of(first, settings):
        matched = _matched(first, second, rows, kind, stage)
        if matched is None:
            continue
        sentences, items = matched
        enough(len(sentences), kind, f"comparisons.{stage.item}")
        chosen, groups = summary.choose(sentences, settings.rows, settings.groups, seed)
        counts[kind] = len(chosen)
        width = max(one.width if kind == "span" else one.manifest.facts["dim"] for one in (first, second))
        announce(stage, kind, f"{len(pairs)} pairs of checkpoints x {layers[0]} and {layers[1]} layers x {len(chosen):,} "
                 "examples", len(chosen), width, settings)
        loads = [loader(one, kind, places[chosen], groups, settings, seed)
                 for one, places in zip((first, second), items, strict=True)]
        found[kind] = list(watched(summary.between(*loads, pairs, *layers, settings.measures, settings.variance), kind))
    if not found:
        raise _refusal(entry, "their tokens differ; add cls to similarity.representations")
    table = summary.table(found)
    ends = [(one[1], one[0]) for one in (pairs[0], pairs[-1])]  # step, other_step
    metrics = summary.metrics(table, settings.measures, *ends[0], when="first")
    metrics |= summary.metrics(table, settings.measures, *ends[1], when="last")
    with stage.output(stage.layout.comparison(stage.item), manifest) as out:
        write_table(out / "table.parquet", table)
        write_json(out / "metrics.json", metrics)
        write_curves(out / "curves.csv", summary.curves(table, settings.measures, [(b, a) for a, b in pairs]))
        write_figures(out / "figures", _figures(stage.item, table, entry, pairs, named(counts), settings.measures))
        manifest.facts = {f"{kind}_examples": count for kind, count in counts.items()}


def _refusal(entry, reason) -> FinetraceError:
    return FinetraceError(f"params.yaml: comparisons: {entry.first} and {entry.second} cannot be compared: {reason}")


def _matched_rows(first, second, entry):
    """Rows of the same examples in both: (example, 2) int64. Refuses examples with different labels."""
    places = {key: row for row, key in enumerate(zip(second.splits.tolist(), second.example_ids.tolist(), strict=True))}
    keys = zip(first.splits.tolist(), first.example_ids.tolist(), strict=True)
    rows = np.array([(row, places[key]) for row, key in enumerate(keys) if key in places], dtype=np.int64).reshape(-1, 2)
    if len(rows) < 4:
        raise _refusal(entry, f"they share {len(rows)} examples, 4 are needed; extract the same rows of both (hidden.rows)")
    wrong = np.flatnonzero(first.labels[rows[:, 0]] != second.labels[rows[:, 1]])
    if first.label_names != second.label_names or len(wrong):
        row = rows[wrong[0], 0] if len(wrong) else None
        where = "" if row is None else f", e.g. example {first.example_ids[row]} of {first.splits[row]}"
        raise _refusal(entry, f"their examples have different labels{where}; they were made from different data, run both again")
    return rows


def _matched(first, second, rows, kind, stage):
    """The sentence of each common example (example,) and its places in both arrays; None where tokens differ."""
    if kind != "tokens":
        return first.sentence_codes(rows[:, 0]), (rows[:, 0], rows[:, 1])
    sentences, places = [], ([], [])
    kept = [dict(zip(one.sentence_rows.tolist(), range(len(one.sentence_rows)), strict=True)) for one in (first, second)]
    for number, (a, b) in enumerate(rows.tolist()):
        if a in kept[0] and b in kept[1]:
            spans = [np.arange(*one.offsets[[at[row], at[row] + 1]])
                     for one, at, row in ((first, kept[0], a), (second, kept[1], b))]
            if not np.array_equal(first.token_ids[spans[0]], second.token_ids[spans[1]]):
                log.info("%s: tokens: left out, the two models cut the texts into different tokens", stage.label)
                return None
            words = ~first.special[spans[0]]
            sentences.append(np.full(words.sum(), number))
            for side, span in zip(places, spans, strict=True):
                side.append(span[words])
    empty = [np.empty(0, dtype=np.int64)]
    return np.concatenate(sentences or empty), tuple(np.concatenate(side or empty) for side in places)


def _checkpoints(first, second) -> list[tuple[int, int]]:
    """Pairs (step of the first, of the second) that are compared: both first ones, the common ones, both last ones."""
    common = sorted(set(first[1:-1]) & set(second[1:-1]))
    return list(dict.fromkeys([(first[0], second[0]), *((step, step) for step in common), (first[-1], second[-1])]))


def _figures(name, table, entry, pairs, kinds, measures):
    from finetrace.figures import similarity as figures
    from finetrace.lenses import similarity_summary as summary

    main_measure = summary.main_measure(measures)
    over_layers, over_steps, sides = [], [], {}
    ends = {"first checkpoints": pairs[0], "last checkpoints": pairs[-1]}
    for kind, label in kinds.items():
        here = summary.select(table, representation=kind)
        row = []
        for when, (other_step, step) in ends.items():
            part = summary.select(here, step=step, other_step=other_step, statistic=main_measure)
            row.append(figures.Lattice(f"{label}, {when}", *summary.grid(part, "layer", "other_layer")))
            sides[f"{label}, {when}"] = {m: curve(summary.at_layers(here, statistic=m, step=step, other_step=other_step))
                                         for m in measures}
        over_layers.append(row)
        over_steps.append(figures.Lattice(label, *summary.grid(summary.at_layers(here, statistic=main_measure), "layer", "step")))
    bars = "; bars: 95 % interval of CKA over sentences" if "cka" in measures else ""
    who, when, depth = f"first: {entry.first}; second: {entry.second}", "", ""
    if pairs[-1][0] != pairs[-1][1]:
        when = f"\nthe last column compares checkpoint {pairs[-1][0]:,} of the first with {pairs[-1][1]:,} of the second"
    if table["layer"].max() != table["other_layer"].max():
        depth = "\neach layer of the second is compared with the layer of the first at the same share of the depth"
    return {
        "layers": figures.heat_maps(over_layers, main_measure, "layer of the first", "layer of the second", note=who,
                                    title=f"Layers of two trajectories: {name}"),
        "measures": figures.measures(sides, note=who + bars + depth, title=f"Similarity of two trajectories: {name}"),
        "steps": figures.heat_maps([over_steps], main_measure, "optimiser step of the checkpoints", "layer of the second",
                                   note=who + when + depth, title=f"Similarity of two trajectories over training: {name}"),
    }


if __name__ == "__main__":
    run("comparison", main)
