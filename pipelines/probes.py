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
ROOMS = ("lenses/probes.py", "lenses/probe_solver.py", "lenses/probe_heads.py", "lenses/probes_summary.py", "lenses/intervals.py",
         "config/probes.py")
WORTH_A_GPU = 50_000_000  # numbers in all features together: below, starting the GPU takes longer than it saves
WORTH_THREADS = 10_000_000


def main(stage: Stage) -> None:
    from finetrace.lenses import probes_summary as summary
    from finetrace.lenses.probes import majority_floor

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    settings = stage.study.probes.for_model(item.model)
    hidden = read_hidden(folder / "hidden")
    layers = _layers(settings.layers, hidden)
    rows_of = {split: hidden.rows(split) for split in (settings.train_split, *settings.test_splits)}
    _check_labels(hidden, rows_of, settings)
    history = folder / "trajectory" / "history.parquet"
    own = _own_accuracy(history, settings.test_splits[0])
    seed = seeds.derive(stage.study.study.seed, "probes", item.task)  # one model before training: one result
    manifest = stage.manifest("lens", as_dict(settings), {folder / "hidden": folder / "hidden", history: sha256_file(history)},
                              {"probes": seed}, rooms=ROOMS)
    device = _device(len(hidden.steps) * len(layers) * sum(map(len, rows_of.values())) * hidden.manifest.facts["dim"])
    log.info("%s: %s on %s, %d checkpoints x %d layers, %s", stage.label, settings.head, settings.vectors, len(hidden.steps),
             len(layers), " + ".join(f"{len(rows):,} {split}" for split, rows in rows_of.items()))
    found = _probe_all(stage, hidden, layers, rows_of, settings, seed, device)
    failed = sum(r["statistic"] == "converged" and not r["value"] for r in found)
    if failed:
        log.warning("%s: %d of %d probes did not converge; raise probes.max_iterations (now %d)", stage.label, failed,
                    len(hidden.steps) * len(layers), settings.max_iterations)
    floors = {split: majority_floor(hidden.labels[rows_of[settings.train_split]], hidden.labels[rows_of[split]])
              for split in settings.test_splits}
    with stage.output(folder / "probes", manifest) as out:
        write_table(out / "table.parquet", summary.table(found))
        write_json(out / "metrics.json", _metrics(found, hidden.steps, layers, settings, floors, failed))
        grid = summary.accuracies(found, settings.test_splits[0], hidden.steps, layers)
        write_curves(out / "curves.csv", {"step": hidden.steps} | {
            f"accuracy_layer_{layer:02d}": values for layer, values in zip(layers, grid[..., 0].T, strict=True)})
        _figures(stage, out, found, grid, hidden, layers, settings, floors, own, rows_of)
        manifest.facts = {"checkpoints": len(hidden.steps), "layers": len(layers), "not_converged": failed,
                          **{f"rows_{split}": len(rows) for split, rows in rows_of.items()}, "device": _device_name(device)}


def _probe_all(stage, hidden, layers, rows_of, settings, seed, device):
    """The rows of the table: problems in batches that fit the memory, layers with equal settings together."""
    from finetrace.lenses import probes_summary as summary

    found, told, done = [], time.monotonic(), 0
    total = len(hidden.steps) * len(layers)
    for one, group in _groups(settings, layers):
        keys = [(step, layer) for step in hidden.steps for layer in group]
        size = max(1, settings.memory_mib * 2**20 // _problem_bytes(one, hidden, rows_of))
        for start in range(0, len(keys), size):
            part = keys[start:start + size]
            features = _features(hidden, part, rows_of, settings.vectors)
            batch = summary.Batch(part, features, {split: hidden.labels[rows] for split, rows in rows_of.items()},
                                  settings.train_split)
            try:
                if one.head == "logistic":
                    found += summary.logistic_rows(batch, l2=one.l2, holdout=one.holdout, seed=seeds.derive(seed, "holdout"),
                                                   tolerance=one.tolerance, max_iterations=one.max_iterations, device=device)
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


def _groups(settings, layers):
    """Layers of equal training settings: (settings, layers)."""
    groups = {}
    for layer in layers:
        one = settings.for_layer(layer)
        groups.setdefault((one.epochs, one.learning_rate, one.batch_size, one.dropout), (one, []))[1].append(layer)
    return list(groups.values())


def _problem_bytes(one, hidden, rows_of) -> int:
    from finetrace.lenses.probe_heads import head_bytes
    from finetrace.lenses.probes import problem_bytes

    train = len(rows_of[one.train_split])
    test = sum(map(len, rows_of.values())) - train
    dim, classes = hidden.manifest.facts["dim"], len(hidden.label_names)
    if one.head == "logistic":
        return problem_bytes(train, test, dim, classes, len(one.l2))
    return head_bytes(train, test, dim, classes, one.seeds, one.head)


def _features(hidden, keys, rows_of, kind):
    """split -> (problem, row, dim), as stored; NaN or infinity anywhere in a layer is an error."""
    found = {split: [] for split in rows_of}
    for step, layer in keys:
        values = finite(np.asarray(hidden.vectors(step, kind)[layer]), hidden, step, kind, layer)
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


def _check_labels(hidden, rows_of, settings) -> None:
    from finetrace.lenses.probes import check_split

    trained = hidden.labels[rows_of[settings.train_split]]
    for split, rows in rows_of.items():
        try:
            check_split(split, hidden.labels[rows], hidden.label_names, None if split == settings.train_split else trained)
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


def _metrics(found, steps, layers, settings, floors, failed) -> dict[str, float]:
    """What a person compares between runs: first and last checkpoint of every layer, the best layer, the floor."""
    from finetrace.lenses.probes_summary import accuracies

    metrics: dict[str, float] = {"not_converged": failed} if settings.head == "logistic" else {}
    for split in settings.test_splits:
        values = accuracies(found, split, (steps[0], steps[-1]), layers)[..., 0]
        for row, when in zip(values, ("first", "last"), strict=True):
            for layer, value in zip(layers, row, strict=True):
                metrics[f"accuracy/{split}/layer-{layer:02d}/{when}"] = float(value)
            metrics[f"best_accuracy/{split}/{when}"] = float(row.max())
            metrics[f"best_layer/{split}/{when}"] = layers[int(row.argmax())]
        metrics[f"majority_floor/{split}"] = floors[split]
    return metrics


def _figures(stage, out, found, grid, hidden, layers, settings, floors, own, rows_of) -> None:
    from finetrace.figures import probes as figures
    from finetrace.lenses.probes_summary import curves

    split, name = settings.test_splits[0], stage.item
    what = {"logistic": "logistic regression", "xlm": "linear head", "roberta": "tanh head"}[settings.head]
    what += f"{' (parity)' if settings.parity else ''} on {settings.vectors}"
    note = f"{what}, trained on {len(rows_of[settings.train_split]):,} rows, {len(rows_of[split]):,} scored"
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
        learned = {label: curves(found, steps[i], layers, settings.train_split, split) for label, i in ends.items()}
        made["training"] = figures.training(layers, learned, split=split, title=f"Training of the probes: {name}",
                                            note=f"{what}, mean over seeds" if settings.seeds > 1 else what)
    write_figures(out / "figures", made)


if __name__ == "__main__":
    run("probes", main)
