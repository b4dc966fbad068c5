"""Is influence true? `python benchmarks/influence_truth.py [--halves 100] [--jobs 2] [--work FOLDER] [--facts 3]`

Takes the default study's model micro-a and its task micro-sentiment, which have to be there (`make repro`), and trains
the model again and again, seconds each: on random halves of some training rows, each half with several seeds. What
influence, measured once on a training with all the rows, says of a half is the sum over its rows; what is true is the
margin (in nats: log odds of the right class) that trainings on it leave. Printed:

* the linear datamodelling score (Park et al. 2023): the rank correlation of both over the halves, for each evaluation
  example, its mean, and a bootstrap interval over halves and examples;
* its nulls: the same with the training examples of influence shuffled, among all and within their classes;
* what no bar is about: the same of cosines of gradients, weighted by the same learning rates, and of the cosines at
  each checkpoint alone;
* the same of less: products and cosines of gradients at the last checkpoint alone, and the share of the class;
* the ceiling: what a perfect predictor of the mean over all seeds would reach, from how well two seeds agree;
* noise: with 5 % of the labels wrong, how many of the k most self-influential rows are among the k wrong ones, beside
  the rows of largest loss at the end, and chance.

With --facts N the micro-BERT is pre-trained N times without the sentences of some facts instead (`_facts_left_out.py`).

Every training leaves a small file in the work folder: the same command continues after a stop, and more halves add to
those that are there. Exits with 1 when a bar is missed, 77 where the study is not there.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from _bars import NOT_MEASURED, verdict
from _facts_left_out import left_out

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from finetrace import seeds
from finetrace.progress import duration
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete, read_manifest
from finetrace.store.tables import read_table, write_table

NOISY, DRAWS, SHUFFLES, SEED = 0.05, 400, 200, 2026
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 16, "warmup": 0.1, "weight_decay": 0.01,
                            "precision": "fp32", "head": "linear", "dropout": 0.0}
METHOD = "TracIn over checkpoints"
OTHER = "gradient cosines over checkpoints"
LESS = ("gradient products, last checkpoint", "gradient cosines, last checkpoint", "share of the class")


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
    """Train once, unless it was done; writes NAME.npz with the margins (evaluation example,) of the last weights.
    Returns seconds, 0 where it was done."""
    import torch

    from finetrace.config.training import MethodSettings, RecordSettings, TrainSettings
    from finetrace.config.written import written
    from finetrace.training.finetune import RunSeeds, finetune

    out = place.work / f"{asked.name}.npz"
    if out.is_file():
        return 0.0
    torch.set_num_threads(1)
    logging.getLogger("finetrace").setLevel(logging.ERROR)
    start = time.perf_counter()
    margins: dict[str, np.ndarray] = {}
    task = _task(place, asked)
    wanted = TrainSettings(**SETTINGS, epochs=place.epochs)
    record = RecordSettings(signals=asked.keep, probe_rows=0, evaluate={"steps": []},
                            checkpoints={"every": 10} if asked.keep else {"steps": []})

    def answers(split: str, logits: np.ndarray, labels: np.ndarray) -> None:
        z, rows = logits.astype(np.float64), np.arange(len(labels))
        right = z[rows, labels]
        z[rows, labels] = -np.inf
        margins[split] = right - np.logaddexp.reduce(z, axis=1)

    with tempfile.TemporaryDirectory(dir=place.work) as scratch:
        folder = Path(scratch) / "trajectory"
        folder.mkdir()
        facts = finetune(place.model, task, wanted, record, RunSeeds.of(SEED, asked.seed), on_answers=answers,
                         scratch=Path(scratch) / "state", out=folder, name=asked.name, method=MethodSettings())
        if asked.keep:
            manifest = Manifest("trajectory", "truth", asked.name, "0", {}, {}, {}, facts | {"train": written(wanted)})
            complete(folder, manifest, started=0.0)
            os.replace(folder, place.work / asked.name)
        part = Path(scratch) / "margins.npz"
        np.savez(part, margins=margins["validation"])
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


@dataclass(frozen=True)
class Said:
    """What the lens says of a kept training. pairs: predictor -> (evaluation example, row), rows in their order;
    cosines: step -> the same, of one checkpoint;  own: (row,) self-influence;  last: (row,) losses at the end."""

    pairs: dict[str, np.ndarray]
    cosines: dict[int, np.ndarray]
    own: np.ndarray
    last: np.ndarray


def influence_of(place: Place, asked: Asked) -> Said:
    """Influence over a kept training, as the lens measures it, and what is less than it."""
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
        products = loss_products(model, train_part.batches, other.batches)
        influence.add(step, products, weight)
    columns = ["example_id", "label"]
    train_rows, other_rows = (read_table(task / f"{split}.parquet", columns) for split in ("train", "validation"))
    rows = _places(train_part.ids, train_rows["example_id"].to_numpy())
    examples = _places(other.ids, other_rows["example_id"].to_numpy())
    same = other_rows["label"].to_numpy()[:, None] == train_rows["label"].to_numpy()
    last = np.sum(list(products.pairs.values()), axis=0)
    over = np.tensordot(weights, np.array(influence.cosines), axes=1)
    pairs = [values[examples][:, rows] for values in (influence.whole, over, last, influence.cosines[-1])]
    cosines = {step: values[examples][:, rows] for step, values in zip(checkpoints, influence.cosines, strict=True)}
    return Said(dict(zip((METHOD, OTHER, *LESS), [*pairs, same.astype(float)], strict=True)), cosines,
                influence.own[rows], influence.train_losses[-1][rows])


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
    """Linear datamodelling scores. of: predictor -> mean, low and high;  ahead: predictor -> mean, low and high of what
    `METHOD` has more than it;  at: step -> mean of the cosines there;  nulls: how examples were shuffled -> low and
    high;  ceiling: of all."""

    of: dict[str, tuple[float, float, float]]
    at: dict[int, float]
    ahead: dict[str, tuple[float, float, float]]
    nulls: dict[str, tuple[float, float]]
    ceiling: float


def score(said: Said, classes: np.ndarray, halves: np.ndarray, margins: np.ndarray) -> Score:
    """said: of the training with all rows;  classes: (row,);  halves: (half, row) bool;  margins: (seed, half, example)
    after training on each."""
    from finetrace.lenses.intervals import percentile_interval

    pairs, truth, draw = said.pairs, margins.mean(axis=0), np.random.default_rng(SEED)
    predicted = {name: halves @ values.T for name, values in pairs.items()}
    values = {name: _mean(rank_correlations(sums, truth)) for name, sums in predicted.items()}
    draws: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(DRAWS):  # halves and examples both are samples; all predictors are asked about the same ones
        some, examples = (draw.integers(0, count, count) for count in truth.shape)
        for name, sums in predicted.items():
            draws[name].append(_mean(rank_correlations(sums[some][:, examples], truth[some][:, examples])))

    def interval(name: str, less: str = "") -> tuple[float, float, float]:
        drawn = np.array(draws[name]) - (np.array(draws[less]) if less else 0)
        low, high = percentile_interval(drawn)
        return values[name] - (values[less] if less else 0), float(low), float(high)

    return Score({name: interval(name) for name in pairs},
                 {step: _mean(rank_correlations(halves @ values.T, truth)) for step, values in said.cosines.items()},
                 {name: interval(METHOD, name) for name in pairs if name != METHOD},
                 {how: _null(pairs[METHOD], groups, halves, truth) for how, groups in (
                     ("among all", np.zeros_like(classes)), ("within classes", classes))}, _ceiling(margins))


def _mean(values: np.ndarray) -> float:
    """Over the examples whose ranks are not all the same."""
    return float(np.nanmean(values))


def _null(influence: np.ndarray, groups: np.ndarray, halves: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Low and high of the score with the rows shuffled within groups: (row,)."""
    draw, scores = np.random.default_rng(SEED), []
    for _ in range(SHUFFLES):
        order = np.arange(len(groups))
        for group in np.unique(groups):
            inside = np.flatnonzero(groups == group)
            order[inside] = draw.permutation(inside)
        scores.append(_mean(rank_correlations(halves @ influence[:, order].T, truth)))
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def _ceiling(margins: np.ndarray) -> float:
    """What a perfect predictor of the mean over seeds would reach: the root of that mean's reliability, which
    Spearman and Brown's formula gives from the correlation of two seeds. NaN for one seed."""
    count = len(margins)
    pairs = [rank_correlations(margins[i], margins[j]) for i in range(count) for j in range(i)]
    if not pairs:
        return float("nan")
    agree = _mean(np.array(pairs))
    return float(np.sqrt(max(0.0, count * agree / (1 + (count - 1) * agree))))


def caught(values: np.ndarray, wrong: np.ndarray) -> int:
    """How many wrong ones are among the largest values, as many as there are wrong ones."""
    count = int(wrong.sum())
    return int(wrong[np.argsort(-values, kind="stable")[:count]].sum())


@dataclass(frozen=True)
class Trainings:
    """All that are asked for. whole: with all rows;  noisy: with wrong labels;  parts: of the halves, seed after seed;
    inside: (half, row) bool, which rows are in each."""

    whole: Asked
    noisy: list[Asked]
    parts: list[Asked]
    inside: np.ndarray


def plan(halves: int, rows: int, of: int, count: int, noises: int) -> Trainings:
    """of: rows of the task;  count: seeds. Halves that are asked for later do not change those before."""
    every = np.sort(seeds.generator(SEED, "truth rows").permutation(of)[:rows])
    inside = np.zeros((halves, rows), dtype=bool)
    for half in range(halves):
        inside[half, seeds.generator(SEED, f"truth half {half}").permutation(rows)[:rows // 2]] = True
    parts = [Asked(f"half-{half:04d}-s{seed}", tuple(every[inside[half]].tolist()), seed)
             for seed in range(1, count + 1) for half in range(halves)]
    noisy = []
    for number in range(noises):
        wrong = seeds.generator(SEED, f"truth noise {number}").permutation(rows)[:max(1, round(NOISY * rows))]
        noisy.append(Asked(f"noisy-{number}", tuple(every.tolist()), 1, tuple(every[wrong].tolist()), keep=True))
    return Trainings(Asked("all", tuple(every.tolist()), 1, keep=True), noisy, parts, inside)


def run(place: Place, parts: Sequence[Asked], jobs: int) -> None:
    """All trainings, half after half, side by side; says how long they take."""
    left = sorted((asked for asked in parts if not (place.work / f"{asked.name}.npz").is_file()),
                  key=lambda asked: asked.name)
    if not left:
        return
    took = min(train(place, asked) for asked in left[:2])  # the first one loads libraries
    print(f"  {len(left)} trainings to go, {took:.1f} s each: about {duration(took * len(left) / jobs)} in {jobs} "
          "processes", flush=True)
    if jobs == 1:
        for asked in left[2:]:
            train(place, asked)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(train, [place] * len(left[2:]), left[2:]):
            pass


def measure(place: Place, options: Any) -> tuple[Score, dict[str, int]]:
    """Everything; the work folder belongs to one choice of sizes. The counts are of wrong labels: all, and those that
    self-influence and the loss find."""
    labels = read_table(place.task / "train.parquet", ["label"])["label"].to_numpy()
    asked = plan(options.halves, min(options.rows, len(labels)), len(labels), options.seeds, options.noises)
    chosen = {"rows": len(asked.whole.rows), "eval": place.evaluated, "epochs": place.epochs}
    sizes = place.work / "sizes.json"
    if sizes.is_file() and json.loads(sizes.read_text("utf-8")) != chosen:
        raise SystemExit(f"{place.work} holds trainings of {sizes.read_text('utf-8')}; name another --work")
    sizes.write_text(json.dumps(chosen), "utf-8")
    for kept in (asked.whole, *asked.noisy):
        train(place, kept)
    run(place, asked.parts, options.jobs)
    margins = np.stack([np.load(place.work / f"{part.name}.npz")["margins"] for part in asked.parts])
    scores = score(influence_of(place, asked.whole), labels[list(asked.whole.rows)], asked.inside,
                   margins.reshape(options.seeds, options.halves, -1))
    counts = {"wrong": 0, "self-influence": 0, "loss at the end": 0}
    for noisy in asked.noisy:
        of_noisy, wrong = influence_of(place, noisy), np.isin(noisy.rows, noisy.wrong)
        counts["wrong"] += int(wrong.sum())
        counts["self-influence"] += caught(of_noisy.own, wrong)
        counts["loss at the end"] += caught(of_noisy.last, wrong)
    return scores, counts


def report(scores: Score, counts: Mapping[str, int]) -> int:
    """Print everything and the bars."""
    from finetrace.lenses.intervals import wilson_interval

    for name, (value, low, high) in scores.of.items():
        print(f"  linear datamodelling score, {name}: {value:.3f} [{low:.3f}, {high:.3f}]")
    for name, (value, low, high) in scores.ahead.items():
        print(f"  {METHOD} has more than {name}: {value:.3f} [{low:.3f}, {high:.3f}]")
    print("  cosines at each checkpoint: " + ", ".join(f"step {step} {value:.3f}" for step, value in scores.at.items()))
    print("  null, shuffled " + "; ".join(f"{how}: {low:.3f} to {high:.3f}" for how, (low, high) in
                                          scores.nulls.items()) + f"; ceiling {scores.ceiling:.3f}")
    bars = [(f"{METHOD} above its null, shuffled {how}", scores.of[METHOD][1], scores.of[METHOD][1] > high, "{:.3f}")
            for how, (_, high) in scores.nulls.items()]
    bars += [(f"{METHOD} above {name}", scores.ahead[name][1], scores.ahead[name][1] > 0, "{:.3f}")
             for name in LESS]
    for name in ("self-influence", "loss at the end"):
        low, high = wilson_interval(counts[name], counts["wrong"])
        share = counts[name] / counts["wrong"]
        print(f"  {counts['wrong']} wrong labels, precision of as many by {name}: {share:.2f} [{low:.2f}, {high:.2f}], "
              f"chance {NOISY:.2f}")
        if name == "self-influence":  # the loss is what it is compared with
            bars.append((f"noise: {name} above chance", low, low > NOISY, "{:.2f}"))
    return verdict(bars)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, default=ROOT, help="folder with models/micro-a and data/micro-sentiment")
    parser.add_argument("--work", type=Path, default=ROOT / ".finetrace/influence-truth")
    for name, value in (("halves", 100), ("seeds", 2), ("rows", 400), ("eval", 100), ("noises", 3),
                        ("jobs", os.cpu_count() or 1), ("facts", 0), ("facts-steps", 2400)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--epochs", type=float, default=6.0)
    options = parser.parse_args()
    place = Place(options.study / "models/micro-a", options.study / "data/micro-sentiment", options.work, options.eval,
                  options.epochs)
    if not (place.model.is_dir() and place.task.is_dir()):
        print(f"{options.study} has no models/micro-a or data/micro-sentiment; make repro makes them")
        return NOT_MEASURED
    place.work.mkdir(parents=True, exist_ok=True)
    if options.facts:
        return left_out(options.study / "data", options.work, options.facts, options.facts_steps)
    return report(*measure(place, options))


if __name__ == "__main__":
    sys.exit(main())
