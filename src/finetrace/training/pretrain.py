"""Masked-language-model pre-training of a small BERT, on the micro world or any texts;
leaves a trajectory like any training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetrace import seeds
from finetrace.config.models import PretrainSettings
from finetrace.config.training import TrainSettings
from finetrace.data.corpus import corpus_texts
from finetrace.errors import FinetraceError
from finetrace.group import here
from finetrace.models.device import set_up
from finetrace.models.load import load_tokenizer, set_dropout
from finetrace.store.files import write_json
from finetrace.store.whole import is_whole, whole_folder
from finetrace.training.mlm import MaskedSeeds, Recipe, prepare_texts, train_masked
from finetrace.training.parts import devices
from finetrace.training.tokenizer import train_tokenizer
from finetrace.training.trainer import Plan

TRAINED_TOKENS = 128  # longest input of a tokenizer that is trained here, unless max_tokens says another
ENDLESS = 100_000  # tokenizers without a longest input give an astronomic number


def pretrain(settings: PretrainSettings, corpus: Path, study_seed: int, *, scratch: Path, out: Path, model_out: Path,
             name: str, watch: Callable[[list[dict[str, Any]]], None] | None = None,
             on_plan: Callable[[Plan], None] | None = None, resume_seconds: float = 30.0) -> dict[str, Any]:
    """Pre-train, or continue, and write the trajectory into `out` and the finished model into `model_out`.

    corpus: the folder data/NAME with the texts, of the micro world also with a tokenizer. With 0 steps the model keeps
    its random weights and `out` stays empty. Returns facts for the manifests;
    `texts` among them are of the training, not of the model. Of several processes all call it; those that follow write
    nothing and return none.
    """
    run_seeds = {purpose: seeds.derive(study_seed, "pretrain", purpose, settings.seed)
                 for purpose in ("weights", "order", "masks", "dropout", "held out")}
    tokenizer = here().first(lambda: choose_tokenizer(settings, corpus, scratch))
    positions = longest_row(settings, tokenizer)
    model = new_model(settings, len(tokenizer), positions, tokenizer.pad_token_id, run_seeds["weights"])
    set_up(model.num_parameters())
    metrics: dict[str, float] = {"steps": settings.steps}
    facts: dict[str, Any] = {"parameters": model.num_parameters(), "device": devices(), "seeds": run_seeds}
    if settings.steps:
        texts = prepare_texts(corpus_texts(corpus), tokenizer, model, run_seeds["held out"], max_tokens=positions,
                              block_tokens=settings.block_tokens if settings.pack == "blocks" else 0,
                              whole_words=settings.whole_words)
        evaluations = train_masked(model, texts, recipe_of(settings),
                                   MaskedSeeds(run_seeds["order"], run_seeds["masks"], run_seeds["dropout"]),
                                   scratch=scratch, out=out, name=name, watch=watch, on_plan=on_plan,
                                   resume_seconds=resume_seconds)
        if not here().leads:
            return {}
        last_evaluation = evaluations[-1] if evaluations else {}
        metrics |= {f"validation/{k}": v for k, v in last_evaluation.items() if k in ("loss", "accuracy")}
        write_json(out / "metrics.json", metrics)
        facts["texts"] = texts.facts()
    set_dropout(model.config, settings.finetune_dropout)
    model.config.classifier_dropout = None
    model.save_pretrained(model_out)
    tokenizer.save_pretrained(model_out)
    return facts | metrics


def new_model(settings: PretrainSettings, vocabulary: int, positions: int, pad_id: int, seed: int) -> Any:
    """A BERT with random weights and its masked-word head."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    return BertForMaskedLM(BertConfig(
        vocab_size=vocabulary, hidden_size=settings.width, num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads, intermediate_size=settings.feedforward, max_position_embeddings=positions,
        hidden_dropout_prob=settings.dropout, attention_probs_dropout_prob=settings.dropout, pad_token_id=pad_id))


def choose_tokenizer(settings: PretrainSettings, corpus: Path, scratch: Path) -> Any:
    """The corpus' own tokenizer, else one that is trained on its texts and kept in `scratch`."""
    if (corpus / "tokenizer").is_dir():
        return load_tokenizer(corpus / "tokenizer")
    if not is_whole(scratch / "tokenizer"):
        trained = train_tokenizer(corpus_texts(corpus), settings.vocabulary, settings.lowercase,
                                  settings.max_tokens or TRAINED_TOKENS)
        with whole_folder(scratch / "tokenizer") as temporary:
            trained.save_pretrained(temporary)
    return load_tokenizer(scratch / "tokenizer")


def longest_row(settings: PretrainSettings, tokenizer: Any) -> int:
    """The model's positions: as many tokens as the tokenizer gives at most, or `max_tokens` where that is less."""
    limit = tokenizer.model_max_length
    if settings.max_tokens is not None:
        limit = min(limit, settings.max_tokens)
    if limit > ENDLESS:
        raise FinetraceError(f"{tokenizer.name_or_path}: its tokenizer does not tell a longest input; set "
                             "max_tokens, e.g. 128")
    if settings.pack == "blocks" and settings.block_tokens > limit:
        raise FinetraceError(f"block_tokens: {settings.block_tokens} are more than the model's positions, {limit}; "
                             "lower it, or raise max_tokens where the tokenizer allows")
    return int(limit)


def recipe_of(settings: PretrainSettings) -> Recipe:
    """The part of the settings that is about the training itself."""
    train = TrainSettings(learning_rate=settings.learning_rate, batch_size=settings.batch_size,
                          accumulate=settings.accumulate, epochs=1.0, max_steps=settings.steps,
                          scheduler=settings.scheduler, warmup=settings.warmup, weight_decay=settings.weight_decay,
                          beta2=settings.beta2, max_grad_norm=settings.max_grad_norm, precision=settings.precision)
    return Recipe(train, 1e-8, settings.mask_rate, settings.mask_replace, settings.whole_words, settings.checkpoints,
                  settings.evaluate)
