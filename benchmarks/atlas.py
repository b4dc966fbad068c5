"""The stage atlas and its page on a study of hundreds of runs: `python benchmarks/atlas.py [--runs 500]`.

The outputs are made up, in the form in which stages write them: of every run a trajectory with its history, and per
lens a long table with one number for each layer and step, its interval, and the metrics that head columns. Five seeds
make a cell; the content of 20 runs repeats. A process of its own builds the atlas; its seconds and its peak memory are
told, and the bytes of the page and of the parts beside it. Where Playwright for Python and a browser are (--browser),
the page is opened in it, too: seconds until the overview stands, and the median of 20 moves of the timeline's slider,
each until the next frame is drawn. Exits with 1 when a bar is missed.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.outputs import history, manifest
from tests.stages import ask, stage_of

from _bars import verdict
from finetrace.layout import Layout
from finetrace.store.files import write_json
from finetrace.store.manifest import complete

BUILD_SECONDS, BUILD_BYTES, OPEN_SECONDS, MOVE_MS = 60, 2e9, 5, 200
TASKS, METHODS, SEEDS = ("topics", "moods", "pairs", "words"), ("ft", "lp", "lora", "lp-ft", "lp-lora"), 5
CONTENTS, MOVES, POINTS = 20, 20, 500
LENSES: dict[str, tuple[str, dict[str, float]]] = {
    "infodynamics": ("change", {"novelty_mean": 0.2, "slope": 0.1, "slope_null_low": 0.0, "slope_null_high": 0.2,
                                "examples": POINTS}),
    "geometry": ("effective_rank", {"effective_rank/layer-*/first": 90.0, "effective_rank/layer-*/last": 70.0}),
    "similarity": ("cka", {"cka/cls/layer-*/last": 0.5}),
    "hulls": ("clusters", {"clusters/layer-*/first": 9, "clusters/layer-*/last": 2}),
    "probes": ("accuracy", {"best_accuracy/validation/first": 0.7, "best_accuracy/validation/last": 0.8}),
    "calibration": ("ece", {"test/ece": 0.1, "test/ece_scaled": 0.05, "test/accuracy": 0.8}),
    "features": ("diff", {"head_norm/first": 1.0, "validation/diff": 3.0}),
    "kernel": ("ft_ratio", {"ft_ratio/first": 0.9}),
    "convergence": ("distance", {"distance/last": 0.1}),
    "edges": ("f1", {"f1/last": 0.7}),
    "cloze": ("p_at_1", {"p_at_1/last": 0.3}),
    "pairs": ("accuracy", {"accuracy": 0.6}),
}
"""Lens -> statistic of its table, and its metrics."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, usual in (("runs", 500), ("lenses", len(LENSES)), ("layers", 13), ("steps", 50)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--browser", default=shutil.which("chromium"), help="path of a Chromium")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    asked = parser.parse_args()
    if asked.build:
        return build(asked.build)
    with tempfile.TemporaryDirectory(prefix="finetrace-atlas-") as folder:
        root = Path(folder)
        started = time.perf_counter()
        make_study(root, asked.runs, list(LENSES)[:asked.lenses], asked.layers, asked.steps)
        print(f"{asked.runs} runs x {min(asked.lenses, len(LENSES))} lenses x {asked.layers} layers x {asked.steps} "
              f"steps made up in {time.perf_counter() - started:.0f} s", flush=True)
        started = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--build", folder], check=True)
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        page, beside = root / "atlas" / "index.html", list((root / "atlas").glob("parts/*"))
        rows = pq.read_metadata(root / "atlas" / "table.parquet").num_rows
        print(f"{rows:,} rows; index.html {page.stat().st_size:,} bytes, {len(beside)} parts beside it "
              f"{sum(part.stat().st_size for part in beside):,} bytes; {used.ru_utime + used.ru_stime:.1f} s of CPU")
        bars = [(f"built, {seconds / BUILD_SECONDS:.2f} of {BUILD_SECONDS} s", seconds, seconds < BUILD_SECONDS,
                 "{:.1f} s"),
                (f"peak memory, {used.ru_maxrss * 1024 / BUILD_BYTES:.2f} of {BUILD_BYTES / 1e9:g} GB",
                 used.ru_maxrss * 1024 / 1e9, used.ru_maxrss * 1024 < BUILD_BYTES, "{:.2f} GB"),
                *opened(page, asked.browser)]
    return verdict(bars)


def build(root: Path) -> int:
    from finetrace.atlas.stage import main as atlas

    atlas(stage_of(root, "atlas"))
    return 0


def opened(page: Path, browser: str | None) -> Iterator[tuple[str, float, bool, str]]:
    """What a reader waits for; nothing where no browser is at hand."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if not browser:
        print("the page was not opened: Playwright for Python or a browser is not there")
        return
    with sync_playwright() as play:
        tab = play.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        tab.set_default_timeout(120_000)
        tab.on("pageerror", lambda error: sys.exit(f"the page fails: {error}"))
        started = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_function("document.documentElement.dataset.ready === 'overview'")
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        tab.evaluate("location.hash = '#timeline'")
        tab.wait_for_function("document.documentElement.dataset.ready === 'timeline'")
        print(f"timeline opened in {time.perf_counter() - started:.2f} s")
        moves = [tab.evaluate(_MOVE, (i * 7 + 3) / (MOVES * 7)) for i in range(MOVES)]
    yield f"opened, {seconds / OPEN_SECONDS:.2f} of {OPEN_SECONDS} s", seconds, seconds < OPEN_SECONDS, "{:.2f} s"
    middle = statistics.median(moves)
    yield f"slider, {middle / MOVE_MS:.2f} of {MOVE_MS} ms", middle, middle < MOVE_MS, "{:.0f} ms"


_MOVE = """share => {
  const slider = document.querySelector("label.slider input"), started = performance.now();
  slider.value = Math.round(share * slider.max);
  slider.dispatchEvent(new Event("input"));
  return new Promise(drawn => requestAnimationFrame(() => setTimeout(() => drawn(performance.now() - started))));
}"""


def make_study(root: Path, runs: int, lenses: list[str], layers: int, steps: int) -> None:
    """Finished outputs of a study below `root`, and what its stage atlas is asked."""
    names = [(f"model-{cell // (len(TASKS) * len(METHODS))}", TASKS[cell // len(METHODS) % len(TASKS)],
              METHODS[cell % len(METHODS)], seed)
             for cell in range(-(-runs // SEEDS)) for seed in range(1, SEEDS + 1)][:runs]
    layout, seen = Layout(root, root), []
    for number, (model, task, method, seed) in enumerate(names):
        place = layout.run(model, task, method, seed)
        if number < CONTENTS:
            make_place(place, number, lenses, layers, steps)
            seen.append(place)
        else:
            shutil.copytree(seen[number % CONTENTS], place)
    for task in dict.fromkeys(task for _, task, _, _ in names):
        layout.task(task).mkdir(parents=True)
        made = manifest("data", "data", task)
        made.facts = {"rows": {"validation": 200}, "majority_accuracy": 0.5, "bag_of_words_accuracy": 0.6}
        complete(layout.task(task), made)
    trajectories = [dict(zip(("model", "task", "method", "seed"), name, strict=True)) for name in names]
    places = ["{model}/{task}/{method}/s{seed}".format(**each) for each in trajectories]
    ask(root, "atlas", study="scale", trajectories=trajectories, masked=[], pretrained=[], standalone=[],
        looked={lens: places for lens in lenses}, test_split="validation", accepted={},
        params={"study": {"name": "scale", "seed": 0}, "runs": []})


def make_place(folder: Path, number: int, lenses: list[str], layers: int, steps: int) -> None:
    """A trajectory and what its lenses say."""
    facts = {"metric": "accuracy", "steps": steps - 1, "parameters": 12_345, "kept_step": steps - 1}
    metrics = {"validation/accuracy": 0.7 + number / 100, "steps": steps - 1}
    make_folder(folder / "trajectory", "trajectory", history(steps - 1, seed=number, every=1), metrics, facts)
    random = np.random.default_rng(number)
    for lens in lenses:
        statistic, metrics = LENSES[lens]
        made = {name.replace("*", f"{layers - 1:02d}"): value for name, value in metrics.items()}
        (folder / lens).mkdir(parents=True)
        if lens == "infodynamics":
            rows = [f"{x},{0.3 + random.random():.6f},{random.random() - 0.5:.6f}" for x in range(POINTS)]
            (folder / lens / "curves.csv").write_text("\n".join(["example,novelty,resonance", *rows]) + "\n")
        make_folder(folder / lens, "lens", lens_table(lens, statistic, layers, steps, random), made, {})


def lens_table(lens: str, statistic: str, layers: int, steps: int, random: np.random.Generator) -> pa.Table:
    """A row for every step and layer: a course with noise, and its interval."""
    step, layer = (axis.ravel() for axis in np.meshgrid(np.arange(steps), np.arange(layers), indexing="ij"))
    value = np.tanh(step / steps * (1 + layer)) + 0.05 * random.normal(size=len(step))
    columns: dict[str, Any] = {"step": step, "layer": layer, "split": ["validation"] * len(step)}
    if lens == "calibration":
        columns |= {"set": ["test"] * len(step), "scaled": np.zeros(len(step), bool)}
    return pa.table(columns | {"statistic": [statistic] * len(step), "value": value, "low": value - 0.1,
                               "high": value + 0.1, "n": np.full(len(step), 200)})


def make_folder(folder: Path, kind: str, table: pa.Table, metrics: dict[str, float], facts: dict[str, Any]) -> None:
    """A finished folder with one table and its metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / ("history.parquet" if kind == "trajectory" else "table.parquet"))
    write_json(folder / "metrics.json", json.loads(json.dumps(metrics)))
    made = manifest(kind, "train" if kind == "trajectory" else folder.name, "x")
    made.facts = facts
    complete(folder, made)


if __name__ == "__main__":
    sys.exit(main())
