"""python pipelines/downstream.py NAME -- a task learned from each checkpoint -> outputs/downstream/NAME/

Finished trainings are kept: the same command continues after them, and a further checkpoint costs only itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from finetrace.config.downstream import DownstreamSettings
from finetrace.config.training import TrainSettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, run, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.models.timeline import Timeline
    from finetrace.training.downstream import Learned

COUNTS = ("steps", "examples", "kept_step")  # of a training's metrics: not scores
Results = Mapping[tuple[int, int], "Learned"]
"""(step, seed) -> what a training gave."""


def main(stage: Stage) -> None:
    from finetrace.figures.downstream import draw
    from finetrace.models.timeline import open_timeline

    layout, entry = stage.layout, stage.settings("downstream", DownstreamSettings)
    folder = layout.downstream(stage.item)
    timeline = open_timeline(layout.place(entry.trajectory) / "trajectory", layout.root / "models", entry.checkpoints)
    inputs = [timeline.trajectory, layout.task(entry.task)]
    if not timeline.tokenizer.is_relative_to(timeline.trajectory):
        inputs.append(timeline.tokenizer)
    manifest = stage.manifest("lens", {path: path for path in inputs}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(stage, entry, timeline, manifest, out), draw)


def _measure(stage: Stage, entry: DownstreamSettings, timeline: "Timeline", manifest: Manifest, out: Path) -> Record:
    """Learn the task from every checkpoint; write scores and which examples were right."""
    from finetrace.training.downstream import learn, majority, plan_work

    layout, task, train = stage.layout, stage.layout.task(entry.task), stage.settings("train", TrainSettings)
    steps, seeds = timeline.steps, list(range(1, entry.seeds + 1))
    work = plan_work(timeline, task, train, stage.seed, seeds, stage.code["measure"])
    results = learn(timeline, task, train, stage.seed, work, results=lambda key: layout.results("downstream", key),
                    scratch=lambda key: layout.scratch("downstream", key), name=stage.item)
    baselines, facts = majority(task), read_manifest(task).facts
    split = "test" if "test" in baselines else "validation"
    metric = facts["metric"]
    baseline = baselines[split].get(metric, 0.0)  # the most frequent tag is no entity
    hits = np.stack([[results[step, seed].hits[split] for seed in seeds] for step in steps])
    scores = np.array([[results[step, seed].metrics[f"{split}/{metric}"] for seed in seeds] for step in steps])
    np.save(out / "hits.npy", hits, allow_pickle=False)
    write_table(out / "table.parquet", _table(results, baselines, {name: facts["rows"][name] for name in baselines}))
    write_json(out / "metrics.json", _metrics(steps, scores, baseline, metric))
    write_curves(out / "curves.csv", {
        "step": steps, metric: scores.mean(axis=1), f"{metric}_low": scores.min(axis=1),
        f"{metric}_high": scores.max(axis=1), f"{metric}_majority": [baseline] * len(scores)})
    manifest.facts = {
        "trajectory": entry.trajectory, "task": entry.task, "axis": timeline.axis, "steps": steps, "seeds": seeds,
        "split": split, "metric": metric, "examples": hits.shape[2], "majority": baselines,
        "label_names": facts["label_names"], "device": results[steps[-1], 1].device}
    return {"name": stage.item, "steps": steps, "scores": scores, "majority": baseline, "metric": metric,
            "split": split, "axis": timeline.axis}


def _table(results: Results, baselines: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> pa.Table:
    """A row per checkpoint, seed, split and statistic; 95 % intervals (Wilson, over examples) of shares of examples."""
    from finetrace.lenses.intervals import wilson_interval

    lines = []
    for (step, seed), result in results.items():
        values = {tuple(key.split("/")): value for key, value in result.metrics.items() if key not in COUNTS}
        for (split, statistic), value in values.items():
            lines.append((step, seed, split, statistic, value))
        lines += [(step, seed, split, "majority", scores["accuracy"]) for split, scores in baselines.items()]
    table = []
    for step, seed, split, statistic, value in lines:
        low, high = (None, None)
        if statistic in ("accuracy", "majority"):
            low, high = wilson_interval(round(value * rows[split]), rows[split])
        table.append({"step": step, "seed": seed, "split": split, "statistic": statistic, "value": value, "low": low,
                      "high": high, "n": rows[split]})
    return pa.Table.from_pylist(table, schema=pa.schema([
        ("step", pa.int64()), ("seed", pa.int32()), ("split", pa.string()), ("statistic", pa.string()),
        ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()), ("n", pa.int64())]))


def _metrics(steps: Sequence[int], scores: np.ndarray, majority: float, metric: str) -> dict[str, float]:
    """Of the mean over seeds: first, last and best checkpoint, what the training gained, and the baseline."""
    mean = scores.mean(axis=1)
    best = int(mean.argmax())
    return {f"first/{metric}": float(mean[0]), f"last/{metric}": float(mean[-1]),
            f"gain/{metric}": float(mean[-1] - mean[0]), f"best/{metric}": float(mean[best]), "best/step": steps[best],
            f"majority/{metric}": majority,
            f"spread/{metric}": float((scores.max(axis=1) - scores.min(axis=1)).max()), "checkpoints": len(steps),
            "seeds": scores.shape[1]}


if __name__ == "__main__":
    run("downstream", main)
