"""What is told of edge probes: the rows of the table, headline numbers and curves, from hits and mixing weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetrace.lenses.edges import statistics
from finetrace.lenses.edges.metrics import f1_difference, micro, micro_intervals, sentence_counts
from finetrace.lenses.intervals import share_interval
from finetrace.longtable import LongTable, known

COLUMNS: dict[str, type] = {"task": str, "step": np.int64, "readout": str, "layer": np.int32, "split": str,
                            "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}
Readout = tuple[str, int]
"""layer k; mix of the layers 0..k; full, the mix of all, with the number of the last layer."""
MOST_CURVES = 30


@dataclass(frozen=True)
class SplitHits:
    """What probes decided on one split.

    hits: (readout, target, 3) uint8, true positives, false positives, false negatives;  sentences: (target,) int64,
    what is resampled as a whole;  clean: hits among some classes, or None;  right: (readout, target) number, whether
    the highest output is the right class, or None where labels are sets;  majority: (3,) hits of deciding always for
    what is frequent in training.
    """

    hits: np.ndarray
    sentences: np.ndarray
    clean: np.ndarray | None = None
    right: np.ndarray | None = None
    majority: Sequence[float] | None = None


@dataclass(frozen=True)
class TaskResult:
    """One task at one checkpoint.

    readouts: the first axis of hits;  splits: split -> what was decided;  weights: (layer,) of the full mix, or None;
    gamma: its scale;  control: split -> hits (readout of single layers, target, 3) on the control task;  ceiling:
    split -> share of its targets whose type training has;  mdl: layer -> bits per target and compression;  targets: of
    the training split.
    """

    readouts: list[Readout]
    splits: dict[str, SplitHits]
    weights: np.ndarray | None = None
    gamma: float = float("nan")
    control: dict[str, np.ndarray] = field(default_factory=dict)
    ceiling: dict[str, float] = field(default_factory=dict)
    mdl: dict[int, tuple[float, float]] = field(default_factory=dict)
    targets: int = 0


def task_rows(task: str, step: int, result: TaskResult) -> list[dict[str, Any]]:
    """Rows of the table for one task and checkpoint.

    Statistics of the mixing weights, which belong to no split, stand with the split that is reported. Raises
    ValueError for a result without splits.
    """
    reported, rows = report_split(result.splits), []
    for split, hits in result.splits.items():
        rows += _split_rows(result, split, hits)
    last = result.readouts[-1][1]
    if result.weights is not None:
        values = {"gamma": result.gamma, "cog": statistics.center_of_gravity(result.weights),
                  "kl_bits": statistics.kl_from_uniform_bits(result.weights),
                  "entropy_bits": statistics.entropy_bits(result.weights)}
        n = len(result.splits[reported].sentences)
        rows += [_row("full", layer, reported, "weight", float(w), n=n) for layer, w in enumerate(result.weights)]
        rows += [_row("full", last, reported, name, float(value), n=n) for name, value in values.items()]
    for layer, (bits, compression) in result.mdl.items():
        rows += [_row("layer", layer, "train", "mdl_bits_per_target", bits, n=result.targets),
                 _row("layer", layer, "train", "compression", compression, n=result.targets)]
    return [{"task": task, "step": step, **row} for row in rows]


def report_split(splits: Mapping[str, Any]) -> str:
    """Test, or validation where a task has no test split. Raises ValueError when there is neither."""
    for name in ("test", "validation"):
        if name in splits:
            return name
    raise ValueError("there is neither a test nor a validation split to report")


def _split_rows(result: TaskResult, split: str, hits: SplitHits) -> list[dict[str, Any]]:
    rows, n = [], hits.hits.shape[1]
    estimates = micro_intervals(sentence_counts(hits.hits, hits.sentences))
    if hits.clean is not None:
        estimates["f1_clean"] = micro_intervals(sentence_counts(hits.clean, hits.sentences))["f1"]
    if hits.right is not None:
        estimates["accuracy"] = hits.right.mean(axis=-1), *share_interval(hits.right, hits.sentences)
    for number, (readout, layer) in enumerate(result.readouts):
        rows += [_row(readout, layer, split, name, *(float(part[number]) for part in estimate), n=n)
                 for name, estimate in estimates.items()]
    if hits.majority is not None:
        rows.append(_row("", -1, split, "majority", float(micro(np.asarray(hits.majority))["f1"]), n=n))
    single = [i for i, (readout, _) in enumerate(result.readouts) if readout == "layer"]
    if split in result.control and single:
        control = sentence_counts(result.control[split], hits.sentences)
        for name, estimate in {"control_f1": micro_intervals(control)["f1"], "selectivity": f1_difference(
                sentence_counts(hits.hits[single], hits.sentences), control)}.items():
            rows += [_row("layer", result.readouts[i][1], split, name, *(float(part[k]) for part in estimate), n=n)
                     for k, i in enumerate(single)]
        rows.append(_row("", -1, split, "control_ceiling", result.ceiling[split], n=n))
    mixes = [i for i, (readout, _) in enumerate(result.readouts) if readout == "mix"]
    if len(mixes) > 1:
        rows += _cumulative_rows([result.readouts[i][1] for i in mixes], estimates["f1"][0][mixes], split, n)
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
    return {"readout": readout, "layer": layer, "split": split, "statistic": statistic, "value": value, "low": low,
            "high": high, "n": n}


def layers_of(table: LongTable, task: str) -> list[int]:
    """All layers up to the last one that has a row."""
    return list(range(1 + int(table.select(task=task).frame["layer"].max())))


def drawn(table: LongTable, task: str, split: str, steps: Sequence[int]) -> dict[str, Any]:
    """What figures show of a task; NaN where there is none.

    layer, mix: F1 of every layer, and of the mixes of the layers 0 to k, (step, layer, 3) value, low, high;  full: F1
    of the mix of all, (step, 3);  weight: its weights, (step, layer);  cog, expected_layer: (step,);  majority: F1 of
    the most frequent class.
    """
    layers, part = layers_of(table, task), table.select(task=task, split=split)
    return {"layer": part.grid(steps, layers, statistic="f1", readout="layer"),
            "mix": part.grid(steps, layers, statistic="f1", readout="mix"),
            "full": part.course(steps, statistic="f1", readout="full"),
            "weight": part.grid(steps, layers, statistic="weight")[..., 0],
            "cog": part.course(steps, statistic="cog")[:, 0],
            "expected_layer": part.course(steps, statistic="expected_layer")[:, 0],
            "majority": part.value(statistic="majority", step=steps[0])}


def headlines(table: LongTable, steps: Sequence[int], reported: Mapping[str, str]) -> dict[str, float]:
    """Flat numbers per task at the first and last checkpoint: best layer and its F1, the full mix, centre of gravity,
    expected layer, majority, selectivity and compression of the best layer. reported: task -> split."""
    numbers: dict[str, float] = {}
    for task, split in reported.items():
        layers, part = layers_of(table, task), table.select(task=task, split=[split, "train"])
        wanted = {f"{task}/{name}": {"statistic": name} for name in ("cog", "expected_layer", "majority")}
        numbers |= part.headlines(wanted | {f"{task}/f1/full": {"statistic": "f1", "readout": "full"}}, steps)
        for when, step in {"first": steps[0], "last": steps[-1]}.items():
            scores = part.grid([step], layers, statistic="f1", readout="layer")[0, :, 0]
            if np.isfinite(scores).any():
                best = layers[int(np.nanargmax(scores))]
                numbers[f"{task}/best_layer/{when}"] = best
                best_layer = part.select(readout="layer", layer=best, step=step)
                numbers |= known({f"{task}/{name}/best_layer/{when}": best_layer.value(statistic=name)
                                  for name in ("f1", "selectivity", "compression")})
    return numbers


def curves(table: LongTable, steps: Sequence[int], reported: Mapping[str, str]) -> dict[str, list[float]]:
    """Columns of curves.csv: step first, then per task the F1 of the full mix (of the best layer where there is none),
    centre of gravity and expected layer; at most 30 columns, those of the first tasks."""
    columns: dict[str, list[float]] = {"step": list(steps)}
    for task, split in reported.items():
        part = table.select(task=task, split=split)
        scores, name = part.course(steps, statistic="f1", readout="full")[:, 0], "f1"
        if not np.isfinite(scores).any():
            single = part.grid(steps, statistic="f1", readout="layer")[..., 0]
            scores, name = np.where(np.isfinite(single), single, -np.inf).max(axis=1), "f1_best_layer"
        new = {f"{name}_{task}": scores} | {f"{statistic}_{task}": part.course(steps, statistic=statistic)[:, 0]
                                            for statistic in ("cog", "expected_layer")}
        shown = {key: values.tolist() for key, values in new.items() if np.isfinite(values).any()}
        if len(columns) + len(shown) <= MOST_CURVES:
            columns |= shown
    return columns
