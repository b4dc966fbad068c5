"""Neural tangent kernel at checkpoints, and what it predicts -> .../kernel/"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.kernel.settings import KernelSettings
from finetrace.longtable import LongTable
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress
from finetrace.store.arrays import write_array
from finetrace.store.files import write_json
from finetrace.store.hidden import step_name
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import read_table, write_table

if TYPE_CHECKING:
    from finetrace.lenses.kernel.summary import Look, Row
    from finetrace.models.rows import Collator, Encoded

log = logging.getLogger("finetrace")
PARAMETERS = {"trained": "trainable"}  # a checkpoint is loaded with gradients required of what its method trains
SETTLED = 5e-6  # seconds per squared row of a kernel: fitting the models of one checkpoint
COPIES = 10  # kernels held at once: parts, their sum, the looks before, what solvers need
GROUPS = 100  # and those of the groups of two looks


@dataclass(frozen=True)
class Examples:
    """The chosen examples of one split. batches: inputs with labels;  labels: (example,) in the batches' order."""

    batches: list[dict[str, Any]]
    labels: np.ndarray


@dataclass(frozen=True)
class Work:
    """Checkpoints, examples and settings of one trajectory.

    checkpoints: step -> folder, ascending;  names: (class,);  kind: of the method.
    """

    stage: Stage
    settings: KernelSettings
    checkpoints: dict[int, Path]
    model: Path
    train: Examples
    other: Examples
    names: list[str]
    kind: str
    seed: int

    @property
    def steps(self) -> list[int]:
        return list(self.checkpoints)

    @property
    def ends(self) -> list[int]:
        """First and last step; one where they are the same."""
        return list(dict.fromkeys((self.steps[0], self.steps[-1])))


def main(stage: Stage) -> None:
    from finetrace.lenses.kernel.figures import draw
    from finetrace.models.given import model_folder
    from finetrace.models.timeline import kept_checkpoints

    settings = stage.settings("kernel", KernelSettings)
    trajectory, folder = stage.folder / "trajectory", stage.folder / "kernel"
    model = model_folder(trajectory, stage.layout.model(stage.asked["model"]))
    task = stage.layout.task(stage.asked["task"])
    training_facts = read_manifest(trajectory).facts
    checkpoints = kept_checkpoints(trajectory, settings.checkpoints, "params.yaml: kernel.checkpoints")
    seed = seeds.derive(stage.seed, "kernel", stage.asked["task"])  # all trajectories of a task see the same examples
    inputs: dict[Path, Path | str] = {trajectory: trajectory, task: task}
    if model.parent != trajectory:  # else it is part of the trajectory
        inputs[model] = model
    manifest = stage.manifest("lens", inputs, {"kernel": seed}, outs=(folder,))

    def measure(out: Path) -> Record:
        train, other, example_facts = _examples(checkpoints, model, task, settings, training_facts["train"], seed)
        names = read_manifest(task).facts["label_names"]
        work = Work(stage, settings, checkpoints, model, train, other, names, training_facts.get("method_kind", "ft"),
                    seed)
        _announce(work)
        record = _measure(work, manifest, out)
        manifest.facts |= example_facts
        return record

    write_lens(stage, folder, manifest, measure, draw)


def _measure(work: Work, manifest: Manifest, out: Path) -> Record:
    """All checkpoints, one after the other; writes table, metrics, curves and, if asked, the kernels."""
    from finetrace.lenses.kernel import statistics, summary

    settings, train, steps = work.settings, work.train, work.steps
    rows: list[Row] = []
    model_rows: list[Row] = []
    blocks: dict[int, dict[str, np.ndarray]] = {}
    first: Look | None = None
    previous: Look | None = None
    not_converged = 0
    for step in steps:
        look = _look(work, step, log_cost=first is None)
        first = first or replace(look, eval={}, groups={})
        rows += summary.statistic_rows(look, train.labels, tolerance=settings.rank_tolerance, seed=work.seed)
        rows += summary.motion_rows(first, previous, look)
        if settings.solver != "none":
            model_rows = _model_rows(work, look, (previous, model_rows) if previous else None)
            rows += model_rows
            not_converged += sum(row["statistic"] == "model_converged" and not row["value"] for row in model_rows)
        if step in work.ends:
            blocks[step] = {part: statistics.block_nuclear_norms(look.train[part]).astype(np.float32)
                            for part in summary.PARTS[:2]}  # only drawn: half the bytes will do
        if settings.keep:
            for part in summary.PARTS[:2]:
                values = np.concatenate([look.train[part], *([look.eval[part]] if look.eval else [])])
                write_array(out / "kernels" / step_name(step) / f"{part}.npy", values.astype(np.float32))
        previous = look
    if not_converged:
        log.warning("%s: %d kernel models ended before they converged", work.stage.label, not_converged)
    table = LongTable.of_rows(rows, summary.COLUMNS)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.metrics(table, steps))
    write_curves(out / "curves.csv", summary.curves(table, steps))
    manifest.facts = {"steps": steps, "label_names": work.names,
                      "rows": {"train": len(train.labels), "eval": len(work.other.labels)}, "method_kind": work.kind,
                      "not_converged": not_converged}
    return _figure_record(work, table, blocks)


def _figure_record(work: Work, table: LongTable, blocks: dict[int, dict[str, np.ndarray]]) -> Record:
    """The record from which the figures are drawn."""
    from finetrace.lenses.kernel.summary import PARTS, WHOLE

    settings, labels, truth, steps = work.settings, work.train.labels, work.other.labels, work.steps
    split, truth = ("eval", truth) if len(truth) else ("train", labels)
    course_names = ["frobenius_norm", "ft_ratio", "alignment", "distance", "velocity", f"accuracy_{split}"]
    whole = table.select(group=WHOLE)
    shares = {step: table.select(step=step, statistic="trace_share").frame for step in work.ends}
    return {
        "name": work.stage.item, "steps": steps, "label_names": work.names, "labels": labels,
        "formula": settings.formula, "parameters": settings.parameters, "solver": settings.solver, "split": split,
        "floor": _majority(labels, truth),
        "courses": {name: {part: whole.course(steps, part=part, statistic=name) for part in PARTS}
                    for name in course_names},
        "spectra": {part: {step: (whole.select(step=step, part=part, statistic="spectrum").frame["value"].to_numpy(),
                                  int(whole.value(step=step, part=part, statistic="rank"))) for step in work.ends}
                    for part in PARTS},
        "tolerance": whole.value(step=steps[0], part="full", statistic="rank_tolerance"),
        "blocks": blocks,
        "groups": {step: dict(zip(share["group"].tolist(), share["value"].tolist(), strict=True))
                   for step, share in shares.items()},
    }


def _examples(checkpoints: dict[int, Path], model_folder: Path, task_folder: Path, settings: KernelSettings,
              train: Mapping[str, Any], seed: int) -> tuple[Examples, Examples, dict[str, Any]]:
    """The chosen examples of the train and the eval split, and facts about them. train: settings of the training."""
    from finetrace.inference.choose import choose_rows
    from finetrace.models.given import load_trained
    from finetrace.models.load import forward_names, load_tokenizer, longest_input
    from finetrace.models.rows import Collator, encode

    tokenizer = load_tokenizer(model_folder)
    model = load_trained(next(iter(checkpoints.values())), base=model_folder)
    length = longest_input(model, tokenizer, settings.max_length or train["max_length"])
    collator = Collator(tokenizer, side="right", pieces=train["pieces"])
    examples: list[Examples] = []
    truncated = 0
    for split, count in (("train", settings.rows["train"]), (settings.eval_split, settings.rows["eval"])):
        path = task_folder / f"{split}.parquet"
        if examples and count == 0:
            examples.append(Examples([], np.empty(0, dtype=np.int64)))
            continue
        if not path.is_file():
            raise FinetraceError(f"{task_folder.name} has no split {split!r}; set kernel.eval_split to another one, or "
                                 "kernel.rows.eval: 0")
        labels = read_table(path, ["label"])["label"].to_numpy()
        rows = encode(path, tokenizer, length, forward_names(model) | {"attention_mask"},
                      rows=choose_rows(labels, count, settings.choose, seeds.derive(seed, split)))
        examples.append(_make_batches(rows, collator, settings.batch_tokens))
        truncated += int((rows.lengths >= length).sum())
    return examples[0], examples[1], {"max_length": length, "truncated": truncated}


def _make_batches(rows: "Encoded", collator: "Collator", batch_tokens: int) -> Examples:
    from finetrace.models.rows import batches_by_tokens

    index = list(batches_by_tokens(rows.lengths, batch_tokens))
    return Examples([collator(rows, batch_rows) for batch_rows in index],
                    np.concatenate([rows.labels[rows.examples(batch_rows)] for batch_rows in index]))


def _announce(work: Work) -> None:
    """Log what is computed and what it takes; FinetraceError where the memory cannot hold the kernels."""
    stage, settings, train, other, classes = work.stage, work.settings, work.train, work.other, len(work.names)
    columns = len(train.labels) * classes
    kernel_bytes = (len(train.labels) + len(other.labels)) * classes * columns * 8
    log.info("%s: %d checkpoints, kernels of %d + %d examples x %d classes (%.0f MB each), gradients of %s (%s), "
             "solver %s (about %.0f s per checkpoint, besides the kernel)", stage.label, len(work.steps),
             len(train.labels), len(other.labels), classes, kernel_bytes / 1e6, settings.parameters, work.kind,
             settings.solver, 0 if settings.solver == "none" else 3 * SETTLED * columns ** 2)
    if work.kind == "lp" and settings.parameters == "trained":
        log.info("%s: linear probing trains the head only; where that is one linear layer, the FT-effective part is "
                 "zero", stage.label)
    needed_bytes = COPIES * kernel_bytes + (GROUPS * columns ** 2 * 8 if settings.groups else 0)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > memory_bytes:
        raise FinetraceError(f"params.yaml: kernel.rows: kernels of {columns:,} rows need about "
                             f"{needed_bytes / 1e9:.0f} GB, this machine has {memory_bytes / 1e9:.0f}; lower "
                             f"kernel.rows.train (now {len(train.labels)}) or set kernel.groups: false")


def _look(work: Work, step: int, log_cost: bool) -> "Look":
    """The kernels and logits of one checkpoint. log_cost: log beforehand what a kernel takes."""
    import torch

    from finetrace.lenses.kernel import summary
    from finetrace.lenses.kernel.ntk import estimate, ntk
    from finetrace.models.device import fit_threads, set_up
    from finetrace.models.given import load_trained

    stage, settings, train, other = work.stage, work.settings, work.train, work.other
    checkpoint = work.checkpoints[step]
    started = time.monotonic()
    model = load_trained(checkpoint, base=work.model)
    cuda = torch.cuda.is_available()
    (set_up if cuda else fit_threads)(model.num_parameters())
    model.to("cuda" if cuda else "cpu")
    kernel_options: dict[str, Any] = {"parameters": PARAMETERS.get(settings.parameters, settings.parameters),
                                      "dtype": getattr(torch, settings.dtype), "memory_bytes": settings.memory_gb * 1e9}
    with blame(f"{checkpoint}: its kernel could not be computed (params.yaml: kernel)"):
        if log_cost:
            cost = estimate(model, train.batches, other.batches, **kernel_options)
            log.info("%s: a kernel takes about %.0f s, %.1f GB and %d passes over the examples", stage.label,
                     cost.seconds, cost.bytes / 1e9, cost.passes)
        kernel = ntk(model, train.batches, other.batches, formula=settings.formula, groups=settings.groups,
                     progress=_progress(f"{stage.label} step {step:,}"), **kernel_options)
    train_kernel, eval_kernel = kernel.rows("train"), kernel.rows("eval") if other.batches else None
    log.info("%s: step %d: kernel in %.1f s", stage.label, step, time.monotonic() - started)
    return summary.Look(
        step, _parts(train_kernel), _parts(eval_kernel) if eval_kernel else {},
        {g: v.copy() for g, v in train_kernel.groups.items()},
        _logits(model, train), _logits(model, other), _parts(train_kernel.flipped) if train_kernel.flipped else {},
        _parts(eval_kernel.flipped) if eval_kernel and eval_kernel.flipped else {})


def _parts(kernel: Any) -> dict[str, np.ndarray]:
    from finetrace.lenses.kernel import summary

    return summary.parts(kernel.pretrain_effective, kernel.ft_effective)


def _logits(model: Any, examples: Examples) -> np.ndarray:
    """(example, class) float32."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        logits = [model(**{k: v.to(device) for k, v in batch.items() if k != "labels"}).logits.cpu().numpy()
                  for batch in examples.batches]
    return np.concatenate(logits) if logits else np.empty((0, 0))


def _model_rows(work: Work, look: "Look", previous: "tuple[Look, list[Row]] | None") -> "list[Row]":
    """Rows of the kernel models. previous: the kernels and the rows of the checkpoint before."""
    from finetrace.lenses.kernel import summary

    settings = work.settings
    with blame(f"params.yaml: kernel, for {work.stage.item} at step {look.step}"):
        return summary.model_rows(look, work.train.labels, work.other.labels, before=previous,
                                  adjust=settings.adjust_for_init, f0_scaling=settings.f0_scaling,
                                  solver=settings.solver, normalise=settings.normalise,
                                  regularization=settings.regularization, parity=settings.parity,
                                  folds=settings.folds, gamma=settings.gamma, seed=work.seed)


def _progress(label: str) -> Callable[[str, int, int], None]:
    """A function that shows a bar for each phase of a kernel, called with phase, parts done and parts in all."""
    running: dict[str, Progress] = {}

    def tell(phase: str, done: int, total: int) -> None:
        if phase not in running:
            running[phase] = Progress(total, f"{label}: {phase}", unit="part")
        running[phase].update(done)
        if done >= total:
            running.pop(phase).close()

    return tell


def _majority(labels: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy of always saying the class that is most frequent in training."""
    return float((truth == np.bincount(labels).argmax()).mean())
