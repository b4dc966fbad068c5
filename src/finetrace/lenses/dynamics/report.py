"""Headline numbers and curves of learning dynamics, from its table. Pure."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from finetrace.lenses.dynamics.gains import steepest_rise
from finetrace.lenses.dynamics.table import DIFFERENCES, UNION, Course, Key, Table
from finetrace.lenses.pairs.summary import AGE

MOST_CURVES = 30
DRAWN = ("f1", "accuracy", "p_at_1", "p_at_10", "cog", "majority")
"""Statistics that figures show, those of the first four with the step at 90 % of their gain."""


def full_mix(table: Table, task: str, arm: str = "original", statistic: str = "f1") -> Course | None:
    """A statistic of the mix of all layers of a task."""
    courses = table.select(source="edges", item=task, arm=arm, statistic=statistic, readout="full")
    return next((course for _, course in courses), None)


def layers_of(table: Table, source: str, item: str, statistic: str, readout: str,
              arm: str = "original") -> dict[int, Course]:
    """The courses of single layers (of `layer`, or of a readout of cloze), by layer; relations and `any layer` are
    left out."""
    courses = table.select(source=source, item=item, arm=arm, statistic=statistic, readout=readout, relation="",
                           held_out=False)
    return {key.layer: course for key, course in courses if key.layer != UNION}


def readouts_of(table: Table, corpus: str) -> list[str]:
    """What read the facts of a corpus: own first."""
    readouts = dict.fromkeys(key.readout for key, _ in table.select(source="cloze", item=corpus, statistic="p_at_1"))
    return sorted(readouts, key=lambda name: (name != "own", name))


def last_layer(table: Table, corpus: str, readout: str, statistic: str = "p_at_1", arm: str = "original",
               held_out: bool = False) -> Key | None:
    """The key of the last layer's course; None if there is none."""
    courses = table.select(source="cloze", item=corpus, arm=arm, statistic=statistic, readout=readout, relation="",
                           held_out=held_out)
    return max((key for key, _ in courses if key.layer != UNION), key=lambda key: key.layer, default=None)


def phenomena_of(table: Table, name: str) -> list[Key]:
    """Keys of the accuracies of a set's phenomena in the arm original, its control left out."""
    courses = table.select(source="pairs", item=name, arm="original", statistic="accuracy", held_out=False)
    return [key for key, _ in courses if key.relation]


def headlines(table: Table) -> Iterator[tuple[str, Key]]:
    """The score that stands for each task, corpus, set of pairs and downstream task: name and key in the arm
    original."""
    for task in table.items_of("edges"):
        mixes = [key for name in ("layer", "full") for key, _ in
                 table.select(source="edges", item=task, arm="original", statistic="f1", readout=name)]
        if mixes:  # the mix of all layers stands last; without mixes the last layer does
            yield f"edges/{task}", mixes[-1]
    for corpus in table.items_of("cloze"):
        for readout in readouts_of(table, corpus)[:1]:
            if (key := last_layer(table, corpus, readout)) is not None:
                yield f"cloze/{corpus}", key
    for name in table.items_of("pairs"):
        yield f"pairs/{name}", Key("pairs", name, "original", "accuracy")
    for task in table.items_of("downstream"):
        yield f"downstream/{task}", Key("downstream", task, "original", "accuracy")


def metrics(table: Table, unit: float) -> dict[str, float]:
    """What a person compares between runs: of each headline first, last, step at 90 % of the gain and area; centres of
    gravity; the transition of facts; ages of acquisition; adapted minus original at the last step. What is unknown is
    left out."""
    numbers: dict[str, float] = {}
    for name, key in headlines(table):
        course = table.get(key)
        if course is None:
            continue
        numbers |= {f"{name}/{key.statistic}/first": course.value[0], f"{name}/{key.statistic}/last": course.value[-1]}
        for statistic in ("step_90", "area"):
            if (result := table.get(key._replace(statistic=f"{key.statistic}_{statistic}"))) is not None:
                numbers[f"{name}/{key.statistic}/{statistic}"] = result.value[-1]
        for arm in DIFFERENCES:
            if (result := table.get(key._replace(arm=arm))) is not None:
                numbers[f"{name}/{key.statistic}/{arm}"] = result.value[-1]
    for task in table.items_of("edges"):
        if (cog := full_mix(table, task, statistic="cog")) is not None:
            numbers |= {f"edges/{task}/cog/first": cog.value[0], f"edges/{task}/cog/last": cog.value[-1]}
        if (moved := full_mix(table, task, "difference", "cog")) is not None:
            numbers[f"edges/{task}/cog/difference"] = moved.value[-1]
        for _, course in table.select(source="edges", item=task, arm="original", statistic="expected_layer"):
            numbers[f"edges/{task}/expected_layer/last"] = course.value[-1]
    for corpus in table.items_of("cloze"):
        numbers |= _fact_metrics(table, corpus, unit)
    for name in table.items_of("pairs"):
        if (age := table.get(Key("pairs", name, "original", AGE))) is not None:
            numbers[f"pairs/{name}/{AGE}"] = age.value[-1]
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def _fact_metrics(table: Table, corpus: str, unit: float) -> dict[str, float]:
    """The transition of one corpus' facts: steepest rise of P@1, what any layer knows, onset, the facts held out."""
    numbers: dict[str, float] = {}
    for readout in readouts_of(table, corpus)[:1]:
        key = last_layer(table, corpus, readout)
        course = None if key is None else table.get(key)
        if key is None or course is None:
            continue
        rise = steepest_rise(course.steps, course.value, unit)
        names = ("step_before", "step_after", "p_at_1_before", "p_at_1_after")
        numbers |= {f"cloze/{corpus}/steepest/{name}": float(value) for name, value in zip(names, rise, strict=True)}
        others = {"p_at_10/last": key._replace(statistic="p_at_10"), "p_at_1_any_layer/last": key._replace(layer=UNION),
                  "onset_layer/last": key._replace(statistic="onset_layer", layer=0)}
        held_out = last_layer(table, corpus, readout, held_out=True)
        if held_out is not None:
            others["p_at_1_held_out/last"] = held_out
        for name, other in others.items():
            if (result := table.get(other)) is not None:
                numbers[f"cloze/{corpus}/{name}"] = result.value[-1]
    return numbers


def drawn(table: Table) -> Table:
    """The courses that figures show: `DRAWN`, of whole tasks and corpora; of pairs every phenomenon and its age."""
    shown = Table()
    for key, course in table.select():
        is_summary = key.statistic.removesuffix("_interpolated").removesuffix("_step_90") in DRAWN and not key.relation
        if is_summary or (key.source == "pairs" and key.statistic in ("accuracy", AGE)):
            shown.add(key, course.steps, course.value, course.low, course.high, course.p, n=course.n,
                      seeds=course.seeds)
    return shown


def curves(table: Table, axis_of: dict[str, str]) -> tuple[dict[str, Any], int]:
    """Columns of curves.csv, `step` first: headline scores of the arms on the original's time axis, then centres of
    gravity.

    axis_of: arm -> what its steps count. Returns the columns (None where a step is missing) and how many curves were
    left out because there is room for 30.
    """
    named: dict[str, Course] = {}
    arms = [arm for arm, axis in axis_of.items() if axis == axis_of["original"]]
    heads = list(headlines(table))
    cogs = [(f"edges/{task}", "cog") for task in table.items_of("edges")]
    for arm in arms:
        suffix = "" if arm == "original" else f"_{arm}"
        for name, key in heads:
            if (course := table.get(key._replace(arm=arm))) is not None:
                named[f"{name}/{key.statistic}{suffix}"] = course
        for name, statistic in cogs:
            if (course := full_mix(table, name.partition("/")[2], arm, statistic)) is not None:
                named[f"{name}/{statistic}{suffix}"] = course
    shown = dict(list(named.items())[:MOST_CURVES])
    steps = sorted({int(step) for course in shown.values() for step in course.steps})
    columns: dict[str, Any] = {"step": steps}
    for name, course in shown.items():
        finite = {int(s): float(v) for s, v in zip(course.steps, course.value, strict=True) if np.isfinite(v)}
        columns[name] = [finite.get(step) for step in steps]
    return columns, len(named) - len(shown)
