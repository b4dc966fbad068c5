"""What the checkpoints of one trajectory answer: logits on every evaluation set, features of some rows,
and their heads."""

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.predictions import PredictionsSettings
from finetrace.errors import FinetraceError
from finetrace.inference.choose import choose_rows
from finetrace.inference.evaluate import classification_metrics, cross_entropy, predict_with_features
from finetrace.models.device import device_name, fit_threads, set_up
from finetrace.models.given import load_trained
from finetrace.models.head import last_linear
from finetrace.models.load import forward_names, load_tokenizer, longest_input
from finetrace.models.rows import Collator, Encoded, encode
from finetrace.progress import Progress
from finetrace.store.arrays import write_array
from finetrace.store.checkpoints import list_weights
from finetrace.store.hidden import step_name
from finetrace.store.manifest import read_manifest
from finetrace.store.predictions import SPLITS
from finetrace.store.tables import read_table, write_table
from finetrace.store.whole import hand_over, is_whole, whole_folder

log = logging.getLogger(__name__)


def predict_trajectory(trajectory: Path, model_folder: Path, task_folder: Path, settings: PredictionsSettings,
                       seed: int, *, scratch: Path, out: Path, name: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Write index.parquet and step-*/{logits,features,weight,bias}.npy of a finished trajectory into the folder `out`.

    seed: of the choice of rows;  scratch: where finished checkpoints wait, so that a killed run continues after the
    last of them. Returns facts for the manifest, and the metrics of every set at the kept step. Raises FinetraceError
    when checkpoints are missing, when the disk is too small, when logits are not finite,
    or when features and head do not give the logits.
    """
    import torch

    manifest = read_manifest(trajectory)
    train, kept_step = manifest.facts["train"], int(manifest.facts["kept_step"])
    checkpoints = chosen_checkpoints(list_weights(trajectory / "checkpoints"), settings.checkpoints, kept_step,
                                     trajectory)
    tokenizer = load_tokenizer(model_folder)
    model = load_trained(next(iter(checkpoints.values())), model_folder)
    cuda = torch.cuda.is_available()
    (set_up if cuda else fit_threads)(model.num_parameters())
    length = longest_input(model, tokenizer, settings.max_length or train["max_length"])
    label_names = list(manifest.facts["label_names"])
    sets, feature_rows = {}, {}
    for set_name, path in evaluation_sets(task_folder, settings.sets).items():
        limit = settings.train_rows if set_name == "train" else settings.max_rows
        chosen = choose_rows(_labels(path, label_names), limit, "stratified", seeds.derive(seed, set_name))
        sets[set_name] = encode(path, tokenizer, length, forward_names(model), rows=chosen)
        features_seed = seeds.derive(seed, set_name, "features")
        feature_rows[set_name] = choose_rows(sets[set_name].labels, settings.feature_rows, "stratified", features_seed)
    index = _index(sets, feature_rows)
    examples, rows, dim = len(index["label"]), sum(map(len, feature_rows.values())), last_linear(model).in_features
    log.info("%s: %d checkpoints x %s examples (%s), features of %s", name, len(checkpoints), f"{examples:,}",
             ", ".join(f"{len(part.labels):,} {set_name}" for set_name, part in sets.items()), f"{rows:,}")
    _fits_disk(4 * len(checkpoints) * (examples * len(label_names) + rows * dim), scratch, name)
    collator = Collator(tokenizer, 8 if cuda else None, pieces=train.get("pieces", "mean"))
    progress = Progress(len(checkpoints) * examples, name)
    source = model
    frozen_features: dict[str, np.ndarray] | None = {} if manifest.facts.get("method_kind") == "lp" else None
    for number, (step, folder) in enumerate(checkpoints.items()):
        if is_whole(scratch / step_name(step)):
            continue
        classifier = (model if number == 0 else load_trained(folder, model_folder)).to("cuda" if cuda else "cpu")
        if frozen_features is not None and (not frozen_features or not _same_features(source, classifier)):
            frozen_features.clear()
            source = classifier  # whose encoder gives the features
        with whole_folder(scratch / step_name(step)) as temporary:
            _predict_checkpoint(classifier, sets, feature_rows, collator, temporary, folder,
                                partial(_tell, progress, number * examples), frozen_features)
    progress.close()
    for step in checkpoints:
        hand_over(scratch / step_name(step), out / step_name(step))
    write_table(out / "index.parquet", index)
    logits, set_of_row = np.load(out / step_name(kept_step) / "logits.npy"), np.array(index["set"])
    metrics = {f"{set_name}/{key}": value for set_name, part in sets.items()
               for key, value in _metrics(logits[set_of_row == set_name], part.labels,
                                          manifest.facts["metric"]).items()}
    return {"device": device_name(), "steps": list(checkpoints), "kept_step": kept_step, "dim": dim,
            "label_names": label_names, "method_kind": manifest.facts.get("method_kind", "ft"),
            "metric": manifest.facts["metric"], "task": task_folder.name, "max_length": length,
            "rows": {set_name: len(part.labels) for set_name, part in sets.items()},
            "feature_rows": {set_name: len(rows_of_set) for set_name, rows_of_set in feature_rows.items()}}, metrics


def chosen_checkpoints(recorded: dict[int, Path], wanted: str | list[int], kept_step: int,
                       trajectory: Path) -> dict[int, Path]:
    """The checkpoints to look at, ascending: first, last and kept ones always;
    listed steps beyond the last are left out.

    Raises FinetraceError when there are none, or when a listed step or the kept one was not recorded.
    """
    if not recorded:
        raise FinetraceError(f"{trajectory}: has no checkpoints; set record.checkpoints, e.g. log2, and train again")
    first, last = min(recorded), max(recorded)
    listed = (recorded if wanted == "all" else [s for s in wanted if first < s < last] if isinstance(wanted, list)
              else [])
    steps = {first, last, kept_step, *listed}
    if absent := sorted(steps - set(recorded)):
        raise FinetraceError(f"predictions.checkpoints: step {absent[0]} was not recorded in {trajectory}; there are "
                             f"{', '.join(map(str, recorded))}; name these, or add the step to record.checkpoints")
    return {step: recorded[step] for step in sorted(steps)}


def evaluation_sets(task_folder: Path, wanted: str | list[str]) -> dict[str, Path]:
    """Name -> table of the sets of a task: train, validation, test, then those out of distribution by name.

    Raises FinetraceError when none of the wanted ones is there, or when a set out of distribution bears a split's name.
    """
    tables = {split: task_folder / f"{split}.parquet" for split in SPLITS
              if (task_folder / f"{split}.parquet").is_file()}
    for path in sorted((task_folder / "ood").glob("*.parquet")):
        if path.stem in SPLITS:
            raise FinetraceError(f"{path}: a set out of distribution cannot be called {path.stem}; rename "
                                 "it in params.yaml")
        tables[path.stem] = path
    chosen = {name: path for name, path in tables.items() if wanted == "all" or name in wanted}
    if not chosen:
        raise FinetraceError(f"predictions.sets: {task_folder.name} has none of {', '.join(wanted)}; it has "
                             f"{', '.join(tables)}")
    return chosen


def _fits_disk(size: int, scratch: Path, name: str) -> None:
    if size > shutil.disk_usage(scratch.parent if scratch.parent.exists() else Path.cwd()).free:
        raise FinetraceError(f"predictions: needs {size / 1e9:.1f} GB of disk for {name}, more than is free; lower "
                             "predictions.feature_rows or max_rows, or name fewer predictions.checkpoints")


def _same_features(first: Any, second: Any) -> bool:
    """Whether two classifiers differ in their last linear layer only."""
    import torch

    heads = {id(p) for model in (first, second) for p in last_linear(model).parameters()}
    pairs = zip(first.state_dict(keep_vars=True).values(), second.state_dict(keep_vars=True).values(), strict=True)
    return all(torch.equal(a.to(b.device), b) for a, b in pairs if id(a) not in heads)


def _predict_checkpoint(model: Any, sets: dict[str, Encoded], feature_rows: dict[str, np.ndarray],
                        collator: Collator, out: Path, checkpoint: Path, tell: Callable[[int], None],
                        frozen_features: dict[str, np.ndarray] | None) -> None:
    """frozen_features: where the encoder is frozen, the features of every set,
    computed by the first checkpoint for all of them."""
    head = last_linear(model)
    weight = head.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if head.bias is None else head.bias.detach().float().cpu().numpy()
    logits, features, done = [], [], 0
    for name, rows in sets.items():
        if frozen_features and name in frozen_features:
            inputs = frozen_features[name]
            values = inputs @ weight.T + bias
        else:
            values, inputs = predict_with_features(model, rows, collator)
        if not np.isfinite(values).all():
            worst = rows.example_ids[int(np.argmin(np.isfinite(values).all(axis=1)))]
            raise FinetraceError(f"{checkpoint}: its logits of {name} example {worst} are NaN or infinite; the "
                                 "training diverged (lower train.learning_rate)")
        if not np.allclose(inputs @ weight.T + bias, values, rtol=1e-3,
                           atol=1e-3 * max(1.0, float(np.abs(values).max()))):
            raise FinetraceError(f"{checkpoint}: the last linear layer of this {type(model).__name__} does not give "
                                 "its logits, so its input is not the features that lenses look at; set "
                                 "train.head: linear")
        if frozen_features is not None:
            frozen_features[name], values = inputs, inputs @ weight.T + bias  # the same whichever checkpoint came first
        logits.append(values)
        features.append(inputs[feature_rows[name]])
        done += len(rows.labels)
        tell(done)
    for kind, array in (("logits", np.concatenate(logits)), ("features", np.concatenate(features)), ("weight", weight),
                        ("bias", bias)):
        write_array(out / f"{kind}.npy", np.ascontiguousarray(array, dtype=np.float32))


def _metrics(logits: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
    """Accuracy, loss and the task's own metric."""
    metrics = {"accuracy": float((logits.argmax(axis=1) == labels).mean()),
               "loss": float(cross_entropy(logits, labels).mean())}
    if metric in metrics:
        return metrics
    computed = classification_metrics(logits, labels)  # imports scikit-learn
    return metrics | {metric: computed[metric]} if metric in computed else metrics  # entities need whole sentences


def _tell(progress: Progress, before: int, done: int) -> None:
    progress.update(before + done)


def _labels(path: Path, label_names: list[str]) -> np.ndarray:
    labels = read_table(path, ["label"])["label"].to_numpy()
    if wrong := sorted(set(labels.tolist()) - set(range(len(label_names)))):
        raise FinetraceError(f"{path}: label {wrong[0]} is none of the {len(label_names)} classes "
                             f"({', '.join(label_names[:8])}); map its labels to the task's in params.yaml")
    return labels


def _index(sets: dict[str, Encoded], feature_rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """The columns of index.parquet; feature_rows: the examples of each set whose features are kept."""
    parts, start = [], 0
    for name, rows in sets.items():
        count, looked_at = len(rows.labels), feature_rows[name]
        place = np.full(count, -1, dtype=np.int64)
        place[looked_at] = start + np.arange(len(looked_at))
        start += len(looked_at)
        owner = np.repeat(np.arange(len(rows)), rows.sizes)
        sentences = rows.targets.numbers[owner] if rows.targets else rows.example_ids
        parts.append(([name] * count, rows.example_ids, rows.labels.astype(np.int32), sentences, place))
    names, *arrays = zip(*parts, strict=True)
    columns = ("example_id", "label", "sentence", "feature_row")
    return {"set": [name for part in names for name in part],
            **{column: np.concatenate(values) for column, values in zip(columns, arrays, strict=True)}}
