"""Classifiers on the sentence vectors of every layer -> .../sSEED/probes/"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.base import as_dict
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.probes.settings import MlpSettings, ProbesSettings
from finetrace.longtable import LongTable
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.progress import Progress
from finetrace.store.files import sha256_file, write_json
from finetrace.store.hidden import HiddenStates, finite, read_hidden
from finetrace.store.manifest import Manifest
from finetrace.store.tables import read_table, write_table

log = logging.getLogger("finetrace")
WORTH_A_GPU = 50_000_000  # numbers in all features together: below, starting the GPU takes longer than it saves
WORTH_THREADS = 10_000_000
REACHED = 0.8  # by networks, of what large matrix products reach: for the time that is told beforehand
EPOCHS = 150  # that the training of a network takes, for the same

Row = dict[str, Any]
Rows = Mapping[str, np.ndarray]
"""Split -> row numbers, the training rows first."""


@dataclass(frozen=True)
class Work:
    """What is probed, and how."""

    stage: Stage
    hidden: HiddenStates
    layers: list[int]
    rows_of: Rows
    settings: ProbesSettings
    seed: int

    @property
    def trained(self) -> str:
        """The split that trains the probes."""
        return next(iter(self.rows_of))

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Split -> (row,) class."""
        return {split: self.hidden.labels[rows] for split, rows in self.rows_of.items()}

    @property
    def units(self) -> dict[str, np.ndarray]:
        """Split -> (row,) sentence of each word; empty for tasks of whole texts."""
        return {split: self.hidden.sentence_codes(rows) for split, rows in self.rows_of.items()
                } if self.hidden.spans else {}


def main(stage: Stage) -> None:
    from finetrace.lenses.probes.figures import draw

    settings, folder, task = stage.settings("probes", ProbesSettings), stage.folder, str(stage.asked["task"])
    hidden = read_hidden(folder / "hidden")
    seed = seeds.derive(stage.seed, "probes", task)  # one model before training: one result
    rows_of = _rows(hidden, settings, seed)
    work = Work(stage, hidden, hidden.chosen_layers(settings.layers, "probes.layers"), rows_of, settings, seed)
    _check_labels(hidden, rows_of)
    history = folder / "trajectory" / "history.parquet"
    inputs: dict[Path, Path | str] = {folder / "hidden": folder / "hidden", history: sha256_file(history)}
    if settings.control and hidden.spans:
        inputs[stage.layout.task(task)] = stage.layout.task(task)
    manifest = stage.manifest("lens", inputs, {"probes": seed}, outs=(folder / "probes",))
    write_lens(stage, folder / "probes", manifest, lambda out: _measure(work, history, manifest, out), draw)


def _measure(work: Work, history: Path, manifest: Manifest, out: Path) -> Record:
    """Train and score all probes; writes table, metrics and curves."""
    from finetrace.lenses.probes import report, summary
    from finetrace.lenses.probes.linear import majority_floor

    stage, hidden, layers, rows_of, settings = work.stage, work.hidden, work.layers, work.rows_of, work.settings
    types = None
    if settings.control and hidden.spans:
        data = stage.layout.task(stage.asked["task"])
        types = {split: _word_types(data, hidden, rows) for split, rows in rows_of.items()}
    device = _device(len(hidden.steps) * len(layers) * sum(map(len, rows_of.values())) * hidden.width)
    log.info("%s: %s on %s, %d checkpoints x %d layers, %s", stage.label, settings.head, hidden.kind(settings.vectors),
             len(hidden.steps), len(layers), " + ".join(f"{len(rows):,} {split}" for split, rows in rows_of.items()))
    rows = _probe_all(work, device)
    failed = sum(row["statistic"] == "converged" and not row["value"] for row in rows)
    if failed:
        log.warning("%s: %d of %d probes did not converge; raise probes.max_iterations (now %d)", stage.label, failed,
                    len(hidden.steps) * len(layers), settings.max_iterations)
    if settings.mlp or settings.control or settings.mdl:
        rows += _parts(work, device, types, rows)
    main_split, labels, table = settings.test_splits[0], work.labels, summary.table(rows)
    floors = {split: majority_floor(labels[work.trained], labels[split]) for split in list(rows_of)[1:]}
    write_table(out / "table.parquet", table.columns())
    fits = {"not_converged": failed} if settings.head == "logistic" else {}
    write_json(out / "metrics.json", fits | report.metrics(table, hidden.steps, layers, floors, main_split))
    write_curves(out / "curves.csv", report.curves(table, hidden.steps, layers, main_split))
    manifest.facts = {"checkpoints": len(hidden.steps), "layers": len(layers), "not_converged": failed,
                      **{f"rows_{split}": len(chosen) for split, chosen in rows_of.items()},
                      **({"control_task": "word types" if types else "learned by heart"} if settings.control else {}),
                      "device": _device_name(device)}
    return _drawn(work, table, floors[main_split], _own_accuracy(history, main_split))


def _drawn(work: Work, table: LongTable, floor: float, classifier_accuracy: dict[int, float]) -> Record:
    """What the figures show."""
    from finetrace.lenses.probes.report import accuracies, compared, training

    hidden, layers, settings, trained = work.hidden, work.layers, work.settings, work.trained
    steps, split = hidden.steps, settings.test_splits[0]
    ends = list(dict.fromkeys((steps[0], steps[-1])))
    unseen = table.select(statistic="unseen", split=split).frame["value"]
    adam, kinds = settings.head != "logistic", settings.mlp is not None or settings.control is not None
    return {
        "name": work.stage.item, "head": settings.head, "parity": settings.parity, "seeds": settings.seeds,
        "vectors": hidden.kind(settings.vectors), "split": split, "steps": steps, "layers": layers, "floor": floor,
        "trained_rows": len(work.rows_of[trained]), "scored_rows": len(work.rows_of[split]),
        "unseen": int(unseen.max()) if len(unseen) else 0,
        "own": {step: classifier_accuracy[step] for step in ends if step in classifier_accuracy},
        "accuracies": accuracies(table, split).grid(steps, layers),
        "training": {step: training(table, step, layers, trained, split) for step in ends} if adam else {},
        "kinds": compared(table, ends, layers, split) if kinds else {},
        "compression": {step: table.grid([step], layers, statistic="mdl_compression")[0, :, 0] for step in ends}
        if settings.mdl else {},
        "learning": {name: accuracies(table, name).grid(steps, layers) for name in work.rows_of}
        if settings.subtest else {},
    }


def _rows(hidden: HiddenStates, settings: ProbesSettings, seed: int) -> dict[str, np.ndarray]:
    """Row numbers per split, the training rows first; with subtest, whole sentences of them are set aside."""
    train = hidden.rows(settings.train_split)
    if not settings.subtest:
        rows = {settings.train_split: train}
    else:
        sentences = np.unique(hidden.sentences[train])
        aside = round(settings.subtest * len(sentences))
        if not 0 < aside < len(sentences):
            raise FinetraceError(f"params.yaml: probes.subtest: {settings.subtest} of the {len(sentences)} training "
                                 f"sentences in {hidden.folder} leaves none on one side; change it, or take more rows "
                                 "(hidden.rows)")
        chosen = seeds.generator(seed, "subtest").permutation(sentences)[:aside]
        set_aside = np.isin(hidden.sentences[train], chosen)
        rows = {"subtrain": train[~set_aside], "subtest": train[set_aside]}
    return rows | {split: hidden.rows(split) for split in settings.test_splits}


def _probe_all(work: Work, device: str) -> list[Row]:
    """The rows of the table: problems in batches that fit the memory, layers with equal settings together."""
    from finetrace.lenses.probes import summary

    stage, hidden, rows_of, settings, seed = work.stage, work.hidden, work.rows_of, work.settings, work.seed
    rows: list[Row] = []
    progress = Progress(len(hidden.steps) * len(work.layers), stage.label, unit="probe")
    for group_settings, group in _groups(settings, work.layers):
        keys = [(step, layer) for step in hidden.steps for layer in group]
        size = max(1, settings.memory_mib * 2**20 // _problem_bytes(group_settings, hidden, rows_of))
        for start in range(0, len(keys), size):
            part = keys[start:start + size]
            features = _features(hidden, part, rows_of, settings.vectors)
            batch = summary.Batch(part, features, work.labels, work.trained, work.units)
            with blame(f"params.yaml: probes, for {stage.item} ({hidden.folder})"):
                if group_settings.head == "logistic":
                    rows += summary.logistic_rows(batch, **_logistic(group_settings, seed, device))
                else:
                    rows += summary.head_rows(
                        batch, head=group_settings.head,
                        seeds=[seeds.derive(seed, "head", k) for k in range(group_settings.seeds)],
                        epochs=group_settings.epochs, learning_rate=group_settings.learning_rate,
                        batch_size=group_settings.batch_size,
                        dropout=group_settings.dropout, parity=group_settings.parity, device=device)
            progress.update(progress.done + len(part), "(step {}, layer {})".format(*part[-1]))
    progress.close()
    return rows


def _logistic(settings: ProbesSettings, seed: int, device: str) -> dict[str, Any]:
    return {"l2": settings.l2, "holdout": settings.holdout, "seed": seeds.derive(seed, "holdout"),
            "tolerance": settings.tolerance, "max_iterations": settings.max_iterations, "device": device}


def _networks(settings: ProbesSettings, seed: int, device: str) -> dict[str, Any]:
    """Arguments of the networks; {} without any."""
    if not settings.mlp:
        return {}
    changed = {"seeds": [seeds.derive(seed, "mlp", k) for k in range(settings.mlp.seeds)],
               "seed": seeds.derive(seed, "mlp-search"), "memory_mib": settings.memory_mib, "device": device}
    return {k: v for k, v in (as_dict(settings.mlp) | changed).items() if k != "checkpoints"}


def _parts(work: Work, device: str, types: Mapping[str, list[str]] | None, gold: list[Row]) -> list[Row]:
    """Rows of networks, control tasks and description length, checkpoint by checkpoint: what one gives does not depend
    on the others, so that trajectories of one model agree about it before training."""
    from finetrace.lenses.probes import parts
    from finetrace.lenses.probes.summary import Batch

    stage, hidden, layers, rows_of, settings = work.stage, work.hidden, work.layers, work.rows_of, work.settings
    part_settings = {name: part for name in ("mlp", "control", "mdl") if (part := getattr(settings, name))}
    steps_of = {name: set(hidden.steps if part.checkpoints == "all" else (hidden.steps[0], hidden.steps[-1]))
                for name, part in part_settings.items()}
    if settings.mlp:
        _tell_cost(work, settings.mlp, steps_of)
    size = max(1, settings.memory_mib * 2**20 // _problem_bytes(settings.for_layer(-1), hidden, rows_of))
    groups = [layers[start:start + size] for start in range(0, len(layers), size)]
    rows: list[Row] = []
    logistic, mlp = _logistic(settings, work.seed, device), _networks(settings, work.seed, device)
    steps = sorted(set().union(*steps_of.values()))
    progress = Progress(len(steps) * len(layers), f"{stage.label}: {', '.join(part_settings)}", unit="layer")
    for step in steps:
        for group in groups:
            part, begun = [(step, layer) for layer in group], progress.done
            features = _features(hidden, part, rows_of, settings.vectors)
            batch = Batch(part, features, work.labels, work.trained, work.units)
            with blame(f"params.yaml: probes, for {stage.item} ({hidden.folder})"):
                if step in steps_of.get("mlp", ()):
                    rows += parts.mlp_rows(batch, **mlp, progress=partial(_tell_searched, progress, begun, len(group)))
                if settings.control and step in steps_of["control"]:
                    probe = settings.control.probe
                    probe_settings = logistic if probe == "logistic" else mlp | {"one_layer": ()}
                    rows += parts.control_rows(batch, types, gold + rows, probe=probe,
                                               control_seed=seeds.derive(work.seed, "control"), **probe_settings)
                if settings.mdl and step in steps_of["mdl"]:
                    rows += parts.mdl_rows(batch, **{k: v for k, v in logistic.items() if k != "tolerance"} | {
                        "fractions": settings.mdl.fractions, "seed": seeds.derive(work.seed, "mdl")})
            progress.update(begun + len(group), f"(step {step})")
    progress.close()
    if settings.control and not any(row["statistic"] == "selectivity" for row in rows):
        log.warning("%s: no selectivity: the control labels of the training rows are of one class, for want of word "
                    "types", stage.label)
    return rows


def _tell_searched(progress: Progress, begun: int, layers: int, done: int, jobs: int) -> None:
    """So much of a search of networks is done, in so many layers."""
    progress.update(begun + layers * done // jobs)


def _tell_cost(work: Work, mlp: MlpSettings, steps_of: Mapping[str, set[int]]) -> None:
    """One line on the time that the networks take, before they take it."""
    from finetrace.lenses.probes.mlp import BATCH, grid_operations
    from finetrace.lenses.probes.mlp_search import halving_rounds, mean_epochs
    from finetrace.models.device import operations_per_second

    layers, hidden, rows = work.layers, work.hidden, len(work.rows_of[work.trained])
    problems = len(steps_of["mlp"]) * len(layers)
    if work.settings.control and work.settings.control.probe == "mlp":
        problems += len(steps_of["control"]) * len(layers)
    shapes = [tuple(shape) for shape in mlp.hidden]
    epoch = grid_operations(rows, hidden.width, len(hidden.label_names), shapes, len(mlp.l2), mlp.folds)
    epochs = min(EPOCHS, mlp.max_epochs)
    rounds = [(len(shapes), epochs)]
    if mlp.search == "halving":
        batches = max(1, int(rows * (1 - mlp.holdout)) // BATCH)
        rounds = halving_rounds(len(shapes), len(mlp.l2), mlp.max_epochs, batches)
    minutes = epoch * mean_epochs(rounds, epochs) * problems / (REACHED * operations_per_second()) / 60
    log.info("%s: networks: %d shapes x %d strengths on %d layers and checkpoints; on a CPU about %.1f minutes at %d "
             "epochs each (at most %d)", work.stage.label, len(shapes), len(mlp.l2), problems, minutes, epochs,
             mlp.max_epochs)


def _word_types(data: Path, hidden: HiddenStates, rows: np.ndarray) -> list[str]:
    """The word type of each example, from the task's tables."""
    from finetrace.lenses.probes.control import word_types

    type_of: dict[tuple[str, int], str] = {}
    for split in np.unique(hidden.splits[rows]):
        path = data / f"{split}.parquet"
        table = read_table(path)
        for column in ("example_id", "words", "spans"):
            if column not in table.column_names:
                raise FinetraceError(f"{path}: has no column {column!r}, which control tasks need; run its data stage "
                                     "again")
        types = word_types(table["words"].to_pylist(), table["spans"].to_pylist())
        type_of |= {(str(split), number): word_type
                    for number, word_type in zip(table["example_id"].to_pylist(), types, strict=True)}
    keys = list(zip(hidden.splits[rows].tolist(), hidden.example_ids[rows].tolist(), strict=True))
    missing = [key for key in keys if key not in type_of]
    if missing:
        raise FinetraceError(f"{data}: has no example {missing[0][1]} of the split {missing[0][0]!r}, which "
                             f"{hidden.folder} has; run the stage hidden again")
    return [type_of[key] for key in keys]


def _groups(settings: ProbesSettings, layers: list[int]) -> list[tuple[ProbesSettings, list[int]]]:
    """Layers of equal training settings: (settings, layers)."""
    groups: dict[tuple[float, ...], tuple[ProbesSettings, list[int]]] = {}
    for layer in layers:
        layer_settings = settings.for_layer(layer)
        groups.setdefault((layer_settings.epochs, layer_settings.learning_rate, layer_settings.batch_size,
                           layer_settings.dropout), (layer_settings, []))[1].append(layer)
    return list(groups.values())


def _problem_bytes(settings: ProbesSettings, hidden: HiddenStates, rows_of: Rows) -> int:
    from finetrace.lenses.probes.heads import head_bytes
    from finetrace.lenses.probes.linear import problem_bytes

    train, *tests = map(len, rows_of.values())
    test, dim, classes = sum(tests), hidden.width, len(hidden.label_names)
    if settings.head == "logistic":
        return problem_bytes(train, test, dim, classes, len(settings.l2))
    return head_bytes(train, test, dim, classes, settings.seeds, settings.head)


def _features(hidden: HiddenStates, keys: list[tuple[int, int]], rows_of: Rows, kind: str) -> dict[str, np.ndarray]:
    """split -> (problem, row, dim), as stored; NaN or infinity anywhere in a layer is an error."""
    vectors: dict[str, list[np.ndarray]] = {split: [] for split in rows_of}
    for step, layer in keys:
        values = finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, hidden.kind(kind), layer)
        for split, rows in rows_of.items():
            vectors[split].append(values[rows])
    return {split: np.stack(values) for split, values in vectors.items()}


def _check_labels(hidden: HiddenStates, rows_of: Rows) -> None:
    from finetrace.lenses.probes.linear import check_split

    for split, rows in rows_of.items():
        with blame(str(hidden.folder / "index.parquet"),
                   "take more rows of it (hidden.rows, hidden.choose: stratified), "
                   "or another split (probes.train_split, probes.test_splits)"):
            if split != "subtest":
                check_split(split, hidden.labels[rows], hidden.label_names)


def _own_accuracy(history: Path, split: str) -> dict[int, float]:
    """Accuracy of the trained model's own classifier: step -> share, on the whole split where it was evaluated."""
    table = read_table(history, ["step", "kind", "split", "accuracy"]).to_pylist()
    return {r["step"]: r["accuracy"] for r in table
            if r["kind"] == "eval" and r["split"] == split and r["accuracy"] is not None}


def _device(numbers: int) -> str:
    """Where the probes are computed; on the CPU with one thread for little data: a second costs more than it gains."""
    import torch

    if numbers >= WORTH_A_GPU and torch.cuda.is_available():
        from finetrace.models.device import set_up

        set_up(numbers)  # deterministic algorithms; on the CPU they are so anyway, and asking takes a second
        return "cuda"
    if numbers < WORTH_THREADS:
        torch.set_num_threads(1)
    return "cpu"


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
