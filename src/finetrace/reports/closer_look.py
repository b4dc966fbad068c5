"""The tables of Zhou and Srikumar (2022), "A closer look at how fine-tuning changes BERT", from a study's finished
outputs.

Reads tables of the lenses hulls, probes and of cross-task; writes nothing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetrace.layout import Layout
from finetrace.longtable import LongTable
from finetrace.reports import markdown
from finetrace.reports.markdown import NONE
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_long_table
from finetrace.study.study import Run, Study

HULLS = ("clusters", "linear", "similarity_between_splits")
OF_FIT = ("mlp_hidden_1", "mlp_hidden_2")
PROBES = ("mlp_accuracy", "mlp_accuracy_sd", *OF_FIT, "accuracy")


@dataclass(frozen=True)
class State:
    """One layer at one checkpoint; NaN where nothing is known."""

    accuracy: float = np.nan
    """Share of test examples that the perceptrons get right (mean over seeds), or the logistic regression without
    them."""
    sd: float = np.nan
    """Standard deviation over seeds; NaN for the logistic regression."""
    hidden: tuple[float, ...] = ()
    """Sizes of the hidden layers that won the grid search."""
    clusters: float = np.nan
    linear: float = np.nan
    """1: one cluster per label."""
    similarity: float = np.nan
    """Pearson's r between the label distances of training and test examples; the study gives it for linear spaces
    only."""


@dataclass(frozen=True)
class Cell:
    """One model on one task, original and tuned."""

    row: str
    task: str
    original: State
    tuned: State


def tables(layout: Layout, study: Study, *, layer: int = -1, split: str | None = None) -> str:
    """All tables as Markdown: models x tasks, best hidden sizes, cross-task effect, counts, and what is missing.

    layer: position in the lenses' lists of layers (-1: the last);  split: on which the classifiers are scored, by
    default test where probes.test_splits has it, else the first one there. Cells without outputs are `-`.
    """
    splits = study.probes.test_splits
    split = split or ("test" if "test" in splits else splits[0])
    cells, missing = _cells(layout, study, layer, split)
    parts = [_grid("Original; tuned: accuracy (sd) / clusters / linear / similarity of training and test", cells,
                   _shown)]
    if any(cell.original.hidden or cell.tuned.hidden for cell in cells):
        parts.append(_grid("Best hidden sizes, original; tuned", cells, lambda s: ",".join(f"{h:g}" for h in s.hidden)
                           or NONE))
    effects, absent = cross_tasks(layout, study, layer)
    parts += [f"**Cross-task effect on {task}**\n\n{markdown.table(EFFECT, rows)}" for task, rows in effects.items()]
    which = "the last layer" if layer == -1 else f"layer {layer} of those looked at"
    parts.append(f"{which.capitalize()}; accuracy in % on {split}, in brackets the standard deviation over seeds"
                 + ("; *: logistic regression" if any(re.search(r"\d\*", part) for part in parts)
                    else "") + ". " + counts(cells))
    if missing + absent:
        parts.append("Missing:\n" + "\n".join(f"- {line}" for line in missing + absent))
    return "\n\n".join(parts) + "\n"


EFFECT = ("tuned on", "labels up", "labels down", "mean change of min distance", "accuracy")


def cross_tasks(layout: Layout, study: Study, layer: int = -1) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Rows of the cross-task table by probed task (and model, if there are several), and what is missing.

    The first row, `none`, is the accuracy before any training.
    """
    rows_by_task: dict[str, list[list[str]]] = {}
    missing = []
    models = {study.trajectories[entry.trajectory].model for entry in study.cross_tasks.values()}
    for name, entry in study.cross_tasks.items():
        folder, item = layout.cross_task(name), study.trajectories[entry.trajectory]
        values = _values(folder, ("labels_grown", "labels_shrunk", "mean_growth", "accuracy", "mlp_accuracy"), layer)
        if values is None:
            missing.append(f"cross-task effect {name}: dvc repro cross-task@{name}")
            continue
        before, after = values
        where = f"{entry.task} in {item.model}" if len(models) > 1 else entry.task
        accuracies = [_percent(metrics["mlp_accuracy"]) if "mlp_accuracy" in metrics
                      else f"{_percent(metrics['accuracy'])}*" if "accuracy" in metrics
                      else NONE for metrics in (before, after)]
        rows = rows_by_task.setdefault(where, [["none", NONE, NONE, NONE, accuracies[0]]])
        rows.append([item.task, f"{after['labels_grown']:.0f}", f"{after['labels_shrunk']:.0f}",
                     _signed(after["mean_growth"]), accuracies[1]])
    return rows_by_task, missing


def counts(cells: Sequence[Cell]) -> str:
    """One sentence about how many cells improved, lost clusters, lost similarity."""
    pairs = [(c.original, c.tuned) for c in cells]
    better = [t.accuracy - o.accuracy for o, t in pairs if np.isfinite([o.accuracy, t.accuracy]).all()]
    fewer = [t.clusters - o.clusters for o, t in pairs if np.isfinite([o.clusters, t.clusters]).all()]
    alike = [t.similarity - o.similarity for o, t in pairs
             if o.linear == 1 and t.linear == 1 and np.isfinite([o.similarity, t.similarity]).all()]
    if not better and not fewer:
        return "No cell is complete."
    return (f"Tuning raised the accuracy in {sum(d > 0 for d in better)} of {len(better)} cells; the number of "
            f"clusters fell in {sum(d < 0 for d in fewer)} of {len(fewer)}, rose in {sum(d > 0 for d in fewer)} and "
            f"stayed in {sum(d == 0 for d in fewer)}; the similarity of training and test fell in "
            f"{sum(d < 0 for d in alike)} of the {len(alike)} cells that are linear before and after.")


def _cells(layout: Layout, study: Study, layer: int, split: str) -> tuple[list[Cell], list[str]]:
    cells, missing = [], []
    for key, item in _looked_at(study).items():
        folder = layout.run(item.model, item.task, item.method, item.seed)
        hulls = _values(folder / "hulls", HULLS, layer, study.hulls.split)
        probes = _values(folder / "probes", PROBES, layer, split)
        lacking = [lens for lens, metrics in (("hulls", hulls), ("probes", probes))
                   if metrics is None and item.place in study.looked.get(lens, {})]  # no others are items of the study
        if lacking:
            missing.append(f"{key}: dvc repro {' '.join(f'{lens}@{key}' for lens in lacking)}")
        if probes is not None and not any("accuracy" in name for names in probes for name in names):
            missing.append(f"{key}: has no accuracy on {split}; add it to probes.test_splits (and hidden.rows) in "
                           "params.yaml")
        states = [_state(*(None if metrics is None else metrics[i] for metrics in (hulls, probes))) for i in (0, 1)]
        cells.append(Cell(_row_name(study, item), item.task, *states))
    return cells, missing


def _looked_at(study: Study) -> dict[str, Run]:
    """The fine-tunings that the hull probe or the classifier probes look at."""
    places = {*study.looked.get("hulls", {}), *study.looked.get("probes", {})}
    return {key: run for key, run in study.trajectories.items() if run.place in places}


def _state(hulls: dict[str, float] | None, probes: dict[str, float] | None) -> State:
    hull_metrics, probe_metrics = hulls or {}, probes or {}
    trained = "mlp_accuracy" in probe_metrics
    sizes = (probe_metrics.get(f"mlp_hidden_{i}", np.nan) for i in (1, 2))
    return State(probe_metrics.get("mlp_accuracy" if trained else "accuracy", np.nan),
                 probe_metrics.get("mlp_accuracy_sd", np.nan),
                 tuple(s for s in sizes if np.isfinite(s) and s > 0), hull_metrics.get("clusters", np.nan),
                 hull_metrics.get("linear", np.nan), hull_metrics.get("similarity_between_splits", np.nan))


def _row_name(study: Study, item: Run) -> str:
    """The model; with method and seed where the study has several."""
    varies = [len({getattr(run, key) for run in _looked_at(study).values()}) > 1 for key in ("method", "seed")]
    return " ".join([item.model, *([item.method] if varies[0] else []), *([f"s{item.seed}"] if varies[1] else [])])


def _values(folder: Path, statistics: Sequence[str], layer: int, split: str | None = None
            ) -> tuple[dict[str, float], dict[str, float]] | None:
    """Statistics at the first and at the last checkpoint of one layer: name -> value; None without a finished folder.

    split: rows of the probed split, and those of the training split about the fit itself (sizes of networks).
    """
    if not (folder / "manifest.json").is_file():
        return None
    read_manifest(folder)
    table = LongTable(read_long_table(folder / "table.parquet").shared())
    steps, rows = table.distinct("step"), table.select(statistic=list(statistics), label="")
    layers = rows.distinct("layer")
    if not -len(layers) <= layer < len(layers):
        return None
    if split is not None:
        rows = LongTable(rows.frame[rows.frame["split"].eq(split) | rows.frame["statistic"].isin(OF_FIT)])
    means = rows.select(layer=layers[layer]).averaged("step", "statistic")  # Adam heads have a row per seed
    ends = (means.select(step=step).frame for step in (steps[0], steps[-1]))
    first, last = (dict(zip(end["statistic"], end["value"], strict=True)) for end in ends)
    return first, last


def _shown(state: State) -> str:
    """accuracy (sd) / clusters / Y or N / similarity; `-` where unknown, or undefined as in spaces that are not
    linear."""
    if not np.isfinite([state.accuracy, state.clusters]).any():
        return NONE
    spread = f" ({100 * state.sd:.2f})" if np.isfinite(state.sd) else "*" if np.isfinite(state.accuracy) else ""
    clusters = f"{state.clusters:,.0f}" if np.isfinite(state.clusters) else NONE
    linear = {1.0: "Y", 0.0: "N"}.get(state.linear, NONE)
    alike = f"{state.similarity:.2f}" if state.linear == 1 and np.isfinite(state.similarity) else NONE
    return f"{_percent(state.accuracy)}{spread} / {clusters} / {linear} / {alike}"


def _grid(heading: str, cells: Sequence[Cell], show: Callable[[State], str]) -> str:
    """A table with a row per model and a column per task."""
    rows, columns = list(dict.fromkeys(c.row for c in cells)), list(dict.fromkeys(c.task for c in cells))
    texts = {(c.row, c.task): f"{show(c.original)}; {show(c.tuned)}" for c in cells}
    nothing = f"{NONE}; {NONE}"
    body = [[row, *(NONE if (text := texts.get((row, task), nothing)) == nothing else text for task in columns)]
            for row in rows]
    return f"**{heading}**\n\n{markdown.table(('model', *columns), body)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}" if np.isfinite(share) else NONE


def _signed(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else NONE
