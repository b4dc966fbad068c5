"""What makes MLflow's list of runs readable: names that tell runs apart at a glance, and a run per cell with mean and
spread over its seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from finetrace.store.files import sha256_value
from finetrace.study import Study
from finetrace.study.study import Run
from finetrace.tracking.described import TAG
from finetrace.tracking.records import RunContent, RunRecord


def shown_names(runs: Sequence[Run]) -> dict[str, str]:
    """Key of a fine-tuning -> how MLflow's list shows it, e.g. "s1 a lp-lora sentiment", all of them different.

    What differs between the runs comes first, short names before long ones, without the words with which all names of a
    kind begin: MLflow shows about 24 characters.
    """
    kinds = ("model", "task", "method")
    names = {kind: sorted({getattr(run, kind) for run in runs}) for kind in kinds}
    short = {kind: _without_common_words(names[kind]) for kind in kinds}
    varying = sorted((kind for kind in kinds if len(names[kind]) > 1), key=lambda k: max(map(len, short[k].values())))
    constant = [kind for kind in kinds if len(names[kind]) == 1]
    return {run.key: " ".join([f"s{run.seed}", *(short[kind][getattr(run, kind)] for kind in varying),
                               *(getattr(run, kind) for kind in constant)]) for run in runs}


def cells(study: Study, records: Iterable[RunRecord]) -> Iterator[RunRecord]:
    """A record per cell of which several seeds are finished: mean, standard deviation and number of every metric."""
    done = {record.name: record for record in records if record.kind == "trajectory"}
    for key, cell in study.cells.items():
        members = [(run.seed, done[name]) for name, run in study.trajectories.items()
                   if run.cell == cell and name in done]
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
    shared = [name for name in numbers[0] if all(name in one for one in numbers) and not name.startswith("cost/")]
    content = RunContent(params=dict(params), tags=dict(params))
    for name in shared:
        values = np.array([one[name] for one in numbers])
        if np.isfinite(values).all():
            content.finals |= {name: float(values.mean()), f"{name}/sd": float(values.std(ddof=1))}
    content.finals["n"] = float(len(members))
    return content


def links(records: Mapping[str, str], members: Iterable[str], experiment_id: str) -> dict[str, str]:
    """The description of a cell's run: its seeds' runs, as links. records: identity -> run id."""
    ids = [records[identity] for identity in members if identity in records]
    lines = [f"- [run {number}](#/experiments/{experiment_id}/runs/{run_id})" for number, run_id in enumerate(ids, 1)]
    return {TAG: "\n".join(["Mean, standard deviation (`/sd`) and number (`n`) over the seeds of:", *lines])}


def _without_common_words(names: Sequence[str]) -> dict[str, str]:
    """Name -> name without the words, each with its dash, with which all of them begin."""
    split = [name.split("-") for name in names]
    shortest = min((len(words) for words in split), default=0)
    common = next((at for at in range(shortest) if at == shortest - 1 or len({words[at] for words in split}) > 1), 0)
    return {name: "-".join(words[common:]) for name, words in zip(names, split, strict=True)}
