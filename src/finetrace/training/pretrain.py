"""Masked-language-model pre-training of a small BERT on the micro world's corpus; leaves a trajectory like any training."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.models import PretrainSettings
from finetrace.config.training import TrainSettings
from finetrace.models.device import device_name, set_up
from finetrace.models.load import load_tokenizer, set_dropout
from finetrace.models.rows import Collator, Encoded
from finetrace.store.files import write_json
from finetrace.store.tables import read_table
from finetrace.training.checkpoints import list_weights, save_weights
from finetrace.training.recorder import Recorder
from finetrace.training.schedule import plan_steps, steps_of
from finetrace.training.trainer import Hooks, Plan, RecordingTrainer
from finetrace.training.watch import Progress

log = logging.getLogger(__name__)
HELD_OUT = 0.04  # share of the corpus on which the masked-word loss is measured


def new_model(settings: PretrainSettings, vocabulary: int, positions: int, pad_id: int, seed: int) -> Any:
    """A BERT with random weights and its masked-word head."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    return BertForMaskedLM(BertConfig(
        vocab_size=vocabulary, hidden_size=settings.width, num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads, intermediate_size=settings.feedforward, max_position_embeddings=positions,
        hidden_dropout_prob=settings.dropout, attention_probs_dropout_prob=settings.dropout, pad_token_id=pad_id))


def mask_words(ids: np.ndarray, special: np.ndarray, mask_id: int, words: np.ndarray, settings: PretrainSettings,
               generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose words to predict (Devlin et al. 2019, section 3.1): (inputs, targets), both (sentence, token) int64.

    special: (sentence, token) bool, tokens never chosen;  words: ids that may stand in as random words. Targets are -100
    where nothing is to be predicted. Every sentence has at least one word to predict.
    """
    draw = generator.random(ids.shape)
    draw[special] = 2.0
    chosen = draw < settings.mask_rate
    chosen[np.arange(len(ids)), draw.argmin(axis=1)] |= ~special.all(axis=1)
    how = generator.random(ids.shape)
    inputs = np.where(chosen & (how < settings.mask_replace), mask_id, ids)
    random_words = chosen & (how >= settings.mask_replace) & (how < (1 + settings.mask_replace) / 2)
    inputs = np.where(random_words, generator.choice(words, ids.shape), inputs)
    return inputs, np.where(chosen, ids, -100)


def masked_loss(outputs: Any, targets: Any) -> tuple[Any, None]:
    """Losses (sentence,) in nats whose mean is the mean over all words to predict; no logits are recorded."""
    import torch.nn.functional as F

    logits = outputs.logits.float()
    losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-100,
                             reduction="none").reshape(targets.shape)
    chosen = (targets != -100).sum()
    return losses.sum(dim=1) * (len(targets) / chosen.clamp(min=1)), None


class PretrainHooks(Hooks):
    """Measures held-out masked words and keeps weights, each on its schedule."""

    def __init__(self, settings: PretrainSettings, total: int, per_epoch: int, evaluate: Callable[[Any], dict[str, float]],
                 weights: Path, progress: Progress):
        self.measure, self.weights, self.progress, self.per_epoch = evaluate, weights, progress, per_epoch
        self.evaluations = set(steps_of(settings.evaluate, total, per_epoch))
        self.checkpoints = set(steps_of(settings.checkpoints, total, per_epoch))

    def after_step(self, trainer: RecordingTrainer, step: int) -> bool:
        note = ""
        if step in self.checkpoints:
            save_weights(trainer.model, self.weights, step)
        if step in self.evaluations:
            metrics = self.measure(trainer.model)
            trainer.recorder.evaluation(step, "validation", trainer.examples, step / self.per_epoch, metrics)
            note = f"masked-word accuracy {metrics['accuracy']:.3f}"
        self.progress.update(step, note)
        return False


def pretrain(settings: PretrainSettings, world: Path, study_seed: int, *, scratch: Path, out: Path, model_out: Path,
             name: str, watch: Callable[[list[dict[str, Any]]], None] | None = None,
             on_plan: Callable[[Plan], None] | None = None) -> dict[str, Any]:
    """Pre-train, or continue, and write the trajectory into `out` and the finished model into `model_out`.

    world: the folder data/world. With 0 steps the model keeps its random weights and `out` stays empty.
    Returns facts for the manifests.
    """
    tokenizer = load_tokenizer(world / "tokenizer")
    seed = {purpose: seeds.derive(study_seed, "pretrain", purpose, settings.seed)
            for purpose in ("weights", "order", "masks", "dropout", "held out")}
    model = new_model(settings, len(tokenizer), tokenizer.model_max_length, tokenizer.pad_token_id, seed["weights"])
    set_up(model.num_parameters())
    metrics: dict[str, float] = {"steps": settings.steps}
    facts: dict[str, Any] = {"parameters": model.num_parameters(), "device": device_name(), "seeds": seed}
    if settings.steps:
        metrics |= _train(settings, model, tokenizer, world, seed, scratch, out, name, watch, on_plan)
        write_json(out / "metrics.json", metrics)
    set_dropout(model.config, settings.finetune_dropout)
    model.config.classifier_dropout = None
    model.save_pretrained(model_out)
    tokenizer.save_pretrained(model_out)
    return facts | metrics


def _train(settings: PretrainSettings, model: Any, tokenizer: Any, world: Path, seed: dict[str, int], scratch: Path,
           out: Path, name: str, watch: Any, on_plan: Any) -> dict[str, float]:
    texts = read_table(world / "corpus.parquet", ["text"])["text"].to_pylist()
    order = np.random.default_rng(seed["held out"]).permutation(len(texts))
    held = max(1, round(len(texts) * HELD_OUT))
    rows = {split: _encode([texts[i] for i in index], tokenizer)
            for split, index in (("train", order[held:]), ("validation", order[:held]))}
    collator = Collator(tokenizer)
    words = np.array([i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids])
    make = _masked_batches(rows["train"], collator, tokenizer, words, settings, seed["masks"])
    train = TrainSettings(learning_rate=settings.learning_rate, batch_size=settings.batch_size, max_steps=settings.steps,
                          scheduler="cosine", warmup=settings.warmup, weight_decay=settings.weight_decay,
                          beta2=settings.beta2, max_grad_norm=settings.max_grad_norm)
    steps, per_epoch = plan_steps(rows["train"].lengths, settings.batch_size, 1.0, "length",
                                  np.random.default_rng(seed["order"]), settings.steps)
    plan = Plan.of(steps, per_epoch, 1, rows["train"].sizes)
    if on_plan:
        on_plan(plan)
    log.info("%s: pre-training %d steps of %d sentences, %d parameters", name, plan.total_steps, settings.batch_size,
             model.num_parameters())
    recorder, progress = Recorder(scratch / "segments", 2, False, watch), Progress(plan.total_steps, name)
    evaluate = _held_out_accuracy(rows["validation"], collator, tokenizer, words, settings, seed["masks"])
    hooks = PretrainHooks(settings, plan.total_steps, per_epoch, evaluate, scratch / "checkpoints", progress)
    trainer = RecordingTrainer(model, plan, make, train, scratch=scratch, seed=seed["dropout"], recorder=recorder,
                               hooks=hooks, loss_of=masked_loss)
    trainer.run()
    progress.close()
    recorder.finish(out)
    for step, folder in list_weights(scratch / "checkpoints").items():
        if step in hooks.checkpoints:
            shutil.copytree(folder, out / "checkpoints" / folder.name)
    model.to("cpu")
    last = recorder.evaluations[-1] if recorder.evaluations else {}
    return {f"validation/{k}": v for k, v in last.items() if k in ("loss", "accuracy")}


def _encode(texts: list[str], tokenizer: Any) -> Encoded:
    encoded = tokenizer(texts, truncation=True)
    features = {k: encoded[k] for k in encoded.keys()}
    return Encoded(features, np.zeros(len(texts), dtype=np.int64), np.arange(len(texts)),
                   np.array([len(ids) for ids in features["input_ids"]]))


def _masked(batch: dict[str, Any], tokenizer: Any, words: np.ndarray, settings: PretrainSettings,
            generator: np.random.Generator) -> dict[str, Any]:
    import torch

    ids = batch["input_ids"].numpy()
    inputs, targets = mask_words(ids, np.isin(ids, tokenizer.all_special_ids), tokenizer.mask_token_id, words, settings,
                                 generator)
    return {**batch, "input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(targets)}


def _masked_batches(rows: Encoded, collator: Collator, tokenizer: Any, words: np.ndarray, settings: PretrainSettings,
                    seed: int) -> Callable[[Any], dict[str, Any]]:
    def make(entry: Any) -> dict[str, Any]:
        micro_step, index, step_rows = entry
        # masks are a function of the step, not of a running state: a resumed run draws the same ones
        batch = _masked(collator(rows, index), tokenizer, words, settings, np.random.default_rng([seed, micro_step]))
        return {**batch, "example_ids": rows.example_ids[index], "micro_step": micro_step, "step_rows": step_rows,
                "tokens": int(rows.lengths[index].sum())}
    return make


def _held_out_accuracy(rows: Encoded, collator: Collator, tokenizer: Any, words: np.ndarray, settings: PretrainSettings,
                       seed: int) -> Callable[[Any], dict[str, float]]:
    """A function that measures loss (nats) and accuracy on the same masked words every time."""
    import torch

    batches = [_masked(collator(rows, np.arange(i, min(i + 256, len(rows)))), tokenizer, words, settings,
                       np.random.default_rng([seed, 1, i])) for i in range(0, len(rows), 256)]

    def measure(model: Any) -> dict[str, float]:
        device, was_training = next(model.parameters()).device, model.training
        model.eval()
        loss = right = count = 0.0
        with torch.no_grad():
            for batch in batches:
                targets = batch["labels"]
                logits = model(**{k: v.to(device) for k, v in batch.items() if k != "labels"}).logits.float().cpu()
                chosen = targets != -100
                loss += torch.nn.functional.cross_entropy(logits[chosen], targets[chosen], reduction="sum").item()
                right += (logits[chosen].argmax(-1) == targets[chosen]).sum().item()
                count += chosen.sum().item()
        model.train(was_training)
        return {"loss": loss / count, "accuracy": right / count}
    return measure
