"""Finding the files of tasks whose source does not have one file per split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from finetrace.config.data import RowsSettings
from finetrace.data.examples import Annotated
from finetrace.errors import FinetraceError

T = TypeVar("T")
THEIRS = {"train": "train", "validation": "dev", "test": "test"}
"""Our split -> its usual name in files that name the split of each example."""


def files_below(base: Path, *names: str) -> list[Path]:
    """Files in a folder and those below it whose name fits one of the patterns, whatever its case; sorted.
    A file is itself."""
    if base.is_file():
        return [base]
    from fnmatch import fnmatchcase

    return [p for p in sorted(base.rglob("*")) if p.is_file()
            and any(fnmatchcase(p.name.lower(), n.lower()) for n in names)]


def one_file(name: str, base: Path, *names: str) -> Path:
    """The one file whose name fits. Raises FinetraceError when there is none, or several."""
    files = files_below(base, *names)
    if len(files) != 1:
        shown = ", ".join(str(p.relative_to(base)) for p in files[:5])
        problem = f"{shown} could all be the one that is read" if files else f"has no file {' or '.join(names)}"
        raise FinetraceError(f"{name}: {base}: {problem}; let `path` name the file, or a folder with one only")
    return files[0]


def our_splits(name: str, task: RowsSettings, parts: Mapping[str, T], only: str | None,
               usual: Mapping[str, str] = THEIRS,
               ) -> dict[str, T]:
    """Splits of a source under our names: as `splits` says, else by their usual names.

    parts: the source's own name -> what it has;  only: the one of our splits that is wanted. Raises FinetraceError when
    a split that is named or wanted is not there, or none is.
    """
    wanted = task.splits or {split: source_split for split, source_split in usual.items() if source_split in parts}
    if only:
        if only not in wanted and (task.splits or only not in usual):
            raise FinetraceError(f"{name}: there is no split {only}; name it in `splits`, or choose another with "
                                 f"`split`; there are: {', '.join(wanted) or 'none'}")
        wanted = {only: wanted.get(only, usual.get(only, only))}
    for split, source_split in wanted.items():
        if source_split not in parts:
            raise FinetraceError(f"{name}: splits.{split}: the source has no split {source_split!r}; it has "
                                 f"{', '.join(parts) or 'none'}; set `splits`")
    if not wanted:
        raise FinetraceError(f"{name}: the source has none of the splits {', '.join(usual.values())}, but "
                             f"{', '.join(parts) or 'none'}; set `splits`")
    return {split: parts[source_split] for split, source_split in wanted.items()}


def with_origin(splits: dict[str, Annotated], origin: dict[str, Any]) -> dict[str, Annotated]:
    """The splits, each of which knows what was read."""
    for part in splits.values():
        part.origin = dict(origin)
    return splits
