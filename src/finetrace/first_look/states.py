"""What a model says about the rows: the hidden states of all layers, and, where its head fits the task, its logits.

As the stages hidden and predictions do it, for one state of one model: the same rows, the same arrays.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.hidden import HiddenSettings
from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.first_look.sources import Source
from finetrace.first_look.tasks import Task
from finetrace.models.rows import Encoded
from finetrace.store.hidden import HiddenStates, step_name
from finetrace.store.manifest import Manifest

UNNAMED = re.compile(r"LABEL_\d+")
"""A class that nobody named, as transformers calls it."""
STEP = 0
"""The one checkpoint that there is."""


@dataclass(frozen=True)
class Prepared:
    """A model and the rows for it.

    rows: what goes through it;  splits: (example,) str;  kept: (row,) whether all tokens of a row are kept;
    collator: pads its batches;  encoder: loaded, on its device;  max_length: longest input in tokens.
    """

    source: Source
    task: Task
    rows: Encoded
    splits: np.ndarray
    kept: np.ndarray
    collator: Any
    encoder: Any
    max_length: int

    @property
    def layers(self) -> int:
        """Hidden states: the embeddings and one per layer."""
        from finetrace.models.families import layer_count

        return layer_count(self.encoder.config)

    @property
    def operations(self) -> float:
        """Rough floating-point operations of one pass of all rows."""
        embeddings = self.encoder.get_input_embeddings().weight.numel()
        return 2.0 * (self.encoder.num_parameters() - embeddings) * float(self.rows.lengths.sum())


@dataclass(frozen=True)
class Answers:
    """What the model's own head says of the validation rows.

    logits: (example, class) float32, classes in the task's order;  labels: (example,) int64;
    sentences: (example,) int64, here each its own;  note: how classes were matched, where it is no matter of names.
    """

    logits: np.ndarray
    labels: np.ndarray
    sentences: np.ndarray
    note: str


def settings_of(rows: int) -> HiddenSettings:
    """The section `hidden` of a study that looks at so many rows per split; 0: all."""
    return HiddenSettings(rows={"train": rows, "validation": rows})


def prepare(source: Source, task: Task, rows: int, seed: int) -> Prepared:
    """Load a model and tokenise the rows for it. Raises FinetraceError naming the model and what is wrong with it."""
    import torch

    from finetrace.inference.trajectory import chosen_examples
    from finetrace.models.check import check_weights, read_config
    from finetrace.models.device import fit_threads
    from finetrace.models.load import forward_names, load_tokenizer, longest_input
    from finetrace.models.rows import Collator, require_known
    from finetrace.models.saved import load_trained_encoder

    read_config(source.folder)
    check_weights(source.folder)
    tokenizer, encoder = load_tokenizer(source.base), load_trained_encoder(source.folder, source.base)
    if len(tokenizer) > encoder.get_input_embeddings().num_embeddings:
        raise FinetraceError(f"{source.named}: its tokenizer has {len(tokenizer)} tokens, but the model only "
                             f"{encoder.get_input_embeddings().num_embeddings} embeddings; they do not belong together")
    cuda = torch.cuda.is_available()
    fit_threads(encoder.num_parameters())
    length = longest_input(encoder, tokenizer, TrainSettings().max_length)
    encoded, splits, tokens_kept = chosen_examples(task.folder, settings_of(rows),
                                                   seeds.derive(seed, "hidden", task.name),
                                                   tokenizer, length, forward_names(encoder))
    require_known(encoded, tokenizer, f"{source.named} on {task.name}")
    collator = Collator(tokenizer, 8 if cuda else None, side="right", pieces="mean")
    return Prepared(source, task, encoded, np.array(splits), tokens_kept, collator,
                    encoder.to("cuda" if cuda else "cpu"), length)


def hidden_states(model: Prepared, out: Path, on_batch: Callable[[int], None]) -> HiddenStates:
    """The hidden states of all layers, in the folder `out`; on_batch: told the number of rows done."""
    from finetrace.inference.extract import extract

    rows, settings = model.rows, settings_of(0)
    lengths = rows.lengths * model.kept
    offsets = np.where(model.kept, np.cumsum(lengths) - lengths, -1)
    (out / step_name(STEP)).mkdir(parents=True)
    try:
        extract(model.encoder, rows, model.collator, out / step_name(STEP), vectors=list(settings.vectors),
                offsets=offsets, dtype=settings.dtype, batch_tokens=settings.batch_tokens, on_batch=on_batch)
    except FinetraceError as error:
        raise FinetraceError(f"{model.source.named}: {error}") from error
    token_rows = np.flatnonzero(model.kept)
    facts = {"layers": model.layers, "dim": int(model.encoder.config.hidden_size), "steps": [STEP],
             "spans": rows.targets.pieces.shape[1] if rows.targets else 0, "label_names": model.task.label_names}
    owner = np.repeat(np.arange(len(rows)), rows.sizes)
    return HiddenStates(
        out, Manifest("hidden", "look", model.source.name, "", {}, {}, {}, facts), model.splits,
        rows.targets.numbers[owner] if rows.targets else rows.example_ids, rows.example_ids, rows.labels,
        np.concatenate([[0], np.cumsum(rows.lengths[token_rows])]).astype(np.int64),
        np.array([rows.examples([row])[0] for row in token_rows.tolist()], dtype=np.int64),
        np.concatenate([np.array(rows.features["input_ids"][row], dtype=np.int64) for row in token_rows]),
        np.concatenate([np.array((rows.special or [])[row], dtype=bool) for row in token_rows]))


def answers(model: Prepared) -> Answers | str:
    """What the model's own head says, or why it says nothing about this task."""
    from finetrace.inference.evaluate import predict
    from finetrace.models.heads import head_of, order_of
    from finetrace.models.saved import load_trained

    head, label_names = head_of(model.source.folder, model.source.base), model.task.label_names
    if head.kind not in ("sequence", "token", "span-pair"):
        return "has no classification head"
    if model.task.kind not in ("sequence", "pair"):
        return "the task is one of marked words, which are asked through a trained head of finetrace only"
    if len(head.names) != len(label_names):
        return f"its head has {len(head.names)} classes ({', '.join(head.names[:4])}), the task {len(label_names)}"
    try:
        order = order_of(head, label_names, (), model.source.named)
    except FinetraceError:
        return f"its head tells {', '.join(head.names[:4])}, and the task's classes are {', '.join(label_names[:4])}"
    unnamed = all(UNNAMED.fullmatch(name) for name in head.names)
    note = f"its classes have no names and are taken for {', '.join(label_names)}, in this order" if unnamed else ""
    classifier = load_trained(model.source.folder, model.source.base).to(next(model.encoder.parameters()).device)
    examples = np.flatnonzero(model.splits == "validation")
    part = model.rows.take(examples)
    logits = predict(classifier, part, model.collator)[:, order]
    if not np.isfinite(logits).all():
        return "its logits are NaN or infinite"
    return Answers(logits, part.labels, part.example_ids, note)
