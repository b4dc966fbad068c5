"""Speed of `finetrace publish` on a synthetic study: `python benchmarks/publish.py [--runs 60]`.

Every training has curves of at most 120 points and every lens two of 200, besides final numbers, params, tags and
artifacts: about as many points per run as the default study has (580).
Publishing uses MLflow's client; two references say what that costs: the naive way, one `log_metric` per point, timed on
a slice and extrapolated to the same number of points, and the floor, the same points of nameless runs by `log_batch` in
calls of 1,000. The time per run is also told for the 170 runs of a study; and, in a second store, that of trainings
without runs of lenses (`tracking.lens_runs: false`) for 1,000 of them. Exits with 1 when a bar is missed.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.outputs import make_project

from finetrace.tracking.points import Point
from finetrace.tracking.publish import publish
from finetrace.tracking.store import Store, open_store, prepare_environment, tracking_uri

STUDY_RUNS = 170  # of the default study
LARGE_STUDY_TRAININGS, BAR_LARGE_STUDY_SECONDS = 1000, 900
BAR_STUDY_SECONDS, BAR_NOTHING_NEW_SECONDS, BAR_RATIO = 45, 1.0, 5
STEPS, EXAMPLES = 120, 400  # of a training, of a lens's x axis
SLICE = 200  # points


def measured(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds of this process, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=60, help="number of trainings plus lenses (default 60)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetrace-") as folder:
        home = Path(folder, "project")
        layout, study = make_project(home, seeds=tuple(range(1, options.runs // 2 + 1)), steps=STEPS, examples=EXAMPLES)
        prepare_environment()
        wall_import, _, _ = measured(_import)
        wall_open, _, store = measured(lambda: open_store(tracking_uri(study.tracking, home), home, study.study.name))
        wall, cpu, done = measured(lambda: publish(layout, study, say=lambda line: None))
        nothing = [measured(lambda: publish(layout, study, say=lambda line: None)) for _ in range(3)]
        runs = [store.client.get_run(r.run_id) for r in store.runs()]
        points = sum(len(store.client.get_metric_history(r.info.run_id, k)) for r in runs for k in r.data.metrics)
        run_id = store.client.create_run(store.experiment_id).info.run_id
        log = store.client.log_metric
        naive, _, _ = measured(lambda: [log(run_id, "train/loss", step / 7, step, step) for step in range(SLICE)])
        floor, _, _ = measured(lambda: _bare_points(store, points))
        few_study = dataclasses.replace(study, tracking=dataclasses.replace(
            study.tracking, uri=f"sqlite:///{home / 'few.db'}", lens_runs=False))
        wall_few, cpu_few, few = measured(lambda: publish(layout, few_study, say=lambda line: None))
    assert not any(d.new or d.completed for _, _, d in nothing)
    per_run, no_op, ratio = wall / len(done.new), min(n[0] for n in nothing), naive / SLICE * points / wall
    unit = f"s for {STUDY_RUNS} runs"
    print(f"import of mlflow {wall_import:.2f} s, creation of the store {wall_open:.2f} s")
    print(f"{len(done.new)} runs, {points} points: {wall:.2f} s wall, {cpu:.2f} s CPU, {per_run:.3f} s per run; "
          f"its points alone by log_batch: {floor:.2f} s, {1000 * floor / points:.3f} ms each")
    per_training = wall_few / len(few.new)
    print(f"{len(few.new)} runs, none of them of lenses: {wall_few:.2f} s wall, {cpu_few:.2f} s CPU")
    bars = [("published", per_run * STUDY_RUNS, BAR_STUDY_SECONDS, unit, per_run * STUDY_RUNS <= BAR_STUDY_SECONDS),
            (f"{LARGE_STUDY_TRAININGS} trainings without runs of lenses", per_training * LARGE_STUDY_TRAININGS,
             BAR_LARGE_STUDY_SECONDS, "s", per_training * LARGE_STUDY_TRAININGS <= BAR_LARGE_STUDY_SECONDS),
            ("nothing new", no_op, BAR_NOTHING_NEW_SECONDS, "s", no_op <= BAR_NOTHING_NEW_SECONDS),
            ("times faster than one log_metric per point", ratio, BAR_RATIO, "x", ratio >= BAR_RATIO)]
    for name, value, bar, unit, good in bars:
        print(f"{'ok  ' if good else 'MISS'}  {name}: {value:.3f} {unit} (bar {bar} {unit})")
    return 0 if all(good for *_, good in bars) else 1


def _bare_points(store: Store, points: int) -> None:
    """`points` points of curves of 400 in runs that hold nothing else, seven curves each."""
    for first in range(0, points, 7 * 400):
        run_id = store.client.create_run(store.experiment_id).info.run_id
        count = min(7 * 400, points - first)
        store.log_points(run_id, [Point(f"curve-{n // 400}", n / 7, n, n % 400) for n in range(count)])


def _import() -> None:
    import mlflow.tracking  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
