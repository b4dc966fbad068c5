"""Trajectories of masked-word training, written as the stages write them, with random weights."""

from pathlib import Path
from typing import Any

from finetrace.store.files import atomic_folder
from finetrace.store.manifest import complete
from finetrace.training.checkpoints import save_weights
from tests.hidden_outputs import finished
from tests.training_fixtures import SPECIAL, WORDS, tokenizer


def masked_model(seed: int, dropout: float = 0.1) -> Any:
    """A tiny BERT with its masked-word head and random weights."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    model = BertForMaskedLM(BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, pad_token_id=0))
    with torch.no_grad():
        model.cls.predictions.bias.normal_()  # zero at the start; a head that is lost must show
    return model


def pretrained(root: Path, name: str = "toy", steps: tuple[int, ...] = (0, 4, 9), dropout: float = 0.1) -> Path:
    """models/NAME and outputs/NAME/pretrain/trajectory below `root`; returns the trajectory."""
    out = root / "outputs" / name / "pretrain" / "trajectory"
    with atomic_folder(out) as folder:
        for step in steps:
            save_weights(masked_model(100 + step, dropout), folder / "checkpoints", step)
        complete(folder, finished("trajectory", model=name))
    last = masked_model(100 + steps[-1], 0.1)
    with atomic_folder(root / "models" / name) as folder:
        last.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        complete(folder, finished("model"))
    return out


def finetuned(root: Path, name: str = "toy", method: str = "ft") -> Path:
    """outputs/NAME/task/METHOD/s1/trajectory below `root`: one step from models/NAME with changed weights."""
    import torch

    from finetrace.config.training import MethodSettings, TrainSettings
    from finetrace.training.methods import start_classifier

    model = start_classifier(root / "models" / name, {"label_names": ["no", "yes"]}, TrainSettings(),
                             MethodSettings(kind=method), 1, 2)  # type: ignore[arg-type]
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.full_like(p, 0.01 * (1 + len(n) % 3)))
    out = root / "outputs" / name / "task" / method / "s1" / "trajectory"
    with atomic_folder(out) as folder:
        save_weights(model, folder / "checkpoints", 3)
        complete(folder, finished("trajectory", model=name))
    return out


def corpus_folder(root: Path, name: str, texts: list[str]) -> Path:
    """data/NAME with the given texts."""
    import pyarrow as pa

    from finetrace.store.tables import write_table

    with atomic_folder(root / "data" / name) as out:
        write_table(out / "corpus.parquet", {"text": pa.array(texts, pa.string())})
        complete(out, finished("data", texts=len(texts)), started=0.0)
    return root / "data" / name


