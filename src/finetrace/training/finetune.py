"""Train a classifier and leave its trajectory: signals, history, probe looks, checkpoints, final metrics."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.training import MethodSettings, RecordSettings, TrainSettings
from finetrace.errors import FinetraceError
from finetrace.group import here
from finetrace.inference.evaluate import predict
from finetrace.inference.targets import Target, target_of
from finetrace.inference.thresholds import require_thresholds, threshold_metrics
from finetrace.models.device import set_up, use_bf16
from finetrace.models.load import forward_names, load_tokenizer, longest_input
from finetrace.models.rows import Collator, Encoded, encode, require_known
from finetrace.models.saved import load_trained
from finetrace.progress import Progress
from finetrace.store.checkpoints import checkpoint_name, list_weights
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table
from finetrace.training.checkpoints import save_weights
from finetrace.training.linear_probe import LinearProbe
from finetrace.training.losses import LossOf, loss_of, loss_words
from finetrace.training.methods import probe_head, scale_head, start_classifier, trained_parameters
from finetrace.training.parts import devices
from finetrace.training.probe_run import drawn_head, record_linear_probe
from finetrace.training.recorder import Recorder
from finetrace.training.schedule import plan_steps, steps_of
from finetrace.training.trainer import Hooks, Plan, RecordingTrainer

log = logging.getLogger(__name__)


@dataclass
class Prepared:
    """A tokenised task: rows per split, names of the classes, the metric by which runs are compared, marked words per
    example; what is predicted of one.

    longest: tokens of the longest input;  texts: split -> rows, tokens, and what was cut or is unknown
    (`Encoded.told`).
    """

    splits: dict[str, Encoded]
    label_names: list[str]
    metric: str
    collator: Collator
    spans: int
    target: Target
    longest: int = 0
    texts: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSeeds:
    """Seeds of one training by purpose; equal for equal study and trajectory seeds, whatever the model or task."""

    head: int
    order: int
    dropout: int
    probe: int
    adapter: int = 0
    folds: int = 0

    @classmethod
    def of(cls, study_seed: int, trajectory_seed: int) -> "RunSeeds":
        return cls(*(seeds.derive(study_seed, purpose, trajectory_seed)
                     for purpose in ("head", "order", "dropout", "probe", "adapter", "folds")))


def prepare(model_folder: Path, task_folder: Path, settings: TrainSettings, model: Any) -> Prepared:
    """Tokenise all splits of a task for a model."""
    import torch

    facts = read_manifest(task_folder).facts
    tokenizer = load_tokenizer(model_folder)
    length = longest_input(model, tokenizer, settings.max_length)
    inputs, target = forward_names(model), target_of(facts)
    classes = len(target.label_names) if target.kind == "multi-label" else 0
    splits = {}
    for split in facts["rows"]:
        splits[split] = encode(task_folder / f"{split}.parquet", tokenizer, length, inputs, classes=classes)
        largest_id = max(max(ids) for ids in splits[split].features["input_ids"])
        if largest_id >= model.get_input_embeddings().num_embeddings:
            raise FinetraceError(f"{model_folder}: its tokenizer gives token id {largest_id}, but the model has only "
                                 f"{model.get_input_embeddings().num_embeddings} embeddings; they do not belong "
                                 "together")
        require_known(splits[split], tokenizer, str(task_folder / f"{split}.parquet"))
    if "train" not in splits:
        raise FinetraceError(f"{task_folder}: has no train split; it can be a test set only")
    return Prepared(splits, facts["label_names"], facts["metric"],
                    Collator(tokenizer, 8 if torch.cuda.is_available() else None, pieces=settings.pieces),
                    facts.get("spans", 0), target, length,
                    {split: rows.told(tokenizer) for split, rows in splits.items()})


def _warn_of_cuts(prepared: Prepared, max_length: int, name: str) -> None:
    """Say how long inputs can be, where that is less than asked for, and what of the texts was cut."""
    if prepared.longest < max_length:
        log.warning("%s: inputs have %d tokens at most, not the %d of train.max_length: the model or its tokenizer "
                    "takes no more",
                    name, prepared.longest, max_length)
    for split, counts in prepared.texts.items():
        if counts["rows_cut"]:
            log.warning("%s: %s of %s rows of %s are longer than %d tokens and were cut; %s of their tokens are not "
                        "read", name,
                        f"{counts['rows_cut']:,}", f"{counts['rows']:,}", split, prepared.longest,
                        f"{counts['tokens_cut']:,}")


def make_plan(train: Encoded, settings: TrainSettings, seed: int) -> Plan:
    """The fixed order of all micro-batches."""
    steps, per_epoch = plan_steps(train.lengths, settings.batch_size, settings.epochs, settings.order,
                                  np.random.default_rng(seed), settings.max_steps)
    return Plan.of(steps, per_epoch, settings.accumulate, train.sizes)


def make_batch(rows: Encoded, collator: Collator) -> Callable[[Any], dict[str, Any]]:
    """A function from an entry of the plan to the trainer's inputs."""
    def make(entry: Any) -> dict[str, Any]:
        micro_step, index, step_rows = entry
        return {**collator(rows, index), "example_ids": rows.example_ids[rows.examples(index)],
                "micro_step": micro_step, "step_rows": step_rows, "tokens": int(rows.lengths[index].sum())}
    return make


def choose_probe_rows(prepared: Prepared, record: RecordSettings, seed: int) -> dict[str, Encoded]:
    """Split -> the rows of the probe set, a seeded choice."""
    probe_rows = {}
    for split in ("train", "validation"):
        rows = prepared.splits[split]
        order = seeds.generator(seed, "probe", split).permutation(len(rows))
        count = np.searchsorted(np.cumsum(rows.sizes[order]), record.probe_rows) + 1 if record.probe_rows else 0
        probe_rows[split] = rows.take(np.sort(order[:count]))
    return probe_rows


class FinetuneHooks(Hooks):
    """Evaluates, looks at the probe set and keeps weights, each on its schedule."""

    def __init__(self, prepared: Prepared, plan: Plan, settings: TrainSettings, record: RecordSettings, probe_seed: int,
                 weights: Path, progress: Progress):
        self.prepared, self.settings, self.weights, self.progress = prepared, settings, weights, progress
        schedule = lambda s: set(steps_of(s, plan.total_steps, plan.steps_per_epoch))  # noqa: E731
        self.evaluate, self.looks, self.checkpoints = (schedule(s)
                                                       for s in (record.evaluate, record.probe, record.checkpoints))
        if (settings.early_stopping or settings.keep == "best") and not self.evaluate:
            raise FinetraceError("record.evaluate: none leaves nothing to judge by; early_stopping and keep: best need "
                                 "evaluations, e.g. epochs")
        self.probe_rows = choose_probe_rows(prepared, record, probe_seed)
        self.bf16 = use_bf16(settings.precision)

    def after_step(self, trainer: RecordingTrainer, step: int) -> bool:
        prepared, recorder, plan = self.prepared, trainer.recorder, trainer.plan
        if step in self.looks:
            for split, rows in self.probe_rows.items():
                if len(rows):
                    logits = predict(trainer.model, rows, prepared.collator, bf16=self.bf16)
                    recorder.probe(step, split, rows.example_ids, rows.labels, logits,
                                   prepared.target.losses(logits, rows.labels))
        if step in self.checkpoints:
            save_weights(trainer.model, self.weights, step)
        stop, note = False, ""
        if step in self.evaluate:
            rows = prepared.splits["validation"]
            metrics = prepared.target.evaluate(predict(trainer.model, rows, prepared.collator, bf16=self.bf16), rows)
            recorder.evaluation(step, "validation", trainer.examples, step / plan.steps_per_epoch, metrics)
            trainer.require_finite(metrics["loss"], step, "loss on validation")
            note = f"validation {prepared.metric} {metrics[prepared.metric]:.4f}"
            stop = self._keep_best_or_stop(trainer, step)
        self.progress.update(step, note)
        return stop

    def _keep_best_or_stop(self, trainer: RecordingTrainer, step: int) -> bool:
        """Keep the best weights so far; say whether patience has run out."""
        best = best_step(trainer.recorder.evaluations, self.prepared.metric)
        if self.settings.keep == "best" and best == step:
            save_weights(trainer.model, self.weights, step)
            for other_step, folder in list_weights(self.weights).items():
                if other_step < step and other_step not in self.checkpoints:
                    shutil.rmtree(folder)
        evaluations_since = sum(1 for e in trainer.recorder.evaluations if e["step"] > best)
        return bool(self.settings.early_stopping) and evaluations_since >= self.settings.early_stopping


def best_step(evaluations: list[dict[str, Any]], metric: str) -> int:
    """The step of the best evaluation (the earliest of equals)."""
    return max(evaluations, key=lambda e: (e[metric] if e[metric] == e[metric] else -np.inf, -e["step"]))["step"]


def finetune(model_folder: Path, task_folder: Path, settings: TrainSettings, record: RecordSettings,
             run_seeds: RunSeeds, *, scratch: Path, out: Path, name: str, method: MethodSettings | None = None,
             watch: Callable[[list[dict[str, Any]]], None] | None = None,
             on_plan: Callable[[Plan], None] | None = None,
             on_answers: Callable[[str, np.ndarray, np.ndarray], None] | None = None) -> dict[str, Any]:
    """Train, or continue a training that was killed, and write the finished trajectory into the folder `out`.

    scratch: where unfinished work lives;  method: how to train, by default plain fine-tuning;  watch: receives new
    history rows while the training runs;  on_plan: receives the plan before the first step;  on_answers: receives
    split, logits (example, class) and labels (example,) of the kept weights, for every split but train. Writes
    signals.parquet, history.parquet, probe.parquet, timing.parquet, metrics.json, checkpoints/.
    Returns facts for the manifest. Of several processes all call it; those that follow write nothing and return none.
    """
    method = method or MethodSettings()
    facts = read_manifest(task_folder).facts
    model = start_classifier(model_folder, facts, settings, method, run_seeds.head, run_seeds.adapter)
    set_up(model.num_parameters())
    prepared = prepare(model_folder, task_folder, settings, model)
    _warn_of_cuts(prepared, settings.max_length, name)
    train, target = prepared.splits["train"], prepared.target
    loss_function = loss_of(target, settings, train.labels)
    if settings.thresholds == "chosen":
        require_thresholds(target)
    recorder = Recorder(scratch / "segments", len(prepared.label_names), record.signals, watch, target.kind,
                        target.metrics)
    weights = scratch / "checkpoints"
    if method.kind == "lp":
        training = _fit_probe(model, prepared, settings, record, run_seeds, recorder, weights, on_plan)
    else:
        training = _train_by_gradient(model, prepared, settings, record, run_seeds, recorder, scratch, name,
                                      loss_function, on_plan, probes=method.probes)
        if not here().leads:
            return {}
    if record.checkpoints != "none" and training.last_step not in list_weights(weights):
        save_weights(model, weights, training.last_step)  # early stopping ended between two steps of the schedule
    kept_step, device = training.last_step, next(model.parameters()).device
    if settings.keep == "best" and method.kind != "lp":
        kept_step = best_step(recorder.evaluations, prepared.metric)
        model = load_trained(weights / checkpoint_name(kept_step), model_folder).to(device)
    scores, thresholds = _final_metrics(model, prepared, settings, on_answers)
    rows_written = recorder.finish(out)
    scheduled = set(list_weights(weights)) if method.kind == "lp" else set(
        steps_of(record.checkpoints, training.plan.total_steps, training.plan.steps_per_epoch))
    _copy_checkpoints(weights, scheduled | {training.last_step, kept_step}, training.last_step, out / "checkpoints")
    write_json(out / "metrics.json",
               {"steps": training.last_step, "examples": training.examples, "kept_step": kept_step, **scores})
    return {"device": devices(), "steps": training.last_step, "steps_per_epoch": training.plan.steps_per_epoch,
            "kept_step": kept_step, "metric": prepared.metric, "label_names": prepared.label_names,
            "rows": rows_written, "method_kind": method.kind,
            "parameters": model.num_parameters(), "train_rows": len(train.labels), "tokens": training.tokens,
            "trained_parameters": trained_parameters(model), "max_length": prepared.longest, "texts": prepared.texts,
            **({"linear_probe": _describe(training.probe)} if training.probe else {}),
            **({} if target.kind == "class" else {"target": target.kind}),
            **({"thresholds": thresholds} if thresholds else {}),
            **({"loss": loss_text} if (loss_text := loss_words(target, settings)) else {}),
            **_divergence(out / "history.parquet", record.on_nonfinite)}


@dataclass(frozen=True)
class _FinishedTraining:
    """A training that has ended: its plan; the last step, and the examples and tokens until then; the linear probe that
    it began with or was."""

    plan: Plan
    last_step: int
    examples: int
    tokens: int
    probe: LinearProbe | None


def _fit_probe(model: Any, prepared: Prepared, settings: TrainSettings, record: RecordSettings, run_seeds: RunSeeds,
               recorder: Recorder, weights: Path, on_plan: Callable[[Plan], None] | None) -> _FinishedTraining:
    """Fit the head on the frozen encoder: method lp."""
    train, start_head = prepared.splits["train"], drawn_head(model)
    probe, features = probe_head(model, train, prepared.collator, settings, run_seeds.folds)
    plan = Plan([], probe.iterations, 1, 1, train.sizes)
    if on_plan:
        on_plan(plan)
    recorder.truncate(-1)
    shutil.rmtree(weights, ignore_errors=True)
    record_linear_probe(model, prepared, settings, record, probe, features,
                        choose_probe_rows(prepared, record, run_seeds.probe), start_head, recorder, weights)
    return _FinishedTraining(plan, probe.iterations, probe.iterations * len(train.labels), int(train.lengths.sum()),
                             probe)


def _train_by_gradient(model: Any, prepared: Prepared, settings: TrainSettings, record: RecordSettings,
                       run_seeds: RunSeeds, recorder: Recorder, scratch: Path, name: str, loss_function: LossOf,
                       on_plan: Callable[[Plan], None] | None, *, probes: bool) -> _FinishedTraining:
    """Train by gradient steps; probes: from the fitted head on."""
    train, probe = prepared.splits["train"], None
    plan = make_plan(train, settings, run_seeds.order)
    if on_plan:
        on_plan(plan)
    if probes:
        probe, _ = here().first(lambda: probe_head(model, train, prepared.collator, settings, run_seeds.folds,
                                                   scratch / "linear-probe"))
    scale_head(model, settings)
    trainer = _run_trainer(model, prepared, plan, settings, record, run_seeds, recorder, scratch, name, loss_function)
    return _FinishedTraining(plan, trainer.state.global_step, trainer.examples, trainer.tokens, probe)


def _copy_checkpoints(weights: Path, steps: set[int], last_step: int, out: Path) -> None:
    """Copy the checkpoints of some steps up to the last one."""
    for step, folder in list_weights(weights).items():
        if step in steps and step <= last_step:
            shutil.copytree(folder, out / folder.name)
    out.mkdir(exist_ok=True)


def _run_trainer(model: Any, prepared: Prepared, plan: Plan, settings: TrainSettings, record: RecordSettings,
                 run_seeds: RunSeeds, recorder: Recorder, scratch: Path, name: str, loss_function: LossOf
                 ) -> RecordingTrainer:
    train = prepared.splits["train"]
    tokens = int(sum(train.lengths[rows].sum() for _, rows, _ in plan.batches))
    log.info("%s: %d steps, %d examples, %s tokens, %d of %d parameters are trained", name, plan.total_steps,
             plan.examples(), f"{tokens:,}", trained_parameters(model), model.num_parameters())
    progress = Progress(plan.total_steps, name)
    hooks = FinetuneHooks(prepared, plan, settings, record, run_seeds.probe, scratch / "checkpoints", progress)
    trainer = RecordingTrainer(model, plan, make_batch(train, prepared.collator), settings, scratch=scratch,
                               seed=run_seeds.dropout, recorder=recorder, hooks=hooks, loss_of=loss_function,
                               resume_seconds=record.resume_seconds, on_nonfinite=record.on_nonfinite)
    trainer.run()
    progress.close()
    return trainer


def _final_metrics(model: Any, prepared: Prepared, settings: TrainSettings,
                   on_answers: Callable[[str, np.ndarray, np.ndarray], None] | None
                   ) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of the kept weights on every split but train; and the chosen thresholds, if any, by class."""
    metrics: dict[str, float] = {}
    answers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split in [s for s in prepared.splits if s != "train"]:
        rows = prepared.splits[split]
        logits = predict(model, rows, prepared.collator, bf16=use_bf16(settings.precision))
        answers[split] = logits, rows.labels
        if on_answers:
            on_answers(split, logits, rows.labels)
        metrics |= {f"{split}/{k}": v for k, v in prepared.target.evaluate(logits, rows).items()}
    threshold_scores, thresholds = (threshold_metrics(answers, prepared.target) if settings.thresholds == "chosen"
                                    else ({}, {}))
    return metrics | threshold_scores, thresholds


def _divergence(history: Path, on_nonfinite: str) -> dict[str, int]:
    """The first step whose loss or gradient was not finite, where a training was to go on all the same."""
    if on_nonfinite == "stop":
        return {}
    table = read_table(history, ["step", "kind", "loss", "gradient_norm"])
    rows = [row for row in table.to_pylist() if row["kind"] == "train" and not (
        np.isfinite(row["loss"]) and np.isfinite(row["gradient_norm"] or 0.0))]
    if rows:
        log.warning("the training diverged at step %d of %d; it went on because of record.on_nonfinite: record",
                    rows[0]["step"], len(table))
    return {"diverged_at_step": rows[0]["step"]} if rows else {}


def _describe(probe: LinearProbe) -> dict[str, Any]:
    return {"strength": probe.strength, "strengths": probe.strengths.tolist(), "accuracy": probe.accuracy.tolist(),
            "iterations": probe.iterations, "converged": probe.converged,
            "weight_norm": float(np.linalg.norm(probe.weight))}
