"""Which trajectories the figures of the atlas put side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrace.atlas import figures
from finetrace.atlas.collect import Entry, by_layer
from finetrace.atlas.side_by_side import MANY, side_by_side
from finetrace.figures.methods import methods
from finetrace.figures.style import to_png
from finetrace.layout import Layout
from finetrace.lenses.infodynamics.figures import panels as infodynamics
from finetrace.lenses.infodynamics.slope import ResonanceNoveltySlope
from finetrace.lenses.probes.figures import lattice
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = "validation/accuracy"
MOST = 12
"""Trajectories of a task, or labels of them, in one figure at most: with more nobody tells lines apart."""
FLOORS = {"bag of words": "bag_of_words_accuracy", "most frequent class": "majority_accuracy"}
"""Name in the figure -> fact of a task's manifest."""


class Comparison(NamedTuple):
    """A figure of the atlas, the name of its file, and what stands below it."""

    name: str
    caption: str
    figure: "Figure"


class Picture(NamedTuple):
    """The same, drawn. png: the bytes of its file."""

    name: str
    caption: str
    png: bytes


def pictures(asked: Mapping[str, Any], layout: Layout, entries: Sequence[Entry]) -> Iterator[Picture]:
    """The figures of the atlas in the order of the page. asked: the settings of the stage.

    Those of many trajectories are drawn in processes of their own, from now on, whatever the caller does meanwhile.
    """
    by_task: dict[str, list[Entry]] = {}
    for entry in entries:
        by_task.setdefault(entry.task, []).append(entry)
    parts: list[tuple[Any, ...]] = [(_scores, layout, by_task)]
    for task, of_task in by_task.items():
        parts += [(_information_dynamics, task, of_task), (_training_methods, task, of_task),
                  (_layers, task, of_task, asked["test_split"])]
    parts.append((_pretraining, layout, asked["pretrained"]))
    return chain.from_iterable(side_by_side(_drawn, parts, many=len(entries) >= MANY))


def _drawn(part: Callable[..., Iterator[Comparison]], *of: Any) -> list[Picture]:
    return [Picture(each.name, each.caption, to_png(each.figure)) for each in part(*of)]


def readable(entries: Sequence[Entry], most: int = MOST) -> list[Entry]:
    """At most so many trajectories, in their order: the first seed of every model and method, then further seeds."""
    turns: dict[str, int] = {}
    ranked = []
    for number, entry in enumerate(entries):
        turns[entry.label] = turns.get(entry.label, 0) + 1
        ranked.append((turns[entry.label], number))
    return [entries[number] for number in sorted(number for _, number in sorted(ranked)[:most])]


def _of(shown: int, known: int, what: str = "trajectories") -> str:
    """The end of a caption where a figure leaves something out."""
    return f" {shown} of {known} {what}; the page's other views have them all." if shown < known else ""


def _scores(layout: Layout, by_task: Mapping[str, Sequence[Entry]]) -> Iterator[Comparison]:
    scored = {task: [entry for entry in entries if ACCURACY in entry.metrics["trajectory"]]
              for task, entries in by_task.items()}
    entries = [entry for of_task in list(filter(None, scored.values()))[:MOST] for entry in readable(of_task)]
    if not entries:
        return
    facts = {task: read_manifest(layout.task(task)).facts for task in dict.fromkeys(entry.task for entry in entries)}
    floors = {task: {name: of_task[key] for name, key in FLOORS.items() if key in of_task}
              for task, of_task in facts.items()}
    scores = [figures.Score(entry.task, f"{entry.label} s{entry.seed}",
                            entry.metrics["trajectory"][ACCURACY],
                            _validated(entry, facts[entry.task])) for entry in entries]
    caption = "Validation accuracy of every trajectory beside what a bag of words and guessing reach."
    caption += _of(len(entries), sum(map(len, scored.values())))
    yield Comparison("scores", caption, figures.scores(scores, floors))


def _validated(entry: Entry, facts: Mapping[str, Any]) -> int:
    """Validation examples behind an accuracy: all, or of given checkpoints those that predictions were made of."""
    if entry.given:
        facts = read_manifest(entry.folder / "predictions", verify=False).facts
    return int(facts["rows"]["validation"])


def _information_dynamics(task: str, entries: Sequence[Entry]) -> Iterator[Comparison]:
    looked_at = [entry for entry in entries if "infodynamics" in entry.metrics]
    curves = [_dynamics_curve(entry) for entry in readable(looked_at)]
    if curves:
        yield Comparison(f"infodynamics-{task}",
                         f"Novelty and resonance of the training logits on {task}; slopes beside their nulls."
                         + _of(len(curves), len(looked_at)),
                         infodynamics.comparison(curves, title=f"Information dynamics on {task}"))


def _dynamics_curve(entry: Entry) -> infodynamics.DynamicsCurve:
    columns = _read_csv(entry.folder / "infodynamics" / "curves.csv")
    metrics = {key: value for key, value in entry.metrics["infodynamics"].items() if value is not None}
    slope, r2, low, high, null_mean, null_low, null_high, p = (
        metrics.get(key, np.nan) for key in ("slope", "slope_r2", "slope_ci_low", "slope_ci_high", "slope_null_mean",
                                             "slope_null_low", "slope_null_high", "slope_p"))
    fitted = ResonanceNoveltySlope(slope, r2, np.nan, low, high, int(metrics["examples"]), np.empty(0), null_mean,
                                   null_low, null_high, p) if "slope" in metrics else None
    return infodynamics.DynamicsCurve(entry.label, columns["example"], columns["novelty"], columns["resonance"], fitted)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    content = np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))
    return {name: content[name] for name in content.dtype.names or ()}


def _training_methods(task: str, entries: Sequence[Entry]) -> Iterator[Comparison]:
    """Training methods on a task, where more than one was looked at."""
    looked_at = [entry for entry in entries if {"calibration", "features"} <= set(entry.metrics)]
    several_models = len({entry.model for entry in looked_at}) > 1
    by_label: dict[str, list[Entry]] = {}
    for entry in looked_at:
        by_label.setdefault(entry.label if several_models else entry.method, []).append(entry)
    if len(by_label) > 1:
        seeds_of = {label: [{**entry.metrics["calibration"], **entry.metrics["features"],
                             **_calibration_intervals(entry)} for entry in by_label[label]]
                    for label in list(by_label)[:MOST]}
        sets = _evaluation_sets([numbers for seeds in seeds_of.values() for numbers in seeds])
        yield Comparison(f"methods-{task}",
                         f"Training methods on {task}: accuracy also out of distribution, calibration, feature change."
                         + _of(len(seeds_of), len(by_label), "methods"),
                         methods(seeds_of, sets, "test" if "test" in sets else "validation",
                                 title=f"Training methods on {task}"))


def _evaluation_sets(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """The sets of which an accuracy is known: validation, test, then those out of distribution."""
    sets = dict.fromkeys(name.split("/")[0] for numbers in metrics for name in numbers if name.endswith("/accuracy"))
    order = {"validation": 0, "test": 1}
    return sorted((name for name in sets if name != "train"), key=lambda name: order.get(name, 2))


def _calibration_intervals(entry: Entry) -> dict[str, float]:
    """`{set}/{statistic}/{low,high}` of the kept weights, before temperature scaling."""
    rows = read_table(entry.folder / "calibration" / "table.parquet")
    meant = (pc.equal(rows["step"], entry.manifest.facts["kept_step"]), pc.invert(rows["scaled"]),
             pc.is_in(rows["statistic"], pa.array(["accuracy", "ece"])))
    kept = rows.filter(reduce(pc.and_, meant)).to_pylist()
    return {f"{row['set']}/{row['statistic']}/{end}": row[end] for row in kept for end in ("low", "high")}


class Ends(NamedTuple):
    """What the first and the last checkpoint of trajectories are called."""

    title: str
    caption: str
    states: tuple[str, str]
    rows: tuple[str, str]


TRAINED = Ends("Before and after training", "What training changed on {}, layer by layer: dashed before, solid after.",
               ("before training", "after"), ("before", "after"))
GIVEN = Ends("First and last checkpoint", "The first checkpoint (dashed) and the last (solid) on {}, layer by layer.",
             ("first checkpoint", "last"), ("first", "last"))
"""Of checkpoints that were made elsewhere, which need not begin before a training."""


def _layers(task: str, entries: Sequence[Entry], split: str) -> Iterator[Comparison]:
    """What training changed layer by layer: geometry, and what probes find."""
    sources: dict[str, tuple[str, str, dict[str, str]]] = {
        "cosine within sentences": ("geometry", "cosine_mean", {}),
        "effective rank": ("geometry", "effective_rank", {}),
        "probe accuracy": ("probes", "accuracy", {"split": split})}
    looked_at = [entry for entry in entries if {"geometry", "probes"} & set(entry.metrics)]
    shown = readable(looked_at)
    panels = {name: {f"{entry.label} s{entry.seed}": layers for entry in shown
                     if (layers := by_layer(entry.folder, lens, statistic, **where))}
              for name, (lens, statistic, where) in sources.items()}
    ends = GIVEN if any(entry.given for entry in entries) else TRAINED
    if any(panels.values()):
        yield Comparison(f"layers-{task}", ends.caption.format(task) + _of(len(shown), len(looked_at)),
                         figures.before_and_after({name: panel for name, panel in panels.items() if panel}, ends.states,
                                                  title=f"{ends.title} on {task}"))
    if panels["probe accuracy"]:
        rows = {f"{label}, {state}": {layer: tuple(values[position]) for layer, values in layers.items()}
                for label, layers in panels["probe accuracy"].items()
                for state, position in zip(ends.rows, (0, -1), strict=True)}
        yield Comparison(f"lattice-{task}", f"Accuracy of probes on {task} by layer, {ends.title.lower()}."
                         + _of(len(shown), len(looked_at)),
                         lattice(rows, split=split, floor=_majority_floor(entries, split),
                                 title=f"Probe accuracy on {task}"))


def _majority_floor(entries: Sequence[Entry], split: str) -> float | None:
    """Accuracy of the most frequent class, which probes of all trajectories of a task share; None where unknown."""
    name = f"majority_floor/{split}"
    return next((entry.metrics["probes"][name] for entry in entries if name in entry.metrics.get("probes", {})), None)


def _pretraining(layout: Layout, models: Sequence[str]) -> Iterator[Comparison]:
    curves = {}
    for model in models:
        history = read_table(layout.pretrain(model) / "history.parquet").to_pylist()
        rows = [row for row in history if row["kind"] == "eval"]
        step, loss, accuracy = (np.array([row[column] for row in rows]) for column in ("step", "loss", "accuracy"))
        curves[model] = step, loss, accuracy
    if curves:
        yield Comparison("pretraining", "How the micro-BERTs learned their language.", figures.pretraining(curves))
