"""The examples of a task as the lens influence takes them, and what the training recorded about its steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.inference.targets import Target
from finetrace.lenses.influence.settings import InfluenceSettings
from finetrace.store.tables import read_table


@dataclass(frozen=True)
class Examples:
    """The chosen examples of one split, in the order of the batches.

    batches: as `losses.Losses` takes them;  ids: (example,) int64;  labels: (example,), or (example, class);
    texts: of each, its words in brackets where the task is of words;  total: examples of the split.
    """

    batches: list[dict[str, Any]]
    ids: np.ndarray
    labels: np.ndarray
    texts: list[str]
    total: int


@dataclass(frozen=True)
class Steps:
    """What a training recorded of its steps. at: (step,) updates done before;  rates: (step,) learning rates, empty
    where there were none (a linear probe is fitted);  visits, examples: (visit,) step and example id of every row,
    empty where signals were not recorded."""

    at: np.ndarray
    rates: np.ndarray
    visits: np.ndarray
    examples: np.ndarray


def read_examples(first: Path, model_folder: Path, task: Path, target: Target, settings: InfluenceSettings,
                  train: Mapping[str, Any], seed: int) -> tuple[Examples, Examples, dict[str, Any]]:
    """The chosen training and evaluation examples, and facts about them. first: a checkpoint;  train: settings of the
    training."""
    from finetrace.models.given import load_trained
    from finetrace.models.load import forward_names, load_tokenizer, longest_input
    from finetrace.models.rows import Collator, encode

    tokenizer, model = load_tokenizer(model_folder), load_trained(first, base=model_folder)
    length = longest_input(model, tokenizer, settings.max_length or train["max_length"])
    collator = Collator(tokenizer, side="right", pieces=train["pieces"])
    names, classes = forward_names(model) | {"attention_mask"}, len(target.label_names)
    found: list[Examples] = []
    truncated = 0
    for split, count in (("train", settings.rows["train"]), (settings.eval_split, settings.rows["eval"])):
        path = task / f"{split}.parquet"
        if not path.is_file():
            raise FinetraceError(f"{task.name} has no split {split!r}; set influence.eval_split to another one")
        index = _chosen(path, target, count, settings.choose, seeds.derive(seed, split))
        rows = encode(path, tokenizer, length, names, rows=index,
                      classes=classes if target.kind == "multi-label" else 0)
        truths = _truths(path, target, train if split == "train" else {})
        found.append(_batched(rows, collator, settings.batch_tokens, truths, path, index, getattr(model, "spans", 1)))
        truncated += int((rows.lengths >= length).sum())
    return found[0], found[1], {"max_length": length, "truncated": truncated}


def read_steps(trajectory: Path) -> Steps:
    """What the training recorded. Raises FinetraceError where it recorded no steps at all."""
    history = read_table(trajectory / "history.parquet", ["step", "kind", "learning_rate"])
    kinds = history["kind"].to_numpy(zero_copy_only=False)
    at = history["step"].to_numpy()[kinds == "train"]
    if not len(at):
        raise FinetraceError(f"{trajectory}: history.parquet has no training steps; influence looks at recorded "
                             "trainings")
    rates = history["learning_rate"].to_numpy(zero_copy_only=False).astype(np.float64)[kinds == "train"]
    visits = read_table(trajectory / "signals.parquet", ["step", "example_id"])
    return Steps(at, rates if np.isfinite(rates).all() else np.empty(0), visits["step"].to_numpy(),
                 visits["example_id"].to_numpy())


def read_looks(trajectory: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Split -> steps, examples and losses of the looks at the watched examples."""
    if not (trajectory / "probe.parquet").is_file():
        return {}
    table = read_table(trajectory / "probe.parquet", ["step", "split", "example_id", "loss"])
    splits = table["split"].to_numpy(zero_copy_only=False)
    steps, examples, losses = (table[name].to_numpy() for name in ("step", "example_id", "loss"))
    return {split: (steps[splits == split], examples[splits == split], losses[splits == split])
            for split in sorted(set(splits))}


def texts_of(path: Path, index: np.ndarray) -> list[str]:
    """The texts of some rows of a split as a person reads them: both of a pair; words that are asked about in
    brackets."""
    names = read_table(path).column_names
    spans = "spans" in names
    table = read_table(path, ["text_a", "text_b", *(["words", "spans"] if spans else [])]).take(index).to_pylist()
    return [_marked(row["words"], row["spans"]) if spans else
            " | ".join(text for text in (row["text_a"], row["text_b"]) if text is not None) for row in table]


def _marked(words: list[str], spans: list[int]) -> str:
    words = list(words)
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        words[start] = f"[{words[start]}"
        words[end - 1] += "]"
    return " ".join(words)


def _chosen(path: Path, target: Target, count: int, how: Literal["stratified", "random", "first"], seed: int,
            ) -> np.ndarray:
    from finetrace.inference.choose import choose_rows

    if target.kind == "class":
        return choose_rows(read_table(path, ["label"])["label"].to_numpy(), count, how, seed)
    every = np.zeros(read_table(path, ["example_id"]).num_rows)
    return choose_rows(every, count, "first" if how == "first" else "random", seed)


def _truths(path: Path, target: Target, train: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """From labels to what losses compare logits with: those of the training for its own examples, else plain ones."""
    from finetrace.lenses.influence.losses import truths_of
    from finetrace.training.losses import class_weights

    weights = None
    if target.kind == "class" and train.get("class_weights") is not None:
        weights = class_weights(train["class_weights"], read_table(path, ["label"])["label"].to_numpy(),
                                target.label_names)
    smoothing = float(train.get("label_smoothing") or 0.0)
    return lambda labels: truths_of(labels, target.kind, len(target.label_names), weights, smoothing)


def _batched(rows: Any, collator: Any, batch_tokens: int, truths: Callable[[np.ndarray], np.ndarray], path: Path,
             index: np.ndarray, spans: int) -> Examples:
    from finetrace.lenses.influence.losses import with_truths
    from finetrace.models.rows import batches_by_tokens

    numbers = list(batches_by_tokens(rows.lengths, batch_tokens))
    examples = [rows.examples(one) for one in numbers]
    batches = [with_truths(collator(rows, one), truths(rows.labels[of]), max(1, spans))
               for one, of in zip(numbers, examples, strict=True)]
    order = np.concatenate(examples)
    return Examples(batches, rows.example_ids[order], rows.labels[order], texts_of(path, index[order]),
                    read_table(path, ["example_id"]).num_rows)
