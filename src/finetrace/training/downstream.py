"""A task learned from each checkpoint of a trajectory of masked-word training:
the score that each point in time would give."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetrace.config.training import RecordSettings, TrainSettings
from finetrace.config.written import written
from finetrace.inference.evaluate import classification_metrics
from finetrace.models.device import device_name
from finetrace.models.digests import tokenizer_digest
from finetrace.models.sources import Local
from finetrace.models.timeline import Timeline, whole_model
from finetrace.progress import duration
from finetrace.store.files import sha256_file, sha256_value, write_json
from finetrace.store.manifest import make_key, read_key, read_manifest
from finetrace.store.tables import read_table
from finetrace.store.whole import is_whole, whole_folder
from finetrace.training.finetune import RunSeeds, finetune

log = logging.getLogger(__name__)
Place = Callable[[str], Path]
"""From the key of a piece of work to a folder."""


@dataclass(frozen=True)
class Learned:
    """One training. metrics: `SPLIT/METRIC` -> value;  hits: split -> (example,) uint8, 1 where the class is right."""

    metrics: dict[str, float]
    hits: dict[str, np.ndarray]
    device: str


@dataclass(frozen=True)
class Work:
    """One training to be done, and the key of its result."""

    step: int
    seed: int
    key: str


def plan_work(timeline: Timeline, task: Path, train: TrainSettings, study_seed: int, seeds: Sequence[int],
              code: str) -> list[Work]:
    """Every checkpoint with every seed. The key covers weights, config and tokenizer, task, settings, seeds and code:
    equal checkpoints, whatever their trajectory, are learned from once."""
    inputs = {"task": read_key(task), "tokenizer": tokenizer_digest(timeline.tokenizer)}
    work = []
    for step in timeline.steps:
        checkpoint = sha256_value([timeline.digest(step), _config_key(timeline, step)])
        for seed in seeds:
            settings = {"train": written(train), "seeds": RunSeeds.of(study_seed, seed).__dict__}
            work.append(Work(step, seed, make_key("downstream", settings, {**inputs, "checkpoint": checkpoint}, code)))
    return work


def learn(timeline: Timeline, task: Path, train: TrainSettings, study_seed: int, work: Sequence[Work], *,
          results: Place, scratch: Place, name: str) -> dict[tuple[int, int], Learned]:
    """Fine-tune from every checkpoint with every seed: (step, seed) -> what came out.

    results: where finished trainings are kept, so that a further checkpoint costs only itself;  scratch: where an
    unfinished one can be continued. Says beforehand what it will cost.
    """
    unfinished = [training for training in work if not is_whole(results(training.key))]
    rows, amount = read_manifest(task).facts["rows"]["train"], f"{train.epochs:g} epochs"
    if train.max_steps:
        amount = f"{train.max_steps} steps of {train.batch_size}"
    log.info("%s: %d checkpoints x %d seeds, %d of these trainings are done already; %d to do, each %s of %s examples",
             name, len(timeline.steps), len({training.seed for training in work}), len(work) - len(unfinished),
             len(unfinished), amount, f"{rows:,}")
    started, done_count = time.monotonic(), 0
    for step in dict.fromkeys(training.step for training in unfinished):
        step_work = [training for training in unfinished if training.step == step]
        with tempfile.TemporaryDirectory() as folder, whole_model(timeline, step, Path(folder)) as model:
            for training in step_work:
                _train_from_checkpoint(model, task, train, study_seed, training, results(training.key),
                                       scratch(training.key), name)
                done_count += 1
        seconds_left = (time.monotonic() - started) / done_count * (len(unfinished) - done_count)
        log.info("%s: step %d is done, %d of %d trainings, about %s to go", name, step, done_count, len(unfinished),
                 duration(seconds_left))
    return {(training.step, training.seed): _read(results(training.key)) for training in work}


def majority(task: Path) -> dict[str, dict[str, float]]:
    """Metrics of always naming the most frequent class of the training split: split -> metric -> value."""
    facts = read_manifest(task).facts
    classes = len(facts["label_names"])
    labels = {split: read_table(task / f"{split}.parquet", ["label"])["label"].to_numpy() for split in facts["rows"]}
    most_frequent = np.bincount(labels["train"], minlength=classes).argmax()
    constant_logits = np.where(np.arange(classes) == most_frequent, 0.0, -1e3)
    return {split: {key: value for key, value in classification_metrics(
                        np.tile(constant_logits, (len(split_labels), 1)), split_labels).items() if key != "loss"}
            for split, split_labels in labels.items() if split != "train"}


def _train_from_checkpoint(model: Path, task: Path, train: TrainSettings, study_seed: int, training: Work, result: Path,
                           scratch: Path, name: str) -> None:
    hits: dict[str, np.ndarray] = {}

    def on_answers(split: str, logits: np.ndarray, labels: np.ndarray) -> None:
        hits[split] = (logits.argmax(axis=1) == labels).astype(np.uint8)

    evaluations = "epochs" if train.early_stopping or train.keep == "best" else "none"
    record = RecordSettings(signals=False, probe_rows=0, probe="none", evaluate=evaluations, checkpoints="none")
    scratch.mkdir(parents=True, exist_ok=True)
    with whole_folder(result) as temporary, tempfile.TemporaryDirectory(dir=scratch) as out:
        facts = finetune(model, task, train, record, RunSeeds.of(study_seed, training.seed), scratch=scratch,
                         out=Path(out),
                         name=f"{name} from step {training.step}, seed {training.seed}", on_answers=on_answers)
        metrics = json.loads((Path(out) / "metrics.json").read_text("utf-8"))
        write_json(temporary / "metrics.json", {"metrics": metrics, "device": facts.get("device", device_name())})
        for split, values in hits.items():
            np.save(temporary / f"{split}.npy", values, allow_pickle=False)
    shutil.rmtree(scratch, ignore_errors=True)


def _read(result: Path) -> Learned:
    content = json.loads((result / "metrics.json").read_text("utf-8"))
    hits = {path.stem: np.load(path, allow_pickle=False) for path in sorted(result.glob("*.npy"))}
    return Learned(content["metrics"], hits, content["device"])


def _config_key(timeline: Timeline, step: int) -> str:
    """What identifies a checkpoint's config, which holds what is no weight, such as dropout. Of a published checkpoint
    the name stands for the config, which is not fetched yet."""
    source = timeline.sources[step]
    if isinstance(source, Local):
        return sha256_value(source.sha256)
    return sha256_file(source / "config.json") if isinstance(source, Path) else f"{source.id}@{source.revision}"
