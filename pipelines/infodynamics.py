"""python pipelines/infodynamics.py TRAJECTORY -- novelty, transience, resonance -> .../sSEED/infodynamics/"""

import json

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import matrix, read_table, write_table


def main(stage: Stage) -> None:
    from finetrace.lenses import infodynamics_summary as summary

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    source, settings = folder / "trajectory", stage.study.infodynamics
    signals, history, probe = (read_table(source / f"{n}.parquet") for n in ("signals", "history", "probe"))
    if signals.num_rows == 0:
        raise FinetraceError(f"{source}: no signals were recorded; set record.signals: true and train again")
    steps = signals["step"].to_numpy()
    keep = slice(0, int(np.searchsorted(steps, settings.max_steps)) if settings.max_steps else len(steps))
    steps, logits = steps[keep], matrix(signals, "logits")[keep]
    labels, ids, losses = (signals[c].to_numpy()[keep] for c in ("label", "example_id", "loss"))
    facts = read_manifest(source).facts
    seed = seeds.derive(stage.study.study.seed, "infodynamics", item.seed)
    manifest = stage.manifest("lens", as_dict(settings), {source: source}, {"null": seed},
                              rooms=("lenses/infodynamics.py", "lenses/infodynamics_summary.py"))
    if not np.isfinite(logits).all():
        first = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise FinetraceError(f"{source / 'signals.parquet'} row {first}: logits are not finite (step {steps[first]}); the "
                             "training diverged; lower train.learning_rate")
    try:
        training = summary.training_dynamics(
            logits, labels, ids, steps / facts["steps_per_epoch"], steps, window=settings.window, windows=settings.windows or (),
            measure=settings.measure, span=settings.span, permutations=settings.permutations, seed=seed)
    except ValueError as error:
        raise FinetraceError(f"params.yaml: infodynamics, for {stage.item}: {error}") from error
    probes = {split: _probe(probe, split, settings) for split in ("train", "validation") if probe.num_rows}
    with stage.output(folder / "infodynamics", manifest) as out:
        write_table(out / "table.parquet", summary.table(training, probes))
        metrics = dict(training.metrics)
        for split, found in probes.items():
            metrics |= {f"probe/{split}/{k}": v for k, v in found.metrics.items()}
        write_json(out / "metrics.json", metrics)
        (out / "results.json").write_text(json.dumps(summary.curbed_lists(training)))
        curves = summary.curves(training, losses)
        write_curves(out / "curves.csv", curves)
        _figures(stage, out, training, probes, history, curves, settings)
        manifest.facts = {"rows": len(steps), "classes": int(logits.shape[1])}


def _probe(table, split, settings):
    from finetrace.lenses.infodynamics_summary import probe_dynamics

    rows = table.filter(np.equal(table["split"].to_numpy(zero_copy_only=False), split))
    steps = np.unique(rows["step"].to_numpy())
    logits = matrix(rows, "logits").reshape(len(steps), -1, matrix(rows, "logits").shape[1])
    return probe_dynamics(logits, rows["label"].to_numpy()[:logits.shape[1]].astype(int), steps,
                          window=settings.probe_window, measure=settings.measure)


def _figures(stage, out, training, probes, history, curves, settings) -> None:
    from finetrace.figures import infodynamics as figures
    from finetrace.lenses.infodynamics import curb, smooth

    name, examples = stage.item, np.arange(len(training.confidence))
    changes = (training.changes.positions + training.window).tolist()
    unit = {"jsd": "nats", "kl": "bits", "jeffreys": "bans (log10)"}[settings.measure]
    common = {"examples_per_epoch": training.examples_per_epoch, "unit": unit}
    evaluated = [r for r in history.to_pylist() if r["kind"] == "eval" and r["examples"] <= len(examples)]
    at = np.array([r["examples"] for r in evaluated])
    inner = curb(training.dynamics, training.window)
    plateau = training.plateau if settings.measure == "jsd" else None
    made = {
        "signals": figures.signals(examples, training.dynamics, training.smoothed, window=training.window, plateau=plateau,
                                   changes=changes, title=f"Information dynamics: {name}", **common),
        "smoothing": figures.smoothing(
            examples, training.dynamics,
            {s: smooth(training.dynamics, training.window, s) for s in settings.spans or (128, 56, 32)},
            title=f"Smoothing: {name}", **common),
        "slope": figures.slope(inner.novelty, inner.resonance, training.slope, title=f"Resonance on novelty: {name}"),
        "learning": figures.learning(
            examples, training.smoothed.novelty, train_loss=(curves["example"], curves["train_loss"]),
            train_accuracy=(curves["example"], curves["train_accuracy"]),
            eval_loss=(at, np.array([r["loss"] for r in evaluated])),
            eval_accuracy=(at, np.array([r["accuracy"] for r in evaluated])), confidence=training.confidence, plateau=plateau,
            changes=changes, title=f"Performance and process: {name}", **common),
    }
    for split, found in probes.items():
        if found.dynamics is not None:
            made[f"probe-{split}"] = figures.probe_set(found.steps, found.dynamics, found.map, window=found.window,
                                                       log_steps=not _even(found.steps), unit=unit,
                                                       title=f"Probe set ({split}): {name}")
    write_figures(out / "figures", made)


def _even(steps) -> bool:
    """Whether looks come at equal distances (the last one may be off)."""
    gaps = np.diff(steps)[:-1]
    return len(gaps) > 0 and gaps.max() == gaps.min()


if __name__ == "__main__":
    run("infodynamics", main)
