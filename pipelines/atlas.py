"""python pipelines/atlas.py -- the comparison across trajectories -> atlas/{index.html, runs/, table.parquet, metrics.json}"""

import numpy as np

from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table, write_table

# Lenses on a trajectory's page; others follow
ORDER = ("infodynamics", "geometry", "similarity", "hulls", "probes", "convergence", "edges", "cloze", "calibration",
         "features", "kernel")
COLUMNS = [  # heading, lens, metric (* is the last layer, or the split), digits, explanation
    ("validation", "trajectory", None, 3, "the task's own metric on validation, final weights"),
    ("accuracy", "trajectory", "validation/accuracy", 3, "share of validation examples that are right"),
    ("steps", "trajectory", "steps", 0, "optimiser steps"),
    ("novelty", "infodynamics", "novelty_mean", 4, "mean novelty of the training logits, nats"),
    ("novelty, end", "infodynamics", "novelty_last_tenth", 4, "mean novelty of the last tenth of the run, nats"),
    ("plateau", "infodynamics", "novelty_plateau", 4, "novelty of a confident model that merely sees shuffled labels, nats"),
    ("resonance", "infodynamics", "resonance_mean", 5, "mean resonance, nats; 0 for a stationary run"),
    ("slope", "infodynamics", "slope", 3, "resonance on novelty, z-scores (Pearson's r)"),
    ("null low", "infodynamics", "slope_null_low", 3, "2.5 % of the slopes in shuffled order"),
    ("null high", "infodynamics", "slope_null_high", 3, "97.5 % of the slopes in shuffled order"),
    ("changes", "infodynamics", "change_points", 0, "change points of novelty"),
    ("correctness", "infodynamics", "probe/train/correctness", 3, "mean share of looks at which a probe example was right"),
    ("cosine, before", "geometry", "cosine_mean/layer-*/first", 3, "mean cosine within sentences, last layer, pre-trained"),
    ("cosine, after", "geometry", "cosine_mean/layer-*/last", 3, "the same after training: near 1, all tokens say one thing"),
    ("rank, before", "geometry", "effective_rank/layer-*/first", 1, "effective rank of the last layer's tokens, pre-trained"),
    ("rank, after", "geometry", "effective_rank/layer-*/last", 1, "the same after training"),
    ("CKA", "similarity", "cka/cls/layer-*/last|cka/span/layer-*/last", 3,
     "similarity of the last layer before and after training; 1: unchanged"),
    ("clusters, before", "hulls", "clusters/layer-*/first", 0, "hull probe: clusters of the last layer, pre-trained"),
    ("clusters, after", "hulls", "clusters/layer-*/last", 0, "the same after training; as many as classes: planes separate them"),
    ("distance, before", "hulls", "mean_outside_min/layer-*/first", 2, "mean distance of a class to its nearest, pre-trained"),
    ("distance, after", "hulls", "mean_outside_min/layer-*/last", 2, "the same after training"),
    ("probe, before", "probes", "best_accuracy/*/first", 3, "best layer's probe on the pre-trained model"),
    ("probe, after", "probes", "best_accuracy/*/last", 3, "best layer's probe after training"),
    ("ECE", "calibration", "test/ece", 3, "expected calibration error on test; 0: probabilities mean what they say"),
    ("ECE, scaled", "calibration", "test/ece_scaled", 3, "the same after temperature scaling fitted on validation"),
    ("head norm", "features", "head_norm/first", 2, "norm of the head before the first step"),
    ("feature change", "features", "validation/diff", 2, "mean distance that an example's feature vector moved"),
    ("FT ratio", "kernel", "ft_ratio/first", 3, "share of the first step's change of the logits that comes through the features"),
]

PLACE_COLUMNS = [
    ("steps", "trajectory", "steps", 0, "optimiser steps"),
    ("checkpoints", "trajectory", "checkpoints", 0, "checkpoints of a published series or of an adaptation"),
    ("masked words", "trajectory", "validation/accuracy", 3, "share of held-out masked words that are right, final weights"),
    ("words, first", "edges", "mean_f1/first", 3, "edge probes on the mix of all layers, F1, mean over tasks, first checkpoint"),
    ("words, last", "edges", "mean_f1/last", 3, "the same at the last checkpoint"),
    ("facts, P@1", "cloze", "mean_p_at_1", 3, "facts whose object ranks first, own head, last checkpoint, mean over corpora"),
    ("facts, P@10", "cloze", "mean_p_at_10", 3, "the same among the ten best"),
]


def main(stage: Stage) -> None:
    from finetrace.atlas.collect import collect, long_table
    from finetrace.atlas.page import Listing, page, report
    from finetrace.atlas.places import collect_places
    from finetrace.figures.style import to_png

    layout, asked = stage.layout, stage.asked
    entries = collect(asked["trajectories"], asked["looked"], layout)
    places = collect_places(asked["masked"], asked["looked"], layout)
    manifest = stage.manifest("atlas", {e.folder / part: e.folder / part for e in [*entries, *places] for part in e.metrics})
    with stage.output(layout.atlas, manifest) as out:
        write_table(out / "table.parquet", long_table(entries))
        write_json(out / "metrics.json", {f"{e.key}/{name}": e.metrics[lens][metric]
                                          for e in entries for lens, name, metric in
                                          (("trajectory", "accuracy", "validation/accuracy"), ("infodynamics", "slope", "slope"))
                                          if metric in e.metrics.get(lens, {})})
        (out / "figures").mkdir()
        shown = []
        for name, caption, figure in _figures(asked, layout, entries):
            (out / "figures" / f"{name}.png").write_bytes(to_png(figure))
            shown.append((f"figures/{name}.png", caption))
        _write_metrics(out / "metrics", [(e.folder, e.metrics) for e in [*entries, *places]], layout)
        listings = [_listing(Listing, "Fine-tunings", "model, task, method, seed", entries, COLUMNS),
                    _listing(Listing, "Masked-word trainings", "model, and what it is", places, PLACE_COLUMNS)]
        (out / "runs").mkdir()
        for e in entries:
            (out / "runs" / f"{e.key}.html").write_text(report(e.key, _intro(e), "../index.html", _sections(e, layout)), "utf-8")
        for p in places:
            shown_of = report(p.name, _place_intro(p), "../index.html", _sections(p, layout))
            (out / "runs" / f"{p.key}.html").write_text(shown_of, "utf-8")
        for of, name, description in asked["standalone"]:
            folder = layout.standalone(of, name)
            shown += [(f"../{layout.relative(p)}", description) for p in sorted((folder / "figures").glob("*.png"))]
        intro = (f"Study {asked['study']}, seed {stage.seed}: {len(entries)} trajectories of "
                 f"{len({e.model for e in entries})} models on {len({e.task for e in entries})} tasks, "
                 f"{len(places)} masked-word trainings."
                 + "".join(f" Results of {script} stand although its code has changed: {because}."
                           for script, because in asked.get("accepted", {}).items()))
        (out / "index.html").write_text(page(f"finetrace atlas: {asked['study']}", intro, listings, shown), "utf-8")


def _write_metrics(out, found, layout):
    """The metrics of every trajectory and lens by place, as `dvc metrics show` and `diff` read them (dvc.yaml)."""
    for folder, metrics in found:
        for part, values in metrics.items():
            target = out / folder.relative_to(layout.root / "outputs") / f"{part}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, values)


def _listing(kind, heading, names, entries, columns):
    return kind(heading, [("trajectory", names), *((c[0], c[4]) for c in columns)],
                [[e.key, *(_cell(e, *column) for column in columns)] for e in entries], [f"runs/{e.key}.html" for e in entries])


def _cell(entry, heading, lens, metric, digits, explanation) -> str:
    from finetrace.atlas.collect import last_layer

    metric = metric or f"validation/{entry.manifest.facts['metric']}"
    found = entry.metrics.get(lens, {})
    value = last_layer(found, metric) if "*" in metric else found.get(metric)
    return "–" if value is None else f"{value:.{digits}f}"


def _intro(entry) -> str:
    facts = entry.manifest.facts
    return (f"{entry.model} on {entry.task} by {entry.method}, seed {entry.seed}: {facts['steps']:,} steps, "
            f"{facts['parameters']:,} parameters; validation accuracy {entry.metrics['trajectory']['validation/accuracy']:.3f}.")


def _place_intro(place) -> str:
    facts = place.manifest.facts
    told = [f"{facts['parameters']:,} parameters"] if "parameters" in facts else []
    return "; ".join([place.name, *told, *([f"time axis: {facts['axis']}"] if "axis" in facts else [])])


def _sections(entry, layout):
    """Heading, a line of text and figures of every lens that looked at the trajectory."""
    for lens in sorted(entry.metrics, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        figures = sorted((entry.folder / lens / "figures").glob("*.png"))
        if figures:
            where = layout.relative(entry.folder / lens)
            yield lens, f"{where}: table.parquet, metrics.json", [f"../../{where}/figures/{p.name}" for p in figures]


def _figures(asked, layout, entries):
    from finetrace.atlas import figures
    from finetrace.lenses.infodynamics.figures import panels as infodynamics

    floors = {}
    for task in {e.task for e in entries}:
        facts = read_manifest(layout.task(task)).facts
        floors[task] = {name: facts[key] for name, key in (("bag of words", "bag_of_words_accuracy"),
                                                           ("most frequent class", "majority_accuracy")) if key in facts}
    found = [figures.Score(e.task, f"{e.label} s{e.seed}", e.metrics["trajectory"]["validation/accuracy"],
                           read_manifest(layout.task(e.task)).facts["rows"]["validation"]) for e in entries]
    yield ("scores", "Validation accuracy of every trajectory beside what a bag of words and guessing reach.",
           figures.scores(found, floors))
    for task in dict.fromkeys(e.task for e in entries):
        curves = [_curve(e, infodynamics) for e in entries if e.task == task and "infodynamics" in e.metrics]
        if curves:
            yield (f"infodynamics-{task}", f"Novelty and resonance of the training logits on {task}; slopes beside their nulls.",
                   infodynamics.comparison(curves, title=f"Information dynamics on {task}"))
        ours = [e for e in entries if e.task == task]
        yield from _method_figures(task, [e for e in ours if {"calibration", "features"} <= set(e.metrics)])
        yield from _layer_figures(task, ours, asked["test_split"])
    pretraining = {}
    for model in asked["pretrained"]:
        rows = [r for r in read_table(layout.pretrain(model) / "history.parquet").to_pylist() if r["kind"] == "eval"]
        pretraining[model] = tuple(np.array([r[c] for r in rows]) for c in ("step", "loss", "accuracy"))
    if pretraining:
        yield "pretraining", "How the micro-BERTs learned their language.", figures.pretraining(pretraining)


def _method_figures(task, entries):
    """Training methods on a task, where more than one was looked at."""
    from finetrace.figures.methods import methods

    several = len({e.model for e in entries}) > 1
    found = {}
    for e in entries:
        one = {**e.metrics["calibration"], **e.metrics["features"], **_intervals(e)}
        found.setdefault(e.label if several else e.method, []).append(one)
    if len(found) > 1:
        everything = dict.fromkeys(name.split("/")[0] for seeds in found.values() for m in seeds for name in m
                                   if name.endswith("/accuracy"))
        sets = sorted((s for s in everything if s != "train"), key=lambda s: {"validation": 0, "test": 1}.get(s, 2))
        yield (f"methods-{task}", f"Training methods on {task}: accuracy also out of distribution, calibration, feature change.",
               methods(found, sets, "test" if "test" in sets else "validation", title=f"Training methods on {task}"))


def _intervals(entry):
    """`{set}/{statistic}/{low,high}` of the kept weights, before temperature scaling."""
    rows = read_table(entry.folder / "calibration" / "table.parquet").to_pylist()
    return {f"{r['set']}/{r['statistic']}/{end}": r[end] for r in rows for end in ("low", "high")
            if r["step"] == entry.manifest.facts["kept_step"] and r["statistic"] in ("accuracy", "ece") and not r["scaled"]}


def _layer_figures(task, entries, split):
    """What training changed layer by layer, and the lattice of the probes, of all trajectories of a task."""
    from finetrace.atlas import figures
    from finetrace.atlas.collect import by_layer
    from finetrace.lenses.probes.figures import lattice

    sources = {"cosine within sentences": ("geometry", "cosine_mean", {}), "effective rank": ("geometry", "effective_rank", {}),
               "probe accuracy": ("probes", "accuracy", {"split": split})}
    panels = {name: {f"{e.label} s{e.seed}": found for e in entries if (found := by_layer(e.folder, lens, statistic, **where))}
              for name, (lens, statistic, where) in sources.items()}
    if any(panels.values()):
        yield (f"layers-{task}", f"What training changed on {task}, layer by layer: dashed before, solid after.",
               figures.before_and_after({k: v for k, v in panels.items() if v}, title=f"Before and after training on {task}"))
    if panels["probe accuracy"]:
        rows = {f"{label}, {state}": {layer: tuple(values[i]) for layer, values in found.items()}
                for label, found in panels["probe accuracy"].items() for state, i in (("before", 0), ("after", -1))}
        yield (f"lattice-{task}", f"Accuracy of probes on {task} by layer, before and after training.",
               lattice(rows, split=split, floor=_floor(entries, split), title=f"Probe accuracy on {task}"))


def _floor(entries, split):
    """Accuracy of the most frequent class, which probes of all trajectories of a task share."""
    return next(e.metrics["probes"][f"majority_floor/{split}"] for e in entries if "probes" in e.metrics)


def _curve(entry, infodynamics):
    from finetrace.lenses.infodynamics.slope import ResonanceNoveltySlope

    table = _read_csv(entry.folder / "infodynamics" / "curves.csv")
    m = entry.metrics["infodynamics"]
    slope = ResonanceNoveltySlope(m["slope"], m["slope_r2"], np.nan, m["slope_ci_low"], m["slope_ci_high"], int(m["examples"]),
                                  np.empty(0), m["slope_null_mean"], m["slope_null_low"], m["slope_null_high"], m["slope_p"])
    return infodynamics.DynamicsCurve(entry.label, table["example"], table["novelty"], table["resonance"], slope)


def _read_csv(path):
    content = np.genfromtxt(path, delimiter=",", names=True)
    return {name: content[name] for name in content.dtype.names}


if __name__ == "__main__":
    run("atlas", main)
