"""Choosing a study: its file is copied to params.yaml, and what was copied is remembered."""

import json
import subprocess
from pathlib import Path

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.files import sha256_file, write_bytes, write_json
from finetrace.study.plan import names_of
from finetrace.study.read import load_study


def use(layout: Layout, name: str, *, force: bool = False) -> str:
    """Check a study, a file or a name in studies/, and make it the project's own; a line about it.

    Raises FinetraceError for a study that is absent or wrong, and when params.yaml holds changes that are saved
    nowhere.
    """
    path = _find(layout, name)
    study = load_study(path)
    items = len(names_of(study))  # everything that could fail later fails here
    content = path.read_bytes()
    if layout.params.is_file() and not force and layout.params.read_bytes() != content and _unsaved(layout):
        raise FinetraceError(
            "params.yaml: has changes that are saved nowhere; save them as a study first "
            "(cp params.yaml studies/NAME.yaml) or overwrite them with --force"
        )
    _copy(layout, path, content)
    return (
        f"params.yaml is now {_shown(layout, path)}: study {study.study.name!r}, {len(study.trajectories)} "
        f"fine-tunings, {items} items; next: finetrace repro"
    )


def follow(layout: Layout) -> None:
    """Take over a chosen study that has been edited since, as long as params.yaml itself was not; says what it does."""
    chosen = _chosen(layout)
    path = chosen_file(layout)
    if chosen is None or path is None or not layout.params.is_file() or sha256_file(path) == chosen["sha256"]:
        return
    if sha256_file(layout.params) == chosen["sha256"]:
        load_study(path)
        _copy(layout, path, path.read_bytes())
        print(f"{chosen['study']} has changed since it was chosen: params.yaml is that again")
    elif layout.params.read_bytes() != path.read_bytes():
        print(f"{chosen['study']} has changed since it was chosen, and so has params.yaml, which is what runs; "
              f"finetrace use {chosen['study']} --force takes the study instead")


def chosen_file(layout: Layout) -> Path | None:
    """The file of the study that was chosen last, where it is there."""
    chosen = _chosen(layout)
    path = None if chosen is None else layout.root / chosen["study"]
    return path if path is not None and path.is_file() else None


def _find(layout: Layout, name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    path = layout.root / "studies" / f"{path.name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise FinetraceError(f"no study {name!r}; there are: {known}")
    return path


def _copy(layout: Layout, path: Path, content: bytes) -> None:
    write_bytes(layout.params, content)
    write_json(_memory(layout), {"study": _shown(layout, path), "sha256": sha256_file(layout.params)})


def _memory(layout: Layout) -> Path:
    return layout.home / ".finetrace" / "study.json"


def _chosen(layout: Layout) -> dict[str, str] | None:
    """The study that was chosen last, and the hash of what was copied."""
    try:
        content = json.loads(_memory(layout).read_text("utf-8"))
        return {"study": str(content["study"]), "sha256": str(content["sha256"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _shown(layout: Layout, path: Path) -> str:
    absolute = path.resolve()
    root = layout.root.resolve()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(path)


def _unsaved(layout: Layout) -> bool:
    """Whether params.yaml is neither what was chosen, nor what git has, nor any file of studies/."""
    content = layout.params.read_bytes()
    chosen = _chosen(layout)
    if chosen is not None and sha256_file(layout.params) == chosen["sha256"]:
        return False
    if any(path.read_bytes() == content for path in (layout.root / "studies").glob("*.yaml")):
        return False
    try:
        committed = subprocess.run(["git", "-C", str(layout.root), "show", "HEAD:./params.yaml"], capture_output=True)
    except FileNotFoundError:
        return True
    return committed.returncode != 0 or committed.stdout != content
