"""The models of a first look: from a folder, or from the hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetrace.errors import FinetraceError
from finetrace.models.peft_folders import adapter_config
from finetrace.models.sources import needs_base
from finetrace.models.timeline import TOKENIZER
from finetrace.store.checkpoints import MARKER

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
OUTPUTS = "outputs"


@dataclass(frozen=True)
class Source:
    """One model.

    name: as tables and figures show it;  folder: config and weights;  base: the folder with the tokenizer, which of a
    checkpoint of finetrace is the model that its training started from;  named: as the user named it;  commit: of the
    hub, empty for folders.
    """

    name: str
    folder: Path
    base: Path
    named: str
    commit: str = ""


def find_models(named: Sequence[str], scratch: Path) -> list[Source]:
    """The models, in the order in which they were named.

    named: folders, or hub ids, perhaps with @REVISION;  scratch: where those of the hub are put. Raises FinetraceError
    naming the model that is no model, or cannot be fetched, or is named twice.
    """
    if twice := [model for number, model in enumerate(named) if model in named[:number]]:
        raise FinetraceError(f"{twice[0]}: is named twice; name each model once")
    names = _names(named)
    return [_folder(name, Path(model), model) if Path(model).exists()
            else _hub(name, model, scratch / f"model-{number}")
            for number, (name, model) in enumerate(zip(names, named, strict=True))]


def _names(named: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell the models apart: of a/x and b/x these, of a/x and a/y x and y."""
    parts = [Path(model).resolve().parts if Path(model).exists() else tuple(model.split("/")) for model in named]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise FinetraceError(f"{' and '.join(named)}: are one folder; name each model once")


def _folder(name: str, folder: Path, named: str) -> Source:
    if not folder.is_dir():
        raise FinetraceError(f"{named}: is a file; name the folder of a model, which save_pretrained writes, or a hub "
                             "id")
    if (folder / "trajectory" / "checkpoints").is_dir() or (folder / "checkpoints").is_dir():
        inside = folder / "trajectory" if (folder / "trajectory").is_dir() else folder
        steps = sorted(path.name for path in (inside / "checkpoints").glob("step-*"))
        raise FinetraceError(f"{named}: is a trajectory; name one of its checkpoints, such as "
                             f"{inside / 'checkpoints' / (steps[-1] if steps else 'step-...')}")
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise FinetraceError(f"{named}: holds adapters of PEFT without their model; save the whole model "
                             "(merge_and_unload, then save_pretrained), or look at them in a study: an entry of "
                             "`series` with `base`")
    if not (folder / "config.json").is_file() and (within := sorted(
            path.parent for name in ("config.json", "adapter_config.json") for path in folder.glob(f"*/{name}"))):
        raise FinetraceError(f"{named}: is no model folder itself, but holds such; name one of them, such as "
                             f"{within[-1]}")
    if not (folder / "config.json").is_file():
        raise FinetraceError(f"{named}: has no config.json, so it is no model folder; name one that save_pretrained "
                             "wrote, or a hub id")
    if not any(folder.glob("*.safetensors")):
        raise FinetraceError(f"{named}: has no *.safetensors; pickled weights are not loaded; save it again with "
                             "save_pretrained of a recent transformers")
    return Source(name, folder, _base(folder, named), named)


def _base(folder: Path, named: str) -> Path:
    """The folder with the tokenizer."""
    if any(any(folder.glob(pattern)) for pattern in TOKENIZERS) or not (folder / MARKER).is_file():
        return folder
    if (tokenizer := folder.resolve().parents[1] / TOKENIZER).is_dir():  # of a trace
        return tokenizer if not needs_base(folder) else _adapter_base(folder, named)
    place = folder.resolve().parts
    if OUTPUTS in place[:-1]:
        at = len(place) - 1 - place[::-1].index(OUTPUTS)
        base = Path(*place[:at], "models", place[at + 1])
        if (base / "config.json").is_file():
            return base
    raise FinetraceError(f"{named}: is a checkpoint without a tokenizer, and models/MODEL of its project is not there; "
                         "write a whole model with `finetrace export`")


def _adapter_base(folder: Path, named: str) -> Path:
    """The model that the adapters of a trace change."""
    base_name = str(adapter_config(folder).get("base_model_name_or_path") or "")
    if base_name and (Path(base_name) / "config.json").is_file():
        return Path(base_name)
    raise FinetraceError(f"{named}: holds adapters over {base_name or 'a model that they do not name'}, which is no "
                         "folder; write a whole model with `finetrace export CHECKPOINT OUT --base FOLDER`")


def _hub(name: str, named: str, out: Path) -> Source:
    from finetrace.models.fetch import fetch_hub

    model_id, _, revision = named.partition("@")
    if not HUB_ID.fullmatch(model_id) or (named.startswith((".", "/", "~"))):
        raise FinetraceError(f"{named}: no such folder; name the folder of a model, or a hub id such as "
                             "sentence-transformers/all-MiniLM-L6-v2 or ID@REVISION")
    out.mkdir(parents=True)
    try:
        facts = fetch_hub(named, model_id, revision or "main", out)
    except FinetraceError as error:
        raise FinetraceError(f"{str(error).removeprefix(f'models.{named}: ')}; a folder {named} is not there either"
                             ) from error
    return Source(name, out, out, named, facts["revision"])
