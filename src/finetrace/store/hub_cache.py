"""What the hub client's cache knows of a repository: for work without a network."""

from pathlib import Path
from typing import Literal

from finetrace.store.files import write_text

COMMIT = 40  # hex digits

Kind = Literal["models", "datasets"]


def place(kind: Kind, repository: str) -> Path:
    """The repository's folder in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}--{repository.replace('/', '--')}"


def remember(kind: Kind, repository: str, revision: str, commit: str) -> None:
    """Note which commit a revision named, as the hub's client does it."""
    if revision != commit:
        write_text(place(kind, repository) / "refs" / revision, commit)


def remembered(kind: Kind, repository: str, revision: str) -> str | None:
    """The commit that a revision named when it was last asked for; a commit names itself; None when it never was."""
    if len(revision) == COMMIT:
        return revision
    ref = place(kind, repository) / "refs" / revision
    return ref.read_text("utf-8").strip() if ref.is_file() else None
