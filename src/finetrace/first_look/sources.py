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
    checkpoint of finetrace is the model that its training started from;  asked: as the user named it;  commit: of the
    hub, empty for folders.
    """

    name: str
    folder: Path
    base: Path
    asked: str
    commit: str = ""


def find_models(asked: Sequence[str], scratch: Path) -> list[Source]:
    """The models, in the order in which they were named.

    asked: folders, or hub ids, perhaps with @REVISION;  scratch: where those of the hub are put. Raises FinetraceError
    naming the model that is no model, or cannot be fetched, or is named twice.
    """
    if twice := [one for number, one in enumerate(asked) if one in asked[:number]]:
        raise FinetraceError(f"{twice[0]}: is named twice; name each model once")
    names = _names(asked)
    return [_folder(name, Path(one), one) if Path(one).exists() else _hub(name, one, scratch / f"model-{number}")
            for number, (name, one) in enumerate(zip(names, asked, strict=True))]


def _names(asked: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell the models apart: of a/x and b/x these, of a/x and a/y x and y."""
    parts = [Path(one).resolve().parts if Path(one).exists() else tuple(one.split("/")) for one in asked]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise FinetraceError(f"{' and '.join(asked)}: are one folder; name each model once")


def _folder(name: str, folder: Path, asked: str) -> Source:
    if not folder.is_dir():
        raise FinetraceError(f"{asked}: is a file; name the folder of a model, which save_pretrained writes, or a hub "
                             "id")
    if (folder / "trajectory" / "checkpoints").is_dir() or (folder / "checkpoints").is_dir():
        inside = folder / "trajectory" if (folder / "trajectory").is_dir() else folder
        steps = sorted(path.name for path in (inside / "checkpoints").glob("step-*"))
        raise FinetraceError(f"{asked}: is a trajectory; name one of its checkpoints, such as "
                             f"{inside / 'checkpoints' / (steps[-1] if steps else 'step-...')}")
    if not (folder / "config.json").is_file():
        raise FinetraceError(f"{asked}: has no config.json, so it is no model folder; name one that save_pretrained "
                             "wrote, or a hub id")
    if not any(folder.glob("*.safetensors")):
        raise FinetraceError(f"{asked}: has no *.safetensors; pickled weights are not loaded; save it again with "
                             "save_pretrained of a recent transformers")
    return Source(name, folder, _base(folder, asked), asked)


def _base(folder: Path, asked: str) -> Path:
    """The folder with the tokenizer."""
    if any(any(folder.glob(pattern)) for pattern in TOKENIZERS) or not (folder / MARKER).is_file():
        return folder
    if (tokenizer := folder.resolve().parents[1] / TOKENIZER).is_dir():  # of a trace
        return tokenizer if not needs_base(folder) else _changed(folder, asked)
    place = folder.resolve().parts
    if OUTPUTS in place[:-1]:
        at = len(place) - 1 - place[::-1].index(OUTPUTS)
        base = Path(*place[:at], "models", place[at + 1])
        if (base / "config.json").is_file():
            return base
    raise FinetraceError(f"{asked}: is a checkpoint without a tokenizer, and models/MODEL of its project is not there; "
                         "write a whole model with `finetrace export`")


def _changed(folder: Path, asked: str) -> Path:
    """The model that the adapters of a trace change."""
    said = str(adapter_config(folder).get("base_model_name_or_path") or "")
    if said and (Path(said) / "config.json").is_file():
        return Path(said)
    raise FinetraceError(f"{asked}: holds adapters over {said or 'a model that they do not name'}, which is no folder; "
                         "write a whole model with `finetrace export CHECKPOINT OUT --base FOLDER`")


def _hub(name: str, asked: str, out: Path) -> Source:
    from finetrace.models.fetch import fetch_hub

    model_id, _, revision = asked.partition("@")
    if not HUB_ID.fullmatch(model_id) or (asked.startswith((".", "/", "~"))):
        raise FinetraceError(f"{asked}: no such folder; name the folder of a model, or a hub id such as "
                             "sentence-transformers/all-MiniLM-L6-v2 or ID@REVISION")
    out.mkdir(parents=True)
    try:
        facts = fetch_hub(asked, model_id, revision or "main", out)
    except FinetraceError as error:
        raise FinetraceError(f"{str(error).removeprefix(f'models.{asked}: ')}; a folder {asked} is not there either"
                             ) from error
    return Source(name, out, out, asked, facts["revision"])
