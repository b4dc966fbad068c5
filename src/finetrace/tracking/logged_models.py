"""Checkpoints as MLflow's LoggedModels: a model per kept checkpoint of a trajectory, with what was measured at it.

    client.search_logged_models([experiment], "params.task = 'micro-sentiment'",
                                order_by=[{"field_name": "metrics.probes/accuracy", "ascending": False}])

A model names the folder of its weights, which stay where they are. Its numbers are points of the training's run, which
so shows them as curves, too. When the numbers change, the models are made anew: MLflow's searches would find the old
ones.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetrace.tracking.checkpoints import Checkpoint, Checkpoints
from finetrace.tracking.points import ENTRIES_PER_CALL

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

TAG = "finetrace.checkpoints"
"""Of the training's run: the digest of what its models tell; set last, so that an interrupted publication goes on."""
TYPE = "checkpoint"
_NOT_IN_NAMES = str.maketrans(dict.fromkeys("/:.%\"'", "_"))
_PAGE = 100


def put_checkpoints(client: "MlflowClient", experiment_id: str, run_id: str, shown: str, checkpoints: Checkpoints,
                    start_ms: int, *, fresh: bool) -> None:
    """Make the models of a run those of its checkpoints, and set the run's tag.

    shown: how MLflow shows the run, with which the models' names end;  start_ms: when the run began, from which the
    times of points count;  fresh: whether the run was made a moment ago, so that it has no models and no such points.
    """
    from mlflow.entities import LoggedModelStatus, RunTag

    kept_checkpoints = checkpoints.load()
    history: dict[str, list[Any]] = {}
    if not fresh:
        remove_checkpoints(client, experiment_id, run_id)
        run = client.get_run(run_id)
        start_ms, names = run.info.start_time, {name for checkpoint in kept_checkpoints for name in checkpoint.numbers}
        history = {name: client.get_metric_history(run_id, name) for name in names & run.data.metrics.keys()}
    points: list[Metric] = []
    for checkpoint in kept_checkpoints:
        model = client.create_logged_model(
            experiment_id, f"step {checkpoint.step} {shown}".translate(_NOT_IN_NAMES), run_id,
            {"sha256": json.dumps(checkpoint.sha256, sort_keys=True)},
            {**checkpoints.place, "step": str(checkpoint.step), "weights": checkpoint.weights}, TYPE)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        points += _points(checkpoint, model.model_id, start_ms, history)
    tags = [RunTag(TAG, checkpoints.told_as(shown))]  # after all points, in the last call
    while points or tags:
        metrics, points = points[:ENTRIES_PER_CALL - 1], points[ENTRIES_PER_CALL - 1:]
        call_tags, tags = ([], tags) if points else (tags, [])
        client.log_batch(run_id, metrics=metrics, tags=call_tags)


def remove_checkpoints(client: "MlflowClient", experiment_id: str, run_id: str) -> None:
    """Remove the models of a run. The run's points stay."""
    while models := client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", max_results=_PAGE):
        for model in models:
            client.delete_logged_model(model.model_id)


def _points(checkpoint: Checkpoint, model_id: str, start_ms: int,
            history: Mapping[str, Sequence[Any]]) -> "list[Metric]":
    """The numbers of a checkpoint as points of its model and run. What the run has at that step already is dropped by
    MLflow, and what differs is made the newer one."""
    from mlflow.entities import Metric

    points = []
    for name, value in checkpoint.numbers.items():
        newest = max((point for point in history.get(name, ()) if point.step == checkpoint.step),
                     key=lambda point: point.timestamp, default=None)
        time = start_ms + checkpoint.step if newest is None else newest.timestamp + (newest.value != value)
        points.append(Metric(name, value, time, checkpoint.step, model_id=model_id))
    return points
