"""Where a checkpoint lies that was made elsewhere, on the hub or in a folder, and how it is opened as a whole model:
fetched or found, verified, adapters merged into their base."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import CONFIG as ADAPTER_CONFIG
from finetrace.models.check import read_config
from finetrace.models.hub import trouble
from finetrace.models.peft_folders import merged
from finetrace.models.saved import FACTS as OWN_HEAD
from finetrace.models.saved import export
from finetrace.store.files import sha256_file
from finetrace.store.verified import first_damaged


@dataclass(frozen=True)
class Published:
    """One checkpoint of a published series: where it lies and the SHA-256 of each of its weight files."""

    id: str
    revision: str
    """The commit."""
    sha256: dict[str, str]


@dataclass(frozen=True)
class Local:
    """One checkpoint in a folder, and the SHA-256 of each file that decides what it computes."""

    path: str
    """The folder; relative to the project folder, or absolute."""
    sha256: dict[str, str]
    base: "Source | None" = None
    """Of adapters, or of a head alone: the model that they belong to."""


Source = Published | Local


def plain(source: Source) -> dict[str, Any]:
    """A source as JSON values."""
    return dataclasses.asdict(source)


def of_plain(content: Mapping[str, Any]) -> Source:
    """The source of such values. Raises KeyError or TypeError for others."""
    if "path" not in content:
        return Published(**content)
    return Local(content["path"], content["sha256"], None if content.get("base") is None else of_plain(content["base"]))


def label(source: Source) -> str:
    """What a person calls it."""
    return source.path if isinstance(source, Local) else f"{source.id} at {source.revision}"


@contextlib.contextmanager
def opened(source: Source, keep: bool = True) -> Iterator[Path]:
    """A folder with config.json and safetensors, a whole model with the head that it has; valid inside the block.

    keep: whether fetched weights stay in the hub's cache. Raises FinetraceError when files cannot be fetched, are
    absent, or are not those that were recorded.
    """
    if isinstance(source, Published):
        folder = fetch_published(source)
        try:
            yield folder
        finally:
            if not keep:
                _forget(folder)
        return
    folder = verified(source)
    if source.base is None:
        yield folder
        return
    with opened(source.base) as base, tempfile.TemporaryDirectory() as name:
        if (folder / OWN_HEAD).is_file():
            export(folder, base, Path(name))
        else:
            merged(folder, base, Path(name))
        yield Path(name)


def verified(source: Local) -> Path:
    """The folder of a local checkpoint. Raises FinetraceError unless its files are those that were recorded."""
    folder = Path(source.path)
    wrong = next((name for name in source.sha256 if not (folder / name).is_file()), None)
    if wrong is None:
        wrong = first_damaged(folder, source.sha256)
    if wrong is not None:
        state = "has changed since the series was recorded" if (folder / wrong).is_file() else "is not there any more"
        raise FinetraceError(f"{folder / wrong}: {state}; run finetrace repro, which looks the folder up anew")
    return folder


def config_of(source: Source) -> dict[str, Any]:
    """config.json of a checkpoint, of the base where it changes one; of the hub nothing else is fetched."""
    if isinstance(source, Local):
        return read_config(Path(source.path)) if source.base is None else config_of(source.base)
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(source.id, "config.json", revision=source.revision))
    except Exception as error:  # as in `fetch_published`
        raise FinetraceError(f"{label(source)}: its config.json could not be fetched: {trouble(error)}") from error
    return read_config(path.parent)


def fetch_published(published: Published) -> Path:
    """Fetch one checkpoint into the hub's cache (or find it there) and check its bytes. Returns its folder."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(published.id, revision=published.revision,
                                        allow_patterns=["config.json", "*.safetensors",
                                                                                      "model.safetensors.index.json"],
                                        ignore_patterns=["*/*"]))
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"{published.id} at {published.revision} could not be fetched: {trouble(error)}; run the "
                             "stage again when the hub can be reached: finished checkpoints are kept") from error
    for file, expected in published.sha256.items():
        path = folder / file
        if not path.is_file() or sha256_file(path.resolve()) != expected:
            raise FinetraceError(f"{path}: is not the file that the series recorded (SHA-256 "
                                 f"{expected[:12]}...); delete {folder} from the hub's cache and run the stage again")
    return folder


def _forget(folder: Path) -> None:
    """Remove a checkpoint's weights from the hub's cache: links and what they point to."""
    for link in folder.glob("*.safetensors"):
        link.resolve().unlink(missing_ok=True)
        link.unlink(missing_ok=True)


def needs_base(folder: Path) -> bool:
    """Whether a folder holds adapters, or a head alone, rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file() or (
        (folder / OWN_HEAD).is_file() and not any(folder.glob("model*.safetensors")))
