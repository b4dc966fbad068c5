"""The figures of learning dynamics, from its table: which courses stand in which panel."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.lenses.dynamics.figures import panels as figures
from finetrace.lenses.dynamics.figures.panels import Dot, Line, Panel
from finetrace.lenses.dynamics.report import headlines, last_layer, layers_of, phenomena_of
from finetrace.lenses.dynamics.table import DIFFERENCES, UNION, Course, Key, Table
from finetrace.lenses.pairs.summary import AGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"edges": "{}: words probed", "cloze": "{}: facts", "pairs": "{}: minimal pairs",
          "downstream": "{}: learned downstream"}
NAMES = {"f1": "F1 (%)", "p_at_1": "P@1 (%)", "accuracy": "accuracy (%)"}
MARK = "90 % of the gain"
CHANCE = ("chance", 50.0)
MOST_LINES = 8


def draw(record: Mapping[str, Any]) -> "dict[str, Figure]":
    """Name -> figure. record: name, table (columns of what `report.drawn` keeps), axes, units, note as in
    `figures_of`."""
    table = Table.of_columns(record["table"])
    return figures_of(record["name"], table, record["axes"], record["units"], record["note"])


def figures_of(name: str, table: Table, axes: Mapping[str, str], units: Mapping[str, float],
               note: str) -> dict[str, "Figure"]:
    """Name of the file -> Figure; those about adaptation, or about downstream tasks, only where there are any.

    axes, units: arm -> what its steps count, and the unit of its logarithmic axis.
    """
    heads = list(headlines(table))
    axis, unit = axes["original"], units["original"]
    drawn = {"overview": figures.courses([_overview(table, key) for _, key in heads], axis=axis, unit=unit, mark=MARK,
                                         note=note, title=f"What is learned when: {name}")}
    steps = sorted({int(step) for _, key in heads for step in table.course(key).steps})
    if len(steps) > 1:
        drawn["step_90"] = figures.gains({_label(key): _dots(table, key) for _, key in heads}, steps=steps, axis=axis,
                                         unit=unit, note=note, title=f"When the gain was made: {name}")
    if table.items_of("pairs"):
        drawn["acquisition"] = _acquisition(table, axes, unit, note, name)
    later = [arm for arm in axes if arm != "original"]
    shown = [arm for arm in later if axes[arm] == axes[later[0]]]
    over, over_unit = (axes[later[0]], units[later[0]]) if later else (axis, unit)
    caption = note if over == axis else f"original: its last checkpoint; {note}"
    cogs = [(task, key) for task in table.items_of("edges") for key, _ in
            table.select(source="edges", item=task, arm="original", statistic="cog", readout="full")]
    if cogs:
        panels = [figures.Panel(task, _arms(table, key, axes, shown, 1.0), ylabel="layer") for task, key in cogs]
        drawn["centre_of_gravity"] = figures.courses(panels, axis=over, unit=over_unit, note=caption,
                                                     title=f"Centre of gravity of the mixing weights: {name}")
    if later:
        panels = [figures.Panel(_label(key), _arms(table, key, axes, shown), ylabel=NAMES[key.statistic])
                  for _, key in heads]
        drawn["arms"] = figures.courses(panels, axis=over, unit=over_unit, note=caption,
                                        title=f"Adapted and original: {name}")
    moved = {_label(key): _differences(table, key) for _, key in heads}
    if any(moved.values()):
        drawn["differences"] = figures.differences({label: differences for label, differences in moved.items()
                                                    if differences}, note=note,
                                                   title=f"What adaptation changed, at the last checkpoint: {name}")
    if table.items_of("downstream"):
        drawn["downstream"] = _side_by_side(table, heads, axis, unit, note,
                                            f"Downstream scores beside probes and facts: {name}")
    return drawn


def _label(key: Key) -> str:
    return TITLES[key.source].format(key.item)


def _line(label: str, course: Course, factor: float = 100.0) -> Line:
    return Line(label, course.steps, course.value, course.low, course.high, factor)


def _overview(table: Table, key: Key) -> Panel:
    """A panel of one task or corpus: its headline and what stands beside it."""
    names = {"edges": "all layers mixed" if key.readout == "full" else "last layer", "cloze": "P@1, last layer",
             "pairs": "all phenomena", "downstream": "fine-tuned"}
    lines, floor = [_line(names[key.source], table.course(key))], None
    if key.source == "edges":
        single = layers_of(table, "edges", key.item, "f1", "layer")
        ends = ("last layer", max(single, default=None)), ("embeddings", 0)
        lines += [_line(name, single[layer]) for name, layer in ends if layer in single
                  and single[layer] is not table.get(key)]
        floors = [course for _, course in table.select(source="edges", item=key.item, arm="original",
                                                       statistic="majority")]
        floor = ("majority class", 100 * floors[-1].value[-1]) if floors else None
    elif key.source == "cloze":
        others = {"P@1, any layer": key._replace(layer=UNION), "P@10, last layer": key._replace(statistic="p_at_10"),
                  "P@1, held-out facts": last_layer(table, key.item, key.readout, held_out=True)}
        lines += [_line(name, course) for name, other in others.items() if other
                  and (course := table.get(other)) is not None]
    elif key.source == "pairs":
        control = table.get(key._replace(held_out=True))
        lines += [_line("control pairs", control)] if control is not None else []
        floor = CHANCE
    else:
        majority = table.get(key._replace(statistic="majority"))
        floor = ("majority class", 100 * majority.value[-1]) if majority is not None else None
    mark = table.get(key._replace(statistic=f"{key.statistic}_step_90"))
    ylabel = "share of facts (%)" if key.source == "cloze" else NAMES[key.statistic]
    return Panel(_label(key), lines, ylabel, floor, None if mark is None else float(mark.value[-1]))


def _acquisition(table: Table, axes: Mapping[str, str], unit: float, note: str, name: str) -> "Figure":
    """A panel per phenomenon of minimal pairs: the original and what shares its time axis, and when it is acquired."""
    shown = [arm for arm in axes if axes[arm] == axes["original"]]
    several = len(table.items_of("pairs")) > 1
    panels = []
    for key in (key for item in table.items_of("pairs") for key in phenomena_of(table, item)):
        courses = {arm: table.get(key._replace(arm=arm)) for arm in shown}
        age = table.get(key._replace(statistic=AGE))
        title = f"{key.item}: {key.relation}" if several else key.relation
        panels.append(Panel(title, [_line(arm, course) for arm, course in courses.items() if course is not None],
                            NAMES["accuracy"], CHANCE, None if age is None else float(age.value[-1])))
    return figures.courses(panels, axis=axes["original"], unit=unit, mark="age of acquisition", note=note,
                           title=f"When phenomena are acquired: {name}")


def _arms(table: Table, key: Key, axes: Mapping[str, str], shown: Sequence[str], factor: float = 100.0) -> list[Line]:
    """Lines of the original and the arms that are shown; where these have a time axis of their own, the original is
    level."""
    lines = []
    for arm in shown:
        if (course := table.get(key._replace(arm=arm))) is not None:
            lines.append(_line(arm, course, factor))
    course = table.course(key)
    if lines and axes[shown[0]] != axes["original"]:
        steps = np.unique(np.concatenate([line.steps for line in lines]))
        value, low, high = (np.full(len(steps), end) for end in course.last)
        return [Line("original", steps, value, low, high, factor), *lines]
    return [_line("original", course, factor), *lines]


def _differences(table: Table, key: Key) -> dict[str, tuple[float, float, float]]:
    courses = {arm: table.get(key._replace(arm=arm)) for arm in DIFFERENCES}
    return {arm: course.last for arm, course in courses.items() if course is not None}


def _dots(table: Table, key: Key) -> list[Dot]:
    """When 90 % of the gain was made: of the headline, and of every layer."""
    statistic = f"{key.statistic}_step_90_interpolated"
    gain = table.get(key._replace(statistic=statistic))
    dots = [] if gain is None else [Dot(None, *gain.last)]
    readout = {"edges": "layer", "cloze": key.readout}.get(key.source)
    single = layers_of(table, key.source, key.item, statistic, readout) if readout else {}
    return [*(Dot(layer, course.last[0]) for layer, course in single.items()), *dots]


def _side_by_side(table: Table, heads: Sequence[tuple[str, Key]], axis: str, unit: float, note: str,
                  title: str) -> "Figure":
    """Panels on one time axis: tasks learned downstream, probes of words, facts, minimal pairs."""
    panels = []
    for source, name in (("downstream", "Tasks learned downstream"), ("edges", "Words probed, all layers mixed"),
                         ("cloze", "Facts, last layer"), ("pairs", "Minimal pairs")):
        keys = [key for _, key in heads if key.source == source]
        if len(keys) > MOST_LINES:
            name += f" ({MOST_LINES} of {len(keys)})"
        if keys:
            panels.append(figures.Panel(name, [_line(key.item, table.course(key)) for key in keys[:MOST_LINES]],
                                        ylabel=NAMES[keys[0].statistic]))
    return figures.courses(panels, axis=axis, unit=unit, columns=1, note=note, title=title)
