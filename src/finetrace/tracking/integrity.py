"""Whether every byte of a project is the one that was written: for `finetrace doctor --verify`."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.checkpoints import damage
from finetrace.store.dvc_cache import damaged_objects
from finetrace.store.files import sha256_file
from finetrace.store.manifest import NAME, UNHASHED, read_manifest
from finetrace.store.tables import read_table

ELSEWHERE = {".git", ".dvc", ".finetrace", ".venv", "inputs", "mlruns", "src", "tests"}
"""Folders of a project that hold no finished results: `inputs` has copies of manifests."""


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written, and what to do. serious: whether it is more than unfinished work."""

    text: str
    fix: str
    serious: bool = True


def damaged(layout: Layout) -> Iterator[Damage]:
    """Hash everything: finished folders, what is kept for later, unfinished work, DVC's cache."""
    roots = sorted(p for p in layout.root.iterdir() if p.is_dir() and p.name not in ELSEWHERE)
    for folder in finished(roots):
        name = layout.relative(folder)
        for text in _folder_damage(folder):
            yield Damage(text, f"rm -r {name} && finetrace repro")
    private_folder = layout.home / ".finetrace"
    for folder in finished([private_folder / "measured", private_folder / "results"]):
        for text in _folder_damage(folder):
            yield Damage(text, f"rm -r {folder}; it is made again when it is needed")
    for folder in sorted([*private_folder.glob("scratch/**/checkpoint-*"), *private_folder.glob("scratch/**/step-*")]):
        if (damaged_file := damage(folder)) is not None and any(folder.glob("*.json")):
            yield Damage(f"{damaged_file}: is damaged or incomplete, in unfinished work",
                         "nothing; the next run goes on from an earlier state", serious=False)
    for file in damaged_objects(layout.home / ".dvc"):
        yield Damage(f"{file}: is damaged, in DVC's cache", f"rm {file} && finetrace repro")


def finished(roots: Iterable[Path]) -> Iterator[Path]:
    """All folders at or below `roots` that have a manifest; links to folders are not followed."""
    for root in roots:
        for folder, subfolders, files in os.walk(root):
            subfolders.sort()
            if NAME in files:
                yield Path(folder)


def _folder_damage(folder: Path) -> Iterator[str]:
    """What is wrong with one finished folder, a sentence each."""
    try:
        manifest = read_manifest(folder, verify=False)
    except FinetraceError as error:
        yield str(error).partition("; ")[0]
        return
    for name, facts in manifest.files.items():
        file = folder / name
        if not file.is_file():
            yield f"{file}: is gone"
        elif file.stat().st_size != facts["bytes"] or sha256_file(file) != facts["sha256"]:
            yield f"{file}: its content is not what its stage wrote (damaged or edited)"
    for name in UNHASHED:
        file = folder / name
        if file.suffix == ".parquet" and file.is_file():
            try:
                read_table(file)
            except FinetraceError as error:
                yield str(error).partition("; ")[0]
