"""python pipelines/similarity.py TRAJECTORY -- which layers does fine-tuning change, and when -> .../sSEED/similarity/"""

import functools
import itertools
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
NOUNS = {"tokens": "tokens", "span": "marked words"}
ROOMS = ("lenses/similarity.py", "lenses/similarity_summary.py", "lenses/intervals.py")


def main(stage: Stage) -> None:
    from finetrace.lenses import similarity_summary as summary

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings, hidden = stage.study.similarity, read_hidden(folder / "hidden")
    fit_threads(hidden)
    seed = seeds.derive(stage.study.study.seed, "similarity", item.task)
    manifest = stage.manifest("lens", as_dict(settings), {folder / "hidden": folder / "hidden"}, {"rows": seed}, rooms=ROOMS)
    steps, layers = hidden.steps, hidden.manifest.facts["layers"]
    found, counts = {}, {}
    for kind in kinds_of(hidden, settings):
        sentences, items = candidates(hidden, kind)
        enough(len(items), kind, hidden.folder)
        chosen, groups = summary.choose(sentences, settings.rows, settings.groups, seed)
        counts[kind] = len(chosen)
        announce(stage, kind, f"{len(steps)} checkpoints x {layers} layers x {len(chosen):,} examples", len(chosen),
                 hidden.width if kind == "span" else hidden.manifest.facts["dim"], settings)
        load = loader(hidden, kind, items[chosen], groups, settings, seed)
        found[kind] = list(watched(summary.within(load, steps, layers, settings.measures, settings.variance), kind))
    table = summary.table(found)
    with stage.output(folder / "similarity", manifest) as out:
        write_table(out / "table.parquet", table)
        write_json(out / "metrics.json", summary.metrics(table, settings.measures, steps[-1], steps[0]))
        write_curves(out / "curves.csv", summary.curves(table, settings.measures, [(step, steps[0]) for step in steps]))
        write_figures(out / "figures", _figures(stage.item, table, steps, named(counts), settings.measures))
        manifest.facts = {f"{kind}_examples": count for kind, count in counts.items()}


def kinds_of(hidden, settings) -> list[str]:
    """What is compared: in tasks of words, the words stand for cls and mean."""
    return list(dict.fromkeys(kind if kind == "tokens" else hidden.kind(kind) for kind in settings.representations))


def candidates(hidden, kind):
    """The examples of a kind: the sentence of each (example,), and its place in the array on disk (example,)."""
    if kind != "tokens":
        return hidden.sentence_codes(np.arange(len(hidden.labels))), np.arange(len(hidden.labels))
    items = np.flatnonzero(~hidden.special)
    return np.repeat(hidden.sentence_rows, np.diff(hidden.offsets))[items], items


def enough(count, kind, where) -> None:
    if count < 4:
        key = "token_rows" if kind == "tokens" else "rows"
        raise FinetraceError(f"{where}: {count} examples ({kind}) are too few to compare, 4 are needed; raise hidden.{key} in "
                             f"params.yaml or take {kind} out of similarity.representations")


def loader(hidden, kind, items, groups, settings, seed):
    """A function (step, layer) -> the representation of these items. Each layer is checked, once."""
    from finetrace.lenses.similarity import represent

    @functools.cache
    def check(step, layer) -> None:
        finite(arrays(step)[layer], hidden, step, kind, layer)

    def arrays(step):
        return hidden.tokens(step) if kind == "tokens" else hidden.vectors(step, kind)

    def load(step, layer):
        check(step, layer)
        return represent(arrays(step)[layer][items].astype(np.float64), groups, settings.rsa_rows, seed)

    return load


def announce(stage, kind, what, examples, dim, settings) -> None:
    """What is about to be computed, and whether CCA can use all directions."""
    from finetrace.lenses.similarity import most_directions

    most = most_directions(examples)
    capped = f"; svcca and pwcca use at most {most} of {dim} directions" if most < dim else ""
    log.info("%s: %s: %s, %s%s", stage.label, kind, what, ", ".join(settings.measures), capped)


def watched(rows, kind):
    """The rows as they come, with a line every half minute."""
    last = time.monotonic()
    for row in rows:
        if time.monotonic() - last > 30:
            last = time.monotonic()
            log.info("similarity of %s: checkpoint %s layer %s against checkpoint %s layer %s is done", kind, *row[:4])
        yield row


def named(counts) -> dict[str, str]:
    """What figures call the kinds of examples."""
    return {kind: f"{kind} ({count:,} {NOUNS.get(kind, 'sentences')})" for kind, count in counts.items()}


def curve(part):
    """Layers, values and intervals of rows, as the figures take them."""
    return part["layer"], part["value"], part["low"], part["high"]


def _figures(name, table, steps, kinds, measures):
    from finetrace.figures import similarity as figures
    from finetrace.lenses import similarity_summary as summary

    main_measure, first, last = summary.main_measure(measures), steps[0], steps[-1]
    over_steps, over_layers, sides, moved = [], [], {}, {}
    for kind, label in kinds.items():
        here = summary.select(table, representation=kind)
        main_here = {"statistic": main_measure}
        over_steps.append(figures.Lattice(label, *summary.grid(summary.at_layers(here, other_step=first, **main_here), "layer",
                                                               "step")))
        ends = summary.select(here, step=last, other_step=first, **main_here)
        over_layers.append(figures.Lattice(label, *summary.grid(ends, "layer", "other_layer")))
        sides[label] = {m: curve(summary.at_layers(here, statistic=m, step=last, other_step=first)) for m in measures}
        pairs = [summary.at_layers(here, step=step, other_step=before, **main_here) for before, step in itertools.pairwise(steps)]
        if pairs:
            moved[label] = pairs[0]["layer"], np.array(steps[1:]), np.array([pair["value"] for pair in pairs]).T
    bars = "; bars: 95 % interval of CKA over sentences" if "cka" in measures else ""
    made = {
        "steps": figures.heat_maps([over_steps], main_measure, "optimiser step of the checkpoint", "layer (0 = embeddings)",
                                   title=f"Similarity to the first checkpoint: {name}"),
        "measures": figures.measures(sides, note=f"checkpoint {last:,} against checkpoint {first:,}{bars}",
                                     title=f"First and last checkpoint: {name}"),
        "layers": figures.heat_maps([over_layers], main_measure, f"layer of checkpoint {first:,}",
                                    f"layer of checkpoint {last:,}", title=f"Layers of the first and last checkpoint: {name}"),
    }
    if moved:
        made["changes"] = figures.changes(moved, main_measure, title=f"Change from checkpoint to checkpoint: {name}",
                                          note=f"the first point compares checkpoints {first:,} and {steps[1]:,}")
    return made


if __name__ == "__main__":
    run("similarity", main)
