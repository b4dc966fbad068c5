"""Rows of the long table for what stands beside the head of the lens probes: networks, control tasks, description
length.

Pure: arrays in, rows out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.lenses.intervals import share_interval
from finetrace.lenses.probes.summary import Batch, Row, logistic_rows, make_row


def mlp_rows(batch: Batch, *, hidden: Sequence[Sequence[int]], one_layer: Sequence[int] = (),
             **settings: Any) -> list[Row]:
    """Search and train networks (settings: see `mlp_grid`) and score them on every split.

    Statistics per split: mlp_accuracy, mean over seeds, with its 95 % Wilson interval over examples, and
    mlp_accuracy_sd over seeds (NaN for one seed); under the training split, of the chosen network: mlp_hidden_1,
    mlp_hidden_2 (0 where there is no such layer), mlp_l2, mlp_held_out_accuracy (NaN without a search), mlp_epochs
    (mean over seeds) and mlp_converged (share of seeds). one_layer: sizes of networks with one hidden layer:
    one_layer_accuracy, one_layer_accuracy_sd.
    """
    from finetrace.lenses.probes.mlp import mlp_grid

    X, y = batch.features[batch.train_split], batch.labels[batch.train_split]
    probe = mlp_grid(X, y, hidden=hidden, **settings)
    rows = _network_rows(batch, probe, "mlp")
    for p, key in enumerate(batch.keys):
        sizes = (*probe.hidden[probe.chosen_hidden[p]], 0, 0)
        facts = {"mlp_hidden_1": sizes[0], "mlp_hidden_2": sizes[1], "mlp_l2": probe.chosen_l2[p],
                 "mlp_held_out_accuracy": np.fmax.reduce(probe.held_out_accuracy[p], axis=None),
                 "mlp_epochs": probe.epochs[p].mean(), "mlp_converged": probe.converged[p].mean()}
        rows += [make_row(*key, name, value, len(y), batch.train_split, "mlp") for name, value in facts.items()
                 if np.isfinite(value)]
    if one_layer:
        rows += _network_rows(batch, mlp_grid(X, y, hidden=[(size,) for size in one_layer], **settings), "one_layer")
    return rows


def control_rows(batch: Batch, types: Mapping[str, Sequence[str]] | None, gold: Iterable[Row], *, control_seed: int,
                 probe: str, **settings: Any) -> list[Row]:
    """Selectivity (Hewitt and Liang 2019): the same probe on random labels that depend on the word type alone.

    types: split -> the word type of each row; None where examples are whole texts, whose control task is a random order
    of the training labels: it can be learned by heart only, so it is scored on the training rows.
    gold: rows that hold the accuracy on the true labels;  control_seed: draws the labels;
    probe: "logistic" or "mlp";  settings: of that probe.
    Statistics per split: control_accuracy, and selectivity, accuracy minus control accuracy, in [-1, 1]; high means
    that the accuracy is not the probe's own memory. Control labels of one class only give no rows.
    """
    from finetrace.lenses.probes.control import control_labels

    splits = [batch.train_split] if types is None else list(batch.features)
    y = np.concatenate([batch.labels[split] for split in splits])
    train = np.concatenate([np.full(len(batch.labels[split]), split == batch.train_split) for split in splits])
    names = np.arange(len(y)) if types is None else np.concatenate([np.asarray(types[split]) for split in splits])
    drawn = control_labels(names, y, train, control_seed)
    if len(np.unique(drawn[train])) < 2:
        return []
    labels = dict(zip(splits, np.split(drawn, np.cumsum([len(batch.labels[split]) for split in splits])[:-1]),
                      strict=True))
    control = Batch(batch.keys, {split: batch.features[split] for split in splits}, labels, batch.train_split,
                    batch.units)
    control_probe_rows, name = ((logistic_rows(control, **settings), "accuracy") if probe == "logistic"
                                else (mlp_rows(control, **settings), "mlp_accuracy"))
    true = {(r["step"], r["layer"], r["split"]): r["value"] for r in gold if r["statistic"] == name}
    rows = []
    for r in control_probe_rows:
        if r["statistic"] == name:
            place = (r["step"], r["layer"], r["split"])
            rows.append(r | {"statistic": "control_accuracy"})
            rows.append(make_row(*place[:2], "selectivity", true[place] - r["value"], r["n"], r["split"], probe))
    return rows


def mdl_rows(batch: Batch, **settings: Any) -> list[Row]:
    """Online code length of the training labels (settings: see `online_code`): mdl_bits, and mdl_compression, the
    uniform code length over it: about 1 for vectors that say nothing, higher is better."""
    from finetrace.lenses.probes.mdl import online_code

    code = online_code(batch.features[batch.train_split], batch.labels[batch.train_split], **settings)
    count = len(batch.labels[batch.train_split])
    return [make_row(*key, name, value, count, batch.train_split, "logistic") for p, key in enumerate(batch.keys)
            for name, value in (("mdl_bits", code.bits[p]), ("mdl_compression", code.compression[p]))]


def _network_rows(batch: Batch, probe: Any, name: str) -> list[Row]:
    from finetrace.lenses.probes.mlp import mlp_logits

    rows = []
    for split, values in batch.features.items():
        for p, key in enumerate(batch.keys):
            predicted = probe.classes[mlp_logits(probe, p, values[p]).argmax(axis=2)]  # (seed, row)
            right, count = predicted == batch.labels[split], len(batch.labels[split])
            accuracy = right.mean(axis=1)
            low, high = share_interval(right.mean(axis=0), batch.units.get(split, np.arange(count)))
            rows.append(make_row(*key, f"{name}_accuracy", accuracy.mean(), count, split, "mlp") | {"low": low,
                                                                                                    "high": high})
            spread = accuracy.std(ddof=1) if len(accuracy) > 1 else np.nan
            rows.append(make_row(*key, f"{name}_accuracy_sd", spread, count, split, "mlp"))
    return rows
