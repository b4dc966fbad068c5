"""Publishing in tests: a finished project and what its store holds."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from finetrace.layout import Layout
from finetrace.study import Study
from finetrace.tracking.publish import Published, publish
from finetrace.tracking.store import Store, open_store, tracking_uri

ROOT = Path(__file__).resolve().parents[1]
NAME = "micro-a_micro-sentiment_ft_s1"
RUNS = 13  # of the default synthetic project: pre-training, search with 5 trials, 2 x (trajectory, lens), cell, atlas


def quiet(layout: Layout, study: Study) -> Published:
    return publish(layout, study, say=lambda line: None)


def opened(layout: Layout, study: Study) -> Store:
    return open_store(tracking_uri(study.tracking, layout.home), layout.home, study.study.name)


def files(store: Store, run_id: str, path: str | None = None) -> list[str]:
    found = []
    for item in store.client.list_artifacts(run_id, path):
        found += files(store, run_id, item.path) if item.is_dir else [item.path]
    return sorted(found)


def snapshot(layout: Layout, study: Study) -> dict[str, Any]:
    """Everything in the store, without what is drawn at random: run ids."""
    store = opened(layout, study)
    runs = {r.run_id: store.client.get_run(r.run_id) for r in store.runs() if not r.deleted}
    found = {}
    for run_id, run in runs.items():
        tags = dict(run.data.tags)
        if "mlflow.parentRunId" in tags:
            tags["mlflow.parentRunId"] = runs[tags["mlflow.parentRunId"]].data.tags["finetrace.name"]
        for other, named in runs.items():  # links of cells
            if f"/{store.experiment_id}/runs/{other}" in tags.get("mlflow.note.content", ""):
                tags["mlflow.note.content"] = tags["mlflow.note.content"].replace(
                    f"/{store.experiment_id}/runs/{other}", named.data.tags["finetrace.name"])
        metrics = {name: [(m.step, m.timestamp, None if math.isnan(m.value) else m.value)
                          for m in store.client.get_metric_history(run_id, name)] for name in run.data.metrics}
        found[tags["finetrace.name"]] = {
            "tags": tags, "params": run.data.params, "metrics": metrics, "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time), "artifacts": files(store, run_id),
            "data": [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs]}
    assert len(found) == len(runs)
    return found


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | more


def otherwise_addressed(layout: Layout, study: Study) -> Study:
    """The study with its own store under another address: MLflow keeps connections by address, and those to a file
    that has been replaced serve no more."""
    again = dataclasses.replace(study.tracking, uri=f"sqlite:///../{layout.home.name}/mlflow.db")
    return dataclasses.replace(study, tracking=again)
