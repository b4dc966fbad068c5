"""python -m drills.book [SCRIPT ...] -- run the drills, print the table, write it as Markdown for docs/drills.md.

Exit code 0: no row failed (rows that this machine cannot run are told, and do not count as passed); 1: some did.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from drills.frame import CANNOT, FAILED, PASSED, Result, Row
from drills.toy import family, kill

ROOT = Path(__file__).parents[1]
OUT = ROOT / ".finetrace" / "drills.md"
HEAD = """# The drill book

Faults made on purpose around a whole toy study, from outside, by the commands that a user has: what was done, what has
to come of it, what was seen. `make drills` runs all of them and writes this page to `.finetrace/drills.md`;
`make drills only=hub` runs one script of `drills/` and renews its rows of the page;
`.venv/bin/python -m drills.machine --only "disk full"` runs one drill, without the page. What a machine cannot do
(containers, mounts of its own) is said and does not count as passed.

"""
SCRIPTS = {"hub": "The hub", "kills": "Kills", "damage": "Damaged files", "machine": "The machine",
           "inputs": "Wrong input", "security": "Security", "server": "A server and a remote",
           "install": "Other machines, speed"}
"""Script -> its heading in the book. The rows are the scripts' own lists ROWS."""
HEADINGS = ("drill", "did", "expected", "saw", "end")
SECONDS = {"hub": 600, "kills": 1500, "damage": 900, "machine": 1500, "inputs": 600, "security": 900, "server": 900,
           "install": 3600}
"""What a script may take at most; it is ended then, and the rows that it did not reach have failed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m drills.book", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"scripts to run, of {', '.join(SCRIPTS)}; by default all")
    parser.add_argument("--out", type=Path, default=OUT, help="file for the table as Markdown")
    options = parser.parse_args()
    if unknown := set(options.only) - set(SCRIPTS):
        parser.error(f"there is no script {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = options.out.with_suffix(".json")
    results = json.loads(known.read_text("utf-8")) if options.only and known.is_file() else {}
    now = []
    with tempfile.TemporaryDirectory(prefix="drills-", ignore_cleanup_errors=True) as work:
        for script in options.only or SCRIPTS:
            now += _run(script, Path(work))
            results[script] = [asdict(result) for result in now if result.script == script]
            known.write_text(json.dumps(results), "utf-8")
    text = _markdown([Result(**result) for script in SCRIPTS for result in results.get(script, [])])
    options.out.write_text(text, "utf-8")
    print(text)
    print(f"written: {options.out}")
    return int(any(result.end == FAILED for result in now))


def _run(script: str, work: Path) -> list[Result]:
    """Run a script in a process of its own; what it does not tell of has failed."""
    file = work / f"{script}.jsonl"
    words = [sys.executable, "-m", f"drills.{script}", "--work", str(work), "--results", str(file)]
    variables = {**os.environ, "DRILLS_FINISHED": str(work / "finished")}
    ended = "the script ended before"
    running = subprocess.Popen(words, cwd=ROOT, env=variables)
    try:
        running.wait(SECONDS[script])
    except subprocess.TimeoutExpired:
        kill(family(running.pid))
        running.wait()
        ended = f"not reached in {SECONDS[script]} s"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    told = {result.name: result for result in (Result(**json.loads(line)) for line in lines)}
    rows: Sequence[Row] = import_module(f"drills.{script}").ROWS
    shutil.rmtree(work / script, ignore_errors=True)
    return [told.get(row.name) or Result(script, row.name, row.did, row.expected, ended, FAILED, 0.0) for row in rows]


def _markdown(results: Sequence[Result]) -> str:
    ends = Counter(result.end for result in results)
    minutes = sum(result.seconds for result in results) / 60
    text = (f"{HEAD}{len(results)} drills in {minutes:.0f} minutes: {ends[PASSED]} passed, {ends[FAILED]} failed, "
            f"{ends[CANNOT]} could not run on the machine.\n")
    for script, heading in SCRIPTS.items():
        cells = [[result.name, result.did, result.expected, result.saw, _end(result)] for result in results
                 if result.script == script]
        if cells:
            text += f"\n## {heading}\n\n{_line(HEADINGS)}{_line(['---'] * len(HEADINGS))}"
            text += "".join(_line([cell.replace("|", "\\|").replace("\n", " ") for cell in row]) for row in cells)
    return text


def _line(cells: Sequence[str]) -> str:
    """A row of a table, not padded: what was seen is long."""
    return f"| {' | '.join(cells)} |\n"


def _end(result: Result) -> str:
    return result.end if result.end == CANNOT else f"{result.end}, {result.seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
