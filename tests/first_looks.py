"""Models and rows for first looks: tiny BERTs with and without a head, a task whose classes words tell."""

import shutil
from pathlib import Path
from typing import Any

from tests.training_fixtures import bert_config, model_folder, sentences, tokenizer

NAMES = ("negative", "positive")


def classifier_folder(path: Path, names: tuple[str, ...] = NAMES, seed: int = 4) -> Path:
    """A tiny BERT with a classification head, random, for these classes."""
    import torch
    from transformers import BertForSequenceClassification

    config = bert_config(layers=3)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    torch.manual_seed(seed)
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def encoder_folder(path: Path, layers: int = 3) -> Path:
    """A tiny BERT without a head."""
    return model_folder(path, bert_config(layers=layers))


def rows_file(path: Path, rows: int = 60, columns: tuple[str, str] = ("text", "label")) -> Path:
    """A csv file of texts and class names."""
    texts, labels = sentences(rows, 7)
    lines = [",".join(columns), *(f"{text},{NAMES[label]}" for text, label in zip(texts, labels, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def as_checkpoint(model: Path, folder: Path, facts: dict[str, Any]) -> Path:
    """A finished trajectory with one checkpoint, step 0: the model as it is."""
    from finetrace.store.checkpoints import mark
    from finetrace.store.manifest import Manifest, complete

    step = folder / "checkpoints" / "step-00000000"
    shutil.copytree(model, step)
    mark(step, 0)
    complete(folder, Manifest("trajectory", "train", "x", "0", {}, {}, {}, facts), started=0.0)
    return folder
