"""Tiny tasks of words, as the stage data writes them, and a tokenizer that cuts words into pieces."""

from pathlib import Path
from typing import Any

import numpy as np

from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import write_table
from tests.training_fixtures import SPECIAL, WORDS, sentences

KINDS = ("good", "bad", "plain")


def piece_tokenizer() -> Any:
    """`good7` is `good ##7`: two pieces, and three for numbers above 9; as many ids as the one of the other
    fixtures."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = (*SPECIAL, *KINDS, *(f"##{digit}" for digit in range(10)))
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    assert len(vocabulary) <= len(SPECIAL) + len(WORDS)  # the models of the other fixtures have embeddings for all
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]",
                                   cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def word_examples(words: list[str], spans: int) -> list[tuple[list[int], int]]:
    """Spans and label of a sentence's examples: each word's kind, or whether two neighbours are of one kind."""
    kind = [next(k for k, name in enumerate(KINDS) if word.startswith(name)) for word in words]
    if spans == 1:
        return [([i, i + 1], k) for i, k in enumerate(kind)]
    return [([i, i + 1, i - 1, i], int(kind[i] == kind[i - 1])) for i in range(1, len(words))]


def word_task_folder(path: Path, rows: dict[str, int] | None = None, *, spans: int = 1) -> Path:
    """data/<task> of a task of words; `rows`: sentences per split, 24 of training by default."""
    import pyarrow as pa

    rows, counts = rows or {"train": 24, "validation": 10, "test": 6}, {}
    with atomic_folder(path) as out:
        for number, (split, count) in enumerate(rows.items()):
            texts = sentences(count, 100 + number)[0]
            of = [(i, text.split(), *example) for i, text in enumerate(texts)
                  for example in word_examples(text.split(), spans)]
            counts[split] = len(of)
            write_table(out / f"{split}.parquet", {
                "example_id": pa.array(range(1000 * number, 1000 * number + len(of)), pa.int64()),
                "source_id": pa.array([None] * len(of), pa.string()),
                "text_a": pa.array([" ".join(w) for _, w, _, _ in of]),
                "text_b": pa.array([None] * len(of), pa.string()), "label": pa.array([k for *_, k in of], pa.int32()),
                "sentence": pa.array([5 * i + 2 for i, *_ in of], pa.int64()),
                "words": pa.array([w for _, w, _, _ in of]),
                "spans": pa.array([s for _, _, s, _ in of], pa.list_(pa.int32(), 2 * spans))})
        facts = {"kind": "token" if spans == 1 else "span-pair",
                 "label_names": list(KINDS) if spans == 1 else ["other", "same"],
                 "metric": "accuracy", "rows": counts, "spans": spans, "sentences": rows}
        complete(out, Manifest("data", "data", "tiny-words", "0", {}, {}, {}, facts), started=0.0)
    return path


def naive_pieces(tokenizer: Any, words: list[str]) -> tuple[list[int], list[np.ndarray]]:
    """Token ids of a sentence between [CLS] and [SEP], and the places of each word's pieces: one word at a time."""
    ids, places = [tokenizer.cls_token_id], []
    for word in words:
        own = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))
        places.append(np.arange(len(ids), len(ids) + len(own)))
        ids += own
    return [*ids, tokenizer.sep_token_id], places
