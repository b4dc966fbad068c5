"""python benchmarks/scale.py [RUNS] -- the plan and the state of a large study: 1,000 fine-tunings x 12 lenses.

Prints seconds of what precedes the first item of `finetrace repro`: `finetrace plan` (params.yaml into plan.yaml and
settings/), DVC's graph of all items, and what is out of date, from nothing and once the plan is there. Nothing is
trained. Exits with 1 when plan and state of a plan that is there take more than 20 s.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import yaml

from _bars import verdict
from driver import project
from finetrace.layout import Layout
from finetrace.pipeline.compile import compile_study
from finetrace.pipeline.graph import FIRST, opened

BAR = 20.0  # seconds
TASKS, METHODS, LENSES = 5, ("ft", "lp-ft", "lora", "lp-lora"), 12
T = TypeVar("T")


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory(prefix="finetrace-scale-") as name:
        folder = project(Path(name) / "project")
        (folder / "params.yaml").write_text(yaml.safe_dump(study(runs)))
        layout = Layout(folder, folder)
        print(f"{runs} fine-tunings x {LENSES} lenses")
        measured("plan, from nothing", lambda: compile_study(layout))
        planned = measured("plan, as it is", lambda: compile_study(layout))
        state = measured("state of all items", lambda: out_of_date(layout))
    return verdict([(f"plan and state, bar {BAR:.0f} s", planned + state, planned + state <= BAR, "{:.1f} s")])


def study(runs: int) -> dict[str, object]:
    """So many fine-tunings of one micro-BERT, all of which every lens of single fine-tunings looks at."""
    tasks = {f"task-{number}": {"source": "hub", "id": f"nobody/task-{number}", "text": ["text"], "label": "label"}
             for number in range(TASKS)}
    seeds = runs // (TASKS * len(METHODS))
    return {
        "study": {"name": "scale"},
        "pretrain": {"micro": {"corpus": "world", "seed": 1}},
        "tasks": {**tasks, "micro-pos": {"source": "micro"}},
        "facts": {"micro-facts": {"source": "world"}},
        "minimal_pairs": {"micro-pairs": {"source": "world"}},
        "runs": [{"model": "micro", "task": list(tasks), "method": list(METHODS), "seed": list(range(1, seeds + 1))}],
        "look": {lens: ["micro/*/*/*"] for lens in (
            "infodynamics", "geometry", "similarity", "hulls", "probes", "convergence", "calibration", "features",
            "kernel", "edges", "cloze", "pairs")},
        "edges": {"tasks": ["micro-pos"]},
    }


def out_of_date(layout: Layout) -> int:
    """How many items are out of date."""
    with opened(layout.root) as graph:
        number = sum(bool(graph.changes(name)) for name in graph.stages if name not in FIRST)
    print(f"{len(graph.stages) - len(FIRST)} items, {number} out of date")
    return number


def measured(name: str, call: Callable[[], T]) -> float:
    begun = time.perf_counter()
    call()
    seconds = time.perf_counter() - begun
    print(f"{name:24} {seconds:7.1f} s", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
