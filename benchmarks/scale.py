"""python benchmarks/scale.py [RUNS] -- the plan and the state of a large study: 1,000 fine-tunings x 12 lenses.

Prints CPU seconds of what precedes the first item of `finetrace repro`: `finetrace plan` (params.yaml into plan.yaml
and settings/) from nothing and as it is, and what is out of date: while nothing is made; when everything is made (small
outputs of six files each, and their dvc.lock, are made up), for the first time and again; and of recording an item.
Nothing is trained. Exits with 1 when plan and state of a study that is made take more than 20 s.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from _bars import verdict
from driver import project
from finetrace.layout import Layout
from finetrace.pipeline.compile import compile_study
from finetrace.pipeline.graph import FIRST, opened
from finetrace.pipeline.unchanged import signature

BAR = 20.0  # seconds
FILES = ("manifest.json", "provenance.json", "cost.json", "metrics.json", "curves.csv", "table.parquet")
TASKS, METHODS, LENSES = 5, ("ft", "lp-ft", "lora", "lp-lora"), 12


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory(prefix="finetrace-scale-") as name:
        folder = project(Path(name) / "project")
        (folder / "params.yaml").write_text(yaml.safe_dump(study(runs)))
        layout = Layout(folder, folder)
        os.chdir(folder)
        print(f"{runs} fine-tunings x {LENSES} lenses")
        measured("plan, from nothing", lambda: compile_study(layout))
        measured("state, nothing is made", lambda: out_of_date(layout))
        make_up(layout)
        measured("state, for the first time", lambda: out_of_date(layout))
        planned = measured("plan, as it is", lambda: compile_study(layout))
        state = measured("state, as it is", lambda: out_of_date(layout))
        measured("record one item", lambda: record(layout, "train@micro_task-0_ft_s1"))
        measured("signature of all files", lambda: touched(layout))
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


def out_of_date(layout: Layout) -> None:
    """Print how many items are out of date."""
    with opened(layout.root) as graph:
        number = sum(bool(graph.changes(name)) for name in graph.stages)
    print(f"{len(graph.stages)} items, {number} out of date")


def make_up(layout: Layout) -> None:
    """Outputs of every item, six small files, and a dvc.lock that says so."""
    with opened(layout.root) as graph:
        items = graph.stages
    random = np.random.default_rng(0)
    for name in items.keys() - set(FIRST):
        for path in items[name].writes:
            for file in [path] if path.endswith(".json") else [f"{path}/{file}" for file in FILES]:
                make(layout.root / file, random)
    for path in {path for item in items.values() for path in item.reads}:
        if not (layout.root / path).exists():
            make(layout.root / path, random)  # a manifest of something in a folder
    hashes, lines = dict[str, str](), ["schema: '2.0'", "stages:"]
    for name, item in items.items():
        lines += [f"  {name}:", f"    cmd: {item.command}"]
        for kind, paths in (("deps", item.reads), ("outs", item.writes)):
            lines += [f"    {kind}:"] if paths else []
            for path in sorted(paths):
                md5 = md5_of(layout.root / path, hashes)
                lines += [f"    - path: {path}", "      hash: md5", f"      md5: {md5}", "      size: 400"]
    (layout.root / "dvc.lock").write_text("\n".join(lines) + "\n")


def make(path: Path, random: np.random.Generator) -> None:
    """A small file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.bytes(400))


def md5_of(path: Path, known: dict[str, str]) -> str:
    """As DVC hashes: a folder by the list of its files."""
    if str(path) not in known:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "cost.json"
                           and "__pycache__" not in file.parts and not file.suffix == ".pyc")
            rows = [{"md5": md5_of(file, known), "relpath": file.relative_to(path).as_posix()} for file in files]
            known[str(path)] = hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"
        else:
            known[str(path)] = hashlib.md5(path.read_bytes()).hexdigest()
    return known[str(path)]


def record(layout: Layout, name: str) -> None:
    with opened(layout.root) as graph:
        graph.record([name])


def touched(layout: Layout) -> None:
    """What `finetrace repro` looks at first."""
    with opened(layout.root) as graph:
        paths = graph.paths()
    signature(layout, paths)


def measured(name: str, call: Callable[[], object]) -> float:
    begun, wall = time.process_time(), time.perf_counter()
    call()
    seconds = time.process_time() - begun
    print(f"{name:28} {seconds:7.1f} s of CPU, {time.perf_counter() - wall:7.1f} s", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
