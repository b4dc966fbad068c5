"""`finetrace look`: options, a table in the terminal, a page and its numbers in a folder."""

import argparse
import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.first_look.request import LENSES, Request

OUT = Path("first-look")
PAGE, TABLE = "index.html", "table.parquet"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("model", nargs="+", help="folder of a model or of a checkpoint, or hub id, perhaps ID@REVISION")
    parser.add_argument("--task", required=True, help="a built-in task such as sst2, a folder data/TASK, or a csv, "
                        "tsv, jsonl or Parquet file (or a folder of them) with texts and labels")
    parser.add_argument("--rows", type=int, default=200, help="at most so many rows of train, and as many of "
                        "validation; 0: all (default 200)")
    parser.add_argument("--lens", default=",".join(LENSES), help=f"lenses with commas between (default: all: "
                        f"{','.join(LENSES)})")
    parser.add_argument("--text", nargs="+", default=[], metavar="COLUMN", help="of a file: column with the text, or "
                        "two columns of a pair")
    parser.add_argument("--label", metavar="COLUMN", help="of a file: column with the label")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="keys", help="a key of a task "
                        "as in a study, with its value as in YAML: quoting=standard, or "
                        "'label_values={\"-1\": negative, \"1\": positive}' (docs/use.md, Tasks); may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of rows (default 0)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for {PAGE} and {TABLE} (default {OUT})")
    parser.add_argument("--save", type=Path, metavar="STUDY.yaml", help="also write the study that looks at the same "
                        "models in full")


def run(options: argparse.Namespace) -> int:
    """Look, print the table, write the folder; exit code 0."""
    with _log_on_terminal():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    lenses = tuple(dict.fromkeys(name.strip() for name in options.lens.split(",") if name.strip()))
    request = Request(tuple(options.model), options.task, options.rows, lenses, tuple(options.text), options.label,
                      options.seed, tuple(_key(text) for text in options.keys))
    for path, kind in ((options.out, "folder"), (options.save, "file")):
        if path is not None and path.exists() and path.is_dir() != (kind == "folder"):
            raise FinetraceError(f"{path}: is no {kind}; name another one")
    if options.save is not None and options.save.exists():
        raise FinetraceError(f"{options.save}: is there already; name a file that is not")
    from finetrace.first_look.run import long_table, look

    result = look(request)
    from finetrace.first_look.numbers import terminal_table
    from finetrace.first_look.page import page
    from finetrace.store.files import write_text
    from finetrace.store.tables import write_table

    command = f"finetrace look {shlex.join(sys.argv[2:] if sys.argv[1:2] == ['look'] else [])}".rstrip()
    study = ""
    if options.save is not None:
        from finetrace.first_look.study import study_of

        study = study_of(result, command, _project())
    text = page(result, command)
    write_table(options.out / TABLE, long_table(result))
    write_text(options.out / PAGE, text)
    print(terminal_table(result))
    for note in result.notes:
        print(note)
    print(f"\nwritten: {options.out / PAGE} ({result.seconds:.0f} s)")
    if study:
        write_text(options.save, study)
        name = options.save if _project() else options.save.resolve()
        print(f"written: {options.save}; in a project: finetrace use {shlex.quote(str(name))}, then finetrace repro")
    return 0


def _key(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`."""
    import yaml

    key, equals, value = text.partition("=")
    try:
        if equals and key.strip():
            return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise FinetraceError(f"--set {text}: is no KEY=VALUE with a value as in YAML, such as quoting=standard")


def _project() -> Path | None:
    """The project folder in which the command runs, if it does."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents)
                 if (folder / "dvc.yaml").is_file() and (folder / "pipelines").is_dir()), None)


@contextlib.contextmanager
def _log_on_terminal() -> Iterator[None]:
    """What is logged meanwhile goes to the terminal as it is; what the fetching of a model says of trainings does
    not."""
    logger, handler = logging.getLogger("finetrace"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: not record.name.startswith("finetrace.models.fetch"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
