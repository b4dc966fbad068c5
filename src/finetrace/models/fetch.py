"""Bring a model into `models/<model>/`: from the hub or a folder, safetensors only, no code from the hub."""

import json
import shutil
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError

FILES = ["config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
         "special_tokens_map.json", "added_tokens.json", "sentencepiece*", "spiece.model", "spm.model",
         "*.bpe.model"]


def fetch_hub(name: str, model_id: str, revision: str, out: Path) -> dict[str, Any]:
    """Download weights, config and tokenizer of a hub model into `out`; returns facts for its manifest."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().model_info(model_id, revision=revision)
        files = [s.rfilename for s in info.siblings or []]
        if not any(f.endswith(".safetensors") and "/" not in f for f in files):
            others = [f for f in files if f.endswith((".bin", ".pt", ".h5"))]
            raise FinetraceError(f"models.{name}: {model_id} at {revision} has no *.safetensors, only "
                                 f"{', '.join(others) or 'no weights'}; "
                                 "pickled weights are not loaded; name a revision with safetensors (often refs/pr/N)")
        folder = Path(snapshot_download(model_id, revision=info.sha, allow_patterns=FILES, ignore_patterns=["*/*"]))
    except FinetraceError:
        raise
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"models.{name}: {model_id} at revision {revision} could not be fetched: "
                             f"{type(error).__name__}: {error}") from error
    _copy(folder, out)
    return {"id": model_id, "revision": info.sha}


def fetch_folder(name: str, path: Path, out: Path) -> dict[str, Any]:
    """Copy a local model folder into `out`; returns facts for its manifest."""
    if not (path / "config.json").is_file():
        raise FinetraceError(f"model_folders.{name}: {path} has no config.json; name a folder written by "
                             "save_pretrained")
    if not any(path.glob("*.safetensors")):
        raise FinetraceError(f"model_folders.{name}: {path} has no *.safetensors; pickled weights are not loaded; "
                             "save it again with save_pretrained of a recent transformers")
    _copy(path, out)
    return {"folder": path.name}


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
