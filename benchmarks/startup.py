"""python benchmarks/startup.py -- start-up costs against their bars.

Import of finetrace, of a stage that needs only numpy, a repro with nothing to do (run `make repro` first). Reference in
the same run: starting Python, and importing torch. Exits with 1 when a bar is missed.
"""

import subprocess
import sys
import time
from pathlib import Path

from _bars import verdict

ROOT = Path(__file__).parents[1]


def seconds(*words: str, repeats: int = 5) -> float:
    """The fastest of several runs of a command, in seconds of wall time."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> int:
    python = seconds(sys.executable, "-c", "pass")
    torch = seconds(sys.executable, "-c", "import torch", repeats=2) - python
    bare = seconds(sys.executable, "-c", "import finetrace") - python
    lens = (seconds(sys.executable, "-c", "import finetrace.pipeline.stage, finetrace.lenses.infodynamics.measures")
            - python)
    print(f"start of Python                      {python:6.3f} s")
    print(f"import torch (reference)             {torch:6.3f} s")
    print(f"import finetrace                     {bare:6.3f} s   {bare / torch:6.1%} of torch")
    print(f"import of a numpy-only stage         {lens:6.3f} s   {lens / torch:6.1%} of torch")
    bars = [("import finetrace, bar 0.2 s", bare, bare < 0.2, "{:.3f} s"),
            ("import of a numpy-only stage, bar 1.0 s", lens, lens < 1.0, "{:.3f} s")]
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet"], cwd=ROOT, check=False).returncode
    if status == 0:
        nothing = seconds(sys.executable, "-m", "dvc", "repro", repeats=2)
        driver = seconds(sys.executable, "-m", "finetrace.cli", "repro", repeats=2)
        print(f"dvc repro with nothing to do         {nothing:6.3f} s")
        print(f"finetrace repro with nothing to do   {driver:6.3f} s   {driver / nothing:6.1%} of dvc")
        bars += [("dvc repro with nothing to do, bar 5.0 s", nothing, nothing < 5.0, "{:.3f} s"),
                 ("finetrace repro with nothing to do, bar 2.5 s", driver, driver < 2.5, "{:.3f} s")]
    else:
        print("repro with nothing to do             not measured: the study is not up to date; run `make repro` first")
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
