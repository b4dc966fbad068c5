"""Which training examples taught which predictions, and when -> .../influence/"""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError, blame
from finetrace.inference.targets import Target, target_of
from finetrace.lenses.influence.inputs import Examples, Steps, read_examples, read_looks, read_steps
from finetrace.lenses.influence.settings import InfluenceSettings
from finetrace.longtable import LongTable
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.lenses.influence.products import Products
    from finetrace.lenses.influence.recorded import Drops
    from finetrace.lenses.influence.scores import Influence

log = logging.getLogger("finetrace")
PARAMETERS = {"trained": "trainable"}  # a checkpoint is loaded with gradients required of what its method trains
GROUPS = 20  # matrices of pairs that are held at once, about: of each group, and two of each checkpoint
NOISY = 20  # training examples with the largest self-influence that are drawn


@dataclass(frozen=True)
class Work:
    """What is looked at, and how. checkpoints: step -> folder, ascending;  weights: (checkpoint, 1 or train
    example)."""

    stage: Stage
    settings: InfluenceSettings
    checkpoints: dict[int, Path]
    model: Path
    target: Target
    train: Examples
    other: Examples
    weights: np.ndarray
    seed: int

    @property
    def scale(self) -> float:
        """Training examples / those looked at."""
        return self.train.total / len(self.train.ids)


def main(stage: Stage) -> None:
    from finetrace.lenses.influence.figures import draw
    from finetrace.models.given import model_folder
    from finetrace.models.timeline import kept_checkpoints

    settings = stage.settings("influence", InfluenceSettings)
    trajectory, folder = stage.folder / "trajectory", stage.folder / "influence"
    model = model_folder(trajectory, stage.layout.model(stage.asked["model"]))
    task = stage.layout.task(stage.asked["task"])
    seed = seeds.derive(stage.seed, "influence", stage.asked["task"])  # the same examples in all trajectories of a task
    inputs: dict[Path, Path | str] = {trajectory: trajectory, task: task}
    if model.parent != trajectory:  # else it is part of the trajectory
        inputs[model] = model
    manifest = stage.manifest("lens", inputs, {"influence": seed}, outs=(folder,))

    def measure(out: Path) -> Record:
        facts, target = read_manifest(trajectory).facts, target_of(read_manifest(task).facts)
        checkpoints = kept_checkpoints(trajectory, settings.checkpoints, "params.yaml: influence.checkpoints")
        train, other, told = read_examples(next(iter(checkpoints.values())), model, task, target, settings,
                                           facts["train"], seed)
        steps = read_steps(trajectory)
        weights = _weights(stage, settings, list(checkpoints), steps, train)
        work = Work(stage, settings, checkpoints, model, target, train, other, weights, seed)
        _require_memory(work)
        record = _measure(work, steps, manifest, out)
        manifest.facts |= told | {"method_kind": facts.get("method_kind", "ft")}
        return record

    write_lens(stage, folder, manifest, measure, draw)


def _measure(work: Work, steps: Steps, manifest: Manifest, out: Path) -> Record:
    """All checkpoints, one after the other; writes table, metrics, curves, pairs and examples."""
    from finetrace.lenses.influence import summary
    from finetrace.lenses.influence.scores import Influence

    train, other, split = work.train, work.other, work.settings.eval_split
    influence = Influence()
    for number, step in enumerate(work.checkpoints):
        influence.add(step, _products(work, step, tell=number == 0), work.weights[number])
    same = other.labels[:, None] == train.labels[None] if work.target.kind == "class" else None
    drops = _drops(work, steps)
    rows = summary.rows_of(influence, work.scale, same, split, work.seed) + summary.recorded_rows(drops)
    table = LongTable.of_rows(rows, summary.COLUMNS)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.metrics(table, influence, work.scale, split))
    write_curves(out / "curves.csv", summary.curves(table, influence.steps, split))
    _write_pairs(work, influence, out / "pairs.parquet")
    _write_examples(work, influence, steps, drops, out / "examples.parquet")
    manifest.facts = {"steps": influence.steps, "label_names": list(work.target.label_names),
                      "rows": {"train": len(train.ids), "eval": len(other.ids)}, "weights": work.settings.weights,
                      "weight_sum": float(work.weights.mean(axis=1).sum()), "rates_known": bool(len(steps.rates))}
    return _drawn(work, influence, table, drops, bool(len(steps.rates)))


def _drawn(work: Work, influence: "Influence", table: LongTable, drops: "dict[str, Drops]", known: bool) -> Record:
    """What the figures show."""
    from finetrace.lenses.influence.losses import plain_labels
    from finetrace.lenses.influence.scores import extremes
    from finetrace.lenses.influence.summary import WHOLE, predicted_and_seen

    steps, split, settings, names = influence.steps, work.settings.eval_split, work.settings, work.target.label_names
    whole, (predicted, seen) = table.select(group=WHOLE), predicted_and_seen(influence, work.scale)
    labels = [plain_labels(part.labels, work.target.kind, names) for part in (work.train, work.other)]
    order = np.argsort(-seen, kind="stable")
    count = min(settings.shown, len(order))
    picked = [*order[:-(-count // 2)].tolist(), *order[len(order) - count // 2:].tolist()]
    helpful, harmful = extremes(influence.whole, min(settings.top, 3))
    noisy = np.argsort(-influence.own, kind="stable")[:NOISY].tolist()

    def example(row: int, of_eval: int) -> list[Any]:
        return [float(influence.whole[of_eval, row]), labels[0][row], work.train.texts[row]]

    return {
        "name": work.stage.item, "steps": steps, "split": split, "rows": [len(work.train.ids), work.train.total],
        "parameters": settings.parameters, "weights": settings.weights if known else "equal",
        "courses": {name: whole.course(steps, statistic=name) for name in
                    ("influence", "cosine", "cosine_same_class", "cosine_other_class")},
        "losses": {of: whole.course(steps, statistic="loss", split=of) for of in (split, "train")},
        "groups": {group: table.course(steps, statistic="influence", group=group)[:, 0] for group in influence.groups},
        "predicted": predicted, "seen": seen,
        "agreement": whole.course([steps[-1]], statistic="agreement")[0],
        "examples": [{"label": labels[1][row], "text": work.other.texts[row], "seen": float(seen[row]),
                      "helpful": [example(other, row) for other in helpful[row].tolist()],
                      "harmful": [example(other, row) for other in harmful[row].tolist()]} for row in picked],
        "own": np.sort(influence.own)[::-1],
        "noisy": [[float(influence.own[row]), labels[0][row], work.train.texts[row]] for row in noisy],
        "recorded": {of: {"starts": drop.starts, "ends": drop.ends, "visits": drop.visits, "watched": drop.watched,
                          "value": np.stack([drop.value, drop.low, drop.high], axis=1)} for of, drop in drops.items()},
    }


def _weights(stage: Stage, settings: InfluenceSettings, checkpoints: list[int], steps: Steps, train: Examples,
             ) -> np.ndarray:
    """(checkpoint, 1 or train example): what products of gradients count at each checkpoint."""
    from finetrace.lenses.influence.scores import rate_weights, visit_weights

    if not len(steps.rates):
        log.info("%s: the training had no learning rates (a linear probe is fitted); all checkpoints count the same",
                 stage.label)
        return np.full((len(checkpoints), 1), 1 / (len(checkpoints) * train.total))
    if settings.weights == "rates":
        return rate_weights(checkpoints, steps.at, steps.rates, train.total)[:, None]
    if not len(steps.visits):
        raise FinetraceError(f"params.yaml: influence.weights: visits needs the training's signals, which "
                             f"{stage.place} did not record; set record.signals: true, or influence.weights: rates")
    order = np.argsort(train.ids)
    place = np.searchsorted(train.ids, steps.examples, sorter=order).clip(max=len(order) - 1)
    rows = np.where(train.ids[order[place]] == steps.examples, order[place], -1)
    with blame(str(stage.folder / "trajectory")):
        return visit_weights(checkpoints, steps.at, steps.rates, steps.visits, rows, len(train.ids))


def _require_memory(work: Work) -> None:
    """An error where memory cannot hold the pairs."""
    settings, rows, columns = work.settings, len(work.train.ids), len(work.other.ids)
    needed = rows * columns * 8 * (GROUPS + len(work.checkpoints))
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    log.info("%s: %d checkpoints, %s training examples on %s of %s (pairs: %.0f MB), gradients of %s", work.stage.label,
             len(work.checkpoints), f"{rows:,}", f"{columns:,}", settings.eval_split, needed / 1e6, settings.parameters)
    if needed > has:
        raise FinetraceError(f"params.yaml: influence.rows: {rows:,} x {columns:,} pairs at {len(work.checkpoints)} "
                             f"checkpoints need about {needed / 1e9:.0f} GB, this machine has {has / 1e9:.0f}; lower "
                             "influence.rows or name fewer checkpoints")


def _products(work: Work, step: int, tell: bool) -> "Products":
    """The products of one checkpoint. tell: log beforehand what they take."""
    import torch

    from finetrace.lenses.influence.products import estimate, loss_products, prepare
    from finetrace.models.device import fit_threads, set_up
    from finetrace.models.given import load_trained

    stage, settings, checkpoint = work.stage, work.settings, work.checkpoints[step]
    started = time.monotonic()
    model = load_trained(checkpoint, base=work.model)
    cuda = torch.cuda.is_available()
    (set_up if cuda else fit_threads)(model.num_parameters())
    model.to("cuda" if cuda else "cpu")
    asked: dict[str, Any] = {"parameters": PARAMETERS.get(settings.parameters, settings.parameters),
                             "dtype": getattr(torch, settings.dtype)}
    bars: list[Progress] = []

    def progress(done: int, total: int) -> None:
        bars[:] = bars or [Progress(total, f"{stage.label} step {step:,}", unit="batch")]
        bars[0].update(done)

    memory = settings.memory_gb * 1e9
    with blame(f"{checkpoint}: influence could not be computed (params.yaml: influence)"):
        if tell:
            plan = prepare(model, work.train.batches, work.other.batches, work.target.kind, memory=memory, **asked)
            cost = estimate(plan)
            log.info("%s: about %.0f s per checkpoint, %.1f GB, %d passes over %d blocks of training examples",
                     stage.label, cost.seconds, cost.bytes / 1e9, cost.passes, len(plan.jobs))
        found = loss_products(model, work.train.batches, work.other.batches, work.target.kind, memory_bytes=memory,
                              progress=progress, **asked)
    for bar in bars:
        bar.close()
    log.info("%s: step %d: %.1f s", stage.label, step, time.monotonic() - started)
    return found


def _drops(work: Work, steps: Steps) -> "dict[str, Drops]":
    """Split -> what the steps between looks at the watched examples did; none where rows of steps are not known."""
    from finetrace.lenses.influence.recorded import drops

    if not len(steps.rates) or not len(steps.visits):
        return {}
    found = {split: drops(*looks, steps.visits, seed=work.seed)
             for split, looks in read_looks(work.stage.folder / "trajectory").items()}
    return {split: of for split, of in found.items() if of is not None}


def _write_pairs(work: Work, influence: "Influence", path: Path) -> None:
    """Of each evaluation example the most helpful and most harmful training examples, and those whose gradients are
    most alike and most opposed after training: text, step profile, groups."""
    from finetrace.lenses.influence.losses import plain_labels
    from finetrace.lenses.influence.scores import extremes

    whole, cosines, names = influence.whole, influence.cosines[-1], work.target.label_names
    (helpful, harmful), (alike, opposed) = (extremes(pairs, work.settings.top) for pairs in (whole, cosines))
    kinds, ranks = ("helpful", "harmful", "alike", "opposed"), np.arange(helpful.shape[1])
    rows = np.stack([helpful, harmful, alike, opposed], axis=1).reshape(-1)
    of_eval = np.repeat(np.arange(len(whole)), len(kinds) * len(ranks))
    labels = [plain_labels(part.labels, work.target.kind, names) for part in (work.other, work.train)]
    profile = np.stack([values[of_eval, rows] for values in influence.by_step], axis=1)
    write_table(path, {
        "eval_example_id": work.other.ids[of_eval], "kind": np.tile(np.repeat(kinds, len(ranks)), len(whole)).tolist(),
        "rank": np.tile(ranks + 1, len(kinds) * len(whole)).astype(np.int32), "train_example_id": work.train.ids[rows],
        "influence": whole[of_eval, rows], "cosine": cosines[of_eval, rows].astype(np.float64),
        "eval_label": [labels[0][i] for i in of_eval],
        "train_label": [labels[1][i] for i in rows], "eval_text": [work.other.texts[i] for i in of_eval],
        "train_text": [work.train.texts[i] for i in rows],
        **{f"step_{step}": profile[:, number].astype(np.float64) for number, step in enumerate(influence.steps)},
        **{f"group_{group}": values[of_eval, rows] for group, values in influence.groups.items()}})


def _write_examples(work: Work, influence: "Influence", steps: Steps, drops: "dict[str, Drops]", path: Path) -> None:
    """Every training example that was looked at, the most self-influential first: wrong labels are among them."""
    from finetrace.lenses.influence.losses import plain_labels
    from finetrace.lenses.influence.recorded import credit
    from finetrace.lenses.influence.scores import ranks

    train, of = work.train, work.settings.eval_split
    labels = plain_labels(train.labels, work.target.kind, work.target.label_names)
    order = np.argsort(ranks(influence.own))
    columns: dict[str, Any] = {
        "rank": np.arange(1, len(order) + 1, dtype=np.int32), "example_id": train.ids[order],
        "label": [labels[i] for i in order], "text": [train.texts[i] for i in order],
        "self_influence": influence.own[order], f"influence_on_{of}": influence.whole.mean(axis=0)[order],
        "loss_first": influence.train_losses[0][order], "loss_last": influence.train_losses[-1][order]}
    for split, drop in drops.items():
        value, visits = credit(drop, steps.visits, steps.examples, train.ids)
        columns |= {f"recorded_credit_{split}": value[order], "visits": visits[order]}
    write_table(path, columns)
