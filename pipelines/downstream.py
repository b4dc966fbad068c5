"""python pipelines/downstream.py NAME -- a task learned from each checkpoint of a trajectory -> outputs/downstream/NAME/

Finished trainings are kept: the same command continues after them, and a further checkpoint costs only itself.
"""

import numpy as np
import pyarrow as pa

from finetrace.config import as_dict
from finetrace.config.base import merge
from finetrace.stage import PACKAGE, TRAINING_ROOMS, Stage, run, write_curves, write_figures
from finetrace.store.files import write_json
from finetrace.store.manifest import code_digest, read_manifest
from finetrace.store.tables import write_table

ROOMS = (*TRAINING_ROOMS, "lenses/intervals.py")
COUNTS = ("steps", "examples", "kept_step")  # of a training's metrics: not scores


def main(stage: Stage) -> None:
    from finetrace.models.timeline import open_timeline
    from finetrace.training.downstream import learn, majority, plan_work

    study, layout = stage.study, stage.layout
    entry = stage.pick("downstream", study.downstream)
    trajectory, task = layout.place(entry.trajectory) / "trajectory", layout.task(entry.task)
    changes = {**study.by_task.get(entry.task, {}), **(entry.train or {})}
    train = merge(study.train, changes, f"params.yaml: downstream.{stage.item}.train")
    timeline = open_timeline(trajectory, layout.root / "models", entry.checkpoints)
    seeds = list(range(1, entry.seeds + 1))
    manifest = stage.manifest("lens", {**as_dict(entry), "train": as_dict(train), "study_seed": study.study.seed},
                              {trajectory: trajectory, task: task}, rooms=ROOMS)
    work = plan_work(timeline, task, train, study.study.seed, seeds, code_digest(PACKAGE, *TRAINING_ROOMS))
    found = learn(timeline, task, train, study.study.seed, work, results=lambda key: layout.results("downstream", key),
                  scratch=lambda key: layout.scratch("downstream", key), name=stage.item)
    base, facts = majority(task), read_manifest(task).facts
    split = "test" if "test" in base else "validation"
    metric = facts["metric"]
    hits = np.stack([[found[step, seed].hits[split] for seed in seeds] for step in timeline.steps])
    scores = np.array([[found[step, seed].metrics[f"{split}/{metric}"] for seed in seeds] for step in timeline.steps])
    with stage.output(layout.downstream(stage.item), manifest) as out:
        np.save(out / "hits.npy", hits, allow_pickle=False)
        write_table(out / "table.parquet", _table(found, base, {s: facts["rows"][s] for s in base}))
        write_json(out / "metrics.json", _metrics(timeline.steps, scores, base[split][metric], metric))
        write_curves(out / "curves.csv", {
            "step": timeline.steps, metric: scores.mean(axis=1), f"{metric}_low": scores.min(axis=1),
            f"{metric}_high": scores.max(axis=1), f"{metric}_majority": [base[split][metric]] * len(scores)})
        _figure(stage, out, timeline, scores, base[split][metric], metric, split)
        manifest.facts = {
            "trajectory": entry.trajectory, "task": entry.task, "axis": timeline.axis, "steps": timeline.steps, "seeds": seeds,
            "split": split, "metric": metric, "examples": hits.shape[2], "majority": base, "label_names": facts["label_names"],
            "device": found[timeline.steps[-1], 1].device}


def _table(found, base, rows) -> pa.Table:
    """One row per checkpoint, seed, split and statistic; 95 % intervals (Wilson, over examples) of shares of examples."""
    from finetrace.lenses.intervals import wilson_interval

    lines = []
    for (step, seed), one in found.items():
        values = {tuple(key.split("/")): value for key, value in one.metrics.items() if key not in COUNTS}
        for (split, statistic), value in values.items():
            lines.append((step, seed, split, statistic, value))
        lines += [(step, seed, split, "majority", scores["accuracy"]) for split, scores in base.items()]
    table = []
    for step, seed, split, statistic, value in lines:
        low, high = (None, None)
        if statistic in ("accuracy", "majority"):
            low, high = wilson_interval(round(value * rows[split]), rows[split])
        table.append({"step": step, "seed": seed, "split": split, "statistic": statistic, "value": value, "low": low,
                      "high": high, "n": rows[split]})
    return pa.Table.from_pylist(table, schema=pa.schema([
        ("step", pa.int64()), ("seed", pa.int32()), ("split", pa.string()), ("statistic", pa.string()), ("value", pa.float64()),
        ("low", pa.float64()), ("high", pa.float64()), ("n", pa.int64())]))


def _metrics(steps, scores, majority, metric) -> dict[str, float]:
    """Of the mean over seeds: first, last and best checkpoint, what the training gained, and the baseline."""
    mean = scores.mean(axis=1)
    best = int(mean.argmax())
    return {f"first/{metric}": float(mean[0]), f"last/{metric}": float(mean[-1]), f"gain/{metric}": float(mean[-1] - mean[0]),
            f"best/{metric}": float(mean[best]), "best/step": steps[best], f"majority/{metric}": majority,
            f"spread/{metric}": float((scores.max(axis=1) - scores.min(axis=1)).max()), "checkpoints": len(steps),
            "seeds": scores.shape[1]}


def _figure(stage, out, timeline, scores, majority, metric, split) -> None:
    from finetrace.figures.downstream import downstream

    figure = downstream(timeline.steps, scores, majority, metric=metric, split=split, axis=timeline.axis,
                        title=f"Downstream: {stage.item}")
    write_figures(out / "figures", {"downstream": figure})


if __name__ == "__main__":
    run("downstream", main)
