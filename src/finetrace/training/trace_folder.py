"""The folder of a finished trace: a trajectory like those of finetrace's own trainings, with a little more beside it.

    signals.parquet    one row per example and step, in the order step, micro_step, position: what the model answered
                       before the update.  step int64, updates done before;  micro_step int64, forward passes before;
                       position int32, place in the micro-batch, processes one after the other by rank;  example_id
                       int64;  label int32, float32 where the model gives one number, list<bool>[class] of several
                       labels per example;  logits list<float32>[class];  loss float32, cross-entropy in nats, the
                       squared error, or the mean over the classes of binary cross-entropies in nats, whatever the
                       training minimises.
    history.parquet    kind `train`: one row per step with loss (mean of the above), learning_rate, gradient_norm,
                       head_norm, examples (seen before), tokens (read so far, without padding), epoch; kind `eval`:
                       what the training's own evaluations said.
    probe.parquet      logits and loss of the probe set in evaluation mode, after `step` updates.
    timing.parquet     seconds and tokens per second of process 0; no two trainings have equal ones, so that it is in
                       no hash.
    checkpoints/step-N weights after N updates as models/saved.py reads them (safetensors): a whole classifier, or
                       adapters and head; complete.json lists their hashes.
    tokenizer/         the tokenizer's files, where the training has one.
    metrics.json       steps, examples, kept_step, and `validation/...` of the last evaluation at kept_step.
    manifest.json      kind `trajectory`, stage `trace`: facts, and the hash of every file.
    provenance.json    settings of the training, seeds, versions, device.   cost.json  when, how long, where.

Facts are those of every fine-tuning (steps, steps_per_epoch, kept_step, metric, label_names, rows, method_kind,
parameters, trained_parameters, train_rows, tokens, max_length, train, model, target where it is not one class) and
`trace`:

    format 1;  architecture, model_type;  head: `family` (a transformers *ForSequenceClassification) or `own`;
    adapters: whether checkpoints need the base model;  base, base_revision: hub id or folder it started from, and the
    hub's commit where it is known;  tokenizer: `tokenizer` or "";  task, columns: as the person named them;
    ids: `rows` (row numbers of the training dataset) or `given`;  validation: whether the probe set has such a part;
    loss: `cross_entropy`, `squared_error` or `binary_cross_entropy`;  gradient_norm: `before_clipping` or
    `of_the_update`;  processes.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.errors import FinetraceError
from finetrace.models.device import device_name
from finetrace.store.checkpoints import list_weights
from finetrace.store.files import atomic_folder, write_json
from finetrace.store.manifest import Manifest, complete, make_key
from finetrace.store.tables import read_table, write_table
from finetrace.training.trace import UNFINISHED, Trace
from finetrace.training.trace_options import METRICS_OF
from finetrace.training.trace_recorder import METRICS, TraceRecorder
from finetrace.training.traced_model import describe, kind_of, names_of

log = logging.getLogger(__name__)
FORMAT = 1
TOKENIZER = "tokenizer"
LOSSES = {"class": "cross_entropy", "regression": "squared_error", "multi-label": "binary_cross_entropy"}


def finish(trace: Trace, settings: dict[str, Any], run_seeds: dict[str, int], tokenizer: Any = None, *,
           started: float | None = None) -> None:
    """Write the finished folder; all processes call it, and the last of them returns when the folder is whole.

    settings: of the training, for provenance.json and the fact `train`;  started: `time.time()` at its start. Raises
    FinetraceError when rows were lost.
    """
    recorder = trace.recorder
    recorder.expect(trace.step, recorder.rows)
    trace.flush()
    _wait(trace)
    if trace.rank == 0:
        with atomic_folder(trace.folder) as out:
            rows = (recorder if trace.processes == 1 else _join_processes(trace)).finish(out)
            kept_step = _copy_weights(trace, out)
            has_tokenizer = tokenizer is not None and hasattr(tokenizer, "save_pretrained")
            if has_tokenizer:
                tokenizer.save_pretrained(out / TOKENIZER)
            examples = rows["signals"]
            write_json(out / "metrics.json", {"steps": trace.step, "examples": examples, "kept_step": kept_step,
                                              **_metrics_at(recorder.evaluations, kept_step)})
            facts = _facts(trace, settings, kept_step, rows, has_tokenizer)
            content = {"train": settings, "trace": facts["trace"], "label_names": facts["label_names"]}
            complete(out, Manifest("trajectory", "trace", trace.folder.name, make_key("trace", content, {}, ""),
                                   content, {}, run_seeds, facts, device=device_name()), started=started)
    _wait(trace)


def _wait(trace: Trace) -> None:
    """Until all processes have come here."""
    import torch

    if trace.processes > 1:
        torch.distributed.barrier()


def _facts(trace: Trace, settings: dict[str, Any], kept_step: int, rows: dict[str, int],
           has_tokenizer: bool) -> dict[str, Any]:
    model, options, measured, target = trace.model, trace.options, trace.facts, trace.recorder.target or "class"
    parameters = list(model.parameters())
    names = names_of(model, options.label_names, trace.recorder.classes)
    longest_input = max(int(trace.batch_facts(rank)["longest"]) for rank in range(trace.processes))
    train = {"learning_rate": measured.get("learning_rate"), "batch_size": measured.get("batch_size"), "pieces": "mean",
             "max_length": options.max_length or longest_input} | settings
    description = describe(model)
    trace_facts = {"format": FORMAT, **description, "base": options.base or description["base"],
                   "tokenizer": TOKENIZER if has_tokenizer else "", "task": options.task,
                   "columns": dict(options.columns or {}), "ids": "rows" if options.ids is None else "given",
                   "validation": options.validation is not None,
                   "loss": LOSSES[target],
                   "gradient_norm": "before_clipping" if trace.norms.clipped else "of_the_update",
                   "processes": trace.processes}
    return {"steps": trace.step, "steps_per_epoch": trace.steps_per_epoch, "kept_step": kept_step,
            "metric": options.metric or METRICS_OF[target][0], "label_names": names, "rows": rows,
            "method_kind": kind_of(model),
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "train_rows": trace.dataset_rows, "tokens": trace.tokens, "max_length": train["max_length"],
            "train": train, "model": trace.folder.name, "trace": trace_facts,
            **({} if target == "class" else {"target": target})}


def _copy_weights(trace: Trace, out: Path) -> int:
    """Put the checkpoints into the folder, without another copy of their bytes. Returns the kept step."""
    weights = list_weights(trace.weights)
    kept_step = trace.step if trace.kept is None else trace.kept
    if weights and kept_step not in weights:
        log.warning("%s: the weights of step %d, which the training chose as the best, were not recorded; those of the "
                    "last step count as kept", trace.folder, kept_step)
        kept_step = trace.step
    for step, folder in weights.items():
        if step in trace.checkpoints | {trace.step, kept_step}:
            shutil.copytree(folder, out / "checkpoints" / folder.name, copy_function=_link)
    (out / "checkpoints").mkdir(exist_ok=True)
    return kept_step


def _link(source: str, target: str) -> str:
    """A second name of a file, or a copy where the file system knows none."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _metrics_at(evaluations: list[dict[str, Any]], kept_step: int) -> dict[str, float]:
    """`split/metric` of the last evaluation of each split at the kept step."""
    metrics: dict[str, float] = {}
    for row in evaluations:
        if row["step"] == kept_step:
            metrics |= {f"{row['split']}/{key}": value for key, value in row.items()
                        if key in ("loss", "accuracy", "macro_f1", "f1", "matthews", *METRICS) and value is not None}
    return metrics


def _join_processes(trace: Trace) -> TraceRecorder:
    """A recorder with the rows of all processes.

    Segments of signals end at the same steps in all processes, so that one group of them is in memory at a time.
    """
    unfinished = trace.folder / UNFINISHED
    folders = [unfinished / f"segments-{rank}" for rank in range(trace.processes)]
    shutil.rmtree(unfinished / "segments", ignore_errors=True)
    joined = TraceRecorder(unfinished / "segments")
    joined.know(trace.recorder.classes, trace.recorder.target)
    losses: dict[int, tuple[float, int]] = {}
    for path in trace.recorder.tables["signals"].segments():
        group = [folder / path.name for folder in folders]
        if missing := [file for file in group if not file.is_file()]:
            raise FinetraceError(f"{missing[0]}: is not there; all processes must write into one folder, on one "
                                 "machine or on a disk that they share")
        write_table(joined.folder / path.name, _signals([read_table(file) for file in group], losses))
    counts: dict[int, list[int]] = {}
    for row in (row for folder in folders[1:] for path in sorted(folder.glob("history-*.parquet"))
                for row in read_table(path).to_pylist()):
        earlier = counts.get(row["step"], [0, 0])
        counts[row["step"]] = [earlier[0] + row["examples"], earlier[1] + row["tokens"]]
    for path in trace.recorder.tables["history"].segments():
        table = read_table(path)
        rows = table.to_pylist()
        for row in (row for row in rows if row["kind"] == "train"):
            total, count = losses[row["step"]]
            examples, tokens = counts[row["step"]]
            row |= {"loss": total / count, "examples": row["examples"] + examples, "tokens": row["tokens"] + tokens}
            trace.tokens = row["tokens"]
        write_table(joined.folder / path.name, pa.Table.from_pylist(rows, schema=table.schema))
    for path in (path for name in ("probe", "timing") for path in trace.recorder.tables[name].segments()):
        _link(str(path), str(joined.folder / path.name))
    joined.evaluations = trace.recorder.evaluations
    joined.expect(trace.step, sum(count for _, count in losses.values()))
    return joined


def _signals(tables: list[pa.Table], losses: dict[int, tuple[float, int]]) -> pa.Table:
    """The rows of all processes in the order step, micro_step, rank, position; notes sum and number of losses by
    step."""
    rank = np.repeat(np.arange(len(tables)), [t.num_rows for t in tables])
    table = pa.concat_tables(tables)
    step, micro, position = (table[name].to_numpy() for name in ("step", "micro_step", "position"))
    order = np.lexsort((position, rank, micro, step))
    table, micro = table.take(order), micro[order]
    first = np.flatnonzero(np.concatenate([[True], micro[1:] != micro[:-1]]))
    places = np.arange(len(micro)) - np.repeat(first, np.diff([*first, len(micro)]))
    steps, starts = np.unique(step[order], return_index=True)
    sums = np.add.reduceat(table["loss"].to_numpy().astype(np.float64), starts)
    for step_number, total, count in zip(steps, sums, np.diff([*starts, len(micro)]), strict=True):
        earlier = losses.get(int(step_number), (0.0, 0))
        losses[int(step_number)] = earlier[0] + float(total), earlier[1] + int(count)
    place = table.schema.get_field_index("position")
    return table.set_column(place, table.schema.field(place), pa.array(places, pa.int32()))
