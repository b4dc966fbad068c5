"""What the lens probes says about a batch of problems: fits, scores and curves as rows of one long table. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetrace.lenses.probes.heads import Head, TrainedHeads, head_logits, train_heads
from finetrace.lenses.probes.linear import LogisticProbe, Scores, logistic_probe, logits, score
from finetrace.longtable import LongTable

COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64,
    "n": np.int64, "split": str, "head": str, "seed": np.int32, "epoch": np.int32}
FINAL = -1  # in the column epoch: the finished probe
NO_SEED = -1  # in the column seed: the logistic probe has no randomness of its own

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """The problems of one computation.

    keys: (problem,) step and layer of each;  features: split -> (problem, row, dim);  labels: split -> (row,);
    train_split: the split that trains;  units: split -> (row,) int sentence of each row, empty where every row is one.
    """

    keys: Sequence[tuple[int, int]]
    features: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    train_split: str
    units: Mapping[str, np.ndarray] = field(default_factory=dict)


def logistic_rows(batch: Batch, **settings: Any) -> list[Row]:
    """Fit the logistic probe (settings: see `logistic_probe`) and score it on every split.

    Statistics per split: accuracy with its 95 % Wilson interval, macro_f1, loss (nats per example of a known class),
    and unseen, the number of examples of classes that training lacks, all counted as wrong, where there are any. Of the
    fit, under the training split: l2, held_out_loss (nats, of the chosen strength), iterations, gradient_norm,
    converged (1 or 0).
    """
    probe = logistic_probe(batch.features[batch.train_split], batch.labels[batch.train_split], **settings)
    rows: list[Row] = []
    for split, values in batch.features.items():
        scores = score(logits(probe, values), batch.labels[split], probe.classes, batch.units.get(split))
        rows += _score_rows(batch.keys, scores, split, "logistic", NO_SEED)
    count = len(batch.labels[batch.train_split])
    for p, (step, layer) in enumerate(batch.keys):
        rows += [make_row(step, layer, name, value, count, batch.train_split, "logistic")
                 for name, value in _fit_facts(probe, p).items() if np.isfinite(value)]
    return rows


def head_rows(batch: Batch, *, head: Head, seeds: Sequence[int], **settings: Any) -> list[Row]:
    """Train the Adam heads (settings: see `train_heads`) and score them on every split; the column seed counts from 1.

    Statistics per split, of the finished heads: accuracy with its 95 % Wilson interval, macro_f1, loss. Per epoch (from
    1): epoch_accuracy and epoch_loss of every split in evaluation mode, and under the training split
    epoch_training_accuracy and epoch_training_loss in training mode, dropout included, as Keras reports them.
    """
    pairs = {split: (values, batch.labels[split]) for split, values in batch.features.items()}
    X, y = pairs.pop(batch.train_split)
    heads = train_heads(X, y, pairs, head=head, seeds=seeds, **settings)
    rows: list[Row] = []
    for split, values in batch.features.items():
        for s, seed_logits in enumerate(head_logits(heads, values)):
            scores = score(seed_logits, batch.labels[split], heads.classes, batch.units.get(split))
            rows += _score_rows(batch.keys, scores, split, head, s + 1)
    return rows + _curve_rows(batch, heads, head)


def table(rows: Iterable[Row]) -> LongTable:
    """Rows as one table, sorted by step, layer, seed, epoch, split: equal results are equal bytes."""
    return LongTable.of_rows(rows, COLUMNS).sorted("step", "layer", "seed", "epoch", "split")


def _score_rows(keys: Sequence[tuple[int, int]], scores: Scores, split: str, head: str, seed: int) -> list[Row]:
    rows = []
    for p, (step, layer) in enumerate(keys):
        place = (scores.n, split, head, seed)
        ends = {"low": scores.low[p], "high": scores.high[p]}
        rows.append(make_row(step, layer, "accuracy", scores.accuracy[p], *place) | ends)
        rows.append(make_row(step, layer, "macro_f1", scores.macro_f1[p], *place))
        rows.append(make_row(step, layer, "loss", scores.loss[p], *place))
        if scores.unseen:
            rows.append(make_row(step, layer, "unseen", scores.unseen, *place))
    return rows


def _curve_rows(batch: Batch, heads: TrainedHeads, head: str) -> list[Row]:
    rows = []
    for name, losses in heads.loss.items():
        split = batch.train_split if name in ("training", "train") else name
        kind = "epoch_training" if name == "training" else "epoch"
        for measure, values in (("loss", losses), ("accuracy", heads.accuracy[name])):
            for (s, p, e), value in np.ndenumerate(values):
                count = len(batch.labels[split])
                rows.append(make_row(*batch.keys[p], f"{kind}_{measure}", value, count, split, head, s + 1, e + 1))
    return rows


def _fit_facts(probe: LogisticProbe, p: int) -> dict[str, float]:
    losses = probe.held_out_loss[p]
    return {"l2": float(probe.l2[p]), "held_out_loss": float(losses.min()), "iterations": float(probe.iterations[p]),
            "gradient_norm": float(probe.gradient_norm[p]), "converged": float(probe.converged[p])}


def make_row(step: int, layer: int, statistic: str, value: float, n: int, split: str, head: str, seed: int = NO_SEED,
         epoch: int = FINAL) -> Row:
    """One row of the table; its interval is NaN."""
    return {"step": step, "layer": layer, "statistic": statistic, "value": float(value), "low": np.nan, "high": np.nan,
            "n": n, "split": split, "head": head, "seed": seed, "epoch": epoch}
