"""A run per cell in MLflow, with mean and spread over its seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from finetrace.store.files import sha256_value
from finetrace.study import Study
from finetrace.tracking.described import TAG
from finetrace.tracking.records import RunContent, RunRecord


def cells(study: Study, records: Iterable[RunRecord]) -> Iterator[RunRecord]:
    """A record per cell of which several seeds are finished: mean, standard deviation and number of every metric."""
    finished = {record.name: record for record in records if record.kind == "trajectory"}
    for key, cell in study.cells.items():
        members = [(run.seed, finished[name]) for name, run in study.trajectories.items()
                   if run.cell == cell and name in finished]
        if len(members) < 2:
            continue
        content = [[record.identity, record.headlines] for _, record in members]
        identity = sha256_value(["cell", study.study.name, key, content])
        start = min(record.started_at_ms for _, record in members)
        end = max(record.ended_at_ms or record.started_at_ms for _, record in members)
        seeds = [seed for seed, _ in members]
        place = {"model": cell.model, "task": cell.task, "method": cell.method}
        load = partial(_cell, [record for _, record in members], place | {"seeds": ", ".join(map(str, seeds))})
        yield RunRecord("cell", f"{key}_cell", sha256_value(["cell", key]), identity, "", "FINISHED", start, end, load,
                        shown=f"mean {members[0][1].shown.partition(' ')[2]}",  # "s1 a lora" -> "mean a lora"
                        members=tuple(record.identity for _, record in members))


def _cell(members: Sequence[RunRecord], params: Mapping[str, str]) -> RunContent:
    """The numbers of a cell; those that not every seed has are left out."""
    numbers = [record.load().finals | record.headlines for record in members]
    shared = [name for name in numbers[0] if all(name in seed_numbers for seed_numbers in numbers)
              and not name.startswith("cost/")]
    content = RunContent(params=dict(params), tags=dict(params))
    for name in shared:
        values = np.array([seed_numbers[name] for seed_numbers in numbers])
        if np.isfinite(values).all():
            content.finals |= {name: float(values.mean()), f"{name}/sd": float(values.std(ddof=1))}
    content.finals["n"] = float(len(members))
    return content


def links(records: Mapping[str, str], members: Iterable[str], experiment_id: str) -> dict[str, str]:
    """The description of a cell's run: its seeds' runs, as links. records: identity -> run id."""
    ids = [records[identity] for identity in members if identity in records]
    lines = [f"- [run {number}](#/experiments/{experiment_id}/runs/{run_id})" for number, run_id in enumerate(ids, 1)]
    return {TAG: "\n".join(["Mean, standard deviation (`/sd`) and number (`n`) over the seeds of:", *lines])}
