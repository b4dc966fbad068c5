"""Manifests: what a folder holds and what made it. A folder without its manifest, or with other files than it lists,
is refused.

    manifest.json    what the folder holds: facts, and the hash of every file. Stages that read the folder depend on
    this file. provenance.json  how it was made: settings, inputs, seeds, code, versions, device. Equal in two equal
    runs on one kind of machine. cost.json        when, how long, how much memory, where, and the hashes of the other
    two. DVC does not hash it, so it may be absent.

Equal content that other code made again has an equal manifest.json, so nothing that builds on it is made again.
"""

import dataclasses
import hashlib
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from finetrace.errors import FinetraceError
from finetrace.store.files import json_text, sha256_file, sha256_value, write_json, write_text
from finetrace.store.verified import first_damaged

PACKAGE_DATA = ()
SCHEMA_VERSION = 2
NAME, PROVENANCE, COST = OF_MANIFEST = ("manifest.json", "provenance.json", "cost.json")
UNHASHED = (COST, "timing.parquet", "journal.log")
"""Files that hold times: no two runs write the same, so that neither a manifest nor DVC (.dvcignore) counts them."""
CONTENT = ("schema_version", "kind", "stage", "name", "facts", "files")
COSTS = ("started_at_ms", "wall_seconds", "peak_memory_bytes", "host")
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "optuna",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "tokenizers",
    "safetensors",
)


@dataclasses.dataclass
class Manifest:
    """What a folder holds and what made it.

    kind: world | model | data | settings | trajectory | hidden | predictions | lens | figures | atlas;  stage, name:
    the DVC stage `stage@name`;  facts: numbers and texts about the result (row counts, label shares, steps ...):
    with the files, all that a reader of the folder may use;  files: name -> {bytes, sha256}.
    key: hash of stage, settings, inputs and code (identity of the content asked for, equal on every machine);
    settings: what was asked for;  inputs: project path -> SHA-256;  seeds: purpose -> integer;  code: fingerprint;
    accepted: why an author vouches for a result of other code, or "";  versions: package -> version;  device: cpu or
    the GPU's name; started_at_ms: Unix time in milliseconds;  wall_seconds, peak_memory_bytes: cost;  host: Python
    and processor.
    """

    kind: str
    stage: str
    name: str
    key: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    seeds: dict[str, int]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: str = "cpu"
    started_at_ms: int = 0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    host: dict[str, str] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    code: str = ""
    accepted: str = ""
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def make_key(stage: str, settings: Any, inputs: Mapping[str, str], code: str) -> str:
    """Identity of a piece of work: equal on every machine when stage, settings, inputs and code are equal.

    The order of settings counts: a search draws its dimensions in the order in which a study names them.
    """
    settings_text = json.dumps(settings, default=str)
    return sha256_value({"stage": stage, "settings": settings_text, "inputs": dict(inputs), "code": code})


def complete(folder: Path, manifest: Manifest, *, started: float | None = None) -> None:
    """List the folder's files in its manifest and write it: from now on readers accept the folder.

    started: `time.time()` at the start of the work; fills wall_seconds and started_at_ms where they are not set.
    """
    if started is not None:
        manifest.started_at_ms = manifest.started_at_ms or int(started * 1000)
        manifest.wall_seconds = manifest.wall_seconds or round(time.time() - started, 3)
    manifest.peak_memory_bytes = manifest.peak_memory_bytes or peak_memory_bytes()
    manifest.versions = manifest.versions or versions()
    manifest.host = manifest.host or {
        "python": platform.python_version(),
        "processor": platform.machine(),
        "system": platform.system(),
    }
    manifest.files = {
        name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in _files(folder)
    }
    content = dataclasses.asdict(manifest)
    texts = {PROVENANCE: json_text({k: v for k, v in content.items() if k not in (*CONTENT, *COSTS)}),
             NAME: json_text({k: content[k] for k in CONTENT})}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    write_json(folder / COST, {"key": manifest.key, "sha256": hashes | {COST: sha256_value(hashes)}}
               | {k: content[k] for k in COSTS})
    for name, text in texts.items():  # manifest.json last
        write_text(folder / name, text)


def read_manifest(folder: Path, *, verify: Literal["content"] | bool = True) -> Manifest:
    """Read a folder's manifest and check that the files it lists are there, with their sizes and hashes.

    Every reader of a finished folder opens it by this function. A large file that was found right before and was not
    touched since is not hashed again (`store.verified`); verify="content": all are hashed; False: nothing is checked.
    Raises FinetraceError when the folder is absent, has no manifest (its writer did not finish), was written by a
    newer finetrace, lacks a file or bytes, or a file is damaged.
    """
    if not folder.is_dir():
        raise FinetraceError(f"{folder}: no such folder; run the stage that writes it (finetrace repro)")
    content = _object(folder, NAME)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise FinetraceError(
            f"{folder / NAME}: schema_version {content.get('schema_version')} is not {SCHEMA_VERSION}; "
            "run its stage again with this version of finetrace"
        )
    origin = _object(folder, PROVENANCE)
    cost = _cost(folder, origin.get("key"))
    _check_own(folder, cost.pop("sha256", None))
    manifest_fields = {f.name: f for f in dataclasses.fields(Manifest)}
    origin_keys = [key for key, description in manifest_fields.items() if _required(description) and key not in CONTENT]
    for name, part, keys in ((NAME, content, CONTENT), (PROVENANCE, origin, origin_keys)):
        if missing := [key for key in keys if key not in part]:
            raise FinetraceError(
                f"{folder / name}: lacks {', '.join(missing)}; delete the folder and run its stage again"
            )
    _check_shape(folder, content, origin)
    manifest = Manifest(**{k: v for k, v in (content | origin | cost).items() if k in manifest_fields})
    if verify:
        _check(folder, manifest.files, every=verify == "content")
    return manifest


def read_key(folder: Path) -> str:
    """The content hash of a finished folder: what a downstream stage records as its input.

    It covers facts and the bytes of the files, not times, costs or how they were made.
    """
    manifest = read_manifest(folder)
    content = {"facts": manifest.facts, "files": {name: facts["sha256"] for name, facts in manifest.files.items()}}
    return hashlib.sha256(json_text(content).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the files that belong to a folder; a folder within it that has a manifest of its own is
    apart."""
    own_manifests = [path.parent for path in folder.glob(f"*/{NAME}")]
    for path in sorted(folder.rglob("*")):
        if (
            path.is_file()
            and path.name not in UNHASHED
            and not any(path.is_relative_to(other_folder) for other_folder in own_manifests)
            and path not in (folder / NAME, folder / PROVENANCE)
        ):
            yield path.relative_to(folder).as_posix(), path


def _object(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{folder}: has no {name}, so its writer did not finish; run its stage again") from error
    except ValueError as error:
        raise FinetraceError(
            f"{path}: not valid JSON ({error}); delete the folder and run its stage again"
        ) from error
    if not isinstance(content, dict):
        raise FinetraceError(f"{path}: is not a manifest (no JSON object); delete the folder and run its stage again")
    return content


def checked_file(folder: Path, name: str) -> Path:
    """One file of a finished folder, of which nothing else is read. Raises FinetraceError as `read_manifest` does, and
    when the folder does not list it."""
    files = read_manifest(folder, verify=False).files
    if name not in files:
        raise FinetraceError(f"{folder / NAME}: lists no {name}; delete the folder and run its stage again")
    _check(folder, {name: files[name]}, every=False)
    return folder / name


def _check_own(folder: Path, hashes: Any) -> None:
    """Raises FinetraceError when manifest.json or provenance.json is not what was written; where cost.json does not
    say, or is damaged itself, nothing is known."""
    recorded = {k: v for k, v in hashes.items() if k != COST} if isinstance(hashes, dict) else {}
    if not recorded or hashes.get(COST) != sha256_value(recorded):
        return
    for name in (NAME, PROVENANCE):
        if sha256_file(folder / name) != recorded.get(name):
            raise FinetraceError(
                f"{folder / name}: its content is not what its stage wrote (damaged or edited); delete the folder "
                f"{folder} and run its stage again (finetrace repro)"
            )


def _check_shape(folder: Path, content: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Raises FinetraceError for entries of another type than is written: readers take them as they are."""
    texts, objects = ("kind", "stage", "name"), ("facts", "files")
    wrong = {NAME: [k for k in texts if not isinstance(content[k], str)]
             + [k for k in objects if not isinstance(content[k], dict)],
             PROVENANCE: [k for k in ("settings", "inputs", "seeds") if not isinstance(origin[k], dict)]
             + [k for k in ("key",) if not isinstance(origin[k], str)]}
    if not wrong[NAME]:
        wrong[NAME] = [f"files: {name}" for name, facts in content["files"].items()
                       if not (isinstance(facts, dict) and isinstance(facts.get("bytes"), int)
                               and isinstance(facts.get("sha256"), str))]
    for name, keys in wrong.items():
        if keys:
            raise FinetraceError(f"{folder / name}: its entry {keys[0]} is not what its stage wrote (damaged or "
                                 f"edited); delete the folder {folder} and run its stage again (finetrace repro)")


def _cost(folder: Path, key: Any) -> dict[str, Any]:
    """Cost of the run that made the folder, and hashes of the other two files; nothing where the file is absent,
    damaged, or of another run."""
    try:
        content = json.loads((folder / COST).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {k: content[k] for k in (*COSTS, "sha256") if k in content}
        if isinstance(content, dict) and content.get("key") == key
        else {}
    )


def _check(folder: Path, files: Mapping[str, Mapping[str, Any]], *, every: bool) -> None:
    """Raises FinetraceError for the first file that is not as listed; every: hash also what was found right before."""
    for name, facts in files.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else "absent"
        if size != facts["bytes"]:
            raise FinetraceError(
                f"{file}: {size} instead of {facts['bytes']} bytes; delete the folder {folder} and run its stage again"
            )
    hashes = {name: str(facts["sha256"]) for name, facts in files.items()}
    damaged = (
        next((name for name, digest in hashes.items() if sha256_file(folder / name) != digest), None)
        if every
        else first_damaged(folder, hashes)
    )
    if damaged is not None:
        raise FinetraceError(
            f"{folder / damaged}: its content is not what its stage wrote (damaged or edited); delete the folder "
            f"{folder} and run its stage again (finetrace repro)"
        )


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package).split("+")[0]  # +cpu, +cu128: see device
        except metadata.PackageNotFoundError:
            continue
    installed["finetrace"] = metadata.version("finetrace") if _installed() else "source"
    return installed


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _installed() -> bool:
    try:
        metadata.version("finetrace")
    except metadata.PackageNotFoundError:
        return False
    return True
