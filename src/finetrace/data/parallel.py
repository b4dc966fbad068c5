"""Files side by side: a column each, line n of all of them is row n (setting `files`)."""

from pathlib import Path

from finetrace.config.data import RowsSettings
from finetrace.data.readers import Rows, base_of, decode
from finetrace.errors import FinetraceError


def read_parallel(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Rows]:
    """The rows of every split; only: the one split that is wanted.

    A last line break ends the last line; blank lines are rows with an empty value. Raises FinetraceError naming the
    files, also with their numbers of lines, where these differ.
    """
    base = base_of(name, task, root)
    files = task.files or {}
    if not base.is_dir():
        raise FinetraceError(f"{name}: path is one file, and `files` names several; give their folder as path")
    if only and only not in files:
        raise FinetraceError(f"{name}: there is no split {only}; name it in `files`, or choose another with `split`")
    return {split: _read(f"{name}: files.{split}", base, columns, task.encoding or "utf-8")
            for split, columns in files.items() if only in (None, split)}


def _read(where: str, base: Path, columns: dict[str, str], encoding: str) -> Rows:
    from finetrace.store.files import sha256_file

    paths = {column: base / file for column, file in columns.items()}
    for column, path in paths.items():
        if not path.resolve().is_relative_to(base):
            raise FinetraceError(f"{where}.{column}: {columns[column]!r} leaves the folder {base}")
        if not path.is_file():
            raise FinetraceError(f"{where}.{column}: {path} is no file; name one of the folder")
    lines = {column: _lines(decode(path, encoding)) for column, path in paths.items()}
    if len({len(column_lines) for column_lines in lines.values()}) > 1:
        counts = ", ".join(f"{paths[column]} has {len(column_lines):,}" for column, column_lines in lines.items())
        raise FinetraceError(f"{where}: its files have different numbers of lines, and line n of each is row n: "
                             f"{counts}; mend the files")
    first = next(iter(paths.values()))
    values = [dict(zip(lines, row, strict=True)) for row in zip(*lines.values(), strict=True)]
    return Rows(list(columns), values, [f"{first} line {i}" for i in range(1, len(values) + 1)],
                {"file": ", ".join(path.name for path in paths.values()),
                 "sha256": {column: sha256_file(path) for column, path in paths.items()}})


def _lines(text: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
