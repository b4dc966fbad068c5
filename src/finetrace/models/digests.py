"""What names a tokenizer or a masked-word head, so that what was computed with it is known again."""

from pathlib import Path

from finetrace.store.files import sha256_file, sha256_folder, sha256_value
from finetrace.store.manifest import NAME, OF_MANIFEST, read_key

NOT_TOKENIZER = ("config.json", *OF_MANIFEST, "model.safetensors.index.json", "series.json")


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the files of a tokenizer, whatever weights lie beside them."""
    return sha256_value({p.name: sha256_file(p) for p in sorted(folder.iterdir())
                         if p.is_file() and p.name not in NOT_TOKENIZER and p.suffix in (".json", ".txt", ".model")})


def head_digest(folder: Path | None) -> str:
    """Names the model folder whose masked-word head is used: its key, or its content; "own" without one."""
    if folder is None:
        return "own"
    return read_key(folder) if (folder / NAME).is_file() else sha256_folder(folder)
