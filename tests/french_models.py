"""CamemBERT and FlauBERT as tiny models with random weights, and tokenizers of their kinds trained on given French
texts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REVIEWS = {  # label -> beginnings and ends, for tests that need French texts
    1: (["Ce livre est magnifique", "J'ai adoré ce film", "Un disque superbe", "Quelle belle découverte"],
        ["une réussite du début à la fin.", "je le recommande à tous !", "on l'écoute sans se lasser.",
         "à lire absolument."]),
    0: (["Ce livre est décevant", "Je n'ai pas aimé ce film", "Un disque raté", "Quelle perte de temps"],
        ["l'histoire est plate et mal écrite.", "n'achetez surtout pas.", "on s'ennuie très vite…",
         "je l'ai revendu aussitôt."]),
}


def reviews(rows: int) -> tuple[list[str], list[int]]:
    """Short French reviews and their labels."""
    texts, labels = [], []
    for i in range(rows):
        starts, ends = REVIEWS[i % 2]
        texts.append(f"{starts[i // 2 % 4]}, {ends[i // 8 % 4]}")
        labels.append(i % 2)
    return texts, labels


def camembert_folder(path: Path, texts: Sequence[str], vocabulary: int = 300, **config: Any) -> Path:
    """A SentencePiece-like unigram model over the texts; ids as in the original: <pad> 1, <s> 5, </s> 6."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CamembertConfig, CamembertModel, CamembertTokenizer

    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    inner.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=vocabulary, special_tokens=special,
                                                             unk_token="<unk>"))
    vocab = [(piece, score) for piece, score in json.loads(inner.to_str())["model"]["vocab"]]
    CamembertTokenizer(vocab=vocab, model_max_length=512).save_pretrained(path)
    torch.manual_seed(0)
    usual = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    CamembertModel(CamembertConfig(vocab_size=len(vocab), max_position_embeddings=514, pad_token_id=1, bos_token_id=5,
                                   eos_token_id=6, type_vocab_size=1, **{**usual, **config})).save_pretrained(path)
    return path


def flaubert_folder(path: Path, texts: Sequence[str], vocabulary: int = 300, **config: Any) -> Path:
    """Byte-pair encoding over Moses tokens with `</w>` at a word's end; ids as in the original: <s> 0, </s> 1, <pad>
    2."""
    import torch
    from sacremoses import MosesTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import FlaubertConfig, FlaubertModel, FlaubertTokenizer

    moses = MosesTokenizer("fr")
    special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
    inner = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.train_from_iterator((" ".join(moses.tokenize(t, escape=False)) for t in texts),
                              trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special,
                                                  end_of_word_suffix="</w>"))
    model = json.loads(inner.to_str())["model"]
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    (path / "merges.txt").write_text("".join(f"{a} {b} 1\n" for a, b in model["merges"]), "utf-8")
    tokenizer = FlaubertTokenizer(str(path / "vocab.json"), str(path / "merges.txt"), model_max_length=512)
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    usual = {"emb_dim": 16, "n_layers": 2, "n_heads": 2}
    FlaubertModel(FlaubertConfig(vocab_size=len(model["vocab"]), max_position_embeddings=512, pad_index=2, bos_index=0,
                                 eos_index=1, unk_index=3, n_langs=1, **{**usual, **config})).save_pretrained(path)
    return path
