"""Manifests: what made a folder. A folder without its manifest, or without the files that it lists, is refused."""

import dataclasses
import json
import platform
import resource
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.store.files import sha256_file, sha256_folder, sha256_value, write_json

SCHEMA_VERSION = 1
NAME = "manifest.json"
CONTENT = "content.json"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "optuna", "numpy", "scipy", "scikit-learn", "pyarrow",
            "tokenizers", "safetensors")


@dataclasses.dataclass
class Manifest:
    """What made a folder.

    kind: world | model | data | settings | trajectory | hidden | lens | atlas;  stage, name: the DVC stage `stage@name`;
    key: hash of stage, settings, inputs and code (identity of the content asked for, equal on every machine);
    settings: what the user asked for;  inputs: project path -> SHA-256;  seeds: purpose -> integer;
    facts: numbers and texts about the result (row counts, label shares, steps ...);  device: cpu or the GPU's name;
    started_at_ms: Unix time in milliseconds;  wall_seconds, peak_memory_bytes: cost;  files: name -> {bytes, sha256}.
    """

    kind: str
    stage: str
    name: str
    study: str
    key: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    seeds: dict[str, int]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: str = "cpu"
    started_at_ms: int = 0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    code: str = ""
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def make_key(stage: str, settings: Any, inputs: Mapping[str, str], code: str) -> str:
    """Identity of a piece of work: equal on every machine when stage, settings, inputs and code are equal."""
    return sha256_value({"stage": stage, "settings": settings, "inputs": dict(inputs), "code": code})


def code_digest(root: Path, *rooms: str) -> str:
    """Hash of source files or folders, e.g. `code_digest(package, "training", "models")`."""
    return sha256_value({r: sha256_folder(root / r) if (root / r).is_dir() else sha256_file(root / r) for r in rooms})


def write_content(folder: Path, manifest: Manifest) -> None:
    """Write content.json: facts and hashes of the files, and nothing that differs between two runs.

    Stages that build on a folder depend on this file (dvc.yaml), so that making equal content again does not re-run them.
    """
    write_json(folder / CONTENT, {"facts": manifest.facts, "files": {
        p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != NAME}})


def complete(folder: Path, manifest: Manifest, *, started: float | None = None) -> None:
    """List the folder's files in its manifest and write it: from now on readers accept the folder.

    started: `time.time()` at the start of the work; fills wall_seconds and started_at_ms where they are not set.
    """
    if started is not None:
        manifest.started_at_ms = manifest.started_at_ms or int(started * 1000)
        manifest.wall_seconds = manifest.wall_seconds or round(time.time() - started, 3)
    manifest.peak_memory_bytes = manifest.peak_memory_bytes or peak_memory_bytes()
    manifest.versions = manifest.versions or versions()
    manifest.files = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in sorted(folder.rglob("*")) if p.is_file() and p.name != NAME
    }
    write_json(folder / NAME, dataclasses.asdict(manifest))


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """Read a folder's manifest and check that the files it lists are there in full size.

    Raises FinetraceError when the folder is absent, has no manifest (its writer did not finish), was written by a
    newer finetrace, or lacks a file or bytes.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise FinetraceError(f"{folder}: no such folder; run the stage that writes it (dvc repro)")
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{folder}: has no {NAME}, so its writer did not finish; run its stage again") from error
    except ValueError as error:
        raise FinetraceError(f"{path}: not valid JSON ({error}); delete the folder and run its stage again") from error
    if not isinstance(content, dict):
        raise FinetraceError(f"{path}: is not a manifest (no JSON object); delete the folder and run its stage again")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise FinetraceError(f"{path}: schema_version {content.get('schema_version')} is not {SCHEMA_VERSION}; "
                             "run its stage again with this version of finetrace")
    known = {f.name for f in dataclasses.fields(Manifest)}
    if missing := [f.name for f in dataclasses.fields(Manifest) if _required(f) and f.name not in content]:
        raise FinetraceError(f"{path}: lacks {', '.join(missing)}; delete the folder and run its stage again")
    manifest = Manifest(**{k: v for k, v in content.items() if k in known})
    if verify:
        for name, facts in manifest.files.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != facts["bytes"]:
                size = file.stat().st_size if file.is_file() else "absent"
                raise FinetraceError(f"{file}: {size} instead of {facts['bytes']} bytes; delete the folder {folder} "
                                     "and run its stage again")
    return manifest


def read_key(folder: Path) -> str:
    """The content hash of a finished folder: what a downstream stage records as its input.

    It covers the bytes of the files, not the manifest's times and costs.
    """
    files = read_manifest(folder).files
    return sha256_value({n: f["sha256"] for n, f in files.items() if not n.endswith("timing.parquet")})


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version(), "platform": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found["finetrace"] = metadata.version("finetrace") if _installed() else "source"
    return found


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _installed() -> bool:
    try:
        metadata.version("finetrace")
    except metadata.PackageNotFoundError:
        return False
    return True
