"""python benchmarks/_all.py [--full] [NAME ...] -- every benchmark, one after the other, and a table at the end.

The long ones are made short: fewer samples, seeds, runs; `--full` runs each as it stands. Each says what it is held
against, both times, their ratio and the limit while it runs; the table at the end repeats the lines that say whether a
limit was kept, with the seconds of processor that each took. Exits with 1 when one was missed or failed.
"""

import argparse
import re
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from _bars import NOT_MEASURED

FOLDER = Path(__file__).resolve().parent
SHORT: dict[str, list[str]] = {
    "atlas": ["--runs", "100"],
    "coverage": ["--samples", "200", "--examples", "277", "--only", "words", "micro_f1", "proper_scores", "slopes"],
    "grounding": ["--seeds", "20", "--examples", "150"],
    "influence_truth": ["--halves", "10"],
    "pairs": ["--pairs", "30", "--reference", "6"],
    "recording": ["--quick"],
    "scale": ["120"],
    "trace": ["--quick"],
}
"""Arguments of those that take more than two minutes."""
KEPT = re.compile(r"^\s*(PASS|FAIL|ok |MISS|bar (NOT )?met)|\((?:bar|limit) ")


@dataclass
class Outcome:
    """What one benchmark came to. processor: seconds;  lines: those that tell of limits."""

    name: str
    processor: float
    word: str
    lines: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="of benchmarks; all unless said")
    parser.add_argument("--full", action="store_true", help="as they stand, however long that takes")
    asked = parser.parse_args()
    names = asked.names or sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))
    outcomes = [run(name, [] if asked.full else SHORT.get(name, [])) for name in names]
    print(f"\n{'benchmark':16} {'processor':>10}  {'':12} limits")
    for outcome in outcomes:
        for number, line in enumerate(outcome.lines or [""]):
            head = f"{outcome.name:16} {outcome.processor:8.0f} s  {outcome.word:12}" if not number else " " * 41
            print(f"{head} {line}")
    print(f"{'together':16} {sum(outcome.processor for outcome in outcomes):8.0f} s")
    return int(any(outcome.word == "MISSED" for outcome in outcomes))


def run(name: str, arguments: list[str]) -> Outcome:
    """Run a benchmark; what it prints is shown as it comes."""
    print(f"== {' '.join([name, *arguments])}", flush=True)
    before = processor()
    lines: list[str] = []
    with subprocess.Popen([sys.executable, str(FOLDER / f"{name}.py"), *arguments], stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if KEPT.search(line):
                lines.append(" ".join(line.split()))
    word = {0: "met", NOT_MEASURED: "not measured"}.get(process.returncode, "MISSED")
    return Outcome(name, processor() - before, word, lines)


def processor() -> float:
    """Seconds of processor that ended children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
