"""Whether a model folder is whole and can be trained from: config, weights and tokenizer, and that they belong
together."""

import json
import logging
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.device import quiet
from finetrace.models.load import load_encoder, load_tokenizer, one_line

log = logging.getLogger(__name__)
INDEX = "model.safetensors.index.json"


def check_model(folder: Path, where: str) -> None:
    """Read everything in a model folder once, so that what is wrong is known before a training.

    where: of params.yaml, for messages. Raises FinetraceError for a config that names no known architecture, weights
    that are damaged or do not fit it, a missing tokenizer, and one with more tokens than the model has embeddings.
    """
    try:
        config = read_config(folder)
        check_weights(folder)
        tokenizer, encoder = load_tokenizer(folder), load_encoder(folder)
        embeddings = encoder.get_input_embeddings().num_embeddings
        word, last = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if last >= embeddings:
            raise FinetraceError(f"{folder}: its tokenizer has a token {word!r} with id {last}, but the model has only "
                                 f"{embeddings} embeddings; they do not belong together")
    except FinetraceError as error:
        raise FinetraceError(f"{where}: {str(error).replace(f'{folder}: ', '').replace(f'{folder}/', '')}") from error
    if last + 1 < embeddings:
        log.info("%s: %d of its %d embeddings belong to no token", where, embeddings - last - 1, embeddings)
    if config.get("auto_map"):
        log.warning("%s: config.json names code of its own (auto_map), which is never run; the model is read as %s",
                    where, config["model_type"])


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder. Raises FinetraceError when it cannot be read or names no architecture that transformers
    has."""
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig

    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{folder}: has no config.json; name a folder or repository written by "
                             "save_pretrained") from error
    except (OSError, ValueError) as error:
        raise FinetraceError(f"{path}: is no JSON file in UTF-8 ({error}); fetch or save the model again") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind is not None and kind in CONFIG_MAPPING:
        quiet()
        try:
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # wrong values raise many kinds
            raise FinetraceError(f"{path}: is no config of a {kind}: {one_line(error)}; mend it, or fetch the model "
                                 "again") from error
        return config
    if isinstance(config, dict) and config.get("auto_map"):
        raise FinetraceError(f"{path}: the model needs code of its own (auto_map), which finetrace never runs; name a "
                             "model of an architecture that is part of transformers")
    raise FinetraceError(f"{path}: model_type {kind!r} is no architecture of transformers {transformers.__version__}; "
                         "name a model of another one")


def check_weights(folder: Path) -> None:
    """Raises FinetraceError unless the *.safetensors are whole: headers are read and compared with the sizes."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, "np") as content:
                content.keys()
        except Exception as error:  # SafetensorError, and what the file system raises
            pointer = file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs")
            fault = "is a pointer of Git LFS, not the file; run git lfs pull" if pointer else (
                f"is no whole safetensors file of {file.stat().st_size} bytes ({error}); copy or fetch it again")
            raise FinetraceError(f"{file}: {fault}") from error
    if (folder / INDEX).is_file():
        try:
            indexed = set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FinetraceError(f"{folder / INDEX}: cannot be read ({error}); copy or fetch it again") from error
        if missing := sorted(indexed - {file.name for file in files}):
            raise FinetraceError(f"{folder / missing[0]}: is absent, though {INDEX} names it; copy or fetch it again")
