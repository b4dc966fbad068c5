"""Masked-word training, shared by pre-training and adaptation: batches with masks, the loss, held-out words,
the run itself."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.config.training import Schedule, TrainSettings
from finetrace.errors import FinetraceError
from finetrace.group import here
from finetrace.models.load import forward_names
from finetrace.models.masking import IGNORED, mask_words
from finetrace.models.rows import Collator, Encoded, require_known
from finetrace.progress import Progress
from finetrace.store.checkpoints import list_weights
from finetrace.training.checkpoints import save_weights
from finetrace.training.recorder import Recorder
from finetrace.training.schedule import plan_steps, steps_of
from finetrace.training.texts import WORDS, encode_texts, pack_texts
from finetrace.training.trainer import Batch, Hooks, Plan, RecordingTrainer

log = logging.getLogger(__name__)
# share of the texts on which the masked-word loss is measured, and how many at most
HELD_OUT, HELD_OUT_MOST = 0.04, 4096
SMALL_VOCABULARY = 1024  # up to this size all tokens go through the head: choosing them costs as much as it saves


@dataclass(frozen=True)
class Recipe:
    """How masked words are learned.

    train: optimiser, batch size, steps;  epsilon: AdamW's;  mask_rate, mask_replace: see `mask_words`;
    whole_words: whether the pieces of a word are predicted together;  checkpoints, evaluate: when weights are kept,
    and held-out words measured.
    """

    train: TrainSettings
    epsilon: float
    mask_rate: float
    mask_replace: float
    whole_words: bool
    checkpoints: Schedule
    evaluate: Schedule


@dataclass(frozen=True)
class MaskedSeeds:
    """Seeds of one masked-word training by purpose."""

    order: int
    masks: int
    dropout: int


@dataclass
class MaskedTexts:
    """Tokenised texts: those to learn from, those held out, and the tokenizer."""

    train: Encoded
    held_out: Encoded
    tokenizer: Any

    def facts(self) -> dict[str, int]:
        """Rows to learn from and held out; of the former the tokens, special ones included, the rows and tokens that
        were cut, and the unknown tokens."""
        counts = self.train.told(self.tokenizer)
        return {"train": counts.pop("rows"), "validation": len(self.held_out), **counts}


def prepare_texts(texts: Sequence[str], tokenizer: Any, model: Any, seed: int, *, max_tokens: int,
                  block_tokens: int = 0, whole_words: bool = False) -> MaskedTexts:
    """Hold some texts out and tokenise all.

    seed: of the choice;  max_tokens: longest row;  block_tokens: of rows of running text, 0 for one row per text.
    Raises FinetraceError when texts are too few, or when tokenizer and model do not belong together.
    """
    if tokenizer.mask_token_id is None:
        raise FinetraceError(f"{tokenizer.name_or_path}: its tokenizer has no mask token, so no word can be masked")
    if len(texts) < 2:
        raise FinetraceError(f"{len(texts)} text is left to learn from; masked-word training needs 2 or more, "
                             "one to be held out")
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out_count = max(1, min(round(len(texts) * HELD_OUT), HELD_OUT_MOST))
    inputs = forward_names(model)

    def encode_rows(index: np.ndarray) -> Encoded:
        if block_tokens:  # running text stays in its order
            return pack_texts([texts[i] for i in np.sort(index)], tokenizer, block_tokens, inputs, whole_words)
        return encode_texts([texts[i] for i in index], tokenizer, max_tokens, inputs, whole_words)

    prepared = MaskedTexts(encode_rows(order[held_out_count:]), encode_rows(order[:held_out_count]), tokenizer)
    largest_id = max(int(np.max(row)) for part in (prepared.train, prepared.held_out)
                     for row in part.features["input_ids"] if len(row))
    if largest_id >= model.get_input_embeddings().num_embeddings:
        raise FinetraceError(f"{tokenizer.name_or_path}: its tokenizer gives token id {largest_id}, but the model has "
                             f"only {model.get_input_embeddings().num_embeddings} embeddings; they do not belong "
                             "together")
    counts = prepared.facts()
    if counts["rows_cut"]:
        log.warning("%s of %s texts are longer than %d tokens and were cut; %s tokens are not read",
                    f"{counts['rows_cut']:,}", f"{counts['train']:,}", max_tokens, f"{counts['tokens_cut']:,}")
    require_known(prepared.train, tokenizer, "the corpus")
    return prepared


class Masker:
    """Puts masks on batches of the collator. embeddings: of the model; tokens beyond them never stand in for words."""

    def __init__(self, tokenizer: Any, recipe: Recipe, sparse: bool, embeddings: int | None = None):
        self.collate, self.recipe, self.sparse = Collator(tokenizer), recipe, sparse
        self.special = np.array(tokenizer.all_special_ids)
        self.mask_id = tokenizer.mask_token_id
        ids = np.arange(min(len(tokenizer), embeddings or len(tokenizer)))
        self.stand_ins = ids[~np.isin(ids, self.special)]

    def __call__(self, rows: Encoded, index: np.ndarray,
                 generator: np.random.Generator) -> tuple[dict[str, Any], np.ndarray]:
        """Inputs with masks, and targets (row, token) int64, `IGNORED` where nothing is to be predicted."""
        import torch

        batch = self.collate(rows, index)
        del batch["labels"]
        words = batch.pop(WORDS).numpy() if self.recipe.whole_words else None
        ids = batch["input_ids"].numpy()
        inputs, targets = mask_words(ids, np.isin(ids, self.special), self.mask_id, self.stand_ins,
                                     self.recipe.mask_rate, self.recipe.mask_replace, generator, words)
        return {**batch, "input_ids": torch.from_numpy(inputs)}, targets

    def with_loss_targets(self, inputs: dict[str, Any], targets: np.ndarray) -> tuple[dict[str, Any], Any]:
        """The inputs, and the targets as the loss reads them: all of them, or the chosen ones, whose places the inputs
        then hold (`chosen`)."""
        import torch

        if not self.sparse:
            return inputs, torch.from_numpy(targets)
        places = np.flatnonzero(targets != IGNORED)
        return {**inputs, "chosen": torch.from_numpy(places)}, torch.from_numpy(targets.reshape(-1)[places])


class MaskedBatches:
    """Turns an entry of the plan into the trainer's inputs.

    The masks of a step are drawn for all its rows at once from (seed, step), not from a running state: a resumed
    training draws the same ones, and so does one with other micro-batches.
    """

    def __init__(self, rows: Encoded, plan: Plan, masker: Masker, seed: int):
        self.rows, self.plan, self.masker, self.seed = rows, plan, masker, seed
        self._step = -1
        self._inputs: dict[str, Any] = {}
        self._targets = np.empty(0)

    def __call__(self, entry: Batch) -> dict[str, Any]:
        micro_step, index, step_rows = entry
        step, number = divmod(micro_step, self.plan.accumulate)
        micro_batches = [rows for _, rows, _ in
                         self.plan.batches[step * self.plan.accumulate:(step + 1) * self.plan.accumulate]]
        if step != self._step:
            self._step = step
            self._inputs, self._targets = self.masker(self.rows, np.concatenate(micro_batches),
                                                      np.random.default_rng([self.seed, step]))
        places = np.flatnonzero(micro_batches[number] == index[0])
        if len(places):  # the micro-batch, or one process's part of it
            inputs, targets = self._part_of_step(sum(map(len, micro_batches[:number])) + int(places[0]), index)
        else:  # a row that stands in and does not count
            inputs, targets = self.masker(self.rows, index, np.random.default_rng([self.seed, step]))
        inputs, loss_targets = self.masker.with_loss_targets(inputs, targets)
        scale = step_rows / max(1, int((self._targets != IGNORED).sum()))
        return {**inputs, "labels": (loss_targets, scale), "example_ids": self.rows.example_ids[index],
                "micro_step": micro_step, "step_rows": step_rows, "tokens": int(self.rows.lengths[index].sum())}

    def _part_of_step(self, first: int, index: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """Inputs and targets of a micro-batch that begins at row `first` of the step, cut to its longest row."""
        if len(index) == len(self._targets):
            return self._inputs, self._targets
        width = int(self.rows.lengths[index].max())
        columns = slice(-width, None) if self.masker.collate.side == "left" else slice(width)
        positions = slice(first, first + len(index))
        return ({name: values[positions, columns] for name, values in self._inputs.items()},
                self._targets[positions, columns])


def masked_loss(outputs: Any, labels: tuple[Any, float]) -> tuple[Any, None]:
    """Losses in nats whose sum over the step, divided by the step's rows, is the mean over all words to predict.

    labels: the targets, and rows per word to predict of the whole step. With targets (row, token) the losses are
    (row,), of words chosen before (word,). No logits are recorded.
    """
    import torch.nn.functional as F

    targets, scale = labels
    logits = outputs.logits.float()
    losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED,
                             reduction="none").reshape(targets.shape)
    return (losses.sum(dim=1) if targets.ndim > 1 else losses) * scale, None


@contextlib.contextmanager
def only_chosen(model: Any) -> Iterator[None]:
    """Inside, `model(..., chosen=places)` sends only those tokens through the masked-word head: logits (1, place,
    word).

    places: (place,) int64, counted in the flattened (row, token) axis. In every family the head reads each token alone,
    so the logits are those of the whole batch there; with a usual vocabulary the head costs a third of a small model,
    and its logits most of the memory.
    """
    chosen_places: list[Any] = []

    def take(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        chosen_places.append(kwargs.pop("chosen"))
        return args, kwargs

    def gather(_: Any, __: Any, outputs: Any) -> Any:
        states = outputs[0]
        outputs["last_hidden_state"] = states.reshape(-1, states.shape[-1])[chosen_places.pop()][None]
        return outputs

    hooks = [model.register_forward_pre_hook(take, with_kwargs=True), model.base_model.register_forward_hook(gather)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def held_out_words(rows: Encoded, masker: Masker, seed: int) -> Callable[[Any], dict[str, float]]:
    """A function that measures loss (nats; lower is better) and accuracy (share; a guess has 1 / words) of the same
    masked words every time, in evaluation mode. Of a masker that is `sparse`, call it inside `only_chosen`."""
    import torch

    size = 64 if masker.sparse else 256
    batches = []
    for i in range(0, len(rows), size):
        inputs, targets = masker(rows, np.arange(i, min(i + size, len(rows))), np.random.default_rng([seed, 1, i]))
        batches.append(masker.with_loss_targets(inputs, targets))

    def measure(model: Any) -> dict[str, float]:
        device, was_training = next(model.parameters()).device, model.training
        model.eval()
        loss = correct = count = 0.0
        with torch.no_grad():
            for inputs, targets in batches:
                logits = model(**{k: v.to(device)
                                  for k, v in inputs.items()}).logits.float().cpu().reshape(*targets.shape, -1)
                masked = targets != IGNORED
                loss += torch.nn.functional.cross_entropy(logits[masked], targets[masked], reduction="sum").item()
                correct += (logits[masked].argmax(-1) == targets[masked]).sum().item()
                count += masked.sum().item()
        model.train(was_training)
        return {"loss": loss / max(1.0, count), "accuracy": correct / max(1.0, count)}
    return measure


class MaskedHooks(Hooks):
    """Measures held-out masked words and keeps weights, each on its schedule."""

    def __init__(self, recipe: Recipe, plan: Plan, measure: Callable[[Any], dict[str, float]], weights: Path,
                 progress: Progress):
        self.measure, self.weights, self.progress, self.per_epoch = measure, weights, progress, plan.steps_per_epoch
        self.evaluations = set(steps_of(recipe.evaluate, plan.total_steps, plan.steps_per_epoch))
        self.checkpoints = set(steps_of(recipe.checkpoints, plan.total_steps, plan.steps_per_epoch))

    def after_step(self, trainer: RecordingTrainer, step: int) -> bool:
        note = ""
        if step in self.checkpoints:
            save_weights(trainer.model, self.weights, step)
        if step in self.evaluations:
            metrics = self.measure(trainer.model)
            trainer.recorder.evaluation(step, "validation", trainer.examples, step / self.per_epoch, metrics)
            trainer.require_finite(metrics["loss"], step, "loss of held-out words")
            note = f"masked-word accuracy {metrics['accuracy']:.3f}"
        self.progress.update(step, note)
        return False


def masked_plan(texts: MaskedTexts, recipe: Recipe, seed: int) -> Plan:
    """The fixed order of all micro-batches."""
    train, settings = texts.train, recipe.train
    steps, per_epoch = plan_steps(train.lengths, settings.batch_size, settings.epochs, settings.order,
                                  np.random.default_rng(seed), settings.max_steps)
    return Plan.of(steps, per_epoch, settings.accumulate, train.sizes)


def train_masked(model: Any, texts: MaskedTexts, recipe: Recipe, seed: MaskedSeeds, *, scratch: Path,
                 out: Path, name: str, watch: Callable[[list[dict[str, Any]]], None] | None = None,
                 on_plan: Callable[[Plan], None] | None = None, resume_seconds: float = 30.0) -> list[dict[str, Any]]:
    """Train, or continue, and write history.parquet, the empty tables of signals, and checkpoints/ into `out`.

    Returns the evaluations of the held-out words in time order, rows of history.parquet; the model is left trained, on
    the CPU. Of several processes all call it; those that follow write nothing and return none.
    """
    plan = masked_plan(texts, recipe, seed.order)
    if on_plan:
        on_plan(plan)
    tokens = int(sum(texts.train.lengths[rows].sum() for _, rows, _ in plan.batches))
    log.info("%s: %d steps of %d rows (%s tokens in all, %.1f epochs), %s parameters", name, plan.total_steps,
             recipe.train.batch_size, f"{tokens:,}", plan.total_steps / plan.steps_per_epoch,
             f"{model.num_parameters():,}")
    embeddings = model.get_input_embeddings().num_embeddings
    masker = Masker(texts.tokenizer, recipe, embeddings > SMALL_VOCABULARY, embeddings)
    recorder, progress = Recorder(scratch / "segments", 2, False, watch), Progress(plan.total_steps, name)
    hooks = MaskedHooks(recipe, plan, held_out_words(texts.held_out, masker, seed.masks),
                        scratch / "checkpoints", progress)
    trainer = RecordingTrainer(model, plan, MaskedBatches(texts.train, plan, masker, seed.masks), recipe.train,
                               scratch=scratch, seed=seed.dropout, recorder=recorder, hooks=hooks, loss_of=masked_loss,
                               resume_seconds=resume_seconds, epsilon=recipe.epsilon)
    with only_chosen(model) if masker.sparse else contextlib.nullcontext():
        trainer.run()
    progress.close()
    if not here().leads:
        return []
    recorder.finish(out)
    for step, folder in list_weights(scratch / "checkpoints").items():
        if step in hooks.checkpoints:
            shutil.copytree(folder, out / "checkpoints" / folder.name)
    model.to("cpu")
    return recorder.evaluations
