"""A tiny model folder with its tokenizer, and tiny tasks, written as the stages write them."""

from pathlib import Path
from typing import Any

import numpy as np

from finetrace.config.training import RecordSettings, TrainSettings
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import write_table
from finetrace.training.finetune import RunSeeds

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(f"{kind}{i}" for kind in ("good", "bad", "plain") for i in range(12))
SEEDS = RunSeeds(head=11, order=12, dropout=13, probe=14)
SIGNALS, HISTORY, PROBE = "signals.parquet", "history.parquet", "probe.parquet"


def settings(**changes: Any) -> TrainSettings:
    """Eight steps per epoch on the task below, on any machine in fp32."""
    usual = {"learning_rate": 2e-3, "batch_size": 8, "epochs": 2.0, "precision": "fp32", "max_length": 16}
    return TrainSettings(**usual | changes)


def recording(**changes: Any) -> RecordSettings:
    """Everything is recorded, and no resume point is taken unless asked for."""
    return RecordSettings(**{"probe_rows": 8, "resume_seconds": 1e9} | changes)


def tokenizer(pairs_have_types: bool = True) -> Any:
    """One token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    inner = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    names = ["input_ids", "token_type_ids", "attention_mask"] if pairs_have_types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, model_input_names=names, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def bert_config(dropout: float = 0.1, layers: int = 2, width: int = 16) -> Any:
    from transformers import BertConfig

    return BertConfig(vocab_size=len(SPECIAL) + len(WORDS), hidden_size=width, num_hidden_layers=layers,
                      num_attention_heads=2, intermediate_size=2 * width, max_position_embeddings=64,
                      hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, pad_token_id=0)


def model_folder(path: Path, config: Any = None, *, pairs_have_types: bool = True) -> Path:
    """A pretrained model's folder with random weights."""
    import torch
    from transformers import AutoModel

    with atomic_folder(path) as out:
        torch.manual_seed(3)
        AutoModel.from_config(config or bert_config()).save_pretrained(out)
        tokenizer(pairs_have_types).save_pretrained(out)
    return path


def sentences(rows: int, seed: int, shortest: int = 2, longest: int = 12) -> tuple[list[str], list[int]]:
    """Texts of various lengths; the label says whether good words are more than bad words."""
    generator, texts, labels = np.random.default_rng(seed), [], []
    for _ in range(rows):
        label = int(generator.random() < 0.6)
        count = int(generator.integers(shortest, longest + 1))
        first = generator.choice([w for w in WORDS if w.startswith("good" if label else "bad")], size=(count + 1) // 2)
        rest = generator.choice([w for w in WORDS if w.startswith("plain")], size=count // 2)
        texts.append(" ".join(generator.permutation(np.concatenate([first, rest]))))
        labels.append(label)
    return texts, labels


def task_folder(path: Path, rows: dict[str, int] | None = None, *, pairs: bool = False,
                metric: str = "accuracy") -> Path:
    """data/<task>; 64 training rows by default."""
    import pyarrow as pa

    rows = rows or {"train": 64, "validation": 24, "test": 10}
    with atomic_folder(path) as out:
        for number, (split, count) in enumerate(rows.items()):
            texts, labels = sentences(count, 100 + number)
            second = sentences(count, 200 + number)[0] if pairs else [None] * count
            write_table(out / f"{split}.parquet", {
                "example_id": pa.array(range(1000 * number, 1000 * number + count), pa.int64()),
                "source_id": pa.array([None] * count, pa.string()), "text_a": pa.array(texts, pa.string()),
                "text_b": pa.array(second, pa.string()), "label": pa.array(labels, pa.int32())})
        facts = {"kind": "pair" if pairs else "sequence", "label_names": ["negative", "positive"], "metric": metric,
                 "rows": rows}
        complete(out, Manifest("data", "data", "tiny", "0", {}, {}, {}, facts), started=0.0)
    return path


def world_folder(path: Path, texts: int = 120) -> Path:
    """What pre-training reads: a corpus and a tokenizer."""
    write_table(path / "corpus.parquet", {"text": sentences(texts, 5)[0]})
    tokenizer().save_pretrained(path / "tokenizer")
    return path
