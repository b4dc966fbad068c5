"""What every drill script shares: a row of the book, how it ends, and the folder that it works in."""

import argparse
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PASSED, FAILED, CANNOT = "passed", "FAILED", "cannot run here"


class Failed(Exception):
    """The study did something else than is expected; the message says what was seen."""


class CannotRun(Exception):
    """This machine lacks what the drill needs; the message says what."""


@dataclass(frozen=True)
class Row:
    """One row of the book.

    name: unique in its script;  did: what is done to a study;  expected: what has to come of it;  drill: does it in an
    empty folder and returns what was seen, or raises Failed or CannotRun.
    """

    name: str
    did: str
    expected: str
    drill: Callable[[Path], str]


@dataclass(frozen=True)
class Result:
    """How a row ended. end: PASSED, FAILED or CANNOT;  seconds: wall time."""

    script: str
    name: str
    did: str
    expected: str
    saw: str
    end: str
    seconds: float


def must(holds: object, saw: str) -> None:
    """Raise Failed with what was seen unless the condition holds."""
    if not holds:
        raise Failed(saw)


def main(script: str, rows: Sequence[Row]) -> None:
    """Entry point of a drill script: `python -m drills.SCRIPT [--only WORD] [--work FOLDER] [--results FILE]`.

    Prints did, expected and saw of every row, and appends a line of JSON per row to the file of results. Exit code 1
    when a row failed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m drills.{script}")
    parser.add_argument("--only", default="", help="rows whose name holds this word")
    parser.add_argument("--work", type=Path, help="folder to work in, kept afterwards; by default a temporary one")
    parser.add_argument("--results", type=Path, help="file to which a line of JSON is appended per row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drills-", ignore_cleanup_errors=True) as temporary:
        work = (options.work or Path(temporary)).resolve()
        failed = False
        for row in rows:
            if options.only in row.name:
                result = _run(script, row, work)
                failed = failed or result.end == FAILED
                if options.results:
                    with open(options.results, "a", encoding="utf-8") as stream:
                        stream.write(json.dumps(asdict(result)) + "\n")
    raise SystemExit(failed)


def _run(script: str, row: Row, work: Path) -> Result:
    print(f"== {script}: {row.name}\n   did       {row.did}\n   expected  {row.expected}", flush=True)
    began = time.monotonic()
    folder = work / script / row.name.replace(" ", "-").replace("/", "-")
    folder.mkdir(parents=True)
    try:
        saw, end = row.drill(folder), PASSED
    except CannotRun as reason:
        saw, end = str(reason), CANNOT
    except Failed as failure:
        saw, end = str(failure), FAILED
    except Exception as error:  # a drill that breaks has failed, and the others go on
        traceback.print_exc()
        saw, end = f"{type(error).__name__}: {error}"[:600], FAILED
    seconds = round(time.monotonic() - began, 1)
    saw = saw.replace(str(folder), "…")
    print(f"   saw       {saw}\n   {end}, {seconds} s", flush=True)
    return Result(script, row.name, row.did, row.expected, saw, end, seconds)
