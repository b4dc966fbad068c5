"""Is influence true? `python benchmarks/influence_truth.py [--halves 100] [--jobs 2] [--work FOLDER]`

Takes the default study's model micro-a and its task micro-sentiment, which have to be there (`make repro`), and trains
the model again and again, seconds each: on random halves of some training rows, each half with several seeds. What
influence, measured once on a training with all the rows, says of a half is the sum over its rows; what is true is the
loss that trainings on it leave. Printed:

* the linear datamodelling score (Park et al. 2023): the rank correlation of both over the halves, for each evaluation
  example (of a loss or of a margin, which order halves alike), its mean, and a bootstrap interval over the examples;
* its null: the same with the training examples of influence shuffled;
* its ceiling: what a perfect predictor of the mean over all seeds would reach, from how well two seeds agree;
* noise: with 5 % of the labels wrong, how many of the k most self-influential rows are among the k wrong ones, beside
  the rows of largest loss at the end, and chance.

Every training leaves a small file in the work folder: the same command continues after a stop, and more halves add to
those that are there. Exits with 1 when the score does not lie above its null, 77 where the study is not there.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from _bars import NOT_MEASURED, verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from finetrace import seeds
from finetrace.progress import duration
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete, read_manifest
from finetrace.store.tables import read_table, write_table

NOISY, DRAWS, SHUFFLES, SEED = 0.05, 1000, 200, 2026
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 16, "warmup": 0.1, "weight_decay": 0.01,
                            "precision": "fp32", "head": "linear", "dropout": 0.0}


@dataclass(frozen=True)
class Asked:
    """One training. rows: places in the study's training split;  wrong: of them those whose label is turned;  seed:
    of head and order;  keep: whether its trajectory stays."""

    name: str
    rows: tuple[int, ...]
    seed: int
    wrong: tuple[int, ...] = ()
    keep: bool = False


@dataclass(frozen=True)
class Place:
    """Where everything lies, and how large it is."""

    model: Path
    task: Path
    work: Path
    evaluated: int
    epochs: float


def train(place: Place, asked: Asked) -> float:
    """Train once, unless it was done; writes NAME.npz with the losses (evaluation example,) of the last weights.
    Returns seconds, 0 where it was done."""
    import torch

    from finetrace.config.training import MethodSettings, RecordSettings, TrainSettings
    from finetrace.config.written import written
    from finetrace.training.finetune import RunSeeds, finetune

    out = place.work / f"{asked.name}.npz"
    if out.is_file():
        return 0.0
    torch.set_num_threads(1)
    start = time.perf_counter()
    found: dict[str, np.ndarray] = {}
    task = _task(place, asked)
    wanted = TrainSettings(**SETTINGS, epochs=place.epochs)
    record = RecordSettings(signals=asked.keep, probe_rows=0, evaluate={"steps": []},
                            checkpoints={"every": 10} if asked.keep else {"steps": []})

    def answers(split: str, logits: np.ndarray, labels: np.ndarray) -> None:
        z = logits.astype(np.float64)
        found[split] = np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), labels]

    with tempfile.TemporaryDirectory(dir=place.work) as scratch:
        folder = Path(scratch) / "trajectory"
        folder.mkdir()
        facts = finetune(place.model, task, wanted, record, RunSeeds.of(SEED, asked.seed), on_answers=answers,
                         scratch=Path(scratch) / "state", out=folder, name=asked.name, method=MethodSettings())
        if asked.keep:
            manifest = Manifest("trajectory", "truth", asked.name, "0", {}, {}, {}, facts | {"train": written(wanted)})
            complete(folder, manifest, started=0.0)
            os.replace(folder, place.work / asked.name)
        part = Path(scratch) / "losses.npz"
        np.savez(part, losses=found["validation"])
        os.replace(part, out)
    return time.perf_counter() - start


def _task(place: Place, asked: Asked) -> Path:
    """The task with these training rows; validation is the evaluation examples."""
    folder = place.work / "tasks" / asked.name
    if folder.is_dir():
        return folder
    train_rows = read_table(place.task / "train.parquet").take(list(asked.rows))
    if asked.wrong:
        names = train_rows.column_names
        turned = np.isin(asked.rows, asked.wrong)
        labels = train_rows["label"].to_numpy()
        classes = len(read_manifest(place.task).facts["label_names"])
        labels = np.where(turned, (labels + 1) % classes, labels).astype(labels.dtype)
        train_rows = train_rows.set_column(names.index("label"), "label", [labels])
    other = read_table(place.task / "validation.parquet").slice(0, place.evaluated)
    with atomic_folder(folder) as out:
        for split, table in (("train", train_rows), ("validation", other), ("test", other.slice(0, 8))):
            write_table(out / f"{split}.parquet", table)
        facts = {k: v for k, v in read_manifest(place.task).facts.items() if k not in ("ood",)}
        complete(out, Manifest("data", "data", asked.name, "0", {}, {}, {}, facts), started=0.0)
    return folder


def influence_of(place: Place, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a kept training: influence (evaluation example, row) in the order of the rows, self-influence (row,), and the
    losses of the rows at its end."""
    import torch

    from finetrace.inference.targets import target_of
    from finetrace.lenses.influence.inputs import read_examples, read_steps
    from finetrace.lenses.influence.products import loss_products
    from finetrace.lenses.influence.scores import Influence, rate_weights
    from finetrace.lenses.influence.settings import InfluenceSettings
    from finetrace.models.given import load_trained
    from finetrace.store.checkpoints import list_weights

    torch.set_num_threads(1)
    trajectory, task = place.work / asked.name, _task(place, asked)
    checkpoints, settings = list_weights(trajectory / "checkpoints"), InfluenceSettings(rows={"train": 0, "eval": 0})
    train_part, other, _ = read_examples(checkpoints[0], place.model, task, target_of(read_manifest(task).facts),
                                         settings, read_manifest(trajectory).facts["train"], SEED)
    steps, influence = read_steps(trajectory), Influence()
    weights = rate_weights(list(checkpoints), steps.at, steps.rates, len(asked.rows))
    for weight, (step, folder) in zip(weights, checkpoints.items(), strict=True):
        model = load_trained(folder, base=place.model)
        influence.add(step, loss_products(model, train_part.batches, other.batches), weight)
    ids = read_table(task / "train.parquet", ["example_id"])["example_id"].to_numpy()
    of_eval = read_table(task / "validation.parquet", ["example_id"])["example_id"].to_numpy()
    rows, columns = _places(train_part.ids, ids), _places(other.ids, of_eval)
    return influence.whole[columns][:, rows], influence.own[rows], influence.train_losses[-1][rows]


def _places(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of the wanted ids stands."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def rank_correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the first axis: (half, example) twice -> (example,)."""
    from scipy.stats import rankdata

    x, y = (rankdata(values, axis=0) for values in (left, right))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis=0) / np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))


@dataclass(frozen=True)
class Score:
    """Linear datamodelling score: mean, low and high of it, of its null, and its ceiling."""

    value: float
    low: float
    high: float
    null: tuple[float, float]
    ceiling: float


def score(influence: np.ndarray, halves: np.ndarray, losses: np.ndarray) -> Score:
    """influence: (example, row);  halves: (half, row) bool;  losses: (seed, half, example) after training on each."""
    from finetrace.lenses.intervals import bootstrap_mean, bootstrap_weights

    truth = -losses.mean(axis=0)
    of_each = rank_correlations(halves @ influence.T, truth)
    low, high = bootstrap_mean(of_each, bootstrap_weights(len(of_each), DRAWS, SEED))
    draw = np.random.default_rng(SEED)
    shuffled = [float(np.nanmean(rank_correlations(halves @ influence[:, draw.permutation(influence.shape[1])].T,
                                                   truth))) for _ in range(SHUFFLES)]
    count = len(losses)
    pairs = [rank_correlations(losses[i], losses[j]) for i in range(count) for j in range(i)]
    one = float(np.nanmean(pairs)) if pairs else float("nan")
    reliable = count * one / (1 + (count - 1) * one)  # Spearman-Brown: of the mean over the seeds
    null = np.quantile(shuffled, [0.025, 0.975])
    return Score(float(np.nanmean(of_each)), float(low), float(high), (float(null[0]), float(null[1])),
                 float(np.sqrt(max(0.0, reliable))))


def caught(values: np.ndarray, wrong: np.ndarray) -> float:
    """Share of wrong ones among the largest values, as many as there are wrong ones: precision at k, in [0, 1]."""
    count = int(wrong.sum())
    return float(wrong[np.argsort(-values, kind="stable")[:count]].mean())


def plan(halves: int, rows: int, of: int, count: int) -> tuple[Asked, Asked, list[Asked], np.ndarray]:
    """The training with all rows, the one with noise, those of the halves (seed after seed), and which rows are in
    each. Halves that are asked for later do not change those before."""
    every = tuple(sorted(int(i) for i in seeds.generator(SEED, "truth rows").permutation(of)[:rows]))
    wrong = seeds.generator(SEED, "truth noise").permutation(rows)[:max(1, round(NOISY * rows))]
    inside = np.zeros((halves, rows), dtype=bool)
    for half in range(halves):
        inside[half, seeds.generator(SEED, f"truth half {half}").permutation(rows)[:rows // 2]] = True
    parts = [Asked(f"half-{half:04d}-s{seed}", tuple(np.array(every)[inside[half]].tolist()), seed)
             for seed in range(1, count + 1) for half in range(halves)]
    return (Asked("all", every, 1, keep=True),
            Asked("noisy", every, 1, tuple(np.array(every)[wrong].tolist()), keep=True), parts, inside)


def run(place: Place, parts: Sequence[Asked], jobs: int) -> None:
    """All trainings, side by side; says how long they take."""
    left = [one for one in parts if not (place.work / f"{one.name}.npz").is_file()]
    if not left:
        return
    took = train(place, left[0])
    print(f"  {len(left)} trainings to go, {took:.1f} s each: about {duration(took * len(left) / jobs)} in {jobs} "
          "processes", flush=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(train, [place] * (len(left) - 1), left[1:]):
            pass


def measure(place: Place, options: Any) -> dict[str, Any]:
    """Everything; the work folder belongs to one choice of sizes."""
    total = read_table(place.task / "train.parquet", ["label"]).num_rows
    whole, noisy, parts, inside = plan(options.halves, min(options.rows, total), total, options.seeds)
    chosen = {"rows": len(whole.rows), "eval": place.evaluated, "epochs": place.epochs}
    said = place.work / "sizes.json"
    if said.is_file() and json.loads(said.read_text("utf-8")) != chosen:
        raise SystemExit(f"{place.work} holds trainings of {said.read_text('utf-8')}; name another --work")
    said.write_text(json.dumps(chosen), "utf-8")
    for one in (whole, noisy):
        train(place, one)
    run(place, parts, options.jobs)
    losses = np.stack([np.load(place.work / f"{one.name}.npz")["losses"] for one in parts])
    found = score(influence_of(place, whole)[0], inside, losses.reshape(options.seeds, options.halves, -1))
    _, own, last = influence_of(place, noisy)
    wrong = np.isin(noisy.rows, noisy.wrong)
    return {"score": found, "wrong": int(wrong.sum()), "self-influence": caught(own, wrong),
            "loss": caught(last, wrong)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, default=ROOT, help="folder with models/micro-a and data/micro-sentiment")
    parser.add_argument("--work", type=Path, default=ROOT / ".finetrace/influence-truth")
    for name, value in (("halves", 100), ("seeds", 2), ("rows", 400), ("eval", 100), ("jobs", os.cpu_count() or 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--epochs", type=float, default=6.0)
    options = parser.parse_args()
    place = Place(options.study / "models/micro-a", options.study / "data/micro-sentiment", options.work, options.eval,
                  options.epochs)
    if not (place.model.is_dir() and place.task.is_dir()):
        print(f"{options.study} has no models/micro-a or data/micro-sentiment; make repro makes them")
        return NOT_MEASURED
    place.work.mkdir(parents=True, exist_ok=True)
    found = measure(place, options)
    of: Score = found["score"]
    print(f"  linear datamodelling score {of.value:.3f} [{of.low:.3f}, {of.high:.3f}] over {options.halves} halves and "
          f"{options.eval} examples; null {of.null[0]:.3f} to {of.null[1]:.3f}; ceiling {of.ceiling:.3f} "
          f"({options.seeds} seeds)")
    print(f"  of {found['wrong']} wrong labels among the first {found['wrong']}: by self-influence "
          f"{found['self-influence']:.2f}, by loss at the end {found['loss']:.2f}, chance {NOISY:.2f}")
    return verdict([("score above its null", of.value, of.value > of.null[1], "{:.3f}"),
                    ("noise: better than chance", found["self-influence"], found["self-influence"] > NOISY, "{:.2f}")])


if __name__ == "__main__":
    sys.exit(main())
