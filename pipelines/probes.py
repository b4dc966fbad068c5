"""python pipelines/probes.py TRAJECTORY -- classifiers on the sentence vectors of every layer -> .../sSEED/probes/"""

import logging
import time

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.files import sha256_file, write_json
from finetrace.store.hidden import finite, read_hidden
from finetrace.store.tables import read_table, write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/probes", "lenses/intervals.py", "config/probes.py")
WORTH_A_GPU = 50_000_000  # numbers in all features together: below, starting the GPU takes longer than it saves
WORTH_THREADS = 10_000_000
OPERATIONS = 5e10  # floating-point operations per second and core, for the time that is told beforehand
EPOCHS = 150  # that the training of a network takes, for the same


def main(stage: Stage) -> None:
    from finetrace.lenses.probes import majority_floor, report, summary

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings = stage.study.probes.for_model(item.model)
    hidden = read_hidden(folder / "hidden")
    layers = _layers(settings.layers, hidden)
    seed = seeds.derive(stage.study.study.seed, "probes", item.task)  # one model before training: one result
    rows_of = _rows(hidden, settings, seed)
    _check_labels(hidden, rows_of)
    history = folder / "trajectory" / "history.parquet"
    own = _own_accuracy(history, settings.test_splits[0])
    inputs = {folder / "hidden": folder / "hidden", history: sha256_file(history)}
    types = None
    if settings.control and hidden.spans:
        data = stage.layout.task(item.task)
        inputs[data] = data
        types = {split: _word_types(data, hidden, rows) for split, rows in rows_of.items()}
    manifest = stage.manifest("lens", as_dict(settings), inputs, {"probes": seed}, rooms=ROOMS)
    device = _device(len(hidden.steps) * len(layers) * sum(map(len, rows_of.values())) * hidden.width)
    log.info("%s: %s on %s, %d checkpoints x %d layers, %s", stage.label, settings.head, hidden.kind(settings.vectors),
             len(hidden.steps), len(layers), " + ".join(f"{len(rows):,} {split}" for split, rows in rows_of.items()))
    found = _probe_all(stage, hidden, layers, rows_of, settings, seed, device)
    failed = sum(r["statistic"] == "converged" and not r["value"] for r in found)
    if failed:
        log.warning("%s: %d of %d probes did not converge; raise probes.max_iterations (now %d)", stage.label, failed,
                    len(hidden.steps) * len(layers), settings.max_iterations)
    if settings.mlp or settings.control or settings.mdl:
        found += _parts(stage, hidden, layers, rows_of, settings, seed, device, types, found)
    trained, *tested = rows_of
    floors = {split: majority_floor(hidden.labels[rows_of[trained]], hidden.labels[rows_of[split]]) for split in tested}
    with stage.output(folder / "probes", manifest) as out:
        write_table(out / "table.parquet", summary.table(found))
        told = {"not_converged": failed} if settings.head == "logistic" else {}
        write_json(out / "metrics.json", told | report.metrics(found, hidden.steps, layers, floors, settings.test_splits[0]))
        grid = summary.accuracies(found, settings.test_splits[0], hidden.steps, layers)
        write_curves(out / "curves.csv", report.curves(found, hidden.steps, layers, settings.test_splits[0]))
        _figures(stage, out, found, grid, hidden, layers, settings, floors, own, rows_of)
        manifest.facts = {"checkpoints": len(hidden.steps), "layers": len(layers), "not_converged": failed,
                          **{f"rows_{split}": len(rows) for split, rows in rows_of.items()},
                          **({"control_task": "word types" if types else "learned by heart"} if settings.control else {}),
                          "device": _device_name(device)}


def _rows(hidden, settings, seed) -> dict[str, np.ndarray]:
    """Row numbers per split, the training rows first; with subtest, whole sentences of them are set aside."""
    train = hidden.rows(settings.train_split)
    if not settings.subtest:
        found = {settings.train_split: train}
    else:
        sentences = np.unique(hidden.sentences[train])
        aside = round(settings.subtest * len(sentences))
        if not 0 < aside < len(sentences):
            raise FinetraceError(f"params.yaml: probes.subtest: {settings.subtest} of the {len(sentences)} training sentences in "
                                 f"{hidden.folder} leaves none on one side; change it, or take more rows (hidden.rows)")
        chosen = seeds.generator(seed, "subtest").permutation(sentences)[:aside]
        out = np.isin(hidden.sentences[train], chosen)
        found = {"subtrain": train[~out], "subtest": train[out]}
    return found | {split: hidden.rows(split) for split in settings.test_splits}


def _probe_all(stage, hidden, layers, rows_of, settings, seed, device):
    """The rows of the table: problems in batches that fit the memory, layers with equal settings together."""
    from finetrace.lenses.probes import summary

    found, told, done = [], time.monotonic(), 0
    total = len(hidden.steps) * len(layers)
    for one, group in _groups(settings, layers):
        keys = [(step, layer) for step in hidden.steps for layer in group]
        size = max(1, settings.memory_mib * 2**20 // _problem_bytes(one, hidden, rows_of))
        for start in range(0, len(keys), size):
            part = keys[start:start + size]
            features = _features(hidden, part, rows_of, settings.vectors)
            batch = summary.Batch(part, features, {split: hidden.labels[rows] for split, rows in rows_of.items()},
                                  next(iter(rows_of)))
            try:
                if one.head == "logistic":
                    found += summary.logistic_rows(batch, **_logistic(one, seed, device))
                else:
                    found += summary.head_rows(
                        batch, head=one.head, seeds=[seeds.derive(seed, "head", k) for k in range(one.seeds)], epochs=one.epochs,
                        learning_rate=one.learning_rate, batch_size=one.batch_size, dropout=one.dropout, parity=one.parity,
                        device=device)
            except ValueError as error:
                raise FinetraceError(f"params.yaml: probes, for {stage.item} ({hidden.folder}): {error}") from error
            done += len(part)
            if time.monotonic() - told > 20:
                log.info("%s: %d of %d probes (step %d, layer %d)", stage.label, done, total, *part[-1])
                told = time.monotonic()
    return found


def _logistic(one, seed, device) -> dict:
    return {"l2": one.l2, "holdout": one.holdout, "seed": seeds.derive(seed, "holdout"), "tolerance": one.tolerance,
            "max_iterations": one.max_iterations, "device": device}


def _parts(stage, hidden, layers, rows_of, settings, seed, device, types, gold):
    """Rows of networks, control tasks and description length, checkpoint by checkpoint: what a checkpoint gives does not depend
    on the others, so that trajectories of one model agree about it before training."""
    from finetrace.lenses.probes import parts as parts
    from finetrace.lenses.probes.summary import Batch

    asked = {name: part for name in ("mlp", "control", "mdl") if (part := getattr(settings, name))}
    steps_of = {name: set(hidden.steps if part.checkpoints == "all" else (hidden.steps[0], hidden.steps[-1]))
                for name, part in asked.items()}
    trained = next(iter(rows_of))
    if settings.mlp:
        _tell_cost(stage, hidden, layers, len(rows_of[trained]), settings, steps_of)
    size = max(1, settings.memory_mib * 2**20 // _problem_bytes(settings.for_layer(-1), hidden, rows_of))
    groups = [layers[start:start + size] for start in range(0, len(layers), size)]
    labels, found, told = {split: hidden.labels[rows] for split, rows in rows_of.items()}, [], time.monotonic()
    logistic = _logistic(settings, seed, device)
    mlp = as_dict(settings.mlp) | {
        "seeds": [seeds.derive(seed, "mlp", k) for k in range(settings.mlp.seeds)], "seed": seeds.derive(seed, "mlp-search"),
        "memory_mib": settings.memory_mib, "device": device} if settings.mlp else {}
    mlp.pop("checkpoints", None)

    def tell(text: str, *values: object) -> None:
        nonlocal told
        if time.monotonic() - told > 20:
            log.info("%s: " + text, stage.label, *values)
            told = time.monotonic()

    if mlp:
        mlp["told"] = lambda done, jobs: tell("%d %% of a search of networks", 100 * done // jobs)
    for step in sorted(set().union(*steps_of.values())):
        for group in groups:
            part = [(step, layer) for layer in group]
            batch = Batch(part, _features(hidden, part, rows_of, settings.vectors), labels, trained)
            try:
                if step in steps_of.get("mlp", ()):
                    found += parts.mlp_rows(batch, **mlp)
                if step in steps_of.get("control", ()):
                    of = settings.control.probe
                    rest = logistic if of == "logistic" else mlp | {"one_layer": ()}
                    found += parts.control_rows(batch, types, gold + found, of=of,
                                                control_seed=seeds.derive(seed, "control"), **rest)
                if step in steps_of.get("mdl", ()):
                    found += parts.mdl_rows(batch, **{k: v for k, v in logistic.items() if k != "tolerance"} | {
                        "fractions": settings.mdl.fractions, "seed": seeds.derive(seed, "mdl")})
            except ValueError as error:
                raise FinetraceError(f"params.yaml: probes, for {stage.item} ({hidden.folder}): {error}") from error
            tell("%s at step %d, layer %d", ", ".join(asked), *part[-1])
    if settings.control and not any(r["statistic"] == "selectivity" for r in found):
        log.warning("%s: no selectivity: the control labels of the training rows are of one class, for want of word types",
                    stage.label)
    return found


def _tell_cost(stage, hidden, layers, rows, settings, steps_of) -> None:
    """One line on the time that the networks take, before they take it."""
    import torch

    from finetrace.lenses.probes.mlp import BATCH, grid_operations
    from finetrace.lenses.probes.mlp_search import halving_rounds, mean_epochs

    mlp, problems = settings.mlp, len(steps_of["mlp"]) * len(layers)
    if settings.control and settings.control.probe == "mlp":
        problems += len(steps_of["control"]) * len(layers)
    shapes = [tuple(shape) for shape in mlp.hidden]
    epoch = grid_operations(rows, hidden.width, len(hidden.label_names), shapes, len(mlp.l2), mlp.folds)
    epochs = min(EPOCHS, mlp.max_epochs)
    rounds = [(len(shapes), epochs)]
    if mlp.search == "halving":
        rounds = halving_rounds(len(shapes), len(mlp.l2), mlp.max_epochs, max(1, int(rows * (1 - mlp.holdout)) // BATCH))
    minutes = epoch * mean_epochs(rounds, epochs) * problems / OPERATIONS / torch.get_num_threads() / 60
    log.info("%s: networks: %d shapes x %d strengths on %d layers and checkpoints; on a CPU about %.1f minutes at %d epochs each "
             "(at most %d)", stage.label, len(shapes), len(mlp.l2), problems, minutes, epochs, mlp.max_epochs)


def _word_types(data, hidden, rows) -> list[str]:
    """The word type of each example, from the task's tables."""
    from finetrace.lenses.probes.control import word_types

    found: dict[tuple[str, int], str] = {}
    for split in np.unique(hidden.splits[rows]):
        path = data / f"{split}.parquet"
        table = read_table(path)
        for column in ("example_id", "words", "spans"):
            if column not in table.column_names:
                raise FinetraceError(f"{path}: has no column {column!r}, which control tasks need; run its data stage again")
        types = word_types(table["words"].to_pylist(), table["spans"].to_pylist())
        found |= {(str(split), number): one for number, one in zip(table["example_id"].to_pylist(), types, strict=True)}
    keys = list(zip(hidden.splits[rows].tolist(), hidden.example_ids[rows].tolist(), strict=True))
    missing = [key for key in keys if key not in found]
    if missing:
        raise FinetraceError(f"{data}: has no example {missing[0][1]} of the split {missing[0][0]!r}, which {hidden.folder} has; "
                             "run the stage hidden again")
    return [found[key] for key in keys]


def _groups(settings, layers):
    """Layers of equal training settings: (settings, layers)."""
    groups = {}
    for layer in layers:
        one = settings.for_layer(layer)
        groups.setdefault((one.epochs, one.learning_rate, one.batch_size, one.dropout), (one, []))[1].append(layer)
    return list(groups.values())


def _problem_bytes(one, hidden, rows_of) -> int:
    from finetrace.lenses.probes import problem_bytes
    from finetrace.lenses.probes.heads import head_bytes

    train, *tests = map(len, rows_of.values())
    test, dim, classes = sum(tests), hidden.width, len(hidden.label_names)
    if one.head == "logistic":
        return problem_bytes(train, test, dim, classes, len(one.l2))
    return head_bytes(train, test, dim, classes, one.seeds, one.head)


def _features(hidden, keys, rows_of, kind):
    """split -> (problem, row, dim), as stored; NaN or infinity anywhere in a layer is an error."""
    found = {split: [] for split in rows_of}
    for step, layer in keys:
        values = finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, hidden.kind(kind), layer)
        for split, rows in rows_of.items():
            found[split].append(values[rows])
    return {split: np.stack(values) for split, values in found.items()}


def _layers(wanted, hidden) -> list[int]:
    count = hidden.manifest.facts["layers"]
    if wanted == "all":
        return list(range(count))
    for layer in wanted:
        if not -count <= layer < count:
            raise FinetraceError(f"params.yaml: probes.layers: {layer} does not exist; {hidden.folder} has layers 0 (embeddings) "
                                 f"to {count - 1}")
    return sorted({layer % count for layer in wanted})


def _check_labels(hidden, rows_of) -> None:
    from finetrace.lenses.probes import check_split

    for split, rows in rows_of.items():
        try:
            if split != "subtest":
                check_split(split, hidden.labels[rows], hidden.label_names)
        except ValueError as error:
            raise FinetraceError(f"{hidden.folder / 'index.parquet'}: {error}; take more rows of it (hidden.rows, hidden.choose: "
                                 "stratified), or another split (probes.train_split, probes.test_splits)") from error


def _own_accuracy(history, split: str) -> dict[int, float]:
    """Accuracy of the trained model's own classifier: step -> share, on the whole split where it was evaluated."""
    table = read_table(history, ["step", "kind", "split", "accuracy"]).to_pylist()
    return {r["step"]: r["accuracy"] for r in table if r["kind"] == "eval" and r["split"] == split and r["accuracy"] is not None}


def _device(numbers: int) -> str:
    """Where the probes are computed; on the CPU with one thread for little data, where a second costs more than it gains."""
    import torch

    if numbers >= WORTH_A_GPU and torch.cuda.is_available():
        from finetrace.models.device import set_up

        set_up(numbers)  # deterministic algorithms; not on the CPU, where these are so anyway and asking takes a second
        return "cuda"
    if numbers < WORTH_THREADS:
        torch.set_num_threads(1)
    return "cpu"


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"cpu ({torch.get_num_threads()} threads)"


def _figures(stage, out, found, grid, hidden, layers, settings, floors, own, rows_of) -> None:
    from finetrace.figures import probes as figures
    from finetrace.lenses.probes.report import at, compared
    from finetrace.lenses.probes.summary import accuracies, curves

    split, name = settings.test_splits[0], stage.item
    what = {"logistic": "logistic regression", "xlm": "linear head", "roberta": "tanh head"}[settings.head]
    what += f"{' (parity)' if settings.parity else ''} on {hidden.kind(settings.vectors)}"
    trained = next(iter(rows_of))
    unseen = max((int(r["value"]) for r in found if r["statistic"] == "unseen" and r["split"] == split), default=0)
    note = f"{what}, trained on {len(rows_of[trained]):,} rows, {len(rows_of[split]):,} scored"
    note += f", {unseen:,} of classes unseen in training" if unseen else ""
    steps, floor = hidden.steps, floors[split]
    ends = {f"step {steps[i]:,}": i for i in ((0, -1) if len(steps) > 1 else (0,))}
    made = {
        "lattice": figures.lattice(
            {f"{step:,}": dict(zip(layers, map(tuple, row), strict=True)) for step, row in zip(steps, grid, strict=True)},
            split=split, floor=floor, row_label="checkpoint (optimiser steps)", title=f"Probe accuracy: {name}", note=note),
        "layers": figures.by_layer(
            layers, {label: grid[i] for label, i in ends.items()}, split=split, floor=floor,
            own={label: own[steps[i]] for label, i in ends.items() if i == -1 and steps[i] in own}, note=note,
            title=f"Probes by layer: {name}"),
    }
    if settings.head != "logistic":
        learned = {label: curves(found, steps[i], layers, trained, split) for label, i in ends.items()}
        made["training"] = figures.training(layers, learned, split=split, title=f"Training of the probes: {name}",
                                            note=f"{what}, mean over seeds" if settings.seeds > 1 else what)
    if settings.mlp or settings.control:
        kinds = compared(found, {label: steps[i] for label, i in ends.items()}, layers, split)
        made["probes"] = figures.compare(layers, kinds, split=split, floor=floor, title=f"Kinds of probes: {name}",
                                         note=f"on {hidden.kind(settings.vectors)}")
    if settings.mdl:
        values = {label: at(found, "mdl_compression", trained, [steps[i]], layers)[0] for label, i in ends.items()}
        made["mdl"] = figures.compression(layers, values, title=f"Description length: {name}",
                                          note=f"online code with {what}, {len(rows_of[trained]):,} rows")
    if settings.subtest:
        curves_of = {one: accuracies(found, one, steps, layers) for one in rows_of}
        made["learning"] = figures.learning(steps, layers, curves_of, title=f"Learning curves: {name}", floor=floor, note=what)
    write_figures(out / "figures", made)


if __name__ == "__main__":
    run("probes", main)
