"""Bring a model into `models/<model>/`: from the hub or a folder, safetensors only, no code from the hub."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.check import check_model
from finetrace.models.hub import look_up, trouble

log = logging.getLogger(__name__)
FILES = ["config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
         "special_tokens_map.json", "added_tokens.json", "sentencepiece*", "spiece.model", "spm.model",
         "*.bpe.model"]
SENTENCES = "sentence_bert_config.json"  # of sentence-transformers: the longest input of its training


def fetch_hub(name: str, model_id: str, revision: str, out: Path) -> dict[str, Any]:
    """Download weights, config and tokenizer of a hub model into `out`, or take them from the hub's cache where
    HF_HUB_OFFLINE=1 is set; returns facts for its manifest."""
    from huggingface_hub import snapshot_download

    where = f"models.{name}"
    try:
        repository = look_up(model_id, revision)
        top = [f for f in repository.files if "/" not in f]
        if not any(f.endswith(".safetensors") for f in top):
            others = [f for f in repository.files if f.endswith((".bin", ".pt", ".h5"))]
            raise FinetraceError(f"{where}: {model_id} at {revision} has no *.safetensors, only "
                                 f"{', '.join(others) or 'no weights'}; "
                                 "pickled weights are not loaded; name a revision with safetensors (often refs/pr/N)")
        if "config.json" not in top:
            raise FinetraceError(f"{where}: {model_id} at {revision} has no config.json; name a repository that "
                                 "save_pretrained wrote")
        folder = Path(snapshot_download(model_id, revision=repository.commit, allow_patterns=[*FILES, SENTENCES],
                                        ignore_patterns=["*/*"]))
    except FinetraceError:
        raise
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"{where}: {model_id} at revision {revision} could not be fetched: "
                             f"{trouble(error)}") from error
    _copy(folder, out)
    _check(folder, out, where)
    return {"id": model_id, "revision": repository.commit}


def fetch_folder(name: str, path: Path, out: Path) -> dict[str, Any]:
    """Copy a local model folder into `out`; returns facts for its manifest."""
    where = f"model_folders.{name}"
    if not (path / "config.json").is_file():
        raise FinetraceError(f"{where}: {path} has no config.json; name a folder written by "
                             "save_pretrained")
    if not any(path.glob("*.safetensors")):
        raise FinetraceError(f"{where}: {path} has no *.safetensors; pickled weights are not loaded; "
                             "save it again with save_pretrained of a recent transformers")
    _copy(path, out)
    _check(path, out, where)
    return {"folder": path.name}


def _check(source: Path, out: Path, where: str) -> None:
    """See `check_model`; a sentence encoder that was trained on shorter inputs than its tokenizer gives is named."""
    check_model(out, where)
    try:
        longest = json.loads((source / SENTENCES).read_text("utf-8"))["max_seq_length"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no sentence encoder
    config = json.loads((out / "config.json").read_text("utf-8"))
    if isinstance(longest, int) and longest < config.get("max_position_embeddings", 0):
        log.warning("%s: as a sentence encoder it was made for %d tokens (%s), though it has %d positions; keep "
                    "train.max_length at %d or less to stay there", where, longest, SENTENCES,
                    config["max_position_embeddings"], longest)


def _copy(folder: Path, out: Path) -> None:
    for pattern in FILES:
        for file in sorted(folder.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file.resolve(), out / file.name)


def randomise(out: Path, seed: int) -> None:
    """Replace the weights in a model folder by freshly drawn ones of the same architecture."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.from_pretrained(out))
    for file in [*out.glob("*.safetensors"), *out.glob("*.safetensors.index.json")]:
        file.unlink()
    model.save_pretrained(out)


def describe(folder: Path) -> dict[str, Any]:
    """Architecture facts from a model folder's config."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    keys = ("model_type", "hidden_size", "dim", "num_hidden_layers", "n_layers", "num_attention_heads", "vocab_size")
    return {key: config[key] for key in keys if key in config}
