"""What the lens probes reports of its long table: metrics, curves, and what the figures draw. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from finetrace.lenses.probes.summary import Row, accuracies

HEADS = {"logistic": "logistic regression", "xlm": "linear head", "roberta": "tanh head"}


def metrics(rows: Sequence[Row], steps: Sequence[int], layers: Sequence[int], floors: Mapping[str, float],
            main: str) -> dict[str, float]:
    """What a person compares between runs: first and last checkpoint of every layer, the best layer, the floor.

    floors: majority floor of every scored split;  main: the one whose selectivity counts.
    """
    found: dict[str, float] = {}
    ends = {"first": steps[0], "last": steps[-1]}

    def put(name: str, statistic: str, split: str) -> None:
        for when, row in zip(ends, at(rows, statistic, split, list(ends.values()), layers), strict=True):
            found.update({f"{name}/layer-{layer:02d}/{when}": float(value) for layer, value in zip(layers, row, strict=True)
                          if np.isfinite(value)})

    for split, floor in floors.items():
        values = accuracies(rows, split, list(ends.values()), layers)[..., 0]
        for row, when in zip(values, ends, strict=True):
            for layer, value in zip(layers, row, strict=True):
                found[f"accuracy/{split}/layer-{layer:02d}/{when}"] = float(value)
            found[f"best_accuracy/{split}/{when}"] = float(row.max())
            found[f"best_layer/{split}/{when}"] = layers[int(row.argmax())]
        found[f"majority_floor/{split}"] = floor
        for statistic in ("mlp_accuracy", "mlp_accuracy_sd", "one_layer_accuracy"):
            put(f"{statistic}/{split}", statistic, split)
    put("selectivity", "selectivity", selectivity_split(rows, main))
    for split in sorted({r["split"] for r in rows if r["statistic"] == "mdl_bits"}):
        put("mdl_bits", "mdl_bits", split)
        put("mdl_compression", "mdl_compression", split)
    return found


def selectivity_split(rows: Iterable[Row], wanted: str) -> str:
    """Where selectivity is looked at: `wanted`, or the training rows where the control task is learned by heart."""
    splits = [r["split"] for r in rows if r["statistic"] == "selectivity"]
    return wanted if wanted in splits or not splits else splits[0]


def curves(rows: Sequence[Row], steps: Sequence[int], layers: Sequence[int], split: str) -> dict[str, Sequence[float]]:
    """Accuracy of the head by layer over the checkpoints: column -> (step,); subtrain and subtest too where there are any."""
    made: dict[str, Sequence[float]] = {"step": steps}
    present = {r["split"] for r in rows}
    for one in (split, *(extra for extra in ("subtrain", "subtest") if extra in present)):
        values = accuracies(rows, one, steps, layers)[..., 0].T
        name = "accuracy" if one == split else f"{one}_accuracy"
        made |= {f"{name}_layer_{layer:02d}": row for layer, row in zip(layers, values, strict=True)}
    return made


def compared(rows: Sequence[Row], steps: Sequence[int], layers: Sequence[int],
             split: str) -> dict[int, dict[str, np.ndarray]]:
    """For `probes.figures.compare`: step -> kind of probe -> (layer, 3) accuracy with its ends.

    The ends are the Wilson interval of the head, and one standard deviation over seeds of the networks; control tasks have none.
    """
    head = next(HEADS[r["head"]] for r in rows if r["statistic"] == "accuracy")
    where = selectivity_split(rows, split)
    made: dict[int, dict[str, np.ndarray]] = {}
    for one in steps:
        made[one] = {head: accuracies(rows, split, [one], layers)[0]}
        for name, statistic in (("one hidden layer", "one_layer_accuracy"), ("best network", "mlp_accuracy")):
            mean, sd = (at(rows, statistic + tail, split, [one], layers)[0] for tail in ("", "_sd"))
            made[one][name] = np.stack([mean, mean - np.nan_to_num(sd), mean + np.nan_to_num(sd)], axis=1)
        control = at(rows, "control_accuracy", where, [one], layers)[0]
        name = "control task" if where == split else "control task, training rows"
        made[one][name] = np.stack([control, control, control], axis=1)
        made[one] = {name: values for name, values in made[one].items() if np.isfinite(values[:, 0]).any()}
    return made


def at(rows: Iterable[Row], statistic: str, split: str, steps: Sequence[int], layers: Sequence[int]) -> np.ndarray:
    """One statistic on one split: (step, layer) float64, NaN where absent."""
    cells = {(r["step"], r["layer"]): r["value"] for r in rows if r["statistic"] == statistic and r["split"] == split}
    return np.array([[cells.get((step, layer), np.nan) for layer in layers] for step in steps], dtype=np.float64)
