"""The search for better hyper-parameters with Optuna: seeded, resumable, pruned, shared by several workers.

The search lives in a journal file or in a database (`training.search_storage`). What a trial tries depends on the
study's seed and on the trials that ended before it, not on a running random state, so a killed search continues as if
nothing had happened.
"""

import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import torch
from optuna.trial import TrialState

from finetrace import seeds
from finetrace.config.base import merge
from finetrace.config.training import Dimension, MethodSettings, TrainSettings, TuneSettings
from finetrace.config.written import written
from finetrace.errors import FinetraceError
from finetrace.inference.evaluate import predict
from finetrace.models.device import set_up, use_bf16
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table
from finetrace.training.downstream import majority
from finetrace.training.finetune import Prepared, RunSeeds, make_batch, make_plan, prepare
from finetrace.training.losses import loss_of
from finetrace.training.methods import probe_head, scale_head, start_classifier
from finetrace.training.recorder import Recorder
from finetrace.training.search_storage import DIVERGED, SearchStorage
from finetrace.training.trainer import Hooks, RecordingTrainer
from finetrace.training.watch import LiveLog

log = logging.getLogger(__name__)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
TRIALS, UNDECIDED = "trials", "undecided"  # of the search: how many of its trials count, and why none is the best
LOOK_AGAIN = 5  # seconds
NOISE = 1.96 * np.sqrt(2)  # two measurements on the same number of rows differ by more standard errors in 1 of 20 cases


@dataclass(frozen=True)
class Search:
    """A search as its workers get it.

    train: the study's own numbers, from which trials differ only in `tune.space`;  scratch: journal and live events;
    key: identity of the search.
    """

    model: Path
    task: Path
    train: TrainSettings
    tune: TuneSettings
    study_seed: int
    scratch: Path
    key: str
    name: str
    method: MethodSettings

    @property
    def storage(self) -> SearchStorage:
        """Where its trials are; its scratch folder is named by all that decides what a trial gives."""
        return SearchStorage(self.scratch, self.tune, f"{self.name} {self.scratch.name}")


def search(spec: Search) -> tuple[TrainSettings, optuna.Study]:
    """Run the search, or continue it, until `tune.trials` trials have ended; returns the best settings and the study.

    Of a search that had more trials before, the first `tune.trials` that ended count, so equal settings give equal
    results. Where the trials do not differ by more than noise, or none is better than the most frequent class, the log
    and `undecided` say so: the settings are then the earliest of the highest value. Raises FinetraceError when no
    trial completes.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec.scratch.mkdir(parents=True, exist_ok=True)
    study = spec.storage.open()
    _retry_stale(spec, study)
    log.info("%s: %d trials, %d have ended already", spec.name, spec.tune.trials, _count(study, ENDED))
    work_together(spec)
    study = spec.storage.open()
    study.set_user_attr(TRIALS, spec.tune.trials)
    trials = counted(study)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        raise FinetraceError(f"{spec.name}: none of {len(trials)} trials completed; widen or lower tune.space"
                             f"{_last_failure(trials)}")
    best, metric = best_trial(study), read_manifest(spec.task).facts["metric"]
    study.set_user_attr(UNDECIDED, reason := _why_undecided(spec, trials, metric))
    if reason:
        log.warning("%s: no trial is called the best: %s; settings of trial %d (%s %.4f) are taken: %s", spec.name,
                    reason, best.number, metric, best.value, best.params)
    else:
        log.info("%s: best %s %.4f with %s", spec.name, metric, best.value, best.params)
    return apply(spec.train, best.params), study


def undecided(study: optuna.Study) -> str:
    """Why no trial of a finished search can be called the best, in one sentence; "" where one can."""
    return str(study.user_attrs.get(UNDECIDED, ""))


def _why_undecided(spec: Search, trials: list[optuna.trial.FrozenTrial], metric: str) -> str:
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    rows = len(read_table(spec.task / "validation.parquet", ["label"]))
    highest, lowest = max(values), min(values)
    # a constant number correlates with nothing, and no constant finds an entity
    has_classes = "target" not in read_manifest(spec.task).facts
    constant = majority(spec.task)["validation"].get(metric, 0.0) if has_classes else 0.0
    if highest <= constant:
        return (f"none is better on validation than always naming the most frequent class ({metric} {constant:.4f}); "
                f"the highest has {highest:.4f}")
    error = value_error(highest, rows, metric)
    if highest - lowest <= NOISE * error and len(values) > 1:
        return (f"all {len(values)} lie between {lowest:.4f} and {highest:.4f}, which is within noise on {rows} "
                f"validation rows (standard error {error:.4f})")
    return ""


def value_error(value: float, rows: int, metric: str) -> float:
    """About the standard error of a metric on `rows` examples: sqrt(p (1 - p) / rows) of a share p, which F1 is
    treated as, and sqrt((1 - r^2) / rows) of a correlation r."""
    variance = 1 - value**2 if metric in ("matthews", "pearson", "spearman") else value * (1 - value)
    return float(np.sqrt(max(variance, 1 / (4 * rows)) / rows))  # of a perfect score the error is not zero


def _last_failure(trials: list[optuna.trial.FrozenTrial]) -> str:
    messages = [str(trial.user_attrs[DIVERGED]) for trial in trials if DIVERGED in trial.user_attrs]
    return f"; the last of them: {messages[-1]}" if messages else ""


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The completed trial with the highest value, the earliest of equals."""
    completed = [trial for trial in counted(study) if trial.state == TrialState.COMPLETE]
    return max(completed, key=lambda trial: (trial.value if trial.value is not None else -np.inf, -trial.number))


def apply(train: TrainSettings, params: dict[str, Any]) -> TrainSettings:
    """The study's own numbers with a trial's changes."""
    return merge(train, params, "tune.space")


def work_together(spec: Search) -> None:
    """Work at a search with `tune.workers` processes of this machine. Raises FinetraceError when one of them failed
    and trials are left."""
    if spec.tune.workers == 1:
        work(spec)
        return
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(spec,)) for _ in range(spec.tune.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers) and not _is_over(spec, spec.storage.open()):
        raise FinetraceError(f"{spec.name}: a tuning worker failed; its error stands above; run the "
                             "same command to continue")


def work(spec: Search) -> None:
    """One worker: try settings until enough trials have ended. Of a database several machines may have some."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    prepared: dict[int, Prepared] = {}  # by max_length, which a search may change
    live = LiveLog(spec.scratch / "live.jsonl")
    study = spec.storage.open()
    while not _is_over(spec, study):
        if (trial := _next_trial(spec, study)) is None:
            if not spec.storage.shared:
                return  # others are at the last trials, and whoever started them notices when they end
            time.sleep(min(spec.tune.heartbeat, LOOK_AGAIN))  # others are at the last trials, and may be lost
            continue
        with spec.storage.beating(study, trial):
            try:
                settings = apply(spec.train, trial.params)
                if settings.max_length not in prepared:
                    prepared[settings.max_length] = _prepare(spec, settings)
            except FinetraceError as error:  # these values do not go together, or not with this task
                _fail(spec, study, trial, error)
                continue
            _run_trial(spec, study, trial, settings, prepared[settings.max_length], live)


def _next_trial(spec: Search, study: optuna.Study) -> optuna.Trial | None:
    """The next trial with its settings drawn; None when those that are left are being tried."""
    with spec.storage.alone():
        spec.storage.give_up_lost(study, set(spec.tune.space or {}))
        if _count(study, (*ENDED, TrialState.RUNNING)) >= spec.tune.trials or _is_over(spec, study):
            return None
        study.sampler = _sampler(spec, study)
        trial = spec.storage.ask(study)
        for name, dimension in (spec.tune.space or {}).items():
            _suggest(trial, name, dimension)
        return trial


def _is_over(spec: Search, study: optuna.Study) -> bool:
    """Whether enough trials have ended, or so many failed by their settings that no more are tried."""
    failed = sum(DIVERGED in trial.user_attrs for trial in study.get_trials(deepcopy=False))
    return _count(study, ENDED) >= spec.tune.trials or failed > 3 * spec.tune.trials


def _fail(spec: Search, study: optuna.Study, trial: optuna.Trial, error: Exception) -> None:
    """End a trial that failed by its settings: it counts as failed and is not tried again."""
    trial.set_user_attr(DIVERGED, str(error).partition("\n")[0])
    study.tell(trial, state=TrialState.FAIL)
    log.warning("%s: trial %d failed: %s with %s", spec.name, trial.number, error, trial.params)


def _prepare(spec: Search, settings: TrainSettings) -> Prepared:
    facts = read_manifest(spec.task).facts
    model = start_classifier(spec.model, facts, settings, spec.method, 0, 0)
    set_up(model.num_parameters())
    prepared = prepare(spec.model, spec.task, settings, model)
    train = prepared.splits["train"]
    if spec.tune.max_rows and spec.tune.max_rows < len(train):
        chosen = seeds.generator(spec.study_seed, "tune", "rows").permutation(len(train))[:spec.tune.max_rows]
        prepared.splits["train"] = train.take(np.sort(chosen))
    return prepared


def _run_trial(spec: Search, study: optuna.Study, trial: optuna.Trial, settings: TrainSettings, prepared: Prepared,
               live: LiveLog) -> None:
    number = sum(earlier.number < trial.number for earlier in counted(study))
    key = f"{spec.key}:{number}"
    live.start(key, f"{spec.name} trial {number}", "trial", parent=spec.key, params=trial.params,
               started_at_ms=_milliseconds(trial.datetime_start), total_steps=spec.tune.evaluations)
    try:
        value = _train(spec, settings, prepared, trial,
                       lambda step, measured: live.metrics(key, step, {"objective/intermediate": measured}))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        live.end(key, "KILLED")
        log.info("%s: trial %d pruned: %s", spec.name, trial.number, trial.params)
        return
    except (FloatingPointError, FinetraceError, torch.OutOfMemoryError) as error:
        _fail(spec, study, trial, error)
        live.end(key, "FAILED")
        return
    study.tell(trial, value)
    live.end(key, "FINISHED")
    log.info("%s: trial %d: %s %.4f with %s", spec.name, trial.number, prepared.metric, value, trial.params)


def _train(spec: Search, settings: TrainSettings, prepared: Prepared, trial: optuna.Trial,
           report: Callable[[int, float], None]) -> float:
    """Train with one trial's settings; the validation metric at the end. Raises TrialPruned, FloatingPointError."""
    run_seeds = RunSeeds.of(spec.study_seed, 0)
    facts = {"label_names": prepared.label_names, "spans": prepared.spans}
    model = start_classifier(spec.model, facts, settings, spec.method, run_seeds.head, run_seeds.adapter)
    if spec.method.probes:
        probe_head(model, prepared.splits["train"], prepared.collator, settings, run_seeds.folds)
    scale_head(model, settings)
    plan = make_plan(prepared.splits["train"], settings, run_seeds.order)
    looks = {max(1, round(plan.total_steps * i / spec.tune.evaluations)): i
             for i in range(1, spec.tune.evaluations + 1)}
    rows, values = prepared.splits["validation"], []

    class Judge(Hooks):
        def after_step(self, trainer: RecordingTrainer, step: int) -> bool:
            if step not in looks or step == 0:
                return False
            logits = predict(trainer.model, rows, prepared.collator, bf16=use_bf16(settings.precision))
            if not np.isfinite(logits).all():
                raise FloatingPointError(f"logits are not finite at step {step}")
            values.append(prepared.target.evaluate(logits, rows)[prepared.metric])
            report(looks[step], values[-1])
            trial.report(values[-1], looks[step])
            if step < plan.total_steps and trial.should_prune():
                raise optuna.TrialPruned
            return False

    with tempfile.TemporaryDirectory(dir=spec.scratch) as folder:
        recorder = Recorder(Path(folder) / "segments", len(prepared.label_names), signals=False,
                            target=prepared.target.kind, metrics=prepared.target.metrics)
        RecordingTrainer(model, plan, make_batch(prepared.splits["train"], prepared.collator), settings,
                         scratch=Path(folder), seed=run_seeds.dropout, recorder=recorder, hooks=Judge(),
                         loss_of=loss_of(prepared.target, settings, prepared.splits["train"].labels),
                         resume_seconds=float("inf")).run()
    return values[-1]


def _retry_stale(spec: Search, study: optuna.Study) -> None:
    """Trials that a killed search left running are failed and their settings queued again; those of a database may be
    in other workers' hands, and are given up when these are lost."""
    if spec.storage.shared:
        with spec.storage.alone():
            spec.storage.give_up_lost(study, set(spec.tune.space or {}))
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if set(trial.params) == set(spec.tune.space or {}) and DIVERGED not in trial.user_attrs:
            study.enqueue_trial(trial.params)
            log.info("trial %d was left running; it is tried again", trial.number)


def _sampler(spec: Search, study: optuna.Study) -> optuna.samplers.BaseSampler:
    """The sampler of the next trial; its seed counts the trials whose settings have been tried, killed ones not."""
    tried = [t for t in study.get_trials(deepcopy=False)
             if t.state in (*ENDED, TrialState.RUNNING) or DIVERGED in t.user_attrs]
    seed = seeds.derive(spec.study_seed, "tune", len(tried))
    if spec.tune.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=spec.tune.startup_trials)


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return trial.suggest_categorical(name, dimension.choices)
    assert dimension.low is not None and dimension.high is not None
    if dimension.type == "int":
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Its trials in order, without those that were killed (their settings were tried again) and those after the last
    that a finished search asked for."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.FAIL or DIVERGED in t.user_attrs]
    ended = [place for place, t in enumerate(trials) if t.state in ENDED]
    wanted = int(study.user_attrs.get(TRIALS, len(ended)))
    return trials[:ended[wanted - 1] + 1] if len(ended) > wanted else trials


def _count(study: optuna.Study, states: tuple[TrialState, ...]) -> int:
    return len(study.get_trials(deepcopy=False, states=states))


def _milliseconds(moment: datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment else 0


def trials_table(study: optuna.Study) -> pa.Table:
    """One row per trial that was not killed: number, state, value, params_json, intermediate_json;
    equal for equal searches."""
    trials = counted(study)
    return pa.table({
        "number": pa.array(range(len(trials)), pa.int64()),
        "state": pa.array([t.state.name for t in trials], pa.string()),
        "value": pa.array([t.value if t.state == TrialState.COMPLETE else None for t in trials], pa.float64()),
        "params_json": pa.array([json.dumps(t.params, sort_keys=True) for t in trials], pa.string()),
        "intermediate_json": pa.array([json.dumps(t.intermediate_values) for t in trials], pa.string()),
    })


def timing_table(study: optuna.Study) -> pa.Table:
    """When each trial of `trials_table` ran: number, started_at_ms, finished_at_ms (Unix time)."""
    trials = counted(study)
    return pa.table({
        "number": pa.array(range(len(trials)), pa.int64()),
        "started_at_ms": pa.array([_milliseconds(t.datetime_start) for t in trials], pa.int64()),
        "finished_at_ms": pa.array([_milliseconds(t.datetime_complete) or None for t in trials], pa.int64())})


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of the variation of the metric that each hyper-parameter explains (PED-ANOVA), empty below 4 completed
    trials and where the search is `undecided`: there is nothing to explain then."""
    completed = [t for t in counted(study) if t.state == TrialState.COMPLETE]
    if len(completed) < 4 or len({t.value for t in completed}) < 2 or undecided(study):
        return {}
    completed_study = optuna.create_study(direction="maximize")
    completed_study.add_trials(completed)
    return {k: float(v) for k, v in optuna.importance.get_param_importances(completed_study).items()}


def settings_yaml(kind: str, train: TrainSettings, best: optuna.trial.FrozenTrial | None = None,
                  undecided: str = "") -> dict[str, Any]:
    """Content of best.yaml: the settings a training takes, and what the search changed. Equal for equal searches.

    undecided: why the trial that they come from cannot be called the best, where that is so.
    """
    source: dict[str, Any] = {"value": best.value, "params": dict(best.params)} if best else {}
    source |= {"undecided": undecided} if undecided else {}
    return {"settings": kind, **source, "train": written(train)}
