"""What the lens probes reports of its long table: metrics, curves, and what the figures draw. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.longtable import LongTable

HEADS = {"logistic": "logistic regression", "xlm": "linear head", "roberta": "tanh head"}


def accuracies(table: LongTable, split: str) -> LongTable:
    """Accuracy of the finished probes by step and layer, with the ends of the interval: means over seeds."""
    return table.select(statistic="accuracy", split=split).averaged("step", "layer")


def metrics(table: LongTable, steps: Sequence[int], layers: Sequence[int], floors: Mapping[str, float],
            main: str) -> dict[str, float]:
    """What a person compares between runs: first and last checkpoint of every layer, the best layer, the floor.

    floors: majority floor of every scored split;  main: the one whose selectivity counts.
    """
    numbers: dict[str, float] = {f"majority_floor/{split}": floor for split, floor in floors.items()}
    for split in floors:
        split_table = accuracies(table, split)
        numbers |= split_table.headlines({f"accuracy/{split}": {}}, steps, layers)
        for when, row in zip(("first", "last"), split_table.grid([steps[0], steps[-1]], layers)[..., 0], strict=True):
            numbers[f"best_accuracy/{split}/{when}"] = float(row.max())
            numbers[f"best_layer/{split}/{when}"] = layers[int(row.argmax())]
    wanted: dict[str, dict[str, str]] = {
        f"{statistic}/{split}": {"statistic": statistic, "split": split} for split in floors
        for statistic in ("mlp_accuracy", "mlp_accuracy_sd", "one_layer_accuracy")}
    wanted["selectivity"] = {"statistic": "selectivity", "split": selectivity_split(table, main)}
    wanted |= {statistic: {"statistic": statistic} for statistic in ("mdl_bits", "mdl_compression")}
    return numbers | table.headlines(wanted, steps, layers)


def selectivity_split(table: LongTable, preferred: str) -> str:
    """Where selectivity is looked at: `preferred`, or the training rows where the control task is learned by heart."""
    splits = table.select(statistic="selectivity").distinct("split")
    return preferred if preferred in splits or not splits else str(splits[0])


def curves(table: LongTable, steps: Sequence[int], layers: Sequence[int], split: str) -> dict[str, Any]:
    """Accuracy of the head by layer over the checkpoints: column -> (step,); subtrain and subtest too where there are
    any."""
    columns: dict[str, Any] = {"step": steps}
    present = table.distinct("split")
    for name in (split, *(extra for extra in ("subtrain", "subtest") if extra in present)):
        values = accuracies(table, name).grid(steps, layers)[..., 0].T
        start = "accuracy" if name == split else f"{name}_accuracy"
        columns |= {f"{start}_layer_{layer:02d}": row for layer, row in zip(layers, values, strict=True)}
    return columns


def training(table: LongTable, step: int, layers: Sequence[int], train_split: str, test_split: str
             ) -> dict[str, np.ndarray]:
    """For `figures.training`, at one checkpoint: name -> (layer, epoch), means over seeds, NaN after the last epoch of
    a layer."""
    table = table.select(step=step)
    epochs = range(1, int(table.frame["epoch"].max()) + 1)
    return {f"{side}_{measure}": table.select(statistic=f"epoch_{measure}", split=split)
            .averaged("layer", "epoch").frame
            .pivot(index="layer", columns="epoch", values="value").reindex(index=layers, columns=epochs).to_numpy()
            for measure in ("loss", "accuracy") for side, split in (("train", train_split), ("test", test_split))}


def compared(table: LongTable, steps: Sequence[int], layers: Sequence[int], split: str
             ) -> dict[int, dict[str, np.ndarray]]:
    """For `figures.compare`: step -> kind of probe -> (layer, 3) accuracy with its ends.

    The ends are the Wilson interval of the head, and one standard deviation over seeds of the networks; control tasks
    have none.
    """
    head = HEADS[table.select(statistic="accuracy").distinct("head")[0]]
    kinds = {head: accuracies(table, split).grid(steps, layers)}
    for name, statistic in (("one hidden layer", "one_layer_accuracy"), ("best network", "mlp_accuracy")):
        mean, sd = (table.grid(steps, layers, statistic=statistic + tail, split=split)[..., 0] for tail in ("", "_sd"))
        kinds[name] = np.stack([mean, mean - np.nan_to_num(sd), mean + np.nan_to_num(sd)], axis=-1)
    where = selectivity_split(table, split)
    control = table.grid(steps, layers, statistic="control_accuracy", split=where)[..., 0]
    kinds["control task" if where == split else "control task, training rows"] = np.stack([control] * 3, axis=-1)
    return {step: {name: values[number] for name, values in kinds.items() if np.isfinite(values[number, :, 0]).any()}
            for number, step in enumerate(steps)}
