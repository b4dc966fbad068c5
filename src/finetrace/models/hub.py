"""The hub, asked patiently: what fails for a moment is asked again, and without a network the cache answers."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from finetrace.store.files import sha256_file
from finetrace.store.hub_cache import place, remember, remembered

log = logging.getLogger(__name__)
PAUSES = (2.0, 6.0)  # seconds before the second and the third try; downloads are repeated by the hub's client itself


@dataclass(frozen=True)
class Repository:
    """One revision of a hub model: its commit, the names of its files, and the SHA-256 of those whose digest is
    known."""

    commit: str
    files: list[str]
    sha256: dict[str, str]


def look_up(model_id: str, revision: str, digests: bool = False) -> Repository:
    """Commit and files of a hub model, from the hub, or with HF_HUB_OFFLINE=1 from its cache.

    digests: also the SHA-256 of the large files. Raises what the hub's client raises; see `trouble`.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return _cached(model_id, revision, digests)
    info = _ask(model_id, revision, digests)
    siblings = info.siblings or []
    remember("models", model_id, revision, str(info.sha))
    return Repository(str(info.sha), [s.rfilename for s in siblings],
                      {s.rfilename: s.lfs.sha256 for s in siblings if s.lfs is not None and s.lfs.sha256})


def trouble(error: Exception) -> str:
    """What the hub's client raised, in one line; where the hub was not there or not well, with its address and what to
    do."""
    from huggingface_hub import constants

    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    if _may_pass(error):
        text += (f" (asked {constants.ENDPOINT}, {len(PAUSES) + 1} times at most); run it again later, name another "
                 "address in HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to take what the hub's cache has")
    return text


def _ask(model_id: str, revision: str, digests: bool) -> Any:
    from huggingface_hub import HfApi, constants

    for pause in PAUSES:
        try:
            return HfApi().model_info(model_id, revision=revision, files_metadata=digests)
        except Exception as error:  # the hub client raises many kinds
            if not _may_pass(error):
                raise
            log.warning("%s: %s is asked again in %g s: %s", model_id, constants.ENDPOINT, pause, type(error).__name__)
            time.sleep(pause)
    return HfApi().model_info(model_id, revision=revision, files_metadata=digests)


def _may_pass(error: BaseException | None) -> bool:
    """Whether another try may help: no connection, a time-out, too many requests, or an error of the server (HTTP
    5xx)."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if isinstance(error, HfHubHTTPError):
        status = getattr(getattr(error, "response", None), "status_code", 0)
        return status in (408, 429) or status >= 500
    return isinstance(error, HTTPError | TimeoutError) or (error is not None and _may_pass(error.__cause__))


def _cached(model_id: str, revision: str, digests: bool) -> Repository:
    """The same from the hub's cache: the commit that the revision named when it was last asked for, else the only one
    there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    snapshots = place("models", model_id) / "snapshots"
    commits = sorted(p.name for p in snapshots.glob("*") if p.is_dir())
    revision = remembered("models", model_id, revision) or (commits[0] if len(commits) == 1 else revision)
    folder = snapshots / revision
    if revision not in commits:
        there = (f"there are the commits {', '.join(commits)}: name one as revision" if commits
                 else "nothing of this model is there")
        raise LocalEntryNotFoundError(f"HF_HUB_OFFLINE is set, and the hub's cache {snapshots.parent} does not know "
                                      f"{revision}; {there}, or run once with HF_HUB_OFFLINE=0")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return Repository(revision, files, {name: sha256_file((folder / name).resolve()) for name in files
                                        if name.endswith(".safetensors")} if digests else {})
