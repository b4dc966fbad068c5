"""A trajectory of checkpoints that were made elsewhere, in the form that trainings leave: what lenses read, without
weights."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import CONFIG as ADAPTER_CONFIG
from finetrace.models.given import write_pointer
from finetrace.models.heads import FoundHead, head_of, order_of, told_by
from finetrace.models.sources import Local, Source, config_of, label, verified
from finetrace.models.timeline import TOKENIZER, read_series
from finetrace.store.checkpoints import checkpoint_name, mark
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import merge_tables
from finetrace.training.recorder import HISTORY

RECORDED = ("signals.parquet", "history.parquet", "probe.parquet", "timing.parquet")
"""Tables of a recorded trajectory."""
HEADS = {"token": "token", "span": "token", "span-pair": "span-pair"}
"""Kind of a task of words -> kind of the head that answers it."""


def write_given(where: str, series: Path, task: Path, out: Path, *, head: bool, labels: list[str],
                recorded: Path | None, train: Mapping[str, Any]) -> dict[str, Any]:
    """Write checkpoints/, tokenizer/, history.parquet and metrics.json, and of a recorded trajectory its tables.

    where: of params.yaml, for messages;  series: the finished lookup (`models.series`);  task: the task's folder;
    head: whether the checkpoints' own head tells the task's classes;  labels: names of its outputs, or empty;
    recorded: the folder of a trajectory with signals;  train: max_length and pieces, as a fine-tuning has them.
    Returns facts for the manifest. Raises FinetraceError when head or signals are not there, or are another task's.
    """
    facts_of_task = read_manifest(task).facts
    names, kind_of_task = list(facts_of_task["label_names"]), str(facts_of_task.get("kind", "sequence"))
    target = str(facts_of_task.get("target", "class"))
    recorded_facts = {} if recorded is None else _recorded_facts(where, recorded, target)
    sources, keep_fetched = read_series(series)
    for step, source in sources.items():
        folder = out / "checkpoints" / checkpoint_name(step)
        folder.mkdir(parents=True)
        config, own_head = _config_and_head(source)
        kind, order = "", list(range(len(names)))
        if head:
            kind, order = own_head.kind, _class_order(where, source, own_head, kind_of_task, names, labels)
        write_json(folder / "config.json", config)
        write_pointer(folder, source, keep_fetched, kind, order, names)
        mark(folder, step)
    shutil.copytree(series / TOKENIZER, out / TOKENIZER)
    write_json(out / TOKENIZER / "config.json", config)  # of the last checkpoint: a tokenizer may come from elsewhere
    last_step = max(sources)
    # as transformers trains heads for words
    pieces = {"pieces": "first"} if kind == "token" and not own_head.own else {}
    facts = {"steps": last_step, "checkpoints": len(sources), "kept_step": last_step, "metric": facts_of_task["metric"],
             "label_names": names, "method_kind": "given", "axis": read_manifest(series).facts["axis"],
             "head": kind, "train": {**train, **pieces}, **({} if target == "class" else {"target": target})}
    metrics = {"steps": last_step, "checkpoints": len(sources)}
    if recorded is not None:
        facts |= _copy_recorded(where, recorded, recorded_facts, names, labels, out)
        metrics |= json.loads((recorded / "metrics.json").read_text("utf-8"))
    else:
        merge_tables(out / "history.parquet", [HISTORY.empty_table()])
    write_json(out / "metrics.json", metrics)
    return facts


def _config_and_head(source: Source) -> tuple[dict[str, Any], FoundHead]:
    """The config of a checkpoint, and its head as far as files without weights tell of it."""
    if isinstance(source, Local):
        folder = verified(source)
        base = source.base
        config = config_of(base if base is not None else source)
        base_folder = Path(base.path) if isinstance(base, Local) else None
        head = head_of(folder, base_folder)
        if (folder / ADAPTER_CONFIG).is_file() and head.names:  # the base knows nothing of the adapters' head
            config = {**config, "id2label": {str(i): name for i, name in enumerate(head.names)},
                      "label2id": {name: i for i, name in enumerate(head.names)}}
        return config, head
    config = config_of(source)
    return config, told_by(config)


def _class_order(where: str, source: Source, head: FoundHead, kind: str, names: list[str],
                 labels: list[str]) -> list[int]:
    """For each class of the task, which output of a checkpoint's head tells it."""
    if head.kind != HEADS.get(kind, "sequence"):
        raise FinetraceError(f"{where}.head: {label(source)} has no head for a task of the kind {kind} (its head: "
                             f"{head.kind}); leave the task out of `head`")
    return order_of(head, names, labels, f"{where}.head: {label(source)}")


def _recorded_facts(where: str, folder: Path, target: str) -> dict[str, Any]:
    """Facts of a recorded trajectory. Raises FinetraceError when it has no signals, or those of another target."""
    try:
        manifest = read_manifest(folder)
    except FinetraceError as error:
        raise FinetraceError(f"{where}.signals: {error}; name the folder that TraceCallback wrote, or leave `signals` "
                             "out") from error
    facts = manifest.facts
    if manifest.kind != "trajectory" or not (folder / RECORDED[0]).is_file():
        raise FinetraceError(f"{where}.signals: {folder} holds no signals (signals.parquet); name a folder that "
                             "TraceCallback wrote, or leave `signals` out")
    if (recorded_target := facts.get("target", "class")) != target:
        raise FinetraceError(f"{where}.signals: {folder} was trained on target: {recorded_target}, and the task is "
                             f"target: {target}; name the task that it was trained on")
    return facts


def _copy_recorded(where: str, folder: Path, facts: Mapping[str, Any], names: list[str], labels: list[str],
                   out: Path) -> dict[str, Any]:
    """Copy the tables of a recorded trajectory; facts: its own. Returns those that its lenses need."""
    recorded_head = FoundHead("sequence", tuple(map(str, facts["label_names"])))
    has_classes = facts.get("target") != "regression"
    if has_classes and order_of(recorded_head, names, labels, f"{where}.signals: {folder}") != list(range(len(names))):
        raise FinetraceError(f"{where}.signals: {folder} was trained on the classes "
                             f"{', '.join(recorded_head.names[:6])}, and the task has them as {', '.join(names[:6])}; "
                             "give the task the same order (label_names)")
    for table in RECORDED:
        if (folder / table).is_file():
            shutil.copyfile(folder / table, out / table)
    return {key: facts[key] for key in ("steps", "steps_per_epoch", "kept_step", "parameters", "train_rows", "rows")
            if key in facts}
