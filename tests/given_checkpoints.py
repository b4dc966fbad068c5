"""Folders of checkpoints as people have them: of transformers' Trainer, of save_pretrained, and of peft."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.training_fixtures import bert_config, sentences, tokenizer

LABELS = {0: "POSITIVE", 1: "NEGATIVE"}  # the task has them in the other order, and in lower case


def classifier(labels: dict[int, str] | None = None, kind: str = "AutoModelForSequenceClassification",
               seed: int = 3) -> Any:
    """A tiny random BERT with a head."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = bert_config(dropout=0.0)
    config.id2label = dict(labels or LABELS)
    config.label2id = {name: number for number, name in config.id2label.items()}
    return getattr(transformers, kind).from_config(config)


def trainer_folder(folder: Path, model: Any = None, steps: int = 4, every: int = 2) -> Path:
    """The output folder of a real Trainer on some sentences: checkpoint-2, checkpoint-4, with optimiser and
    tokenizer."""
    from transformers import Trainer, TrainingArguments

    texts, labels = sentences(16, 7)
    words = tokenizer()
    rows = [{**words(text, truncation=True), "labels": label}
            for text, label in zip(texts, labels, strict=True)]
    settings = TrainingArguments(output_dir=str(folder), max_steps=steps, save_steps=every, learning_rate=5e-3,
                                 per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True,
                                 logging_steps=100)
    Trainer(model if model is not None else classifier(), settings, train_dataset=rows,
            processing_class=words).train()
    return folder


def saved_folders(folder: Path, make: Callable[[int], Any], steps: Sequence[int], name: str = "checkpoint-{}") -> Path:
    """Folders of save_pretrained, one per step, each with its tokenizer. make: seed -> model."""
    for step in steps:
        where = folder / name.format(step)
        make(step).save_pretrained(where)
        tokenizer().save_pretrained(where)
    return folder


def adapter_folders(folder: Path, base: Path, steps: Sequence[int], task_type: str | None = "SEQ_CLS") -> Path:
    """Adapters of peft over a base model folder, one per step, with a trained classifier."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    for step in steps:
        torch.manual_seed(step)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        adapted = get_peft_model(model, LoraConfig(task_type=task_type, r=2, target_modules=["query", "value"]))
        with torch.no_grad():
            for one in adapted.parameters():
                if one.requires_grad:
                    one.normal_(std=0.1)
        adapted.save_pretrained(folder / f"checkpoint-{step}")
        path = folder / f"checkpoint-{step}/adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)}))
    return folder
