"""What is told of edge probes: the rows of the table, headline numbers and curves, from hits and mixing weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetrace.lenses.edges import statistics
from finetrace.lenses.edges.metrics import f1_difference, micro, micro_intervals, sentence_counts, share_interval

COLUMNS = {"task": "string", "step": "int64", "readout": "string", "layer": "int32", "split": "string", "statistic": "string",
           "value": "float64", "low": "float64", "high": "float64", "n": "int64"}
Readout = tuple[str, int]
"""layer k; mix of the layers 0..k; full, the mix of all, with the number of the last layer."""
MOST_CURVES = 30


@dataclass(frozen=True)
class SplitHits:
    """What probes decided on one split.

    hits: (readout, target, 3) uint8, true positives, false positives, false negatives;  sentences: (target,) int64, what is
    resampled as a whole;  clean: hits among some classes, or None;  right: (readout, target) number, whether the highest output
    is the right class, or None where labels are sets;  majority: (3,) hits of deciding always for what is frequent in training.
    """

    hits: np.ndarray
    sentences: np.ndarray
    clean: np.ndarray | None = None
    right: np.ndarray | None = None
    majority: Sequence[float] | None = None


@dataclass(frozen=True)
class TaskResult:
    """One task at one checkpoint.

    readouts: the first axis of hits;  splits: split -> what was decided;  weights: (layer,) of the full mix, or None;  gamma: its
    scale;  control: split -> hits (readout of single layers, target, 3) on the control task;  ceiling: split -> share of its
    targets whose type training has;  mdl: layer -> bits per target and compression;  targets: of the training split.
    """

    readouts: list[Readout]
    splits: dict[str, SplitHits]
    weights: np.ndarray | None = None
    gamma: float = float("nan")
    control: dict[str, np.ndarray] = field(default_factory=dict)
    ceiling: dict[str, float] = field(default_factory=dict)
    mdl: dict[int, tuple[float, float]] = field(default_factory=dict)
    targets: int = 0


def task_rows(task: str, step: int, found: TaskResult) -> list[dict[str, Any]]:
    """Rows of the table for one task and checkpoint.

    Statistics of the mixing weights, which belong to no split, stand with the split that is reported. Raises ValueError for a
    result without splits.
    """
    reported, rows = report_split(found.splits), []
    for split, one in found.splits.items():
        rows += _split_rows(found, split, one)
    last = found.readouts[-1][1]
    if found.weights is not None:
        values = {"gamma": found.gamma, "cog": statistics.center_of_gravity(found.weights),
                  "kl_bits": statistics.kl_from_uniform_bits(found.weights),
                  "entropy_bits": statistics.entropy_bits(found.weights)}
        n = len(found.splits[reported].sentences)
        rows += [_row("full", layer, reported, "weight", float(w), n=n) for layer, w in enumerate(found.weights)]
        rows += [_row("full", last, reported, name, float(value), n=n) for name, value in values.items()]
    for layer, (bits, compression) in found.mdl.items():
        rows += [_row("layer", layer, "train", "mdl_bits_per_target", bits, n=found.targets),
                 _row("layer", layer, "train", "compression", compression, n=found.targets)]
    return [{"task": task, "step": step, **row} for row in rows]


def report_split(splits: Mapping[str, Any]) -> str:
    """Test, or validation where a task has no test split. Raises ValueError when there is neither."""
    for name in ("test", "validation"):
        if name in splits:
            return name
    raise ValueError("there is neither a test nor a validation split to report")


def _split_rows(found: TaskResult, split: str, one: SplitHits) -> list[dict[str, Any]]:
    rows, n = [], one.hits.shape[1]
    estimates = micro_intervals(sentence_counts(one.hits, one.sentences))
    if one.clean is not None:
        estimates["f1_clean"] = micro_intervals(sentence_counts(one.clean, one.sentences))["f1"]
    if one.right is not None:
        estimates["accuracy"] = share_interval(one.right, one.sentences)
    for number, (readout, layer) in enumerate(found.readouts):
        rows += [_row(readout, layer, split, name, *(float(part[number]) for part in estimate), n=n)
                 for name, estimate in estimates.items()]
    if one.majority is not None:
        rows.append(_row("", -1, split, "majority", float(micro(np.asarray(one.majority))["f1"]), n=n))
    single = [i for i, (readout, _) in enumerate(found.readouts) if readout == "layer"]
    if split in found.control and single:
        control = sentence_counts(found.control[split], one.sentences)
        for name, estimate in {"control_f1": micro_intervals(control)["f1"], "selectivity": f1_difference(
                sentence_counts(one.hits[single], one.sentences), control)}.items():
            rows += [_row("layer", found.readouts[i][1], split, name, *(float(part[k]) for part in estimate), n=n)
                     for k, i in enumerate(single)]
        rows.append(_row("", -1, split, "control_ceiling", found.ceiling[split], n=n))
    mixes = [i for i, (readout, _) in enumerate(found.readouts) if readout == "mix"]
    if len(mixes) > 1:
        rows += _cumulative_rows([found.readouts[i][1] for i in mixes], estimates["f1"][0][mixes], split, n)
    return rows


def _cumulative_rows(layers: Sequence[int], scores: np.ndarray, split: str, n: int) -> list[dict[str, Any]]:
    last = layers[-1]
    values = {"expected_layer": statistics.expected_layer(scores), "headroom": statistics.headroom(scores),
              "expected_layer_running_max": statistics.expected_layer(scores, running_max=True),
              "delta_kl_bits": statistics.kl_of_deltas_bits(scores)}
    return [*(_row("mix", last, split, name, float(value), n=n) for name, value in values.items()),
            *(_row("mix", k, split, "delta", float(delta), n=n)
              for k, delta in zip(layers[1:], statistics.deltas(scores), strict=True))]


def _row(readout: str, layer: int, split: str, statistic: str, value: float, low: float = float("nan"),
         high: float = float("nan"), *, n: int) -> dict[str, Any]:
    return {"readout": readout, "layer": layer, "split": split, "statistic": statistic,
            **{name: v if np.isfinite(v) else None for name, v in (("value", value), ("low", low), ("high", high))}, "n": n}


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as an Arrow table with fixed types."""
    import pyarrow as pa

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    return pa.Table.from_pylist([{name: row[name] for name in COLUMNS} for row in rows], schema=schema)


Index = dict[tuple[str, str, str, str, int, int], tuple[float, float, float]]
"""(task, statistic, split, readout, layer, step) -> value, low, high."""


def indexed(rows: Sequence[Mapping[str, Any]]) -> Index:
    """Rows of the table for looking up."""
    def number(row: Mapping[str, Any], name: str) -> float:
        return np.nan if row[name] is None else float(row[name])

    return {(row["task"], row["statistic"], row["split"], row["readout"], row["layer"], row["step"]):
            (number(row, "value"), number(row, "low"), number(row, "high")) for row in rows}


def series(index: Index, task: str, statistic: str, split: str, readout: str, steps: Sequence[int],
           layers: Sequence[int]) -> np.ndarray:
    """(step, layer, 3) value, low, high of one statistic; NaN where there is none."""
    nothing = (np.nan, np.nan, np.nan)
    found = [[index.get((task, statistic, split, readout, layer, step), nothing) for layer in layers] for step in steps]
    return np.array(found).reshape(len(steps), len(layers), 3)


def layers_of(index: Index, task: str) -> list[int]:
    """All layers up to the last one that has a row."""
    return list(range(1 + max(key[4] for key in index if key[0] == task)))


def drawn(index: Index, task: str, split: str, steps: Sequence[int]) -> dict[str, Any]:
    """What figures show of a task; NaN where there is none.

    layer, mix: F1 of every layer, and of the mixes of the layers 0 to k, (step, layer, 3) value, low, high;  full: F1 of
    the mix of all, (step, 3);  weight: its weights, (step, layer);  cog, expected_layer: (step,);  majority: F1 of the
    most frequent class.
    """
    layers = layers_of(index, task)
    one = {name: series(index, task, name, split, readout, steps, layers[-1:])[:, 0] for name, readout in
           (("f1", "full"), ("cog", "full"), ("expected_layer", "mix"))}
    return {"layer": series(index, task, "f1", split, "layer", steps, layers),
            "mix": series(index, task, "f1", split, "mix", steps, layers), "full": one["f1"],
            "weight": series(index, task, "weight", split, "full", steps, layers)[..., 0], "cog": one["cog"][:, 0],
            "expected_layer": one["expected_layer"][:, 0],
            "majority": float(series(index, task, "majority", split, "", steps[:1], [-1])[0, 0, 0])}


def headlines(index: Index, steps: Sequence[int], reported: Mapping[str, str]) -> dict[str, float]:
    """Flat numbers per task at the first and last checkpoint: best layer and its F1, the full mix, centre of gravity, expected
    layer, majority, selectivity and compression of the best layer. reported: task -> split."""
    found: dict[str, float] = {}
    for task, split in reported.items():
        layers = layers_of(index, task)
        for when, step in {"first": steps[0], "last": steps[-1]}.items():
            scores = series(index, task, "f1", split, "layer", [step], layers)[0, :, 0]
            best = layers[int(np.nanargmax(scores))] if np.isfinite(scores).any() else -2
            asked = {"f1/full": ("f1", split, "full", layers[-1]), "cog": ("cog", split, "full", layers[-1]),
                     "expected_layer": ("expected_layer", split, "mix", layers[-1]), "majority": ("majority", split, "", -1),
                     "f1/best_layer": ("f1", split, "layer", best),
                     "selectivity/best_layer": ("selectivity", split, "layer", best),
                     "compression/best_layer": ("compression", "train", "layer", best)}
            values = {name: index.get((task, *key, step), (np.nan,))[0] for name, key in asked.items()}
            values["best_layer"] = best if best >= 0 else np.nan
            found |= {f"{task}/{name}/{when}": value for name, value in values.items() if np.isfinite(value)}
    return found


def curves(index: Index, steps: Sequence[int], reported: Mapping[str, str]) -> dict[str, list[float]]:
    """Columns of curves.csv: step first, then per task the F1 of the full mix (of the best layer where there is none), centre of
    gravity and expected layer; at most 30 columns, those of the first tasks."""
    columns: dict[str, list[float]] = {"step": list(steps)}
    for task, split in reported.items():
        layers = layers_of(index, task)
        full, name = series(index, task, "f1", split, "full", steps, layers[-1:])[:, 0, 0], "f1"
        if not np.isfinite(full).any():
            scores = series(index, task, "f1", split, "layer", steps, layers)[..., 0]
            full, name = np.where(np.isfinite(scores), scores, -np.inf).max(axis=1), "f1_best_layer"
        new = {f"{name}_{task}": full, f"cog_{task}": series(index, task, "cog", split, "full", steps, layers[-1:])[:, 0, 0],
               f"expected_layer_{task}": series(index, task, "expected_layer", split, "mix", steps, layers[-1:])[:, 0, 0]}
        shown = {key: values.tolist() for key, values in new.items() if np.isfinite(values).any()}
        if len(columns) + len(shown) <= MOST_CURVES:
            columns |= shown
    return columns
