"""What the lens influence says about one trajectory: rows of a table, headline numbers, curves. Pure.

Influence of training examples is that of those looked at, times how many times more the training has: the drop of the
loss that gradient descent would have brought, to first order, in nats (or what the loss is in).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from finetrace.lenses.influence.recorded import Drops
from finetrace.lenses.influence.scores import Influence, top_share
from finetrace.lenses.intervals import bootstrap_mean, bootstrap_weights, percentile_interval
from finetrace.longtable import LongTable, known

WHOLE = "all"  # in the column group: all parameters
DRAWS = 1000
COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "split": str, "group": str, "statistic": str, "value": np.float64,
    "low": np.float64, "high": np.float64, "n": np.int64}
"""layer is that of the group, else -1; split is the one that the number is about."""
IN_CURVES = ("influence", "share", "cosine", "cosine_same_class", "cosine_other_class", "self_influence")

Row = dict[str, Any]


def rows_of(of: Influence, scale: float, same: np.ndarray | None, split: str, seed: int = 0) -> list[Row]:
    """The rows of all checkpoints, and `agreement` at the last.

    scale: training examples / those looked at;  same: (eval example, train example) whether both are of one class, None
    where the task has no classes;  split: of the eval examples.
    """
    count = of.by_step[0].shape
    draws = bootstrap_weights(count[0], DRAWS, seed)
    found: list[Row] = []
    for number, step in enumerate(of.steps):
        sums = of.by_step[number].sum(axis=1, dtype=np.float64) * scale
        found += [_row(step, "influence", split, *_mean(sums, draws), n=count[0]),
                  _row(step, "share", split, of.shares[number], n=count[0] * count[1])]
        found += [_row(step, "influence", split, float(values.mean()) * scale, n=count[0], group=group)
                  for group, values in of.by_group[number].items()]
        found += _cosine_rows(step, of.cosines[number], same, split, draws)
        found += [_row(step, "self_influence", "train", float(of.own_by_step[number].mean()) * scale, n=count[1]),
                  _row(step, "loss", split, *_mean(of.eval_losses[number], draws), n=count[0]),
                  _row(step, "loss", "train", float(of.train_losses[number].mean()), n=count[1])]
    value, low, high = agreement(of, scale, draws)
    return [*found, _row(of.steps[-1], "agreement", split, value, low, high, n=count[0])]


def predicted_and_seen(of: Influence, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(eval example,) drop of its loss over the whole training: that which influence predicts, and that which
    happened."""
    return of.whole.sum(axis=1) * scale, of.eval_losses[0] - of.eval_losses[-1]


def agreement(of: Influence, scale: float, draws: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation, over the evaluation examples, of the drop of the loss that influence predicts and that
    which happened, in [-1, 1], with its bootstrap interval; NaN where either is the same for all."""
    predicted, seen = predicted_and_seen(of, scale)
    picks = np.array([np.repeat(np.arange(len(seen)), row.astype(np.int64)) for row in draws])
    low, high = percentile_interval(_spearman(predicted[picks], seen[picks]))
    return float(_spearman(predicted, seen)), float(low), float(high)


def recorded_rows(of: Mapping[str, Drops]) -> list[Row]:
    """`recorded_drop` at the end of each interval between looks, of each split that the training watched, and
    `recorded_rows`, the training rows between them."""
    return [row for split, drop in of.items() for number, step in enumerate(drop.ends.tolist()) for row in (
        _row(step, "recorded_drop", split, drop.value[number], drop.low[number], drop.high[number], n=drop.watched),
        _row(step, "recorded_rows", split, float(drop.visits[number]), n=drop.watched))]


def metrics(table: LongTable, of: Influence, scale: float, split: str) -> dict[str, float]:
    """Headline numbers; undefined ones are left out.

    agreement, half_step, top_tenth: see `headlines`;  predicted_drop, seen_drop: means over the evaluation examples;
    influence/GROUP: share of each group of parameters in predicted_drop; cosine/{first,last}.
    """
    whole = table.select(group=WHOLE)
    predicted, seen = (float(values.mean()) for values in predicted_and_seen(of, scale))
    reached = np.flatnonzero(np.cumsum(of.shares) >= 0.5)
    numbers = {"agreement": whole.value(step=of.steps[-1], statistic="agreement"), "top_tenth": top_share(of.whole),
               "half_step": float(of.steps[reached[0]]) if len(reached) else float("nan"),
               "predicted_drop": predicted, "seen_drop": seen if len(of.steps) > 1 else float("nan"),
               "self_influence/top_tenth": top_share(of.own[None])}
    total = of.whole.sum()
    numbers |= {f"influence/{group}": float(values.sum() / total) if total else float("nan")
                for group, values in of.groups.items()}
    names = ("cosine", "cosine_same_class", "cosine_other_class")
    numbers |= whole.headlines({name: {"statistic": name, "split": split} for name in names}, of.steps)
    return known(numbers)


def curves(table: LongTable, steps: Sequence[int], split: str) -> dict[str, np.ndarray]:
    """Columns step, the statistics of `IN_CURVES` and loss_SPLIT over the checkpoints; those without any value are left
    out."""
    whole = table.select(group=WHOLE)
    columns = {name: whole.course(steps, statistic=name)[:, 0] for name in IN_CURVES}
    columns |= {f"loss_{of}": whole.course(steps, statistic="loss", split=of)[:, 0] for of in (split, "train")}
    return {"step": np.array(steps, dtype=np.int64),
            **{name: values for name, values in columns.items() if np.isfinite(values).any()}}


def _cosine_rows(step: int, cosines: np.ndarray, same: np.ndarray | None, split: str, draws: np.ndarray) -> list[Row]:
    """Mean cosine of the gradients of an evaluation and a training example: of all pairs, of one class, of two."""
    kinds = {"": np.ones(cosines.shape, dtype=bool)} | (
        {} if same is None else {"_same_class": same, "_other_class": ~same})
    found = []
    for kind, inside in kinds.items():
        counts = inside.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            of_each = np.where(inside, cosines, 0).sum(axis=1, dtype=np.float64) / counts
        if inside.any():
            low, high = bootstrap_mean(of_each, draws)
            value = float(np.nanmean(of_each))
            found.append(_row(step, f"cosine{kind}", split, value, float(low), float(high), n=int(inside.sum())))
    return found


def _spearman(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties sharing their mean rank; NaN where either is the same for all."""
    x, y = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (left, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis=-1) / np.sqrt(np.square(x).sum(axis=-1) * np.square(y).sum(axis=-1))


def _mean(values: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    low, high = bootstrap_mean(values, draws)
    return float(values.mean()), float(low), float(high)


def _row(step: int, statistic: str, split: str, value: float, low: float = np.nan, high: float = np.nan, *, n: int,
         group: str = WHOLE) -> Row:
    layer = re.fullmatch(r"layer-(\d+)", group)
    return {"step": step, "layer": int(layer[1]) if layer else -1, "split": split, "group": group,
            "statistic": statistic, "value": float(value), "low": low, "high": high, "n": n}
